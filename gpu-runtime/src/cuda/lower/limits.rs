//! What no kernel does. Asked before a program is lowered, so that a model of unusual extents is refused, and nothing panics.

use super::attention::HEAD_WIDTH_MAX;
use super::attention_gradient::TRAINED_HEAD_WIDTH_MAX;
use super::norm::GROUPS_MAX;
use crate::RuntimeError;
use crate::graph::{Gradient, Graph, Op, View};

/// Refuses a graph with an operation that has no kernel.
///
/// # Errors
/// [`RuntimeError::Unavailable`] naming the operation's result and the limit.
pub(in crate::cuda) fn check_kernels(graph: &Graph) -> Result<(), RuntimeError> {
    let lacking = graph.ops.iter().find_map(|op| lacking(op).map(|why| (op.out(), why)));
    match lacking {
        None => Ok(()),
        Some((out, why)) => Err(RuntimeError::Unavailable {
            what: format!("a GPU kernel for `{}` of program `{}`", graph.tensor(out).name, graph.name),
            why,
        }),
    }
}

/// What it would take to compute an operation, if no kernel does.
fn lacking(op: &Op) -> Option<String> {
    match op {
        Op::GroupNorm { spec, .. } | Op::Gradient(Gradient::GroupNorm { spec, .. }) => {
            let why =
                || format!("it normalises {} groups of channels, kernels at most {GROUPS_MAX}", spec.groups);
            (spec.groups > GROUPS_MAX).then(why)
        }
        Op::Attention { query, value, heads, .. } => {
            attention([*query, *value], *heads, ("attends with", HEAD_WIDTH_MAX))
        }
        Op::Gradient(Gradient::AttentionRows { query, heads, .. }) => {
            attention([*query; 2], *heads, ("trains", TRAINED_HEAD_WIDTH_MAX))
        }
        Op::Gradient(Gradient::AttentionQuery { of, .. } | Gradient::AttentionKeyValue { of, .. }) => {
            attention([of.query, of.value], of.heads, ("trains", TRAINED_HEAD_WIDTH_MAX))
        }
        _ => None,
    }
}

fn attention([query, value]: [View; 2], heads: u32, (does, width_max): (&str, u32)) -> Option<String> {
    let width = query.channels / heads;
    if width > width_max {
        return Some(format!("it {does} heads {width} channels wide, kernels at most {width_max}"));
    }
    let other = value.channels / heads;
    (other != width).then(|| format!("its values have {other} channels a head, its queries {width}"))
}
