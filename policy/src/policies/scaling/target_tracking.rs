//! AWS target tracking on the backlog per instance.
//!
//! Follows the Amazon EC2 Auto Scaling User Guide, "Scaling policy based on Amazon SQS" and "Target tracking scaling
//! policies". The alarm periods are those that AWS sets on the alarms it manages.

use super::{GroupContext, Observation, ScalingMemory, ScalingPolicy, Target, count_above};
use crate::policies::Reason;
use crate::units::{Duration, Instant, Ratio};

/// Waiting jobs per instance to aim at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BacklogTarget {
    /// This many (> 0).
    PerInstance(f64),
    /// As many as an instance finishes within this time at the expected service time.
    AcceptableLatency(Duration),
}

/// Parameters of an AWS target-tracking policy on a queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetTracking {
    /// Waiting jobs per instance to aim at.
    pub target: BacklogTarget,
    /// Time between two values of the metric.
    pub period: Duration,
    /// Consecutive values above the target before instances are added.
    pub periods_out: u32,
    /// Consecutive values below the scale-in threshold before instances are removed.
    pub periods_in: u32,
    /// The scale-in threshold, relative to the target.
    pub scale_in_below: Ratio,
}

impl TargetTracking {
    /// The alarms that AWS sets (out after 3 minutes above the target, in after 15 below 90 % of it), and the user
    /// guide's example of 10 s of acceptable latency; AWS has no default target.
    pub fn default_params() -> Self {
        Self {
            target: BacklogTarget::AcceptableLatency(Duration::from_secs(10)),
            period: Duration::from_secs(60),
            periods_out: 3,
            periods_in: 15,
            scale_in_below: Ratio::new(0.9).expect("0.9 lies between 0 and 1"),
        }
    }
}

/// Scales by a [`TargetTracking`].
pub(super) struct TargetTrackingPolicy {
    rule: TargetTracking,
    /// Waiting jobs per instance to aim at; infinite when jobs take no time.
    target: f64,
    /// Consecutive values above the target, up to now.
    above: u32,
    /// Consecutive values below the scale-in threshold, up to now.
    below: u32,
}

impl TargetTrackingPolicy {
    pub(super) fn new(rule: TargetTracking, context: &GroupContext) -> Self {
        let target = match rule.target {
            BacklogTarget::PerInstance(jobs) => jobs,
            BacklogTarget::AcceptableLatency(latency) => {
                let per_slot = latency.as_nanos() as f64 / context.service_expected.as_nanos().max(1) as f64;
                per_slot * context.slots_per_instance
            }
        };
        Self { rule, target, above: 0, below: 0 }
    }
}

impl ScalingPolicy for TargetTrackingPolicy {
    fn period(&self) -> Duration {
        self.rule.period
    }

    /// Needed is `ceil(InService · metric / target)`. Starting instances are left out of the metric, but they are
    /// capacity: only what is needed beyond them is added, and nothing is removed while they start. Rounding up is the
    /// cautious side both ways: +1.5 gives +2, −1.5 gives −1.
    fn decide(&mut self, _now: Instant, seen: &Observation) -> Target {
        // AWS has no value without instances; dividing by one instance is the customary guard, and wakes a group of 0.
        let in_service = seen.ready.max(1);
        let metric = f64::from(seen.waiting) / f64::from(in_service);
        let threshold_in = self.target * self.rule.scale_in_below.get();
        self.above = if metric > self.target { self.above.saturating_add(1) } else { 0 };
        self.below = if metric < threshold_in { self.below.saturating_add(1) } else { 0 };

        let current = seen.target;
        let needed = count_above(f64::from(in_service) * metric / self.target);
        let (instances, code) = if self.above > 0 {
            let alarm = self.above >= self.rule.periods_out.max(1);
            match (alarm, needed > current) {
                (true, true) => (needed, "target-tracking-out"),
                (true, false) => (current, "target-tracking-warming"),
                (false, _) => (current, "target-tracking-above"),
            }
        } else if self.below > 0 {
            let alarm = self.below >= self.rule.periods_in.max(1);
            match (alarm, seen.starting > 0) {
                (true, true) => (current, "target-tracking-in-blocked"),
                (true, false) => (needed.min(current), "target-tracking-in"),
                (false, _) => (current, "target-tracking-below"),
            }
        } else {
            (current, "target-tracking-keep")
        };
        let text = format!(
            "{metric:.2} jobs wait per instance, {:.2} is the target; {} periods above, {} below {threshold_in:.2}, \
             {} instances starting",
            self.target, self.above, self.below, seen.starting
        );
        let highest = seen.count_max.max(seen.count_min);
        Target { instances: instances.clamp(seen.count_min, highest), reason: Reason::new(code, text) }
    }

