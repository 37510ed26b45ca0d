//! How fast a Kubernetes Horizontal Pod Autoscaler may move: stabilisation windows and rate policies.
//!
//! Follows `stabilizeRecommendationWithBehaviors` and `convertDesiredReplicasWithBehaviorRate` of
//! `pkg/controller/podautoscaler/horizontal.go`. Says nothing about the metric.

use crate::units::{Duration, Instant, Ratio};

/// One limit on the change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaPolicy {
    /// How much.
    pub change: HpaChange,
    /// Within how long.
    pub period: Duration,
}

/// How much may change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpaChange {
    /// This many instances.
    Pods(u32),
    /// This many percent of the count at the start of the period.
    Percent(u32),
}

/// Which of several limits counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpaSelect {
    /// The one that allows the largest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// No change in this direction at all.
    Disabled,
}

/// The rules for one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpaRules {
    /// Recommendations of this long back are weighed: the lowest on the way up, the highest on the way down.
    pub stabilization_window: Duration,
    /// Limits on the change; none is no limit.
    pub policies: Vec<HpaPolicy>,
    /// Which of them counts.
    pub select: HpaSelect,
}

/// How fast the count may move.
#[derive(Clone, Debug, PartialEq)]
pub struct HpaBehavior {
    /// Relative distance from the target within which nothing moves.
    pub tolerance: Ratio,
    /// On the way up.
    pub up: HpaRules,
    /// On the way down.
    pub down: HpaRules,
}
