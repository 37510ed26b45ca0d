//! Training of the tiny models: gradients and steps against PyTorch's (`fixtures/train/make_golden.py`), gradients against
//! differences of the loss, and what a training leaves behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod golden;
mod lessons;

use std::path::Path;

use golden::{recorded, relative_error};
use gpu_runtime::RuntimeError;
use gpu_runtime::cpu::{CpuBackend, memory_of};
use gpu_runtime::generate::{Backend, CancelToken};
use gpu_runtime::graph::Graph;
use gpu_runtime::model::program::{self, LatentSize};
use gpu_runtime::model::{Model, ModelSource};
use gpu_runtime::noise::Noise;
use gpu_runtime::picture::Picture;
use gpu_runtime::schedule::StepCoefficients;
use gpu_runtime::schedule::embedding::{guidance_embedding, timestep_embedding};
use gpu_runtime::train::{
    Checkpoint, Keeping, OptimizerSettings, Sample, Scope, Subject, TrainProgress, TrainRequest, Trained,
    graph, train,
};
use lessons::{GUIDANCE, SETTINGS, case, golden_file, source, trainer};

#[test]
fn losses_and_gradients_are_those_of_pytorch() {
    let golden = golden_file();
    for (tag, layers, compared) in [("picture", 32, 4), ("clip", 88, 6)] {
        let (mut trainer, samples) = case(&golden, tag, cpu());
        assert_eq!(trainer.adapters().layers.len(), layers, "{tag}");
        let recorded = golden.keys().filter(|name| name.starts_with(&format!("{tag}.down."))).count();
        assert_eq!(recorded, layers, "{tag}: every recorded layer is trained");
        let (loss, gradients) = trainer.gradients(&samples).unwrap();
        let expected = f64::from(golden[&format!("{tag}.losses")].values[0]);
        assert!((loss / expected - 1.0).abs() < 1e-5, "{tag}: loss {loss} instead of {expected}");
        let mut worst = 0.0f64;
        let mut count = 0;
        for (layer, pair) in trainer.adapters().layers.iter().zip(&gradients) {
            let module = layer.name.split_once('/').unwrap().1;
            for (kind, got) in [("of_down", &pair.down), ("of_up", &pair.up)] {
                let Some(expected) = golden.get(&format!("{tag}.{kind}.{module}")) else { continue };
                let error = relative_error(got, &expected.values);
                assert!(error < 1e-4, "{tag} {kind} {module}: {error:.2e}");
                worst = worst.max(error);
                count += 1;
            }
        }
        assert_eq!(count, 2 * compared, "{tag}");
        let all = gradients.iter().flat_map(|pair| pair.down.iter().chain(&pair.up));
        let norm = all.map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        let expected = f64::from(golden[&format!("{tag}.norm")].values[0]);
        assert!((norm / expected - 1.0).abs() < 1e-4, "{tag}: norm {norm} instead of {expected}");
        println!("{tag}: worst of {count} gradients {worst:.2e}");
    }
}

#[test]
fn steps_are_those_of_pytorch() {
    let golden = golden_file();
    for tag in ["picture", "clip"] {
        let (mut trainer, samples) = case(&golden, tag, cpu());
        let mut worst = 0.0f64;
        for (step, expected) in golden[&format!("{tag}.losses")].values.iter().enumerate() {
            let report = trainer.step(&samples).unwrap();
            let error = (report.loss / f64::from(*expected) - 1.0).abs();
            assert!(error < 1e-4, "{tag} step {step}: {} instead of {expected}", report.loss);
            worst = worst.max(error);
        }
        println!("{tag}: worst loss {worst:.2e}");
    }
}

/// Moves down and up of a layer by a step.
type Move<'a> = dyn Fn(usize, &mut [f32], &mut [f32], f32) + 'a;

