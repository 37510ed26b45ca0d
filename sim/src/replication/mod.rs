//! One replication: the driver that jumps the clock from event to event and answers the dispatcher's outputs.
//!
//! It makes no choice that matters: what is started, launched or drained, and when, the dispatcher says.

mod clients;
mod machines;
mod tapes;
mod work;
mod world;

use policy::dispatch::{CancelScope, Dispatcher, Input};
use policy::model::{InstanceId, JobId, PoolId, RegionId, SystemError};
use policy::units::random::Stream;
use policy::units::{Duration, Instant};
use scenarios::scenario::Scenario;
use scenarios::trace::TraceError;

use crate::bill::bill;
use crate::inputs::Inputs;
use crate::kernel::EventClass;
use crate::outcome::Outcome;
use crate::world::arrivals::ArrivalFeed;
use world::World;

/// Simulated time after the horizon at which what is still inside is cut off.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 3600);

/// Job rows kept; beyond, a uniform sample of this size stands for all.
pub const JOB_ROWS_MAX: usize = 200_000;

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
    dispatcher: Dispatcher,
    arrivals: ArrivalFeed,
    world: World<'a>,
    next_tag: u64,
    /// Number of events between two checks of the invariants; 0 where nobody asked.
    check_every: u64,
    /// The number of events at which they are checked next.
    check_at: u64,
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
        let chance = Stream::new(scenario.run.seed, replication, "dispatcher");
        let mut world = World::new(scenario, inputs, replication, keep);
        let dispatcher = Dispatcher::new(scenario.system.clone(), chance, &mut world)?;
        world.is_regional = dispatcher.is_regional();
        let arrivals = ArrivalFeed::new(scenario, inputs, replication)?;
        Ok(Self { dispatcher, arrivals, world, next_tag: 0, check_every: 0, check_at: 0 })
    }

    /// Checks every invariant each `events` events; for tests.
    #[must_use]
    pub fn checked(mut self, events: u64) -> Self {
        self.check_every = events.max(1);
        self.check_at = self.check_every;
        self
    }

    /// Gives every step an event of its own, also where one event at the end of a stage would do.
    #[must_use]
    pub fn stepwise(mut self) -> Self {
        self.world.pipeline.unchain();
        self
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// [`SimError::Violation`] when a checked run breaks an invariant.
    pub fn run(mut self) -> Result<Outcome, SimError> {
        self.start();
        let horizon = self.world.scenario.run.horizon.as_nanos();
        let cut_off = horizon.saturating_add(DRAIN_MAX.as_nanos());
        loop {
            let timer = self.dispatcher.poll_timeout().as_nanos();
            let arrival = self.arrivals.next_at;
            let (event, class) = self.world.calendar.peek().unwrap_or((u64::MAX, EventClass::Patience));
            // Without jobs the fleet still shrinks, and is paid for, until the horizon.
            if arrival == u64::MAX && event.min(timer) >= horizon && self.is_empty() {
                break;
            }
            let (other, other_class) =
                if arrival <= timer { (arrival, EventClass::Arrival) } else { (timer, EventClass::Timer) };
            if event < other || event == other && class < other_class {
                if event > cut_off {
                    break;
                }
                self.step_event();
            } else if arrival <= timer {
                self.world.now = arrival;
                self.arrive();
            } else {
                if timer > cut_off {
                    break;
                }
                self.world.now = timer;
                self.feed_fleet(Input::TimeReached);
            }
            self.world.outcome.events += 1;
            if self.world.outcome.events == self.check_at {
                self.check_at += self.check_every;
                self.dispatcher.check()?;
            }
        }
        self.finish(horizon)
    }

    /// Whether no job is inside and no client will ask again.
    fn is_empty(&self) -> bool {
        self.dispatcher.jobs_in_system() == 0 && self.world.reasks.len() == 0
    }

    fn start(&mut self) {
        self.feed_answers();
        self.world.initial = false;
        for group in 0..self.world.fleet.shock_groups() {
            self.world.schedule_shock(group);
        }
        for pool in 0..self.world.scenario.pools.len() {
            self.apply_availability(PoolId(pool as u16));
        }
        self.feed_fleet(Input::TimeReached);
    }

    fn finish(mut self, horizon: u64) -> Result<Outcome, SimError> {
        self.world.outcome.in_system_max = self.dispatcher.jobs_in_system_max() as u64;
        let left: Vec<JobId> = self.dispatcher.live_jobs();
        self.world.outcome.unfinished = left.len() as u64;
        for job in left {
            self.feed(Input::JobCancelled { job, scope: CancelScope::Always });
        }
        // Machines are paid for until the horizon, even when the last job left before.
        self.world.now = self.world.now.max(horizon);
        let now = Instant::from_nanos(self.world.now);
        self.dispatcher.close(now, &mut self.world);
        self.feed_answers();
        self.dispatcher.check()?;
        let mut world = self.world;
        world.tapes.finish(&mut world.outcome);
        world.outcome.ended = Duration::from_nanos(world.now);
        world.outcome.probes_refused = self.dispatcher.totals().probes_refused;
        for (tier, operation, size, requests) in world.pipeline.transfers_begun() {
            world.storage.count(tier, operation, size, requests);
        }
        for tier in 0..world.scenario.tiers.len() {
            world.outcome.tiers[tier] = world.tier_use(tier);
        }
        let pools = (0..world.scenario.pools.len()).map(|pool| PoolId(pool as u16));
        for pool in pools.clone() {
            world.outcome.pools[pool.index()].peak = world.fleet.peak(pool);
        }
        let warm: Vec<u32> = pools.map(|pool| world.fleet.warm_count(pool)).collect();
        world.outcome.ledger = bill(world.scenario, &world.outcome, world.moved, &warm);
        if world.keep == Keep::Records {
            let seen = world.sample.seen();
            let mut rows = world.sample.into_items();
            let weight = if rows.is_empty() { 1.0 } else { seen as f64 / rows.len() as f64 };
            rows.iter_mut().for_each(|row| row.weight = weight);
            rows.sort_by(|a, b| a.arrived_s.total_cmp(&b.arrived_s).then(a.job.cmp(&b.job)));
            world.outcome.records.jobs = rows;
        }
        Ok(world.outcome)
    }

    /// Feeds an input and then what the world answered.
    #[inline(always)]
    fn feed(&mut self, input: Input) {
        self.dispatcher.handle_input(Instant::from_nanos(self.world.now), input, &mut self.world);
        if !self.world.answers.is_empty() {
            self.feed_answers();
        }
    }

    /// Feeds an input that may change the fleet.
    #[inline(never)]
    fn feed_fleet(&mut self, input: Input) {
        self.feed(input);
        self.note_ready_slots();
    }

    #[cold]
    #[inline(never)]
    fn feed_answers(&mut self) {
        // By index: an answer may call for others.
        let mut next = 0;
        while let Some(input) = self.world.answers.get(next).copied() {
            self.dispatcher.handle_input(Instant::from_nanos(self.world.now), input, &mut self.world);
            next += 1;
        }
        self.world.answers.clear();
        self.note_ready_slots();
    }

    fn note_ready_slots(&mut self) {
        if self.world.feels_probes() {
            for (cell, slots) in self.world.ready_slots.iter_mut().enumerate() {
                *slots = self.dispatcher.ready_slots(RegionId(cell as u16));
            }
        }
    }

    #[inline]
    fn arrive(&mut self) {
        let Some(arrival) = self.arrivals.take() else { return };
        let tag = self.next_tag;
        self.next_tag += 1;
        self.world.count_arrival();
        self.feed(Input::JobArrived { tag, class: arrival.class, region: arrival.region });
    }

    #[inline(always)]
    fn step_event(&mut self) {
        // Looked at before it is taken, so that the frequent kind need not be stored for the others.
        let Some(Event::StepDone { slot, token }) = self.world.calendar.first() else {
            return self.rare_event();
        };
        let Some((at, _)) = self.world.calendar.pop() else { return };
        self.world.now = at;
        if let Some(finished) = self.world.step_done(slot, token) {
            self.feed(finished.into());
        }
    }

    #[inline(never)]
    fn rare_event(&mut self) {
        let Some((at, event)) = self.world.calendar.pop() else { return };
        self.world.now = at;
        match event {
            Event::StepDone { .. } => unreachable!("the loop's own business"),
            Event::Patience { slot, generation } => {
                let job = JobId { slot, generation };
                self.feed(Input::JobCancelled { job, scope: CancelScope::BeforeService });
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
                if self.world.fleet.epoch(InstanceId(instance)) == epoch {
                    self.take_instance(InstanceId(instance), u64::from(notice_ms) * 1_000_000);
                }
            }
            Event::Gone { instance, epoch } => {
                if self.world.fleet.epoch(InstanceId(instance)) == epoch {
                    self.lose_instance(InstanceId(instance));
                }
            }
            Event::Shock { group } => {
                let taken = self.world.fleet.shock(Instant::from_nanos(self.world.now), group as usize);
                for (instance, _, notice) in taken {
                    self.take_instance(instance, notice);
                }
                self.world.schedule_shock(group as usize);
            }
            Event::Availability { pool } => self.apply_availability(PoolId(pool as u16)),
            Event::Reask { client } => {
                let input = self.world.ask_again(client);
                self.feed(input);
            }
        }
    }
}
