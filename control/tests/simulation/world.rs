//! The world around one plane, in simulated time: clients, a network, workers, a provider, a disk, and faults by seed.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use control::command::{Command, LaunchRefusal, LaunchToken, SessionId};
use control::effect::{Answer, Effect};
use control::engine::{Engine, decode_record, fold};
use control::number::JobNumber;
use control::plane::{Plane, PlaneImage, Rules};
use control::protocol::{FromWorker, Report, ToWorker};
use control::replay::verify;
use control::retention::Forgetting;
use control::store::{Disk, DiskFault, DiskStore, Store, StoreError};
use control::submission::{Idempotency, Submission};
use policy::model::{ClassId, Lease, PoolId, RegionId};
use policy::records::JobOutcome;
use policy::units::random::Stream;
use policy::units::{Duration, Instant};

use super::cloud::Cloud;
use super::judge::Judge;
use super::scenarios;
use super::worker::Worker;

/// Faults stop here, and everything must come to rest by [`REST`].
const CALM: Instant = Instant::from_nanos(600 * 1_000_000_000);

/// The same in a short history.
const CALM_SHORT: Instant = Instant::from_nanos(30 * 1_000_000_000);

/// The end of the world.
const REST: Instant = Instant::from_nanos(3 * 3600 * 1_000_000_000);

/// What is over is kept for so long, in every fourth world.
const KEEP: Duration = Duration::from_secs(60);

/// Jobs of one tenant at once.
const TENANT_MAX: u32 = 25;

/// What a seed came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) accepted: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) expired: u64,
    pub(crate) cancelled: u64,
    pub(crate) stale_results: u64,
    pub(crate) crashes: u64,
    /// Starts with another scenario than before.
    pub(crate) changes: u64,
    pub(crate) torn_writes: u64,
    pub(crate) worker_deaths: u64,
    pub(crate) launches: u64,
    pub(crate) interruptions: u64,
    pub(crate) images: u64,
    /// Ended jobs that were forgotten.
    pub(crate) forgotten: u64,
    /// Commands that were applied again from a mark on, and gave the same.
    pub(crate) replayed: u64,
    pub(crate) commands: u64,
    pub(crate) appends: u64,
}

impl Outcome {
    /// Adds another seed's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.done += other.done;
        self.failed += other.failed;
        self.expired += other.expired;
        self.cancelled += other.cancelled;
        self.stale_results += other.stale_results;
        self.crashes += other.crashes;
        self.changes += other.changes;
        self.torn_writes += other.torn_writes;
        self.worker_deaths += other.worker_deaths;
        self.launches += other.launches;
        self.interruptions += other.interruptions;
        self.images += other.images;
        self.forgotten += other.forgotten;
        self.replayed += other.replayed;
        self.commands += other.commands;
        self.appends += other.appends;
    }
}

/// Something that will happen.
#[derive(Clone, Debug)]
enum Event {
    /// A client submits its job number `0`, or asks again.
    Submit {
        client: u64,
        again: u8,
    },
    Cancel(JobNumber),
    /// A command reaches the plane; `from` is the incarnation it was meant for, if it is a worker's.
    Arrive {
        incarnation: Option<u64>,
        command: Command,
    },
    /// A message reaches a worker.
    Tell {
        worker: usize,
        session: SessionId,
        message: ToWorker,
    },
    Closed {
        worker: usize,
        session: SessionId,
    },
    Connect(usize),
    /// A worker looks after itself.
    Step(usize),
    Launch {
        token: LaunchToken,
        pool: PoolId,
    },
    Terminate(LaunchToken),
    /// The plane takes what came and commits.
    Turn,
    Restart,
    /// The shell compares the provider's book with the plane's, and ends what the plane does not know.
    Reconcile,
    Fault,
}

