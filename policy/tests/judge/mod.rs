//! A dispatcher beside a model of what a driver may believe from its outputs alone.

mod belief;

use std::collections::BTreeMap;

use policy::dispatch::{Dispatcher, Input, Output, StageResult};
use policy::model::{ClassId, InstanceId, JobId, Lease, PoolId, SLOT_KINDS_MAX, StageId, System};
use policy::units::random::Stream;
use policy::units::{Duration, Instant, UsdPerHour};

use super::systems;

/// Rounds of good behaviour within which every job must leave.
const HEALING_ROUNDS_MAX: u32 = 4000;

/// Timers that may follow one another at one instant.
const TIMERS_AT_ONCE_MAX: u32 = 1000;

/// The choice of [`Judge::reload`] for a scaling rule that wakes a group of zero for any job.
const WAKING: u8 = 2 + (2 << 3);

/// What the dispatchers draw from.
fn chance() -> Stream {
    Stream::new(11, 0, "dispatcher")
}

/// What a driver knows of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Free,
    Requested,
    Booted,
    Ready,
    /// Silent after it was booted.
    BootedSilent,
    /// Silent after it was ready.
    ReadySilent,
    Terminating,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) seen: Seen,
    pub(crate) pool: PoolId,
    pub(crate) billed: bool,
    pub(crate) busy: [u16; SLOT_KINDS_MAX],
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) lease: Lease,
    pub(crate) stage: StageId,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) pool: Option<PoolId>,
    /// When the lease ends unless it is renewed.
    pub(crate) until: Instant,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside {
    pub(crate) job: JobId,
    pub(crate) class: ClassId,
    pub(crate) deadline: Instant,
}

/// A dispatcher, and what its outputs alone let a driver believe.
pub(crate) struct Judge {
    pub(crate) name: &'static str,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) system: System,
    pub(crate) now: Instant,
    pub(crate) outputs: Vec<Output>,
    /// Jobs inside, by slot.
    pub(crate) jobs: BTreeMap<u32, Inside>,
    /// Leases in force, by slot.
    pub(crate) work: BTreeMap<u32, Work>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) external: Vec<u32>,
    pub(crate) ended: [u64; 5],
    pub(crate) rejected: u64,
    pub(crate) arrived: u64,
    pub(crate) old_jobs: Vec<JobId>,
    pub(crate) old_leases: Vec<Lease>,
    pub(crate) steps: u32,
    pub(crate) is_reloaded: bool,
    /// Restored from an image of the dispatcher.
    pub(crate) twin: Option<Dispatcher>,
}

impl Judge {
    pub(crate) fn new(name: &'static str, system: System) -> Self {
        let mut outputs = Vec::new();
        let dispatcher =
            Dispatcher::new(system.clone(), chance(), &mut outputs).expect("test systems can run");
        let mut judge = Self {
            name,
            dispatcher,
            now: Instant::START,
            outputs,
            jobs: BTreeMap::new(),
            work: BTreeMap::new(),
            machines: Vec::new(),
            external: vec![0; system.pools.len()],
            ended: [0; 5],
            rejected: 0,
            arrived: 0,
            old_jobs: Vec::new(),
            old_leases: Vec::new(),
            steps: 0,
            is_reloaded: false,
            twin: None,
            system,
        };
        judge.learn(Input::TimeReached);
        judge.agree();
        judge
    }

    pub(crate) fn at(&self) -> String {
        format!("system `{}`, step {}, at {}", self.name, self.steps, self.now)
    }

    pub(crate) fn ids(&self, seen: Seen) -> Vec<InstanceId> {
        let all = self.machines.iter().enumerate();
        all.filter(|(_, machine)| machine.seen == seen).map(|(id, _)| InstanceId(id as u32)).collect()
    }

    pub(crate) fn seen(&self, id: InstanceId) -> Seen {
        self.machines.get(id.index()).map_or(Seen::Free, |machine| machine.seen)
    }

    /// Lets time pass, reaching every timer on the way.
    pub(crate) fn wait_until(&mut self, until: Instant) {
        if until == Instant::NEVER {
            return;
        }
        let mut at_once = 0;
        while self.dispatcher.poll_timeout() <= until {
            let wake = self.dispatcher.poll_timeout();
            at_once = if wake <= self.now { at_once + 1 } else { 0 };
            assert!(at_once < TIMERS_AT_ONCE_MAX, "{}: timers go round at one instant", self.at());
            self.now = self.now.max(wake);
            self.give(Input::TimeReached);
            let next = self.dispatcher.poll_timeout();
            assert!(next >= self.now, "{}: after a timer the next is due at {next}, in the past", self.at());
        }
        self.now = self.now.max(until);
    }

