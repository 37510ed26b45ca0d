//! The whole way from a picture to a clip against diffusers' StableVideoDiffusionPipeline with tiny networks
//! (`fixtures/make_svd.py`), and what requests and folders are refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod golden;
mod hashed;

use std::fs;
use std::path::Path;

use golden::{fixtures, recorded, relative_error};
use gpu_runtime::RuntimeError;
use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::generate::{CancelToken, Progress, VideoGenerator, VideoRequest, make_tiny_video};
use gpu_runtime::graph::Graph;
use gpu_runtime::model::program::{self, LatentSize};
use gpu_runtime::model::{Class, Model, ModelSource, VaeConfig, VideoModel, VideoUnetConfig, VisionConfig};
use gpu_runtime::picture::Picture;
use gpu_runtime::schedule::Sampler;
use hashed::{hashed, stored};
use serde_json::{Value, json};

const TOLERANCE: f64 = 1e-5;

fn facts(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join("golden").join(name)).unwrap()).unwrap()
}

fn write_json(folder: &Path, name: &str, value: &Value) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_vec(value).unwrap()).unwrap();
}

/// The recorded pipeline as a folder.
fn write_folder(folder: &Path) {
    let (networks, pipeline) = (facts("svd.json"), facts("image_to_video.json"));
    let classed = |config: &Value, class: &str| {
        let mut config = config.clone();
        config["_class_name"] = class.into();
        config
    };
    let class = "UNetSpatioTemporalConditionModel";
    write_json(folder, "unet/config.json", &classed(&networks["unet_config"], class));
    let class = "AutoencoderKLTemporalDecoder";
    write_json(folder, "vae/config.json", &classed(&networks["vae_config"], class));
    write_json(folder, "image_encoder/config.json", &pipeline["image_encoder_config"]);
    write_json(folder, "scheduler/scheduler_config.json", &pipeline["scheduler_config"]);
    let norm = json!({ "image_mean": pipeline["image_mean"], "image_std": pipeline["image_std"] });
    write_json(folder, "feature_extractor/preprocessor_config.json", &norm);
    let config = |name: &str| folder.join(name).join("config.json");
    let unet = VideoUnetConfig::read(&config("unet")).unwrap();
    let vae = VaeConfig::read(&config("vae")).unwrap();
    let vision = VisionConfig::read(&config("image_encoder")).unwrap();
    let step = program::video_step(&unet, LatentSize { clips: 1, frames: 3, height: 4, width: 6 });
    let (decode, encode) = (program::decode(&vae, 1, 4, 6), program::encode(&vae, 4, 6));
    let write = |name: &str, stem: &str, graphs: &[&Graph]| {
        hashed::write(&folder.join(name).join(format!("{stem}.safetensors")), graphs, |name, dims| {
            if name.ends_with("class_embedding") {
                dims.truncate(1);
            } else if name.ends_with("patch_embedding.weight") {
                dims.splice(1.., [3, 56, 56]);
            }
        });
    };
    write("unet", "diffusion_pytorch_model", &[&step]);
    write("vae", "diffusion_pytorch_model", &[&decode, &encode]);
    write("image_encoder", "model", &[&program::image(&vision)]);
}

/// `picture()` of `make_svd.py`.
fn picture(name: &str, width: u32, height: u32) -> Picture {
    let noise = hashed(name, (width * height * 3) as usize);
    let levels = noise.iter().enumerate().map(|(index, noise)| {
        let (channel, pixel) = ((index % 3) as u32, index as u32 / 3);
        let (x, y) = (pixel % width, pixel / width);
        let across = f64::from(x * (3 + channel) * 255) / f64::from(width);
        let down = f64::from(y * (5 - channel) * 255) / f64::from(height);
        ((across + down) % 256.0 * 0.75 + (f64::from(*noise) + 1.0) * 30.0).floor().clamp(0.0, 255.0) as u8
    });
    Picture::new(width, height, levels.collect())
}