/// Everything.
pub(crate) struct World {
    rules: Rules,
    /// Which scenario, and whether the operator has changed it.
    scenario: u64,
    is_changed: bool,
    chance: Stream,
    draws: u64,
    now: Instant,
    events: BinaryHeap<std::cmp::Reverse<(Instant, u64)>>,
    what: BTreeMap<u64, Event>,
    sequence: u64,
    disk: Disk,
    engine: Option<Engine<DiskStore>>,
    incarnation: u64,
    inbox: Vec<Command>,
    askers: Vec<(u64, u8)>,
    turn_at: Option<Instant>,
    sessions: BTreeMap<SessionId, usize>,
    session_count: u64,
    workers: Vec<Worker>,
    cloud: Cloud,
    judge: Judge,
    faults: bool,
    story: bool,
    outcome: Outcome,
    jobs: u64,
    /// Nanoseconds that the plane's clock is behind the world's, after a jump.
    skew: u64,
    seed: u64,
    calm_from: Instant,
    /// The append that goes wrong, and how.
    fault_at: Option<(u64, DiskFault)>,
    /// Events to come that must happen before the world is at rest.
    unsettled: u64,
}

/// A plane's state as bytes, without timers that are void already: those depend on when it was last taken up.
fn canonical(plane: &Plane) -> Vec<u8> {
    let image = PlaneImage::decode(&plane.image().encode()).expect("a sound world");
    Plane::restore(plane.rules().clone(), image).expect("a sound world").image().encode()
}

impl Event {
    fn is_unsettled(&self) -> bool {
        matches!(
            self,
            Self::Submit { .. }
                | Self::Restart
                | Self::Launch { .. }
                | Self::Terminate(_)
                | Self::Arrive { .. }
        )
    }
}

impl World {
    pub(crate) fn new(seed: u64, story: bool) -> Self {
        let chance = Stream::new(seed, 0, "simulation");
        let scenario = chance.bits(0);
        let mut world = Self {
            rules: scenarios::rules(scenario, false),
            scenario,
            is_changed: false,
            chance,
            draws: 1,
            now: Instant::START,
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            sequence: 0,
            disk: Disk::default(),
            engine: None,
            incarnation: 0,
            inbox: Vec::new(),
            askers: Vec::new(),
            turn_at: None,
            sessions: BTreeMap::new(),
            session_count: 0,
            workers: Vec::new(),
            cloud: Cloud::default(),
            judge: Judge::default(),
            faults: true,
            story,
            outcome: Outcome::default(),
            jobs: 0,
            skew: 0,
            seed,
            calm_from: CALM,
            fault_at: None,
            unsettled: 0,
        };
        world.jobs = 20 + world.below(60);
        for client in 0..world.jobs {
            let at = world.within(400.0);
            world.at(at, Event::Submit { client, again: 0 });
        }
        for _ in 0..4 + world.below(20) {
            let at = world.within(580.0);
            world.at(at, Event::Fault);
        }
        world.start_joined(4);
        world.at(Instant::START, Event::Restart);
        world.at(Instant::START, Event::Reconcile);
        world
    }

    /// A history of a few jobs on a plane that nothing befalls but one fault at append `at`, if any.
    pub(crate) fn short(seed: u64, at: Option<(u64, DiskFault)>) -> Self {
        let mut world = Self::new(seed, std::env::var_os("HEADROOM_STORY").is_some());
        world.events.clear();
        world.what.clear();
        world.unsettled = 0;
        world.calm_from = CALM_SHORT;
        world.faults = false;
        world.fault_at = at;
        world.workers.clear();
        for client in 0..2 + seed % 3 {
            let at = world.within(5.0);
            world.at(at, Event::Submit { client, again: 0 });
        }
        world.start_joined(2);
        world.at(Instant::START, Event::Restart);
        world.at(Instant::START, Event::Reconcile);
        world
    }

    fn start_joined(&mut self, count: usize) {
        for index in 0..self.rules.joined.len() * count {
            let at = self.within(10.0);
            let pool = &self.rules.system.pools[0];
            let slots = pool.slots.iter().sum();
            let worker =
                Worker::new(format!("joined-{index}"), pool.name.clone(), slots, None, Instant::START);
            self.workers.push(worker);
            self.at(at, Event::Connect(index));
            self.at(at, Event::Step(index));
        }
    }

