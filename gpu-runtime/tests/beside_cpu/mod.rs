//! The same graph on the stand-in GPU and on the CPU, with the same bf16 weights and inputs.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its part")]

use std::collections::BTreeMap;

use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::generate::Backend;
use gpu_runtime::graph::{Builder, Graph, Mixing, PartSource, Precision, Shape, TensorId};
use gpu_runtime::weights::{Component, Weights};
use half::bf16;
use safetensors::tensor::{Dtype, TensorView};

use super::golden::relative_error;
use super::stand_in::StandIn;

/// Numbers in -1..1 that both backends hold exactly.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bf16::from_f32((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0).to_f32()
        })
        .collect()
}

/// Extents of every stored tensor that a graph names, without the component's name.
fn stored(graph: &Graph) -> BTreeMap<String, Vec<usize>> {
    let mut tensors = BTreeMap::new();
    for weight in &graph.weights {
        let inner: Vec<usize> = weight.dims[1..].iter().map(|&extent| extent as usize).collect();
        for part in &weight.parts {
            let mut add = |name: &str, dims: Vec<usize>| {
                tensors.insert(name.split_once('/').unwrap().1.to_owned(), dims);
            };
            let whole = [&[part.rows as usize], &inner[..]].concat();
            match &part.source {
                PartSource::Stored => add(&part.name, whole),
                PartSource::Mixed(Mixing { factor, .. }) => {
                    add(factor, vec![1]);
                    add(&part.name, whole);
                }
                PartSource::FrameEmbedding { hidden } => {
                    let hidden = *hidden as usize;
                    add(&format!("{}.linear_1.weight", part.name), vec![hidden, inner[0]]);
                    add(&format!("{}.linear_1.bias", part.name), vec![hidden]);
                    add(&format!("{}.linear_2.weight", part.name), vec![inner[0], hidden]);
                    add(&format!("{}.linear_2.bias", part.name), vec![inner[0]]);
                }
            }
        }
    }
    tensors
}

/// Weights for all that a graph names, as a file.
fn weights_for(graph: &Graph) -> (Weights, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let stored: Vec<(String, Vec<usize>, Vec<u8>)> = stored(graph)
        .into_iter()
        .enumerate()
        .map(|(index, (name, dims))| {
            let scale = 1.0 / (dims[1..].iter().product::<usize>() as f32).sqrt();
            let values = numbers(index as u64 + 7, dims.iter().product());
            let bytes = values.iter().flat_map(|v| bf16::from_f32(v * scale).to_le_bytes()).collect();
            (name, dims, bytes)
        })
        .collect();
    let views = stored
        .iter()
        .map(|(name, dims, bytes)| (name, TensorView::new(Dtype::BF16, dims.clone(), bytes).unwrap()));
    let file = safetensors::serialize(views, None).unwrap();
    let mut weights = Weights::new();
    if let Some(weight) = graph.weights.first() {
        let (component, stem) = match weight.name.split('/').next().unwrap() {
            "vae" => (Component::Vae, "diffusion_pytorch_model"),
            "image_encoder" => (Component::ImageEncoder, "model"),
            _ => (Component::Unet, "diffusion_pytorch_model"),
        };
        std::fs::write(folder.path().join(format!("{stem}.safetensors")), file).unwrap();
        weights.add(component, folder.path()).unwrap();
    }
    (weights, folder)
}

/// Runs a graph on both, inputs and states random, and compares its outputs.
pub(crate) fn check(stand_in: &StandIn, what: &str, graph: &Graph, tolerance: f64) {
    let (weights, _folder) = weights_for(graph);
    let mut cuda = stand_in.open();
    let mut cpu = CpuBackend::new(2);
    let mut results = Vec::new();
    for backend in [&mut cuda as &mut dyn Backend, &mut cpu] {
        let id = backend.load(graph, &weights).unwrap();
        for (index, tensor) in graph.inputs.iter().enumerate() {
            let shape = graph.tensor(*tensor).shape;
            let mut values = numbers(index as u64 + 1, shape.elements() as usize);
            if graph.tensor(*tensor).name == "ids" {
                values.iter_mut().for_each(|v| *v = (v.abs() * 600.0).floor());
            }
            backend.write(id, *tensor, &values).unwrap();
        }
        backend.run(id).unwrap();
        let read = |tensor: &TensorId| {
            let mut values = vec![0.0; graph.tensor(*tensor).shape.elements() as usize];
            backend.read(id, *tensor, &mut values).unwrap();
            values
        };
        results.push(graph.outputs.iter().map(read).collect::<Vec<_>>());
    }
    let pairs = results[0].iter().zip(&results[1]).zip(&graph.outputs);
    let errors: Vec<_> = pairs
        .map(|((got, expected), out)| (&graph.tensor(*out).name, relative_error(got, expected)))
        .collect();
    for (name, error) in &errors {
        println!("{what}, {name}: {error:.2e}");
    }
    for (name, error) in errors {
        assert!(error <= tolerance, "{what}, {name}: relative error {error:.2e} beyond {tolerance:.1e}");
    }
}

pub(crate) fn graph_of(inputs: &[Shape], build: impl FnOnce(&mut Builder, &[TensorId]) -> TensorId) -> Graph {
    let mut b = Builder::new("test", "unet");
    let ids: Vec<TensorId> = inputs
        .iter()
        .enumerate()
        .map(|(index, shape)| b.input(&format!("x{index}"), *shape, Precision::Model))
        .collect();
    let out = build(&mut b, &ids);
    b.output(out);
    b.finish()
}
