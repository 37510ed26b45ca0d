//! The plane's clock: time since its journal began. It never falls, whatever the wall clock does; between two planes it
//! goes on by the wall clock's difference, and by nothing where that is negative or absurd.

use policy::units::{Duration, Instant};

/// Longest time between two planes that is believed, seconds: a wall clock that jumped by more is not.
const GAP_MAX_S: u64 = 30 * 24 * 3600;

/// The plane's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Instant,
    started: std::time::Instant,
}

/// The time at `unix_ms` on the clock of a plane whose last command was at `last`, which was `last_unix_ms`.
pub fn resumed(last: Instant, last_unix_ms: Option<u64>, unix_ms: u64) -> Instant {
    let gap = last_unix_ms.map_or(0, |then| unix_ms.saturating_sub(then));
    let gap = if gap > GAP_MAX_S * 1000 { 0 } else { gap };
    last + Duration::from_millis(gap)
}

impl Clock {
    /// A clock that shows `base` now.
    pub fn starting(base: Instant) -> Self {
        Self { base, started: std::time::Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Instant {
        let elapsed = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.base + Duration::from_nanos(elapsed)
    }

    /// How long until `at`; zero when it has come.
    pub fn until(&self, at: Instant) -> std::time::Duration {
        std::time::Duration::from_nanos(at.since(self.now()).as_nanos())
    }
}

/// Unix time, milliseconds; zero before 1970.
pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_by_the_wall_clock_and_never_back() {
        let last = Instant::START + Duration::from_secs(100);
        let after = |then, now| resumed(last, then, now).as_secs_f64();
        assert_eq!(after(Some(5_000), 8_000), 103.0);
        assert_eq!(after(Some(8_000), 5_000), 100.0, "the wall clock fell");
        assert_eq!(after(Some(0), u64::MAX / 2), 100.0, "the wall clock jumped by ages");
        assert_eq!(after(None, 8_000), 100.0);
    }
}
