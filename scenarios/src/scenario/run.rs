//! How a run is made, and what the planner may vary.

use policy::policies::{Admission, Purchase, Scaling};
use policy::units::Duration;

/// How a run is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Seed of all chance.
    pub seed: u64,
    /// Independent repetitions (≥ 1).
    pub replications: u32,
    /// Jobs that arrive before this are simulated but not measured.
    pub warmup: Duration,
    /// Arrivals end here; jobs in the system are served to their end (> warm-up).
    pub horizon: Duration,
    /// Add replications until the interval of the mean latency is this narrow.
    pub precision: Option<Precision>,
    /// Confidence of every interval printed.
    pub confidence: f64,
}

/// When a run may stop by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Precision {
    /// Half-width of the interval over the mean.
    pub relative: f64,
    /// Replications at most.
    pub replications_max: u32,
}

/// What the planner may vary. Empty lists leave the scenario's own choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanSearch {
    /// Scaling policies to try.
    pub scaling: Vec<Scaling>,
    /// Purchase policies to try.
    pub purchase: Vec<Purchase>,
    /// Admission rules to try.
    pub admission: Vec<Admission>,
    /// Storage tiers that may replace one another, by name: `from` in the pipeline, `to` instead.
    pub tier_swaps: Vec<(usize, usize)>,
    /// Most replications spent on one finalist.
    pub replications_max: u32,
}

/// A stretch of the run that is reported by itself, by time of arrival; `[[run.window]]` in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Name, e.g. `spike`.
    pub name: String,
    /// Its start.
    pub from: Duration,
    /// Its end, after `from`.
    pub to: Duration,
}
