//! How many replicas of a model fit on one device, from counted or measured bytes. Measures nothing itself.

use std::collections::BTreeMap;

use crate::graph::{Arena, Graph};

/// Device memory of a model that serves requests of one kind, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Weights, which replicas within one backend may share.
    pub weights: u64,
    /// Arenas, inputs, outputs and states: each replica has its own.
    pub tensors: u64,
    /// What the driver keeps for each process (context, libraries); 0 where it is not known.
    pub context: u64,
}

impl Footprint {
    /// Counts programs that are loaded together on a backend whose own element type has `element_bytes` (2 or 4). A
    /// weight that several name counts once. Workspace of kernels and the context are not in it.
    #[must_use]
    pub fn of(programs: &[Graph], element_bytes: u64) -> Self {
        let weights: BTreeMap<&str, u64> = programs
            .iter()
            .flat_map(|graph| &graph.weights)
            .map(|weight| (weight.name.as_str(), weight.elements() * element_bytes))
            .collect();
        let tensors = programs.iter().map(|graph| {
            let plan = Arena::plan(graph, element_bytes);
            plan.bytes + plan.resident_bytes
        });
        Self { weights: weights.values().sum(), tensors: tensors.sum(), context: 0 }
    }
}

/// What replicas on one device have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// One process and one copy of the weights.
    SharedWeights,
    /// One process, a copy of the weights for each replica.
    OwnWeights,
    /// A process for each replica.
    Processes,
}

/// Most replicas within `budget` bytes; 0 where not even one fits, `None` where a replica takes nothing.
#[must_use]
pub fn density_max(footprint: Footprint, placement: Placement, budget: u64) -> Option<u64> {
    let Footprint { weights, tensors, context } = footprint;
    let (once, each) = match placement {
        Placement::SharedWeights => (context.saturating_add(weights), tensors),
        Placement::OwnWeights => (context, weights.saturating_add(tensors)),
        Placement::Processes => (0, context.saturating_add(weights).saturating_add(tensors)),
    };
    match budget.checked_sub(once) {
        None => Some(0),
        Some(left) => left.checked_div(each),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Builder, LinearSpec, Precision, Shape};

    #[test]
    fn replicas_are_counted_by_what_they_share() {
        let of = Footprint { weights: 30, tensors: 10, context: 5 };
        let check = |placement, budget, expected| {
            assert_eq!(density_max(of, placement, budget), expected, "{placement:?} in {budget}");
        };
        check(Placement::SharedWeights, 34, Some(0));
        check(Placement::SharedWeights, 44, Some(0));
        check(Placement::SharedWeights, 45, Some(1));
        check(Placement::SharedWeights, 100, Some(6));
        check(Placement::OwnWeights, 44, Some(0));
        check(Placement::OwnWeights, 85, Some(2));
        check(Placement::OwnWeights, 100, Some(2));
        check(Placement::Processes, 89, Some(1));
        check(Placement::Processes, 90, Some(2));
        let nothing = Footprint { weights: 30, ..Footprint::default() };
        assert_eq!(density_max(nothing, Placement::SharedWeights, 40), None);
        assert_eq!(density_max(nothing, Placement::SharedWeights, 29), Some(0));
        let huge = Footprint { weights: u64::MAX, tensors: u64::MAX, context: 1 };
        assert_eq!(density_max(huge, Placement::Processes, u64::MAX - 1), Some(0));
    }

    #[test]
    fn a_weight_of_two_programs_counts_once_and_tensors_each_time() {
        let program = |rows: u32| {
            let mut builder = Builder::new("test", "unet");
            let x = builder.input("x", Shape::new(1, rows, 1, 64), Precision::Model);
            let y = builder.linear("fc", x, LinearSpec { channels: 64, bias: false, residual: None });
            builder.output(y);
            builder.finish()
        };
        let both = Footprint::of(&[program(2), program(4)], 2);
        assert_eq!(both, Footprint { weights: 64 * 64 * 2, tensors: 2 * (2 + 4) * 64 * 2, context: 0 });
    }
}
