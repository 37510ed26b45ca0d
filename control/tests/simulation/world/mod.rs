//! The world around one plane, in simulated time: clients, a network, workers, a provider, a disk, and faults by seed.

mod faults;
mod machines;
mod outcome;
mod turn;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use control::command::{Command, LaunchToken, SessionId};
use control::engine::{Engine, decode_record, fold};
use control::number::JobNumber;
use control::plane::{Plane, PlaneImage, Rules};
use control::protocol::ToWorker;
use control::replay::verify;
use control::store::{Disk, DiskFault, DiskStore, Store};
use policy::model::PoolId;
use policy::records::JobOutcome;
use policy::units::random::Stream;
use policy::units::{Duration, Instant};

use super::cloud::Cloud;
use super::judge::Judge;
use super::scenarios;
use super::worker::Worker;
pub(crate) use outcome::Outcome;

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
}
