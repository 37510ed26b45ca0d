//! The operations of the way back. `train`'s rule tests compare each with differences of the forward pass.

mod attention;
mod elementwise;
mod norm;

use super::attention::Extents;
use super::matrix::{Matrix, multiply};
use super::operation::Operands;
use crate::graph::{AttentionPattern, Gradient, TensorId, View};

/// Rows of one block of a matrix's gradient, columns of its left operand; fixed, so that results do not depend on the number of
/// threads.
const BLOCK_ROWS: usize = 64;

/// Computes one operation.
pub(super) fn execute(gradient: &Gradient, o: Operands<'_>, out: &mut [f32], threads: usize) {
    match *gradient {
        Gradient::GroupNorm { of_out, input, residual, gamma, beta, spec, .. } => {
            let norm = o.group_norm(input, gamma, beta, spec);
            norm::group_norm(out, o.values(of_out), o.values(input), o.values_of(residual), norm, threads);
        }
        Gradient::LayerNorm { of_out, input, residual, gamma, eps, .. } => {
            let rule = (o.weight(gamma), eps);
            norm::layer_norm(out, o.values(of_out), o.values(input), o.values_of(residual), rule, threads);
        }
        Gradient::Geglu { of_out, input, .. } => {
            elementwise::geglu(out, o.values(of_out), o.values(input), o.channels(of_out));
        }
        Gradient::Activation { of_out, input, function, .. } => {
            elementwise::activation(out, o.values(of_out), o.values(input), function);
        }
        Gradient::AttentionRows { query, key, result, of_out, heads, pattern, .. } => {
            let views = [query, key, key];
            attention_of(o, views, of_out, (heads, pattern), threads).rows(out, o.values(result));
        }
        Gradient::AttentionQuery { of, .. } => {
            let views = [of.query, of.key, of.value];
            attention_of(o, views, of.of_out, (of.heads, of.pattern), threads).query(out, o.values(of.rows));
        }
        Gradient::AttentionKeyValue { of, .. } => {
            let views = [of.query, of.key, of.value];
            attention_of(o, views, of.of_out, (of.heads, of.pattern), threads)
                .key_value(out, o.values(of.rows));
        }
        Gradient::Spread { out: to, input } => {
            elementwise::spread(out, o.values(input), [o.shape(input), o.shape(to)]);
        }
        Gradient::SumOfFour { out: to, input } => {
            elementwise::sum_of_four(out, o.values(input), o.shape(to));
        }
        Gradient::Channels { input, .. } => {
            let from = o.rows(input);
            elementwise::channels(out, from.data, from.stride, from.channels);
        }
        Gradient::Matrix { left, right, .. } => {
            let of = |id: TensorId| {
                Matrix::rows(o.values(id), o.shape(id).rows() as usize, o.channels(id), o.channels(id))
            };
            matrix(out, of(left), of(right), threads);
        }
    }
}

fn attention_of(
    o: Operands<'_>,
    [query, key, value]: [View; 3],
    of_out: TensorId,
    (heads, pattern): (u32, AttentionPattern),
    threads: usize,
) -> attention::Attention<'_> {
    let extents =
        Extents { queries: o.shape(query.tensor), keys: o.shape(key.tensor), heads: heads as usize };
    attention::Attention {
        query: o.rows(query),
        key: o.rows(key),
        value: o.rows(value),
        of_out: o.rows(View { tensor: of_out, offset: 0, channels: o.shape(of_out).channels }),
        extents,
        pattern,
        threads,
    }
}

/// out = leftᵀ · right.
fn matrix(out: &mut [f32], left: Matrix<'_>, right: Matrix<'_>, threads: usize) {
    let work = (left.rows * left.columns * right.columns) as u64;
    super::parallel::for_blocks(out, BLOCK_ROWS * right.columns, threads, work, |index, block| {
        let first = index * BLOCK_ROWS;
        let part = Matrix { data: &left.data[first..], columns: block.len() / right.columns, ..left };
        multiply(block, right.columns, part.transposed(), right, 1.0, false);
    });
}
