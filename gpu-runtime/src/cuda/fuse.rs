//! Operations that run as one kernel: a linear layer and the gate that alone reads it. Pure.
//!
//! The layer's weight rows are interleaved, eight values and then their eight gates, so that one tile holds both; the
//! wide tensor between the two is never written.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Graph, Op, TensorId, TensorKind, WeightId};

/// Rows up to which a linear layer has a kernel of its own, which knows no gates.
pub(super) const FEW_ROWS: u64 = 8;

/// The gates of a graph that run inside their linear layers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Gates {
    /// Linear operation by gate operation, as indices into the graph's operations.
    pub(super) linear_of: BTreeMap<usize, usize>,
    /// Weights (and biases) whose rows are interleaved.
    pub(super) weights: BTreeSet<WeightId>,
}

impl Gates {
    pub(super) fn of(graph: &Graph) -> Self {
        let mut readers: BTreeMap<TensorId, usize> = BTreeMap::new();
        let mut users: BTreeMap<WeightId, usize> = BTreeMap::new();
        for op in &graph.ops {
            op.reads().into_iter().for_each(|id| *readers.entry(id).or_default() += 1);
            op.weights().into_iter().for_each(|id| *users.entry(id).or_default() += 1);
        }
        let mut gates = Self::default();
        for (at, op) in graph.ops.iter().enumerate() {
            let Op::Geglu { out, input } = op else { continue };
            let written = graph.ops[..at].iter().rposition(|earlier| earlier.out() == *input);
            let Some(linear_at) = written else { continue };
            let Op::Linear { input: from, residual: None, .. } = &graph.ops[linear_at] else { continue };
            let weights = graph.ops[linear_at].weights();
            // The layer runs later than it stands, so nothing in between may write what it reads.
            let undisturbed = graph.ops[linear_at..at].iter().all(|between| between.out() != *from);
            let shapes = (graph.tensor(*from).shape, graph.tensor(*out).shape);
            let fits = graph.tensor(*input).kind == TensorKind::Scratch
                && readers.get(input) == Some(&1)
                && weights.iter().all(|id| users.get(id) == Some(&1))
                && shapes.0.channels.is_multiple_of(8)
                && shapes.1.channels.is_multiple_of(8)
                && shapes.0.rows() > FEW_ROWS;
            if fits && undisturbed {
                gates.linear_of.insert(at, linear_at);
                gates.weights.extend(weights);
            }
        }
        gates
    }

    /// Whether this operation runs inside a gate's.
    pub(super) fn absorbs(&self, op: usize) -> bool {
        self.linear_of.values().any(|&linear| linear == op)
    }

    /// The graph as the planner of memory must see it: each gate reads what its linear layer reads.
    pub(super) fn applied(&self, graph: &Graph) -> Graph {
        let mut applied = graph.clone();
        for (&gate, &linear) in &self.linear_of {
            let (Op::Linear { input: from, .. }, Op::Geglu { input, .. }) =
                (&graph.ops[linear], &mut applied.ops[gate])
            else {
                unreachable!("pairs of a linear layer and a gate")
            };
            *input = *from;
        }
        let mut index = 0;
        applied.ops.retain(|_| {
            index += 1;
            !self.absorbs(index - 1)
        });
        applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Builder, LinearSpec, Precision, Shape};

    fn gated(rows: u32, channels: u32, keep: bool) -> (Graph, Gates) {
        let mut b = Builder::new("gate", "unet");
        let input = b.input("x", Shape::new(1, 1, rows, 16), Precision::Model);
        let spec = LinearSpec { channels: 2 * channels, bias: true, residual: None };
        let wide = b.linear("wide", input, spec);
        let out = b.geglu("out", wide);
        b.output(out);
        let graph = b.finish();
        let graph = if keep { graph.keep_all() } else { graph };
        let gates = Gates::of(&graph);
        (graph, gates)
    }

    #[test]
    fn gates_are_fused_where_nobody_else_reads_their_layer() {
        for (rows, channels, keep, expected) in
            [(9, 32, false, 1), (8, 32, false, 0), (9, 20, false, 0), (9, 32, true, 0)]
        {
            let (graph, gates) = gated(rows, channels, keep);
            assert_eq!(gates.linear_of.len(), expected, "{rows} rows, {channels} channels, all kept: {keep}");
            assert_eq!(gates.applied(&graph).ops.len(), graph.ops.len() - expected);
        }
    }

    #[test]
    fn planner_sees_the_gate_read_the_layers_input() {
        let (graph, gates) = gated(16, 32, false);
        let applied = gates.applied(&graph);
        assert_eq!(applied.ops[0].reads(), graph.ops[0].reads());
        assert_eq!(applied.ops[0].out(), graph.ops[1].out());
    }
}