    /// Plays it to the end.
    pub(crate) fn play(mut self) -> Outcome {
        let mut calm = false;
        while let Some(std::cmp::Reverse((at, sequence))) = self.events.pop() {
            if at > self.calm_from && !calm {
                calm = true;
                self.faults = false;
                self.tell(|| "from here on nothing fails".to_owned());
                for worker in &mut self.workers {
                    worker.is_hung = false;
                    worker.frozen_until = Instant::START;
                }
            }
            if at > REST || (calm && self.is_at_rest()) {
                break;
            }
            self.now = at;
            let event = self.what.remove(&sequence).expect("every time has its event");
            self.unsettled -= u64::from(event.is_unsettled());
            self.happen(event);
        }
        self.finish()
    }

    fn is_at_rest(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.plane().jobs_in_system() == 0)
            && self.inbox.is_empty()
            && self.unsettled == 0
    }

    fn finish(mut self) -> Outcome {
        let engine = self.engine.as_mut().expect("a calm world has its plane");
        engine.commit(&mut Vec::new()).expect("a sound world");
        self.reconcile();
        let engine = self.engine.take().expect("it was there");
        let plane = engine.plane();
        assert_eq!(
            plane.jobs_in_system(),
            0,
            "seed {}: jobs are still in the system at rest: {:#?} on {:#?}, workers {:#?}",
            self.seed,
            plane.list(None, None, usize::MAX).jobs,
            plane.machines(None, None, usize::MAX).0,
            self.workers
        );
        engine.plane().dispatcher().check().expect("a sound world");
        let mut archive = engine.store().archive();
        for bytes in archive.latest(None, usize::MAX).expect("a sound world") {
            let record = decode_record(JobNumber(0), &bytes).expect("a sound world");
            self.judge.stored_end(record.job, record.outcome);
        }
        self.judge.close();
        // The provider's machines are the plane's, but for those that the next reconciliation will find.
        let known: BTreeSet<LaunchToken> = engine.plane().tokens().into_iter().collect();
        for token in self.cloud.running() {
            assert!(
                known.contains(&token),
                "seed {}: machine {token} runs and the plane does not know it",
                self.seed
            );
        }
        // What is on disk gives the same plane again.
        let image = canonical(engine.plane());
        let mut store = DiskStore::open(&self.disk);
        let (again, _, _) = fold(&mut store, self.rules.clone()).expect("a sound world");
        assert!(canonical(&again) == image, "replay gives another plane");
        if self.forgets() {
            let verdict = verify(&mut store, &[]).expect("a sound world");
            assert_eq!(verdict.difference, None, "what is kept is read alike");
            self.outcome.replayed = if verdict.forgotten > 0 { verdict.commands } else { 0 };
        }
        self.outcome.commands = engine.next() - 1;
        self.outcome.appends = self.disk.appends();
        self.outcome.accepted = self.judge.accepted;
        self.outcome.stale_results = self.judge.stale;
        self.outcome.launches = self.cloud.launches;
        self.outcome.done = self.judge.ended(JobOutcome::Done);
        self.outcome.failed = self.judge.ended(JobOutcome::Failed);
        self.outcome.expired = self.judge.ended(JobOutcome::Expired);
        self.outcome.cancelled = self.judge.ended(JobOutcome::Cancelled);
        self.outcome
    }

    // ---- chance and time

    fn bits(&mut self) -> u64 {
        self.draws += 1;
        self.chance.bits(self.draws)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    fn often(&mut self, share: f64) -> bool {
        self.draws += 1;
        self.chance.unit(self.draws) < share
    }

    fn within(&mut self, seconds: f64) -> Instant {
        self.draws += 1;
        self.now + Duration::from_secs_f64(self.chance.unit(self.draws) * seconds)
    }

    /// A message's way through the network: mostly milliseconds, sometimes seconds.
    fn way(&mut self) -> Instant {
        if self.faults && self.often(0.02) { self.within(8.0) } else { self.within(0.02) }
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.unsettled += u64::from(event.is_unsettled());
        self.sequence += 1;
        self.events.push(std::cmp::Reverse((at, self.sequence)));
        self.what.insert(self.sequence, event);
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        if self.story {
            println!("{:9.3} {}", self.now.as_secs_f64(), text());
        }
    }

    // ---- events

    fn happen(&mut self, event: Event) {
        match event {
            Event::Submit { client, again } => self.submit(client, again),
            Event::Cancel(job) => self.arrive(None, Command::Cancel { job, tenant: None }),
            Event::Arrive { incarnation, command } => self.arrive(incarnation, command),
            Event::Tell { worker, session, message } => self.told(worker, session, message),
            Event::Closed { worker, session } => {
                if self.workers[worker].session == Some(session) {
                    self.workers[worker].session = None;
                    let at = self.within(1.0);
                    self.at(at, Event::Connect(worker));
                }
            }
            Event::Connect(worker) => self.connect(worker),
            Event::Step(worker) => self.step(worker),
            Event::Launch { token, pool } => self.launch(token, pool),
            Event::Terminate(token) => {
                self.cloud.terminate(token);
                let name = format!("w-{token}");
                if let Some(worker) = self.workers.iter_mut().find(|worker| worker.name == name) {
                    worker.is_dead = true;
                }
                if !(self.faults && self.often(0.1)) {
                    let at = self.way();
                    self.at(at, Event::Arrive { incarnation: None, command: Command::MachineGone { token } });
                } else {
                    // The answer is lost; the shell asks again.
                    let at = self.within(60.0);
                    self.at(at, Event::Terminate(token));
                }
            }
            Event::Turn => self.turn(),
            Event::Restart => self.restart(),
            Event::Reconcile => self.reconcile(),
            Event::Fault => self.fault(),
        }
    }

    fn submit(&mut self, client: u64, again: u8) {
        let keyed = !client.is_multiple_of(3);
        if again > 0 && !keyed {
            return; // asking again without a key would be another job
        }
        let submission = Submission {
            tenant: (client % 2) as u32,
            tenant_jobs_max: TENANT_MAX,
            class: ClassId(0),
            region: RegionId(0),
            priority: client.is_multiple_of(5).then_some((client % 8) as u8),
            deadline: client.is_multiple_of(7).then(|| Duration::from_secs(30 + client)),
            payload: client.to_le_bytes().into(),
            inputs: Vec::new(),
            idempotency: keyed.then_some(Idempotency { key: u128::from(client), body: client }),
            webhook: client.is_multiple_of(4).then(|| "https://example.org/hook".to_owned()),
            traceparent: None,
        };
        if self.faults && keyed && self.often(0.1) {
            let at = self.within(3.0);
            self.at(at, Event::Submit { client, again: again + 1 }); // a proxy repeats it
        }
        self.arrive(None, Command::Submit(Box::new(submission)));
        if let Some(last) = self.askers.last_mut() {
            *last = (client, again);
        }
    }

    /// A command reaches the plane's inbox, or nobody.
    fn arrive(&mut self, incarnation: Option<u64>, command: Command) {
        if incarnation.is_some_and(|meant| meant != self.incarnation) {
            return;
        }
        if self.engine.is_none() {
            // Providers and announcers repeat what was not taken; clients with a key do too.
            match command {
                Command::Submit(submission) => {
                    let client =
                        u64::from_le_bytes(submission.payload[..8].try_into().expect("a sound world"));
                    let at = self.within(20.0);
                    self.at(at, Event::Submit { client, again: 1 });
                }
                Command::Hello { .. } | Command::Cancel { .. } => {}
                _ => {
                    let at = self.within(5.0);
                    self.at(at, Event::Arrive { incarnation, command });
                }
            }
            return;
        }
        if matches!(command, Command::Submit(_) | Command::Cancel { .. }) {
            self.askers.push((u64::MAX, 0));
        }
        self.inbox.push(command);
        let at = self.within(0.003);
        self.plan_turn(at);
    }

    fn plan_turn(&mut self, at: Instant) {
        if self.turn_at.is_none_or(|planned| at < planned || planned < self.now) {
            self.turn_at = Some(at);
            self.at(at, Event::Turn);
        }
    }

    fn plane_now(&self) -> Instant {
        Instant::from_nanos(self.now.as_nanos().saturating_sub(self.skew))
    }

    fn turn(&mut self) {
        self.turn_at = None;
        let now = self.plane_now();
        let Some(engine) = self.engine.as_mut() else { return };
        for command in self.inbox.drain(..) {
            engine.apply(now, command);
        }
        if engine.plane().poll_timeout() <= now.max(engine.plane().last()) {
            engine.apply(now, Command::Tick);
        }
        let mut effects = Vec::new();
        if let Some((at, fault)) = self.fault_at
            && engine.pending() > 0
            && self.disk.appends() == at
        {
            self.disk.fail_next(fault);
        }
        match engine.commit(&mut effects) {
            Ok(()) => {}
            Err(StoreError::Full { .. }) => {
                let at = self.within(1.0);
                return self.plan_turn(at);
            }
            Err(_) => {
                self.outcome.torn_writes += 1;
                self.tell(|| "the write failed".to_owned());
                return self.crash();
            }
        }
        self.quotas_hold();
        if self.faults && self.often(0.004) {
            // Durable, and only some of it performed.
            let kept = self.below(effects.len() as u64 + 1) as usize;
            effects.truncate(kept);
            self.perform(effects);
            return self.crash();
        }
        self.perform(effects);
        if self.often(0.003)
            && let Some(engine) = self.engine.as_mut()
            && engine.pending() == 0
        {
            engine.keep_image().expect("a sound world");
            self.outcome.images += 1;
        }
        if self.forgets() && self.often(0.02) {
            self.forget();
        }
        if let Some(engine) = self.engine.as_ref() {
            let next = engine.plane().poll_timeout();
            if next != Instant::NEVER {
                let at =
                    Instant::from_nanos(next.as_nanos() + self.skew).max(self.now + Duration::from_millis(1));
                self.plan_turn(at);
            }
        }
    }

    fn forgets(&self) -> bool {
        self.seed % 4 == 3
    }

    /// Makes a mark if it is time, and forgets what is too old: nothing else may go.
    fn forget(&mut self) {
        let now = self.plane_now();
        let Some(engine) = self.engine.as_mut().filter(|engine| engine.pending() == 0) else { return };
        engine.keep_image_if_due().expect("a sound world");
        let mut archive = engine.store().archive();
        let before = archive.latest(None, usize::MAX).expect("a sound world");
        let done = engine.forget_if_due(now).expect("a sound world");
        let last = engine.plane().last();
        if !matches!(done, Forgetting::Over { .. }) {
            return;
        }
        for bytes in &before {
            let record = decode_record(JobNumber(0), bytes).expect("a sound world");
            if archive.ended(record.job).expect("a sound world").is_none() {
                assert!(last.since(record.ended) >= KEEP, "{} is forgotten too early", record.job);
                self.judge.stored_end(record.job, record.outcome);
                self.outcome.forgotten += 1;
            }
        }
        self.tell(|| format!("what is over is forgotten: {done:?}"));
        if self.faults && self.often(0.3) {
            self.crash();
        }
    }

    fn quotas_hold(&mut self) {
        let engine = self.engine.as_ref().expect("a turn has its plane");
        let plane = engine.plane();
        if engine.next().is_multiple_of(16) {
            plane.dispatcher().check().expect("a sound world");
        }
        for tenant in 0..2 {
            let held = plane.list(Some(tenant), None, usize::MAX).jobs.len();
            assert!(held <= TENANT_MAX as usize, "tenant {tenant} has {held} jobs");
        }
        assert!(plane.jobs_in_system() <= plane.rules().patience.jobs_max as usize);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.judge.read(&effect);
            match effect {
                Effect::Answer(answer) => {
                    let (client, again) =
                        if self.askers.is_empty() { (u64::MAX, 0) } else { self.askers.remove(0) };
                    self.answered(client, again, answer);
                }
                Effect::Tell { session, message } => {
                    if let Some(worker) = self.sessions.get(&session).copied() {
                        let at = self.way();
                        self.at(at, Event::Tell { worker, session, message });
                    }
                }
                Effect::Close { session } => {
                    if let Some(worker) = self.sessions.remove(&session) {
                        let at = self.within(0.05);
                        self.at(at, Event::Closed { worker, session });
                    }
                }
                Effect::Launch { token, pool } => {
                    self.tell(|| format!("launch {token}"));
                    let at = self.within(5.0);
                    self.at(at, Event::Launch { token, pool });
                }
                Effect::Terminate { token, .. } => {
                    self.tell(|| format!("terminate {token}"));
                    let at = self.within(5.0);
                    self.at(at, Event::Terminate(token));
                }
                Effect::Webhook(task) => {
                    let at = self.within(3.0);
                    let command = Command::WebhookSettled { job: task.job, delivered: true };
                    self.at(at, Event::Arrive { incarnation: None, command });
                }
                _ => {}
            }
        }
    }

    fn answered(&mut self, client: u64, again: u8, answer: Answer) {
        match answer {
            Answer::Accepted(job) if self.faults && self.often(0.08) => {
                let at = self.within(30.0);
                self.at(at, Event::Cancel(job));
            }
            Answer::Rejected { retry_after, .. }
                if client != u64::MAX && again < 3 && !client.is_multiple_of(3) =>
            {
                let at = self.now + retry_after;
                self.at(at, Event::Submit { client, again: again + 1 });
            }
            _ => {}
        }
    }

    // ---- the plane's process

    fn crash(&mut self) {
        self.tell(|| "the plane dies".to_owned());
        self.outcome.crashes += 1;
        self.engine = None;
        self.incarnation += 1;
        let lost = std::mem::take(&mut self.inbox);
        self.askers.clear();
        for command in lost {
            self.arrive(None, command);
        }
        let sessions = std::mem::take(&mut self.sessions);
        for (session, worker) in sessions {
            let at = self.within(0.5);
            self.at(at, Event::Closed { worker, session });
        }
        let span = if self.often(0.1) { 60.0 } else { 4.0 };
        let at = self.within(span);
        self.at(at, Event::Restart);
    }

    fn restart(&mut self) {
        if self.faults && self.often(0.2) {
            self.is_changed = !self.is_changed;
            self.outcome.changes += 1;
            self.rules = scenarios::rules(self.scenario, self.is_changed);
            self.tell(|| "the operator changes the scenario".to_owned());
        }
        let store = DiskStore::open(&self.disk);
        let unix_ms = self.plane_now().as_nanos() / 1_000_000;
        let mut engine = Engine::open(store, self.rules.clone(), unix_ms).expect("a sound world");
        if self.forgets() {
            engine.retain(KEEP).expect("a sound world");
        }
        self.tell(|| {
            format!(
                "a plane takes over as epoch {} with {} jobs",
                engine.plane().epoch(),
                engine.plane().jobs_in_system()
            )
        });
        self.engine = Some(engine);
        self.incarnation += 1;
        self.plan_turn(self.now);
    }

    fn fault(&mut self) {
        if !self.faults {
            return;
        }
        let alive = self.engine.is_some();
        match self.below(10) {
            0 if alive => self.crash(),
            1 if alive => {
                let kept = self.below(400) as usize;
                self.disk.fail_next(DiskFault::Torn { kept });
            }
            2 if alive => self.disk.fail_next(DiskFault::Unanswered),
            3 if alive => self.disk.fail_next(DiskFault::Full),
            4 => {
                self.skew += self.below(20_000_000_000);
                self.tell(|| "the plane's clock jumps back".to_owned());
            }
            5 => self.skew = self.skew.saturating_sub(10_000_000_000),
            kind => self.worker_fault(kind),
        }
    }

    fn worker_fault(&mut self, kind: u64) {
        let alive: Vec<usize> = (0..self.workers.len()).filter(|at| !self.workers[*at].is_dead).collect();
        if alive.is_empty() {
            return;
        }
        let worker = alive[self.below(alive.len() as u64) as usize];
        let name = self.workers[worker].name.clone();
        let token: Option<LaunchToken> = name.strip_prefix("w-").and_then(|token| token.parse().ok());
        match kind {
            6 => {
                self.workers[worker].frozen_until = self.within(200.0);
                self.tell(|| format!("{name} freezes"));
            }
            7 => {
                self.tell(|| format!("{name} loses its connection"));
                self.cut(worker);
            }
            8 => {
                self.tell(|| format!("{name} hangs in its work"));
                self.workers[worker].is_hung = true;
            }
            _ => {
                let Some(token) = token else {
                    // The process dies and is started again, with another name.
                    self.outcome.worker_deaths += 1;
                    self.tell(|| format!("{name} dies"));
                    self.cut(worker);
                    self.begin_anew(worker);
                    return;
                };
                self.outcome.interruptions += 1;
                self.tell(|| format!("{name} is interrupted"));
                let mut gone = self.now;
                if self.often(0.7) {
                    let seconds = 120;
                    let at = self.way();
                    let command = Command::MachineNotice { token, seconds };
                    self.at(at, Event::Arrive { incarnation: None, command });
                    gone = self.now + Duration::from_secs(u64::from(seconds));
                }
                self.at(gone, Event::Terminate(token));
            }
        }
    }

    /// A worker that joins by itself is over, and there is another in its place, with another name.
    fn begin_anew(&mut self, worker: usize) {
        self.workers[worker].is_dead = true;
        let old = &self.workers[worker];
        let again = Worker::new(format!("{}+", old.name), old.pool.clone(), old.slots, None, self.now);
        self.workers.push(again);
        let (at, index) = (self.within(10.0), self.workers.len() - 1);
        self.at(at, Event::Connect(index));
        self.at(at, Event::Step(index));
    }

    fn cut(&mut self, worker: usize) {
        if let Some(session) = self.workers[worker].session.take() {
            self.sessions.remove(&session);
            let at = self.way();
            self.at(
                at,
                Event::Arrive {
                    incarnation: Some(self.incarnation),
                    command: Command::Disconnected { session },
                },
            );
        }
        if !self.workers[worker].is_dead {
            let at = self.within(2.0);
            self.at(at, Event::Connect(worker));
        }
    }

    // ---- the provider

    fn launch(&mut self, token: LaunchToken, pool: PoolId) {
        if self.rules.joined.contains(&pool) {
            return;
        }
        if self.faults && self.often(0.1) && !self.cloud.machines.contains_key(&token) {
            let why = LaunchRefusal::InsufficientCapacity;
            let at = self.way();
            return self
                .at(at, Event::Arrive { incarnation: None, command: Command::LaunchFailed { token, why } });
        }
        let (made, handle) = self.cloud.launch(token, pool);
        if made {
            let name = format!("w-{token}");
            let row = &self.rules.system.pools[pool.index()];
            let ready =
                self.now + Duration::from_secs(10) + Duration::from_millis(self.chance.bits(7) % 20_000);
            let worker =
                Worker::new(name, row.name.clone(), row.slots.iter().sum(), Some(token.to_string()), ready);
            self.workers.push(worker);
            let index = self.workers.len() - 1;
            self.at(ready, Event::Connect(index));
            self.at(ready, Event::Step(index));
        }
        if self.faults && self.often(0.1) {
            // Made, and the answer lost: the shell asks again with the same token.
            let at = self.within(30.0);
            return self.at(at, Event::Launch { token, pool });
        }
        let at = self.way();
        let command = match handle {
            Some(handle) => Command::Launched { token, handle },
            None => Command::MachineGone { token },
        };
        self.at(at, Event::Arrive { incarnation: None, command });
    }

    fn reconcile(&mut self) {
        let at = self.now + Duration::from_secs(60);
        self.at(at, Event::Reconcile);
        let Some(engine) = self.engine.as_ref().filter(|engine| engine.pending() == 0) else { return };
        let known: BTreeSet<LaunchToken> = engine.plane().tokens().into_iter().collect();
        for token in self.cloud.running() {
            if !known.contains(&token) {
                self.tell(|| format!("machine {token} is nobody's"));
                self.happen(Event::Terminate(token));
            }
        }
    }

    // ---- workers

    fn connect(&mut self, index: usize) {
        let worker = &self.workers[index];
        if worker.is_dead || worker.session.is_some() {
            return;
        }
        if self.engine.is_none() || worker.frozen_until > self.now {
            let at = self.within(2.0);
            return self.at(at, Event::Connect(index));
        }
        self.session_count += 1;
        let session = SessionId(self.session_count);
        self.sessions.insert(session, index);
        self.workers[index].session = Some(session);
        let hello = self.workers[index].hello();
        self.say(index, hello);
    }

    /// Sends a worker's message on its way; sometimes twice, sometimes late.
    fn say(&mut self, index: usize, message: FromWorker) {
        let Some(session) = self.workers[index].session else { return };
        let is_hello = matches!(message, FromWorker::Hello(_));
        let command = match message {
            FromWorker::Hello(hello) => Command::Hello { session, hello },
            FromWorker::Ready => Command::Ready { session },
            FromWorker::Beat { alive } => Command::Beat { session, alive },
            FromWorker::Finished { lease, job, report } => Command::Finished { session, lease, job, report },
            FromWorker::Notice { seconds } => Command::Notice { session, seconds },
            FromWorker::Leaving => Command::Leaving { session },
            FromWorker::Progress { .. } => return,
        };
        // A connection keeps the order of its first words at least; whatever follows may be doubled and overtaken.
        let hello_at = self.workers[index].hello_at;
        if self.faults && !is_hello && self.often(0.03) {
            let at = self.way().max(hello_at);
            self.at(at, Event::Arrive { incarnation: Some(self.incarnation), command: command.clone() });
        }
        let at = self.way().max(hello_at);
        if is_hello {
            self.workers[index].hello_at = at + Duration::from_nanos(1);
        }
        self.at(at, Event::Arrive { incarnation: Some(self.incarnation), command });
    }

    fn told(&mut self, index: usize, session: SessionId, message: ToWorker) {
        if self.workers[index].session != Some(session) || self.workers[index].is_dead {
            return;
        }
        if self.workers[index].frozen_until > self.now {
            let at = self.workers[index].frozen_until;
            return self.at(at, Event::Tell { worker: index, session, message });
        }
        let span = 1.0 + (self.bits() % 8000) as f64 / 1000.0;
        let until = self.now + Duration::from_secs_f64(span);
        let now = self.now;
        for reply in self.workers[index].take(now, message, |_| until) {
            self.say(index, reply);
        }
        let worker = &self.workers[index];
        if worker.is_dead && worker.joins_anew() {
            self.tell(|| "a worker is refused, and joins anew".to_owned());
            self.begin_anew(index);
        }
    }

    /// A worker finishes what is done, beats, says that it is ready; again in a while.
    fn step(&mut self, index: usize) {
        if self.workers[index].is_dead {
            return;
        }
        let next = self.now + Duration::from_secs(1);
        let worker = &self.workers[index];
        let frozen = worker.frozen_until > self.now;
        if !frozen && worker.session.is_some() && worker.is_welcome {
            if !worker.said_ready {
                self.workers[index].said_ready = true;
                self.say(index, FromWorker::Ready);
            }
            self.finish_work(index);
            if self.workers[index].beat_at <= self.now {
                self.workers[index].beat_at = self.now + Duration::from_secs(2);
                let worker = &self.workers[index];
                let alive =
                    if worker.is_hung { Vec::new() } else { worker.running.keys().copied().collect() };
                self.say(index, FromWorker::Beat { alive });
            }
            let worker = &self.workers[index];
            if worker.drains
                && worker.running.is_empty()
                && worker.finished.is_empty()
                && worker.launch.is_none()
            {
                self.workers[index].drains = false;
                self.say(index, FromWorker::Leaving);
            }
        } else if !frozen && worker.session.is_some() && worker.launch.is_none() && !worker.said_ready {
            // On standby a worker has its models loaded all the same.
            self.workers[index].said_ready = true;
            self.say(index, FromWorker::Ready);
        }
        self.at(next, Event::Step(index));
    }

    fn finish_work(&mut self, index: usize) {
        if self.workers[index].is_hung {
            return;
        }
        let now = self.now;
        let due: Vec<(Lease, JobNumber)> = self.workers[index]
            .running
            .iter()
            .filter(|(_, (_, until))| *until <= now)
            .map(|(lease, (job, _))| (*lease, *job))
            .collect();
        for (lease, job) in due {
            let failed = self.faults && self.often(0.05);
            let report = if failed {
                Report::Failed { message: "out of memory".to_owned(), again: !self.often(0.1) }
            } else {
                Report::Done { result: b"{}".to_vec().into(), objects: Vec::new() }
            };
            self.workers[index].running.remove(&lease);
            self.workers[index].finished.insert(lease, (job, report.clone()));
            self.say(index, FromWorker::Finished { lease, job, report });
        }
    }
}
