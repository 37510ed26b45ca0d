//! Purchase in a fixed order of pools: on-demand only, or the order of the scenario.

use super::failures::Failures;
use super::split::Split;
use super::{PoolEvent, PoolTarget, PoolView, PurchaseMemory, PurchasePolicy};
use crate::model::CapacityType;
use crate::units::Instant;

/// Reserved pools, then on-demand, cheapest first; never spot.
#[derive(Default)]
pub(super) struct OnDemandPolicy {
    failures: Failures,
}

impl PurchasePolicy for OnDemandPolicy {
    fn on_event(&mut self, now: Instant, event: PoolEvent) {
        self.failures.note(now, event);
    }

    fn allocate(&mut self, now: Instant, target: u32, pools: &[PoolView]) -> Vec<PoolTarget> {
        let mut split = Split::new(now, pools, &self.failures);
        let mut order = split.of_type(CapacityType::Reserved);
        order.extend(split.cheapest(CapacityType::OnDemand));
        let why = format!("of a target of {target}, reserved first, then the cheapest on-demand pool");
        split.fill_in_order(&order, target, "cheapest-on-demand", &why);
        split.keep_until_replaced(&order);
        split.finish()
    }

    fn memory(&self) -> PurchaseMemory {
        PurchaseMemory::OnDemandOnly(self.failures.clone())
    }

    fn recall(&mut self, memory: PurchaseMemory) {
        if let PurchaseMemory::OnDemandOnly(failures) = memory {
            self.failures = failures;
        }
    }
}

/// Reserved pools, then all others in order of the scenario, each up to its limit.
#[derive(Default)]
pub(super) struct PoolOrderPolicy {
    failures: Failures,
}

impl PurchasePolicy for PoolOrderPolicy {
    fn on_event(&mut self, now: Instant, event: PoolEvent) {
        self.failures.note(now, event);
    }

    fn allocate(&mut self, now: Instant, target: u32, pools: &[PoolView]) -> Vec<PoolTarget> {
        let mut split = Split::new(now, pools, &self.failures);
        let mut order = split.of_type(CapacityType::Reserved);
        order.extend((0..pools.len()).filter(|at| pools[*at].capacity_type != CapacityType::Reserved));
        let why = format!("of a target of {target}, pools in the order of the scenario");
        split.fill_in_order(&order, target, "pool-order", &why);
        split.keep_until_replaced(&order);
        split.finish()
    }

    fn memory(&self) -> PurchaseMemory {
        PurchaseMemory::PoolOrder(self.failures.clone())
    }

    fn recall(&mut self, memory: PurchaseMemory) {
        if let PurchaseMemory::PoolOrder(failures) = memory {
            self.failures = failures;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::failures::LAUNCH_BACKOFF;
    use super::super::tests::{counts, holding, pool};
    use super::*;
    use crate::model::CapacityType::{OnDemand, Reserved, Spot};
    use crate::model::PoolId;

    #[test]
    fn reserved_first_then_the_cheapest_never_spot() {
        let pools = [
            pool(0, Spot, 300),
            pool(1, OnDemand, 1100),
            pool(2, OnDemand, 1000),
            PoolView { count_max: 4, ..pool(3, Reserved, 700) },
        ];
        let mut policy = OnDemandPolicy::default();
        assert_eq!(counts(&policy.allocate(Instant::START, 3, &pools)), [0, 0, 0, 3]);
        assert_eq!(counts(&policy.allocate(Instant::START, 9, &pools)), [0, 0, 5, 4]);
        assert_eq!(counts(&policy.allocate(Instant::START, 500, &pools)), [0, 100, 100, 4]);
    }

    #[test]
    fn equal_prices_follow_the_scenario() {
        let pools = [pool(0, OnDemand, 1000), pool(1, OnDemand, 1000)];
        assert_eq!(counts(&OnDemandPolicy::default().allocate(Instant::START, 7, &pools)), [7, 0]);
    }

    #[test]
    fn minima_are_kept_and_counted() {
        let pools = [pool(0, OnDemand, 900), PoolView { count_min: 2, ..pool(1, OnDemand, 1000) }];
        let mut policy = PoolOrderPolicy::default();
        assert_eq!(counts(&policy.allocate(Instant::START, 0, &pools)), [0, 2]);
        assert_eq!(counts(&policy.allocate(Instant::START, 5, &pools)), [3, 2]);
    }

    #[test]
    fn no_pools_no_targets() {
        assert!(OnDemandPolicy::default().allocate(Instant::START, 5, &[]).is_empty());
        assert!(PoolOrderPolicy::default().allocate(Instant::START, 5, &[]).is_empty());
    }

    #[test]
    fn a_pool_in_backoff_is_passed_over_and_tried_again() {
        let mut policy = PoolOrderPolicy::default();
        let held = [holding(pool(0, Spot, 300), 4, 0), holding(pool(1, OnDemand, 1000), 0, 0)];
        policy.on_event(Instant::START, PoolEvent::LaunchFailed(PoolId(0)));
        let targets = policy.allocate(Instant::START, 10, &held);
        assert_eq!(counts(&targets), [4, 6]);
        assert_eq!(targets[0].reason.code, "launch-backoff");

        // After the backoff the first pool is tried again, and the second stays until it has delivered.
        let later = Instant::START + LAUNCH_BACKOFF;
        let held = [holding(pool(0, Spot, 300), 4, 0), holding(pool(1, OnDemand, 1000), 5, 1)];
        let targets = policy.allocate(later, 10, &held);
        assert_eq!(counts(&targets), [10, 6]);
        assert_eq!(targets[1].reason.code, "keep-until-replaced");
        let held = [holding(pool(0, Spot, 300), 8, 2), holding(pool(1, OnDemand, 1000), 6, 0)];
        assert_eq!(counts(&policy.allocate(later, 10, &held)), [10, 2]);
        let held = [holding(pool(0, Spot, 300), 10, 0), holding(pool(1, OnDemand, 1000), 2, 0)];
        assert_eq!(counts(&policy.allocate(later, 10, &held)), [10, 0]);
    }

    #[test]
    fn a_success_ends_the_backoff() {
        let mut policy = PoolOrderPolicy::default();
        policy.on_event(Instant::START, PoolEvent::LaunchFailed(PoolId(0)));
        policy.on_event(Instant::START, PoolEvent::Launched(PoolId(0)));
        let pools = [pool(0, Spot, 300), pool(1, OnDemand, 1000)];
        assert_eq!(counts(&policy.allocate(Instant::START, 10, &pools)), [10, 0]);
    }

    #[test]
    fn a_falling_target_releases_instances_that_still_start() {
        let held = [holding(pool(0, OnDemand, 1000), 3, 7), holding(pool(1, OnDemand, 1100), 0, 0)];
        assert_eq!(counts(&OnDemandPolicy::default().allocate(Instant::START, 5, &held)), [5, 0]);
    }
}
