//! The tiny models end to end through the CUDA host code and the emulated kernels, against recorded f32 outputs.
//!
//! The bound is 1.5 times what PyTorch's own bf16 loses on the same UNet (`fixtures/golden/facts.json`).

mod golden;
mod stand_in;

use golden::{Recorded, fixtures, recorded, relative_error};
use gpu_runtime::cuda::Cuda;
use gpu_runtime::generate::{Backend, ProgramId};
use gpu_runtime::graph::Graph;
use gpu_runtime::model::program::{self, LatentSize, StepScalars};
use gpu_runtime::model::{Model, ModelSource};
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

/// cos(t · 10000^(-k / half)), then sin.
fn sinusoid(t: f64, channels: usize) -> Vec<f32> {
    let half = channels / 2;
    let angle = |k: usize| t * 10_000f64.powf(-(k as f64) / half as f64);
    (0..half).map(|k| angle(k).cos() as f32).chain((0..half).map(|k| angle(k).sin() as f32)).collect()
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
    run.write(program::TIMESTEP, &sinusoid(unet["t"].values[0].into(), model.unet.channels[0] as usize));
    let scalars = StepScalars { input: 1.0, denoised_eps: 1.0, next_x: 1.0, ..StepScalars::default() };
    run.write(program::SCALARS, &scalars.row());
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
