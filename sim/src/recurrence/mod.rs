//! The recurrence: first come, first served stations of known capacity without an event list (Kiefer and Wolfowitz,
//! Trans. AMS 78, 1955). A job that arrives at t starts at max(t, earliest time at which a server is free).
//!
//! It is chosen by itself where the scenario permits and gives the engine's answers: both use the same draws and whole
//! nanoseconds. Stations are chained without sorting, since the least free times leave a station in order of time. Jobs go
//! from station to station in blocks, so that draws, sums and statistics run over many jobs at a time.

mod block;
mod permit;
mod record;
mod station;

pub use permit::permits;

use policy::model::{InstanceId, Place, PoolId};
use policy::records::{InstanceEnd, InstanceLife, JobOutcome};
use policy::units::{Duration, Instant};
use scenarios::scenario::Scenario;

use crate::bill::{Moved, bill};
use crate::inputs::Inputs;
use crate::outcome::{Marks, Outcome};
use crate::replication::{Keep, Replication, SimError};
use crate::stats::Histogram;
use crate::world::Pipeline;
use crate::world::arrivals::ArrivalFeed;
use block::{BlockWork, LANES};
use record::Records;
use station::{Delay, JOBS_MAX, OutOfRange, Servers, Station, Visit, Waits};

/// One run of the recurrence.
struct Recurrence<'a> {
    scenario: &'a Scenario,
    pipeline: Pipeline,
    work: BlockWork,
    stations: Vec<Station>,
    /// Pool and busy time by stage.
    pools: Vec<usize>,
    busy: Vec<u64>,
    records: Records,
    /// (span, begins in stage, ends in stage) of those that depend on waiting.
    crossing: Vec<(usize, usize, usize)>,
    waits: Waits,
    visits: Vec<Visit>,
    leaving: Vec<Visit>,
    lengths: Vec<u64>,
    outcome: Outcome,
    warmup: u64,
    deadline: u64,
    last: u64,
}

/// Runs one replication by the recurrence; `permits` must hold. Where more jobs are inside or times are longer than its
/// keys can hold, the engine runs it instead.
///
/// # Errors
/// [`SimError`] when a trace cannot be played.
pub fn run(scenario: &Scenario, inputs: &Inputs, replication: u64) -> Result<Outcome, SimError> {
    let mut arrivals = ArrivalFeed::new(scenario, inputs, replication)?;
    let mut run = Recurrence::new(scenario, replication);
    match run.play(&mut arrivals) {
        Ok(()) => Ok(run.finish()),
        Err(OutOfRange) => Replication::new(scenario, inputs, replication, Keep::Statistics)?.run(),
    }
}

impl<'a> Recurrence<'a> {
    fn new(scenario: &'a Scenario, replication: u64) -> Self {
        let pipeline = Pipeline::new(scenario, replication);
        let mut outcome = Outcome::new(scenario);
        outcome.by_recurrence = true;
        outcome.transfers = pipeline
            .transfers
            .iter()
            .map(|(tier, operation)| (*tier, *operation, Histogram::default()))
            .collect();
        let (mut stations, mut work) = (Vec::new(), Vec::new());
        for stage in &scenario.system.stages {
            let Place::Slot { pool_class, kind } = stage.place else {
                stations.push(Station::Delay(Delay::default()));
                work.push(usize::MAX);
                continue;
            };
            let index = scenario.system.pools.iter().position(|pool| pool.pool_class == pool_class);
            let index = index.expect("a checked system has a pool for every stage");
            let pool = &scenario.system.pools[index];
            let servers = pool.count_initial * u32::from(pool.slots[kind.index()]);
            stations.push(Station::Servers(Servers::new(servers)));
            work.push(index);
        }
        let pools = work.clone();
        let work = BlockWork::new(scenario, work);
        let crossing = work.crossing();
        Self {
            scenario,
            pipeline,
            pools,
            busy: vec![0; stations.len()],
            records: Records::new(stations.len(), crossing.len()),
            stations,
            work,
            crossing,
            waits: Waits::default(),
            visits: Vec::new(),
            leaving: Vec::new(),
            lengths: Vec::new(),
            outcome,
            warmup: scenario.run.warmup.as_nanos(),
            deadline: scenario.objective.deadline.as_nanos(),
            last: 0,
        }
    }

    fn play(&mut self, arrivals: &mut ArrivalFeed) -> Result<(), OutOfRange> {
        let (mut times, mut slots) = ([0; LANES], [0; LANES]);
        let mut tag = 0;
        loop {
            let count = arrivals.take_times(&mut times);
            if count == 0 {
                break;
            }
            if self.records.len() + LANES >= JOBS_MAX {
                return Err(OutOfRange);
            }
            let (times, slots) = (&times[..count], &mut slots[..count]);
            self.enter(tag, times, slots);
            self.pass(0)?;
            let inside = self.records.used() as u64;
            self.outcome.in_system_max = self.outcome.in_system_max.max(inside);
            tag += count as u64;
        }
        self.outcome.events = tag;
        for stage in 0..self.stations.len() {
            self.visits.clear();
            self.stations[stage].drain(&mut self.visits);
            self.pass(stage + 1)?;
        }
        block::count_transfers(self.scenario, &self.pipeline, &mut self.outcome, tag);
        Ok(())
    }

