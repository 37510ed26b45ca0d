//! Which gradients must be known: those between what is trained and what the loss is computed from. Pure.

use crate::graph::{Graph, TensorId};

/// The tensors whose gradients a backward pass computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    wanted: Vec<bool>,
}

impl Reach {
    /// A tensor is wanted when it depends on one of `leaves`, or is one, and `result` depends on it.
    pub(super) fn of(graph: &Graph, result: TensorId, leaves: &[TensorId]) -> Self {
        let mut depends = vec![false; graph.tensors.len()];
        leaves.iter().for_each(|leaf| depends[leaf.0 as usize] = true);
        for op in &graph.ops {
            let changes = op.reads().iter().any(|read| depends[read.0 as usize]);
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

    /// Whether this tensor's gradient must be known. Those of tensors that came later need not.
    pub(super) fn wants(&self, tensor: TensorId) -> bool {
        self.wanted.get(tensor.0 as usize) == Some(&true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{ActivationFunction, Builder, Precision, Shape};

    /// x → before, before · y → both → after → result, and a branch that leads nowhere: only what lies between counts.
    #[test]
    fn gradients_are_wanted_between_leaves_and_result() {
        let mut b = Builder::new("test", "unet");
        let x = b.input("x", Shape::new(1, 1, 2, 4), Precision::Model);
        let y = b.input("y", Shape::new(1, 1, 4, 4), Precision::Model);
        let before = b.activation("before", x, ActivationFunction::Silu);
        let both = b.product("both", before, y, None);
        let aside = b.activation("aside", both, ActivationFunction::Silu);
        let after = b.activation("after", both, ActivationFunction::Silu);
        b.output(after);
        let graph = b.finish();
        let all = [x, y, before, both, aside, after];
        let check = |leaves: &[TensorId], expected: &[TensorId]| {
            let reach = Reach::of(&graph, after, leaves);
            let wanted: Vec<_> = all.into_iter().filter(|&id| reach.wants(id)).collect();
            assert_eq!(wanted, expected);
        };
        check(&[y], &[y, both, after]);
        check(&[x], &[x, before, both, after]);
        check(&[], &[]);
    }
}
