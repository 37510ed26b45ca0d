//! Arbitrary bytes as what workers say: as frames, which are refused or within all limits, and as a conversation of up to
//! three lying workers with a plane, which believes none of them more than it should.
//!
//! [`drive`] is the judge; the fuzz target `worker_protocol` gives it bytes, the test below does so without one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use control::command::{Command, SessionId};
use control::effect::{Answer, Effect};
use control::number::JobNumber;
use control::plane::{Patience, Plane, Rules};
use control::protocol::{
    FromWorker, Hello, LEASES_MAX, MESSAGE_BYTES_MAX, PROTOCOL_VERSION, Report, ToWorker, decode_from_worker,
    decode_to_worker, encode, frames,
};
use control::submission::{RESULT_BYTES_MAX, Submission};
use policy::model::{ClassId, Lease, PoolId, RegionId};
use policy::units::{Duration, Instant};

const SCENARIO: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "1/s" }
[[pipeline.stage]]
name = "generate"
pool = "gpu"
time = "1s"
lease = "4s"
[fleet.pool.gpu]
provider = "aws"
region = "us-east-1"
instance_type = "g6.xlarge"
slots = 2
count = 2
count_max = 2
[policy]
scaling = "static"
[objective]
deadline = "5min"
[run]
horizon = "1h"
"#;

/// Judges what bytes do.
pub fn drive(bytes: &[u8]) {
    judge_frame(bytes);
    Conversation::new().hold(bytes);
}

fn judge_frame(bytes: &[u8]) {
    let _ = decode_to_worker(bytes);
    let Ok(messages) = decode_from_worker(bytes) else { return };
    assert!(bytes.len() <= MESSAGE_BYTES_MAX);
    for message in &messages {
        match message {
            FromWorker::Beat { alive } => assert!(alive.len() <= LEASES_MAX),
            FromWorker::Finished { report: Report::Done { result, .. }, .. } => {
                assert!(result.len() <= RESULT_BYTES_MAX);
            }
            _ => {}
        }
    }
    assert_eq!(decode_from_worker(&encode(&messages)), Ok(messages.clone()));
    let framed: Vec<FromWorker> =
        frames(&messages).iter().flat_map(|frame| decode_from_worker(frame).expect("own frames")).collect();
    assert_eq!(framed, messages);
}

/// Three workers and a plane.
struct Conversation {
    plane: Plane,
    now: Instant,
    effects: Vec<Effect>,
    /// By worker: its present session.
    sessions: [Option<SessionId>; 3],
    next_session: u64,
    /// What each session was told to do.
    told: BTreeMap<SessionId, Vec<(Lease, JobNumber)>>,
    accepted: BTreeSet<Lease>,
    jobs: BTreeSet<JobNumber>,
    ended: BTreeSet<JobNumber>,
}

