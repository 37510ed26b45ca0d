//! Spans on their way out: a queue of bounded length that never makes anybody wait, and the task that empties it. What has no
//! room, and what the collector does not take, is dropped and counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::TraceError;
use super::collector::{LastFailure, exporter};
use super::settings::TraceSettings;
use super::span::Span;

/// Spans that may wait; with half a kilobyte each, 4 MiB.
const WAITING_MAX: usize = 8192;

/// Spans of one request at most.
const BATCH_MAX: usize = 512;

/// The first span of a request waits so long for others.
const GATHER_FOR: Duration = Duration::from_secs(1);

/// One request with its retries.
const EXPORT_FOR: Duration = Duration::from_secs(15);

/// What became of spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    /// The collector took them.
    pub exported: AtomicU64,
    /// There was no room.
    pub dropped_full: AtomicU64,
    /// The collector was not reached, or refused.
    pub dropped_refused: AtomicU64,
    /// Jobs that should have been traced, when too many were already.
    pub jobs_skipped: AtomicU64,
}

/// Where finished spans are put; cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    sender: mpsc::Sender<Parcel>,
    counts: Arc<SpanCounts>,
    scope: InstrumentationScope,
}

#[derive(Debug)]
enum Parcel {
    Span(Box<SpanData>),
    /// Everything before it must go out now; then say so.
    Flush(oneshot::Sender<()>),
}

impl Outbox {
    /// Opens the way to the collector, as `service`; spans go out by a task of the present runtime, which ends with the
    /// last outbox.
    ///
    /// # Errors
    /// [`TraceError`] when the settings or the environment name no collector.
    pub fn open(settings: &TraceSettings, service: &'static str) -> Result<Self, TraceError> {
        let (exporter, failure) = exporter(settings, service)?;
        let (outbox, receiver) = Self::new(WAITING_MAX);
        let counts = outbox.counts.clone();
        tokio::spawn(Postman { exporter, failure, counts, has_failed: false }.run(receiver));
        Ok(outbox)
    }

    fn new(waiting_max: usize) -> (Self, mpsc::Receiver<Parcel>) {
        let (sender, receiver) = mpsc::channel(waiting_max);
        let scope = InstrumentationScope::builder("headroom").with_version(env!("CARGO_PKG_VERSION")).build();
        (Self { sender, counts: Arc::default(), scope }, receiver)
    }

    /// Puts a span in; drops it where there is no room.
    pub(crate) fn put(&self, span: Span) {
        let parcel = |span: Span| Parcel::Span(Box::new(span.into_data(self.scope.clone())));
        match self.sender.try_reserve() {
            Ok(place) => place.send(parcel(span)),
            Err(_) => {
                self.counts.dropped_full.fetch_add(1, Relaxed);
            }
        }
    }

    /// A job that should be traced is not, since too many are.
    pub(crate) fn skip(&self) {
        self.counts.jobs_skipped.fetch_add(1, Relaxed);
    }

    /// What became of spans so far.
    pub fn counts(&self) -> &SpanCounts {
        &self.counts
    }

    /// Has everything sent that is in, and waits for it no longer than `limit`. Gives whether it was in time.
    pub async fn flush(&self, limit: Duration) -> bool {
        let (sender, done) = oneshot::channel();
        let flush = async {
            let _ = self.sender.send(Parcel::Flush(sender)).await;
            done.await.is_ok()
        };
        timeout(limit, flush).await.unwrap_or(false)
    }
}

/// Empties an outbox.
struct Postman {
    exporter: SpanExporter,
    failure: LastFailure,
    counts: Arc<SpanCounts>,
    /// The last request failed, and the log says so.
    has_failed: bool,
}

impl Postman {
    async fn run(mut self, mut receiver: mpsc::Receiver<Parcel>) {
        while let Some(first) = receiver.recv().await {
            let until = Instant::now() + GATHER_FOR;
            let (mut spans, mut flushed) = (Vec::new(), None);
            let mut next = Some(first);
            while let Some(parcel) = next.take() {
                match parcel {
                    Parcel::Span(span) => spans.push(*span),
                    Parcel::Flush(done) => {
                        flushed = Some(done);
                        break;
                    }
                }
                if spans.len() < BATCH_MAX {
                    next = timeout_at(until, receiver.recv()).await.ok().flatten();
                }
            }
            if !spans.is_empty() {
                self.export(spans).await;
            }
            if let Some(done) = flushed {
                let _ = done.send(());
            }
        }
    }

    async fn export(&mut self, spans: Vec<SpanData>) {
        let count = spans.len() as u64;
        let is_taken = matches!(timeout(EXPORT_FOR, self.exporter.export(spans)).await, Ok(Ok(())));
        if is_taken {
            self.counts.exported.fetch_add(count, Relaxed);
            if std::mem::take(&mut self.has_failed) {
                tracing::info!("the trace collector takes spans again");
            }
            return;
        }
        self.counts.dropped_refused.fetch_add(count, Relaxed);
        if !std::mem::replace(&mut self.has_failed, true) {
            let why = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let why = if why.is_empty() { "no answer in time" } else { &why };
            tracing::warn!("the trace collector takes no spans, they are dropped and counted: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::trace::SpanKind;

    use super::*;
    use crate::trace::TraceContext;

    fn span() -> Span {
        Span {
            own: TraceContext { trace: 1, span: 2, is_sampled: true },
            parent: 0,
            is_parent_remote: false,
            name: "job",
            kind: SpanKind::Server,
            began: SystemTime::UNIX_EPOCH,
            ended: SystemTime::UNIX_EPOCH,
            error: None,
            attributes: Vec::new(),
        }
    }

    #[tokio::test]
    async fn full_outbox_drops_and_counts_and_nobody_waits() {
        let (outbox, mut receiver) = Outbox::new(3);
        for _ in 0..5 {
            outbox.put(span());
        }
        assert_eq!(outbox.counts().dropped_full.load(Relaxed), 2);
        assert!(!outbox.flush(Duration::from_millis(20)).await, "nobody empties it");
        for _ in 0..3 {
            assert!(matches!(receiver.recv().await, Some(Parcel::Span(_))));
        }
        outbox.put(span());
        assert_eq!(outbox.counts().dropped_full.load(Relaxed), 2, "there is room again");
    }

    #[tokio::test]
    async fn outbox_without_a_postman_flushes_at_once() {
        let (outbox, receiver) = Outbox::new(3);
        drop(receiver);
        let begun = Instant::now();
        assert!(!outbox.flush(Duration::from_secs(60)).await);
        assert!(begun.elapsed() < Duration::from_secs(30));
        outbox.put(span());
        assert_eq!(outbox.counts().dropped_full.load(Relaxed), 1);
    }
}
