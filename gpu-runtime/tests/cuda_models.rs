//! The tiny models end to end through the CUDA host code and the emulated kernels, against recorded f32 outputs.
//!
//! The bound is 1.5 times what PyTorch's own bf16 loses on the same UNet (`fixtures/golden/facts.json`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod golden;
mod stand_in;

use std::collections::BTreeMap;

use golden::{Recorded, fixtures, recorded, relative_error};
use gpu_runtime::cuda::Cuda;
use gpu_runtime::generate::{Backend, CancelToken, Generator, Inputs, ProgramId, Request};
use gpu_runtime::graph::Graph;
use gpu_runtime::model::program::{self, LatentSize};
use gpu_runtime::model::{Model, ModelSource};
use gpu_runtime::schedule::{SchedulerFile, StepCoefficients, embedding::timestep_embedding};
use stand_in::StandIn;

fn tolerance() -> f64 {
    let facts = std::fs::read_to_string(fixtures().join("golden/facts.json")).unwrap();
    let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
    1.5 * facts["bf16_unet_rel_err_on_this_cpu"].as_f64().unwrap()
}

fn model(motion: bool) -> Model {
    let mut source = ModelSource::folder(&fixtures().join("model"));
    if !motion {
        source.motion_adapter = None;
    }
    Model::open(&source).unwrap()
}

struct Run<'a> {
    backend: &'a mut Cuda,
    id: ProgramId,
    graph: Graph,
}

impl<'a> Run<'a> {
    fn new(backend: &'a mut Cuda, model: &Model, graph: Graph) -> Self {
        let id = backend.load(&graph, &model.weights).unwrap();
        Self { backend, id, graph }
    }

    fn write(&mut self, name: &str, values: &[f32]) {
        self.backend.write(self.id, self.graph.find(name).unwrap(), values).unwrap();
    }

    fn read(&mut self, name: &str) -> Vec<f32> {
        let tensor = self.graph.find(name).unwrap();
        let mut values = vec![0.0; self.graph.tensor(tensor).shape.elements() as usize];
        self.backend.read(self.id, tensor, &mut values).unwrap();
        values
    }

    fn run(&mut self) {
        self.backend.run(self.id).unwrap();
    }
}

fn check(what: &str, got: &[f32], expected: &[f32]) {
    let (error, bound) = (relative_error(got, expected), tolerance());
    println!("{what}: {error:.2e}, at most {bound:.2e}");
    assert!(error <= bound, "{what}: relative error {error:.2e} beyond {bound:.2e}");
}

#[test]
fn text_encoder_is_within_bf16_of_the_recording() {
    let Some(stand_in) = StandIn::new() else { return };
    let (golden, model, mut cuda) = (recorded("text"), model(false), stand_in.open());
    let mut run = Run::new(&mut cuda, &model, program::text(&model.text));
    run.write(program::IDS, &golden["ids"].values);
    run.run();
    check("text", &run.read(program::CONTEXT), &golden["out"].values);
}

/// One recorded forward pass; also that the captured graph gives what its launches give one by one.
fn check_step(motion: bool, frames: u32, golden: &Recorded, expected: &Recorded) {
    let Some(stand_in) = StandIn::new() else { return };
    let (unet, model, mut cuda) = (recorded("unet"), model(motion), stand_in.open());
    let context_graph = program::context(&model.unet, model.text.tokens);
    let mut context = Run::new(&mut cuda, &model, context_graph.clone());
    context.write(program::CONTEXT, &unet["ctx"].values);
    context.run();
    let context_id = context.id;
    let size = LatentSize { clips: 1, frames, height: 8, width: 8 };
    let graph = program::step(&model.unet, model.motion.as_ref(), size, model.text.tokens);
    let mut run = Run::new(&mut cuda, &model, graph);
    let kv = (context_graph.find(program::CONTEXT_KV).unwrap(), run.graph.find(program::CONTEXT_KV).unwrap());
    run.backend.copy((context_id, kv.0), (run.id, kv.1)).unwrap();
    run.write(program::GUIDANCE, &unet["w_cond"].values);
    run.write(program::TIMESTEP, &timestep_embedding(unet["t"].values[0].into(), 16, true, 0.0));
    // The network's output is left in `denoised`.
    let passed_on =
        StepCoefficients { input_scale: 1.0, dx: 0.0, de: 1.0, nx: 1.0, nd: 0.0, np: 0.0, nn: 0.0 };
    run.write(program::SCALARS, &program::scalars(&passed_on));
    run.write(program::LATENTS, &golden.channels_last());
    run.run();
    let replayed = run.read(program::DENOISED);
    check(&format!("step of {frames} frames"), &replayed, &expected.channels_last());
    run.backend.run_uncaptured(run.id).unwrap();
    assert_eq!(run.read(program::DENOISED), replayed, "captured and launched one by one");
    let nodes = run.backend.nodes(run.id).unwrap();
    println!("{nodes} kernels a step");
    assert_eq!(stand_in.get("threads"), 1, "one thread owns the device");
}

