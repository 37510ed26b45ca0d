//! Gradients of the inputs of group and layer normalisation. Statistics are computed again, in f64.
//!
//! With x̂ = (x - mean) / deviation and g the gradient of x̂ (after gamma), the gradient of x is
//! (g - mean(g) - x̂ · mean(g · x̂)) / deviation, means over the values that share statistics.

use super::super::norm::GroupNorm;
use super::super::parallel::for_blocks;

/// The rule for one set of values that share statistics: `index(n)` is where value n lies in `input`, `of_out` and
/// `of_input`; `upstream(n, x̂)` is the gradient of x̂.
fn shared(
    of_input: &mut [f32],
    input: &[f32],
    count: usize,
    eps: f32,
    index: impl Fn(usize) -> usize,
    upstream: impl Fn(usize, f64) -> f64,
) {
    let value = |n: usize| f64::from(input[index(n)]);
    let mean = (0..count).map(value).sum::<f64>() / count as f64;
    let variance = (0..count).map(|n| (value(n) - mean).powi(2)).sum::<f64>() / count as f64;
    let inverse = 1.0 / (variance + f64::from(eps)).sqrt();
    let (mut mean_g, mut mean_gx) = (0.0, 0.0);
    for n in 0..count {
        let normed = (value(n) - mean) * inverse;
        let g = upstream(index(n), normed);
        mean_g += g / count as f64;
        mean_gx += g * normed / count as f64;
        of_input[index(n)] = g as f32;
    }
    for n in 0..count {
        let normed = (value(n) - mean) * inverse;
        let g = f64::from(of_input[index(n)]);
        of_input[index(n)] = ((g - mean_g - normed * mean_gx) * inverse) as f32;
    }
}

/// Over `frames_together` frames × positions × channels of a group.
pub(super) fn group_norm(
    of_input: &mut [f32],
    of_out: &[f32],
    input: &[f32],
    residual: Option<&[f32]>,
    norm: GroupNorm<'_>,
    threads: usize,
) {
    let GroupNorm { gamma, beta, spec, .. } = norm;
    let channels = norm.shape.channels as usize;
    let within = norm.within();
    let part = norm.rows() * channels;
    for_blocks(of_input, part, threads, 8 * input.len() as u64, |index, block| {
        let (input, of_out) = (&input[index * part..][..part], &of_out[index * part..][..part]);
        for group in 0..spec.groups as usize {
            let at = |n: usize| n / within * channels + group * within + n % within;
            shared(block, input, norm.rows() * within, spec.eps, at, |at, normed| {
                let (gamma, beta) = (f64::from(gamma[at % channels]), f64::from(beta[at % channels]));
                let slope = if spec.silu { silu_slope(normed * gamma + beta) } else { 1.0 };
                f64::from(of_out[at]) * slope * gamma
            });
        }
        add(block, residual, index * part);
    });
}

/// Adds the values from `first` on, where there are some.
fn add(block: &mut [f32], residual: Option<&[f32]>, first: usize) {
    if let Some(residual) = residual {
        block.iter_mut().zip(&residual[first..]).for_each(|(value, more)| *value += more);
    }
}

/// Over the channels of each row.
pub(super) fn layer_norm(
    of_input: &mut [f32],
    of_out: &[f32],
    input: &[f32],
    residual: Option<&[f32]>,
    (gamma, eps): (&[f32], f32),
    threads: usize,
) {
    let channels = gamma.len();
    for_blocks(of_input, channels, threads, 8 * input.len() as u64, |index, block| {
        let (input, of_out) =
            (&input[index * channels..][..channels], &of_out[index * channels..][..channels]);
        shared(block, input, channels, eps, |n| n, |at, _| f64::from(of_out[at]) * f64::from(gamma[at]));
        add(block, residual, index * channels);
    });
}

/// d/dx of x · s with s = 1 / (1 + exp(-x)): s · (1 + x · (1 - s)).
fn silu_slope(x: f64) -> f64 {
    let s = 1.0 / (1.0 + (-x).exp());
    s * (1.0 + x * (1.0 - s))
}