/// For several layers, the gradients of their two matrices along a random direction against differences of the loss; and all
/// of them along the gradient itself.
#[test]
fn gradients_match_differences_of_the_loss() {
    let golden = golden_file();
    let (mut trainer, samples) = case(&golden, "clip", cpu());
    let (_, gradients) = trainer.gradients(&samples[..1]).unwrap();
    let start = trainer.adapters().clone();
    let mut slope = |move_by: &Move<'_>, step: f32| {
        let mut loss = |step: f32| {
            trainer.adapters_mut().clone_from(&start);
            for (layer, of) in trainer.adapters_mut().layers.iter_mut().enumerate() {
                move_by(layer, &mut of.pair.down, &mut of.pair.up, step);
            }
            trainer.loss(&samples[0]).unwrap()
        };
        (8.0 * (loss(step) - loss(-step)) - (loss(2.0 * step) - loss(-2.0 * step))) / (12.0 * f64::from(step))
    };
    let shift = |values: &mut [f32], by: &[f32], factor: f32| {
        values.iter_mut().zip(by).for_each(|(value, by)| *value += factor * by);
    };
    let dot = |left: &[f32], right: &[f32]| -> f64 {
        left.iter().zip(right).map(|(l, r)| f64::from(*l) * f64::from(*r)).sum()
    };
    let unit = |values: &[f32]| -> Vec<f32> {
        let norm = dot(values, values).sqrt() as f32;
        values.iter().map(|value| value / norm).collect()
    };
    let square: f64 =
        gradients.iter().map(|pair| dot(&pair.down, &pair.down) + dot(&pair.up, &pair.up)).sum();
    let norm = square.sqrt();
    let along = slope(
        &|layer, down, up, step| {
            shift(down, &gradients[layer].down, step / norm as f32);
            shift(up, &gradients[layer].up, step / norm as f32);
        },
        0.05,
    );
    assert!((along / norm - 1.0).abs() < 1e-3, "along the gradient {along} instead of {norm}");

    for (index, pair) in gradients.iter().enumerate().step_by(11) {
        let length = |of_up: bool| if of_up { pair.up.len() } else { pair.down.len() };
        for of_up in [false, true] {
            let gradient = if of_up { &pair.up } else { &pair.down };
            // Half random, half along the gradient, so that the expected slope is well above rounding.
            let random = unit(&Noise::new(9, &format!("{index} {of_up}")).take(length(of_up)));
            let mut direction = unit(gradient);
            shift(&mut direction, &random, 1.0);
            let expected = dot(gradient, &direction);
            let got = slope(
                &|layer, down, up, step| {
                    if layer == index {
                        shift(if of_up { up } else { down }, &direction, step);
                    }
                },
                0.1,
            );
            let error = (got - expected).abs();
            assert!(
                error < 1e-2 * expected.abs() + 2e-6,
                "{} up {of_up}: {expected} instead of {got}",
                start.layers[index].name
            );
        }
    }
}

/// Pictures of bars, stripes and a ramp.
fn images() -> Vec<Picture> {
    let shade = |kind: usize, x: usize, y: usize| match kind {
        0 => [220, if x < 8 { 40 } else { 200 }, 30],
        1 => [if y & 4 == 0 { 250 } else { 10 }, 90, 160],
        _ => [(16 * x) as u8, (16 * y) as u8, 128],
    };
    (0..3)
        .map(|kind| {
            let rgb = (0..256).flat_map(|n| shade(kind, n % 16, n / 16)).collect();
            Picture::new(16, 16, rgb)
        })
        .collect()
}

fn request(images: Vec<Picture>) -> TrainRequest {
    TrainRequest {
        images,
        subject: Subject::Pictures,
        prompt: "the cat running".to_owned(),
        size: None,
        steps: 60,
        batch: 2,
        rank: 4,
        alpha: None,
        optimizer: OptimizerSettings {
            learning_rate: 1e-2,
            warm_up_steps: 5,
            weight_decay: 1e-2,
            norm_max: 1.0,
        },
        guidance: None,
        sampler: None,
        seed: 7,
    }
}

fn cpu() -> Box<dyn Backend> {
    Box::new(CpuBackend::new(2))
}

fn trained(request: &TrainRequest) -> Result<Trained, RuntimeError> {
    train(&source(), request, cpu(), None, &mut |_| {}, &CancelToken::new())
}

