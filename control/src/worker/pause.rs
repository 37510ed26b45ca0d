//! How long to wait before connecting again: at once, then longer and longer, and never all workers at the same moment.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// The second pause is at most this long; the first is none.
const SECOND: Duration = Duration::from_millis(100);

/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses between attempts.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    attempts: u32,
    is_hurried: bool,
}

impl Pauses {
    /// It worked: the next pause is none again.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next pause is none; those behind it are as they would have been.
    pub(super) fn hurry(&mut self) {
        self.is_hurried = true;
    }

    /// The next pause: evenly drawn from the upper half of a time that doubles.
    pub(super) fn next(&mut self, random: u64) -> Duration {
        if std::mem::take(&mut self.is_hurried) {
            return Duration::ZERO;
        }
        let attempt = self.attempts;
        self.attempts = self.attempts.saturating_add(1);
        if attempt == 0 {
            return Duration::ZERO;
        }
        let whole = SECOND.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST);
        whole.mul_f64(0.5 + 0.5 * (random as f64 / u64::MAX as f64))
    }
}

/// Random bits of the system; of the clock where it has none.
pub(super) fn random_bits() -> [u8; 16] {
    let mut bytes = [0; 16];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = now.map_or(0, |since| since.as_nanos());
        bytes = (nanos ^ (u128::from(std::process::id()) << 96)).to_be_bytes();
    }
    bytes
}

/// A number evenly drawn.
pub(super) fn random_u64() -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&random_bits()[..8]);
    u64::from_be_bytes(first)
}

/// A name that no other worker has.
pub(super) fn fresh_name() -> String {
    random_bits().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let mut pauses = Pauses::default();
        let longest: Vec<u128> = (0..9).map(|_| pauses.next(u64::MAX).as_millis()).collect();
        assert_eq!(longest, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        pauses.reset();
        assert_eq!(pauses.next(7), Duration::ZERO);
        assert_eq!(pauses.next(0), SECOND / 2, "the shortest second pause");
        assert_eq!(fresh_name().len(), 32);
        assert_ne!(fresh_name(), fresh_name());
    }
}
