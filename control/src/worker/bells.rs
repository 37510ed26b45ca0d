//! Rings when timed work is over: one thread for any number of jobs, more precise than a runtime's timers, which round up to
//! a millisecond.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use policy::model::Lease;
use tokio::sync::mpsc;

use super::runner::Event;
use crate::number::JobNumber;
use crate::protocol::Report;

/// When, in which order among equals, and what.
struct Bell {
    at: Instant,
    order: u64,
    lease: Lease,
    job: JobNumber,
    report: Report,
}

impl PartialEq for Bell {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Bell {}

impl PartialOrd for Bell {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bell {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[derive(Default)]
struct Tower {
    bells: BinaryHeap<Reverse<Bell>>,
    count: u64,
    is_closed: bool,
}

/// Rings bells. The thread ends with it.
pub(super) struct Bells {
    shared: Arc<(Mutex<Tower>, Condvar)>,
}

impl Bells {
    pub(super) fn start(events: mpsc::UnboundedSender<Event>) -> std::io::Result<Self> {
        let shared = Arc::new((Mutex::new(Tower::default()), Condvar::new()));
        let theirs = shared.clone();
        std::thread::Builder::new().name("bells".to_owned()).spawn(move || ring(&theirs, &events))?;
        Ok(Self { shared })
    }

    /// Has the end of some work told at `at`.
    pub(super) fn set(&self, at: Instant, lease: Lease, job: JobNumber, report: Report) {
        let (tower, wake) = &*self.shared;
        let mut tower = tower.lock().unwrap_or_else(PoisonError::into_inner);
        let order = tower.count;
        tower.count += 1;
        let is_first = tower.bells.peek().is_none_or(|first| at < first.0.at);
        tower.bells.push(Reverse(Bell { at, order, lease, job, report }));
        if is_first {
            wake.notify_one();
        }
    }
}

impl Drop for Bells {
    fn drop(&mut self) {
        let (tower, wake) = &*self.shared;
        tower.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        wake.notify_one();
    }
}

fn ring(shared: &(Mutex<Tower>, Condvar), events: &mpsc::UnboundedSender<Event>) {
    let (tower, wake) = shared;
    let mut held = tower.lock().unwrap_or_else(PoisonError::into_inner);
    while !held.is_closed {
        let now = Instant::now();
        held = match held.bells.peek() {
            None => wake.wait(held).unwrap_or_else(PoisonError::into_inner),
            Some(Reverse(first)) if first.at > now => {
                let left = first.at - now;
                wake.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0
            }
            Some(_) => {
                if let Some(Reverse(Bell { lease, job, report, .. })) = held.bells.pop() {
                    let _ = events.send(Event::Finished { lease, job, report });
                }
                held
            }
        };
    }
}