/// On fixed timesteps and noise that the training has not seen, with three pictures.
#[test]
fn training_lowers_the_loss() {
    let learned = trained(&request(images())).unwrap();
    println!("loss {} to {}", learned.loss_before, learned.loss_after);
    assert_eq!(learned.losses.len(), 60);
    assert!(learned.loss_after < 0.85 * learned.loss_before, "{}", learned.loss_after);
    let clip = TrainRequest {
        subject: Subject::Clip { scope: Scope::SpatialAndMotion },
        steps: 30,
        batch: 1,
        ..request(images())
    };
    let learned = trained(&clip).unwrap();
    println!("clip: loss {} to {}", learned.loss_before, learned.loss_after);
    assert!(learned.loss_after < 0.9 * learned.loss_before, "{}", learned.loss_after);
    assert!(learned.adapters.layers.iter().any(|layer| layer.name.starts_with("motion_adapter/")));
}

#[test]
fn the_seed_decides_what_is_learned() {
    let short = TrainRequest { steps: 3, ..request(images()) };
    let first = trained(&short).unwrap();
    assert_eq!(first, trained(&short).unwrap());
    let other = trained(&TrainRequest { seed: 8, ..short }).unwrap();
    assert_ne!(first.adapters, other.adapters);
    assert_ne!(first.losses, other.losses);
}

/// Killed after any checkpoint and gone on with, a training ends with the same bits; the file is what is left of it.
#[test]
fn a_training_goes_on_where_it_was_kept() {
    let wanted = TrainRequest { steps: 7, ..request(images()) };
    let whole = trained(&wanted).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoint");
    let kept = |request: &TrainRequest, from: Option<Checkpoint>, every: u32| {
        let mut steps = Vec::new();
        let mut keep = |checkpoint: &Checkpoint| {
            std::fs::write(&file, checkpoint.to_safetensors().unwrap()).unwrap();
            steps.push(checkpoint.steps());
        };
        let keeping = Keeping { from, every: every.try_into().unwrap(), keep: &mut keep };
        let learned = train(&source(), request, cpu(), Some(keeping), &mut |_| {}, &CancelToken::new());
        (learned, steps)
    };
    let (learned, steps) = kept(&wanted, None, 3);
    assert_eq!((learned.unwrap(), steps), (whole.clone(), vec![3, 6]));
    let from = Checkpoint::read_file(&file).unwrap();
    assert_eq!(from.steps(), 6);
    let (learned, steps) = kept(&wanted, Some(from.clone()), 3);
    assert_eq!((learned.unwrap(), steps), (Trained { steps_before: 6, ..whole.clone() }, vec![]));
    kept(&wanted, None, 5).0.unwrap();
    let (learned, _) = kept(&wanted, Some(Checkpoint::read_file(&file).unwrap()), 1);
    assert_eq!(learned.unwrap(), Trained { steps_before: 5, ..whole });

    let check = |other: TrainRequest, said: &str| {
        let why = kept(&other, Some(from.clone()), 1).0.unwrap_err().to_string();
        assert!(why.contains("of another training") && why.contains(said), "{why}");
    };
    check(TrainRequest { steps: 8, ..wanted.clone() }, "steps is 7 there and 8 here");
    check(TrainRequest { rank: 2, ..wanted.clone() }, "rank is 4 there and 2 here");
    check(TrainRequest { prompt: "a dog".to_owned(), ..wanted.clone() }, "prompt is the cat running there");
    check(TrainRequest { images: images()[..2].to_vec(), ..wanted.clone() }, "images is 3 of");
    check(TrainRequest { guidance: Some(2.0), ..wanted.clone() }, "guidance is 8 there and 2 here");
    std::fs::write(&file, b"no tensors").unwrap();
    let why = Checkpoint::read_file(&file).unwrap_err().to_string();
    assert!(why.contains("checkpoint`: is damaged or no checkpoint"), "{why}");
}

