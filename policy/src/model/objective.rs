//! What the operator wants.

use crate::units::{Duration, Ratio, Usd};

/// The aim that a plan is judged by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Time in the system that still counts as on time.
    pub deadline: Duration,
    /// Share of arrived jobs that must be done on time.
    pub on_time_min: Ratio,
    /// Share of arrived jobs that must be done at all.
    pub success_min: Ratio,
    /// Most that the run may cost; `None` is no limit.
    pub budget: Option<Usd>,
    /// Worth of a job done on time, for policies that weigh money against time.
    pub value_per_job: Option<Usd>,
    /// Confidence with which the objective must be met.
    pub confidence: Ratio,
}
