//! Purchase: which pools of a group hold the instances that scaling asks for.

mod on_demand;

use super::Reason;
use crate::model::{CapacityType, PoolId};
use crate::units::{Instant, Ratio, UsdPerHour};

/// Which rule decides which pools of a group hold its instances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Purchase {
    /// No spot: the cheapest on-demand pool first.
    OnDemandOnly,
    /// A fixed share on spot, evenly over its pools, as an AWS Auto Scaling group with mixed instances.
    SpotShare {
        /// Share of the instances above the base that is bought on spot.
        share: Ratio,
        /// Instances that are on-demand (or reserved) first.
        on_demand_base: u32,
    },
    /// Spot with a surplus, and on-demand while spot is not ready (SpotHedge of SkyServe, EuroSys 2025).
    SpotHedge {
        /// Spot instances beyond the target.
        overprovision: u32,
        /// Whether on-demand stands in for spot that is not ready.
        dynamic_fallback: bool,
        /// Instances that are always on-demand (or reserved).
        on_demand_base: u32,
    },
    /// Pools in the order of the scenario, each up to its limit, whatever their capacity type.
    PoolOrder,
}

impl Purchase {
    /// The policy that splits one group's target.
    pub fn build(&self) -> Box<dyn PurchasePolicy> {
        Box::new(on_demand::Temporary)
    }
}

/// One pool of the group as the purchase policy sees it. External pools are not shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolView {
    /// Which pool.
    pub pool: PoolId,
    /// How it is bought.
    pub capacity_type: CapacityType,
    /// Price now.
    pub price: UsdPerHour,
    /// Instances ready for work and under no interruption notice.
    pub ready: u32,
    /// Instances requested, booting or loading.
    pub starting: u32,
    /// Fewest instances.
    pub count_min: u32,
    /// Most instances.
    pub count_max: u32,
}

/// What happened to an instance of a pool, in order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    /// A launch succeeded: the instance is ready.
    Launched(PoolId),
    /// The provider had no capacity or refused.
    LaunchFailed(PoolId),
    /// The provider gave notice or took the instance.
    Interrupted(PoolId),
}

/// How many instances (ready and starting together) one pool should hold, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolTarget {
    /// Which pool.
    pub pool: PoolId,
    /// Instances, within the pool's limits.
    pub instances: u32,
    /// Why.
    pub reason: Reason,
}

/// Decides which pools hold a group's instances.
pub trait PurchasePolicy: Send {
    /// Learns what happened to an instance.
    fn on_event(&mut self, now: Instant, event: PoolEvent);

    /// Splits `target` instances over `pools`; pools that are not named keep what they hold.
    ///
    /// Called at every scaling tick, and again when an instance was interrupted, lost, became ready or failed to launch.
    fn allocate(&mut self, now: Instant, target: u32, pools: &[PoolView]) -> Vec<PoolTarget>;
}