#[test]
fn memory_is_known_before_anything_is_loaded() {
    let model = Model::open(&source()).unwrap();
    for frames in [1, 4] {
        let size = LatentSize { clips: 1, frames, height: 8, width: 8 };
        let (kind, samples) = ((4, Scope::SpatialAndMotion), (size, model.text.tokens));
        let (weights, tensors) = memory_of(&graph(&model.unet, model.motion.as_ref(), samples, kind));
        let planned = weights + tensors;
        let mut trainer = trainer(frames, SETTINGS, cpu());
        let latents = vec![0.5; trainer.sample_elements()];
        trainer.step(&[Sample { noise: latents.clone(), latents, timestep: 3 }]).unwrap();
        let share = trainer.bytes() as f64 / planned as f64;
        println!("{frames} frames: {share:.3} of {planned} planned bytes are held");
        assert!((0.5..1.2).contains(&share), "{share} of {planned} bytes");
    }
}

#[test]
fn nothing_changes_before_the_first_step() {
    let mut fresh = trainer(1, SETTINGS, cpu());
    let noised = Noise::new(2, "x").take(256);
    let before = fresh.predict(&noised, 500).unwrap();
    assert_eq!(before, predicted(&source(), &noised, 1, 500));
}

/// The network's output by the backend that generates, with adapters fused at load.
fn predicted(source: &ModelSource, noised: &[f32], frames: u32, timestep: u32) -> Vec<f32> {
    let model = Model::open(source).unwrap();
    let mut backend = CpuBackend::new(2);
    let mut run = |graph: &Graph, inputs: &[(&str, &[f32])], output: &str| {
        let id = backend.load(graph, &model.weights).unwrap();
        for (name, values) in inputs {
            backend.write(id, graph.find(name).unwrap(), values).unwrap();
        }
        backend.run(id).unwrap();
        let tensor = graph.find(output).unwrap();
        let mut values = vec![0.0; graph.tensor(tensor).shape.elements() as usize];
        backend.read(id, tensor, &mut values).unwrap();
        values
    };
    let context = program::context(&model.unet, model.text.tokens);
    let features = recorded("unet")["ctx"].values.clone();
    let kv = run(&context, &[(program::CONTEXT, &features)], program::CONTEXT_KV);
    let size = LatentSize { clips: 1, frames, height: 8, width: 8 };
    let motion = model.motion.as_ref().filter(|_| frames > 1);
    let step = program::step(&model.unet, motion, size, model.text.tokens).keep_all();
    let plain = StepCoefficients { input_scale: 1.0, dx: 0.0, de: 0.0, nx: 0.0, nd: 0.0, np: 0.0, nn: 0.0 };
    let inputs: [(&str, &[f32]); 5] = [
        (program::CONTEXT_KV, &kv),
        (program::LATENTS, noised),
        (program::SCALARS, &program::scalars(&plain)),
        (program::TIMESTEP, &timestep_embedding(f64::from(timestep), 16, true, 0.0)),
        (program::GUIDANCE, &guidance_embedding(GUIDANCE, 32)),
    ];
    run(&step, &inputs, "conv_out")
}

/// Adapters that were saved and fused again do what they did while they were trained.
#[test]
fn saved_adapters_have_the_same_effect_when_fused() {
    let golden = golden_file();
    let folder = tempfile::tempdir().unwrap();
    for (tag, frames) in [("picture", 1), ("clip", 4)] {
        let (mut trainer, samples) = case(&golden, tag, cpu());
        for _ in 0..3 {
            trainer.step(&samples).unwrap();
        }
        let path = folder.path().join(format!("{tag}.safetensors"));
        std::fs::write(&path, trainer.adapters().to_safetensors().unwrap()).unwrap();
        let noised = &samples[1].noise;
        let while_trained = trainer.predict(noised, 500).unwrap();
        let with = |strength: f32| ModelSource { adapters: vec![(path.clone(), strength)], ..source() };
        let fused = predicted(&with(1.0), noised, frames, 500);
        let error = relative_error(&fused, &while_trained);
        assert!(error < 1e-5, "{tag}: {error:.2e}");
        let without = relative_error(&predicted(&source(), noised, frames, 500), &while_trained);
        assert!(without > 1e-2, "{tag}: the adapters change something, {without:.2e}");
        assert_eq!(predicted(&with(0.0), noised, frames, 500), predicted(&source(), noised, frames, 500));
        println!("{tag}: fused {error:.2e}, without {without:.2e}");
    }
}

