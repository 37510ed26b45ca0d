//! SpotHedge: spot with a surplus over several zones, and on-demand while spot is not ready.
//!
//! Mao et al., "SkyServe: Serving AI Models across Regions and Clouds with Spot Instances", EuroSys 2025: zones that
//! lately preempted or refused (Z_P) are avoided for those that did not (Z_A). A pool is a zone. The published
//! `spot_placer.py` filters its candidates the other way round; this follows the paper.

use std::collections::BTreeSet;

use super::failures::Failures;
use super::split::Split;
use super::{PoolEvent, PoolTarget, PoolView, PurchaseMemory, PurchasePolicy};
use crate::model::{CapacityType, PoolId};
use crate::units::{Duration, Instant};

/// How long a zone that refused is not asked again: the time between two decisions of SkyServe.
const RETRY_PAUSE: Duration = Duration::from_secs(20);

/// Zones needed in Z_A; with fewer all zones are active again.
const ACTIVE_MIN: usize = 2;

/// Splits by SpotHedge; see [`super::Purchase::SpotHedge`].
pub(super) struct SpotHedgePolicy {
    overprovision: u32,
    dynamic_fallback: bool,
    on_demand_base: u32,
    failures: Failures,
    /// All spot zones, as last seen.
    zones: Vec<PoolId>,
    /// Z_P: zones that preempted or refused since their last launch. All others are Z_A.
    preempting: BTreeSet<PoolId>,
}

impl SpotHedgePolicy {
    pub(super) fn new(overprovision: u32, dynamic_fallback: bool, on_demand_base: u32) -> Self {
        Self {
            overprovision,
            dynamic_fallback,
            on_demand_base,
            failures: Failures::default(),
            zones: Vec::new(),
            preempting: BTreeSet::new(),
        }
    }

    /// If |Z_A| < 2: Z_A = Z_A ∪ Z_P, Z_P = {}.
    fn settle(&mut self) {
        let active = self.zones.iter().filter(|zone| !self.preempting.contains(zone)).count();
        if active < ACTIVE_MIN {
            self.preempting.clear();
        }
    }

    /// Adds spot instances one at a time until `total` are held, each in the next zone by the paper's rule.
    fn add_spot(&self, split: &mut Split, spot: &[usize], pools: &[PoolView], total: u32, why: &str) {
        let missing = total.saturating_sub(split.given(spot));
        for _ in 0..missing {
            let open = spot.iter().copied().filter(|at| split.room(*at) > 0);
            // Z_A before Z_P (which only serves once every zone of Z_A is at its limit); zones that hold none first;
            // then the cheapest; equal prices are spread, then follow the scenario.
            let next = open.min_by_key(|at| {
                let (view, count) = (&pools[*at], split.count(*at));
                (self.preempting.contains(&view.pool), count > 0, view.price, count, *at)
            });
            let Some(at) = next else { return };
            split.give(at, 1, "spot-hedge", why);
        }
    }

    /// What each spot zone keeps of what it holds when `total` are wanted: starting instances go before ready ones,
    /// zones of Z_P before others, the dearest before the cheaper.
    fn kept(&self, spot: &[usize], pools: &[PoolView], total: u32) -> Vec<(usize, u32)> {
        let held = |at: &usize| (*at, pools[*at].held().min(pools[*at].count_max));
        let mut kept: Vec<(usize, u32)> = spot.iter().map(held).collect();
        kept.sort_by_key(|(at, _)| {
            let view = &pools[*at];
            (!self.preempting.contains(&view.pool), std::cmp::Reverse(view.price), std::cmp::Reverse(*at))
        });
        let mut surplus =
            kept.iter().fold(0_u32, |sum, (_, count)| sum.saturating_add(*count)).saturating_sub(total);
        for starting_only in [true, false] {
            for (at, count) in &mut kept {
                let view = &pools[*at];
                let releasable = if starting_only { view.starting.min(*count) } else { *count };
                let released = releasable.min(count.saturating_sub(view.count_min)).min(surplus);
                *count -= released;
                surplus -= released;
            }
        }
        kept
    }
}

