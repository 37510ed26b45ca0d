//! Numbers for weights and inputs.

use std::collections::BTreeMap;

use gpu_runtime::graph::{Graph, Mixing, PartSource};
use gpu_runtime::weights::{Component, Weights};
use half::bf16;
use safetensors::tensor::{Dtype, TensorView};

/// Numbers in -1..1 that every backend holds exactly.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
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
pub(crate) fn weights_for(graph: &Graph) -> (Weights, tempfile::TempDir) {
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
