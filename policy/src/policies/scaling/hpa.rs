//! Kubernetes Horizontal Pod Autoscaler v2: from one metric to a count.
//!
//! Follows `pkg/controller/podautoscaler/replica_calculator.go`. How fast the count may move is in `behavior`.

use super::behavior::{HpaBehavior, HpaMotion};
use super::{Observation, ScalingMemory, ScalingPolicy, Target, count_above};
use crate::policies::Reason;
use crate::units::{Duration, Instant, Ratio};

/// What the autoscaler looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HpaMetric {
    /// Busy slots over ready slots (a resource metric), in whole percent as Kubernetes counts it.
    Utilization {
        /// Share to aim at (> 0).
        target: Ratio,
    },
    /// Jobs per instance (an external metric of kind `AverageValue`).
    AverageValue {
        /// Jobs per instance to aim at (> 0).
        target: f64,
        /// Whether running jobs count beside the waiting ones.
        running_counts: bool,
    },
}

/// Parameters of the Horizontal Pod Autoscaler.
///
/// As in Kubernetes the group never falls below one instance, even where the pools' minima allow it.
#[derive(Clone, Debug, PartialEq)]
pub struct Hpa {
    /// Time between two looks at the metric.
    pub period: Duration,
    /// What it looks at.
    pub metric: HpaMetric,
    /// How fast the count may move.
    pub behavior: HpaBehavior,
}

impl Hpa {
    /// Kubernetes: every 15 s (`--horizontal-pod-autoscaler-sync-period`), 80 % utilization (the default CPU target of
    /// `pkg/apis/autoscaling/v2/defaults.go`), default behaviour.
    pub fn default_params() -> Self {
        Self {
            period: Duration::from_secs(15),
            metric: HpaMetric::Utilization { target: Ratio::new(0.8).expect("0.8 lies between 0 and 1") },
            behavior: HpaBehavior::default_params(),
        }
    }
}

/// Scales by an [`Hpa`].
pub(super) struct HpaScaler {
    period: Duration,
    metric: HpaMetric,
    pub(super) motion: HpaMotion,
}

impl HpaScaler {
    pub(super) fn new(rule: Hpa) -> Self {
        Self { period: rule.period, metric: rule.metric, motion: HpaMotion::new(rule.behavior) }
    }

    /// The count for the group, between `min` (at least 1) and `max`.
    pub(super) fn scale(&mut self, now: Instant, seen: &Observation, min: u32, max: u32) -> Target {
        let (min, current) = (min.max(1).min(max), seen.target);
        if current < min || current > max {
            let instances = current.clamp(min, max);
            self.motion.note_change(now, i64::from(instances) - i64::from(current));
            let text = format!("{current} instances are outside the limits {min}..={max}");
            return Target { instances, reason: Reason::new("hpa-limits", text) };
        }
        let (wanted, seen_text) = match self.metric {
            HpaMetric::Utilization { target } => self.by_utilization(seen, target),
            HpaMetric::AverageValue { target, running_counts } => {
                self.by_average(seen, target, running_counts)
            }
        };
        let instances = self.motion.next(now, current, wanted.clamp(min, max), min, max);
        let code = match (instances.cmp(&current), wanted == instances) {
            (std::cmp::Ordering::Greater, _) => "hpa-up",
            (std::cmp::Ordering::Less, _) => "hpa-down",
            (std::cmp::Ordering::Equal, true) => "hpa-keep",
            (std::cmp::Ordering::Equal, false) => "hpa-held-back",
        };
        let text = format!("{seen_text}: {wanted} wanted, {instances} after windows, rates and limits");
        Target { instances, reason: Reason::new(code, text) }
    }

    /// `ceil(ratio · pods)`; starting pods count as idle on the way up, and are left out on the way down.
    fn by_utilization(&self, seen: &Observation, target: Ratio) -> (u32, String) {
        let current = seen.target;
        let target_percent = (target.get() * 100.0).round();
        let ready = f64::from(seen.ready);
        let ready_slots = ready * seen.slots_per_instance;
        if ready_slots <= 0.0 {
            return (current, "no instance is ready, so there is no metric".to_owned());
        }
        // Jobs on draining instances belong to pods that Kubernetes no longer counts.
        let busy = f64::from(seen.running).min(ready_slots);
        let percent = (busy * 100.0 / ready_slots).floor();
        let text = format!("{percent} % of the slots are busy, {target_percent} % is the target");
        let ratio = percent / target_percent;
        if ratio > 1.0 && seen.starting > 0 {
            let pods = ready + f64::from(seen.starting);
            let diluted = (busy * 100.0 / (pods * seen.slots_per_instance)).floor() / target_percent;
            let wanted = count_above(diluted * pods);
            let kept = self.motion.tolerates(diluted) || diluted < 1.0 || wanted < current;
            let text = format!("{text}, with {} starting instances counted as idle", seen.starting);
            return (if kept { current } else { wanted }, text);
        }
        (if self.motion.tolerates(ratio) { current } else { count_above(ratio * ready) }, text)
    }

