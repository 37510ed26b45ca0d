//! When an announcement is tried again: the pauses that Standard Webhooks proposes, and what a receiver asks for.

use std::time::Duration;

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};

/// Pauses before the first, second, ... attempt (Standard Webhooks 1.0.0, "Deliverability and reliability").
pub const PAUSES: [Duration; 10] = [
    Duration::ZERO,
    Duration::from_secs(5),
    minutes(5),
    minutes(30),
    minutes(2 * 60),
    minutes(5 * 60),
    minutes(10 * 60),
    minutes(14 * 60),
    minutes(20 * 60),
    minutes(24 * 60),
];

/// A pause is longer by up to this share, so that what failed together does not come back together.
const JITTER: f64 = 0.1;

/// A receiver may ask for a longer pause, up to this.
const ASKED_MAX: Duration = minutes(24 * 60);

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// The pause after `attempts` failed ones; `None` when there were enough. `chance` is in 0..=1.
pub(super) fn pause(
    pauses: &[Duration],
    attempts: usize,
    asked: Option<Duration>,
    chance: f64,
) -> Option<Duration> {
    let pause = pauses.get(attempts)?.mul_f64(1.0 + JITTER * chance);
    Some(pause.max(asked.unwrap_or_default().min(ASKED_MAX)))
}

/// Evenly drawn from 0..=1.
pub(super) fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without chance, everything comes as early as it may.
    let _ = SystemRandom::new().fill(&mut bytes);
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

/// A `Retry-After` header: seconds, or a date.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse().map_or(ASKED_MAX, Duration::from_secs));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_attempts_in_a_good_three_days() {
        let all =
            |chance| -> Duration { (0..).map_while(|attempts| pause(&PAUSES, attempts, None, chance)).sum() };
        assert_eq!(all(0.0), Duration::from_secs(5 + 35 * 60 + 75 * 3600));
        assert_eq!(all(1.0).as_secs(), (5 + 35 * 60 + 75 * 3600) * 11 / 10);
        assert_eq!(pause(&PAUSES, 10, Some(Duration::from_secs(1)), 0.0), None);
    }

    #[test]
    fn receivers_are_heard_within_reason() {
        let asked = |seconds| pause(&PAUSES, 1, Some(Duration::from_secs(seconds)), 0.0);
        assert_eq!(asked(1), Some(Duration::from_secs(5)), "never sooner");
        assert_eq!(asked(60), Some(Duration::from_secs(60)));
        assert_eq!(asked(u64::MAX), Some(ASKED_MAX));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().expect("a time");
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(24 * 3600)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("-5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now).map(|pause| pause.as_secs()), seconds, "{value}");
        }
    }
}
