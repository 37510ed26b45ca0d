//! `[objective]`, `[run]` and `[plan]`: what is wanted, and how it is measured and searched.

use schemars::JsonSchema;
use serde::Deserialize;

use super::policy::{AdmissionFile, PurchaseFile, ScalingFile};
use super::quantity::{Money, Share, Time};

/// What the operator wants.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ObjectiveFile {
    /// Time in the system that still counts as on time. Default: 60 s.
    pub(crate) deadline: Option<Time>,
    /// Share of arrived jobs that must be done on time. Default: 0.95.
    pub(crate) on_time_min: Option<Share>,
    /// Share of arrived jobs that must be done at all. Default: 0.99.
    pub(crate) success_min: Option<Share>,
    /// Most that the run may cost. Default: no limit.
    pub(crate) budget: Option<Money>,
    /// Worth of a job done on time. Default: unknown.
    pub(crate) value_per_job: Option<Money>,
    /// Confidence with which the objective must be met. Default: 0.95.
    pub(crate) confidence: Option<Share>,
}

/// How the run is made.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RunFile {
    /// Seed of all chance. Default: 1.
    pub(crate) seed: Option<u64>,
    /// Independent repetitions (>= 1). Default: 10.
    pub(crate) replications: Option<u32>,
    /// Jobs that arrive before this are simulated but not measured. Default: 0 s.
    pub(crate) warmup: Option<Time>,
    /// Arrivals end here (> warmup, at most 3660 d). Default: 1 h.
    pub(crate) horizon: Option<Time>,
    /// Add replications until the interval of the mean latency is this narrow.
    pub(crate) precision: Option<PrecisionFile>,
    /// Confidence of every interval printed, strictly between 0 and 1. Default: 0.95.
    pub(crate) confidence: Option<f64>,
    /// Stretches of the run reported by themselves, at most 16. Default: none.
    pub(crate) window: Vec<WindowFile>,
}

/// A stretch of the run reported by itself: jobs that arrive in it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WindowFile {
    /// Unique name, e.g. `super-bowl`.
    pub(crate) name: String,
    /// Where it starts.
    pub(crate) from: Time,
    /// Where it ends, after `from` and not after the horizon.
    pub(crate) to: Time,
}

/// When a run may stop by itself.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrecisionFile {
    /// Half-width of the interval over the mean (> 0).
    pub(crate) relative: f64,
    /// Replications at most. Default: 200.
    pub(crate) replications_max: Option<u32>,
}

/// What the planner may vary.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PlanFile {
    /// Scaling policies to try. Default: only the scenario's own.
    pub(crate) scaling: Vec<ScalingFile>,
    /// Purchase policies to try. Default: only the scenario's own.
    pub(crate) purchase: Vec<PurchaseFile>,
    /// Admission rules to try. Default: only the scenario's own.
    pub(crate) admission: Vec<AdmissionFile>,
    /// Storage tiers that may replace one another. Default: none.
    pub(crate) tier_swaps: Vec<TierSwapFile>,
    /// Most replications spent on one finalist. Default: 64.
    pub(crate) replications_max: Option<u32>,
}

/// A storage tier that may stand in for another.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TierSwapFile {
    /// The tier in the pipeline.
    pub(crate) from: String,
    /// The tier instead.
    pub(crate) to: String,
}
