//! How fast one key may ask: a token bucket in one atomic number (the generic cell rate algorithm).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A token bucket. One atomic holds the time at which it will be full again.
#[derive(Debug)]
pub(crate) struct Bucket {
    started: Instant,
    full_at_ns: AtomicU64,
}

/// How a bucket fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    /// Nanoseconds in which one token comes.
    interval_ns: u64,
    /// Nanoseconds by which a bucket may be ahead and still give one more.
    slack_ns: u64,
}

impl Rate {
    /// `per_second` (> 0) tokens a second, `burst` (≥ 1) at once.
    pub(crate) fn new(per_second: f64, burst: u32) -> Self {
        let interval_ns = ((1e9 / per_second) as u64).max(1);
        Self { interval_ns, slack_ns: interval_ns.saturating_mul(u64::from(burst.max(1)) - 1) }
    }
}

impl Bucket {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), full_at_ns: AtomicU64::new(0) }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn take(&self, rate: Rate) -> Result<(), Duration> {
        self.take_at(self.now_ns(), rate)
    }

    /// Takes tokens whether they are there or not; the next requests wait until the debt is paid.
    pub(crate) fn owe(&self, rate: Rate, count: u32) {
        self.owe_at(self.now_ns(), rate, count);
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn take_at(&self, now_ns: u64, rate: Rate) -> Result<(), Duration> {
        let mut full_at = self.full_at_ns.load(Ordering::Relaxed);
        loop {
            let ahead = full_at.saturating_sub(now_ns);
            if ahead > rate.slack_ns {
                return Err(Duration::from_nanos(ahead - rate.slack_ns));
            }
            let next = full_at.max(now_ns).saturating_add(rate.interval_ns);
            match self.full_at_ns.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(current) => full_at = current,
            }
        }
    }

    fn owe_at(&self, now_ns: u64, rate: Rate, count: u32) {
        let price = rate.interval_ns.saturating_mul(u64::from(count));
        let later = |full_at: u64| Some(full_at.max(now_ns).saturating_add(price));
        let _ = self.full_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let (bucket, rate) = (Bucket::new(), Rate::new(10.0, 3));
        let taken = (0..5).filter(|_| bucket.take_at(0, rate).is_ok()).count();
        assert_eq!(taken, 3);
        assert_eq!(bucket.take_at(0, rate), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take_at(SECOND / 10, rate), Ok(()));
        let taken = (0..100).filter(|step| bucket.take_at(SECOND + step * SECOND / 50, rate).is_ok()).count();
        assert!((20..=23).contains(&taken), "{taken} in two seconds at ten a second, after a burst of three");
    }

    #[test]
    fn a_batch_goes_into_debt() {
        let (bucket, rate) = (Bucket::new(), Rate::new(10.0, 1));
        assert_eq!(bucket.take_at(0, rate), Ok(()));
        bucket.owe_at(0, rate, 49);
        assert_eq!(bucket.take_at(0, rate), Err(Duration::from_secs(5)));
        assert!(bucket.take_at(4 * SECOND, rate).is_err());
        assert!(bucket.take_at(5 * SECOND, rate).is_ok());
    }
}
