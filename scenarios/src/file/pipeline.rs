//! `[pipeline]`: what happens to a job, in order.

use schemars::JsonSchema;
use serde::Deserialize;

use super::law::LawFile;
use super::named::Named;
use super::quantity::{Share, Size, Time};

/// What happens to a job, in order.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PipelineFile {
    /// Stages in order; at least one.
    pub(crate) stage: Vec<StageFile>,
    /// Measured stretches.
    pub(crate) span: Vec<SpanFile>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StageFile {
    /// Unique name.
    pub(crate) name: String,
    /// Pool class that serves it; needed unless `outside = true`.
    pub(crate) pool: Option<String>,
    /// Kind of slot it holds. Default: the first of `fleet.slot_kinds`.
    pub(crate) slot: Option<String>,
    /// Whether it holds none of our capacity. Default: false.
    pub(crate) outside: Option<bool>,
    /// Steps in order; the slot is held through all of them.
    pub(crate) steps: Option<Vec<StepFile>>,
    /// Short for one compute step with this law, named like the stage.
    pub(crate) time: Option<LawFile>,
    /// Lease length (visibility timeout). Default: none, every loss is reported.
    pub(crate) lease: Option<Time>,
    /// Deliveries after which the job fails (>= 1). Default: 3.
    pub(crate) deliveries_max: Option<u32>,
    /// Slow-down of compute steps with 1, 2, ... jobs on the instance's slots of the same kind. Default: none.
    pub(crate) slowdown: Option<Vec<f64>>,
    /// Probability that an attempt fails at its end. Default: 0.
    pub(crate) failure: Option<Share>,
    /// How often an attempt saves its work. Default: never, a killed attempt repeats all.
    pub(crate) checkpoint: Option<Time>,
    /// Whether the level of the quality ladder changes its time. Default: false.
    pub(crate) quality: Option<bool>,
}

/// One step: exactly one of `compute`, `get`, `put` and `wait`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepFile {
    /// Computes; the value is the step's name.
    pub(crate) compute: Option<String>,
    /// Downloads from this storage tier.
    pub(crate) get: Option<String>,
    /// Uploads to this storage tier.
    pub(crate) put: Option<String>,
    /// Waits for something outside; the value is the step's name.
    pub(crate) wait: Option<String>,
    /// Name of a `get` or `put` step. Default: `download` and `upload`.
    pub(crate) name: Option<String>,
    /// How long a `compute` or `wait` step takes.
    pub(crate) time: Option<LawFile>,
    /// Scales a `compute` step by pool name or instance type (> 0). Default: the pool's `speed_factor`.
    pub(crate) factor: Option<Named<f64>>,
    /// Bytes that a `get` or `put` step moves.
    pub(crate) size: Option<Size>,
}

/// A measured stretch of the pipeline.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpanFile {
    /// Unique name.
    pub(crate) name: String,
    /// Where it starts: `STAGE.STEP.start` or `STAGE.STEP.end`.
    pub(crate) from: String,
    /// Where it ends, in the same form; never before `from`.
    pub(crate) to: String,
    /// Whether time in compute steps is left out. Default: false.
    pub(crate) excludes_compute: Option<bool>,
}
