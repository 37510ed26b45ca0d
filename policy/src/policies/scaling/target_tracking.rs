//! AWS target tracking on the backlog per instance.

use super::{GroupContext, Observation, ScalingPolicy, Target};
use crate::policies::Reason;
use crate::units::{Duration, Instant, Ratio};

/// Waiting jobs per instance to aim at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BacklogTarget {
    /// This many (> 0).
    PerInstance(f64),
    /// As many as an instance finishes within this time at the expected service time.
    AcceptableLatency(Duration),
}

/// Parameters of an AWS target-tracking policy on a queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetTracking {
    /// Waiting jobs per instance to aim at.
    pub target: BacklogTarget,
    /// Time between two values of the metric.
    pub period: Duration,
    /// Consecutive values above the target before instances are added.
    pub periods_out: u32,
    /// Consecutive values below the scale-in threshold before instances are removed.
    pub periods_in: u32,
    /// The scale-in threshold, relative to the target.
    pub scale_in_below: Ratio,
}
