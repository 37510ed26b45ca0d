//! Group and layer normalisation.

use super::{Lowering, narrow};
use crate::cuda::arguments::{GroupNorm, GroupNormGradient, LayerNorm, LayerNormGradient};
use crate::graph::{Gradient, Op, Shape};

/// Groups at most (`GROUPS_MAX` of `norm.cu`).
const GROUPS_MAX: u32 = 64;
/// Chunks of one instance at most: each block of the second pass adds them all up.
const CHUNKS_MAX: u64 = 256;

/// How the rows of a group normalisation are cut.
struct Chunks {
    /// Sets of frames with statistics of their own.
    instances: u32,
    /// Rows of each, in `count` chunks of `chunk_rows`.
    rows: u32,
    count: u32,
    chunk_rows: u32,
}

impl Lowering<'_> {
    fn chunks(&self, shape: Shape, frames_together: u32) -> Chunks {
        let instances = shape.frames / frames_together;
        let rows = shape.rows() / u64::from(instances);
        let wanted = u64::from((self.target.processors * 2).div_ceil(instances));
        let chunk_rows = rows.div_ceil(wanted.clamp(1, CHUNKS_MAX)).max(8);
        let count = narrow(rows.div_ceil(chunk_rows));
        Chunks { instances, rows: narrow(rows), count, chunk_rows: narrow(chunk_rows) }
    }

    pub(super) fn norm_gradient(&mut self, gradient: &Gradient) {
        match gradient {
            Gradient::GroupNorm {
                out,
                of_out,
                input,
                residual,
                gamma,
                beta,
                groups,
                eps,
                silu,
                frames_together,
            } => {
                let shape = self.shape(*input);
                assert!(*groups <= GROUPS_MAX, "{groups} groups");
                let Chunks { instances, rows, count, chunk_rows } = self.chunks(shape, *frames_together);
                let sums_bytes = u64::from(instances) * u64::from(count) * u64::from(*groups) * 8;
                self.need_workspace(2 * sums_bytes);
                let partial = self.addresses.workspace;
                let of_input = GroupNorm {
                    input: self.at(*input),
                    partial,
                    rows,
                    channels: shape.channels,
                    groups: *groups,
                    chunks: count,
                    chunk_rows,
                    ..GroupNorm::default()
                };
                let arguments = GroupNormGradient {
                    of_out: self.at(*of_out),
                    input: self.at(*input),
                    residual: residual.map_or(0, |id| self.at(id)),
                    gamma: self.weight(*gamma),
                    beta: self.weight(*beta),
                    out: self.at(*out),
                    partial,
                    sums: partial + sums_bytes,
                    rows,
                    channels: shape.channels,
                    groups: *groups,
                    chunks: count,
                    chunk_rows,
                    silu: u32::from(*silu),
                    eps: *eps,
                    reserved: 0,
                };
                let grid = [count, instances, 1];
                let [first, sums, apply] = if shape.channels.is_multiple_of(8) {
                    ["group_norm_sums_8", "group_norm_gradient_sums_8", "group_norm_gradient_apply_8"]
                } else {
                    ["group_norm_sums_1", "group_norm_gradient_sums_1", "group_norm_gradient_apply_1"]
                };
                self.launch(first, grid, 256, 0, &of_input);
                self.launch(sums, grid, 256, 0, &arguments);
                self.launch(apply, grid, 256, 0, &arguments);
            }
            Gradient::LayerNorm { out, of_out, input, residual, gamma, eps } => {
                let shape = self.shape(*input);
                let rows = narrow(shape.rows());
                let arguments = LayerNormGradient {
                    of_out: self.at(*of_out),
                    input: self.at(*input),
                    residual: residual.map_or(0, |id| self.at(id)),
                    gamma: self.weight(*gamma),
                    out: self.at(*out),
                    rows,
                    channels: shape.channels,
                    eps: *eps,
                    reserved: 0,
                };
                let wide = shape.channels.is_multiple_of(8);
                let kernel = if wide { "layer_norm_gradient_8" } else { "layer_norm_gradient_1" };
                self.launch(kernel, [rows.div_ceil(8), 1, 1], 256, 0, &arguments);
            }
            _ => unreachable!("only norms come here"),
        }
    }

    pub(super) fn norm(&mut self, op: &Op) {
        match op {
            Op::GroupNorm { out, input, gamma, beta, groups, eps, silu, frames_together } => {
                let shape = self.shape(*input);
                assert!(
                    *groups <= GROUPS_MAX && shape.channels.is_multiple_of(*groups),
                    "{groups} groups of {}",
                    shape.channels
                );
                let Chunks { instances, rows, count, chunk_rows } = self.chunks(shape, *frames_together);
                let arguments = GroupNorm {
                    input: self.at(*input),
                    gamma: self.weight(*gamma),
                    beta: self.weight(*beta),
                    out: self.at(*out),
                    partial: self.addresses.workspace,
                    rows,
                    channels: shape.channels,
                    groups: *groups,
                    chunks: count,
                    chunk_rows,
                    silu: u32::from(*silu),
                    eps: *eps,
                    reserved: 0,
                };
                self.need_workspace(u64::from(instances) * u64::from(count) * u64::from(*groups) * 8);
                let grid = [count, instances, 1];
                let (sums, apply) = if shape.channels.is_multiple_of(8) {
                    ("group_norm_sums_8", "group_norm_apply_8")
                } else {
                    ("group_norm_sums_1", "group_norm_apply_1")
                };
                self.launch(sums, grid, 256, 0, &arguments);
                self.launch(apply, grid, 256, 0, &arguments);
            }
            Op::LayerNorm { out, input, gamma, beta, eps } => {
                let shape = self.shape(*input);
                let rows = narrow(shape.rows());
                let arguments = LayerNorm {
                    input: self.at(*input),
                    gamma: self.weight(*gamma),
                    beta: self.weight(*beta),
                    out: self.at(*out),
                    rows,
                    channels: shape.channels,
                    eps: *eps,
                    reserved: 0,
                };
                let kernel = if shape.channels.is_multiple_of(8) { "layer_norm_8" } else { "layer_norm_1" };
                self.launch(kernel, [rows.div_ceil(8), 1, 1], 256, 0, &arguments);
            }
            _ => unreachable!("only norms come here"),
        }
    }
}
