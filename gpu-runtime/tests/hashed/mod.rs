//! Weights and inputs that are hashes of names and indices, made here as by `fixtures/make_svd.py`.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses its part, and a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;

use gpu_runtime::graph::{Graph, Mixing, PartSource};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};

/// Uniform numbers in -1..1: FNV-1a of the name, then murmur3's finalizer of hash + index.
pub(crate) fn hashed(name: &str, count: usize) -> Vec<f32> {
    let hash =
        name.bytes().fold(2_166_136_261u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    (0..count as u32)
        .map(|index| {
            let mut x = index.wrapping_mul(2_654_435_769).wrapping_add(hash);
            x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
            x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
            x ^= x >> 16;
            (f64::from(x >> 8) / f64::from(1 << 23) - 1.0) as f32
        })
        .collect()
}

/// Every stored tensor that graphs name, with its extents.
pub(crate) fn stored(graphs: &[&Graph]) -> BTreeMap<String, Vec<u32>> {
    let mut tensors = BTreeMap::new();
    for weight in graphs.iter().flat_map(|graph| &graph.weights) {
        for part in &weight.parts {
            let mut dims = vec![part.rows];
            dims.extend(&weight.dims[1..]);
            match &part.source {
                PartSource::Stored => drop(tensors.insert(part.name.clone(), dims)),
                PartSource::Mixed(Mixing { factor, .. }) => {
                    tensors.insert(factor.clone(), vec![1]);
                    tensors.insert(part.name.clone(), dims);
                }
                PartSource::FrameEmbedding { hidden } => {
                    let channels = weight.dims[1];
                    for (name, dims) in [
                        ("linear_1.weight", vec![*hidden, channels]),
                        ("linear_1.bias", vec![*hidden]),
                        ("linear_2.weight", vec![channels, *hidden]),
                        ("linear_2.bias", vec![channels]),
                    ] {
                        tensors.insert(format!("{}.{name}", part.name), dims);
                    }
                }
            }
        }
    }
    tensors
}

/// Writes hashed weights of graphs that use one component into a file; `shaped` gives a tensor the extents that it has
/// there.
pub(crate) fn write(path: &Path, graphs: &[&Graph], shaped: fn(&str, &mut Vec<u32>)) {
    let values: Vec<(String, Vec<usize>, Vec<u8>)> = stored(graphs)
        .into_iter()
        .map(|(name, mut dims)| {
            shaped(&name, &mut dims);
            let count = dims.iter().product::<u32>();
            let inputs = f64::from(count / dims[0]);
            let of = |value: f32| {
                if name.ends_with("mix_factor") {
                    value
                } else if name.ends_with("bias") {
                    value * 0.1
                } else if dims.len() == 1 {
                    value * 0.1 + 1.0
                } else {
                    value * (3.0 / inputs).sqrt() as f32
                }
            };
            let bytes = hashed(&name, count as usize).into_iter().flat_map(|value| of(value).to_le_bytes());
            let short = name.split_once('/').unwrap().1.to_owned();
            (short, dims.iter().map(|&extent| extent as usize).collect(), bytes.collect())
        })
        .collect();
    let views = values
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}
