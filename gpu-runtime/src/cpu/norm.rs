//! Group and layer normalisation. Sums are taken in f64, mean first, then squared deviations.

use super::elementwise::silu;
use super::parallel::{for_blocks, map_blocks};
use crate::graph::{GroupNormSpec, Shape};

/// Rows of one block; fixed, so that results do not depend on the number of threads.
const BLOCK_ROWS: usize = 1024;

/// A group normalisation beside its input.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupNorm<'a> {
    /// Of input and output.
    pub(super) shape: Shape,
    /// One for each channel.
    pub(super) gamma: &'a [f32],
    /// One for each channel.
    pub(super) beta: &'a [f32],
    /// What it does.
    pub(super) spec: GroupNormSpec,
}

impl GroupNorm<'_> {
    /// Channels of one group.
    pub(super) fn within(&self) -> usize {
        (self.shape.channels / self.spec.groups) as usize
    }

    /// Rows that share statistics.
    pub(super) fn rows(&self) -> usize {
        self.spec.frames_together as usize * self.shape.positions() as usize
    }
}

/// (x - mean) / sqrt(variance + eps) · gamma + beta over frames × positions × channels of a group.
pub(super) fn group_norm(out: &mut [f32], input: &[f32], norm: GroupNorm<'_>, threads: usize) {
    let GroupNorm { gamma, beta, spec, .. } = norm;
    let channels = norm.shape.channels as usize;
    let (rows, within) = (norm.rows(), norm.within());
    let count = (rows * within) as f64;
    for (out, input) in out.chunks_exact_mut(rows * channels).zip(input.chunks_exact(rows * channels)) {
        // Sums of f(group, value) over all rows, block by block in order.
        let sums = |f: &(dyn Fn(usize, f32) -> f64 + Sync)| -> Vec<f64> {
            let partial = map_blocks(rows.div_ceil(BLOCK_ROWS), threads, input.len() as u64, |block| {
                let from = block * BLOCK_ROWS * channels;
                let to = input.len().min(from + BLOCK_ROWS * channels);
                let mut sums = vec![0.0; spec.groups as usize];
                for row in input[from..to].chunks_exact(channels) {
                    for (group, values) in row.chunks_exact(within).enumerate() {
                        sums[group] += values.iter().map(|&value| f(group, value)).sum::<f64>();
                    }
                }
                sums
            });
            let mut total = vec![0.0; spec.groups as usize];
            for sums in partial {
                total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
            }
            total
        };
        let means: Vec<f64> = sums(&|_, value| f64::from(value)).iter().map(|sum| sum / count).collect();
        let variances = sums(&|group, value| (f64::from(value) - means[group]).powi(2));
        // y = x · scale + shift, per channel.
        let (scale, shift): (Vec<f64>, Vec<f64>) = (0..channels)
            .map(|channel| {
                let group = channel / within;
                let inverse = 1.0 / (variances[group] / count + f64::from(spec.eps)).sqrt();
                let scale = inverse * f64::from(gamma[channel]);
                (scale, f64::from(beta[channel]) - means[group] * scale)
            })
            .unzip();
        for_blocks(out, BLOCK_ROWS * channels, threads, 4 * input.len() as u64, |index, block| {
            let from = &input[index * BLOCK_ROWS * channels..][..block.len()];
            for (out, row) in block.chunks_exact_mut(channels).zip(from.chunks_exact(channels)) {
                for channel in 0..channels {
                    let value = (f64::from(row[channel]) * scale[channel] + shift[channel]) as f32;
                    out[channel] = if spec.silu { silu(value) } else { value };
                }
            }
        });
    }
}

/// The same over the channels of each row.
pub(super) fn layer_norm(
    out: &mut [f32],
    input: &[f32],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    threads: usize,
) {
    let channels = gamma.len();
    for_blocks(out, BLOCK_ROWS * channels, threads, 4 * input.len() as u64, |index, block| {
        let from = &input[index * BLOCK_ROWS * channels..][..block.len()];
        for (out, row) in block.chunks_exact_mut(channels).zip(from.chunks_exact(channels)) {
            let count = channels as f64;
            let mean = row.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
            let variance = row.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
            let inverse = 1.0 / (variance + f64::from(eps)).sqrt();
            for (channel, (out, &value)) in out.iter_mut().zip(row).enumerate() {
                *out = ((f64::from(value) - mean) * inverse) as f32 * gamma[channel] + beta[channel];
            }
        }
    });
}
