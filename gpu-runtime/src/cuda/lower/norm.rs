//! Group and layer normalisation, and the gradients of their inputs.

use super::{Lowering, narrow};
use crate::cuda::arguments::{GroupNorm, GroupNormGradient, GroupShape, LayerNorm, LayerNormGradient};
use crate::graph::{Gradient, GroupNormSpec, Op, Shape};

/// Groups at most (`GROUPS_MAX` of `statistics.cu`).
pub(super) const GROUPS_MAX: u32 = 64;
/// Chunks of one instance at most: each block of the second pass adds them all up.
const CHUNKS_MAX: u64 = 256;

/// How a group normalisation is cut into blocks.
struct Cut {
    shape: GroupShape,
    grid: [u32; 3],
    /// Bytes of two sums for each chunk and group.
    sums_bytes: u64,
}

/// One of two kernels: of eight channels a thread, or of one.
fn by_width(channels: u32, kernels: [&'static str; 2]) -> &'static str {
    kernels[usize::from(!channels.is_multiple_of(8))]
}

impl Lowering<'_> {
    fn cut(&self, shape: Shape, spec: GroupNormSpec) -> Cut {
        let GroupNormSpec { groups, eps, silu, frames_together } = spec;
        assert!(
            groups <= GROUPS_MAX && shape.channels.is_multiple_of(groups),
            "{groups} groups of {}",
            shape.channels
        );
        let instances = shape.frames / frames_together;
        let rows = shape.rows() / u64::from(instances);
        let wanted = u64::from((self.target.processors * 2).div_ceil(instances));
        let chunk_rows = rows.div_ceil(wanted.clamp(1, CHUNKS_MAX)).max(8);
        let chunks = narrow(rows.div_ceil(chunk_rows));
        Cut {
            shape: GroupShape {
                rows: narrow(rows),
                channels: shape.channels,
                groups,
                chunks,
                chunk_rows: narrow(chunk_rows),
                silu: u32::from(silu),
                eps,
                reserved: 0,
            },
            grid: [chunks, instances, 1],
            sums_bytes: u64::from(instances) * u64::from(chunks) * u64::from(groups) * 8,
        }
    }

    pub(super) fn norm(&mut self, op: &Op) {
        match *op {
            Op::GroupNorm { out, input, gamma, beta, spec } => {
                let Cut { shape, grid, sums_bytes } = self.cut(self.shape(input), spec);
                self.need_workspace(sums_bytes);
                let arguments = GroupNorm {
                    input: self.at(input),
                    gamma: self.weight(gamma),
                    beta: self.weight(beta),
                    out: self.at(out),
                    partial: self.addresses.workspace,
                    shape,
                };
                for pass in
                    [["group_norm_sums_8", "group_norm_sums_1"], ["group_norm_apply_8", "group_norm_apply_1"]]
                {
                    self.launch(by_width(shape.channels, pass), grid, 256, 0, &arguments);
                }
            }
            Op::LayerNorm { out, input, gamma, beta, eps } => {
                let shape = self.shape(input);
                let rows = narrow(shape.rows());
                let arguments = LayerNorm {
                    input: self.at(input),
                    gamma: self.weight(gamma),
                    beta: self.weight(beta),
                    out: self.at(out),
                    rows,
                    channels: shape.channels,
                    eps,
                    reserved: 0,
                };
                let kernel = by_width(shape.channels, ["layer_norm_8", "layer_norm_1"]);
                self.launch(kernel, [rows.div_ceil(8), 1, 1], 256, 0, &arguments);
            }
            _ => unreachable!("only norms come here"),
        }
    }

    pub(super) fn norm_gradient(&mut self, gradient: &Gradient) {
        match *gradient {
            Gradient::GroupNorm { out, of_out, input, residual, gamma, beta, spec } => {
                let Cut { shape, grid, sums_bytes } = self.cut(self.shape(input), spec);
                self.need_workspace(2 * sums_bytes);
                let partial = self.addresses.workspace;
                let of_input = GroupNorm { input: self.at(input), partial, shape, ..GroupNorm::default() };
                let arguments = GroupNormGradient {
                    of_out: self.at(of_out),
                    input: self.at(input),
                    residual: residual.map_or(0, |id| self.at(id)),
                    gamma: self.weight(gamma),
                    beta: self.weight(beta),
                    out: self.at(out),
                    partial,
                    sums: partial + sums_bytes,
                    shape,
                };
                let first = by_width(shape.channels, ["group_norm_sums_8", "group_norm_sums_1"]);
                self.launch(first, grid, 256, 0, &of_input);
                for pass in [
                    ["group_norm_gradient_sums_8", "group_norm_gradient_sums_1"],
                    ["group_norm_gradient_apply_8", "group_norm_gradient_apply_1"],
                ] {
                    self.launch(by_width(shape.channels, pass), grid, 256, 0, &arguments);
                }
            }
            Gradient::LayerNorm { out, of_out, input, residual, gamma, eps } => {
                let shape = self.shape(input);
                let rows = narrow(shape.rows());
                let arguments = LayerNormGradient {
                    of_out: self.at(of_out),
                    input: self.at(input),
                    residual: residual.map_or(0, |id| self.at(id)),
                    gamma: self.weight(gamma),
                    out: self.at(out),
                    rows,
                    channels: shape.channels,
                    eps,
                    reserved: 0,
                };
                let kernel = by_width(shape.channels, ["layer_norm_gradient_8", "layer_norm_gradient_1"]);
                self.launch(kernel, [rows.div_ceil(8), 1, 1], 256, 0, &arguments);
            }
            _ => unreachable!("only norms come here"),
        }
    }
}
