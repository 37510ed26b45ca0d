//! Purchase: which pools of a group hold the instances that scaling asks for.

mod failures;
mod on_demand;
mod split;
mod spot_hedge;
mod spot_share;

pub use failures::Failures;

use std::collections::BTreeSet;

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
        match *self {
            Self::OnDemandOnly => Box::new(on_demand::OnDemandPolicy::default()),
            Self::SpotShare { share, on_demand_base } => {
                Box::new(spot_share::SpotSharePolicy::new(share, on_demand_base))
            }
            Self::SpotHedge { overprovision, dynamic_fallback, on_demand_base } => {
                Box::new(spot_hedge::SpotHedgePolicy::new(overprovision, dynamic_fallback, on_demand_base))
            }
            Self::PoolOrder => Box::new(on_demand::PoolOrderPolicy::default()),
        }
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

    /// What it remembers.
    fn memory(&self) -> PurchaseMemory;

    /// Takes up what a policy of its kind remembered, perhaps under other parameters; any other memory is left aside.
    fn recall(&mut self, memory: PurchaseMemory);
}

/// What a purchase policy remembers from one event to the next. Its parameters are not in it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub enum PurchaseMemory {
    /// Of [`Purchase::OnDemandOnly`].
    OnDemandOnly(Failures),
    /// Of [`Purchase::SpotShare`].
    SpotShare(Failures),
    /// Of [`Purchase::SpotHedge`]: beside failures all spot zones, and those that are avoided.
    SpotHedge { failures: Failures, zones: Vec<PoolId>, preempting: BTreeSet<PoolId> },
    /// Of [`Purchase::PoolOrder`].
    PoolOrder(Failures),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::random::Stream;

    /// An empty pool of at most 100 instances at `price` thousandths of a dollar per hour.
    pub(super) fn pool(id: u16, capacity_type: CapacityType, price: i64) -> PoolView {
        let price = UsdPerHour::from_nanos(price * 1_000_000);
        PoolView {
            pool: PoolId(id),
            capacity_type,
            price,
            ready: 0,
            starting: 0,
            count_min: 0,
            count_max: 100,
        }
    }

    pub(super) fn holding(view: PoolView, ready: u32, starting: u32) -> PoolView {
        PoolView { ready, starting, ..view }
    }

    pub(super) fn counts(targets: &[PoolTarget]) -> Vec<u32> {
        targets.iter().map(|target| target.instances).collect()
    }

    /// Whatever happened before, every pool gets one target within its limits, with a reason; and the target is met
    /// where the rule may use every pool and no pool is in backoff.
    #[test]
    fn random_histories_keep_every_pool_within_limits() {
        let half = Ratio::new(0.5).unwrap();
        let rules = [
            Purchase::OnDemandOnly,
            Purchase::SpotShare { share: half, on_demand_base: 3 },
            Purchase::SpotHedge { overprovision: 2, dynamic_fallback: true, on_demand_base: 1 },
            Purchase::PoolOrder,
        ];
        let types = [CapacityType::Spot, CapacityType::OnDemand, CapacityType::Reserved];
        for (which, rule) in (0_u64..).zip(rules) {
            let mut policy = rule.build();
            for step in 0..3000_u64 {
                let chance = Stream::new(7, which, "purchase").child(step);
                let draw = |index, bound| chance.below(index, bound) as u32;
                let now = Instant::from_nanos(step * 30_000_000_000);
                let event_pool = PoolId(draw(0, 6) as u16);
                match draw(1, 6) {
                    0 => policy.on_event(now, PoolEvent::LaunchFailed(event_pool)),
                    1 => policy.on_event(now, PoolEvent::Interrupted(event_pool)),
                    2 => policy.on_event(now, PoolEvent::Launched(event_pool)),
                    _ => {}
                }
                let view = |id: u64| {
                    let child = chance.child(id);
                    let count_max = child.below(0, 40) as u32;
                    PoolView {
                        ready: child.below(1, 20) as u32,
                        starting: child.below(2, 20) as u32,
                        count_min: child.below(3, u64::from(count_max) + 1) as u32 / 4,
                        count_max,
                        ..pool(id as u16, types[(id % 3) as usize], 300 + child.below(4, 900) as i64)
                    }
                };
                let pools: Vec<PoolView> = (0..u64::from(draw(2, 7))).map(view).collect();
                let target = draw(3, 120);
                let targets = policy.allocate(now, target, &pools);
                assert_eq!(targets.len(), pools.len());
                for (given, view) in targets.iter().zip(&pools) {
                    assert_eq!(given.pool, view.pool);
                    let limits = view.count_min..=view.count_max;
                    assert!(limits.contains(&given.instances), "{rule:?}: {given:?} of {view:?}");
                    assert!(!given.reason.code.is_empty() && !given.reason.text.is_empty());
                }
                let backoff = targets.iter().any(|given| given.reason.code == "launch-backoff");
                let room: u32 = pools.iter().map(|view| view.count_max).sum();
                let given: u32 = counts(&targets).iter().sum();
                if rule == Purchase::PoolOrder && !backoff {
                    assert!(given >= target.min(room), "{given} of {target}: {targets:?}");
                }
            }
        }
    }
}
