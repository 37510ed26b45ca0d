//! What a worker does under a lease, as spans below the plane's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::SpanKind;

use super::context::TraceContext;
use super::ids::span_below;
use super::outbox::Outbox;
use super::settings::TraceSettings;
use super::span::{Span, attribute, text};
use super::{TraceError, WORKER};
use crate::protocol::{Report, Start};

/// A part of the work on a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkPart {
    /// Inputs are read.
    Fetch,
    /// The model runs.
    Run,
    /// Outputs are written.
    Upload,
}

impl WorkPart {
    const fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Run => "run",
            Self::Upload => "upload",
        }
    }

    const fn kind(self) -> SpanKind {
        match self {
            Self::Fetch | Self::Upload => SpanKind::Client,
            Self::Run => SpanKind::Internal,
        }
    }
}

/// Makes the spans of one worker.
#[derive(Clone, Debug)]
pub struct WorkTraces {
    outbox: Outbox,
}

impl WorkTraces {
    /// Opens the way to the collector; spans go out by a task of the present runtime.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn open(settings: &TraceSettings) -> Result<Self, TraceError> {
        Ok(Self { outbox: Outbox::open(settings, WORKER)? })
    }

    /// Has everything sent that is in, and waits for it no longer than `limit`.
    pub async fn flush(&self, limit: Duration) -> bool {
        self.outbox.flush(limit).await
    }

    /// The spans of this work, if whoever began its trace wants them.
    pub(crate) fn of(&self, start: &Start) -> Option<WorkTrace> {
        let attempt: TraceContext = start.traceparent.as_deref()?.parse().ok()?;
        attempt.is_sampled.then(|| {
            WorkTrace(Arc::new(Work {
                outbox: self.outbox.clone(),
                attempt,
                job: start.job.to_string(),
                stage: start.stage.clone(),
                began: Instant::now(),
                began_at: SystemTime::now(),
                parts: AtomicU32::new(0),
                steps_done: AtomicU32::new(0),
                steps: AtomicU32::new(0),
            }))
        })
    }
}

/// The spans of the work under one lease; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct WorkTrace(Arc<Work>);

#[derive(Debug)]
struct Work {
    outbox: Outbox,
    attempt: TraceContext,
    job: String,
    stage: String,
    began: Instant,
    began_at: SystemTime,
    /// Spans made.
    parts: AtomicU32,
    steps_done: AtomicU32,
    steps: AtomicU32,
}

impl WorkTrace {
    /// The work is at `done` of `of` steps.
    pub(crate) fn steps(&self, done: u32, of: u32) {
        self.0.steps_done.store(done, Relaxed);
        self.0.steps.store(of, Relaxed);
    }

    /// Does a part of the work, and makes a span of it.
    pub(crate) fn during<T, E>(&self, part: WorkPart, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let began = self.0.began.elapsed();
        let result = work();
        self.note(part, began, result.is_err().then(|| "failed".to_owned()));
        result
    }

    /// The work is over. Where its parts were not told, it was one run.
    pub(crate) fn over(&self, report: &Report) {
        if self.0.parts.load(Relaxed) == 0 {
            let error = match report {
                Report::Done { .. } => None,
                Report::Failed { message, .. } => Some(message.clone()),
            };
            self.note(WorkPart::Run, Duration::ZERO, error);
        }
    }

    fn note(&self, part: WorkPart, began: Duration, error: Option<String>) {
        let Work { outbox, attempt, job, stage, .. } = &*self.0;
        let mut attributes = vec![text("headroom.job", job), text("headroom.stage", stage)];
        let steps = self.0.steps.load(Relaxed);
        if part == WorkPart::Run && steps > 0 {
            attributes.push(attribute("headroom.steps", i64::from(steps)));
            attributes.push(attribute("headroom.steps_done", i64::from(self.0.steps_done.load(Relaxed))));
        }
        let nth = self.0.parts.fetch_add(1, Relaxed);
        outbox.put(Span {
            own: TraceContext { span: span_below(*attempt, nth), ..*attempt },
            parent: attempt.span,
            is_parent_remote: true,
            name: part.name(),
            kind: part.kind(),
            began: self.0.began_at + began,
            ended: self.0.began_at + self.0.began.elapsed(),
            error,
            attributes,
        });
    }
}
