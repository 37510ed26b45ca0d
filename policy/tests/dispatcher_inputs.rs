//! Any sequence of inputs, sensible or not, keeps every promise of the dispatcher.
//!
//! [`drive`] turns bytes into inputs and judges after each: the dispatcher's own `check()`, a model of what a driver
//! may believe from the outputs alone, and in the end that every job leaves once the world behaves. With the feature
//! `image` a twin, restored from an image at some point, must answer everything alike from there on. The fuzz target
//! `dispatcher_inputs` feeds it arbitrary bytes; the tests here a fixed corpus of random ones.

mod systems;

use std::collections::BTreeMap;

use policy::dispatch::{CancelScope, Dispatcher, Ended, Input, InstanceState, Output, StageResult, Started};
use policy::model::{
    ClassId, InstanceId, JobId, Lease, Place, PoolId, RegionId, SLOT_KINDS_MAX, StageId, System,
};
use policy::records::JobOutcome;
use policy::units::random::Stream;
use policy::units::{Duration, Instant, UsdPerHour};

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
enum Seen {
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
struct Machine {
    seen: Seen,
    pool: PoolId,
    billed: bool,
    busy: [u16; SLOT_KINDS_MAX],
}

#[derive(Clone, Copy, Debug)]
struct Work {
    lease: Lease,
    stage: StageId,
    instance: Option<InstanceId>,
    pool: Option<PoolId>,
    /// When the lease ends unless it is renewed.
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Inside {
    job: JobId,
    class: ClassId,
    deadline: Instant,
}

/// A dispatcher, and what its outputs alone let a driver believe.
struct Judge {
    name: &'static str,
    dispatcher: Dispatcher,
    system: System,
    now: Instant,
    outputs: Vec<Output>,
    /// Jobs inside, by slot.
    jobs: BTreeMap<u32, Inside>,
    /// Leases in force, by slot.
    work: BTreeMap<u32, Work>,
    machines: Vec<Machine>,
    external: Vec<u32>,
    ended: [u64; 5],
    rejected: u64,
    arrived: u64,
    old_jobs: Vec<JobId>,
    old_leases: Vec<Lease>,
    steps: u32,
    is_reloaded: bool,
    /// Restored from an image of the dispatcher.
    twin: Option<Dispatcher>,
}

/// Bytes that become inputs; zeros once they are used up.
struct Bytes<'a> {
    left: &'a [u8],
}

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { usize::from(self.byte()) % bound }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let index = self.below(from.len());
        from.get(index).copied()
    }
}

/// Drives a dispatcher with the inputs that `bytes` spell: the first names the system, then one input after another.
///
/// # Panics
/// When the dispatcher breaks a promise.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes { left: bytes };
    let mut systems = systems::all();
    let (name, system) = systems.swap_remove(bytes.below(systems.len()));
    let mut judge = Judge::new(name, system);
    if !bytes.byte().is_multiple_of(4) {
        for id in judge.ids(Seen::Requested) {
            judge.give(Input::InstanceReady { instance: id });
        }
    }
    while !bytes.left.is_empty() {
        judge.step(&mut bytes);
    }
    judge.heal();
}

