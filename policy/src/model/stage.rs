//! Stages: what happens to a job, in order.

use super::ids::KindId;
use crate::units::Duration;

/// Where a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub enum Place {
    /// With the client or the network: no capacity of ours is held.
    Outside,
    /// On one slot of kind `kind` of an instance of pool class `pool_class`.
    Slot { pool_class: u16, kind: KindId },
}

/// One stage of the pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// Unique name.
    pub name: String,
    /// Where it runs.
    pub place: Place,
    /// Expected time on the slot at the best quality, for admission and scaling.
    pub service_expected: Duration,
    /// Lease length (visibility timeout); `None` trusts the driver to report every loss.
    pub lease: Option<Duration>,
    /// Deliveries after which the job is a dead letter and fails (≥ 1).
    pub deliveries_max: u32,
    /// Whether the level of the quality ladder changes its time.
    pub has_quality: bool,
}