fn request() -> VideoRequest {
    VideoRequest {
        picture: picture("small picture", 24, 16),
        seed: 3,
        steps: 4,
        frames: 5,
        width: 24,
        height: 16,
        rate: 7,
        motion: 127,
        noise: 0.02,
        guidance: 1.0,
        decode_frames: 2,
        sampler: None,
    }
}

fn generator(folder: &Path) -> VideoGenerator {
    VideoGenerator::new(&ModelSource::folder(folder), Box::new(CpuBackend::new(2))).unwrap()
}

#[test]
fn pictures_are_scaled_and_embedded_as_recorded() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path());
    let golden = recorded("image_to_video");
    let large = picture("large picture", 500, 300);
    let levels = large.antialiased(224);
    let seen: Vec<f32> = (0..224)
        .step_by(11)
        .flat_map(|y| (0..224).step_by(11).map(move |x| (y * 224 + x) * 3))
        .flat_map(|at| levels[at..at + 3].iter().map(|level| *level as f32).collect::<Vec<_>>())
        .collect();
    let error = relative_error(&seen, &golden["large/scaled"].values);
    println!("scaled {error:.2e}");
    assert!(error <= TOLERANCE, "scaled: {error:.2e}");
    let mut generator = generator(folder.path());
    for (name, picture) in [("large/embedding", large), ("embedding", request().picture)] {
        let error = relative_error(&generator.embed(&picture).unwrap(), &golden[name].values);
        println!("{name} {error:.2e}");
        assert!(error <= TOLERANCE, "{name}: {error:.2e}");
    }
}

#[test]
fn image_to_video_matches_the_recorded_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path());
    let golden = recorded("image_to_video");
    let mut generator = generator(folder.path());
    let request = request();
    let unit = 3f64.sqrt() as f32;
    // Recorded noise is `[1, 3, height, width]` and `[frames, 4, height, width]`.
    let mut noise = |stream: &str, values: &mut [f32]| {
        let (name, channels, positions) = match stream {
            "image" => ("image noise", 3, 24 * 16),
            "start" => ("start noise", 4, 12 * 8),
            other => panic!("{other}"),
        };
        let recorded = hashed(name, values.len());
        for (index, value) in values.iter_mut().enumerate() {
            let (channel, row) = (index % channels, index / channels);
            let (frame, position) = (row / positions, row % positions);
            *value = unit * recorded[(frame * channels + channel) * positions + position];
        }
    };
    let mut seen = Vec::new();
    let exact = generator
        .generate_exactly(&request, &mut noise, &mut |progress| seen.push(progress), &CancelToken::new())
        .unwrap();
    let mut expected = vec![Progress::Conditioned];
    expected.extend((1..=4).map(|done| Progress::Step { done, of: 4 }));
    expected.extend([2, 4, 5].map(|done| Progress::Frame { done, of: 5 }));
    assert_eq!(seen, expected);
    let latents = relative_error(&exact.latents, &golden["latents"].channels_last());
    // Recorded with channels last.
    let frames = relative_error(&exact.frames.concat(), &golden["frames"].values);
    println!("latents {latents:.2e}, frames {frames:.2e}");
    assert!(latents <= TOLERANCE && frames <= TOLERANCE, "latents {latents:.2e}, frames {frames:.2e}");
    let rgb = exact
        .frames
        .iter()
        .flat_map(|frame| Picture::from_model(24, 16, frame).rgb().to_vec())
        .collect::<Vec<_>>();
    let worst =
        rgb.iter().zip(&golden["u8"].values).map(|(got, expected)| (f32::from(*got) - expected).abs());
    assert_eq!(rgb.len(), golden["u8"].values.len());
    assert!(worst.fold(0.0, f32::max) <= 1.0);
}

