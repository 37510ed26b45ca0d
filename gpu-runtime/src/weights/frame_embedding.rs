//! Embeddings of frame numbers by two stored layers, made once when weights are read: they depend on nothing else.

use super::Weights;
use crate::RuntimeError;
use crate::graph::{PartSource, WeightLayout, WeightPart, WeightUse};
use crate::schedule::embedding::timestep_embedding;

/// `[frames, channels]`: row f is linear_2(silu(linear_1(cosines, then sines, of f))), sums taken in f64.
pub(super) fn table(
    weights: &Weights,
    path: &str,
    channels: u32,
    hidden: u32,
    frames: u32,
) -> Result<Vec<f32>, RuntimeError> {
    let read = |name: &str, dims: &[u32], layout| {
        let name = format!("{path}.{name}");
        let part = WeightPart { name: name.clone(), rows: dims[0], source: PartSource::Stored };
        weights.f32(&WeightUse { name, parts: vec![part], dims: dims.to_vec(), layout, turned: false })
    };
    let matrices = [
        read("linear_1.weight", &[hidden, channels], WeightLayout::Matrix)?,
        read("linear_2.weight", &[channels, hidden], WeightLayout::Matrix)?,
    ];
    let biases = [
        read("linear_1.bias", &[hidden], WeightLayout::Vector)?,
        read("linear_2.bias", &[channels], WeightLayout::Vector)?,
    ];
    let layer = |n: usize, input: &[f64]| -> Vec<f64> {
        matrices[n]
            .chunks_exact(input.len())
            .zip(&biases[n])
            .map(|(row, bias)| {
                f64::from(*bias) + row.iter().zip(input).map(|(w, x)| f64::from(*w) * x).sum::<f64>()
            })
            .collect()
    };
    let rows = (0..frames).flat_map(|frame| {
        let waves = timestep_embedding(f64::from(frame), channels as usize, true, 0.0);
        let waves: Vec<f64> = waves.into_iter().map(f64::from).collect();
        let active: Vec<f64> = layer(0, &waves).into_iter().map(|x| x / (1.0 + libm::exp(-x))).collect();
        layer(1, &active)
    });
    Ok(rows.map(|value| value as f32).collect())
}
