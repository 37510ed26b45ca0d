//! A worker as the protocol allows one, and as badly as one can be.

use std::collections::BTreeMap;

use control::command::SessionId;
use control::number::JobNumber;
use control::protocol::{FromWorker, Hello, PROTOCOL_VERSION, Report, Start, ToWorker};
use policy::model::Lease;
use policy::units::Instant;

/// One worker process.
#[derive(Clone, Debug)]
pub struct Worker {
    pub name: String,
    pub pool: String,
    pub slots: u16,
    pub launch: Option<String>,
    pub session: Option<SessionId>,
    pub is_welcome: bool,
    pub running: BTreeMap<Lease, (JobNumber, Instant)>,
    /// Said and not acknowledged.
    pub finished: BTreeMap<Lease, (JobNumber, Report)>,
    /// Does nothing, says nothing, until then.
    pub frozen_until: Instant,
    /// Runs and never finishes what it has now.
    pub is_hung: bool,
    pub is_dead: bool,
    pub drains: bool,
    pub ready_at: Instant,
    pub said_ready: bool,
    pub beat_at: Instant,
    pub connect_at: Instant,
}

impl Worker {
    pub fn new(name: String, pool: String, slots: u16, launch: Option<String>, at: Instant) -> Self {
        Self {
            name,
            pool,
            slots,
            launch,
            session: None,
            is_welcome: false,
            running: BTreeMap::new(),
            finished: BTreeMap::new(),
            frozen_until: Instant::START,
            is_hung: false,
            is_dead: false,
            drains: false,
            ready_at: at,
            said_ready: false,
            beat_at: at,
            connect_at: at,
        }
    }

    /// First words on a new connection.
    pub fn hello(&mut self) -> FromWorker {
        self.is_welcome = false;
        self.said_ready = false;
        let mut leases: Vec<Lease> = self.running.keys().copied().collect();
        leases.extend(self.finished.keys());
        FromWorker::Hello(Box::new(Hello {
            version: PROTOCOL_VERSION,
            name: self.name.clone(),
            pool: self.pool.clone(),
            launch: self.launch.clone(),
            slots: self.slots,
            models: Vec::new(),
            device: "simulated".to_owned(),
            leases,
        }))
    }

    /// Takes what the plane says; `service` is how long a new job will take.
    pub fn take(
        &mut self,
        now: Instant,
        message: ToWorker,
        service: impl FnOnce(&Start) -> Instant,
    ) -> Vec<FromWorker> {
        match message {
            ToWorker::Welcome { keep, .. } => {
                self.is_welcome = true;
                self.running.retain(|lease, _| keep.contains(lease));
                self.finished.retain(|lease, _| keep.contains(lease));
                let again = self.finished.iter();
                again
                    .map(|(lease, (job, report))| FromWorker::Finished {
                        lease: *lease,
                        job: *job,
                        report: report.clone(),
                    })
                    .collect()
            }
            ToWorker::Start(start) => {
                if !self.finished.contains_key(&start.lease) && !self.running.contains_key(&start.lease) {
                    let until = service(&start);
                    self.running.insert(start.lease, (start.job, until));
                }
                Vec::new()
            }
            ToWorker::Revoke { lease } => {
                self.running.remove(&lease);
                self.finished.remove(&lease);
                Vec::new()
            }
            ToWorker::Ack { lease, .. } => {
                self.finished.remove(&lease);
                Vec::new()
            }
            ToWorker::Refused { .. } => {
                self.is_dead = true;
                Vec::new()
            }
            ToWorker::Drain => {
                self.drains = true;
                Vec::new()
            }
            ToWorker::Standby => {
                let _ = now;
                Vec::new()
            }
        }
    }
}
