//! Every recorded tensor of the tiny models against the CPU backend: relative error at most 1e-5.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod golden;

use std::collections::BTreeMap;

use golden::{Recorded, fixtures, recorded, relative_error};
use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::generate::{Backend, ProgramId};
use gpu_runtime::graph::Graph;
use gpu_runtime::model::program::{self, LatentSize};
use gpu_runtime::model::{Model, ModelSource};
use gpu_runtime::schedule::{StepCoefficients, embedding::timestep_embedding};

const TOLERANCE: f64 = 1e-5;

/// A program whose tensors all can be read.
struct Run {
    backend: CpuBackend,
    id: ProgramId,
    graph: Graph,
}

impl Run {
    fn new(model: &Model, graph: Graph) -> Self {
        let mut backend = CpuBackend::new(2);
        let graph = graph.keep_all();
        let id = backend.load(&graph, &model.weights).unwrap();
        Self { backend, id, graph }
    }

    fn write(&mut self, name: &str, values: &[f32]) {
        let tensor = self.graph.find(name).unwrap_or_else(|| panic!("no tensor `{name}`"));
        self.backend.write(self.id, tensor, values).unwrap();
    }

    fn run(&mut self) {
        self.backend.run(self.id).unwrap();
    }

    fn read(&mut self, name: &str) -> Vec<f32> {
        let tensor = self.graph.find(name).unwrap_or_else(|| panic!("no tensor `{name}`"));
        let mut values = vec![0.0; self.graph.tensor(tensor).shape.elements() as usize];
        self.backend.read(self.id, tensor, &mut values).unwrap();
        values
    }
}

fn model(motion: bool) -> Model {
    let mut source = ModelSource::folder(&fixtures().join("model"));
    if !motion {
        source.motion_adapter = None;
    }
    Model::open(&source).unwrap()
}

fn difference(left: &[f32], right: &[f32]) -> Vec<f32> {
    left.iter().zip(right).map(|(l, r)| l - r).collect()
}

/// Compares all recorded tensors but `inputs`; `read` turns a recorded name into ours.
fn compare(
    recorded: &BTreeMap<String, Recorded>,
    inputs: &[&str],
    mut read: impl FnMut(&str) -> Vec<f32>,
    expected: impl Fn(&str, &Recorded) -> Vec<f32>,
) {
    let mut worst = (0.0, String::new());
    for (name, tensor) in recorded.iter().filter(|(name, _)| !inputs.contains(&name.as_str())) {
        let error = relative_error(&read(name), &expected(name, tensor));
        assert!(error <= TOLERANCE, "{name}: {error:.2e}");
        if error >= worst.0 {
            worst = (error, name.clone());
        }
    }
    println!("worst of {}: {:.2e} ({})", recorded.len() - inputs.len(), worst.0, worst.1);
}

#[test]
fn text_encoder_matches_every_recorded_tensor() {
    let golden = recorded("text");
    let model = model(false);
    let mut run = Run::new(&model, program::text(&model.text));
    run.write(program::IDS, &golden["ids"].values);
    run.run();
    let read = |name: &str| run.read(if name == "out" { program::CONTEXT } else { name });
    compare(&golden, &["ids"], read, |_, tensor| tensor.values.clone());
}

/// Inputs of the recorded forward pass, with scalars that leave the network's output in `denoised`.
fn step(model: &Model, size: LatentSize, sample: &Recorded) -> Run {
    let unet = recorded("unet");
    let mut context = Run::new(model, program::context(&model.unet, model.text.tokens));
    context.write(program::CONTEXT, &unet["ctx"].values);
    context.run();
    let mut run = Run::new(model, program::step(&model.unet, model.motion.as_ref(), size, model.text.tokens));
    run.write(program::CONTEXT_KV, &context.read(program::CONTEXT_KV));
    run.write(program::GUIDANCE, &unet["w_cond"].values);
    run.write(program::TIMESTEP, &timestep_embedding(unet["t"].values[0].into(), 16, true, 0.0));
    let passed_on =
        StepCoefficients { input_scale: 1.0, dx: 0.0, de: 1.0, nx: 1.0, nd: 0.0, np: 0.0, nn: 0.0 };
    run.write(program::SCALARS, &program::scalars(&passed_on));
    run.write(program::LATENTS, &sample.channels_last());
    run.run();
    run
}

