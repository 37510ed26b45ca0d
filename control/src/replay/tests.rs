//! Journals that are replayed, and ones that give other decisions.

use policy::model::{ClassId, RegionId};
use policy::records::JobOutcome;
use policy::units::Duration;

use super::*;
use crate::command::SessionId;
use crate::engine::Engine;
use crate::plane::Patience;
use crate::protocol::{Hello, PROTOCOL_VERSION, Report, Start, ToWorker};
use crate::retention::Forgetting;
use crate::store::{Archive, Batch as StoreBatch, Disk, DiskStore, Forgotten, Mark, SqliteStore, Visit};
use crate::submission::Submission;

pub(super) const SCENARIO: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "1/s" }
[[pipeline.stage]]
name = "render"
pool = "own"
time = "1s"
[[pipeline.stage]]
name = "finish"
pool = "own"
time = "500ms"
[fleet.pool.own]
price = "3.6 USD/h"
count = 2
[policy.scaling]
kind = "static"
"#;

fn rules(pool_count: u32) -> Rules {
    let text = SCENARIO.replace("count = 2", &format!("count = {pool_count}"));
    let loaded = scenarios::load_str("t", &text, std::path::Path::new("/"), &[]).unwrap();
    let mut rules = Rules::new(&loaded.scenario, 0, [0; 32], Patience::default()).unwrap();
    rules.joined.insert(rules.pool("own").unwrap());
    rules
}

/// A worker that takes what it is told and reports it after the stage's time.
pub(super) struct Script<S> {
    engine: Engine<S>,
    now: Instant,
    effects: Vec<Effect>,
    /// What is under way: when it ends, whose, and what.
    under_way: Vec<(Instant, SessionId, Start)>,
    sessions: Vec<SessionId>,
    beat_at: Instant,
}

impl<S: Store> Script<S> {
    pub(super) fn new(store: S, rules: Rules, at_s: u64) -> Self {
        Self::on(Engine::open(store, rules, at_s * 1000).unwrap())
    }

    fn on(engine: Engine<S>) -> Self {
        let now = engine.plane().last();
        Self { engine, now, effects: Vec::new(), under_way: Vec::new(), sessions: Vec::new(), beat_at: now }
    }

    pub(super) fn engine(&self) -> &Engine<S> {
        &self.engine
    }

    pub(super) fn into_engine(self) -> Engine<S> {
        self.engine
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    pub(super) fn tell(&mut self, command: Command) {
        self.engine.apply(self.now, command);
        self.engine.commit(&mut self.effects).unwrap();
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::Tell { session, message: ToWorker::Start(start) } = effect {
                let takes = if start.stage == "render" { 1_000 } else { 500 };
                self.under_way.push((self.now + Duration::from_millis(takes), session, *start));
            }
        }
    }

    pub(super) fn join(&mut self, session: u64) {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            name: format!("w{session}"),
            pool: "own".to_owned(),
            launch: None,
            slots: 1,
            models: Vec::new(),
            device: String::new(),
            leases: Vec::new(),
        };
        self.sessions.push(SessionId(session));
        self.tell(Command::Hello { session: SessionId(session), hello: Box::new(hello) });
        self.tell(Command::Ready { session: SessionId(session) });
    }

    pub(super) fn submit(&mut self, deadline: Option<Duration>) {
        let submission = Submission {
            tenant: 1,
            tenant_jobs_max: 100,
            class: ClassId(0),
            region: RegionId(0),
            priority: None,
            deadline,
            payload: b"{}".as_slice().into(),
            inputs: Vec::new(),
            idempotency: None,
            webhook: None,
            traceparent: None,
        };
        self.tell(Command::Submit(Box::new(submission)));
    }

    /// Goes on to `at`, with everything that ends until then.
    pub(super) fn until(&mut self, at_ms: u64, fails: Option<u64>) {
        let end = Instant::START + Duration::from_millis(at_ms);
        loop {
            let next = self.under_way.iter().map(|work| work.0).min().unwrap_or(Instant::NEVER);
            let timer = self.engine.plane().poll_timeout();
            let soonest = next.min(timer).min(self.beat_at);
            if soonest > end {
                break;
            }
            self.now = self.now.max(soonest);
            if self.beat_at <= soonest {
                self.beat_at = self.now + Duration::from_secs(2);
                for session in self.sessions.clone() {
                    let alive =
                        self.under_way.iter().filter(|work| work.1 == session).map(|work| work.2.lease);
                    let alive = alive.collect();
                    self.tell(Command::Beat { session, alive });
                }
            } else if next <= timer {
                let at = self.under_way.iter().position(|work| work.0 == next).unwrap();
                let (_, session, start) = self.under_way.remove(at);
                let report = if fails == Some(start.job.sequence()) {
                    Report::Failed { message: "no".to_owned(), again: false }
                } else {
                    Report::Done { result: b"{}".as_slice().into(), objects: Vec::new() }
                };
                self.tell(Command::Finished { session, lease: start.lease, job: start.job, report });
            } else {
                self.tell(Command::Tick);
            }
        }
        self.now = end;
    }
}

