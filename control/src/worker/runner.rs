//! Who does the work, and how it is told to stop and tells how far it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use policy::model::Lease;
use tokio::sync::mpsc;

use crate::number::JobNumber;
use crate::protocol::{Report, Start};
use crate::trace::{WorkPart, WorkTrace};

/// Time between two reports of progress of one job.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What a worker can do, for its first words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skills {
    /// Models, by name.
    pub models: Vec<String>,
    /// Device, for people.
    pub device: String,
}

/// Work whose length and end are known when it begins. It holds no thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    /// How long it takes; zero is done at once.
    pub after: Duration,
    /// How it ends.
    pub report: Report,
}

/// Does the work of a worker.
pub trait Runner: Send + Sync + 'static {
    /// What it can do; known without loading anything.
    fn skills(&self) -> Skills;

    /// Loads what the first job needs; called once, on a thread of its own, while the worker joins.
    ///
    /// # Errors
    /// A message for people; the worker ends with it.
    fn prepare(&self) -> Result<(), String> {
        Ok(())
    }

    /// Work that needs no thread; asked first, and must be quick. `None` has [`Runner::run`] called.
    fn timed(&self, _start: &Start) -> Option<Timed> {
        None
    }

    /// Works on a stage of a job, on a thread that may block. It asks [`JobControl::is_cancelled`] between steps, and tells
    /// [`JobControl::progress`]: work that does neither for long is taken for hung.
    fn run(&self, start: Start, control: JobControl) -> Report;
}

/// What happens beside the connection.
#[derive(Debug)]
pub(super) enum Event {
    /// Models are loaded, or cannot be.
    Prepared(Result<(), String>),
    /// Work ended.
    Finished { lease: Lease, job: JobNumber, report: Report },
    /// Work is so far.
    Progress { lease: Lease, job: JobNumber, done: u32, of: u32 },
    /// The device does not work any more.
    DeviceFailed(String),
    /// The machine will be taken away in so many seconds.
    Notice(u32),
}

/// Between a job's work and the worker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JobControl(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lease: Lease,
    job: JobNumber,
    began: Instant,
    is_cancelled: AtomicBool,
    /// Milliseconds after `began` of the last sign of life.
    moved_ms: AtomicU64,
    /// The same of the last progress that was told.
    told_ms: AtomicU64,
    /// Only of traced jobs.
    trace: Option<WorkTrace>,
    events: mpsc::UnboundedSender<Event>,
}

impl JobControl {
    pub(super) fn new(
        lease: Lease,
        job: JobNumber,
        events: mpsc::UnboundedSender<Event>,
        trace: Option<WorkTrace>,
    ) -> Self {
        Self(Arc::new(Shared {
            lease,
            job,
            began: Instant::now(),
            is_cancelled: AtomicBool::new(false),
            moved_ms: AtomicU64::new(0),
            told_ms: AtomicU64::new(0),
            trace,
            events,
        }))
    }

    /// For runs outside a worker, as in tests: nobody cancels, nobody listens.
    pub fn alone() -> Self {
        let lease = Lease { slot: 0, token: 0 };
        Self::new(lease, JobNumber(0), mpsc::unbounded_channel().0, None)
    }

    /// Does a part of the work; of a traced job it becomes a span.
    ///
    /// # Errors
    /// Those of the work.
    pub fn during<T, E>(&self, part: WorkPart, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        match &self.0.trace {
            Some(trace) => trace.during(part, work),
            None => work(),
        }
    }

    /// Says that work is at `done` of `of` parts. It counts as a sign of life.
    pub fn progress(&self, done: u32, of: u32) {
        if let Some(trace) = &self.0.trace {
            trace.steps(done, of);
        }
        let now = self.moved();
        let told = self.0.told_ms.load(Ordering::Relaxed);
        let pause = PROGRESS_EVERY.as_millis() as u64;
        if done >= of || now >= told + pause || told == 0 {
            self.0.told_ms.store(now.max(1), Ordering::Relaxed);
            let Shared { lease, job, .. } = *self.0;
            let _ = self.0.events.send(Event::Progress { lease, job, done, of });
        }
    }

    /// Notes a sign of life.
    pub fn moved(&self) -> u64 {
        let now = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.moved_ms.store(now, Ordering::Relaxed);
        now
    }

    /// Whether the result is not wanted any more.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::Relaxed)
    }

    /// Says that the device has failed for good: the worker reports this job and ends.
    pub fn device_failed(&self, why: String) {
        let _ = self.0.events.send(Event::DeviceFailed(why));
    }

    pub(super) fn cancel(&self) {
        self.0.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Time since the last sign of life.
    pub(super) fn still_for(&self, now: Instant) -> Duration {
        let moved = self.0.began + Duration::from_millis(self.0.moved_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(moved)
    }
}
