//! The operations of the way back. `train`'s rule tests compare each with differences of the forward pass.

mod attention;
mod elementwise;
mod norm;

use super::backend::Operands;
use super::matrix::{Matrix, multiply};
use crate::graph::{AttentionPattern, Gradient, TensorId, View, WeightId};

/// Rows of one block of a matrix's gradient; fixed, so that results do not depend on the number of threads.
const BLOCK_COLUMNS: usize = 64;

/// Computes one operation.
pub(super) fn execute(gradient: &Gradient, operands: Operands<'_>, out: &mut [f32], threads: usize) {
    let Operands { graph, weights, tensors } = operands;
    let shape = |id: TensorId| graph.tensor(id).shape;
    let values = |id: TensorId| tensors[id.0 as usize].as_slice();
    let weight = |id: WeightId| weights[id.0 as usize].as_slice();
    let rows = |view: View| attention::Rows {
        data: &values(view.tensor)[view.offset as usize..],
        stride: shape(view.tensor).channels as usize,
        channels: view.channels as usize,
    };
    let whole = |id: TensorId| rows(View { tensor: id, offset: 0, channels: shape(id).channels });
    let of_attention =
        |[query, key, value]: [View; 3], of_out: TensorId, heads: u32, pattern: AttentionPattern| {
            attention::Attention {
                query: rows(query),
                key: rows(key),
                value: rows(value),
                of_out: whole(of_out),
                shapes: [query, key].map(|view| shape(view.tensor)),
                heads: heads as usize,
                pattern,
                threads,
            }
        };
    match gradient {
        Gradient::GroupNorm {
            of_out,
            input,
            residual,
            gamma,
            beta,
            groups,
            eps,
            silu,
            frames_together,
            ..
        } => {
            let rule = norm::Groups {
                shape: shape(*input),
                gamma: weight(*gamma),
                beta: weight(*beta),
                groups: *groups as usize,
                eps: *eps,
                silu: *silu,
                frames_together: *frames_together as usize,
            };
            norm::group_norm(out, values(*of_out), values(*input), residual.map(values), rule, threads);
        }
        Gradient::LayerNorm { of_out, input, residual, gamma, eps, .. } => {
            let rule = (weight(*gamma), *eps);
            norm::layer_norm(out, values(*of_out), values(*input), residual.map(values), rule, threads);
        }
        Gradient::Geglu { of_out, input, .. } => {
            elementwise::geglu(out, values(*of_out), values(*input), shape(*of_out).channels as usize);
        }
        Gradient::Activation { of_out, input, function, .. } => {
            elementwise::activation(out, values(*of_out), values(*input), *function);
        }
        Gradient::AttentionRows { query, key, result, of_out, heads, pattern, .. } => {
            of_attention([*query, *key, *key], *of_out, *heads, *pattern).rows(out, values(*result));
        }
        Gradient::AttentionQuery { of, .. } => {
            let views = [of.query, of.key, of.value];
            of_attention(views, of.of_out, of.heads, of.pattern).query(out, values(of.rows));
        }
        Gradient::AttentionKeyValue { of, .. } => {
            let views = [of.query, of.key, of.value];
            of_attention(views, of.of_out, of.heads, of.pattern).key_value(out, values(of.rows));
        }
        Gradient::Spread { out: to, input } => {
            elementwise::spread(out, values(*input), [shape(*input), shape(*to)]);
        }
        Gradient::SumOfFour { out: to, input } => elementwise::sum_of_four(out, values(*input), shape(*to)),
        Gradient::Channels { input, .. } => {
            let from = rows(*input);
            elementwise::channels(out, from.data, from.stride, from.channels);
        }
        Gradient::Matrix { left, right, .. } => {
            let [left, right] = [*left, *right].map(|id| {
                Matrix::rows(
                    values(id),
                    shape(id).rows() as usize,
                    shape(id).channels as usize,
                    shape(id).channels as usize,
                )
            });
            matrix(out, left, right, threads);
        }
    }
}

/// out = leftᵀ · right.
fn matrix(out: &mut [f32], left: Matrix<'_>, right: Matrix<'_>, threads: usize) {
    let work = (left.rows * left.columns * right.columns) as u64;
    super::parallel::for_blocks(out, BLOCK_COLUMNS * right.columns, threads, work, |index, block| {
        let first = index * BLOCK_COLUMNS;
        let part = Matrix { data: &left.data[first..], columns: block.len() / right.columns, ..left };
        multiply(block, right.columns, part.transposed(), right, 1.0, false);
    });
}
