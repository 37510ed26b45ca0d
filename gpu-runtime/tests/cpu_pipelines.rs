//! Whole requests on the CPU backend: against the recorded pipelines, and what requests may and may not ask for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod golden;

use golden::{Recorded, fixtures, recorded, relative_error};
use gpu_runtime::RuntimeError;
use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::generate::{CancelToken, Exact, Generator, Inputs, Progress, Request, Start, make_tiny};
use gpu_runtime::model::ModelSource;
use gpu_runtime::picture::Picture;
use gpu_runtime::schedule::{Sampler, SchedulerFile};

const TOLERANCE: f64 = 1e-5;

fn request() -> Request {
    Request {
        prompt: "a photo of the cat running".to_owned(),
        seed: 7,
        steps: 4,
        frames: 1,
        width: 16,
        height: 16,
        // The recorded guidance embedding is that of scale minus one = 7.
        guidance: 8.0,
        start: None,
        sampler: None,
    }
}

fn generator(motion: bool) -> Generator {
    let mut source = ModelSource::folder(&fixtures().join("model"));
    if !motion {
        source.motion_adapter = None;
    }
    Generator::new(&source, Box::new(CpuBackend::new(2))).unwrap()
}

/// Runs a request with recorded noise.
fn exactly(
    generator: &mut Generator,
    request: &Request,
    start: Option<(&[f32], f64)>,
    start_noise: Vec<f32>,
    golden: &std::collections::BTreeMap<String, Recorded>,
) -> Exact {
    let mut noise = |stream: &str, values: &mut [f32]| {
        let recorded = match stream.strip_prefix("step ") {
            Some(step) => golden[&format!("noise{step}")].channels_last(),
            None => start_noise.clone(),
        };
        values.copy_from_slice(&recorded);
    };
    let inputs = Inputs { start, noise: &mut noise };
    generator.generate_exactly(request, inputs, &mut |_| {}, &CancelToken::new()).unwrap()
}

fn check(exact: &Exact, golden: &std::collections::BTreeMap<String, Recorded>, frames: &str) {
    let latents = relative_error(&exact.latents, &golden["latents"].channels_last());
    let pixels: Vec<f32> = exact.frames.concat();
    let pictures = relative_error(&pixels, &golden[frames].channels_last());
    println!("latents {latents:.2e}, pictures {pictures:.2e}");
    assert!(latents <= TOLERANCE && pictures <= TOLERANCE, "latents {latents:.2e}, pictures {pictures:.2e}");
    let rgb: Vec<u8> =
        exact.frames.iter().flat_map(|frame| Picture::from_model(16, 16, frame).rgb().to_vec()).collect();
    let recorded = golden["u8"].channels_last();
    let worst = rgb.iter().zip(&recorded).map(|(got, expected)| (f32::from(*got) - expected).abs());
    assert!(worst.fold(0.0, f32::max) <= 1.0);
}

#[test]
fn text_to_image_matches_the_recorded_pipeline() {
    let golden = recorded("text_to_image");
    let mut generator = generator(false);
    let exact = exactly(&mut generator, &request(), None, golden["x0"].channels_last(), &golden);
    check(&exact, &golden, "image");
}

#[test]
fn image_to_animation_matches_the_recorded_pipeline() {
    let golden = recorded("animate");
    let mut generator = generator(true);
    let request = Request { frames: 4, ..request() };
    let strength = 0.8;
    // The recording holds the noised start, not its noise: x0 = sample · latents + noise · n.
    let scheduler = SchedulerFile::load(&fixtures().join("model/scheduler")).unwrap();
    let shares = scheduler.resolve(None).unwrap().schedule(4, strength).unwrap().start;
    let means = recorded("vae")["mean"].channels_last();
    let latents = means.iter().cycle().map(|mean| f64::from(*mean) * 0.18215);
    let x0 = golden["x0"].channels_last();
    let noise = x0
        .iter()
        .zip(latents)
        .map(|(x, latent)| ((f64::from(*x) - shares.sample * latent) / shares.noise) as f32);
    let noise: Vec<f32> = noise.collect();
    let picture = golden["image"].channels_last();
    let exact = exactly(&mut generator, &request, Some((&picture, strength)), noise, &golden);
    check(&exact, &golden, "frames");
}

