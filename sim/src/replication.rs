//! One replication: the driver that jumps the clock from event to event and answers the dispatcher's outputs.
//!
//! It makes no choice that matters: what is started, launched or drained, and when, the dispatcher says.

use policy::dispatch::{CancelScope, Dispatcher, Ended, Input, Output, StageResult, Started};
use policy::model::{ClassId, InstanceId, JobId, Lease, PoolId, RegionId, SystemError};
use policy::records::{JobOutcome, JobRow};
use policy::units::random::{Stream, mix};
use policy::units::{Duration, Instant};
use scenarios::scenario::{Operation, Scenario};
use scenarios::trace::TraceError;

use crate::bill::{Moved, bill};
use crate::inputs::Inputs;
use crate::kernel::{Calendar, EventClass, Sampler};
use crate::outcome::Outcome;
use crate::stats::{Histogram, Reservoir};
use crate::world::arrivals::ArrivalFeed;
use crate::world::{FleetWorld, LaunchPlan, Pipeline, ReaskTable, Reasking, StorageWorld, WorkKind};

/// Simulated time after the horizon at which what is still inside is cut off.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 3600);

/// Job rows kept; beyond, a uniform sample of this size stands for all.
pub const JOB_ROWS_MAX: usize = 200_000;

/// Decision rows kept; later ones are dropped and the drop is counted in none of the statistics.
const DECISION_ROWS_MAX: usize = 100_000;

/// Time constant with which a region's rate of refused probes is measured.
const PROBE_WINDOW_NS: f64 = 5e9;

/// Marks the numbers of jobs that were asked for again.
const REASKED: u64 = 1 << 63;

/// Why a replication could not run.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The system is impossible.
    #[error(transparent)]
    System(#[from] SystemError),
    /// A trace cannot be read or played.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A broken invariant.
    #[error(transparent)]
    Violation(#[from] policy::dispatch::Violation),
}

/// Whether rows are kept beside the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Statistics only.
    Statistics,
    /// Minutes, for charts.
    Minutes,
    /// All record rows.
    Records,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    StepDone { slot: u32, token: u32 },
    Booted { instance: u32, epoch: u32 },
    Ready { instance: u32, epoch: u32 },
    Refused { instance: u32, epoch: u32 },
    Taken { instance: u32, epoch: u32, notice_ms: u32 },
    Gone { instance: u32, epoch: u32 },
    Shock { group: u32 },
    Availability { pool: u32 },
    Patience { slot: u32, generation: u32 },
    Reask { client: u32 },
}

/// One replication.
pub struct Replication<'a> {
    scenario: &'a Scenario,
    replication: u64,
    dispatcher: Dispatcher,
    outputs: Vec<Output>,
    calendar: Calendar<Event>,
    arrivals: ArrivalFeed,
    pipeline: Pipeline,
    storage: StorageWorld,
    fleet: FleetWorld,
    reasks: ReaskTable,
    patience: Option<Sampler>,
    reask_delay: Option<Sampler>,
    reask_chance: Stream,
    failure_chance: Stream,
    external: Vec<Option<Sampler>>,
    probes: Vec<ProbeRate>,
    outcome: Outcome,
    moved: Moved,
    next_tag: u64,
    now: u64,
    initial: bool,
    warmup: u64,
    deadline: u64,
    keep: Keep,
    sample: Reservoir<JobRow>,
    sample_words: u64,
    check_every: Option<u64>,
    /// Whether clients or regions are far enough apart for the network to count.
    network_ns: Vec<u64>,
}

/// A region's rate of refused probes, decaying.
#[derive(Clone, Copy, Debug, Default)]
struct ProbeRate {
    weight: f64,
    at: u64,
}

