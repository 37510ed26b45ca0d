//! What one replication measured.

use policy::model::{PoolId, System};
use policy::records::{DecisionRow, InstanceEnd, InstanceLife, InstanceRow, JobOutcome, JobRow, MinuteRow};
use policy::units::{Duration, Usd};
use scenarios::scenario::{Operation, Scenario, Window};

use crate::stats::{BatchMeans, Histogram};
use crate::world::TierUse;

/// Jobs by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Submitted.
    pub arrived: u64,
    /// Done.
    pub done: u64,
    /// Failed.
    pub failed: u64,
    /// Expired.
    pub expired: u64,
    /// Cancelled or abandoned.
    pub cancelled: u64,
    /// Turned away.
    pub rejected: u64,
    /// Done within the objective's deadline.
    pub on_time: u64,
}

impl JobCounts {
    /// Counts one end; `on_time` says whether a done job met the deadline.
    #[inline]
    pub fn count(&mut self, outcome: JobOutcome, on_time: bool) {
        match outcome {
            JobOutcome::Done => self.done += 1,
            JobOutcome::Failed => self.failed += 1,
            JobOutcome::Expired => self.expired += 1,
            JobOutcome::Cancelled => self.cancelled += 1,
            JobOutcome::Rejected => self.rejected += 1,
        }
        self.on_time += u64::from(on_time);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        self.arrived += other.arrived;
        self.done += other.done;
        self.failed += other.failed;
        self.expired += other.expired;
        self.cancelled += other.cancelled;
        self.rejected += other.rejected;
        self.on_time += other.on_time;
    }

    /// `part` over `arrived`; zero when nothing arrived.
    pub fn share(&self, part: u64) -> f64 {
        if self.arrived == 0 { 0.0 } else { part as f64 / self.arrived as f64 }
    }
}

/// What one stage measured.
#[derive(Clone, Debug, Default)]
pub struct StageStats {
    /// Time in its queue before each start.
    pub wait: Histogram,
    /// Time on its slot, completed attempts.
    pub service: Histogram,
    /// Starts after the first of a job.
    pub retries: u64,
    /// Means of the wait in batches, for the standard error within one run.
    pub wait_batches: BatchMeans,
}

/// What one pool measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PoolStats {
    /// Instance time held, from boot to end.
    pub held: Duration,
    /// Instance time ready.
    pub ready: Duration,
    /// Busy slot-time.
    pub busy: Duration,
    /// Slot-time offered while ready.
    pub offered: Duration,
    /// Instances taken by the provider.
    pub interruptions: u64,
    /// Launches refused.
    pub refusals: u64,
    /// Launches.
    pub launches: u64,
    /// Most instances alive at once.
    pub peak: u32,
    /// Billed time.
    pub billed_time: Duration,
    /// Billed.
    pub billed: Usd,
    /// At list price.
    pub list: Usd,
    /// Calls to an external pool.
    pub calls: u64,
}

/// What one window measured.
#[derive(Clone, Debug, Default)]
pub struct WindowStats {
    /// Jobs that arrived in it.
    pub jobs: JobCounts,
    /// Their time in the system, done ones.
    pub latency: Histogram,
}

/// What decides where a job counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks<'a> {
    pub(crate) windows: &'a [Window],
    /// Latest latency that is on time, nanoseconds.
    pub(crate) deadline: u64,
}

/// Everything one replication measured.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Jobs that arrived after the warm-up.
    pub jobs: JobCounts,
    /// Time from submission to result as the client sees it, done jobs.
    pub latency: Histogram,
    /// Means of it in batches, for the standard error within one run.
    pub latency_batches: BatchMeans,
    /// By stage.
    pub stages: Vec<StageStats>,
    /// By transfer: tier, operation, time.
    pub transfers: Vec<(usize, Operation, Histogram)>,
    /// By tier: use of GET, use of PUT.
    pub tiers: Vec<[TierUse; 2]>,
    /// By pool.
    pub pools: Vec<PoolStats>,
    /// By span.
    pub spans: Vec<Histogram>,
    /// By window.
    pub windows: Vec<WindowStats>,
    /// The bill.
    pub ledger: policy::ledger::Ledger,
    /// Jobs served away from their client's region.
    pub served_away: u64,
    /// Attempts that found no slot.
    pub probes_refused: u64,
    /// Times clients asked again.
    pub asked_again: u64,
    /// Jobs still inside when the run was cut off; counted as cancelled.
    pub unfinished: u64,
    /// Most jobs in the system at once.
    pub in_system_max: u64,
    /// Events processed: arrivals, calendar events and timers.
    pub events: u64,
    /// End of the run.
    pub ended: Duration,
    /// Whether the recurrence made it.
    pub by_recurrence: bool,
    /// Record rows, when asked for.
    pub records: Records,
}