#[test]
fn the_published_image_encoder_has_its_parameters() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configurations/svd_xt");
    let vision = VisionConfig::read(&folder.join("image_encoder/config.json")).unwrap();
    let count: u64 = stored(&[&program::image(&vision)])
        .values()
        .map(|dims| dims.iter().map(|&extent| u64::from(extent)).product::<u64>())
        .sum();
    assert_eq!(count, facts("image_to_video.json")["parameters"].as_u64().unwrap());
}

#[test]
fn the_tiny_video_model_moves_with_its_seed_alone() {
    let folder = tempfile::tempdir().unwrap();
    make_tiny_video(folder.path(), 1).unwrap();
    assert_eq!(Class::of(folder.path()).unwrap(), Class::Video);
    let mut generator = generator(folder.path());
    assert_eq!(generator.model().size_usual(), (64, 36));
    let mut make = |request: VideoRequest| {
        generator.generate(&request, &mut |_| {}, &CancelToken::new()).unwrap().frames
    };
    let base = VideoRequest { frames: 3, steps: 2, picture: picture("other", 31, 40), ..request() };
    let first = make(base.clone());
    assert_eq!(first.len(), 3);
    assert_ne!(first[0], first[1]);
    for (what, other) in [
        ("seed", VideoRequest { seed: 4, ..base.clone() }),
        ("motion", VideoRequest { motion: 20, ..base.clone() }),
        ("rate", VideoRequest { rate: 30, ..base.clone() }),
        ("noise", VideoRequest { noise: 0.5, ..base.clone() }),
        ("picture", VideoRequest { picture: picture("more", 31, 40), ..base.clone() }),
        ("sampler", VideoRequest { sampler: Some(Sampler::Consistency), ..base.clone() }),
        ("decoding", VideoRequest { decode_frames: 3, ..base.clone() }),
    ] {
        assert_ne!(make(other), first, "{what}");
    }
    assert_eq!(make(base), first);
    assert_eq!(generator.unload().unwrap().memory().used, 0);
}

/// Each step but the last has fresh noise of its own; a request that follows has none of it.
#[test]
fn consistency_sampling_noises_again_between_its_steps() {
    let folder = tempfile::tempdir().unwrap();
    make_tiny_video(folder.path(), 1).unwrap();
    let mut generator = generator(folder.path());
    let mut make = |request: &VideoRequest, of_step: f32| {
        let mut asked = Vec::new();
        let mut noise = |stream: &str, values: &mut [f32]| {
            asked.push(stream.to_owned());
            let level = if stream.starts_with("step") { of_step } else { 0.5 };
            values.iter_mut().enumerate().for_each(|(i, value)| *value = (i as f32).sin() * level);
        };
        let made = generator.generate_exactly(request, &mut noise, &mut |_| {}, &CancelToken::new()).unwrap();
        (made.latents, asked)
    };
    let again = VideoRequest { sampler: Some(Sampler::Consistency), steps: 3, ..request() };
    let straight = VideoRequest { sampler: Some(Sampler::Euler), ..again.clone() };
    let (euler, asked) = make(&straight, 1.0);
    assert_eq!(asked, ["image", "start"]);
    let (little, asked) = make(&again, 0.25);
    assert_eq!(asked, ["image", "start", "step 0", "step 1"]);
    assert_ne!(little, make(&again, 1.0).0);
    assert_eq!(little, make(&again, 0.25).0);
    assert_eq!(euler, make(&straight, 1.0).0);
    let alone = VideoRequest { steps: 1, ..again };
    assert_eq!(make(&alone, 1.0).1, ["image", "start"], "one step needs none");
}

