//! SkyServe: replicas by request rate, with a long wait before each change.

use super::{GroupContext, Observation, ScalingPolicy, Target};
use crate::policies::Reason;
use crate::units::{Duration, Instant};

/// Requests per second that one instance is meant to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReplicaRate {
    /// This many per second (`target_qps_per_replica`, > 0).
    PerSecond(f64),
    /// As many as its slots finish at the expected service time.
    FromServiceTime,
}

/// Parameters of SkyServe's request-rate autoscaler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SkyServe {
    /// Requests per second that one instance is meant to take.
    pub replica_rate: ReplicaRate,
    /// Requests of this long back are counted.
    pub window: Duration,
    /// Time between two decisions.
    pub interval: Duration,
    /// Time between two decisions while the target is zero.
    pub interval_at_zero: Duration,
    /// How long more must be wanted without a break before the target rises.
    pub upscale_delay: Duration,
    /// How long less must be wanted without a break before the target falls.
    pub downscale_delay: Duration,
}
