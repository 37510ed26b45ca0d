//! The image-to-video networks against a tiny pair of diffusers' classes (`fixtures/make_svd.py`), and the published size's
//! parameters and operations.
//!
//! Weights and inputs are hashes of names and indices, made here as there ([`hashed`]).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod golden;
mod hashed;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use golden::{fixtures, recorded, relative_error};
use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::generate::Backend;
use gpu_runtime::graph::{Cost, Graph};
use gpu_runtime::model::program::{self, LatentSize};
use gpu_runtime::model::{VaeConfig, VideoUnetConfig};
use gpu_runtime::schedule::{StepCoefficients, embedding::timestep_embedding};
use gpu_runtime::weights::{Component, Weights};
use hashed::{hashed, stored};
use serde_json::Value;

const TOLERANCE: f64 = 1e-5;

/// Writes hashed weights of one component and adds them.
fn add(weights: &mut Weights, component: Component, folder: &Path, graphs: &[&Graph]) {
    hashed::write(&folder.join("diffusion_pytorch_model.safetensors"), graphs, |_, _| {});
    weights.add(component, folder).unwrap();
}

fn facts() -> Value {
    serde_json::from_slice(&fs::read(fixtures().join("golden/svd.json")).unwrap()).unwrap()
}

/// Writes a recorded configuration to a folder of its own.
fn config(folder: &Path, name: &str, class: &str, facts: &Value) -> PathBuf {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).unwrap();
    let mut keys = facts[format!("{name}_config")].clone();
    keys["_class_name"] = class.into();
    fs::write(folder.join("config.json"), serde_json::to_vec(&keys).unwrap()).unwrap();
    folder
}

/// `[frames, channels, height, width]` to channels last, of `channels` beginning with `from`.
fn channels_last(values: &[f32], all: usize, channels: std::ops::Range<usize>, positions: usize) -> Vec<f32> {
    let frames = values.len() / all / positions;
    (0..frames * positions)
        .flat_map(|row| {
            let (frame, position) = (row / positions, row % positions);
            channels.clone().map(move |channel| values[(frame * all + channel) * positions + position])
        })
        .collect()
}

/// A backend with one program, all tensors readable.
struct Run(CpuBackend, gpu_runtime::generate::ProgramId, Graph);

impl Run {
    fn new(graph: &Graph, weights: &Weights) -> Self {
        let graph = graph.clone().keep_all();
        let mut backend = CpuBackend::new(2);
        let id = backend.load(&graph, weights).unwrap();
        Self(backend, id, graph)
    }

    fn write(&mut self, name: &str, values: &[f32]) {
        self.0.write(self.1, self.2.find(name).unwrap(), values).unwrap();
    }

    fn read(&mut self, name: &str) -> Vec<f32> {
        let tensor = self.2.find(name).unwrap_or_else(|| panic!("no tensor `{name}`"));
        let mut values = vec![0.0; self.2.tensor(tensor).shape.elements() as usize];
        self.0.read(self.1, tensor, &mut values).unwrap();
        values
    }

    /// Compares all recorded tensors with a prefix; `ours` turns a name into ours.
    fn compare(&mut self, prefix: &str, ours: impl Fn(&str) -> Option<String>) {
        let mut compared = 0;
        let mut worst = 0f64;
        for (name, recorded) in recorded("svd") {
            let Some(ours) = name.strip_prefix(prefix).and_then(&ours) else { continue };
            let error = relative_error(&self.read(&ours), &recorded.channels_last());
            assert!(error <= TOLERANCE, "{name}: {error:.2e}");
            worst = worst.max(error);
            compared += 1;
        }
        println!("{prefix}: worst of {compared}: {worst:.2e}");
        assert!(compared > 0);
    }
}

#[test]
fn video_unet_matches_every_recorded_tensor() {
    let facts = facts();
    let temporary = tempfile::tempdir().unwrap();
    let folder = config(temporary.path(), "unet", "UNetSpatioTemporalConditionModel", &facts);
    let config = VideoUnetConfig::read(&folder.join("config.json")).unwrap();
    let graph = program::video_step(&config, LatentSize { clips: 1, frames: 3, height: 4, width: 6 });
    let mut weights = Weights::new();
    add(&mut weights, Component::Unet, &folder, &[&graph]);
    let mut run = Run::new(&graph, &weights);
    let x = hashed("x", 3 * 8 * 24);
    run.write(program::LATENTS, &channels_last(&x, 8, 0..4, 24));
    run.write(program::START_LATENTS, &channels_last(&x, 8, 4..8, 24));
    run.write(program::CONTEXT, &hashed("ctx", 24));
    run.write(program::TIMESTEP, &timestep_embedding(facts["timestep"].as_f64().unwrap(), 32, true, 0.0));
    let added = facts["added_time_ids"][0].as_array().unwrap();
    let added: Vec<f32> =
        added.iter().flat_map(|id| timestep_embedding(id.as_f64().unwrap(), 8, true, 0.0)).collect();
    run.write(program::ADDED, &added);
    run.write(program::SHARES, &program::shares(&config, &weights).unwrap());
    let passed_on =
        StepCoefficients { input_scale: 1.0, dx: 0.0, de: 1.0, nx: 1.0, nd: 0.0, np: 0.0, nn: 0.0 };
    run.write(program::SCALARS, &program::scalars(&passed_on));
    run.0.run(run.1).unwrap();
    run.compare("unet/", |name| Some(if name == "out" { "conv_out".to_owned() } else { name.to_owned() }));
}