#[test]
fn unet_is_within_bf16_of_the_recording() {
    let golden = recorded("unet");
    check_step(false, 1, &golden["x"], &golden["out"]);
}

#[test]
fn motion_unet_is_within_bf16_of_the_recording() {
    let golden = recorded("motion");
    check_step(true, 4, &golden["x"], &golden["out"]);
}

#[test]
fn vae_is_within_bf16_of_the_recording() {
    let Some(stand_in) = StandIn::new() else { return };
    let (golden, model, mut cuda) = (recorded("vae"), model(false), stand_in.open());
    let mut encode = Run::new(&mut cuda, &model, program::encode(&model.vae, 8, 8));
    encode.write(program::PICTURE, &golden["img"].channels_last());
    encode.run();
    let moments = encode.read(program::MOMENTS);
    check("encoder", &moments, &golden["quant_conv"].channels_last());
    let mut decode = Run::new(&mut cuda, &model, program::decode(&model.vae, 1, 8, 8));
    decode.write(program::SCALED_LATENTS, &golden["mean"].channels_last());
    decode.run();
    check("decoder", &decode.read(program::PICTURE), &golden["out"].channels_last());
}

/// A whole request with recorded noise. Errors of steps add up: the bound is twice that of one forward pass.
fn check_request(
    motion: bool,
    start: Option<(&[f32], f64)>,
    start_noise: &[f32],
    golden: &BTreeMap<String, Recorded>,
    frames: &str,
) {
    let Some(stand_in) = StandIn::new() else { return };
    let mut source = ModelSource::folder(&fixtures().join("model"));
    if !motion {
        source.motion_adapter = None;
    }
    let mut generator = Generator::new(&source, Box::new(stand_in.open())).unwrap();
    let request = Request {
        prompt: "a photo of the cat running".to_owned(),
        seed: 7,
        steps: 4,
        frames: if motion { 4 } else { 1 },
        width: 16,
        height: 16,
        guidance: 8.0,
        start: None,
        sampler: None,
    };
    let mut noise = |stream: &str, values: &mut [f32]| match stream.strip_prefix("step ") {
        Some(step) => values.copy_from_slice(&golden[&format!("noise{step}")].channels_last()),
        None => values.copy_from_slice(start_noise),
    };
    let inputs = Inputs { start, noise: &mut noise };
    let exact = generator.generate_exactly(&request, inputs, &mut |_| {}, &CancelToken::new()).unwrap();
    let bound = 2.0 * tolerance();
    let latents = relative_error(&exact.latents, &golden["latents"].channels_last());
    let pictures = relative_error(&exact.frames.concat(), &golden[frames].channels_last());
    println!("latents {latents:.2e}, pictures {pictures:.2e}, at most {bound:.2e}");
    assert!(latents <= bound && pictures <= bound, "latents {latents:.2e}, pictures {pictures:.2e}");
    drop(generator);
    assert_eq!(["blocks", "graphs", "streams"].map(|what| stand_in.get(what)), [0, 0, 0]);
}

#[test]
fn text_to_image_is_within_bf16_of_the_recorded_pipeline() {
    let golden = recorded("text_to_image");
    check_request(false, None, &golden["x0"].channels_last(), &golden, "image");
}

#[test]
fn image_to_animation_is_within_bf16_of_the_recorded_pipeline() {
    let golden = recorded("animate");
    let strength = 0.8;
    // The recording holds the noised start, not its noise: x0 = sample · latents + noise · n.
    let scheduler = SchedulerFile::load(&fixtures().join("model/scheduler")).unwrap();
    let shares = scheduler.resolve(None).unwrap().schedule(4, strength).unwrap().start;
    let means = recorded("vae")["mean"].channels_last();
    let latents = means.iter().cycle().map(|mean| f64::from(*mean) * 0.18215);
    let x0 = golden["x0"].channels_last();
    let noise: Vec<f32> = x0
        .iter()
        .zip(latents)
        .map(|(x, latent)| ((f64::from(*x) - shares.sample * latent) / shares.noise) as f32)
        .collect();
    let picture = golden["image"].channels_last();
    check_request(true, Some((&picture, strength)), &noise, &golden, "frames");
}
