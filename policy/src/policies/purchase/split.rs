//! A target being split over pools: counts under construction, each with its reason.
//!
//! Knows limits, backoff and how to fill; which pools to fill is for the policies.

use super::failures::{Failures, LAUNCH_BACKOFF};
use super::{PoolTarget, PoolView};
use crate::model::CapacityType;
use crate::policies::Reason;
use crate::units::{Duration, Instant};

/// Counts under construction, one per pool of `pools`.
pub(super) struct Split<'a> {
    pools: &'a [PoolView],
    counts: Vec<u32>,
    limits: Vec<u32>,
    reasons: Vec<Reason>,
}

impl PoolView {
    /// Instances ready or starting.
    pub(super) fn held(&self) -> u32 {
        self.ready + self.starting
    }
}

impl<'a> Split<'a> {
    /// Every pool at its minimum; a pool that lately failed to launch may not grow beyond what it holds.
    pub(super) fn new(now: Instant, pools: &'a [PoolView], failures: &Failures) -> Self {
        Self::with_pause(now, pools, failures, LAUNCH_BACKOFF)
    }

    /// The same with a backoff of `pause`.
    pub(super) fn with_pause(
        now: Instant,
        pools: &'a [PoolView],
        failures: &Failures,
        pause: Duration,
    ) -> Self {
        let minimum = |pool: &PoolView| pool.count_min.min(pool.count_max);
        let limit = |pool: &PoolView| {
            let backoff = failures.in_backoff(now, pool.pool, pause);
            if backoff { pool.held().clamp(minimum(pool), pool.count_max) } else { pool.count_max }
        };
        let reason = |pool: &PoolView| {
            if failures.in_backoff(now, pool.pool, pause) {
                let text = format!("a launch failed less than {pause} ago; {} are held", pool.held());
                Reason::new("launch-backoff", text)
            } else if minimum(pool) > 0 {
                Reason::new("pool-minimum", format!("the pool's minimum is {}", pool.count_min))
            } else {
                Reason::new("pool-unused", "nothing is wanted from this pool")
            }
        };
        Self {
            pools,
            counts: pools.iter().map(minimum).collect(),
            limits: pools.iter().map(limit).collect(),
            reasons: pools.iter().map(reason).collect(),
        }
    }

    /// Positions of the pools bought as `capacity_type`, in order of the scenario.
    pub(super) fn of_type(&self, capacity_type: CapacityType) -> Vec<usize> {
        (0..self.pools.len()).filter(|at| self.pools[*at].capacity_type == capacity_type).collect()
    }

    /// The same, cheapest first; ties stay in order of the scenario.
    pub(super) fn cheapest(&self, capacity_type: CapacityType) -> Vec<usize> {
        let mut positions = self.of_type(capacity_type);
        positions.sort_by_key(|at| self.pools[*at].price);
        positions
    }

    /// Instances given so far to the pools at `positions`.
    pub(super) fn given(&self, positions: &[usize]) -> u32 {
        positions.iter().fold(0, |sum, at| sum.saturating_add(self.counts[*at]))
    }

    /// How many more the pool takes now.
    pub(super) fn room(&self, at: usize) -> u32 {
        self.limits[at].saturating_sub(self.counts[at])
    }

    /// The count given so far.
    pub(super) fn count(&self, at: usize) -> u32 {
        self.counts[at]
    }

    /// Gives one pool `more` within its limit, for a reason. Returns how many it took.
    pub(super) fn give(&mut self, at: usize, more: u32, code: &'static str, why: &str) -> u32 {
        let taken = more.min(self.room(at));
        self.counts[at] += taken;
        if taken < more && self.limits[at] < self.pools[at].count_max {
            let text = format!("{why}; held at {} since a launch failed lately", self.limits[at]);
            self.reasons[at] = Reason::new("launch-backoff", text);
        } else if taken > 0 {
            self.reasons[at] = Reason::new(code, why);
        }
        taken
    }

    /// Raises the sum over `positions` to `total`, filling each in turn. Returns what found no room.
    pub(super) fn fill_in_order(
        &mut self,
        positions: &[usize],
        total: u32,
        code: &'static str,
        why: &str,
    ) -> u32 {
        let mut left = total.saturating_sub(self.given(positions));
        for at in positions {
            left -= self.give(*at, left, code, why);
        }
        left
    }

    /// Raises the sum over `positions` to `total` as evenly as limits allow. What does not divide goes to pools that
    /// hold it already, then to the first in order. Returns what found no room.
    pub(super) fn fill_evenly(
        &mut self,
        positions: &[usize],
        total: u32,
        code: &'static str,
        why: &str,
    ) -> u32 {
        let at_level = |level: u32| {
            let count = |at: &usize| u64::from(self.counts[*at].max(level.min(self.limits[*at])));
            positions.iter().map(count).sum::<u64>()
        };
        // The highest level at which everybody, filled up to it, fits into the total; at most 32 halvings.
        let highest = positions.iter().map(|at| self.limits[*at]).max().unwrap_or(0);
        let (mut low, mut high) = (0, highest);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if at_level(middle) <= u64::from(total) { low = middle } else { high = middle - 1 }
        }
        for at in positions {
            let more = low.saturating_sub(self.counts[*at]);
            self.give(*at, more, code, why);
        }
        let mut left = total.saturating_sub(self.given(positions));
        let (holding, others): (Vec<usize>, Vec<usize>) =
            positions.iter().partition(|at| self.pools[**at].held() > low);
        for at in holding.into_iter().chain(others) {
            if left > 0 && self.counts[at] <= low {
                left -= self.give(at, 1, code, why);
            }
        }
        left
    }

    /// Keeps instances that others are to replace until the others are ready.
    ///
    /// As many as the pools at `positions` promise but do not have ready are kept in those of them that hold more than
    /// they were given. Launch before release, so that a failed launch never
    /// costs capacity.
    pub(super) fn keep_until_replaced(&mut self, positions: &[usize]) {
        let promised = |at: &usize| u64::from(self.counts[*at].saturating_sub(self.pools[*at].ready));
        let mut missing: u64 = positions.iter().map(promised).sum();
        for at in positions {
            let pool = &self.pools[*at];
            let spare = pool.held().min(pool.count_max).saturating_sub(self.counts[*at]);
            let is_replaced = self.counts[*at] <= pool.ready;
            let kept = u32::try_from(missing).unwrap_or(u32::MAX).min(spare);
            if is_replaced && kept > 0 {
                let why = format!("{kept} are kept until {missing} instances of other pools are ready");
                self.counts[*at] += kept;
                self.reasons[*at] = Reason::new("keep-until-replaced", why);
                missing -= u64::from(kept);
            }
        }
    }

    /// The targets, one per pool.
    pub(super) fn finish(self) -> Vec<PoolTarget> {
        let rows = self.pools.iter().zip(self.counts).zip(self.reasons);
        rows.map(|((view, instances), reason)| PoolTarget { pool: view.pool, instances, reason }).collect()
    }
}
