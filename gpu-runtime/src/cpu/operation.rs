//! One operation of a program: its operands, and which function computes it.

use std::sync::Arc;

use super::attention::{Extents, Rows, attention};
use super::conv::{Added, Geometry, conv, temporal_conv};
use super::norm::{GroupNorm, group_norm, layer_norm};
use super::{elementwise, gradient, matrix};
use crate::graph::{Graph, GroupNormSpec, Op, Shape, TensorId, View, WeightId};

/// What operations read: values of weights and tensors by their index in a graph.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands<'a> {
    /// The graph.
    pub(super) graph: &'a Graph,
    /// Weights as operations want them: convolutions as `[out, kernel, kernel, in]`.
    pub(super) weights: &'a [Arc<Vec<f32>>],
    /// Tensors; empty where they are not written yet.
    pub(super) tensors: &'a [Vec<f32>],
}

impl<'a> Operands<'a> {
    /// Extents of a tensor.
    pub(super) fn shape(self, id: TensorId) -> Shape {
        self.graph.tensor(id).shape
    }

    /// Channels of a tensor.
    pub(super) fn channels(self, id: TensorId) -> usize {
        self.shape(id).channels as usize
    }

    /// Elements of a tensor.
    pub(super) fn values(self, id: TensorId) -> &'a [f32] {
        &self.tensors[id.0 as usize]
    }

    /// The same of one that need not be there.
    pub(super) fn values_of(self, id: Option<TensorId>) -> Option<&'a [f32]> {
        id.map(|id| self.values(id))
    }

    /// Elements of a weight.
    pub(super) fn weight(self, id: WeightId) -> &'a [f32] {
        &self.weights[id.0 as usize]
    }

    /// Rows of some channels of a tensor.
    pub(super) fn rows(self, view: View) -> Rows<'a> {
        Rows {
            data: &self.values(view.tensor)[view.offset as usize..],
            stride: self.channels(view.tensor),
            channels: view.channels as usize,
        }
    }

    /// A group normalisation of a tensor.
    pub(super) fn group_norm(
        self,
        input: TensorId,
        gamma: WeightId,
        beta: WeightId,
        spec: GroupNormSpec,
    ) -> GroupNorm<'a> {
        GroupNorm { shape: self.shape(input), gamma: self.weight(gamma), beta: self.weight(beta), spec }
    }

    fn added(
        self,
        bias: Option<WeightId>,
        channel_add: Option<View>,
        residual: Option<TensorId>,
    ) -> Added<'a> {
        let per_frame = channel_add.map(|View { tensor, offset, .. }| {
            let frame_stride = if self.shape(tensor).frames == 1 { 0 } else { self.channels(tensor) };
            (&self.values(tensor)[offset as usize..], frame_stride)
        });
        Added { bias: bias.map(|id| self.weight(id)), per_frame, residual: self.values_of(residual) }
    }
}

/// Computes one operation.
pub(super) fn execute(op: &Op, o: Operands<'_>, out: &mut [f32], threads: usize) {
    match *op {
        Op::Conv2d { out: to, input, weight, bias, kernel, stride, pad, upsample, channel_add, residual } => {
            let g = Geometry { from: o.shape(input), to: o.shape(to), kernel, stride, pad, upsample };
            conv(out, o.values(input), o.weight(weight), g, o.added(bias, channel_add, residual), threads);
        }
        Op::TemporalConv { out: to, input, weight, bias, frames, channel_add, residual } => {
            let added = o.added(bias, channel_add, residual);
            let shapes = [o.shape(input), o.shape(to)];
            temporal_conv(out, o.values(input), o.weight(weight), shapes, frames as usize, added, threads);
        }
        Op::Linear { input, weight, bias, residual, .. } => {
            let turned = o.graph.weight(weight).turned;
            let matrix = matrix::Operand { values: o.weight(weight), turned, depth: o.channels(input) };
            let bias = bias.map(|id| o.weight(id));
            matrix::linear(out, o.values(input), matrix, bias, o.values_of(residual), threads);
        }
        Op::GroupNorm { input, gamma, beta, spec, .. } => {
            group_norm(out, o.values(input), o.group_norm(input, gamma, beta, spec), threads);
        }
        Op::LayerNorm { input, gamma, beta, eps, .. } => {
            layer_norm(out, o.values(input), o.weight(gamma), o.weight(beta), eps, threads);
        }
        Op::Geglu { out: to, input } => elementwise::geglu(out, o.values(input), o.channels(to), threads),
        Op::Attention { query, key, value, heads, pattern, .. } => {
            let extents =
                Extents { queries: o.shape(query.tensor), keys: o.shape(key.tensor), heads: heads as usize };
            attention(out, [query, key, value].map(|view| o.rows(view)), extents, pattern, threads);
        }
        Op::Activation { input, function, .. } => {
            elementwise::activation(out, o.values(input), function, threads);
        }
        Op::AddFrameTable { input, table, frames, .. } => {
            let positions = o.shape(input).positions() as usize;
            let (channels, table) = (o.channels(input), o.weight(table));
            elementwise::add_frame_table(out, o.values(input), table, channels, positions, frames as usize);
        }
        Op::Concat { left, right, .. } => {
            let channels = [o.channels(left), o.channels(right)];
            elementwise::concat(out, o.values(left), o.values(right), channels);
        }
        Op::Embed { out: to, ids, tokens, positions } => {
            let tables = [o.weight(tokens), o.weight(positions)];
            elementwise::embed(out, o.values(ids), tables[0], tables[1], o.channels(to));
        }
        Op::Combine { out: to, ref terms, coefficients } => {
            let scalars = &o.values(coefficients.tensor)[coefficients.offset as usize..];
            let terms: Vec<_> = terms
                .iter()
                .zip(scalars)
                .map(|(&term, &scalar)| (scalar, (term != to).then(|| o.values(term))))
                .collect();
            elementwise::combine(out, &terms);
        }
        Op::Product { left, right, residual, .. } => {
            let right = matrix::Operand { values: o.values(right), turned: false, depth: o.channels(left) };
            matrix::linear(out, o.values(left), right, None, o.values_of(residual), threads);
        }
        Op::Gradient(ref gradient) => gradient::execute(gradient, o, out, threads),
    }
}