/// Record rows of one replication.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Jobs: all, or a uniform sample with weights.
    pub jobs: Vec<JobRow>,
    /// Minutes.
    pub minutes: Vec<MinuteRow>,
    /// Instances.
    pub instances: Vec<InstanceRow>,
    /// Decisions.
    pub decisions: Vec<DecisionRow>,
}

impl Outcome {
    /// An empty outcome with a place for everything in `scenario`.
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            stages: vec![StageStats::default(); scenario.stages.len()],
            tiers: vec![[TierUse::default(); 2]; scenario.tiers.len()],
            pools: vec![PoolStats::default(); scenario.pools.len()],
            spans: vec![Histogram::default(); scenario.spans.len()],
            windows: vec![WindowStats::default(); scenario.windows.len()],
            ..Self::default()
        }
    }

    /// Counts an arrival at `at`, nanoseconds.
    #[inline]
    pub(crate) fn note_arrival(&mut self, windows: &[Window], at: u64, warmup: u64) {
        self.jobs.arrived += u64::from(at >= warmup);
        for (window, stats) in windows.iter().zip(&mut self.windows) {
            stats.jobs.arrived += u64::from((window.from.as_nanos()..window.to.as_nanos()).contains(&at));
        }
    }

    /// Counts in its windows the end of a job that arrived at `arrived`; `latency` is that of a done one, nanoseconds.
    #[inline]
    pub(crate) fn note_end_in_windows(
        &mut self,
        marks: Marks<'_>,
        arrived: u64,
        outcome: JobOutcome,
        latency: Option<u64>,
    ) {
        let on_time = latency.is_some_and(|latency| latency <= marks.deadline);
        for (window, stats) in marks.windows.iter().zip(&mut self.windows) {
            if (window.from.as_nanos()..window.to.as_nanos()).contains(&arrived) {
                stats.jobs.count(outcome, on_time);
                if let Some(latency) = latency {
                    stats.latency.record(latency);
                }
            }
        }
    }

    /// Total cost in dollars.
    pub fn cost(&self) -> f64 {
        self.ledger.total().as_f64()
    }

    /// Cost of a thousand done jobs in dollars; `None` when none was done.
    pub fn cost_per_1000(&self) -> Option<f64> {
        (self.jobs.done > 0).then(|| self.cost() / self.jobs.done as f64 * 1000.0)
    }

    /// Notes the end of an instance and bills it; returns its row.
    pub(crate) fn end_instance(&mut self, scenario: &Scenario, life: &InstanceLife) -> InstanceRow {
        let pool = &scenario.system.pools[life.pool.index()];
        let world = &scenario.pools[life.pool.index()];
        let charge = policy::ledger::instance_charge(pool, world.billing, pool.offering.price, life);
        let stats = &mut self.pools[life.pool.index()];
        stats.launches += 1;
        if let Some(booted) = life.booted {
            stats.held += life.ended.since(booted);
        }
        if let Some(ready) = life.ready {
            let time = life.ended.since(ready);
            stats.ready += time;
            stats.offered += Duration::from_nanos(time.as_nanos().saturating_mul(u64::from(life.slots)));
        }
        stats.busy += life.busy;
        stats.interruptions += u64::from(life.end == InstanceEnd::Interrupted);
        stats.refusals += u64::from(life.end == InstanceEnd::Refused);
        stats.billed_time += charge.billed_time;
        stats.billed += charge.billed;
        stats.list += charge.list;
        InstanceRow {
            pool: pool.name.clone(),
            instance: life.instance.0,
            capacity_type: pool.offering.capacity_type.name(),
            requested_s: life.requested.as_secs_f64(),
            ready_s: life.ready.map(policy::units::Instant::as_secs_f64),
            ended_s: life.ended.as_secs_f64(),
            busy_slot_s: life.busy.as_secs_f64(),
            billed_nanousd: charge.billed.as_nanos(),
            end: life.end,
        }
    }

    /// Busy share of the slot-time a pool offered, 0..=1.
    pub fn utilization(&self, pool: PoolId) -> f64 {
        let stats = &self.pools[pool.index()];
        if stats.offered == Duration::ZERO {
            0.0
        } else {
            (stats.busy.as_secs_f64() / stats.offered.as_secs_f64()).min(1.0)
        }
    }
}

/// The names that records use for a system's parts.
pub(crate) fn group_region(system: &System, region: policy::model::RegionId) -> String {
    system.regions[region.index()].name.clone()
}
