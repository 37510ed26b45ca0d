//! Kubernetes Horizontal Pod Autoscaler v2: from one metric to a count.

use super::behavior::{HpaBehavior};
use super::{Observation, ScalingPolicy, Target};
use crate::policies::Reason;
use crate::units::{Duration, Instant, Ratio};

/// What the autoscaler looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HpaMetric {
    /// Busy slots over ready slots (a resource metric), in whole percent as Kubernetes counts it.
    Utilization {
        /// Share to aim at (> 0).
        target: Ratio,
    },
    /// Jobs per instance (an external metric of kind `AverageValue`).
    AverageValue {
        /// Jobs per instance to aim at (> 0).
        target: f64,
        /// Whether running jobs count beside the waiting ones.
        running_counts: bool,
    },
}

/// Parameters of the Horizontal Pod Autoscaler.
#[derive(Clone, Debug, PartialEq)]
pub struct Hpa {
    /// Time between two looks at the metric.
    pub period: Duration,
    /// What it looks at.
    pub metric: HpaMetric,
    /// How fast the count may move.
    pub behavior: HpaBehavior,
}