#[test]
fn a_seed_gives_the_same_frames_and_another_seed_others() {
    let mut generator = generator(true);
    let mut frames = |seed: u64| {
        let request = Request { seed, frames: 2, ..request() };
        generator.generate(&request, &mut |_| {}, &CancelToken::new()).unwrap().frames
    };
    let first = frames(1);
    assert_eq!(first.len(), 2);
    assert_ne!(first[0], first[1]);
    assert_ne!(frames(2), first);
    assert_eq!(frames(1), first);
}

#[test]
fn every_sampler_takes_its_steps_in_order() {
    let mut generator = generator(true);
    for sampler in [Sampler::Lcm, Sampler::DpmSolverPlusPlus, Sampler::Euler, Sampler::Ddim] {
        let picture = Picture::new(20, 30, vec![90; 20 * 30 * 3]);
        for start in [None, Some(Start { picture, strength: 0.5 })] {
            let request =
                Request { frames: 2, steps: 4, sampler: Some(sampler), start: start.clone(), ..request() };
            let mut seen = Vec::new();
            let made = generator
                .generate(&request, &mut |progress| seen.push(progress), &CancelToken::new())
                .unwrap();
            let of = made.steps;
            let mut expected = vec![Progress::Conditioned];
            expected.extend((1..=of).map(|done| Progress::Step { done, of }));
            expected.extend((1..=2).map(|done| Progress::Frame { done, of: 2 }));
            assert_eq!(seen, expected, "{sampler:?}");
            let levels =
                made.frames.iter().flat_map(|frame| frame.rgb()).collect::<std::collections::BTreeSet<_>>();
            assert!(levels.len() > 16, "{sampler:?}: {} levels", levels.len());
        }
    }
}

#[test]
fn a_cancelled_request_stops_before_its_next_step_and_leaves_no_trace() {
    let mut generator = generator(true);
    let request = Request { frames: 3, ..request() };
    let whole = generator.generate(&request, &mut |_| {}, &CancelToken::new()).unwrap().frames;
    let cancel = CancelToken::new();
    let from_within = cancel.clone();
    let mut stop = |progress: Progress| {
        if progress == (Progress::Step { done: 2, of: 4 }) {
            from_within.cancel();
        }
    };
    let error = generator.generate(&request, &mut stop, &cancel).unwrap_err();
    assert!(matches!(error, RuntimeError::Cancelled { steps_done: 2, steps: 4 }), "{error}");
    assert_eq!(generator.generate(&request, &mut |_| {}, &CancelToken::new()).unwrap().frames, whole);
}

#[test]
fn impossible_requests_say_what_is_possible() {
    let mut generator = generator(true);
    let base = request();
    let picture = Picture::new(16, 16, vec![90; 16 * 16 * 3]);
    let start = |strength| Some(Start { picture: picture.clone(), strength });
    for (request, said) in [
        (Request { width: 17, ..base.clone() }, "width 17 is not a multiple of 4"),
        (Request { height: 0, ..base.clone() }, "height 0 is not a multiple of 4"),
        (Request { height: 1 << 20, ..base.clone() }, "from 4 to 2048"),
        (Request { frames: 0, ..base.clone() }, "0 frames are not within 1 to 8"),
        (Request { frames: 9, ..base.clone() }, "9 frames are not within 1 to 8"),
        (Request { steps: 0, ..base.clone() }, "0 steps"),
        (Request { guidance: 0.5, ..base.clone() }, "guidance 0.5 is not within 1 to 30"),
        (Request { guidance: f64::NAN, ..base.clone() }, "guidance NaN"),
        (Request { start: start(0.0), ..base.clone() }, "strength 0"),
        (Request { start: start(f64::NAN), ..base.clone() }, "strength NaN"),
        (Request { prompt: "x".repeat(1 << 16), ..base.clone() }, "prompt"),
    ] {
        let error = generator.generate(&request, &mut |_| {}, &CancelToken::new()).unwrap_err();
        assert!(matches!(error, RuntimeError::BadRequest { .. }), "{error:?}");
        assert!(error.to_string().contains(said), "`{error}` does not say `{said}`");
    }
    let mut pictures_only = self::generator(false);
    let error =
        pictures_only.generate(&Request { frames: 2, ..base }, &mut |_| {}, &CancelToken::new()).unwrap_err();
    assert!(error.to_string().contains("motion adapter"), "{error}");
}

