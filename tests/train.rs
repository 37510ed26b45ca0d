//! `train` as its users meet it: a tiny model learns three pictures on the CPU, and draws otherwise with what it learned.

mod ran;

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use ran::{Ran, headroom};

/// A folder with a tiny model and three pictures, in which the program runs.
struct Studio {
    folder: TempDir,
}

impl Studio {
    fn new() -> Self {
        let studio = Self { folder: tempfile::tempdir().expect("a folder can be made") };
        studio.run(&["profile", "--make-tiny", "tiny"]).ends(0, &["random weights"]);
        for seed in ["1", "2", "3"] {
            studio.draw(&["--seed", seed, "--out", &format!("{seed}.png")]);
        }
        studio
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut headroom(self.folder.path(), args))
    }

    /// One picture by `worker --once`.
    fn draw(&self, args: &[&str]) {
        let always = [
            "worker", "--once", "--device", "cpu", "--model", "tiny", "--prompt", "the cat", "--frames", "1",
        ];
        self.run(&[&always, args].concat()).ends(0, &[]);
    }

    /// `train` on the three pictures.
    fn train(&self, args: &[&str]) -> Ran {
        let always = ["train", "--device", "cpu", "--model", "tiny", "--prompt", "the cat"];
        let images = ["--images", "1.png", "2.png", "3.png"];
        self.run(&[&always, args, &images].concat())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(name)).expect("the file was written")
    }
}

#[test]
fn what_was_learned_changes_what_is_drawn() {
    let studio = Studio::new();
    let learn = |out: &str, args: &[&str]| {
        let always = ["--steps", "20", "--learning-rate", "1e-2", "--out", out, "--json"];
        studio.train(&[&always, args].concat()).json()
    };
    let learned = learn("cat.safetensors", &["--batch", "2"]);
    assert_eq!(
        (&learned["images"], &learned["steps"], &learned["layers"]),
        (&3.into(), &20.into(), &32.into())
    );
    assert_eq!(learned["bytes"], studio.bytes("cat.safetensors").len());
    assert_eq!(learned["losses"].as_array().expect("losses are a list").len(), 20);
    let loss = |name: &str| learned[name].as_f64().expect("losses are numbers");
    assert!(loss("loss_after") < 0.95 * loss("loss_before"), "{learned}");

    learn("again.safetensors", &["--batch", "2"]);
    assert_eq!(studio.bytes("cat.safetensors"), studio.bytes("again.safetensors"));
    learn("other.safetensors", &["--batch", "2", "--seed", "2"]);
    assert_ne!(studio.bytes("cat.safetensors"), studio.bytes("other.safetensors"));

    let drawn = |strength: &str| {
        studio.draw(&["--seed", "1", "--lora", &format!("cat.safetensors={strength}"), "--out", "drawn.png"]);
        studio.bytes("drawn.png")
    };
    assert_eq!(drawn("0"), studio.bytes("1.png"));
    assert_ne!(drawn("1"), studio.bytes("1.png"));

    let clip = learn("clip.safetensors", &["--clip", "--motion"]);
    assert_eq!(clip["layers"], 88);
    let frames = ["--frames", "2", "--lora", "clip.safetensors=1", "--out", "clip.png"];
    let worker = ["worker", "--once", "--device", "cpu", "--model", "tiny", "--prompt", "the cat"];
    studio.run(&[&worker[..], &frames].concat()).ends(0, &[]);
}

/// Killed in the middle, a training goes on from its checkpoint, and makes the file that it would have made.
#[test]
fn a_killed_training_goes_on() {
    let studio = Studio::new();
    let asked = ["--steps", "400", "--learning-rate", "1e-3", "--out", "whole.safetensors"];
    studio.train(&asked).ends(0, &[]);
    let checkpoint = studio.folder.path().join("checkpoint");
    let kept = [
        "--steps",
        "400",
        "--learning-rate",
        "1e-3",
        "--checkpoint",
        "checkpoint",
        "--checkpoint-every",
        "7",
    ];
    let always =
        ["train", "--device", "cpu", "--model", "tiny", "--prompt", "the cat", "--out", "kept.safetensors"];
    let images = ["--images", "1.png", "2.png", "3.png"];
    let mut killed = headroom(studio.folder.path(), &[&always[..], &kept, &images].concat())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program runs");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !checkpoint.exists() {
        assert!(Instant::now() < deadline, "no checkpoint");
        thread::sleep(Duration::from_millis(1));
    }
    killed.kill().expect("it runs");
    killed.wait().expect("it was killed");
    assert!(!studio.folder.path().join("kept.safetensors").exists(), "it was killed in time");

    let other = [&kept[..], &["--seed", "2", "--out", "none.safetensors"]].concat();
    studio.train(&other).ends(3, &["of another training", "seed is 1 there and 2 here"]);
    let again = studio.train(&[&kept[..], &["--out", "kept.safetensors", "--json"]].concat()).json();
    let before = again["steps_before"].as_u64().expect("a number");
    assert!(before > 0 && before.is_multiple_of(7) && before < 400, "{again}");
    assert_eq!(studio.bytes("kept.safetensors"), studio.bytes("whole.safetensors"));
    assert!(!checkpoint.exists(), "nothing is left to go on with");

    std::fs::write(&checkpoint, b"damaged").expect("a file can be written");
    studio.train(&kept).ends(3, &["checkpoint `checkpoint`: is damaged", "remove it"]);
    let nowhere = ["--steps", "2", "--checkpoint", "absent/checkpoint"];
    studio.train(&nowhere).ends(1, &["absent/checkpoint", "check that the folder exists"]);
}

#[test]
fn mistakes_end_with_their_codes() {
    let studio = Studio::new();
    let check = |args: &[&str], code: i32, said: &[&str]| {
        studio.train(&[args, &["--out", "none.safetensors"]].concat()).ends(code, said);
        assert!(!studio.folder.path().join("none.safetensors").exists(), "{args:?} wrote a file");
    };
    check(&["--rank", "0"], 3, &["rank 0 is not within 1 to 1024"]);
    check(&["--steps", "0"], 3, &["steps 0 is not within 1 to"]);
    check(&["--learning-rate", "NaN"], 3, &["learning rate NaN is not above 0 and at most 1"]);
    check(&["--size", "7"], 3, &["width 7 is not a multiple of"]);
    check(&["--motion"], 2, &["--clip"]);
    let absent = ["train", "--model", "tiny", "--prompt", "a", "--images", "1.png", "absent.png"];
    studio.run(&absent).ends(3, &["image `absent.png`: cannot be opened"]);
    studio.run(&absent[..5]).ends(2, &["--images"]);
    if !std::path::Path::new("/dev/nvidia0").exists() {
        let cuda = ["train", "--device", "cuda", "--model", "tiny", "--prompt", "a", "--images", "1.png"];
        studio.run(&cuda).ends(1, &["is not available", "--device cpu"]);
    }
}
