//! Memory plan of scratch tensors: who lies where in one block, so that no two that live at once overlap.

use super::{Graph, Precision, Tensor, TensorKind};

/// Alignment of every slot in bytes: a multiple of what vector loads and bulk copies of GPUs ask for.
const ALIGNMENT: u64 = 256;

/// Place of one tensor in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// First byte; a multiple of 256.
    pub offset: u64,
    /// Size in bytes, a multiple of 256.
    pub bytes: u64,
    /// Index of the first operation at which the tensor lives.
    pub from_op: usize,
    /// Index of the last operation at which it lives.
    pub to_op: usize,
}

/// Offsets of all scratch tensors of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Arena {
    /// One entry per tensor; `None` for tensors that are not scratch.
    pub slots: Vec<Option<Slot>>,
    /// Size of the block in bytes.
    pub bytes: u64,
    /// Bytes of all inputs, outputs and states, each rounded up to 256; they live outside the block.
    pub resident_bytes: u64,
}

impl Arena {
    /// Plans a graph on a backend whose own element type has `element_bytes` (2 or 4).
    ///
    /// Largest tensors first, each into the tightest gap between those that live at the same time (greedy best fit).
    #[must_use]
    pub fn plan(graph: &Graph, element_bytes: u64) -> Self {
        let size = |tensor: &Tensor| {
            let element = if tensor.precision == Precision::Single { 4 } else { element_bytes };
            (tensor.shape.elements() * element).next_multiple_of(ALIGNMENT)
        };
        let live = live_ranges(graph);
        let mut order: Vec<usize> =
            (0..graph.tensors.len()).filter(|&i| graph.tensors[i].kind == TensorKind::Scratch).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(size(&graph.tensors[i])), live[i], i));

        let mut placed: Vec<Slot> = Vec::with_capacity(order.len());
        let mut slots = vec![None; graph.tensors.len()];
        for index in order {
            let Some((from_op, to_op)) = live[index] else { continue };
            let bytes = size(&graph.tensors[index]);
            let at_once = placed.iter().filter(|slot| slot.from_op <= to_op && from_op <= slot.to_op);
            let offset = tightest_gap(at_once.map(|slot| (slot.offset, slot.bytes)).collect(), bytes);
            let slot = Slot { offset, bytes, from_op, to_op };
            placed.push(slot);
            slots[index] = Some(slot);
        }
        Self {
            bytes: placed.iter().map(|slot| slot.offset + slot.bytes).max().unwrap_or(0),
            resident_bytes: graph.tensors.iter().filter(|t| t.kind != TensorKind::Scratch).map(size).sum(),
            slots,
        }
    }
}

/// First and last operation of each tensor's life; `None` for a tensor that no operation touches.
fn live_ranges(graph: &Graph) -> Vec<Option<(usize, usize)>> {
    let mut live: Vec<Option<(usize, usize)>> = vec![None; graph.tensors.len()];
    for (at, op) in graph.ops.iter().enumerate() {
        for id in op.reads().into_iter().chain([op.out()]) {
            let range = live[id.0 as usize].get_or_insert((at, at));
            range.1 = at;
        }
    }
    live
}

/// The smallest gap between `taken` ranges (offset, bytes) that holds `bytes`, or the end of the last one.
fn tightest_gap(mut taken: Vec<(u64, u64)>, bytes: u64) -> u64 {
    taken.sort_unstable();
    let mut end = 0;
    let mut best: Option<(u64, u64)> = None;
    for (offset, length) in taken {
        if offset > end {
            let gap = offset - end;
            if gap >= bytes && best.is_none_or(|(smallest, _)| gap < smallest) {
                best = Some((gap, end));
            }
        }
        end = end.max(offset + length);
    }
    best.map_or(end, |(_, offset)| offset)
}

#[cfg(test)]
mod tests {
    use super::super::{ActivationFunction, Builder, Shape};
    use super::*;
    use proptest::prelude::*;

    /// A random chain of concatenations and activations, whose operands are any earlier tensors.
    fn random_graph(steps: &[(u32, u32, u8)]) -> Graph {
        let mut builder = Builder::new("random", "none");
        let mut made = vec![builder.input("x", Shape::new(1, 4, 4, 8), Precision::Model)];
        for (index, &(left, right, kind)) in steps.iter().enumerate() {
            let pick = |n: u32| made[n as usize % made.len()];
            let name = format!("t{index}");
            let wide = builder.shape(pick(left)).channels + builder.shape(pick(right)).channels > 4096;
            let id = if kind % 2 == 0 || wide {
                builder.activation(&name, pick(left), ActivationFunction::Silu)
            } else {
                builder.concat(&name, pick(left), pick(right))
            };
            made.push(id);
        }
        builder.output(*made.last().expect("there is an input"));
        builder.finish()
    }

    proptest! {
        #[test]
        fn tensors_that_live_at_once_never_overlap(
            steps in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u8>()), 1..60),
            element in prop::sample::select(vec![2u64, 4]),
        ) {
            let graph = random_graph(&steps);
            let arena = Arena::plan(&graph, element);
            let slots: Vec<Slot> = arena.slots.iter().flatten().copied().collect();
            for (i, a) in slots.iter().enumerate() {
                prop_assert_eq!(a.offset % ALIGNMENT, 0);
                prop_assert!(a.offset + a.bytes <= arena.bytes);
                for b in &slots[i + 1..] {
                    let at_once = a.from_op <= b.to_op && b.from_op <= a.to_op;
                    let apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
                    prop_assert!(!at_once || apart, "{:?} and {:?}", a, b);
                }
            }
            for (tensor, slot) in graph.tensors.iter().zip(&arena.slots) {
                prop_assert_eq!(tensor.kind == TensorKind::Scratch, slot.is_some());
            }
        }
    }

    #[test]
    fn a_chain_needs_two_slots() {
        let steps: Vec<_> = (0..10).map(|n| (n, 0, 0)).collect();
        let graph = random_graph(&steps);
        assert_eq!(Arena::plan(&graph, 2).bytes, 2 * 4 * 4 * 8 * 2);
        assert_eq!(Arena::plan(&graph, 4).bytes, 2 * 4 * 4 * 8 * 4);
    }
}