impl PurchasePolicy for SpotHedgePolicy {
    fn on_event(&mut self, now: Instant, event: PoolEvent) {
        self.failures.note(now, event);
        match event {
            PoolEvent::Launched(zone) => {
                self.preempting.remove(&zone);
            }
            PoolEvent::LaunchFailed(zone) | PoolEvent::Interrupted(zone) => {
                self.preempting.insert(zone);
            }
        }
        self.settle();
    }

    fn allocate(&mut self, now: Instant, target: u32, pools: &[PoolView]) -> Vec<PoolTarget> {
        let mut split = Split::with_pause(now, pools, &self.failures, RETRY_PAUSE);
        let spot = split.of_type(CapacityType::Spot);
        self.zones = spot.iter().map(|at| pools[*at].pool).collect();
        self.settle();

        let reserved = split.of_type(CapacityType::Reserved);
        split.fill_in_order(&reserved, target, "reserved-first", &format!("of a target of {target}"));
        let above_reserved = target.saturating_sub(split.given(&reserved));
        let base = self.on_demand_base.saturating_sub(split.given(&reserved)).min(above_reserved);
        let on_spot = above_reserved - base; // N_tar
        // Without anything to hedge a surplus would only cost.
        let extra = if on_spot > 0 { self.overprovision } else { 0 };
        let spot_total = on_spot.saturating_add(extra);

        let why = format!(
            "{spot_total} spot for {on_spot} wanted and {extra} extra; {} of {} zones are avoided",
            self.preempting.len(),
            self.zones.len()
        );
        for (at, count) in self.kept(&spot, pools, spot_total) {
            let more = count.saturating_sub(split.count(at));
            split.give(at, more, "spot-hedge", &why);
        }
        self.add_spot(&mut split, &spot, pools, spot_total, &why);

        let spot_ready = spot.iter().fold(0_u32, |sum, at| sum.saturating_add(pools[*at].ready));
        let fallback =
            if self.dynamic_fallback { on_spot.min(spot_total.saturating_sub(spot_ready)) } else { 0 };
        let why = format!(
            "a base of {base} and {fallback} in place of spot: {spot_ready} of {spot_total} spot are ready"
        );
        let on_demand = split.cheapest(CapacityType::OnDemand);
        split.fill_in_order(&on_demand, base + fallback, "on-demand-fallback", &why);
        split.keep_until_replaced(&on_demand);
        split.finish()
    }

    fn memory(&self) -> PurchaseMemory {
        let (failures, zones) = (self.failures.clone(), self.zones.clone());
        PurchaseMemory::SpotHedge { failures, zones, preempting: self.preempting.clone() }
    }

