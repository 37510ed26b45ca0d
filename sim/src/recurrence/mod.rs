//! The recurrence: first come, first served stations of known capacity without an event list (Kiefer and Wolfowitz,
//! Trans. AMS 78, 1955). A job that arrives at t starts at max(t, earliest time at which a server is free).
//!
//! It is chosen by itself where the scenario permits and gives the engine's answers: both use the same draws and whole
//! nanoseconds. Stations are chained without sorting, since the least free times leave a station in order of time.

mod permit;
mod station;

pub use permit::permits;

use policy::model::{InstanceId, Place, PoolId};
use policy::records::{InstanceEnd, InstanceLife, JobOutcome};
use policy::units::{Duration, Instant};
use scenarios::scenario::{Operation, Scenario};

use crate::bill::{Moved, bill};
use crate::inputs::Inputs;
use crate::outcome::Outcome;
use crate::replication::SimError;
use crate::stats::Histogram;
use crate::world::arrivals::ArrivalFeed;
use crate::world::{Pipeline, WorkKind};
use station::Station;

/// One run of the recurrence.
struct Recurrence<'a> {
    scenario: &'a Scenario,
    pipeline: Pipeline,
    stations: Vec<Station>,
    /// Arrival time by job slot.
    arrived: Vec<u64>,
    free: Vec<u32>,
    outcome: Outcome,
    warmup: u64,
    deadline: u64,
    last: u64,
    egress: u64,
}

/// Runs one replication by the recurrence; `permits` must hold.
///
/// # Errors
/// [`SimError`] when a trace cannot be played.
pub fn run(scenario: &Scenario, inputs: &Inputs, replication: u64) -> Result<Outcome, SimError> {
    let mut arrivals = ArrivalFeed::new(scenario, inputs, replication)?;
    let pipeline = Pipeline::new(scenario, replication);
    let mut outcome = Outcome::new(scenario);
    outcome.by_recurrence = true;
    outcome.transfers = pipeline
        .transfers
        .iter()
        .map(|(tier, operation)| (*tier, *operation, Histogram::default()))
        .collect();
    let stations = scenario.system.stages.iter().map(|stage| match stage.place {
        Place::Outside => Station::delay(),
        Place::Slot { pool_class, kind } => {
            let index = scenario.system.pools.iter().position(|pool| pool.pool_class == pool_class);
            let index = index.expect("a checked system has a pool for every stage");
            let pool = &scenario.system.pools[index];
            let servers = pool.count_initial * u32::from(pool.slots[kind.index()]);
            Station::servers(servers, index as u16, pool.speed_factor)
        }
    });
    let mut run = Recurrence {
        stations: stations.collect(),
        scenario,
        pipeline,
        arrived: Vec::new(),
        free: Vec::new(),
        outcome,
        warmup: scenario.run.warmup.as_nanos(),
        deadline: scenario.objective.deadline.as_nanos(),
        last: 0,
        egress: 0,
    };
    let mut tag = 0;
    while let Some(arrival) = arrivals.take() {
        let slot = run.enter(arrival.at, tag);
        tag += 1;
        run.pass(0, arrival.at, slot);
    }
    run.outcome.events = tag;
    run.drain();
    Ok(run.finish())
}

