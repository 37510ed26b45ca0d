//! A histogram of durations in atomics: noting one is a handful of instructions, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, seconds: from what a commit takes to what a training takes.
pub(crate) const BOUNDS_S: [f64; 18] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    3600.0,
];

/// Durations by bucket.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One more than bounds: the last is without bound.
    counts: [AtomicU64; BOUNDS_S.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub(crate) fn note(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS_S.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Sum in seconds, count, and counts by upper bound, as the encoder wants them.
    pub(crate) fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let bounds = BOUNDS_S.into_iter().chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> =
            bounds.zip(&self.counts).map(|(bound, count)| (bound, count.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        (self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9, count, buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_their_bucket() {
        let histogram = Histogram::default();
        for ms in [0, 1, 2, 10_000_000] {
            histogram.note(Duration::from_millis(ms));
        }
        let (sum, count, buckets) = histogram.read();
        assert_eq!((sum, count), (10_000.003, 4));
        let filled: Vec<f64> = buckets.iter().filter(|bucket| bucket.1 > 0).map(|bucket| bucket.0).collect();
        assert_eq!(filled, [0.0005, 0.001, 0.0025, f64::MAX]);
    }
}
