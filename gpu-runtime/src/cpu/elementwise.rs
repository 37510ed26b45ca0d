//! Operations on single elements or rows: activations, gates, tables, concatenation, embeddings, combinations.

use super::parallel::for_blocks;
use crate::graph::ActivationFunction;

/// Elements of one block; fixed, so that results do not depend on the number of threads.
const BLOCK_ELEMENTS: usize = 1 << 16;

/// x / (1 + exp(-x)).
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// 0.5 x (1 + erf(x / sqrt 2)).
pub(crate) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// An elementwise function.
pub(super) fn activation(out: &mut [f32], input: &[f32], function: ActivationFunction, threads: usize) {
    let apply = match function {
        ActivationFunction::Silu => silu,
        ActivationFunction::Gelu => gelu,
        ActivationFunction::QuickGelu => |x: f32| x / (1.0 + (-1.702 * x).exp()),
    };
    for_blocks(out, BLOCK_ELEMENTS, threads, 16 * input.len() as u64, |index, block| {
        let from = &input[index * BLOCK_ELEMENTS..];
        block.iter_mut().zip(from).for_each(|(out, &value)| *out = apply(value));
    });
}

/// First half of each row times the GELU of the second half; rows of `out` have `channels` elements.
pub(super) fn geglu(out: &mut [f32], input: &[f32], channels: usize, threads: usize) {
    let rows = BLOCK_ELEMENTS.div_ceil(channels);
    for_blocks(out, rows * channels, threads, 16 * input.len() as u64, |index, block| {
        let from = input[index * rows * 2 * channels..].chunks_exact(2 * channels);
        for (out, row) in block.chunks_exact_mut(channels).zip(from) {
            let (values, gates) = row.split_at(channels);
            for ((out, value), &gate) in out.iter_mut().zip(values).zip(gates) {
                *out = value * gelu(gate);
            }
        }
    });
}

/// Adds row f of `table` to all `positions` rows of frame f, counted within clips of `frames` frames.
pub(super) fn add_frame_table(
    out: &mut [f32],
    input: &[f32],
    table: &[f32],
    channels: usize,
    positions: usize,
    frames: usize,
) {
    let rows = out.chunks_exact_mut(channels).zip(input.chunks_exact(channels));
    for (index, (out, row)) in rows.enumerate() {
        let frame = index / positions % frames;
        let added = &table[frame * channels..][..channels];
        for ((out, value), added) in out.iter_mut().zip(row).zip(added) {
            *out = value + added;
        }
    }
}

/// Channels of `left`, then of `right`.
pub(super) fn concat(out: &mut [f32], left: &[f32], right: &[f32], channels: [usize; 2]) {
    let rows = left.chunks_exact(channels[0]).zip(right.chunks_exact(channels[1]));
    for (out, (left, right)) in out.chunks_exact_mut(channels[0] + channels[1]).zip(rows) {
        out[..channels[0]].copy_from_slice(left);
        out[channels[0]..].copy_from_slice(right);
    }
}

/// Row `ids[n]` of `tokens` plus row n of `positions`. Ids beyond the table read its last row; the tokenizer gives none.
pub(super) fn embed(out: &mut [f32], ids: &[f32], tokens: &[f32], positions: &[f32], channels: usize) {
    let last = tokens.len() / channels - 1;
    for (index, (out, id)) in out.chunks_exact_mut(channels).zip(ids).enumerate() {
        let token = &tokens[(*id as usize).min(last) * channels..][..channels];
        let position = &positions[index * channels..][..channels];
        for ((out, token), position) in out.iter_mut().zip(token).zip(position) {
            *out = token + position;
        }
    }
}

/// out = Σ coefficient · term; `None` stands for `out` itself.
pub(super) fn combine(out: &mut [f32], terms: &[(f32, Option<&[f32]>)]) {
    for (index, value) in out.iter_mut().enumerate() {
        let before = *value;
        *value = terms
            .iter()
            .map(|(coefficient, term)| coefficient * term.map_or(before, |term| term[index]))
            .sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_match_their_tables() {
        // scipy.special: erf and expit in f64.
        for (function, x, expected) in [
            (ActivationFunction::Silu, 1.0, 0.731_058_6),
            (ActivationFunction::Gelu, 1.0, 0.841_344_7),
            (ActivationFunction::Gelu, -2.0, -0.045_500_264),
            (ActivationFunction::QuickGelu, 1.0, 0.845_795_7),
        ] {
            let mut out = [0.0];
            activation(&mut out, &[x], function, 1);
            assert!((out[0] - expected).abs() < 1e-6, "{function:?} {x}: {}", out[0]);
        }
    }

    #[test]
    fn a_state_may_be_one_of_the_terms() {
        let mut state = [1.0, 2.0];
        combine(&mut state, &[(3.0, None), (2.0, Some(&[10.0, 20.0]))]);
        assert_eq!(state, [23.0, 46.0]);
    }

    #[test]
    fn table_rows_start_again_with_each_clip() {
        let mut out = [0.0; 8];
        add_frame_table(&mut out, &[0.0; 8], &[1.0, 2.0, 3.0], 1, 2, 2);
        assert_eq!(out, [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
    }
}