impl Judge {
    fn new(name: &'static str, system: System) -> Self {
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

    fn at(&self) -> String {
        format!("system `{}`, step {}, at {}", self.name, self.steps, self.now)
    }

    fn ids(&self, seen: Seen) -> Vec<InstanceId> {
        let all = self.machines.iter().enumerate();
        all.filter(|(_, machine)| machine.seen == seen).map(|(id, _)| InstanceId(id as u32)).collect()
    }

    fn seen(&self, id: InstanceId) -> Seen {
        self.machines.get(id.index()).map_or(Seen::Free, |machine| machine.seen)
    }

    /// Mostly an instance in one of the states `likely`, now and then any number.
    fn some_instance(&self, bytes: &mut Bytes<'_>, likely: &[Seen]) -> InstanceId {
        if bytes.byte().is_multiple_of(8) {
            return InstanceId(bytes.below(self.machines.len() + 2) as u32);
        }
        let ids: Vec<InstanceId> = likely.iter().flat_map(|seen| self.ids(*seen)).collect();
        bytes.pick(&ids).unwrap_or(InstanceId(u32::MAX))
    }

    fn some_lease(&self, bytes: &mut Bytes<'_>) -> Lease {
        if bytes.byte().is_multiple_of(8) {
            let made_up = Lease { slot: u32::from(bytes.byte() % 4), token: u32::from(bytes.byte() % 8) };
            return bytes.pick(&self.old_leases).unwrap_or(made_up);
        }
        let held: Vec<Lease> = self.work.values().map(|work| work.lease).collect();
        bytes.pick(&held).unwrap_or(Lease { slot: u32::MAX, token: 0 })
    }

    fn some_job(&self, bytes: &mut Bytes<'_>) -> JobId {
        if bytes.byte().is_multiple_of(8) {
            let made_up =
                JobId { slot: u32::from(bytes.byte() % 4), generation: u32::from(bytes.byte() % 4) };
            return bytes.pick(&self.old_jobs).unwrap_or(made_up);
        }
        let inside: Vec<JobId> = self.jobs.values().map(|inside| inside.job).collect();
        bytes.pick(&inside).unwrap_or(JobId { slot: u32::MAX, generation: 0 })
    }

    /// One input, or some time.
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let starting = [Seen::Requested, Seen::Booted];
        let held = [Seen::Ready, Seen::Requested, Seen::ReadySilent, Seen::Terminating];
        match bytes.byte() % 46 {
            0..=9 => {
                let class = ClassId(bytes.below(self.system.classes.len()) as u16);
                let region = RegionId(bytes.below(self.system.regions.len()) as u16);
                self.give(Input::JobArrived { tag: self.arrived, class, region });
            }
            10..=14 => {
                let lease = self.some_lease(bytes);
                self.give(Input::StageFinished { lease, result: StageResult::Done });
            }
            15 => {
                let lease = self.some_lease(bytes);
                let hopeless = bytes.byte().is_multiple_of(4);
                let result = if hopeless { StageResult::Hopeless } else { StageResult::Failed };
                self.give(Input::StageFinished { lease, result });
            }
            16 => {
                let lease = self.some_lease(bytes);
                self.give(Input::LeaseRenewed { lease });
            }
            17..=18 => {
                let job = self.some_job(bytes);
                self.give(Input::JobCancelled { job, scope: CancelScope::BeforeService });
            }
            19 => {
                let job = self.some_job(bytes);
                self.give(Input::JobCancelled { job, scope: CancelScope::Always });
            }
            20..=21 => {
                let instance = self.some_instance(bytes, &[Seen::Requested]);
                self.give(Input::InstanceBooted { instance });
            }
            22..=25 => {
                let instance = self.some_instance(bytes, &starting);
                self.give(Input::InstanceReady { instance });
            }
            26 => {
                let likely = [starting[0], starting[1], Seen::BootedSilent, Seen::Terminating];
                let instance = self.some_instance(bytes, &likely);
                self.give(Input::LaunchFailed { instance });
            }
            27..=28 => {
                let instance = self.some_instance(bytes, &held);
                let gone_at = self.now + Duration::from_secs(u64::from(bytes.byte() % 128));
                self.give(Input::InterruptionNotice { instance, gone_at });
            }
            29 => {
                let instance = self.some_instance(bytes, &held);
                self.give(Input::InstanceLost { instance });
            }
            30..=31 => {
                let instance = self.some_instance(bytes, &[Seen::Terminating, Seen::ReadySilent]);
                self.give(Input::InstanceGone { instance });
            }
            32 if !self.system.pools.is_empty() => {
                let pool = PoolId(bytes.below(self.system.pools.len()) as u16);
                let price = UsdPerHour::from_nanos(i64::from(bytes.byte()) * 20_000_000);
                self.give(Input::PriceChanged { pool, price });
            }
            38..=40 => {
                let class = ClassId(bytes.below(self.system.classes.len()) as u16);
                let region = RegionId(bytes.below(self.system.regions.len()) as u16);
                let wishes = bytes.byte();
                let priority = (wishes & 1 == 1).then_some((wishes >> 4) % 9);
                let deadline =
                    (wishes & 2 == 2).then_some(Duration::from_millis(u64::from(bytes.byte()) * 400));
                self.give(Input::JobSubmitted { tag: self.arrived, class, region, priority, deadline });
            }
            41..=42 => {
                let instance = self.some_instance(bytes, &[Seen::Ready, Seen::Booted]);
                self.give(Input::InstanceSilent { instance });
            }
            43 => {
                let instance = self.some_instance(bytes, &[Seen::ReadySilent, Seen::BootedSilent]);
                self.give(Input::InstanceHeard { instance });
            }
            44 => self.take_image(),
            45 => self.reload(bytes.byte()),
            33 => self.now += Duration::from_millis(u64::from(bytes.byte()) * 40), // a driver that is late
            34 => self.give(Input::TimeReached),
            35..=36 => self.wait_until(self.dispatcher.poll_timeout()),
            37 => self.wait_until(self.now + Duration::from_secs(u64::from(bytes.byte()))),
            _ => self.wait_until(self.now + Duration::from_millis(u64::from(bytes.byte()) * 20)),
        }
    }