    /// `ceil(value / target)`, unless the value per instance is within tolerance.
    fn by_average(&self, seen: &Observation, target: f64, running_counts: bool) -> (u32, String) {
        let value = queue_length(seen, running_counts);
        let ratio = value / (target * f64::from(seen.target));
        let wanted = if self.motion.tolerates(ratio) { seen.target } else { count_above(value / target) };
        (wanted, format!("{value} jobs on {} instances, {target} each is the target", seen.target))
    }
}

/// Waiting jobs, with the running ones where they count.
pub(super) fn queue_length(seen: &Observation, running_counts: bool) -> f64 {
    f64::from(seen.waiting) + if running_counts { f64::from(seen.running) } else { 0.0 }
}

impl ScalingPolicy for HpaScaler {
    fn period(&self) -> Duration {
        self.period
    }

    fn decide(&mut self, now: Instant, seen: &Observation) -> Target {
        self.scale(now, seen, seen.count_min, seen.count_max)
    }

    fn memory(&self) -> ScalingMemory {
        ScalingMemory::Hpa(self.motion.memory.clone())
    }

    fn recall(&mut self, memory: ScalingMemory) {
        if let ScalingMemory::Hpa(memory) = memory {
            self.motion.memory = memory;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, seen};
    use super::*;

    fn utilization(percent: f64) -> Hpa {
        let target = Ratio::new(percent / 100.0).unwrap();
        Hpa { metric: HpaMetric::Utilization { target }, ..Hpa::default_params() }
    }

    fn average(target: f64) -> Hpa {
        Hpa { metric: HpaMetric::AverageValue { target, running_counts: false }, ..Hpa::default_params() }
    }

    fn first(rule: Hpa, seen: Observation) -> (u32, &'static str) {
        let target = HpaScaler::new(rule).decide(at(0), &seen);
        (target.instances, target.reason.code)
    }

    #[test]
    fn fifty_pods_at_ninety_percent_of_seventy_five_become_sixty() {
        let busy = Observation { slots_per_instance: 2.0, running: 90, ..seen(50) };
        assert_eq!(first(utilization(75.0), busy), (60, "hpa-up"));
    }

    #[test]
    fn starting_pods_damp_a_rise() {
        // 10 ready and fully busy at 50 % want 20; 9 starting bring the ratio to 52 % / 50 %, within tolerance.
        let busy = Observation { running: 10, starting: 9, target: 19, ..seen(10) };
        assert_eq!(first(utilization(50.0), busy), (19, "hpa-keep"));
        // Seen as idle, 15 starting turn the direction: nothing moves.
        let busy = Observation { running: 10, starting: 15, target: 25, ..seen(10) };
        assert_eq!(first(utilization(50.0), busy), (25, "hpa-keep"));
        // With 5 starting the ratio is 66 % / 50 % = 1.32 over 15 pods.
        let busy = Observation { running: 10, starting: 5, target: 15, ..seen(10) };
        assert_eq!(first(utilization(50.0), busy), (20, "hpa-up"));
    }

    #[test]
    fn average_value_divides_the_whole_queue() {
        assert_eq!(first(average(5.0), Observation { waiting: 101, ..seen(12) }), (21, "hpa-up"));
        assert_eq!(first(average(5.0), Observation { waiting: 66, ..seen(12) }), (12, "hpa-keep"));
        assert_eq!(first(average(5.0), Observation { waiting: 10_000, ..seen(12) }), (24, "hpa-up"));
        // The fall waits for the 300 s window.
        assert_eq!(first(average(5.0), Observation { waiting: 0, ..seen(12) }), (12, "hpa-held-back"));
    }

    #[test]
    fn edges_stay_within_limits() {
        assert_eq!(first(average(5.0), seen(0)), (1, "hpa-limits"));
        assert_eq!(first(average(5.0), Observation { count_max: 0, ..seen(0) }), (0, "hpa-keep"));
        assert_eq!(first(average(5.0), Observation { count_max: 4, ..seen(9) }), (4, "hpa-limits"));
        let none_ready = Observation { ready: 0, running: 7, ..seen(5) };
        assert_eq!(first(utilization(50.0), none_ready), (5, "hpa-keep"));
        let full = Observation { waiting: u32::MAX, count_max: 22, ..seen(20) };
        assert_eq!(first(average(5.0), full), (22, "hpa-up"));
    }
}
