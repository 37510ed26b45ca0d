//! How fast a Kubernetes Horizontal Pod Autoscaler may move: stabilisation windows and rate policies.
//!
//! Follows `stabilizeRecommendationWithBehaviors` and `convertDesiredReplicasWithBehaviorRate` of
//! `pkg/controller/podautoscaler/horizontal.go`. Says nothing about the metric.

use crate::units::{Duration, Instant, Ratio};

/// One limit on the change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaPolicy {
    /// How much.
    pub change: HpaChange,
    /// Within how long.
    pub period: Duration,
}

/// How much may change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpaChange {
    /// This many instances.
    Pods(u32),
    /// This many percent of the count at the start of the period.
    Percent(u32),
}

/// Which of several limits counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpaSelect {
    /// The one that allows the largest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// No change in this direction at all.
    Disabled,
}

/// The rules for one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpaRules {
    /// Recommendations of this long back are weighed: the lowest on the way up, the highest on the way down.
    pub stabilization_window: Duration,
    /// Limits on the change; none is no limit.
    pub policies: Vec<HpaPolicy>,
    /// Which of them counts.
    pub select: HpaSelect,
}

/// How fast the count may move.
#[derive(Clone, Debug, PartialEq)]
pub struct HpaBehavior {
    /// Relative distance from the target within which nothing moves.
    pub tolerance: Ratio,
    /// On the way up.
    pub up: HpaRules,
    /// On the way down.
    pub down: HpaRules,
}

impl HpaBehavior {
    /// What Kubernetes does without a `behavior` block (`pkg/apis/autoscaling/v2/defaults.go`): tolerance 10 %; up by
    /// 4 pods or 100 % per 15 s, whichever is more; down by 100 % per 15 s to the highest count wanted in 300 s.
    pub fn default_params() -> Self {
        let period = Duration::from_secs(15);
        let policy = |change| HpaPolicy { change, period };
        Self {
            tolerance: tenth(),
            up: HpaRules {
                stabilization_window: Duration::ZERO,
                policies: vec![policy(HpaChange::Pods(4)), policy(HpaChange::Percent(100))],
                select: HpaSelect::Max,
            },
            down: HpaRules {
                stabilization_window: Duration::from_secs(300),
                policies: vec![policy(HpaChange::Percent(100))],
                select: HpaSelect::Max,
            },
        }
    }
}

fn tenth() -> Ratio {
    Ratio::new(0.1).expect("0.1 lies between 0 and 1")
}

/// What the autoscaler remembers, to keep to an [`HpaBehavior`].
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct HpaMemory {
    /// Recommendations before stabilisation, oldest first.
    recommendations: Vec<(Instant, u32)>,
    /// Changes of the count: when, and by how much (negative on the way down), oldest first.
    changes: Vec<(Instant, i64)>,
}

/// Moves the count by an [`HpaBehavior`].
#[derive(Debug)]
pub(super) struct HpaMotion {
    behavior: HpaBehavior,
    pub(super) memory: HpaMemory,
}

impl HpaMotion {
    pub(super) fn new(behavior: HpaBehavior) -> Self {
        Self { behavior, memory: HpaMemory::default() }
    }

    /// Whether a usage relative to the target (1 = on target) is close enough to leave the count alone.
    ///
    /// Compared with the edges, not by distance, as Kubernetes does since v1.33: 1.1 is within a tolerance of 0.1.
    pub(super) fn tolerates(&self, ratio: f64) -> bool {
        let tolerance = self.behavior.tolerance.get();
        (1.0 - tolerance..=1.0 + tolerance).contains(&ratio)
    }

    /// The count to move to from `current` when the metric wants `wanted`, within `min..=max`.
    pub(super) fn next(&mut self, now: Instant, current: u32, wanted: u32, min: u32, max: u32) -> u32 {
        let stable = self.stabilized(now, current, wanted);
        let next = if stable > current {
            stable.min(self.limit_up(now, current).max(current)).min(max)
        } else if stable < current {
            stable.max(self.limit_down(now, current).min(current)).max(min)
        } else {
            current
        };
        self.note_change(now, i64::from(next) - i64::from(current));
        next
    }

    /// Notes that the count was changed by somebody else, or by a rule that knows no rate.
    pub(super) fn note_change(&mut self, now: Instant, change: i64) {
        let rules = self.behavior.up.policies.iter().chain(&self.behavior.down.policies);
        let longest = rules.map(|policy| policy.period).max().unwrap_or(Duration::ZERO);
        self.memory.changes.retain(|(at, _)| now.since(*at) < longest);
        if change != 0 {
            self.memory.changes.push((now, change));
        }
    }

    fn stabilized(&mut self, now: Instant, current: u32, wanted: u32) -> u32 {
        let (up, down) = (self.behavior.up.stabilization_window, self.behavior.down.stabilization_window);
        if self.memory.recommendations.is_empty() {
            self.memory.recommendations.push((now, current));
        }
        self.memory.recommendations.retain(|(at, _)| now.since(*at) < up.max(down));
        let within = |window| {
            let recent = self.memory.recommendations.iter().filter(move |(at, _)| now.since(*at) < window);
            recent.map(|(_, count)| *count)
        };
        let lowest = within(up).min().unwrap_or(wanted).min(wanted);
        let highest = within(down).max().unwrap_or(wanted).max(wanted);
        self.memory.recommendations.push((now, wanted));
        current.max(lowest).min(highest)
    }