impl Conversation {
    fn new() -> Self {
        let loaded = scenarios::load_str("test", SCENARIO, Path::new("."), &[]).expect("the scenario");
        let mut rules = Rules::new(&loaded.scenario, 0, [1; 32], Patience::default()).expect("the rules");
        rules.joined.insert(PoolId(0));
        let mut effects = Vec::new();
        let plane = Plane::new(rules, &mut effects).expect("the plane");
        Self {
            plane,
            now: Instant::START,
            effects,
            sessions: [None; 3],
            next_session: 0,
            told: BTreeMap::new(),
            accepted: BTreeSet::new(),
            jobs: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }

    fn hold(mut self, bytes: &[u8]) {
        self.give(Command::TookOver { epoch: 1, unix_ms: 0 });
        for pair in bytes.chunks_exact(2) {
            self.step(pair[0], pair[1]);
        }
        assert_eq!(self.plane.jobs_in_system(), self.jobs.len() - self.ended.len());
    }

    fn step(&mut self, what: u8, how: u8) {
        let worker = usize::from(how % 3);
        let choice = usize::from(how / 3);
        let session = self.sessions[worker];
        match (what % 10, session) {
            (0, _) => self.submit(),
            (1, _) => self.hello(worker, choice),
            (2, Some(session)) => self.give(Command::Ready { session }),
            (3, Some(session)) => {
                let alive = (0..choice % 4).map(|at| self.some_lease(choice + at).0).collect();
                self.give(Command::Beat { session, alive });
            }
            (4 | 5, Some(session)) => {
                let (lease, job) = self.some_lease(choice);
                let report = match choice % 3 {
                    0 => Report::Failed { message: "x".to_owned(), again: choice.is_multiple_of(2) },
                    _ => Report::Done { result: b"1".as_slice().into(), objects: Vec::new() },
                };
                self.give(Command::Finished { session, lease, job, report });
            }
            (6, Some(session)) => {
                self.sessions[worker] = None;
                self.give(Command::Disconnected { session });
            }
            (7, Some(session)) => self.give(Command::Leaving { session }),
            (8, Some(session)) => self.give(Command::Notice { session, seconds: u32::from(how) }),
            _ => {
                self.now += Duration::from_millis(u64::from(how) * 40);
                if self.plane.poll_timeout() <= self.now {
                    self.give(Command::Tick);
                }
            }
        }
    }

    fn submit(&mut self) {
        self.give(Command::Submit(Box::new(Submission {
            tenant: 1,
            tenant_jobs_max: u32::MAX,
            class: ClassId(0),
            region: RegionId(0),
            priority: None,
            deadline: None,
            payload: b"{}".as_slice().into(),
            inputs: Vec::new(),
            idempotency: None,
            webhook: None,
            traceparent: None,
        })));
    }

    fn hello(&mut self, worker: usize, choice: usize) {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.sessions[worker] = Some(session);
        let hello = Hello {
            version: PROTOCOL_VERSION + u16::from(choice % 16 == 15),
            name: format!("worker-{}", choice % 4),
            pool: if choice % 16 == 14 { "other" } else { "gpu" }.to_owned(),
            launch: (choice % 16 == 13).then(|| "0".repeat(32)),
            slots: if choice % 16 == 12 { 1 } else { 2 },
            models: Vec::new(),
            device: String::new(),
            leases: (0..choice % 3).map(|at| self.some_lease(choice + at).0).collect(),
        };
        self.give(Command::Hello { session, hello: Box::new(hello) });
    }

    /// A lease that somebody was told, or an invented one.
    fn some_lease(&self, choice: usize) -> (Lease, JobNumber) {
        let all: Vec<(Lease, JobNumber)> = self.told.values().flatten().copied().collect();
        let invented =
            (Lease { slot: choice as u32, token: choice as u32 % 3 }, JobNumber(choice as u64 % 5));
        if all.is_empty() || choice.is_multiple_of(7) { invented } else { all[choice % all.len()] }
    }

    fn give(&mut self, command: Command) {
        let said = match &command {
            Command::Finished { session, lease, job, .. } => Some((*session, *lease, *job)),
            _ => None,
        };
        self.plane.apply(self.now, command, &mut self.effects);
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Answer(Answer::Accepted(job)) => assert!(self.jobs.insert(job)),
                Effect::Tell { session, message: ToWorker::Start(start) } => {
                    assert!(!self.ended.contains(&start.job), "{} was started after its end", start.job);
                    self.told.entry(session).or_default().push((start.lease, start.job));
                }
                Effect::Tell { message: ToWorker::Ack { lease, accepted: true }, .. } => {
                    let (_, claimed, job) = said.expect("only a report is acknowledged");
                    assert_eq!(claimed, lease);
                    assert!(self.accepted.insert(lease), "accepted twice under one lease");
                    let was_told = self.told.values().flatten().any(|told| *told == (lease, job));
                    assert!(was_told, "nobody was told to work on {job} under {lease:?}");
                }
                Effect::Ended(record) => assert!(self.ended.insert(record.job), "{} ended twice", record.job),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::units::random::Stream;

    use super::drive;

    #[test]
    fn no_conversation_makes_the_plane_believe_a_lie() {
        for case in 0..400 {
            let stream = Stream::new(11, case, "conversation");
            let bytes: Vec<u8> = (0..40 + case % 400).map(|at| stream.bits(at) as u8).collect();
            drive(&bytes);
        }
    }

    #[test]
    fn damaged_frames_are_refused_or_read_within_limits() {
        use control::protocol::{FromWorker, Report, encode};
        use policy::model::Lease;
        let lease = Lease { slot: 3, token: 9 };
        let report = Report::Done { result: b"{\"a\": 1}".as_slice().into(), objects: vec!["k".to_owned()] };
        let good = encode(&[
            FromWorker::Ready,
            FromWorker::Beat { alive: vec![lease; 5] },
            FromWorker::Finished { lease, job: control::number::JobNumber(4), report },
        ]);
        for at in 0..good.len() {
            for change in [0x01, 0x80, 0xFF] {
                let mut bytes = good.clone();
                bytes[at] ^= change;
                super::judge_frame(&bytes);
            }
        }
    }
}