#[test]
fn temporal_vae_matches_every_recorded_tensor() {
    let facts = facts();
    let temporary = tempfile::tempdir().unwrap();
    let folder = config(temporary.path(), "vae", "AutoencoderKLTemporalDecoder", &facts);
    let config = VaeConfig::read(&folder.join("config.json")).unwrap();
    let decode = program::decode(&config, 3, 4, 6);
    let encode = program::encode(&config, 4, 6);
    let mut weights = Weights::new();
    add(&mut weights, Component::Vae, &folder, &[&decode, &encode]);
    let mut run = Run::new(&decode, &weights);
    run.write(program::SCALED_LATENTS, &channels_last(&hashed("z", 3 * 4 * 24), 4, 0..4, 24));
    run.0.run(run.1).unwrap();
    run.compare("vae/", |name| match name {
        "mean" => None,
        "out" => Some(program::PICTURE.to_owned()),
        name => Some(name.to_owned()),
    });
    let mut run = Run::new(&encode, &weights);
    run.write(program::PICTURE, &channels_last(&hashed("img", 3 * 96), 3, 0..3, 96));
    run.0.run(run.1).unwrap();
    let means: Vec<f32> =
        run.read(program::MOMENTS).chunks_exact(8).flat_map(|row| row[..4].to_vec()).collect();
    let error = relative_error(&means, &recorded("svd")["vae/mean"].channels_last());
    assert!(error <= TOLERANCE, "mean: {error:.2e}");
}

fn published() -> (VideoUnetConfig, VaeConfig) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configurations/svd_xt");
    (
        VideoUnetConfig::read(&folder.join("unet/config.json")).unwrap(),
        VaeConfig::read(&folder.join("vae/config.json")).unwrap(),
    )
}

/// Extents of every attention to the context: its name and `[channels, context channels]`.
fn to_values(graph: &Graph) -> Vec<[u64; 2]> {
    let of_values = graph.weights.iter().filter(|weight| weight.name.ends_with("attn2.to_v.weight"));
    of_values.map(|weight| [u64::from(weight.dims[0]), u64::from(weight.dims[1])]).collect()
}

#[test]
fn parameters_are_those_of_the_published_files() {
    let (unet, vae) = published();
    let parameters = &facts()["parameters"];
    let count = |graphs: &[&Graph]| -> u64 {
        stored(graphs)
            .values()
            .map(|dims| dims.iter().map(|&extent| u64::from(extent)).product::<u64>())
            .sum()
    };
    let step = program::video_step(&unet, LatentSize { clips: 1, frames: 14, height: 72, width: 128 });
    let attentions = to_values(&step);
    // What a softmax over one key makes superfluous: normalisation, queries and keys of each attention to the context.
    let unread: u64 = attentions.iter().map(|[c, context]| 2 * c + c * c + c * context).sum();
    assert_eq!(count(&[&step]) + unread, parameters["unet"].as_u64().unwrap());
    let (decode, encode) = (program::decode(&vae, 1, 8, 8), program::encode(&vae, 8, 8));
    assert_eq!(count(&[&decode, &encode]), parameters["vae"].as_u64().unwrap());
    let names: BTreeSet<_> = step.weights.iter().map(|weight| &weight.name).collect();
    assert_eq!(names.len(), step.weights.len());
}

#[test]
fn steps_cost_what_the_table_says_less_what_is_saved() {
    let (unet, _) = published();
    for (frames, height, width, table, within) in
        [(14, 72, 128, 44.80, 0.01), (25, 72, 128, 79.95, 0.01), (14, 64, 64, 17.8, 0.05)]
    {
        let step = program::video_step(&unet, LatentSize { clips: 1, frames, height, width });
        let got = Cost::of(&step, 2).total().flops as f64 / 1e12;
        // The table counts attention to the context as diffusers computes it: queries and output projections of every
        // position, scores and sums over one key, and keys and values once per frame, or once per position in blocks
        // across frames.
        let context = 1024.0;
        let saved: f64 = step
            .ops
            .iter()
            .filter_map(|op| match op {
                gpu_runtime::graph::Op::LayerNorm { out, .. } => Some(step.tensor(*out)),
                _ => None,
            })
            .filter(|tensor| tensor.name.ends_with(".norm1"))
            .map(|tensor| {
                let (rows, c) = (tensor.shape.rows() as f64, f64::from(tensor.shape.channels));
                let across = tensor.name.contains("temporal_transformer_blocks");
                let keys = if across { rows / f64::from(frames) } else { f64::from(frames) };
                rows * (4.0 * c * c + 4.0 * c) + keys * 4.0 * c * context
            })
            .sum::<f64>()
            / 1e12;
        println!("{frames} × {height} × {width}: {got:.3} + {saved:.3} TFLOP, table {table}");
        assert!((got + saved - table).abs() <= within, "{got} + {saved} is not {table}");
    }
}
