//! Idempotency keys, remembered for a time and up to a count.

use std::collections::{HashMap, VecDeque};

use policy::units::{Duration, Instant};

use crate::number::JobNumber;
use crate::submission::Idempotency;

/// Keys in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    order: VecDeque<(Instant, u128)>,
    by_key: HashMap<u128, (u64, JobNumber)>,
}

impl Keys {
    /// The body and the job that came with `key`.
    pub(crate) fn get(&self, key: u128) -> Option<(u64, JobNumber)> {
        self.by_key.get(&key).copied()
    }

    pub(crate) fn insert(&mut self, now: Instant, key: Idempotency, job: JobNumber, max: usize) {
        while self.order.len() >= max.max(1) {
            self.drop_first();
        }
        self.order.push_back((now, key.key));
        self.by_key.insert(key.key, (key.body, job));
    }

    /// Drops the keys that are older than `age`.
    pub(crate) fn forget(&mut self, now: Instant, age: Duration) {
        while self.order.front().is_some_and(|first| now.since(first.0) > age) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.by_key.remove(&key);
        }
    }

    /// All keys in order, for an image.
    pub(crate) fn entries(&self) -> Vec<(Instant, u128, u64, JobNumber)> {
        let entry =
            |&(at, key): &(Instant, u128)| self.by_key.get(&key).map(|&(body, job)| (at, key, body, job));
        self.order.iter().filter_map(entry).collect()
    }

    /// The keys of an image.
    pub(crate) fn from_entries(entries: Vec<(Instant, u128, u64, JobNumber)>) -> Self {
        let mut keys = Self::default();
        for (at, key, body, job) in entries {
            keys.order.push_back((at, key));
            keys.by_key.insert(key, (body, job));
        }
        keys
    }
}