impl Recurrence<'_> {
    #[inline]
    fn enter(&mut self, at: u64, tag: u64) -> u32 {
        let slot = self.free.pop().unwrap_or(self.arrived.len() as u32);
        if slot as usize == self.arrived.len() {
            self.arrived.push(at);
        }
        self.arrived[slot as usize] = at;
        self.pipeline.enter(slot, tag, 0, at >= self.warmup);
        self.outcome.note_arrival(&self.scenario.windows, at, self.warmup);
        slot
    }

    /// Brings a job to stage `index` at `at`; jobs that left the stage before go on first. Past the last stage it ends.
    #[inline]
    fn pass(&mut self, index: usize, at: u64, slot: u32) {
        if index == self.stations.len() {
            return self.end(at, slot);
        }
        if self.stations[index].is_delay() {
            while let Some((left, before)) = self.stations[index].leave_before(at) {
                self.pass(index + 1, left, before);
            }
            let took = self.work(index, at, slot);
            self.note_stage(index, slot, 0, took);
            self.stations[index].hold(at + took, slot);
            return;
        }
        let (free, before) = self.stations[index].first_free();
        if let Some(before) = before {
            self.pass(index + 1, free, before);
        }
        let start = free.max(at);
        let took = self.work(index, start, slot);
        self.note_stage(index, slot, start - at, took);
        self.stations[index].take(start + took, slot, took);
    }

    #[inline]
    fn note_stage(&mut self, index: usize, slot: u32, waited: u64, took: u64) {
        if self.pipeline.progress[slot as usize].measured {
            let stats = &mut self.outcome.stages[index];
            stats.wait.record(waited);
            stats.wait_batches.record(waited as f64 * 1e-9);
            stats.service.record(took);
        }
    }

    /// Time of all steps of a stage that starts at `at`; transfers are counted and spans marked on the way.
    #[inline]
    fn work(&mut self, index: usize, at: u64, slot: u32) -> u64 {
        let mut now = at;
        let measured = self.pipeline.progress[slot as usize].measured;
        for step in 0..self.pipeline.stages[index].steps.len() {
            let row = &self.pipeline.stages[index].steps[step];
            let mut time = match row.draw {
                Some(draw) => self.pipeline.draw(slot, draw),
                None => row.constant_ns,
            };
            let marks = (!row.at_start.is_empty(), !row.at_end.is_empty());
            match row.kind {
                WorkKind::Compute => {
                    let mut factor = self.stations[index].factor();
                    if let Some(by_pool) = row.factor.get(self.stations[index].pool()) {
                        factor *= by_pool;
                    }
                    if factor != 1.0 {
                        time = Duration::from_nanos(time).scaled(factor).as_nanos();
                    }
                }
                WorkKind::Wait => {}
                WorkKind::Transfer { tier, operation, stat } => {
                    time += row.payload_ns;
                    let size = row.size.get();
                    let free = self.scenario.tiers[tier as usize].prices.free_bytes.get();
                    let used =
                        &mut self.outcome.tiers[tier as usize][usize::from(operation == Operation::Put)];
                    used.requests += 1;
                    used.bytes += size;
                    used.priced_bytes += size.saturating_sub(free);
                    if measured {
                        self.outcome.transfers[stat as usize].2.record(time);
                    }
                }
            }
            let is_compute = row.kind == WorkKind::Compute;
            if marks.0 {
                self.mark(index, step, slot, now, true);
            }
            now += time;
            if is_compute {
                self.pipeline.progress[slot as usize].compute_ns += time;
            }
            if marks.1 {
                self.mark(index, step, slot, now, false);
            }
        }
        now - at
    }

    fn mark(&mut self, stage: usize, step: usize, slot: u32, now: u64, at_start: bool) {
        let row = &self.pipeline.stages[stage].steps[step];
        let marks = if at_start { row.at_start.clone() } else { row.at_end.clone() };
        let compute = self.pipeline.progress[slot as usize].compute_ns;
        for (span, begins) in marks {
            let mark = self.pipeline.mark(slot, span);
            if begins {
                (mark.from, mark.compute_before) = (now, compute);
            } else if mark.from != u64::MAX {
                let (from, before) = (mark.from, mark.compute_before);
                let excludes = self.scenario.spans[span as usize].excludes_compute;
                let without = if excludes { compute - before } else { 0 };
                if self.pipeline.progress[slot as usize].measured {
                    self.outcome.spans[span as usize].record((now - from).saturating_sub(without));
                }
            }
        }
    }

    #[inline]
    fn end(&mut self, at: u64, slot: u32) {
        let arrived = self.arrived[slot as usize];
        self.last = self.last.max(at);
        self.egress += self.scenario.network.egress_bytes_per_job.get();
        let marks = crate::outcome::Marks {
            windows: &self.scenario.windows,
            warmup: self.warmup,
            deadline: self.deadline,
        };
        self.outcome.note_end(marks, arrived, JobOutcome::Done, Some(at - arrived));
        self.free.push(slot);
    }

    /// Lets every job that is still inside finish, stage by stage.
    fn drain(&mut self) {
        for index in 0..self.stations.len() {
            while let Some((left, before)) = self.stations[index].leave_before(u64::MAX) {
                self.pass(index + 1, left, before);
            }
        }
    }

    fn finish(mut self) -> Outcome {
        let ended = self.last.max(self.scenario.run.horizon.as_nanos());
        self.outcome.ended = Duration::from_nanos(ended);
        self.outcome.in_system_max = self.arrived.len() as u64;
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
        for station in self.stations.iter().filter(|station| !station.is_delay()) {
            self.outcome.pools[station.pool()].busy += Duration::from_nanos(station.busy_ns());
        }
        let warm: Vec<u32> = self.scenario.pools.iter().map(|pool| pool.startup.warm_count).collect();
        let moved = Moved { between_regions: 0, egress: self.egress };
        self.outcome.ledger = bill(self.scenario, &self.outcome, moved, &warm);
        self.outcome
    }
}
