//! What a store has done so far: counts, bytes, and load times by where the bytes came from.

use std::collections::BTreeMap;
use std::time::Duration;

/// Where the bytes of a load came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Files that the system had to read.
    Disk,
    /// Files that the system had in memory.
    PageCache,
    /// The store's own copy in host memory, pinned where the device copies from it.
    Pinned,
}

/// Times of the loads from one source that succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadTimes {
    /// Loads.
    pub count: u64,
    /// Device bytes that they filled.
    pub bytes: u64,
    /// Sum of their times.
    pub total: Duration,
    /// The longest.
    pub max: Duration,
}

impl LoadTimes {
    pub(super) fn add(&mut self, bytes: u64, took: Duration) {
        self.count += 1;
        self.bytes += bytes;
        self.total += took;
        self.max = self.max.max(took);
    }

    /// Mean time; `None` before the first load.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        (self.count > 0).then(|| self.total.div_f64(self.count as f64))
    }
}

/// What a store has done so far. Every acquire is one of the first four.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Acquires that found the model on the device.
    pub hits: u64,
    /// Acquires that waited for a load which another had begun.
    pub joined: u64,
    /// Acquires that began a load.
    pub misses: u64,
    /// Acquires for which no room could be made.
    pub refusals: u64,
    /// Loads that failed.
    pub failures: u64,
    /// Models that left the device with a copy in host memory.
    pub evictions_to_host: u64,
    /// Models that left the device without one.
    pub evictions_to_disk: u64,
    /// Device bytes that evictions freed.
    pub bytes_evicted: u64,
    /// Copies in host memory that were dropped for others.
    pub host_evictions: u64,
    /// Times of loads.
    pub loads: BTreeMap<Source, LoadTimes>,
}

impl Counters {
    /// Models that left the device.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions_to_host + self.evictions_to_disk
    }
}
