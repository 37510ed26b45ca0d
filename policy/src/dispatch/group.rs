//! A group: the pools that serve one queue, and what its policies remember.

use super::queue::Queue;
use crate::model::{CapacityType, PoolId, RegionId, SLOT_KINDS_MAX, System};
use crate::policies::{PurchasePolicy, QualityState, ScalingPolicy};
use crate::units::{Duration, Instant};

/// Weight of one finished job in the running mean of service times.
const SERVICE_WEIGHT: f64 = 1.0 / 64.0;

pub(super) struct Group {
    pub(super) name: String,
    pub(super) cell: RegionId,
    /// Pools with instances, preferred first.
    pub(super) pools: Vec<PoolId>,
    pub(super) external: Option<PoolId>,
    pub(super) queues: [Queue; SLOT_KINDS_MAX],
    pub(super) running: [u32; SLOT_KINDS_MAX],
    /// Slots of ready instances, by kind.
    pub(super) slots: [u32; SLOT_KINDS_MAX],
    /// Running mean of the time a job holds a slot, nanoseconds, by kind.
    pub(super) service_ns: [f64; SLOT_KINDS_MAX],
    /// The kind that runs out first.
    pub(super) scarce_kind: usize,
    pub(super) slots_per_instance: f64,
    pub(super) startup_expected: Duration,
    pub(super) quality: QualityState,
    pub(super) scaling: Box<dyn ScalingPolicy>,
    pub(super) purchase: Box<dyn PurchasePolicy>,
    pub(super) target: u32,
    pub(super) next_tick: Instant,
    pub(super) last_tick: Instant,
    pub(super) tick: TickCounts,
    pub(super) minute: MinuteCounts,
}

/// Counted since the last scaling tick.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct TickCounts {
    pub(super) arrived: u64,
    pub(super) finished: u64,
    pub(super) service_ns: u64,
}

/// Counted since the last minute.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct MinuteCounts {
    pub(super) arrived: u64,
    pub(super) done: u64,
    pub(super) lost: u64,
    pub(super) probes_refused: u64,
}

impl Group {
    pub(super) fn waiting(&self) -> u32 {
        self.queues.iter().map(|queue| queue.len).sum()
    }

    pub(super) fn running(&self) -> u32 {
        self.running.iter().sum()
    }

    /// Learns how long a job held a slot.
    #[inline]
    pub(super) fn note_service(&mut self, kind: usize, held: u64) {
        self.tick.finished += 1;
        self.tick.service_ns += held;
        let mean = &mut self.service_ns[kind];
        *mean += (held as f64 - *mean) * SERVICE_WEIGHT;
    }

    /// Expected wait of a job that joins the end of the queue now, with `starting_slots` on their way.
    ///
    /// The queue ahead, the job included, leaves at slots/S per second (a heavy-traffic estimate: when the queue is long,
    /// departures are as regular as the fleet is large).
    pub(super) fn wait_expected(&self, kind: usize, starting_slots: u32) -> Duration {
        let ahead = f64::from(self.queues[kind].len + 1) * self.service_ns[kind];
        let nanos = |ns: f64| Duration::from_nanos(ns as u64);
        match (self.slots[kind], starting_slots) {
            (0, 0) if self.pools.is_empty() => Duration::MAX,
            // Asleep: a job that waits wakes the group, and one instance comes.
            (0, 0) => self.startup_expected + nanos(ahead / self.slots_per_instance),
            (0, starting) => self.startup_expected + nanos(ahead / f64::from(starting)),
            (ready, _) => nanos(ahead / f64::from(ready)),
        }
    }

    /// Load for the quality ladder: jobs waiting and running per ready slot.
    #[inline]
    pub(super) fn load(&self, kind: usize) -> f64 {
        f64::from(self.queues[kind].len + self.running[kind]) / f64::from(self.slots[kind].max(1))
    }
}

/// Pools of `pool_class` in `cell` (in any region when `cell` is `None`): reserved before others, then as listed.
pub(super) fn member_pools(
    system: &System,
    pool_class: u16,
    cell: Option<RegionId>,
) -> (Vec<PoolId>, Option<PoolId>) {
    let mut pools = Vec::new();
    let mut external = None;
    for (index, pool) in system.pools.iter().enumerate() {
        let id = PoolId(index as u16);
        if pool.pool_class != pool_class || cell.is_some_and(|cell| cell != pool.region) {
            continue;
        }
        if pool.offering.capacity_type == CapacityType::External {
            external = external.or(Some(id));
        } else {
            pools.push(id);
        }
    }
    pools.sort_by_key(|id| system.pools[id.index()].offering.capacity_type != CapacityType::Reserved);
    (pools, external)
}

/// The slot kind with the most expected work per slot, and the slots of it that one instance has.
pub(super) fn scarce_kind(
    system: &System,
    pool_class: u16,
    pools: &[PoolId],
) -> (usize, f64, [f64; SLOT_KINDS_MAX]) {
    use crate::model::Place;
    let mut work = [0.0; SLOT_KINDS_MAX];
    let mut stages = [0_u32; SLOT_KINDS_MAX];
    for stage in &system.stages {
        if let Place::Slot { pool_class: class, kind } = stage.place
            && class == pool_class
        {
            work[kind.index()] += stage.service_expected.as_nanos() as f64;
            stages[kind.index()] += 1;
        }
    }
    let slots = |kind: usize| {
        let counts = pools.iter().map(|id| f64::from(system.pools[id.index()].slots[kind]));
        counts.fold(0.0, f64::max)
    };
    let mut scarce = 0;
    for kind in 1..SLOT_KINDS_MAX {
        // work/slots compared by cross-multiplication; a kind without slots has no work either
        if work[kind] * slots(scarce) > work[scarce] * slots(kind) && slots(kind) > 0.0 {
            scarce = kind;
        }
    }
    let mut mean = work;
    for (mean, stages) in mean.iter_mut().zip(stages) {
        *mean /= f64::from(stages.max(1));
    }
    (scarce, slots(scarce).max(1.0), mean)
}
