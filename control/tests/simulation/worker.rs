//! A worker as the protocol allows one, and as badly as one can be.

use std::collections::BTreeMap;

use control::command::SessionId;
use control::number::JobNumber;
use control::protocol::{FromWorker, Hello, PROTOCOL_VERSION, Report, Start, ToWorker};
use policy::model::Lease;
use policy::units::Instant;

/// One worker process.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) pool: String,
    pub(crate) slots: u16,
    pub(crate) launch: Option<String>,
    pub(crate) session: Option<SessionId>,
    pub(crate) is_welcome: bool,
    /// A plane has welcomed it before.
    pub(crate) was_in: bool,
    pub(crate) running: BTreeMap<Lease, (JobNumber, Instant)>,
    /// Said and not acknowledged.
    pub(crate) finished: BTreeMap<Lease, (JobNumber, Report)>,
    /// Does nothing, says nothing, until then.
    pub(crate) frozen_until: Instant,
    /// Runs and never finishes what it has now.
    pub(crate) is_hung: bool,
    pub(crate) is_dead: bool,
    pub(crate) drains: bool,
    pub(crate) said_ready: bool,
    pub(crate) beat_at: Instant,
    /// Nothing that it says on its connection arrives before this.
    pub(crate) hello_at: Instant,
}

impl Worker {
    pub(crate) fn new(name: String, pool: String, slots: u16, launch: Option<String>, at: Instant) -> Self {
        Self {
            name,
            pool,
            slots,
            launch,
            session: None,
            is_welcome: false,
            was_in: false,
            running: BTreeMap::new(),
            finished: BTreeMap::new(),
            frozen_until: Instant::START,
            is_hung: false,
            is_dead: false,
            drains: false,
            said_ready: false,
            beat_at: at,
            hello_at: at,
        }
    }

    /// Whether a refusal ends its part only: it joins by itself, was wanted once, and stands by again under another name.
    pub(crate) fn joins_anew(&self) -> bool {
        self.launch.is_none() && (self.was_in || self.drains)
    }

    /// First words on a new connection.
    pub(crate) fn hello(&mut self) -> FromWorker {
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
    pub(crate) fn take(
        &mut self,
        now: Instant,
        message: ToWorker,
        service: impl FnOnce(&Start) -> Instant,
    ) -> Vec<FromWorker> {
        match message {
            ToWorker::Welcome { keep, .. } => {
                self.is_welcome = true;
                self.was_in = true;
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