/// Ten jobs, four a second, two workers; the third job fails.
fn play<S: Store>(store: S) -> Engine<S> {
    let mut script = Script::new(store, rules(2), 1_000);
    script.join(1);
    script.join(2);
    for job in 0..10_u64 {
        script.until(100 + job * 250, Some(2));
        script.submit((job == 9).then_some(Duration::from_secs(60)));
    }
    script.until(20_000, Some(2));
    script.tell(Command::Tick);
    script.engine
}

fn origins(store: &dyn Store, count: u32) -> Vec<Origin> {
    let mut rules = rules(count);
    rules.secret = store.secret();
    vec![Origin { epoch: 1, rules }]
}

#[test]
fn a_journal_decides_alike_again_while_its_plane_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let engine = play(SqliteStore::open(folder.path()).unwrap());
    let mut store = SqliteStore::read(folder.path()).unwrap();
    let origins = origins(&store, 2);
    let verdict = verify(&mut store, &origins).unwrap();
    assert_eq!(verdict.difference, None);
    assert_eq!(verdict.commands, engine.next() - 1);
    assert_eq!((verdict.jobs_compared, verdict.epochs), (10, 1));
    assert_eq!(verdict.batches_compared, verdict.batches);
    assert!(verdict.effects_compared > 40, "{verdict:?}");
    assert!(store.append(&StoreBatch::default()).is_err(), "a journal that is read cannot be written");
}

#[test]
fn other_rules_and_other_records_are_told() {
    let folder = tempfile::tempdir().unwrap();
    drop(play(SqliteStore::open(folder.path()).unwrap()));
    let mut store = SqliteStore::read(folder.path()).unwrap();
    let fewer = origins(&store, 1);
    let difference = verify(&mut store, &fewer).unwrap().difference.expect("one machine is not two");
    assert_eq!(difference.command, 1, "{difference:?}");
    assert!(matches!(verify(&mut store, &[]), Err(ReplayError::NoOrigin)));
    // A record that was changed afterwards.
    let origins = origins(&store, 2);
    let connection = rusqlite::Connection::open(folder.path().join("journal.sqlite")).unwrap();
    let change = "UPDATE ended SET body = (SELECT body FROM ended WHERE job = 3) WHERE job = 4";
    assert_eq!(connection.execute(change, []).unwrap(), 1);
    let difference = verify(&mut store, &origins).unwrap().difference.expect("a record was changed");
    assert!(difference.what.contains("job-0-4"), "{difference:?}");
}

#[test]
fn a_day_is_read_out_of_its_journal() {
    let disk = Disk::default();
    let engine = play(DiskStore::open(&disk));
    drop(engine);
    let mut store = DiskStore::open(&disk);
    let origins = origins(&store, 2);
    let day = live_outcomes(&mut store, &origins).unwrap();
    assert_eq!(day.arrivals.len(), 10);
    assert_eq!(day.arrivals[3].at, Instant::START + Duration::from_millis(850));
    assert_eq!(day.arrivals[9].deadline, Some(Duration::from_secs(60)));
    assert_eq!((day.counts.of(JobOutcome::Done), day.counts.of(JobOutcome::Failed)), (9, 1));
    assert_eq!((day.counts.unfinished, day.counts.attempts_failed), (0, 1));
    let render = &day.measured.services[&(0, 0, 0)];
    assert!(render.len() == 9 && render.iter().all(|took| *took == 1_000_000_000), "{render:?}");
    assert_eq!(day.measured.services[&(1, 0, 0)], vec![500_000_000; 9]);
    assert_eq!(day.measured.attempts[&0], (10, 1));
    assert!(day.measured.startups.is_empty(), "workers that join by themselves have no start-up time");
    // The first job came to an idle machine; its second stage waited for a second behind those that had come meanwhile.
    assert_eq!((day.latencies[0], day.waits[0]), (2_500_000_000, 1_000_000_000));
    assert_eq!(day.peaks, [2]);
    // Two machines of 3.6 dollars an hour for 20 s.
    assert!((day.spent.as_nanos() - 40_000_000).abs() < 1_000_000, "{}", day.spent);
}

/// Two days, of which the first is forgotten.
fn cut_short<S: Store>(store: S) -> (Engine<S>, u64, i64) {
    let mut engine = play(store);
    // The mark lies where all ten have ended.
    engine.retain(Duration::from_secs(10)).unwrap();
    assert!(engine.keep_image_if_due().unwrap());
    let upto = engine.next() - 1;
    let spent = |engine: &Engine<S>| engine.plane().figures(engine.plane().last()).spent_nanousd;
    let before = spent(&engine);
    let mut script = Script::on(engine);
    script.beat_at = Instant::NEVER;
    script.join(21);
    script.submit(None);
    let ended_ms = script.now.as_nanos() / 1_000_000;
    script.until(ended_ms + 11_000, None);
    script.tell(Command::Tick);
    let mut engine = script.engine;
    let clock = engine.plane().last();
    assert_eq!(engine.forget_if_due(Instant::START).unwrap(), Forgetting::UnderWay, "not at once");
    let Forgetting::Over { mark, total } = engine.forget_if_due(clock).unwrap() else {
        panic!("it is old enough")
    };
    assert_eq!((mark.upto, total.jobs), (upto, 10));
    assert!(total.batches > 10, "{total:?}");
    assert_eq!(engine.forget_if_due(clock).unwrap(), Forgetting::Idle, "once");
    let since = spent(&engine) - before;
    (engine, upto, since)
}