#[test]
fn unet_matches_every_recorded_tensor() {
    let golden = recorded("unet");
    let model = model(false);
    let size = LatentSize { clips: 1, frames: 1, height: 8, width: 8 };
    let mut run = step(&model, size, &golden["x"]);
    // Our attention and feed-forward layers include what they are added to.
    let read = |name: &str| {
        if let Some(block) = name.strip_suffix(".attn1") {
            let transformer = block.strip_suffix(".transformer_blocks.0").unwrap();
            difference(&run.read(name), &run.read(&format!("{transformer}.proj_in")))
        } else if let Some(block) = name.strip_suffix(".attn2") {
            difference(&run.read(name), &run.read(&format!("{block}.attn1")))
        } else if let Some(block) = name.strip_suffix(".ff") {
            difference(&run.read(name), &run.read(&format!("{block}.attn2")))
        } else if name.ends_with(".transformer_blocks.0") {
            run.read(&format!("{name}.ff"))
        } else if name == "out" {
            run.read(program::DENOISED)
        } else {
            run.read(name)
        }
    };
    let silu = |x: &f32| x / (1.0 + (-x).exp());
    compare(&golden, &["x", "ctx", "w_cond", "t"], read, |name, tensor| match name {
        // The activation that follows is part of our normalisation.
        "conv_norm_out" => tensor.channels_last().iter().map(silu).collect(),
        _ => tensor.channels_last(),
    });
}

#[test]
fn motion_unet_matches_every_recorded_tensor() {
    let golden = recorded("motion");
    let model = model(true);
    let size = LatentSize { clips: 1, frames: 4, height: 8, width: 8 };
    let mut run = step(&model, size, &golden["x"]);
    let read = |name: &str| match name {
        "out" => run.read(program::DENOISED),
        name if name.ends_with(".transformer_blocks.0") => run.read(&format!("{name}.ff")),
        name => run.read(name),
    };
    compare(&golden, &["x"], read, |_, tensor| {
        if tensor.dims.len() == 3 { tensor.frames_first() } else { tensor.channels_last() }
    });
}

#[test]
fn vae_matches_every_recorded_tensor() {
    let golden = recorded("vae");
    let model = model(false);
    let mut encode = Run::new(&model, program::encode(&model.vae, 8, 8));
    encode.write(program::PICTURE, &golden["img"].channels_last());
    encode.run();
    let mut decode = Run::new(&model, program::decode(&model.vae, 1, 8, 8));
    decode.write(program::SCALED_LATENTS, &golden["mean"].channels_last());
    decode.run();
    let half = |moments: Vec<f32>, half: usize| -> Vec<f32> {
        moments.chunks_exact(8).flat_map(|row| row[4 * half..4 * half + 4].to_vec()).collect()
    };
    let read = |name: &str| match name {
        "quant_conv" => encode.read(program::MOMENTS),
        "mean" => half(encode.read(program::MOMENTS), 0),
        "logvar" => half(encode.read(program::MOMENTS), 1),
        "out" | "decoder" => decode.read(program::PICTURE),
        name if name.starts_with("encoder") => encode.read(name),
        name => decode.read(name),
    };
    compare(&golden, &["img"], read, |_, tensor| tensor.channels_last());
}

#[test]
fn threads_change_no_bit() {
    let model = model(true);
    let size = LatentSize { clips: 2, frames: 3, height: 16, width: 16 };
    let graph = program::step(&model.unet, model.motion.as_ref(), size, model.text.tokens);
    let results: Vec<Vec<u32>> = [1, 2, 5]
        .into_iter()
        .map(|threads| {
            let mut backend = CpuBackend::new(threads);
            let id = backend.load(&graph, &model.weights).unwrap();
            let mut write = |name: &str, values: &dyn Fn(usize) -> f32| {
                let tensor = graph.find(name).unwrap();
                let count = graph.tensor(tensor).shape.elements() as usize;
                let values: Vec<f32> = (0..count).map(values).collect();
                backend.write(id, tensor, &values).unwrap();
            };
            write(program::LATENTS, &|n| ((n * 37 % 101) as f32 - 50.0) / 30.0);
            write(program::CONTEXT_KV, &|n| ((n * 17 % 97) as f32 - 48.0) / 40.0);
            write(program::SCALARS, &|_| 1.0);
            backend.run(id).unwrap();
            let tensor = graph.find(program::DENOISED).unwrap();
            let mut values = vec![0.0; graph.tensor(tensor).shape.elements() as usize];
            backend.read(id, tensor, &mut values).unwrap();
            values.into_iter().map(f32::to_bits).collect()
        })
        .collect();
    assert!(results.iter().all(|result| *result == results[0]));
}
