//! What a stage does while it holds its slot, and which stretches of it are measured.

use policy::units::{Bytes, Duration};

use super::law::Law;
use super::storage::Operation;

/// What one stage does.
#[derive(Clone, Debug, PartialEq)]
pub struct StageWork {
    /// Steps in order; the slot is held through all of them.
    pub steps: Vec<Step>,
    /// Slow-down of compute steps by the number of jobs on the instance's slots of the same kind, this one included:
    /// entry k−1 for k jobs; the last entry holds for more. Empty is no interference.
    pub slowdown: Vec<f64>,
    /// Probability that an attempt fails at its end.
    pub failure: f64,
    /// A killed attempt repeats only the work since its last checkpoint, taken this often; `None` repeats all.
    pub checkpoint: Option<Duration>,
}

/// One step of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Name, unique in its stage; `stage.step.start` and `.end` are points for spans.
    pub name: String,
    /// What it does.
    pub kind: StepKind,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum StepKind {
    /// Computes; the law is for the best quality on the reference instance, and `factor` scales it by pool (`PoolId`): all
    /// that a pool's speed does is in it. An empty one is 1 everywhere.
    Compute { time: Law, factor: Vec<f64> },
    /// Moves an object to or from a storage tier (index into `Scenario::tiers`).
    Transfer { tier: usize, operation: Operation, size: Bytes },
    /// Waits for something outside: an API hop, a notification.
    Wait { time: Law },
}

/// Start or end of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// When it begins.
    Start,
    /// When it is over.
    End,
}

/// A point of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanPoint {
    /// Stage.
    pub stage: usize,
    /// Step of that stage.
    pub step: usize,
    /// Which side.
    pub edge: Edge,
}

/// A measured stretch from one point to a later one.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Name.
    pub name: String,
    /// Where it starts.
    pub from: SpanPoint,
    /// Where it ends; never before `from`.
    pub to: SpanPoint,
    /// Whether time in compute steps is left out.
    pub excludes_compute: bool,
}