#[test]
fn what_is_kept_of_a_journal_decides_alike_from_its_mark_on() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, upto, spent) = cut_short(SqliteStore::open(folder.path()).unwrap());
    let next = engine.next();
    drop(engine);
    let mut store = SqliteStore::read(folder.path()).unwrap();
    let origins = origins(&store, 2);
    let verdict = verify(&mut store, &origins).unwrap();
    assert_eq!(verdict.difference, None);
    assert_eq!((verdict.forgotten, verdict.commands), (upto, next - 1 - upto));
    assert_eq!(verdict.jobs_compared, 1);
    let day = live_outcomes(&mut store, &origins).unwrap();
    assert_eq!((day.arrivals.len(), day.counts.of(JobOutcome::Done), day.carried), (1, 1, 0));
    assert_eq!(day.arrivals[0].at, Instant::START, "times count from the mark");
    assert_eq!(day.peaks, [2], "machines that were there count");
    assert_eq!((day.spent.as_nanos(), day.spent.as_nanos() > 0), (spent, true), "since the mark");
    // A start goes on as ever, and knows its marks.
    let mut again = Engine::open(SqliteStore::open(folder.path()).unwrap(), rules(2), 2_000_000).unwrap();
    again.retain(Duration::from_secs(10)).unwrap();
    assert_eq!((again.plane().jobs_in_system(), again.next()), (0, next));
    // Without the image that it begins with, what is left says nothing.
    drop(again);
    let connection = rusqlite::Connection::open(folder.path().join("journal.sqlite")).unwrap();
    connection.execute("DELETE FROM image", []).unwrap();
    let mut store = SqliteStore::read(folder.path()).unwrap();
    assert!(matches!(verify(&mut store, &origins), Err(ReplayError::Cut(first)) if first == upto + 1));
}

#[test]
fn planes_with_other_rules_are_replayed_under_their_own() {
    let disk = Disk::default();
    drop(play(DiskStore::open(&disk)));
    let mut later = Script::new(DiskStore::open(&disk), rules(3), 1_021);
    later.join(11);
    later.submit(None);
    later.until(30_000, None);
    drop(later);
    let mut store = DiskStore::open(&disk);
    let mut origins = origins(&store, 2);
    let wrong = verify(&mut store, &origins).unwrap();
    assert!(wrong.difference.is_some(), "the second plane had three machines");
    let mut rules = rules(3);
    rules.secret = store.secret();
    origins.push(Origin { epoch: 2, rules });
    let verdict = verify(&mut store, &origins).unwrap();
    assert_eq!((verdict.difference.clone(), verdict.epochs), (None, 2), "{verdict:?}");
    assert_eq!(verdict.commands, commands_kept(&mut store), "each command is shown once");
}

fn commands_kept(store: &mut DiskStore) -> u64 {
    let mut count = 0;
    crate::journal::history(store, &mut |_, _, _| {
        count += 1;
        Ok(())
    })
    .unwrap();
    count
}

/// A store whose journal lost its beginning.
struct Cut(DiskStore);

impl Store for Cut {
    fn recover(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.history(visit)
    }

    fn history(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.0.history(&mut |batch| match batch {
            Recovered::Batch { first: 1, .. } => Ok(()),
            other => visit(other),
        })
    }

    fn append(&mut self, _: &StoreBatch) -> Result<(), StoreError> {
        Ok(())
    }

    fn keep_image(&mut self, _: Mark, _: &[u8], _: bool) -> Result<(), StoreError> {
        Ok(())
    }

    fn marks(&mut self) -> Result<Vec<Mark>, StoreError> {
        Ok(Vec::new())
    }

    fn forget(&mut self, _: Mark, _: usize) -> Result<Forgotten, StoreError> {
        Ok(Forgotten::default())
    }

    fn archive(&self) -> Box<dyn Archive> {
        self.0.archive()
    }

    fn secret(&self) -> [u8; 32] {
        self.0.secret()
    }
}

#[test]
fn a_journal_without_its_beginning_is_refused() {
    let disk = Disk::default();
    drop(play(DiskStore::open(&disk)));
    let mut store = Cut(DiskStore::open(&disk));
    let origins = origins(&store, 2);
    assert!(matches!(verify(&mut store, &origins), Err(ReplayError::Cut(3))));
}
