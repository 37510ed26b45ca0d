//! How long a leader may answer: until its lease is over by its own clock, and not a moment longer. Pure but for the
//! monotonic clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The end of a leader's lease. Requests look at it; the renewals move it on.
#[derive(Debug)]
pub struct LeaseGate {
    base: Instant,
    /// Nanoseconds after `base`; 0 once it is closed for ever.
    until: AtomicU64,
}

impl LeaseGate {
    /// A lease of `lease` that counts from `asked`: the moment before the database was asked, so that it is over here
    /// before it is over there.
    pub fn open(asked: Instant, lease: Duration) -> Self {
        // The base lies back, so that 0 is never the end of a lease that is in force.
        let base = asked.checked_sub(Duration::from_secs(1)).unwrap_or(asked);
        let gate = Self { base, until: AtomicU64::new(1) };
        gate.renew(asked, lease);
        gate
    }

    /// Moves the end to `lease` after `asked`; a closed gate stays closed.
    pub fn renew(&self, asked: Instant, lease: Duration) {
        let until = u64::try_from((asked + lease).duration_since(self.base).as_nanos()).unwrap_or(u64::MAX);
        let _ = self
            .until
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now != 0).then_some(now.max(until)));
    }

    /// Ends the lease for ever.
    pub fn close(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// How long the lease is still in force at `now`; zero when it is over.
    pub fn left(&self, now: Instant) -> Duration {
        let until = self.base + Duration::from_nanos(self.until.load(Ordering::Acquire));
        until.saturating_duration_since(now)
    }

    /// Whether answers may be given.
    pub fn is_open(&self) -> bool {
        !self.left(Instant::now()).is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(4);

    #[test]
    fn a_lease_ends_by_itself_and_counts_from_the_question() {
        let asked = Instant::now();
        let gate = LeaseGate::open(asked, LEASE);
        let left = |after: u64| gate.left(asked + Duration::from_secs(after)).as_secs();
        assert_eq!([left(0), left(1), left(4), left(5)], [4, 3, 0, 0]);
        gate.renew(asked + Duration::from_secs(2), LEASE);
        assert_eq!([left(2), left(5), left(6)], [4, 1, 0]);
        gate.renew(asked + Duration::from_secs(1), LEASE);
        assert_eq!(left(2), 4, "an answer that came late takes nothing back");
    }

    #[test]
    fn a_closed_gate_stays_closed() {
        let asked = Instant::now();
        let gate = LeaseGate::open(asked, LEASE);
        assert!(gate.is_open());
        gate.close();
        gate.renew(Instant::now(), LEASE);
        assert!(!gate.is_open());
    }
}
