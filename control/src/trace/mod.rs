//! Traces of jobs in OpenTelemetry: from a job's arrival over its waits and attempts to its end and announcement, and what its
//! workers did meanwhile. It watches what is durable already and decides nothing; it never makes the plane wait: what has no
//! room is dropped and counted.
//!
//! The SDK's tracers make ids and times of their own at the moment of a call. Here both are known beforehand (ids are made from
//! the job, times are the plane's), so finished spans are built whole and given to the SDK's exporter.

mod collector;
mod context;
mod ids;
mod observer;
mod open;
mod outbox;
mod settings;
mod span;
mod work;

pub use context::{ContextError, TraceContext};
pub use observer::Observer;
pub use outbox::{Outbox, SpanCounts};
pub use settings::{RATIO, TraceSettings};
pub use work::{WorkPart, WorkTraces};

pub(crate) use work::WorkTrace;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::SpanKind;

use crate::number::JobNumber;
use ids::{Ids, Part};
use span::{Span, attribute, text};

/// Name of the plane among services, where the environment gives no other.
pub const PLANE: &str = "headroom";

/// Name of workers among services, where the environment gives no other.
pub const WORKER: &str = "headroom-worker";

/// An orderly end waits so long for the last spans.
pub const FLUSH_FOR: Duration = Duration::from_secs(3);

/// Traced jobs whose announcements are not settled, at most; others' announcements have no spans.
const ANNOUNCED_MAX: usize = 65_536;

/// Traces that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no trace collector can be used: {0}; name one like http://127.0.0.1:4318")]
pub struct TraceError(String);

/// What the plane's observer and the rest of its process share.
#[derive(Debug)]
pub struct Traces {
    outbox: Outbox,
    ids: Ids,
    /// Root spans of the jobs whose end is being announced.
    announced: Mutex<HashMap<JobNumber, TraceContext>>,
}

impl Traces {
    fn new(outbox: Outbox, ids: Ids) -> Self {
        Self { outbox, ids, announced: Mutex::default() }
    }

    /// Where spans go.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    fn announced(&self) -> MutexGuard<'_, HashMap<JobNumber, TraceContext>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of a traced job is to be announced.
    fn announce(&self, job: JobNumber, root: TraceContext) {
        let mut announced = self.announced();
        if announced.len() < ANNOUNCED_MAX {
            announced.insert(job, root);
        }
    }

    /// The announcement is made, or given up.
    fn settled(&self, job: JobNumber) {
        self.announced().remove(&job);
    }

    /// The end of a job was announced, or that failed for the reason given; `attempt` counts from 1.
    pub(crate) fn called(&self, job: JobNumber, attempt: u64, began: SystemTime, error: Option<String>) {
        let Some(root) = self.announced().get(&job).copied() else { return };
        self.outbox.put(Span {
            own: TraceContext { span: self.ids.span(job, Part::Webhook { attempt }), ..root },
            parent: root.span,
            is_parent_remote: false,
            name: "webhook",
            kind: SpanKind::Client,
            began,
            ended: SystemTime::now(),
            error,
            attributes: vec![
                text("headroom.job", &job.to_string()),
                attribute("headroom.webhook.attempt", i64::try_from(attempt).unwrap_or(i64::MAX)),
            ],
        });
    }
}