    fn recall(&mut self, memory: PurchaseMemory) {
        if let PurchaseMemory::SpotHedge { failures, zones, preempting } = memory {
            (self.failures, self.zones, self.preempting) = (failures, zones, preempting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{counts, holding, pool};
    use super::*;
    use crate::model::CapacityType::{OnDemand, Reserved, Spot};

    /// Zones A, B and C with on-demand behind them, holding (ready, starting) each.
    fn pools(held: [(u32, u32); 4]) -> [PoolView; 4] {
        let views = [pool(0, Spot, 310), pool(1, Spot, 300), pool(2, Spot, 320), pool(3, OnDemand, 1000)];
        std::array::from_fn(|at| holding(views[at], held[at].0, held[at].1))
    }

    const NOTHING: [(u32, u32); 4] = [(0, 0); 4];

    fn hedge(extra: u32) -> SpotHedgePolicy {
        SpotHedgePolicy::new(extra, true, 0)
    }

    fn at(secs: u64) -> Instant {
        Instant::START + Duration::from_secs(secs)
    }

    #[test]
    fn one_per_zone_then_the_cheapest_and_on_demand_until_ready() {
        let mut policy = hedge(2);
        assert_eq!(counts(&policy.allocate(at(0), 2, &pools(NOTHING))), [1, 2, 1, 2]);
        assert_eq!(counts(&policy.allocate(at(0), 8, &pools(NOTHING))), [1, 8, 1, 8]);
    }

    #[test]
    fn on_demand_follows_the_paper_as_spot_gets_ready() {
        // O = min(N_tar, N_tar + N_extra − S_ready) with N_tar = 4 and N_extra = 1.
        for (ready, on_demand) in [(0, 4), (1, 4), (2, 3), (4, 1), (5, 0), (6, 0)] {
            let held = pools([(0, 0), (ready, 6 - ready), (0, 0), (4, 0)]);
            let targets = hedge(1).allocate(at(0), 4, &held);
            assert_eq!(targets[3].instances, on_demand, "{ready} ready");
            assert_eq!(targets[1].instances, 5, "five are in flight, the sixth is released");
        }
    }

    #[test]
    fn a_preempted_zone_is_avoided_until_it_launches_again() {
        let mut policy = hedge(1);
        let held = pools([(1, 0), (0, 0), (1, 0), (0, 0)]);
        policy.allocate(at(0), 3, &held);
        policy.on_event(at(1), PoolEvent::Interrupted(PoolId(1)));
        assert_eq!(counts(&policy.allocate(at(1), 3, &held))[..3], [3, 0, 1], "the cheapest zone left is A");
        policy.on_event(at(2), PoolEvent::Launched(PoolId(1)));
        assert_eq!(counts(&policy.allocate(at(2), 3, &held))[..3], [1, 2, 1]);
    }

    #[test]
    fn with_one_active_zone_left_all_are_active_again() {
        let mut policy = hedge(0);
        policy.allocate(at(0), 3, &pools(NOTHING));
        policy.on_event(at(1), PoolEvent::Interrupted(PoolId(0)));
        assert_eq!(policy.preempting.len(), 1);
        policy.on_event(at(1), PoolEvent::Interrupted(PoolId(1)));
        assert!(policy.preempting.is_empty());
        assert_eq!(counts(&policy.allocate(at(1), 3, &pools(NOTHING)))[..3], [1, 1, 1]);
    }

    #[test]
    fn a_zone_that_refused_is_not_asked_again_at_once() {
        // A single zone is always active; without the pause a refusal would be followed by the same launch.
        let zone = [pool(0, Spot, 300), pool(1, OnDemand, 1000)];
        let mut policy = hedge(1);
        policy.on_event(at(0), PoolEvent::LaunchFailed(PoolId(0)));
        assert_eq!(counts(&policy.allocate(at(19), 3, &zone)), [0, 3]);
        assert_eq!(counts(&policy.allocate(at(20), 3, &zone)), [4, 3]);
    }

    #[test]
    fn surplus_goes_from_starting_and_dear_first() {
        let held = pools([(2, 0), (2, 1), (2, 1), (0, 0)]);
        assert_eq!(counts(&hedge(0).allocate(at(0), 7, &held))[..3], [2, 3, 2]);
        assert_eq!(counts(&hedge(0).allocate(at(0), 6, &held))[..3], [2, 2, 2]);
        assert_eq!(counts(&hedge(0).allocate(at(0), 4, &held))[..3], [2, 2, 0]);
        // A zone that lately preempted goes before a dearer one.
        let mut policy = hedge(0);
        policy.allocate(at(0), 8, &held);
        policy.on_event(at(1), PoolEvent::Interrupted(PoolId(0)));
        assert_eq!(counts(&policy.allocate(at(1), 4, &held))[..3], [0, 2, 2]);
    }

    #[test]
    fn base_and_reserved_come_before_spot() {
        let pools =
            [pool(0, Spot, 300), pool(1, OnDemand, 1000), PoolView { count_max: 2, ..pool(2, Reserved, 0) }];
        let mut fixed = SpotHedgePolicy::new(1, false, 3);
        assert_eq!(counts(&fixed.allocate(at(0), 8, &pools)), [6, 1, 2]);
        assert_eq!(counts(&fixed.allocate(at(0), 2, &pools)), [0, 0, 2], "nothing on spot, no surplus");
    }

    #[test]
    fn limits_and_missing_pools_are_survived() {
        let mut small = pools(NOTHING);
        (small[0].count_max, small[1].count_max, small[2].count_max) = (1, 1, 0);
        assert_eq!(counts(&hedge(1).allocate(at(0), 9, &small)), [1, 1, 0, 9]);
        assert!(hedge(1).allocate(at(0), 9, &[]).is_empty());
        assert_eq!(counts(&hedge(1).allocate(at(0), 9, &[pool(0, OnDemand, 1000)])), [9]);
        assert_eq!(counts(&hedge(1).allocate(at(0), 0, &pools([(1, 1), (1, 1), (1, 1), (1, 0)]))), [0; 4]);
    }
}
