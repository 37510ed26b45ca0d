//! Clients and the plane: submissions, turns of the plane, what it answers and forgets.

use control::command::Command;
use control::effect::{Answer, Effect};
use control::engine::decode_record;
use control::number::JobNumber;
use control::retention::Forgetting;
use control::store::{Store, StoreError};
use control::submission::{Idempotency, Submission};
use policy::model::{ClassId, RegionId};
use policy::units::{Duration, Instant};

use super::{Event, KEEP, TENANT_MAX, World};

impl World {
    pub(super) fn submit(&mut self, client: u64, again: u8) {
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
    pub(super) fn arrive(&mut self, incarnation: Option<u64>, command: Command) {
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

    pub(super) fn plan_turn(&mut self, at: Instant) {
        if self.turn_at.is_none_or(|planned| at < planned || planned < self.now) {
            self.turn_at = Some(at);
            self.at(at, Event::Turn);
        }
    }

    pub(super) fn plane_now(&self) -> Instant {
        Instant::from_nanos(self.now.as_nanos().saturating_sub(self.skew))
    }

    pub(super) fn turn(&mut self) {
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

    pub(super) fn forgets(&self) -> bool {
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
}