#[test]
fn sizes_are_kept_and_given_back() {
    let mut generator = generator(true);
    let at_first = generator.memory().used;
    for side in [8, 12, 16, 20, 24, 28, 8] {
        let request = Request { width: side, height: side, steps: 1, ..request() };
        let made = generator.generate(&request, &mut |_| {}, &CancelToken::new()).unwrap();
        assert_eq!((made.frames[0].width(), made.frames[0].height()), (side, side));
    }
    assert!(generator.memory().used > at_first);
    assert_eq!(generator.unload().unwrap().memory().used, 0);
}

#[test]
fn memory_that_is_short_makes_room_or_refuses() {
    let source = ModelSource::folder(&fixtures().join("model"));
    let with = |bytes: u64| Generator::new(&source, Box::new(CpuBackend::new(1).with_bytes_max(bytes)));
    let error = with(1 << 10).map(|_| ()).unwrap_err();
    assert!(matches!(error, RuntimeError::OutOfMemory { free_bytes: 1024, .. }), "{error:?}");

    // What two sizes need at once, each, and what the larger needs alone.
    let held = |sides: &[u32]| {
        let mut generator = with(u64::MAX).unwrap();
        for &side in sides {
            generator.prepare(4, side, side, false).unwrap();
            let request = Request { frames: 4, width: side, height: side, steps: 1, ..request() };
            generator.generate(&request, &mut |_| {}, &CancelToken::new()).unwrap();
        }
        generator.memory().used
    };
    let (one, both) = (held(&[48]), held(&[64, 48]));
    let limit = (one + both) / 2 + (1 << 20);
    assert!(limit < both, "{one} and {both} bytes leave no room for a test");
    let mut generator = with(limit).unwrap();
    for side in [64, 48, 64] {
        let request = Request { frames: 4, width: side, height: side, steps: 1, ..request() };
        generator.generate(&request, &mut |_| {}, &CancelToken::new()).unwrap();
    }
    let larger = Request { frames: 8, width: 512, height: 512, ..request() };
    let error = generator.generate(&larger, &mut |_| {}, &CancelToken::new()).unwrap_err();
    assert!(matches!(error, RuntimeError::OutOfMemory { .. }), "{error:?}");
    generator.generate(&request(), &mut |_| {}, &CancelToken::new()).unwrap();
}

#[test]
fn the_tiny_model_runs_and_is_the_same_for_a_seed() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    make_tiny(&one, 1).unwrap();
    make_tiny(&other, 1).unwrap();
    for file in ["unet/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json", "model_index.json"] {
        assert_eq!(
            std::fs::read(one.join(file)).unwrap(),
            std::fs::read(other.join(file)).unwrap(),
            "{file}"
        );
    }
    let error = make_tiny(&one, 2).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    let mut generator = Generator::new(&ModelSource::folder(&one), Box::new(CpuBackend::default())).unwrap();
    let picture = Picture::new(32, 32, (0..32 * 32 * 3).map(|n| (n % 251) as u8).collect());
    let start = Some(Start { picture, strength: 0.7 });
    let request = Request { frames: 5, width: 32, height: 24, start, ..request() };
    let made = generator.generate(&request, &mut |_| {}, &CancelToken::new()).unwrap();
    assert_eq!(made.frames.len(), 5);
    assert_eq!(made.tokens_cut, 0);
    assert!(made.timings.steps > std::time::Duration::ZERO);
}

#[test]
fn the_tiny_tokenizer_is_that_of_the_fixtures() {
    let folder = tempfile::tempdir().unwrap();
    make_tiny(folder.path(), 1).unwrap();
    let parse = |path: std::path::PathBuf| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let fixture = fixtures().join("model/tokenizer");
    assert_eq!(parse(folder.path().join("tokenizer/vocab.json")), parse(fixture.join("vocab.json")));
    assert_eq!(
        std::fs::read_to_string(folder.path().join("tokenizer/merges.txt")).unwrap(),
        std::fs::read_to_string(fixture.join("merges.txt")).unwrap()
    );
}
