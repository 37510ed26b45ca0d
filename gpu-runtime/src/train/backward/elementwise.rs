//! Gradients of operations on single elements or rows.

use crate::cpu::gelu;
use crate::graph::ActivationFunction;

/// Sums of each `rows` consecutive rows: the gradient of a row that was added to all of them.
pub(super) fn sum_rows(of_out: &[f32], rows: usize, channels: usize) -> Vec<f32> {
    let sum = |part: &[f32]| {
        let mut sums = vec![0.0f64; channels];
        for row in part.chunks_exact(channels) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        sums.into_iter().map(|sum| sum as f32).collect::<Vec<_>>()
    };
    of_out.chunks_exact(rows * channels).flat_map(sum).collect()
}

/// Gradients of the two operands of a concatenation with these channels.
pub(super) fn split(of_out: &[f32], [left, right]: [usize; 2]) -> [Vec<f32>; 2] {
    let rows = || of_out.chunks_exact(left + right);
    [
        rows().flat_map(|row| &row[..left]).copied().collect(),
        rows().flat_map(|row| &row[left..]).copied().collect(),
    ]
}

/// out = value · gelu(gate); `channels` are those of the result.
pub(super) fn geglu(of_out: &[f32], input: &[f32], channels: usize) -> Vec<f32> {
    let mut of_input = vec![0.0; input.len()];
    let rows = of_input.chunks_exact_mut(2 * channels).zip(input.chunks_exact(2 * channels));
    for ((gradients, row), of_out) in rows.zip(of_out.chunks_exact(channels)) {
        for c in 0..channels {
            let (value, gate) = (row[c], row[channels + c]);
            gradients[c] = of_out[c] * gelu(gate);
            gradients[channels + c] = of_out[c] * value * gelu_slope(gate);
        }
    }
    of_input
}

/// Gradient of an elementwise function.
pub(super) fn activation(of_out: &[f32], input: &[f32], function: ActivationFunction) -> Vec<f32> {
    let slope = match function {
        ActivationFunction::Silu => |x: f32| sigmoid_slope(x, 1.0),
        ActivationFunction::Gelu => gelu_slope,
        ActivationFunction::QuickGelu => |x: f32| sigmoid_slope(x, 1.702),
    };
    of_out.iter().zip(input).map(|(gradient, &x)| gradient * slope(x)).collect()
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