#[test]
fn impossible_requests_say_what_is_possible() {
    let folder = tempfile::tempdir().unwrap();
    make_tiny_video(folder.path(), 1).unwrap();
    let mut generator = generator(folder.path());
    let base = request();
    for (request, said) in [
        (VideoRequest { guidance: 3.0, ..base.clone() }, "two passes"),
        (VideoRequest { guidance: f64::NAN, ..base.clone() }, "guidance NaN"),
        (VideoRequest { width: 22, ..base.clone() }, "width 22 is not a multiple of 4"),
        (VideoRequest { frames: 0, ..base.clone() }, "0 frames are not within 1 to 64"),
        (VideoRequest { rate: 0, ..base.clone() }, "0 frames a second"),
        (VideoRequest { noise: -0.1, ..base.clone() }, "noise -0.1"),
        (VideoRequest { decode_frames: 0, ..base.clone() }, "0 frames decoded"),
        (VideoRequest { steps: 0, ..base.clone() }, "0 steps"),
        (VideoRequest { sampler: Some(Sampler::Lcm), ..base.clone() }, "sampler lcm"),
        (
            VideoRequest { sampler: Some(Sampler::Consistency), steps: 41, ..base.clone() },
            "40 distilled steps",
        ),
    ] {
        let error = generator.generate(&request, &mut |_| {}, &CancelToken::new()).unwrap_err();
        assert!(matches!(error, RuntimeError::BadRequest { .. }), "{error:?}");
        assert!(error.to_string().contains(said), "`{error}` does not say `{said}`");
    }
}

#[test]
fn frames_are_decoded_in_equal_runs() {
    let folder = tempfile::tempdir().unwrap();
    make_tiny_video(folder.path(), 1).unwrap();
    let mut generator = generator(folder.path());
    let mut decoded = Vec::new();
    let mut follow = |progress: Progress| {
        if let Progress::Frame { done, .. } = progress {
            decoded.push(done);
        }
    };
    let even = VideoRequest { frames: 6, decode_frames: 4, steps: 1, ..request() };
    generator.generate(&even, &mut follow, &CancelToken::new()).unwrap();
    assert_eq!(decoded, [3, 6]);
}

#[test]
fn a_cancelled_request_stops_before_its_next_step() {
    let folder = tempfile::tempdir().unwrap();
    make_tiny_video(folder.path(), 1).unwrap();
    let mut generator = generator(folder.path());
    let cancel = CancelToken::new();
    let from_within = cancel.clone();
    let mut stop = |progress: Progress| {
        if progress == (Progress::Step { done: 1, of: 4 }) {
            from_within.cancel();
        }
    };
    let error = generator.generate(&request(), &mut stop, &cancel).unwrap_err();
    assert!(matches!(error, RuntimeError::Cancelled { steps_done: 1, steps: 4 }), "{error}");
}

#[test]
fn folders_that_do_not_fit_together_say_why() {
    let check = |name: &str, key: &str, value: Value, said: &str| {
        let folder = tempfile::tempdir().unwrap();
        make_tiny_video(folder.path(), 1).unwrap();
        let path = folder.path().join(name);
        let mut keys: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        keys[key] = value;
        fs::write(&path, serde_json::to_vec(&keys).unwrap()).unwrap();
        let error = VideoModel::open(&ModelSource::folder(folder.path())).unwrap_err().to_string();
        assert!(error.contains(said), "`{error}` does not say `{said}`");
    };
    check("image_encoder/config.json", "projection_dim", json!(16), "its image encoder gives 16 channels");
    check("image_encoder/config.json", "patch_size", json!(50), "`image_size` 224");
    check("image_encoder/config.json", "patch_size", json!(32), "patch_embedding");
    check("image_encoder/config.json", "hidden_act", json!("relu"), "`hidden_act` is relu");
    check("unet/config.json", "projection_class_embeddings_input_dim", json!(32), "is told 2 numbers");
    check("feature_extractor/preprocessor_config.json", "image_std", json!([1, 0, 1]), "three positive");
    check("feature_extractor/preprocessor_config.json", "image_mean", json!([1, 0]), "three numbers");
    let folder = tempfile::tempdir().unwrap();
    make_tiny_video(folder.path(), 1).unwrap();
    let error = Model::open(&ModelSource::folder(folder.path())).unwrap_err().to_string();
    assert!(error.contains("UNetSpatioTemporalConditionModel"), "{error}");
}
