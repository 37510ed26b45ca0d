//! A fixed share on spot, as an AWS Auto Scaling group with a mixed instances policy.
//!
//! Amazon EC2 Auto Scaling User Guide, "Auto Scaling groups with multiple instance types and purchase options": zones
//! are balanced first, then the strategy chooses; on-demand rounds up. Spot that cannot be had is not replaced by
//! on-demand.

use super::failures::Failures;
use super::split::Split;
use super::{PoolEvent, PoolTarget, PoolView, PurchaseMemory, PurchasePolicy};
use crate::model::CapacityType;
use crate::units::{Instant, Ratio};

/// Splits by a fixed share; see [`super::Purchase::SpotShare`].
pub(super) struct SpotSharePolicy {
    share: Ratio,
    on_demand_base: u32,
    failures: Failures,
}

impl SpotSharePolicy {
    pub(super) fn new(share: Ratio, on_demand_base: u32) -> Self {
        Self { share, on_demand_base, failures: Failures::default() }
    }
}

impl PurchasePolicy for SpotSharePolicy {
    fn on_event(&mut self, now: Instant, event: PoolEvent) {
        self.failures.note(now, event);
    }

    fn allocate(&mut self, now: Instant, target: u32, pools: &[PoolView]) -> Vec<PoolTarget> {
        let mut split = Split::new(now, pools, &self.failures);
        let reserved = split.of_type(CapacityType::Reserved);
        split.fill_in_order(&reserved, target, "reserved-first", &format!("of a target of {target}"));

        // Reserved instances count towards the base.
        let above_reserved = target.saturating_sub(split.given(&reserved));
        let base = self.on_demand_base.saturating_sub(split.given(&reserved)).min(above_reserved);
        let above_base = above_reserved - base;
        let spot_total = share_of(above_base, self.share);
        let on_demand_total = base + (above_base - spot_total);

        let share = self.share.get();
        let why = format!(
            "of a target of {target}, {on_demand_total} on-demand: a base of {base} and what is left of {above_base} \
             above it by a spot share of {share}"
        );
        let on_demand = split.cheapest(CapacityType::OnDemand);
        split.fill_in_order(&on_demand, on_demand_total, "on-demand-share", &why);
        split.keep_until_replaced(&on_demand);

        // Price-capacity-optimized, approximately: pools without a recent failure first, then the cheapest.
        let mut spot = split.cheapest(CapacityType::Spot);
        spot.sort_by_key(|at| self.failures.is_recent(now, pools[*at].pool));
        let why = format!("of a target of {target}, {spot_total} on spot, evenly over {} pools", spot.len());
        split.fill_evenly(&spot, spot_total, "spot-share", &why);
        split.keep_until_replaced(&spot);
        split.finish()
    }

    fn memory(&self) -> PurchaseMemory {
        PurchaseMemory::SpotShare(self.failures.clone())
    }

    fn recall(&mut self, memory: PurchaseMemory) {
        if let PurchaseMemory::SpotShare(failures) = memory {
            self.failures = failures;
        }
    }
}

/// `share` of `count`, rounded down; the slack keeps 29 % of 100 at 29 in binary.
fn share_of(count: u32, share: Ratio) -> u32 {
    const ROUNDING: f64 = 1e-9;
    ((f64::from(count) * share.get() + ROUNDING).floor() as u32).min(count)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{counts, holding, pool};
    use super::*;
    use crate::model::CapacityType::{OnDemand, Reserved, Spot};
    use crate::model::PoolId;

    fn zones() -> [PoolView; 4] {
        [pool(0, Spot, 310), pool(1, Spot, 300), pool(2, Spot, 320), pool(3, OnDemand, 1000)]
    }

    fn policy(share: f64, on_demand_base: u32) -> SpotSharePolicy {
        SpotSharePolicy::new(Ratio::new(share).unwrap(), on_demand_base)
    }

    fn check(share: f64, base: u32, target: u32, pools: &[PoolView], expected: &[u32]) {
        assert_eq!(counts(&policy(share, base).allocate(Instant::START, target, pools)), expected);
    }

    #[test]
    fn zones_are_balanced_and_on_demand_rounds_up() {
        check(1.0, 0, 9, &zones(), &[3, 3, 3, 0]);
        check(1.0, 0, 10, &zones(), &[3, 4, 3, 0]); // the odd one goes to the cheapest zone
        check(0.5, 0, 9, &zones(), &[1, 2, 1, 5]);
        check(0.7, 2, 12, &zones(), &[2, 3, 2, 5]);
        check(0.0, 0, 9, &zones(), &[0, 0, 0, 9]);
        check(0.29, 0, 100, &zones(), &[10, 10, 9, 71]);
        check(1.0, 5, 3, &zones(), &[0, 0, 0, 3]);
        check(1.0, 0, 0, &zones(), &[0, 0, 0, 0]);
        check(0.5, 0, 4, &[], &[]);
    }

    #[test]
    fn reserved_instances_are_part_of_the_base() {
        let pools =
            [pool(0, Spot, 300), pool(1, OnDemand, 1000), PoolView { count_max: 3, ..pool(2, Reserved, 0) }];
        check(1.0, 5, 10, &pools, &[5, 2, 3]);
        check(1.0, 2, 10, &pools, &[7, 0, 3]);
    }

    #[test]
    fn limits_push_the_rest_to_other_zones_but_never_to_on_demand() {
        let mut pools = zones();
        pools[0].count_max = 1;
        check(1.0, 0, 10, &pools, &[1, 5, 4, 0]);
        pools[1].count_max = 2;
        pools[2].count_max = 2;
        check(1.0, 0, 10, &pools, &[1, 2, 2, 0]);
    }

    #[test]
    fn a_zone_that_cannot_launch_is_made_up_for_by_other_zones() {
        let mut policy = policy(1.0, 0);
        let held = [
            holding(pool(0, Spot, 310), 3, 0),
            holding(pool(1, Spot, 300), 1, 0),
            holding(pool(2, Spot, 320), 3, 0),
            pool(3, OnDemand, 1000),
        ];
        policy.on_event(Instant::START, PoolEvent::LaunchFailed(PoolId(1)));
        assert_eq!(counts(&policy.allocate(Instant::START, 9, &held)), [4, 1, 4, 0]);
    }

    #[test]
    fn the_odd_instance_stays_where_it_is() {
        let held = [
            holding(pool(0, Spot, 310), 4, 0),
            holding(pool(1, Spot, 300), 3, 0),
            holding(pool(2, Spot, 320), 3, 0),
        ];
        check(1.0, 0, 10, &held, &[4, 3, 3]);
    }

    #[test]
    fn an_interrupted_zone_is_no_longer_preferred() {
        let mut policy = policy(1.0, 0);
        policy.on_event(Instant::START, PoolEvent::Interrupted(PoolId(1)));
        assert_eq!(counts(&policy.allocate(Instant::START, 10, &zones())), [4, 3, 3, 0]);
    }
}