impl<'a> Replication<'a> {
    /// Sets up replication number `replication`.
    ///
    /// # Errors
    /// [`SimError`] when the system is impossible or a trace cannot be played.
    pub fn new(
        scenario: &'a Scenario,
        inputs: &Inputs,
        replication: u64,
        keep: Keep,
    ) -> Result<Self, SimError> {
        let stream = |name: &str| Stream::new(scenario.run.seed, replication, name);
        let mut outputs = Vec::with_capacity(64);
        let dispatcher = Dispatcher::new(scenario.system.clone(), stream("dispatcher"), &mut outputs)?;
        let reask = scenario.clients.reask.as_ref();
        let external = scenario.pools.iter().zip(&scenario.system.pools);
        let pipeline = Pipeline::new(scenario, replication);
        let mut outcome = Outcome::new(scenario);
        outcome.transfers = pipeline
            .transfers
            .iter()
            .map(|(tier, operation)| (*tier, *operation, Histogram::default()))
            .collect();
        let regions = &scenario.system.regions;
        let trips = scenario.network.round_trips_per_job;
        let pairs = regions.iter().flat_map(|from| from.round_trip.iter());
        Ok(Self {
            arrivals: ArrivalFeed::new(scenario, inputs, replication)?,
            network_ns: pairs.map(|trip| trip.scaled(trips).as_nanos()).collect(),
            storage: StorageWorld::new(scenario, replication),
            fleet: FleetWorld::new(scenario, inputs, replication),
            patience: scenario.clients.patience.as_ref().map(|law| Sampler::new(law, stream("patience"))),
            reask_delay: reask.map(|reask| Sampler::new(&reask.delay, stream("reask/delay"))),
            reask_chance: stream("reask/chance"),
            failure_chance: stream("failure"),
            external: external
                .map(|(world, pool)| {
                    let law = world.external_time.as_ref()?;
                    Some(Sampler::new(law, stream(&format!("external/{}", pool.name))))
                })
                .collect(),
            probes: vec![ProbeRate::default(); regions.len()],
            outcome,
            moved: Moved::default(),
            next_tag: 0,
            now: 0,
            initial: true,
            warmup: scenario.run.warmup.as_nanos(),
            deadline: scenario.objective.deadline.as_nanos(),
            keep,
            sample: Reservoir::new(JOB_ROWS_MAX),
            sample_words: 0,
            check_every: None,
            calendar: Calendar::new(),
            reasks: ReaskTable::default(),
            dispatcher,
            outputs,
            pipeline,
            scenario,
            replication,
        })
    }

