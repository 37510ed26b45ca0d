//! What the API counts while it works, in atomics; [`super::exporter`] shows it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use policy::model::ClassId;
use policy::records::{InstanceEnd, JobOutcome};

use super::histogram::Histogram;
use super::route::Route;
use crate::effect::{Answer, Refusal};
use crate::shell::Row;

/// Classes that are told apart (a system has no more).
pub(crate) const CLASSES_MAX: usize = 64;

/// Answers to submissions, as metrics name them.
pub(crate) const ANSWERS: [&str; 6] =
    ["accepted", "replayed", "key-reused", "would-be-late", "queue-full", "tenant-full"];

/// Statuses that are told apart; the last counts all others.
pub(crate) const STATUSES: [u16; 18] =
    [101, 200, 201, 202, 204, 206, 400, 401, 403, 404, 405, 408, 409, 413, 422, 429, 500, 503];

/// Counts since the process began.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) requests: [[AtomicU64; STATUSES.len() + 1]; Route::ALL.len()],
    pub(crate) durations: [Histogram; Route::ALL.len()],
    pub(crate) classes: Box<[ClassCounts]>,
    /// Instances that ended, by pool and reason.
    pub(crate) instances: Mutex<BTreeMap<(String, &'static str), u64>>,
    /// Rows that came too fast to be counted.
    pub(crate) rows_lost: AtomicU64,
    pub(crate) unauthorized: AtomicU64,
    pub(crate) too_fast: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    /// Open now.
    pub(crate) connections: AtomicU64,
    /// Open now.
    streams: Arc<AtomicU64>,
}

/// Counts of one class.
#[derive(Debug, Default)]
pub(crate) struct ClassCounts {
    pub(crate) submitted: [AtomicU64; ANSWERS.len()],
    pub(crate) ended: [AtomicU64; JobOutcome::ALL.len()],
    pub(crate) wait: Histogram,
    pub(crate) service: Histogram,
}

/// An open stream; counted until it is dropped.
pub(crate) struct OpenStream(Arc<AtomicU64>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            requests: Default::default(),
            durations: std::array::from_fn(|_| Histogram::default()),
            classes: (0..CLASSES_MAX).map(|_| ClassCounts::default()).collect(),
            instances: Mutex::default(),
            rows_lost: AtomicU64::new(0),
            unauthorized: AtomicU64::new(0),
            too_fast: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            streams: Arc::default(),
        }
    }
}

impl Counters {
    /// A request was answered; of a stream, its head.
    pub(crate) fn answered(&self, route: Route, status: StatusCode, took: Duration) {
        let place = STATUSES.binary_search(&status.as_u16()).unwrap_or(STATUSES.len());
        self.requests[route as usize][place].fetch_add(1, Relaxed);
        self.durations[route as usize].note(took);
    }

    /// A submission was answered.
    pub(crate) fn submitted(&self, class: ClassId, answer: &Answer) {
        let place = match answer {
            Answer::Accepted(_) => 0,
            Answer::Known(_) => 1,
            Answer::OtherBody(_) => 2,
            Answer::Rejected { why: Refusal::WouldBeLate, .. } => 3,
            Answer::Rejected { why: Refusal::QueueFull, .. } => 4,
            Answer::Rejected { why: Refusal::TenantFull, .. } => 5,
            Answer::Cancelled | Answer::NotRunning | Answer::Reloaded | Answer::NotReloaded(_) => return,
        };
        if let Some(class) = self.classes.get(class.index()) {
            class.submitted[place].fetch_add(1, Relaxed);
        }
    }

    /// A request was turned away before anybody looked at it.
    pub(crate) fn turned_away(&self, status: StatusCode) {
        match status {
            StatusCode::UNAUTHORIZED => self.unauthorized.fetch_add(1, Relaxed),
            StatusCode::TOO_MANY_REQUESTS => self.too_fast.fetch_add(1, Relaxed),
            _ => 0,
        };
    }

    /// A stream of events begins.
    pub(crate) fn opened_stream(&self) -> OpenStream {
        self.streams.fetch_add(1, Relaxed);
        OpenStream(self.streams.clone())
    }

    /// Streams of events that are open.
    pub(crate) fn streams(&self) -> u64 {
        self.streams.load(Relaxed)
    }

    /// A record of the run.
    pub(crate) fn row(&self, row: &Row) {
        match row {
            Row::Job(record) => {
                let Some(class) = self.classes.get(usize::from(record.class)) else { return };
                class.ended[record.outcome as usize].fetch_add(1, Relaxed);
                class.wait.note(Duration::from_nanos(record.waited.as_nanos()));
                if record.deliveries > 0 {
                    class.service.note(Duration::from_nanos(record.served.as_nanos()));
                }
            }
            Row::Instance(row) => {
                let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
                *instances.entry((row.pool.clone(), row.end.name())).or_insert(0) += 1;
            }
            Row::Decided(_) | Row::Minute(_) => {}
        }
    }

    /// Instances that ended for a reason, by pool.
    pub(crate) fn instances_by(&self, end: InstanceEnd) -> Vec<(String, u64)> {
        let instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        let of_end = instances.iter().filter(|((_, name), _)| *name == end.name());
        of_end.map(|((pool, _), count)| (pool.clone(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_in_order() {
        assert!(STATUSES.is_sorted());
    }

    #[test]
    fn unknown_statuses_are_counted_together() {
        let counters = Counters::default();
        counters.answered(Route::Jobs, StatusCode::IM_A_TEAPOT, Duration::ZERO);
        counters.answered(Route::Jobs, StatusCode::OK, Duration::ZERO);
        let jobs = &counters.requests[Route::Jobs as usize];
        assert_eq!(jobs[STATUSES.len()].load(Relaxed), 1);
        assert_eq!(jobs[1].load(Relaxed), 1);
    }
}
