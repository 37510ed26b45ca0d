//! Machines and workers: launches, connections, messages, work.

use std::collections::BTreeSet;

use control::command::{Command, LaunchRefusal, LaunchToken, SessionId};
use control::number::JobNumber;
use control::protocol::{FromWorker, Report, ToWorker};
use policy::model::{Lease, PoolId};
use policy::units::Duration;

use super::{Event, World};
use crate::worker::Worker;

impl World {
    pub(super) fn launch(&mut self, token: LaunchToken, pool: PoolId) {
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

    pub(super) fn reconcile(&mut self) {
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

    pub(super) fn connect(&mut self, index: usize) {
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
    pub(super) fn say(&mut self, index: usize, message: FromWorker) {
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

    pub(super) fn told(&mut self, index: usize, session: SessionId, message: ToWorker) {
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
    pub(super) fn step(&mut self, index: usize) {
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