    fn limit_up(&self, now: Instant, current: u32) -> u32 {
        self.limit(&self.behavior.up, now, current, |start, change| match change {
            HpaChange::Pods(pods) => start.saturating_add(i64::from(pods)),
            HpaChange::Percent(percent) => {
                start.saturating_mul(100 + i64::from(percent)).saturating_add(99).div_euclid(100)
            }
        })
        .map_or(u32::MAX, |(lowest, highest)| match self.behavior.up.select {
            HpaSelect::Max => highest,
            HpaSelect::Min => lowest,
            HpaSelect::Disabled => current,
        })
    }

    fn limit_down(&self, now: Instant, current: u32) -> u32 {
        self.limit(&self.behavior.down, now, current, |start, change| match change {
            HpaChange::Pods(pods) => start.saturating_sub(i64::from(pods)),
            HpaChange::Percent(percent) => {
                start.saturating_mul(100 - i64::from(percent.min(100))).div_euclid(100)
            }
        })
        .map_or(0, |(lowest, highest)| match self.behavior.down.select {
            HpaSelect::Max => lowest,
            HpaSelect::Min => highest,
            HpaSelect::Disabled => current,
        })
    }

    /// Lowest and highest of the counts that the policies allow; `None` without policies, unless disabled.
    fn limit(
        &self,
        rules: &HpaRules,
        now: Instant,
        current: u32,
        allow: impl Fn(i64, HpaChange) -> i64,
    ) -> Option<(u32, u32)> {
        if rules.select == HpaSelect::Disabled {
            return Some((current, current));
        }
        let allowed = rules.policies.iter().map(|policy| {
            let recent = self.memory.changes.iter().filter(|(at, _)| now.since(*at) < policy.period);
            let changed = recent.fold(0_i64, |sum, (_, change)| sum.saturating_add(*change));
            let period_start = i64::from(current).saturating_sub(changed);
            u32::try_from(allow(period_start, policy.change).max(0)).unwrap_or(u32::MAX)
        });
        allowed.fold(None, |range, count| match range {
            None => Some((count, count)),
            Some((low, high)) => Some((count.min(low), count.max(high))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::START + Duration::from_secs(secs)
    }

    /// The counts at ticks of 15 s when the metric wants `wanted`.
    fn walk(behavior: HpaBehavior, start: u32, wanted: &[u32]) -> Vec<u32> {
        let mut motion = HpaMotion::new(behavior);
        let mut current = start;
        let tick = |(tick, wanted): (u64, &u32)| {
            current = motion.next(at(15 * tick), current, *wanted, 1, 10_000);
            current
        };
        (0..).zip(wanted).map(tick).collect()
    }

    #[test]
    fn unconstrained_growth_adds_four_then_doubles() {
        let counts = walk(HpaBehavior::default_params(), 1, &[100_000; 8]);
        assert_eq!(counts, [5, 10, 20, 40, 80, 160, 320, 640]);
    }

    #[test]
    fn a_fall_waits_for_the_whole_window() {
        let counts = walk(HpaBehavior::default_params(), 100, &[10; 22]);
        assert_eq!(counts.iter().filter(|count| **count == 100).count(), 20, "{counts:?}");
        assert_eq!(counts[20..], [10, 10], "300 s after the last recommendation of 100");
    }

    #[test]
    fn a_short_dip_changes_nothing() {
        assert_eq!(walk(HpaBehavior::default_params(), 50, &[50, 10, 10, 50, 10]), [50; 5]);
    }

    #[test]
    fn down_policies_limit_the_fall() {
        let mut behavior = HpaBehavior::default_params();
        behavior.down.stabilization_window = Duration::ZERO;
        let minute = Duration::from_secs(60);
        behavior.down.policies = vec![
            HpaPolicy { change: HpaChange::Percent(10), period: minute },
            HpaPolicy { change: HpaChange::Pods(5), period: minute },
        ];
        // Of 100, 10 % is more than 5 pods; within one minute no more goes.
        assert_eq!(walk(behavior.clone(), 100, &[1; 5]), [90, 90, 90, 90, 81]);
        behavior.down.select = HpaSelect::Min;
        assert_eq!(walk(behavior.clone(), 100, &[1; 5]), [95, 95, 95, 95, 90]);
        behavior.down.select = HpaSelect::Disabled;
        assert_eq!(walk(behavior, 100, &[1; 2]), [100, 100]);
    }

    #[test]
    fn up_window_takes_the_lowest_recommendation() {
        let mut behavior = HpaBehavior::default_params();
        behavior.up.stabilization_window = Duration::from_secs(30);
        assert_eq!(walk(behavior, 10, &[20, 15, 30, 30]), [10, 10, 15, 30]);
    }

    #[test]
    fn without_policies_there_is_no_limit() {
        let mut behavior = HpaBehavior::default_params();
        behavior.up.policies.clear();
        assert_eq!(walk(behavior, 1, &[700]), [700]);
    }

    #[test]
    fn tolerance_includes_its_edge() {
        let motion = HpaMotion::new(HpaBehavior::default_params());
        for (ratio, kept) in [(1.1, true), (0.9, true), (1.11, false), (0.89, false), (0.0, false)] {
            assert_eq!(motion.tolerates(ratio), kept, "{ratio}");
        }
    }
}