/// The names that diffusers' `load_lora_weights` reads.
#[test]
fn files_have_the_names_of_diffusers() {
    let bytes = trainer(4, SETTINGS, cpu()).adapters().to_safetensors().unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, shape) in [
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", [4, 16]),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight", [4, 32]),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_B.weight", [40, 4]),
        ("unet.up_blocks.1.motion_modules.0.transformer_blocks.0.attn2.to_out.0.lora_B.weight", [16, 4]),
    ] {
        assert_eq!(file.tensor(name).unwrap().shape(), shape, "{name}");
    }
    assert_eq!(file.len(), 2 * 88);
}

#[test]
fn training_stops_when_it_is_cancelled() {
    let token = CancelToken::new();
    let stop = token.clone();
    let mut progress = move |at: TrainProgress| {
        if at.done == 2 {
            stop.cancel();
        }
    };
    match train(&source(), &request(images()), cpu(), None, &mut progress, &token) {
        Err(RuntimeError::Cancelled { steps_done: 2, steps: 60 }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn impossible_requests_are_refused_with_the_remedy() {
    let good = || TrainRequest { steps: 1, ..request(images()) };
    let optimizer = |change: &dyn Fn(&mut OptimizerSettings)| {
        let mut request = good();
        change(&mut request.optimizer);
        request
    };
    let clip = Subject::Clip { scope: Scope::Spatial };
    let check = |request: TrainRequest, said: &str| match trained(&request) {
        Err(RuntimeError::BadRequest { why }) => assert!(why.contains(said), "{why} says not `{said}`"),
        other => panic!("{said}: {other:?}"),
    };
    check(TrainRequest { images: Vec::new(), ..good() }, "no image is given; name 1 or more");
    check(TrainRequest { rank: 0, ..good() }, "rank 0 is not within 1 to 1024");
    check(TrainRequest { rank: 1025, ..good() }, "rank 1025 is not within 1 to 1024");
    check(TrainRequest { steps: 0, ..good() }, "steps 0 is not within 1 to");
    check(TrainRequest { batch: 0, ..good() }, "batch 0 is not within 1 to");
    check(TrainRequest { alpha: Some(f64::NAN), ..good() }, "alpha NaN is not above 0");
    check(optimizer(&|o| o.learning_rate = f64::NAN), "learning rate NaN is not above 0 and at most 1");
    check(optimizer(&|o| o.learning_rate = 0.0), "learning rate 0 is not above 0");
    check(optimizer(&|o| o.weight_decay = -1.0), "weight decay -1 is not within 0 to 1");
    check(optimizer(&|o| o.norm_max = f64::INFINITY), "largest gradient norm inf");
    check(TrainRequest { size: Some((7, 16)), ..good() }, "width 7 is not a multiple of");
    check(TrainRequest { guidance: Some(99.0), ..good() }, "guidance 99 is not within 1 to");
    check(TrainRequest { images: images()[..1].to_vec(), subject: clip, ..good() }, "1 image makes no clip");
    let many = images().into_iter().cycle().take(9).collect();
    check(TrainRequest { images: many, subject: clip, ..good() }, "9 frames are not within 1 to 8");
    let mut still = source();
    still.motion_adapter = None;
    let none = train(
        &still,
        &TrainRequest { subject: clip, ..good() },
        cpu(),
        None,
        &mut |_| {},
        &CancelToken::new(),
    );
    assert!(matches!(none, Err(RuntimeError::BadRequest { why }) if why.contains("motion adapter")));
    assert!(
        train(
            &ModelSource::folder(Path::new("absent")),
            &good(),
            cpu(),
            None,
            &mut |_| {},
            &CancelToken::new()
        )
        .is_err_and(|error| matches!(error, RuntimeError::BadModel { .. }))
    );
}
