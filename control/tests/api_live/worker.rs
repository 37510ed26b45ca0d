//! A worker in this process. Payloads say what it does: `{"hold": true}` waits for [`Bench::release`], `{"fail": "..."}`
//! fails for good, anything else is done at once with the payload as the result.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use control::command::{Command, SessionId};
use control::number::JobNumber;
use control::protocol::{Hello, PROTOCOL_VERSION, Report, Start, ToWorker};
use control::shell::Handle;
use policy::model::Lease;
use serde_json::Value;
use tokio::sync::mpsc;

/// Jobs that are held.
#[derive(Clone)]
pub(crate) struct Bench {
    handle: Handle,
    session: SessionId,
    held: Arc<Mutex<Vec<(Lease, JobNumber)>>>,
}

impl Bench {
    /// A worker with `slots` slots joins.
    pub(crate) async fn join(handle: &Handle, slots: u16) -> Self {
        let (session, orders) = handle.attach().await.expect("the plane runs");
        let hello = Hello {
            version: PROTOCOL_VERSION,
            name: "bench".to_owned(),
            pool: "gpu".to_owned(),
            launch: None,
            slots,
            models: Vec::new(),
            device: "none".to_owned(),
            leases: Vec::new(),
        };
        let bench = Self { handle: handle.clone(), session, held: Arc::default() };
        bench.tell(Command::Hello { session, hello: Box::new(hello) }).await;
        tokio::spawn(bench.clone().work(orders));
        tokio::spawn(bench.clone().beat());
        bench
    }

    /// Jobs that are held now.
    pub(crate) fn held(&self) -> Vec<JobNumber> {
        self.held.lock().expect("no panic").iter().map(|(_, job)| *job).collect()
    }

    /// Finishes what is held.
    pub(crate) async fn release(&self) {
        let held = std::mem::take(&mut *self.held.lock().expect("no panic"));
        for (lease, job) in held {
            self.finish(lease, job, done(b"\"released\"")).await;
        }
    }

    /// Says how far all held jobs are.
    pub(crate) fn progress(&self, done: u32, of: u32) {
        for (lease, job) in self.held.lock().expect("no panic").iter() {
            self.handle.progress(self.session, *lease, *job, done, of);
        }
    }

    async fn work(self, mut orders: mpsc::UnboundedReceiver<ToWorker>) {
        while let Some(order) = orders.recv().await {
            match order {
                ToWorker::Welcome { .. } => self.tell(Command::Ready { session: self.session }).await,
                ToWorker::Start(start) => self.start(*start).await,
                ToWorker::Revoke { lease } => {
                    self.held.lock().expect("no panic").retain(|(held, _)| *held != lease);
                }
                ToWorker::Standby | ToWorker::Refused { .. } | ToWorker::Ack { .. } | ToWorker::Drain => {}
            }
        }
    }

    async fn start(&self, start: Start) {
        let payload: Value = serde_json::from_slice(&start.payload).expect("payloads are JSON");
        if payload.get("hold").is_some() {
            self.held.lock().expect("no panic").push((start.lease, start.job));
            return;
        }
        let report = match payload.get("fail") {
            Some(message) => {
                Report::Failed { message: message.as_str().unwrap_or("failed").to_owned(), again: false }
            }
            None => done(&start.payload),
        };
        self.finish(start.lease, start.job, report).await;
    }

    async fn beat(self) {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let alive = self.held.lock().expect("no panic").iter().map(|(lease, _)| *lease).collect();
            if self.handle.tell(Command::Beat { session: self.session, alive }).await.is_err() {
                return;
            }
        }
    }

    async fn finish(&self, lease: Lease, job: JobNumber, report: Report) {
        self.tell(Command::Finished { session: self.session, lease, job, report }).await;
    }

    async fn tell(&self, command: Command) {
        // A plane that was stopped by the test hears nothing.
        let _ = self.handle.tell(command).await;
    }
}

fn done(result: &[u8]) -> Report {
    Report::Done { result: result.into(), objects: Vec::new() }
}