    /// Lets time pass, reaching every timer on the way.
    fn wait_until(&mut self, until: Instant) {
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
    fn give(&mut self, input: Input) {
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
    fn take_image(&mut self) {
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
    fn take_image(&mut self) {}

    /// Other parameters, by the bits of `choice`; the shape stays.
    fn reload(&mut self, choice: u8) {
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

    /// What the input itself tells a driver.
    fn believe(&mut self, input: &Input, news: bool) {
        if !news {
            return;
        }
        match *input {
            Input::JobArrived { .. } | Input::JobSubmitted { .. } => self.arrived += 1,
            Input::InstanceSilent { instance } => {
                let seen = &mut self.machines[instance.index()].seen;
                *seen = if *seen == Seen::Booted { Seen::BootedSilent } else { Seen::ReadySilent };
            }
            Input::InstanceHeard { instance } => {
                let seen = &mut self.machines[instance.index()].seen;
                *seen = if *seen == Seen::BootedSilent { Seen::Booted } else { Seen::Ready };
            }
            Input::StageFinished { lease, .. } => self.release(lease),
            Input::LeaseRenewed { lease } => {
                let work = self.work.get_mut(&lease.slot).expect("a lease that is news is in force");
                if let Some(length) = self.system.stages[work.stage.index()].lease {
                    work.until = work.until.max(self.now + length);
                }
            }
            Input::InstanceBooted { instance } => self.machines[instance.index()].seen = Seen::Booted,
            Input::InstanceReady { instance } => self.machines[instance.index()].seen = Seen::Ready,
            Input::LaunchFailed { instance }
            | Input::InstanceLost { instance }
            | Input::InstanceGone { instance }
                if self.seen(instance) == Seen::Terminating =>
            {
                self.machines[instance.index()].seen = Seen::Free;
            }
            _ => {}
        }
    }

    fn release(&mut self, lease: Lease) {
        let at = self.at();
        let work =
            self.work.remove(&lease.slot).unwrap_or_else(|| panic!("{at}: {lease:?} was not in force"));
        assert_eq!(work.lease, lease, "{at}");
        if let (Some(id), Place::Slot { kind, .. }) = (work.instance, self.place(work.stage)) {
            self.machines[id.index()].busy[kind.index()] -= 1;
        } else if let Some(pool) = work.pool {
            self.external[pool.index()] -= 1;
        }
        self.old_leases.push(lease);
    }

    fn place(&self, stage: StageId) -> Place {
        self.system.stages[stage.index()].place
    }

    /// What the outputs tell a driver; each must fit what it knows.
    fn learn(&mut self, input: Input) {
        for output in std::mem::take(&mut self.outputs) {
            let at = format!("{}: {input:?} gave {output:?}", self.at());
            match output {
                Output::Accepted { job, .. } => {
                    let (class, own) = match input {
                        Input::JobArrived { class, .. } => (class, None),
                        Input::JobSubmitted { class, deadline, .. } => (class, deadline),
                        _ => panic!("{at}: nobody arrived"),
                    };
                    let limit = own.or(self.system.classes[class.index()].deadline);
                    let deadline = limit.map_or(Instant::NEVER, |limit| self.now + limit);
                    let before = self.jobs.insert(job.slot, Inside { job, class, deadline });
                    assert!(before.is_none(), "{at}: the slot is taken");
                }
                Output::Rejected { .. } => self.rejected += 1,
                Output::Started(started) => self.start(&started, &at),
                Output::Revoked { lease, instance } => {
                    let work = self.work.get(&lease.slot).unwrap_or_else(|| panic!("{at}: not in force"));
                    assert_eq!(work.instance, instance, "{at}");
                    assert!(
                        input != Input::TimeReached || work.until <= self.now,
                        "{at}: the lease runs until {}",
                        work.until
                    );
                    self.release(lease);
                }
                Output::Ended(ended) => self.end(&ended, &at),
                Output::Launch { instance, pool } => self.launch(instance, pool, &at),
                Output::InstanceEnded(life) => {
                    let machine = &mut self.machines[life.instance.index()];
                    assert!(machine.seen != Seen::Free, "{at}: not held");
                    assert!(!std::mem::replace(&mut machine.billed, true), "{at}: billed twice");
                    assert!(life.ended >= life.requested && life.pool == machine.pool, "{at}");
                    let ready = life.ready.map_or(Duration::ZERO, |ready| life.ended.since(ready));
                    let slot_time = ready.scaled(f64::from(life.slots)) + Duration::from_nanos(2);
                    assert!(life.busy <= slot_time, "{at}: more work than slots");
                    let lost = matches!(
                        input,
                        Input::LaunchFailed { instance }
                            | Input::InstanceLost { instance }
                            | Input::InstanceGone { instance }
                            if instance == life.instance
                    );
                    if lost {
                        machine.seen = Seen::Free;
                    }
                }
                Output::Terminate { instance, pool } => {
                    let machine = &mut self.machines[instance.index()];
                    assert!(!matches!(machine.seen, Seen::Free | Seen::Terminating), "{at}: not held");
                    assert!(machine.billed, "{at}: terminated without a bill");
                    assert_eq!(machine.pool, pool, "{at}");
                    assert_eq!(machine.busy, [0; SLOT_KINDS_MAX], "{at}: terminated at work");
                    machine.seen = Seen::Terminating;
                }
                Output::ProbeRefused { .. } | Output::Decided(_) | Output::Minute(_) => {}
            }
        }
    }

    fn start(&mut self, started: &Started, at: &str) {
        let length = self.system.stages[started.stage.index()].lease;
        let work = Work {
            lease: started.lease,
            stage: started.stage,
            instance: started.instance,
            pool: started.pool,
            until: length.map_or(Instant::NEVER, |length| self.now + length),
        };
        assert!(self.jobs.contains_key(&started.lease.slot), "{at}: no such job");
        assert!(self.work.insert(started.lease.slot, work).is_none(), "{at}: it runs already");
        assert!(!self.old_leases.contains(&started.lease), "{at}: the lease was given before");
        let deliveries_max = self.system.stages[started.stage.index()].deliveries_max;
        assert!(u32::from(started.delivery) <= deliveries_max, "{at}: delivered too often");
        match (started.instance, self.place(started.stage)) {
            (Some(id), Place::Slot { kind, .. }) => {
                let machine = &mut self.machines[id.index()];
                assert_eq!(machine.seen, Seen::Ready, "{at}: the instance takes no jobs");
                assert_eq!(Some(machine.pool), started.pool, "{at}");
                machine.busy[kind.index()] += 1;
                assert_eq!(machine.busy[kind.index()], started.busy, "{at}: it says how busy it is wrongly");
                let slots = self.system.pools[machine.pool.index()].slots[kind.index()];
                assert!(machine.busy[kind.index()] <= slots, "{at}: more jobs than slots");
            }
            (Some(_), Place::Outside) => panic!("{at}: a stage outside holds an instance"),
            (None, _) => {
                if let Some(pool) = started.pool {
                    self.external[pool.index()] += 1;
                    let calls_max = self.system.pools[pool.index()].count_max;
                    assert!(self.external[pool.index()] <= calls_max, "{at}: too many calls at once");
                }
            }
        }
    }

    fn end(&mut self, ended: &Ended, at: &str) {
        let inside = self.jobs.remove(&ended.job.slot).map(|inside| inside.job);
        assert_eq!(inside, Some(ended.job), "{at}: it was not inside");
        assert!(!self.work.contains_key(&ended.job.slot), "{at}: its lease was not revoked");
        let index = JobOutcome::ALL.iter().position(|outcome| *outcome == ended.outcome);
        self.ended[index.expect("every outcome is listed")] += 1;
        assert!(ended.arrived <= self.now, "{at}");
        let inside = self.now.since(ended.arrived);
        assert_eq!(ended.waited + ended.served, inside, "{at}: waiting and service are not all of its time");
        self.old_jobs.push(ended.job);
    }

    fn launch(&mut self, id: InstanceId, pool: PoolId, at: &str) {
        let machine = Machine { seen: Seen::Requested, pool, billed: false, busy: [0; SLOT_KINDS_MAX] };
        if id.index() == self.machines.len() {
            self.machines.push(machine);
        } else {
            assert_eq!(self.machines[id.index()].seen, Seen::Free, "{at}: the id is in use");
            self.machines[id.index()] = machine;
        }
    }

    /// The dispatcher and the model agree.
    fn agree(&self) {
        let at = self.at();
        self.dispatcher.check().unwrap_or_else(|violation| panic!("{at}: {violation}"));
        let totals = self.dispatcher.totals();
        assert_eq!(totals.arrived, self.arrived, "{at}");
        let said = [totals.done, totals.failed, totals.expired, totals.cancelled];
        assert_eq!(said, self.ended[..4], "{at}: outputs and totals differ");
        assert_eq!(totals.rejected, self.rejected, "{at}");
        let mut live = self.dispatcher.live_jobs();
        live.sort();
        assert!(
            live.iter().eq(self.jobs.values().map(|inside| &inside.job)),
            "{at}: jobs inside {live:?}, known {:?}",
            self.jobs
        );
        for Inside { job, .. } in self.jobs.values() {
            let known = self.work.get(&job.slot).map(|work| work.lease);
            assert_eq!(self.dispatcher.lease_of(*job), known, "{at}: {job:?}");
        }
        for (id, machine) in self.machines.iter().enumerate() {
            let state = self.dispatcher.instance_state(InstanceId(id as u32));
            let fits = match machine.seen {
                Seen::Free => state == InstanceState::Free,
                Seen::Requested => state == InstanceState::Requested,
                Seen::Booted => state == InstanceState::Loading,
                Seen::Ready => matches!(state, InstanceState::Ready | InstanceState::Draining),
                Seen::BootedSilent | Seen::ReadySilent => state == InstanceState::Silent,
                Seen::Terminating => state == InstanceState::Terminating,
            };
            assert!(fits, "{at}: instance {id} is {state:?}, a driver knows {:?}", machine.seen);
        }
    }

    /// From now on all goes well: every launch succeeds, every stage is done. Then every job must leave.
    fn heal(&mut self) {
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

/// `count` random sequences of up to `length` bytes, each begun with the system's number.
#[cfg(test)]
fn random_sequences(name: &str, count: u64, length: u64) {
    let chance = Stream::new(2024, 0, name);
    for sequence in 0..count {
        let draws = chance.child(sequence);
        let length = draws.below(0, length) + 2;
        let mut bytes: Vec<u8> = (1..=length).map(|index| draws.below(index, 256) as u8).collect();
        bytes[0] = (sequence % systems::all().len() as u64) as u8;
        drive(&bytes);
    }
}

#[test]
fn short_random_sequences_keep_every_promise() {
    random_sequences("short", 6000, 200);
}

#[test]
fn long_random_sequences_keep_every_promise() {
    random_sequences("long", 480, 4000);
}

#[test]
fn no_bytes_at_all_keep_every_promise() {
    for system in 0..systems::all().len() {
        drive(&[system as u8, 1]);
    }
}