    /// Checks every invariant each `events` events; for tests.
    #[must_use]
    pub fn checked(mut self, events: u64) -> Self {
        self.check_every = Some(events.max(1));
        self
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// [`SimError::Violation`] when a checked run breaks an invariant.
    pub fn run(mut self) -> Result<Outcome, SimError> {
        self.start();
        let horizon = self.scenario.run.horizon.as_nanos();
        let cut_off = horizon.saturating_add(DRAIN_MAX.as_nanos());
        loop {
            let timer = self.dispatcher.poll_timeout().as_nanos();
            let arrival = self.arrivals.next_at;
            let (event, class) = self.calendar.peek().unwrap_or((u64::MAX, EventClass::Patience));
            if arrival == u64::MAX && self.dispatcher.jobs_in_system() == 0 && self.reasks.len() == 0 {
                break;
            }
            if event <= arrival
                && event <= timer
                && (event < arrival || class < EventClass::Arrival)
                && (event < timer || class < EventClass::Timer)
            {
                if event > cut_off {
                    break;
                }
                self.step_event();
            } else if arrival <= timer {
                self.now = arrival;
                self.arrive();
            } else if timer <= event {
                if timer > cut_off {
                    break;
                }
                self.now = timer;
                self.feed(Input::TimeReached);
            } else {
                if event > cut_off {
                    break;
                }
                self.step_event();
            }
            self.outcome.events += 1;
            if self.outcome.events & 0xFF == 0 {
                self.note_population();
            }
            if self.check_every.is_some_and(|every| self.outcome.events.is_multiple_of(every)) {
                self.dispatcher.check()?;
            }
        }
        self.finish(horizon)
    }

    fn note_population(&mut self) {
        let inside = self.dispatcher.jobs_in_system() as u64;
        self.outcome.in_system_max = self.outcome.in_system_max.max(inside);
    }

    fn start(&mut self) {
        self.drain();
        self.initial = false;
        for group in 0..self.fleet.shock_groups() {
            self.schedule_shock(group);
        }
        for pool in 0..self.scenario.pools.len() {
            self.apply_availability(PoolId(pool as u16));
        }
        self.feed(Input::TimeReached);
    }

    fn finish(mut self, horizon: u64) -> Result<Outcome, SimError> {
        self.note_population();
        let left: Vec<JobId> = self.dispatcher.live_jobs();
        self.outcome.unfinished = left.len() as u64;
        for job in left {
            self.feed(Input::JobCancelled { job, scope: CancelScope::Always });
        }
        // Machines are paid for until the horizon, even when the last job left before.
        self.now = self.now.max(horizon);
        let now = Instant::from_nanos(self.now);
        self.dispatcher.close(now, &mut self.outputs);
        self.drain();
        self.dispatcher.check()?;
        self.outcome.ended = Duration::from_nanos(self.now);
        self.outcome.probes_refused = self.dispatcher.totals().probes_refused;
        for tier in 0..self.scenario.tiers.len() {
            self.outcome.tiers[tier] =
                [self.storage.used(tier, Operation::Get), self.storage.used(tier, Operation::Put)];
        }
        let pools = (0..self.scenario.pools.len()).map(|pool| PoolId(pool as u16));
        for pool in pools.clone() {
            self.outcome.pools[pool.index()].peak = self.fleet.peak(pool);
        }
        let warm: Vec<u32> = pools.map(|pool| self.fleet.warm_count(pool)).collect();
        self.outcome.ledger = bill(self.scenario, &self.outcome, self.moved, &warm);
        if self.keep == Keep::Records {
            let seen = self.sample.seen();
            let mut rows = self.sample.into_items();
            let weight = if rows.is_empty() { 1.0 } else { seen as f64 / rows.len() as f64 };
            rows.iter_mut().for_each(|row| row.weight = weight);
            rows.sort_by(|a, b| a.arrived_s.total_cmp(&b.arrived_s).then(a.job.cmp(&b.job)));
            self.outcome.records.jobs = rows;
        }
        Ok(self.outcome)
    }

    #[inline]
    fn feed(&mut self, input: Input) {
        self.dispatcher.handle_input(Instant::from_nanos(self.now), input, &mut self.outputs);
        self.drain();
    }

    /// Answers everything that follows from the last input.
    #[inline]
    fn drain(&mut self) {
        // By index: performing one output may append others, and the buffer stays where it is.
        let mut next = 0;
        while next < self.outputs.len() {
            self.perform(next);
            next += 1;
        }
        self.outputs.clear();
    }

    #[inline]
    fn perform(&mut self, index: usize) {
        match self.outputs[index] {
            Output::Started(started) => self.started(&started),
            Output::Ended(ended) => self.ended(&ended),
            Output::Accepted { job, tag } => self.accepted(job, tag),
            Output::Rejected { tag, class, region, .. } => self.rejected(tag, class, region),
            Output::Revoked { lease, .. } => self.revoked(lease),
            Output::ProbeRefused { cell, .. } => self.probe_refused(cell),
            Output::Launch { instance, pool } => self.launch(instance, pool),
            Output::Terminate { instance, pool } => {
                self.fleet.gone(instance, pool);
                self.input_now(Input::InstanceGone { instance });
            }
            Output::InstanceEnded(ref life) => {
                let row = self.outcome.end_instance(self.scenario, life);
                if self.keep == Keep::Records {
                    self.outcome.records.instances.push(row);
                }
            }
            Output::Decided(ref row) => {
                if self.keep == Keep::Records && self.outcome.records.decisions.len() < DECISION_ROWS_MAX {
                    self.outcome.records.decisions.push(row.as_ref().clone());
                }
            }
            Output::Minute(ref row) => {
                if self.keep != Keep::Statistics {
                    self.outcome.records.minutes.push(row.as_ref().clone());
                }
            }
        }
    }

    /// An input in answer to an output; what follows from it is drained by the loop under way.
    fn input_now(&mut self, input: Input) {
        self.dispatcher.handle_input(Instant::from_nanos(self.now), input, &mut self.outputs);
    }

    #[inline]
    fn arrive(&mut self) {
        let Some(arrival) = self.arrivals.take() else { return };
        let tag = self.next_tag;
        self.next_tag += 1;
        self.count_arrival();
        self.feed(Input::JobArrived { tag, class: arrival.class, region: arrival.region });
    }

    #[inline]
    fn count_arrival(&mut self) {
        if self.now >= self.warmup {
            self.outcome.jobs.arrived += 1;
        }
        for (window, stats) in self.scenario.windows.iter().zip(&mut self.outcome.windows) {
            if (window.from.as_nanos()..window.to.as_nanos()).contains(&self.now) {
                stats.jobs.arrived += 1;
            }
        }
    }

    #[inline]
    fn accepted(&mut self, job: JobId, tag: u64) {
        let asked = if tag & REASKED == 0 { 0 } else { (tag >> 56 & 0x7F) as u16 };
        self.pipeline.enter(job.slot, tag, asked, self.now >= self.warmup);
        if let Some(patience) = &mut self.patience {
            let limit = if asked == 0 { patience.at(tag) } else { patience.single(tag) };
            let event = Event::Patience { slot: job.slot, generation: job.generation };
            self.calendar.push(self.now.saturating_add(limit), EventClass::Patience, event);
        }
    }

    #[inline]
    fn started(&mut self, started: &Started) {
        let slot = started.lease.slot;
        let stage = started.stage.index();
        let stats = &mut self.outcome.stages[stage];
        let progress = &mut self.pipeline.progress[slot as usize];
        if progress.measured {
            stats.wait.record(started.waited.as_nanos());
            stats.wait_batches.record(started.waited.as_secs_f64());
        }
        stats.retries += u64::from(started.delivery > 1);
        if started.delivery == 1 {
            progress.saved_step = u16::MAX;
        }
        progress.token = started.lease.token;
        progress.stage = stage as u16;
        progress.step = 0;
        progress.delivery = started.delivery;
        progress.pool = started.pool.map_or(u16::MAX, |pool| pool.0);
        progress.started = self.now;
        if let (Some(pool), None) = (started.pool, started.instance) {
            return self.call_external(slot, pool, started);
        }
        self.pipeline.progress[slot as usize].factor = self.time_factor(started) as f32;
        self.begin_step(slot);
    }

    /// How much longer than the reference compute steps take: instance type, quality, neighbours, probes.
    #[inline]
    fn time_factor(&self, started: &Started) -> f64 {
        let mut factor = 1.0;
        if let Some(pool) = started.pool {
            factor = self.scenario.system.pools[pool.index()].speed_factor;
            let slowdown = &self.pipeline.stages[started.stage.index()].slowdown;
            if let Some(last) = slowdown.last() {
                factor *= slowdown.get(started.busy as usize - 1).unwrap_or(last);
            }
        }
        if self.scenario.system.stages[started.stage.index()].has_quality {
            factor *= self.scenario.system.qualities[started.quality.index()].service_factor;
        }
        let cost = self.scenario.network.probe_cost;
        if cost > Duration::ZERO && started.pool.is_some() {
            factor *= 1.0 + self.probe_load(started.cell, cost);
        }
        factor
    }

    fn call_external(&mut self, slot: u32, pool: PoolId, started: &Started) {
        self.outcome.pools[pool.index()].calls += 1;
        let key = mix(started.tag).wrapping_add(started.stage.index() as u64);
        let sampler = self.external[pool.index()].as_ref();
        let time = sampler.map_or(0, |sampler| sampler.single(key));
        self.pipeline.progress[slot as usize].step = u16::MAX;
        let event = Event::StepDone { slot, token: started.lease.token };
        self.calendar.push(self.now.saturating_add(time), EventClass::Completion, event);
    }

    /// Begins the present step, and those after it that take no time.
    #[inline]
    fn begin_step(&mut self, slot: u32) {
        loop {
            let progress = &self.pipeline.progress[slot as usize];
            let token = progress.token;
            let stage = &self.pipeline.stages[progress.stage as usize];
            let Some(step) = stage.steps.get(progress.step as usize) else {
                return self.finish_stage(slot);
            };
            let mut time = match step.draw {
                Some(draw) => self.pipeline.draw(slot, draw),
                None => step.constant_ns,
            };
            let has_marks = !step.at_start.is_empty();
            match step.kind {
                WorkKind::Compute => {
                    if progress.saved_step == progress.step {
                        time = time.saturating_sub(progress.saved_ns);
                    }
                    let mut factor = f64::from(progress.factor);
                    if let Some(by_pool) = step.factor.get(progress.pool as usize) {
                        factor *= by_pool;
                    }
                    if factor != 1.0 {
                        time = Duration::from_nanos(time).scaled(factor).as_nanos();
                    }
                }
                WorkKind::Wait => {}
                WorkKind::Transfer { tier, operation, .. } => {
                    let size = step.size;
                    time += step.payload_ns;
                    time += self.storage.request(self.now, tier as usize, operation, size);
                }
            }
            if has_marks {
                self.pass_marks(slot, true);
            }
            self.pipeline.progress[slot as usize].step_started = self.now;
            if time > 0 {
                let event = Event::StepDone { slot, token };
                self.calendar.push(self.now.saturating_add(time), EventClass::Completion, event);
                return;
            }
            self.end_step(slot);
        }
    }

    /// Notes the end of the present step and moves to the next.
    #[inline]
    fn end_step(&mut self, slot: u32) {
        let progress = &mut self.pipeline.progress[slot as usize];
        let step = &self.pipeline.stages[progress.stage as usize].steps[progress.step as usize];
        let took = self.now - progress.step_started;
        match step.kind {
            WorkKind::Compute => progress.compute_ns += took,
            WorkKind::Transfer { stat, .. } if progress.measured => {
                self.outcome.transfers[stat as usize].2.record(took);
            }
            WorkKind::Transfer { .. } | WorkKind::Wait => {}
        }
        if !step.at_end.is_empty() {
            self.pass_marks(slot, false);
        }
        self.pipeline.progress[slot as usize].step += 1;
    }

    fn pass_marks(&mut self, slot: u32, at_start: bool) {
        let progress = self.pipeline.progress[slot as usize];
        let step = &self.pipeline.stages[progress.stage as usize].steps[progress.step as usize];
        let count = if at_start { step.at_start.len() } else { step.at_end.len() };
        for index in 0..count {
            let step = &self.pipeline.stages[progress.stage as usize].steps[progress.step as usize];
            let (span, begins) = if at_start { step.at_start[index] } else { step.at_end[index] };
            let now = self.now;
            let mark = self.pipeline.mark(slot, span);
            if begins {
                // A repeated attempt does not start the span again: the client waited through the first.
                if mark.from == u64::MAX {
                    (mark.from, mark.compute_before) = (now, progress.compute_ns);
                }
            } else if mark.from != u64::MAX {
                let (from, before) = (mark.from, mark.compute_before);
                let compute = if self.scenario.spans[span as usize].excludes_compute {
                    progress.compute_ns - before
                } else {
                    0
                };
                if progress.measured {
                    self.outcome.spans[span as usize].record((now - from).saturating_sub(compute));
                }
            }
        }
    }

    fn finish_stage(&mut self, slot: u32) {
        let progress = &self.pipeline.progress[slot as usize];
        let failure = self.pipeline.stages[progress.stage as usize].failure;
        let mut result = StageResult::Done;
        if failure > 0.0 {
            let attempt = u64::from(progress.stage) << 32 | u64::from(progress.delivery);
            if self.failure_chance.child(progress.tag).unit(attempt) < failure {
                result = StageResult::Failed;
            }
        }
        if progress.measured && result == StageResult::Done {
            self.outcome.stages[progress.stage as usize].service.record(self.now - progress.started);
        }
        let lease = Lease { slot, token: progress.token };
        self.input_now(Input::StageFinished { lease, result });
    }

    fn step_event(&mut self) {
        let Some((at, event)) = self.calendar.pop() else { return };
        self.now = at;
        match event {
            Event::StepDone { slot, token } => {
                let progress = &self.pipeline.progress[slot as usize];
                if progress.token != token {
                    return;
                }
                if progress.step == u16::MAX {
                    self.finish_stage(slot);
                } else {
                    self.end_step(slot);
                    self.begin_step(slot);
                }
            }
            Event::Patience { slot, generation } => {
                let job = JobId { slot, generation };
                self.input_now(Input::JobCancelled { job, scope: CancelScope::BeforeService });
            }
            Event::Booted { instance, epoch } => {
                self.if_current(instance, epoch, |instance| Input::InstanceBooted { instance });
            }
            Event::Ready { instance, epoch } => {
                self.if_current(instance, epoch, |instance| Input::InstanceReady { instance });
            }
            Event::Refused { instance, epoch } => {
                self.if_current(instance, epoch, |instance| Input::LaunchFailed { instance });
            }
            Event::Taken { instance, epoch, notice_ms } => {
                if self.fleet.epoch(InstanceId(instance)) == epoch {
                    self.take_instance(InstanceId(instance), u64::from(notice_ms) * 1_000_000);
                }
            }
            Event::Gone { instance, epoch } => {
                if self.fleet.epoch(InstanceId(instance)) == epoch {
                    self.lose_instance(InstanceId(instance));
                }
            }
            Event::Shock { group } => {
                let taken = self.fleet.shock(Instant::from_nanos(self.now), group as usize);
                for (instance, _, notice) in taken {
                    self.take_instance(instance, notice);
                }
                self.schedule_shock(group as usize);
            }
            Event::Availability { pool } => self.apply_availability(PoolId(pool as u16)),
            Event::Reask { client } => self.ask_again(client),
        }
        self.drain();
    }

    fn if_current(&mut self, instance: u32, epoch: u32, input: impl Fn(InstanceId) -> Input) {
        let id = InstanceId(instance);
        if self.fleet.epoch(id) == epoch {
            self.input_now(input(id));
        }
    }

    fn launch(&mut self, instance: InstanceId, pool: PoolId) {
        let plan = self.fleet.launch(Instant::from_nanos(self.now), instance, pool, self.initial);
        let epoch = self.fleet.epoch(instance);
        let id = instance.0;
        let mut at = |after: u64, event| {
            self.calendar.push(self.now.saturating_add(after), EventClass::Fleet, event);
        };
        match plan {
            LaunchPlan::Refused { after } => at(after, Event::Refused { instance: id, epoch }),
            LaunchPlan::Starts { booted, ready, lost } => {
                if let Some(loss) = lost {
                    let notice_ms = (loss.notice / 1_000_000).min(u64::from(u32::MAX)) as u32;
                    at(loss.after, Event::Taken { instance: id, epoch, notice_ms });
                }
                if self.initial {
                    self.input_now(Input::InstanceReady { instance });
                } else {
                    at(booted, Event::Booted { instance: id, epoch });
                    at(ready, Event::Ready { instance: id, epoch });
                }
            }
        }
    }

    /// The provider takes an instance, after `notice` nanoseconds of warning.
    fn take_instance(&mut self, instance: InstanceId, notice: u64) {
        if !self.fleet.doom(instance) {
            return;
        }
        if notice == 0 {
            return self.lose_instance(instance);
        }
        let gone_at = self.now.saturating_add(notice);
        let event = Event::Gone { instance: instance.0, epoch: self.fleet.epoch(instance) };
        self.calendar.push(gone_at, EventClass::Fleet, event);
        self.input_now(Input::InterruptionNotice { instance, gone_at: Instant::from_nanos(gone_at) });
    }

    fn lose_instance(&mut self, instance: InstanceId) {
        if let Some(pool) = self.dispatcher.pool_of(instance) {
            self.fleet.gone(instance, pool);
            self.input_now(Input::InstanceLost { instance });
        }
    }

    fn schedule_shock(&mut self, group: usize) {
        if let Some(after) = self.fleet.next_shock(group) {
            let event = Event::Shock { group: group as u32 };
            self.calendar.push(self.now.saturating_add(after), EventClass::Market, event);
        }
    }

    fn apply_availability(&mut self, pool: PoolId) {
        let (taken, notice) = self.fleet.change(self.now, pool);
        for instance in taken {
            self.take_instance(instance, notice);
        }
        if let Some(at) = self.fleet.next_change(self.now, pool) {
            self.calendar.push(at, EventClass::Market, Event::Availability { pool: u32::from(pool.0) });
        }
    }

    /// Work stops; what a checkpoint saved is kept for the next attempt.
    fn revoked(&mut self, lease: Lease) {
        let progress = &mut self.pipeline.progress[lease.slot as usize];
        if progress.token != lease.token {
            return;
        }
        let stage = &self.pipeline.stages[progress.stage as usize];
        if let (Some(every), Some(step)) = (stage.checkpoint, stage.steps.get(progress.step as usize))
            && step.kind == WorkKind::Compute
            && every > Duration::ZERO
        {
            let pool_factor = step.factor.get(progress.pool as usize).copied().unwrap_or(1.0);
            let worked =
                (self.now - progress.step_started) as f64 / (f64::from(progress.factor) * pool_factor);
            let saved = worked as u64 / every.as_nanos() * every.as_nanos();
            let before = if progress.saved_step == progress.step { progress.saved_ns } else { 0 };
            progress.saved_step = progress.step;
            progress.saved_ns = before + saved;
        }
        progress.token = lease.token.wrapping_sub(1);
    }

    fn probe_refused(&mut self, cell: RegionId) {
        let now = self.now;
        let rate = &mut self.probes[cell.index()];
        rate.weight = rate.weight * decay(now - rate.at) + 1.0;
        rate.at = now;
    }

    /// Share of a region's slot-time that refused probes cost.
    fn probe_load(&self, cell: RegionId, cost: Duration) -> f64 {
        let rate = &self.probes[cell.index()];
        let per_ns = rate.weight * decay(self.now - rate.at) / PROBE_WINDOW_NS;
        let slots = self.dispatcher.ready_slots(cell).max(1);
        per_ns * cost.as_nanos() as f64 / f64::from(slots)
    }

    fn rejected(&mut self, tag: u64, class: ClassId, region: RegionId) {
        let asked = if tag & REASKED == 0 { 0 } else { (tag >> 56 & 0x7F) as u16 };
        self.count_end(self.now, JobOutcome::Rejected, None);
        if self.keep == Keep::Records {
            let at = Instant::from_nanos(self.now).as_secs_f64();
            self.sample_row(JobRow {
                job: tag,
                class: self.scenario.system.classes[class.index()].name.clone(),
                region: crate::outcome::group_region(&self.scenario.system, region),
                arrived_s: at,
                ended_s: at,
                outcome: JobOutcome::Rejected,
                wait_s: 0.0,
                service_s: 0.0,
                deliveries: 0,
                quality: String::new(),
                weight: 1.0,
            });
        }
        self.think_again(tag, class, region, asked);
    }

    #[inline]
    fn ended(&mut self, ended: &Ended) {
        let arrived = ended.arrived.as_nanos();
        let mut latency = self.now - arrived;
        let done = ended.outcome == JobOutcome::Done;
        let regions = self.scenario.system.regions.len();
        if self.dispatcher.is_regional() {
            latency += self.network_ns[ended.region.index() * regions + ended.cell.index()];
            if ended.region != ended.cell {
                self.outcome.served_away += u64::from(done);
                self.moved.between_regions += self.scenario.network.bytes_per_job.get();
            }
        }
        self.count_end(arrived, ended.outcome, done.then_some(latency));
        if done {
            self.moved.egress += self.scenario.network.egress_bytes_per_job.get();
        }
        if self.keep == Keep::Records {
            self.keep_row(ended);
        }
        if !done {
            let asked = self.pipeline.progress[ended.job.slot as usize].asked;
            self.think_again(ended.tag, ended.class, ended.region, asked);
        }
    }

    #[inline]
    fn count_end(&mut self, arrived: u64, outcome: JobOutcome, latency: Option<u64>) {
        let on_time = latency.is_some_and(|latency| latency <= self.deadline);
        if arrived >= self.warmup {
            self.outcome.jobs.count(outcome, on_time);
            if let Some(latency) = latency {
                self.outcome.latency.record(latency);
                self.outcome.latency_batches.record(latency as f64 * 1e-9);
            }
        }
        for (window, stats) in self.scenario.windows.iter().zip(&mut self.outcome.windows) {
            if (window.from.as_nanos()..window.to.as_nanos()).contains(&arrived) {
                stats.jobs.count(outcome, on_time);
                if let Some(latency) = latency {
                    stats.latency.record(latency);
                }
            }
        }
    }

    fn keep_row(&mut self, ended: &Ended) {
        let system = &self.scenario.system;
        let row = JobRow {
            job: ended.tag,
            class: system.classes[ended.class.index()].name.clone(),
            region: crate::outcome::group_region(system, ended.region),
            arrived_s: ended.arrived.as_secs_f64(),
            ended_s: Instant::from_nanos(self.now).as_secs_f64(),
            outcome: ended.outcome,
            wait_s: ended.waited.as_secs_f64(),
            service_s: ended.served.as_secs_f64(),
            deliveries: u32::from(ended.deliveries),
            quality: system.qualities[ended.quality.index()].name.clone(),
            weight: 1.0,
        };
        self.sample_row(row);
    }

    fn sample_row(&mut self, row: JobRow) {
        let stream = Stream::new(self.scenario.run.seed, self.replication, "records/sample");
        self.sample_words += 1;
        self.sample.offer(row, stream.bits(self.sample_words));
    }

    /// A client without a result asks again, perhaps.
    fn think_again(&mut self, tag: u64, class: ClassId, region: RegionId, asked: u16) {
        let Some(reask) = &self.scenario.clients.reask else { return };
        if u32::from(asked) >= reask.times_max.min(127)
            || self.reask_chance.unit(tag) >= reask.probability.get()
        {
            return;
        }
        let delay = self.reask_delay.as_ref().map_or(0, |law| law.single(tag));
        let at = self.now.saturating_add(delay);
        if at >= self.scenario.run.horizon.as_nanos() {
            return;
        }
        let client = self.reasks.insert(Reasking { tag, class, region, asked: asked + 1 });
        self.calendar.push(at, EventClass::Market, Event::Reask { client });
    }

    fn ask_again(&mut self, client: u32) {
        let Reasking { tag, class, region, asked } = self.reasks.remove(client);
        self.outcome.asked_again += 1;
        self.count_arrival();
        let number = mix(tag ^ u64::from(asked)) & ((1 << 56) - 1);
        let tag = REASKED | u64::from(asked & 0x7F) << 56 | number;
        self.input_now(Input::JobArrived { tag, class, region });
    }
}

/// What is left of a measured rate after `elapsed` nanoseconds.
fn decay(elapsed: u64) -> f64 {
    policy::units::math::fast_exp(-(elapsed as f64) / PROBE_WINDOW_NS)
}
