//! Pools: instances of one offering that serve one class of work.

use super::ids::RegionId;
use super::offering::Offering;
use crate::units::Duration;

/// Kinds of slots one pool can have.
pub const SLOT_KINDS_MAX: usize = 4;

/// Instances that one pool may hold at once; three levels of 64-bit words index them.
pub const POOL_INSTANCES_MAX: u32 = 64 * 64 * 64;

/// Instances of one offering that serve one pool class.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Unique name.
    pub name: String,
    /// The pool class whose stages it serves, in [`super::System::pool_classes`].
    pub pool_class: u16,
    /// Where it stands, for routing and transfer.
    pub region: RegionId,
    /// What is bought.
    pub offering: Offering,
    /// Jobs that one instance runs at once, by slot kind.
    pub slots: [u16; SLOT_KINDS_MAX],
    /// Instances ready when the run starts.
    pub count_initial: u32,
    /// Instances never to fall below.
    pub count_min: u32,
    /// Instances never to exceed: quota or limit.
    pub count_max: u32,
    /// Expected time from launch to ready, for policies that plan ahead.
    pub startup_expected: Duration,
    /// Expected service time here relative to the stage's own (1 = same).
    pub speed_factor: f64,
}
