//! One replication: the driver that jumps the clock from event to event and answers the dispatcher's outputs.
//!
//! It makes no choice that matters: what is started, launched or drained, and when, the dispatcher says.

mod clients;
mod machines;
mod work;

use policy::dispatch::{CancelScope, Dispatcher, Input, Output};
use policy::model::{InstanceId, JobId, PoolId, SystemError};
use policy::records::JobRow;
use policy::units::random::Stream;
use policy::units::{Duration, Instant};
use scenarios::scenario::{Operation, Scenario};
use scenarios::trace::TraceError;

use crate::bill::{Moved, bill};
use crate::inputs::Inputs;
use crate::kernel::{Calendar, EventClass, Sampler};
use crate::outcome::Outcome;
use crate::stats::{Histogram, Reservoir};
use crate::world::arrivals::ArrivalFeed;
use crate::world::{FleetWorld, Pipeline, ReaskTable, StorageWorld};

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
    /// Whether some output performed since the last clearing owns memory.
    holds_boxes: bool,
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
            holds_boxes: false,
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
            // Without jobs the fleet still shrinks, and is paid for, until the horizon.
            let is_idle =
                arrival == u64::MAX && self.dispatcher.jobs_in_system() == 0 && self.reasks.len() == 0;
            if is_idle && event.min(timer) >= horizon {
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
        if self.holds_boxes {
            self.outputs.clear();
            self.holds_boxes = false;
        } else {
            // SAFETY: a shorter length is always valid; no output performed since the last clearing owns memory, so
            // nothing is leaked by not dropping them one by one.
            unsafe { self.outputs.set_len(0) };
        }
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
                self.holds_boxes = true;
                let row = self.outcome.end_instance(self.scenario, life);
                if self.keep == Keep::Records {
                    self.outcome.records.instances.push(row);
                }
            }
            Output::Decided(ref row) => {
                self.holds_boxes = true;
                if self.keep == Keep::Records && self.outcome.records.decisions.len() < DECISION_ROWS_MAX {
                    self.outcome.records.decisions.push(row.as_ref().clone());
                }
            }
            Output::Minute(ref row) => {
                self.holds_boxes = true;
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
}

/// What is left of a measured rate after `elapsed` nanoseconds.
fn decay(elapsed: u64) -> f64 {
    policy::units::math::fast_exp(-(elapsed as f64) / PROBE_WINDOW_NS)
}
