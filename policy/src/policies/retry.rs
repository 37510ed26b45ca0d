//! Retry: what happens after an attempt failed or found no free slot.

use crate::units::{Duration, Ratio};

/// Exponential backoff with full jitter: attempt n waits U(0, min(cap, base·2ⁿ)).
///
/// Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Upper end of the first wait.
    pub base: Duration,
    /// Upper end of any wait.
    pub cap: Duration,
}

/// Holds back a share of jobs before their first attempt, so that a spike reaches the fleet spread out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExecutionDelay {
    /// Share of jobs that are held back.
    pub share: Ratio,
    /// They wait U(0, delay_max).
    pub delay_max: Duration,
}

/// What happens after an attempt failed or found no free slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Retry {
    /// The job fails at once.
    Never,
    /// The next attempt follows after `pause` (one trip through the router), until `attempts_max` attempts were made.
    Immediate { attempts_max: u32, pause: Duration },
    /// Waits between attempts grow; some jobs are held back before their first.
    Backoff { attempts_max: u32, backoff: Backoff, execution_delay: Option<ExecutionDelay> },
}

/// The answer of a retry policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryVerdict {
    /// Try again after this long.
    After(Duration),
    /// No further attempt.
    GiveUp,
}

impl Retry {
    /// What follows attempt number `attempts` (1 is the first) when it failed; `chance` is uniform over 0..1.
    pub fn after_failure(&self, attempts: u32, chance: f64) -> RetryVerdict {
        match *self {
            Self::Never => RetryVerdict::GiveUp,
            Self::Immediate { attempts_max, .. } | Self::Backoff { attempts_max, .. }
                if attempts >= attempts_max =>
            {
                RetryVerdict::GiveUp
            }
            Self::Immediate { pause, .. } => RetryVerdict::After(pause),
            Self::Backoff { backoff, .. } => RetryVerdict::After(backoff.wait(attempts, chance)),
        }
    }

    /// How long a new job is held back before its first attempt; the two chances are uniform over 0..1.
    pub fn execution_delay(&self, chance_held: f64, chance_length: f64) -> Duration {
        match self {
            Self::Backoff { execution_delay: Some(delay), .. } if chance_held < delay.share.get() => {
                delay.delay_max.scaled(chance_length)
            }
            _ => Duration::ZERO,
        }
    }
}

impl Backoff {
    /// The wait after attempt number `attempts` (1 is the first).
    pub fn wait(&self, attempts: u32, chance: f64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(40);
        let top = self.base.as_nanos().saturating_mul(1 << doublings).min(self.cap.as_nanos());
        Duration::from_nanos(top).scaled(chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(2) };

    #[test]
    fn waits_double_up_to_the_cap() {
        let tops: Vec<u64> = (1..8).map(|n| BACKOFF.wait(n, 1.0).as_nanos() / 1_000_000).collect();
        assert_eq!(tops, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(BACKOFF.wait(3, 0.0), Duration::ZERO);
        assert_eq!(BACKOFF.wait(u32::MAX, 1.0), BACKOFF.cap);
    }

    #[test]
    fn attempts_run_out() {
        let retry = Retry::Backoff { attempts_max: 3, backoff: BACKOFF, execution_delay: None };
        assert!(matches!(retry.after_failure(2, 0.5), RetryVerdict::After(_)));
        assert_eq!(retry.after_failure(3, 0.5), RetryVerdict::GiveUp);
        assert_eq!(Retry::Never.after_failure(1, 0.5), RetryVerdict::GiveUp);
    }

    #[test]
    fn only_the_chosen_share_is_held_back() {
        let share = Ratio::new(0.2).unwrap();
        let delay = ExecutionDelay { share, delay_max: Duration::from_secs(4) };
        let retry = Retry::Backoff { attempts_max: 3, backoff: BACKOFF, execution_delay: Some(delay) };
        assert_eq!(retry.execution_delay(0.19, 0.5), Duration::from_secs(2));
        assert_eq!(retry.execution_delay(0.2, 0.5), Duration::ZERO);
    }
}