    fn memory(&self) -> ScalingMemory {
        ScalingMemory::TargetTracking { above: self.above, below: self.below }
    }

    fn recall(&mut self, memory: ScalingMemory) {
        if let ScalingMemory::TargetTracking { above, below } = memory {
            (self.above, self.below) = (above, below);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, context, seen};
    use super::*;

    const VECTOR: Duration = Duration::from_millis(100);

    fn policy(service: Duration) -> TargetTrackingPolicy {
        let context = GroupContext { service_expected: service, ..context() };
        TargetTrackingPolicy::new(TargetTracking::default_params(), &context)
    }

    /// Decides `periods` times on one observation; the last answer counts.
    fn after(policy: &mut TargetTrackingPolicy, periods: u64, seen: Observation) -> (u32, &'static str) {
        let mut last = (0, "");
        for period in 0..periods {
            let target = policy.decide(at(60 * period), &seen);
            last = (target.instances, target.reason.code);
        }
        last
    }

    #[test]
    fn fifteen_hundred_messages_on_ten_instances_add_five() {
        let backlog = Observation { waiting: 1500, ..seen(10) };
        assert_eq!(policy(VECTOR).target, 100.0);
        assert_eq!(after(&mut policy(VECTOR), 2, backlog), (10, "target-tracking-above"));
        assert_eq!(after(&mut policy(VECTOR), 3, backlog), (15, "target-tracking-out"));
    }

    #[test]
    fn rounding_is_cautious_both_ways() {
        let by = |waiting| Observation { waiting, ..seen(10) };
        assert_eq!(after(&mut policy(VECTOR), 3, by(1150)).0, 12, "wanting 1.5 more gives 2");
        assert_eq!(after(&mut policy(VECTOR), 14, by(850)).0, 10);
        assert_eq!(after(&mut policy(VECTOR), 15, by(850)), (9, "target-tracking-in"));
        assert_eq!(
            after(&mut policy(VECTOR), 99, by(900)),
            (10, "target-tracking-keep"),
            "90 % is not below"
        );
    }

    #[test]
    fn warming_instances_are_capacity_but_not_metric() {
        let warming = Observation { waiting: 1500, starting: 5, target: 15, ..seen(10) };
        assert_eq!(after(&mut policy(VECTOR), 9, warming), (15, "target-tracking-warming"));
        let more = Observation { waiting: 1800, ..warming };
        assert_eq!(after(&mut policy(VECTOR), 3, more), (18, "target-tracking-out"));
        let idle = Observation { waiting: 0, ..warming };
        assert_eq!(after(&mut policy(VECTOR), 99, idle), (15, "target-tracking-in-blocked"));
    }

    #[test]
    fn one_quiet_period_resets_the_alarm() {
        let mut policy = policy(VECTOR);
        let loud = Observation { waiting: 1500, ..seen(10) };
        after(&mut policy, 2, loud);
        after(&mut policy, 1, Observation { waiting: 950, ..seen(10) });
        assert_eq!(after(&mut policy, 2, loud), (10, "target-tracking-above"));
    }

    #[test]
    fn edges_stay_within_limits() {
        let flood = Observation { waiting: u32::MAX, count_max: 40, ..seen(10) };
        assert_eq!(after(&mut policy(VECTOR), 3, flood).0, 40);
        assert_eq!(after(&mut policy(VECTOR), 3, Observation { waiting: 1500, ..seen(0) }).0, 15);
        assert_eq!(after(&mut policy(VECTOR), 15, Observation { count_min: 3, ..seen(10) }).0, 3);
        // Jobs that take no time never need another instance.
        let instant = Observation { waiting: 1_000_000, ..seen(10) };
        assert_eq!(after(&mut policy(Duration::ZERO), 99, instant).1, "target-tracking-in");
        // A target of zero wants everything as soon as anything waits, and nothing when nothing does.
        let rule =
            TargetTracking { target: BacklogTarget::PerInstance(0.0), ..TargetTracking::default_params() };
        let mut greedy = TargetTrackingPolicy::new(rule, &context());
        assert_eq!(after(&mut greedy, 3, Observation { waiting: 1, ..seen(10) }).0, 1000);
        assert_eq!(after(&mut greedy, 99, seen(10)), (10, "target-tracking-keep"));
    }
}
