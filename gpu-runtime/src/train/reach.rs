//! Which gradients must be known: those between what is trained and what the loss is computed from. Pure.

use std::collections::BTreeSet;

use crate::graph::{Graph, TensorId, WeightId};

/// The tensors whose gradients a backward pass computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    wanted: Vec<bool>,
}

impl Reach {
    /// A tensor is wanted when it depends on a trained weight or on one of `leaves`, or is one, and `result` depends on it.
    pub(super) fn of(
        graph: &Graph,
        result: TensorId,
        trained: &BTreeSet<WeightId>,
        leaves: &[TensorId],
    ) -> Self {
        let mut depends = vec![false; graph.tensors.len()];
        leaves.iter().for_each(|leaf| depends[leaf.0 as usize] = true);
        for op in &graph.ops {
            let changes = op.weights().iter().any(|weight| trained.contains(weight))
                || op.reads().iter().any(|read| depends[read.0 as usize]);
            depends[op.out().0 as usize] |= changes;
        }
        let mut leads = vec![false; graph.tensors.len()];
        leads[result.0 as usize] = true;
        for op in graph.ops.iter().rev() {
            if leads[op.out().0 as usize] {
                op.reads().iter().for_each(|read| leads[read.0 as usize] = true);
            }
        }
        Self { wanted: depends.into_iter().zip(leads).map(|(depends, leads)| depends && leads).collect() }
    }

    /// Whether this tensor's gradient must be known.
    pub(super) fn wants(&self, tensor: TensorId) -> bool {
        self.wanted[tensor.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{ActivationFunction, Builder, LinearSpec, Precision, Shape};

    /// x → before → trained → after → result, and a branch that leads nowhere: only what lies between counts.
    #[test]
    fn gradients_are_wanted_between_weights_and_result() {
        let mut b = Builder::new("test", "unet");
        let x = b.input("x", Shape::new(1, 1, 2, 4), Precision::Model);
        let before = b.activation("before", x, ActivationFunction::Silu);
        let trained = b.linear("fc", before, LinearSpec { channels: 4, bias: false, residual: None });
        let aside = b.activation("aside", trained, ActivationFunction::Silu);
        let after = b.activation("after", trained, ActivationFunction::Silu);
        b.output(after);
        let graph = b.finish();
        let all = [x, before, trained, aside, after];
        let check = |trained: &[WeightId], leaves: &[TensorId], expected: &[TensorId]| {
            let reach = Reach::of(&graph, after, &trained.iter().copied().collect(), leaves);
            let wanted: Vec<_> = all.into_iter().filter(|&id| reach.wants(id)).collect();
            assert_eq!(wanted, expected);
        };
        check(&[WeightId(0)], &[], &[trained, after]);
        check(&[], &[x], &[x, before, trained, after]);
        check(&[], &[], &[]);
    }
}
