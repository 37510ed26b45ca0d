//! Group and layer normalisation.

use super::{Lowering, narrow};
use crate::cuda::arguments::{GroupNorm, LayerNorm};
use crate::graph::Op;

/// Groups at most (`GROUPS_MAX` of `norm.cu`).
const GROUPS_MAX: u32 = 64;
/// Chunks of one instance at most: each block of the second pass adds them all up.
const CHUNKS_MAX: u64 = 256;

impl Lowering<'_> {
    pub(super) fn norm(&mut self, op: &Op) {
        match op {
            Op::GroupNorm { out, input, gamma, beta, groups, eps, silu, frames_together } => {
                let shape = self.shape(*input);
                assert!(
                    *groups <= GROUPS_MAX && shape.channels.is_multiple_of(*groups),
                    "{groups} groups of {}",
                    shape.channels
                );
                let instances = shape.frames / frames_together;
                let rows = shape.rows() / u64::from(instances);
                let wanted = u64::from((self.target.processors * 2).div_ceil(instances));
                let chunk_rows = rows.div_ceil(wanted.clamp(1, CHUNKS_MAX)).max(8);
                let chunks = narrow(rows.div_ceil(chunk_rows));
                let arguments = GroupNorm {
                    input: self.at(*input),
                    gamma: self.weight(*gamma),
                    beta: self.weight(*beta),
                    out: self.at(*out),
                    partial: self.addresses.workspace,
                    rows: narrow(rows),
                    channels: shape.channels,
                    groups: *groups,
                    chunks,
                    chunk_rows: narrow(chunk_rows),
                    silu: u32::from(*silu),
                    eps: *eps,
                    reserved: 0,
                };
                self.need_workspace(u64::from(instances) * u64::from(chunks) * u64::from(*groups) * 8);
                let grid = [chunks, instances, 1];
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