    /// Whether the dispatcher should act on `input`, by what a driver knows.
    fn is_news(&self, input: &Input) -> bool {
        use Seen::{Booted, BootedSilent, Ready, ReadySilent, Requested, Terminating};
        let in_force = |lease: &Lease| self.work.get(&lease.slot).is_some_and(|work| work.lease == *lease);
        match input {
            Input::LeaseRenewed { lease } | Input::StageFinished { lease, .. } => in_force(lease),
            Input::JobCancelled { job, .. } => {
                self.jobs.get(&job.slot).is_some_and(|inside| inside.job == *job)
            }
            Input::InstanceBooted { instance } => self.seen(*instance) == Requested,
            Input::InstanceReady { instance } => matches!(self.seen(*instance), Requested | Booted),
            Input::LaunchFailed { instance } => {
                matches!(self.seen(*instance), Requested | Booted | BootedSilent | Terminating)
            }
            Input::InterruptionNotice { instance, .. } => {
                !matches!(self.seen(*instance), Seen::Free | Terminating)
            }
            Input::InstanceLost { instance } => self.seen(*instance) != Seen::Free,
            Input::InstanceGone { instance } => {
                matches!(self.seen(*instance), Terminating | BootedSilent | ReadySilent)
            }
            Input::InstanceSilent { instance } => matches!(self.seen(*instance), Booted | Ready),
            Input::InstanceHeard { instance } => matches!(self.seen(*instance), BootedSilent | ReadySilent),
            Input::JobArrived { .. }
            | Input::JobSubmitted { .. }
            | Input::PriceChanged { .. }
            | Input::TimeReached => true,
        }
    }

    /// Hands one input over and judges what follows.
    pub(crate) fn give(&mut self, input: Input) {
        self.steps += 1;
        let news = self.is_news(&input);
        let stale_before = self.dispatcher.totals().stale;
        self.believe(&input, news);
        self.dispatcher.handle_input(self.now, input, &mut self.outputs);
        if let Some(twin) = &mut self.twin {
            let mut outputs = Vec::new();
            twin.handle_input(self.now, input, &mut outputs);
            self.twin_agrees(&outputs);
        }
        let stale = self.dispatcher.totals().stale - stale_before;
        assert_eq!(stale, u64::from(!news), "{}: {input:?} was taken for the wrong kind of news", self.at());
        if !news {
            assert!(self.outputs.is_empty(), "{}: stale {input:?} gave {:?}", self.at(), self.outputs);
        }
        self.learn(input);
        self.agree();
        if input == Input::TimeReached {
            self.nothing_is_overdue();
        }
    }

    /// The twin said the same.
    fn twin_agrees(&self, outputs: &[Output]) {
        let at = self.at();
        let Some(twin) = &self.twin else { return };
        assert_eq!(outputs, self.outputs, "{at}: the restored dispatcher answers otherwise");
        assert_eq!(twin.poll_timeout(), self.dispatcher.poll_timeout(), "{at}");
        assert_eq!(twin.totals(), self.dispatcher.totals(), "{at}");
    }

    /// A twin is restored from here; one that there is has the same image by now.
    #[cfg(feature = "image")]
    pub(crate) fn take_image(&mut self) {
        let at = self.at();
        let bytes = postcard::to_stdvec(&self.dispatcher.image()).expect("an image can be written");
        if let Some(twin) = &self.twin {
            let again = postcard::to_stdvec(&twin.image()).expect("an image can be written");
            assert!(again == bytes, "{at}: the restored dispatcher has another state");
        }
        let image = postcard::from_bytes(&bytes).expect("an image can be read");
        let twin = Dispatcher::restore(self.system.clone(), chance(), image);
        self.twin = Some(twin.unwrap_or_else(|error| panic!("{at}: {error}")));
    }

    #[cfg(not(feature = "image"))]
    pub(crate) fn take_image(&mut self) {}

