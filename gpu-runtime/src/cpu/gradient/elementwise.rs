//! Gradients of operations on single elements or rows.

use super::super::elementwise::gelu;
use crate::graph::{ActivationFunction, Shape};

/// out = value · gelu(gate); `channels` are those of the result.
pub(super) fn geglu(of_input: &mut [f32], of_out: &[f32], input: &[f32], channels: usize) {
    let rows = of_input.chunks_exact_mut(2 * channels).zip(input.chunks_exact(2 * channels));
    for ((gradients, row), of_out) in rows.zip(of_out.chunks_exact(channels)) {
        for c in 0..channels {
            let (value, gate) = (row[c], row[channels + c]);
            gradients[c] = of_out[c] * gelu(gate);
            gradients[channels + c] = of_out[c] * value * gelu_slope(gate);
        }
    }
}

/// Gradient of an elementwise function.
pub(super) fn activation(of_input: &mut [f32], of_out: &[f32], input: &[f32], function: ActivationFunction) {
    let slope = match function {
        ActivationFunction::Silu => |x: f32| sigmoid_slope(x, 1.0),
        ActivationFunction::Gelu => gelu_slope,
        ActivationFunction::QuickGelu => |x: f32| sigmoid_slope(x, 1.702),
    };
    let operands = of_out.iter().zip(input);
    of_input.iter_mut().zip(operands).for_each(|(to, (gradient, &x))| *to = gradient * slope(x));
}

/// Zeros between rows and columns.
pub(super) fn spread(out: &mut [f32], input: &[f32], [from, to]: [Shape; 2]) {
    let channels = from.channels as usize;
    out.fill(0.0);
    for (row, values) in input.chunks_exact(channels).enumerate() {
        let (frame, position) = (row / from.positions() as usize, row % from.positions() as usize);
        let (y, x) = (position / from.width as usize, position % from.width as usize);
        let at = (frame * to.height as usize + 2 * y) * to.width as usize + 2 * x;
        out[at * channels..][..channels].copy_from_slice(values);
    }
}

/// The gradient of a picture `to` whose pixels became 2 × 2 equal ones.
pub(super) fn sum_of_four(out: &mut [f32], doubled: &[f32], to: Shape) {
    let (width, channels) = (to.width as usize, to.channels as usize);
    let line = 2 * width * channels;
    for (summed, lines) in out.chunks_exact_mut(width * channels).zip(doubled.chunks_exact(2 * line)) {
        let (upper, lower) = lines.split_at(line);
        for (index, sum) in summed.iter_mut().enumerate() {
            let at = index / channels * 2 * channels + index % channels;
            *sum = upper[at] + upper[at + channels] + lower[at] + lower[at + channels];
        }
    }
}

/// `channels` of each row, `stride` apart.
pub(super) fn channels(out: &mut [f32], from_first: &[f32], stride: usize, channels: usize) {
    for (row, values) in out.chunks_exact_mut(channels).zip(from_first.chunks(stride)) {
        row.copy_from_slice(&values[..channels]);
    }
}

/// d/dx of x · s with s = 1 / (1 + exp(-rate · x)): s · (1 + rate · x · (1 - s)).
fn sigmoid_slope(x: f32, rate: f32) -> f32 {
    let s = 1.0 / (1.0 + (-rate * x).exp());
    s * (1.0 + rate * x * (1.0 - s))
}

/// d/dx of x · Φ(x): Φ(x) + x · φ(x), with Φ and φ the normal law's distribution and density.
fn gelu_slope(x: f32) -> f32 {
    let distribution = 0.5 * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2));
    let density = (-0.5 * x * x).exp() / std::f32::consts::TAU.sqrt();
    distribution + x * density
}
