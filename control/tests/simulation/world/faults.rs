//! Faults: of the plane's process, of workers and of the network.

use control::command::{Command, LaunchToken};
use control::engine::Engine;
use control::store::{DiskFault, DiskStore};
use policy::units::Duration;

use super::{Event, KEEP, World};
use crate::scenarios;
use crate::worker::Worker;

impl World {
    pub(super) fn crash(&mut self) {
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

    pub(super) fn restart(&mut self) {
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

    pub(super) fn fault(&mut self) {
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
    pub(super) fn begin_anew(&mut self, worker: usize) {
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
}