    /// Other parameters, by the bits of `choice`; the shape stays.
    pub(crate) fn reload(&mut self, choice: u8) {
        self.steps += 1;
        self.is_reloaded = true;
        let mut system = self.system.clone();
        let policies = &mut system.policies;
        match choice % 8 {
            0 => policies.retry = systems::backoff(0.2),
            1 => policies.purchase = systems::purchase(choice >> 3),
            2 => policies.scaling = systems::scaling(choice >> 3),
            3 => policies.routing = systems::routing(&policies.routing, choice >> 3),
            4 => system.classes.iter_mut().for_each(|class| {
                class.expires = choice & 8 == 0;
                class.priority = choice >> 4;
                class.deadline = (choice & 16 == 0).then(|| Duration::from_secs(u64::from(choice >> 2)));
            }),
            5 => system.stages.iter_mut().for_each(|stage| {
                stage.lease = (choice & 8 == 0).then(|| Duration::from_secs(u64::from(choice >> 3) + 1));
            }),
            6 => system.pools.iter_mut().for_each(|pool| {
                pool.count_max = pool.count_initial.max(2) + u32::from(choice >> 5);
                pool.count_min = u32::from(choice >> 3).min(pool.count_initial);
                pool.offering.price = UsdPerHour::from_nanos(i64::from(choice) << 24);
            }),
            _ => {
                system.queue_order = systems::queue_order(choice >> 3);
                system.queue_per_slot_max = system.queue_per_slot_max.map(|limit| limit + 1.0);
                system.policies.packing = policy::policies::Packing::Spread;
            }
        }
        let reloaded = self.dispatcher.reload(self.now, system.clone(), &mut self.outputs);
        reloaded.unwrap_or_else(|error| panic!("{}: {error}", self.at()));
        if let Some(twin) = &mut self.twin {
            let mut outputs = Vec::new();
            let reloaded = twin.reload(self.now, system.clone(), &mut outputs);
            reloaded.expect("the dispatcher took it");
            self.twin_agrees(&outputs);
        }
        for work in self.work.values_mut() {
            let (was, is) = (&self.system.stages[work.stage.index()], &system.stages[work.stage.index()]);
            work.until = match (was.lease, is.lease) {
                (None, Some(length)) => self.now + length,
                (_, None) => Instant::NEVER,
                (Some(_), Some(_)) => work.until,
            };
        }
        self.system = system;
        self.learn(Input::PriceChanged { pool: PoolId(0), price: UsdPerHour::from_nanos(0) });
        self.agree();
    }

    /// Once the time was reached, no lease and no waiting job is past its end.
    fn nothing_is_overdue(&self) {
        for work in self.work.values() {
            assert!(work.until > self.now, "{}: {work:?} should have been revoked", self.at());
        }
        for (slot, inside) in &self.jobs {
            let waits = !self.work.contains_key(slot);
            let expires = self.system.classes[inside.class.index()].expires;
            let is_late = expires && inside.deadline <= self.now;
            assert!(!waits || !is_late, "{}: {inside:?} should have expired", self.at());
        }
    }

    /// From now on all goes well: every launch succeeds, every stage is done. Then every job must leave.
    pub(crate) fn heal(&mut self) {
        if self.is_reloaded {
            self.reload(WAKING); // target tracking leaves a group asleep for less than its backlog
        }
        for _ in 0..HEALING_ROUNDS_MAX {
            if self.jobs.is_empty() {
                return;
            }
            for id in self.ids(Seen::Terminating) {
                self.give(Input::InstanceGone { instance: id });
            }
            for id in self.ids(Seen::BootedSilent).into_iter().chain(self.ids(Seen::ReadySilent)) {
                self.give(Input::InstanceHeard { instance: id });
            }
            for id in self.ids(Seen::Requested).into_iter().chain(self.ids(Seen::Booted)) {
                if self.seen(id) != Seen::Terminating {
                    self.give(Input::InstanceReady { instance: id });
                }
            }
            let held: Vec<Lease> = self.work.values().map(|work| work.lease).collect();
            for lease in held {
                if self.work.get(&lease.slot).is_some_and(|work| work.lease == lease) {
                    self.give(Input::StageFinished { lease, result: StageResult::Done });
                }
            }
            self.wait_until(self.dispatcher.poll_timeout());
        }
        panic!("{}: {} jobs never leave: {:?}", self.at(), self.jobs.len(), self.jobs);
    }
}