    /// Takes a block of arrivals in; they stand at the first stage's door.
    fn enter(&mut self, tag: u64, times: &[u64], slots: &mut [u32]) {
        self.records.enter(times, slots);
        let unmeasured = times.partition_point(|at| *at < self.warmup);
        let jobs = (tag, &*slots, unmeasured);
        self.work.enter(&mut self.pipeline, &mut self.records, &mut self.outcome, jobs, &mut self.busy);
        self.outcome.jobs.arrived += (times.len() - unmeasured) as u64;
        for (window, stats) in self.scenario.windows.iter().zip(&mut self.outcome.windows) {
            let before = |limit: u64| times.partition_point(|at| *at < limit);
            let inside = before(window.to.as_nanos()).saturating_sub(before(window.from.as_nanos()));
            stats.jobs.arrived += inside as u64;
        }
        self.visits.clear();
        let visits = times.iter().zip(slots.iter());
        self.visits.extend(visits.map(|(at, slot)| Visit { at: *at, slot: *slot }));
    }

    /// Passes the jobs at the door of stage `from` on, as far as each comes.
    fn pass(&mut self, from: usize) -> Result<(), OutOfRange> {
        for stage in from..self.stations.len() {
            self.leaving.clear();
            let waiting = (self.warmup, &mut self.waits);
            self.stations[stage].serve(stage, &self.visits, &mut self.records, waiting, &mut self.leaving)?;
            let waits = &self.waits.measured;
            let stats = &mut self.outcome.stages[stage];
            stats.wait.record_all(waits);
            stats.wait_batches.record_all(waits);
            std::mem::swap(&mut self.visits, &mut self.leaving);
        }
        self.end();
        Ok(())
    }

    /// Counts the jobs that leave the last stage.
    fn end(&mut self) {
        let Some(last) = self.visits.last() else { return };
        self.last = self.last.max(last.at);
        self.lengths.clear();
        for &Visit { at, slot } in &self.visits {
            let arrived = self.records.row(slot)[0];
            if arrived >= self.warmup {
                self.lengths.push(at - arrived);
            }
            self.records.leave(slot);
        }
        for (word, &(span, from, to)) in self.crossing.iter().enumerate() {
            for &Visit { slot, .. } in &self.visits {
                if self.records.row(slot)[0] >= self.warmup {
                    let length = self.records.span(slot, (word, from, to));
                    self.outcome.spans[span].record(length);
                }
            }
        }
        let deadline = self.deadline;
        let outcome = &mut self.outcome;
        outcome.jobs.done += self.lengths.len() as u64;
        outcome.jobs.on_time += self.lengths.iter().map(|length| u64::from(*length <= deadline)).sum::<u64>();
        outcome.latency.record_all(&self.lengths);
        outcome.latency_batches.record_all(&self.lengths);
        if self.scenario.windows.is_empty() {
            return;
        }
        let marks = Marks { windows: &self.scenario.windows, deadline };
        for &Visit { at, slot } in &self.visits {
            let arrived = self.records.row(slot)[0];
            self.outcome.note_end_in_windows(marks, arrived, JobOutcome::Done, Some(at - arrived));
        }
    }

    fn finish(mut self) -> Outcome {
        let ended = self.last.max(self.scenario.run.horizon.as_nanos());
        self.outcome.ended = Duration::from_nanos(ended);
        for (index, pool) in self.scenario.system.pools.iter().enumerate() {
            let life = InstanceLife {
                instance: InstanceId(0),
                pool: PoolId(index as u16),
                requested: Instant::START,
                booted: Some(Instant::START),
                ready: Some(Instant::START),
                ended: Instant::from_nanos(ended),
                busy: Duration::ZERO,
                slots: pool.slots.iter().sum(),
                end: InstanceEnd::RunEnded,
            };
            for _ in 0..pool.count_initial {
                self.outcome.end_instance(self.scenario, &life);
            }
            self.outcome.pools[index].peak = pool.count_initial;
        }
        for (pool, busy) in self.pools.iter().zip(&self.busy) {
            if let Some(pool) = self.outcome.pools.get_mut(*pool) {
                pool.busy += Duration::from_nanos(*busy);
            }
        }
        let warm: Vec<u32> = self.scenario.pools.iter().map(|pool| pool.startup.warm_count).collect();
        let egress = self.scenario.network.egress_bytes_per_job.get() * self.outcome.events;
        let moved = Moved { between_regions: 0, egress };
        self.outcome.ledger = bill(self.scenario, &self.outcome, moved, &warm);
        self.outcome
    }
}
