//! KEDA on the length of a queue: an operator between 0 and 1, a Horizontal Pod Autoscaler from 1 on.
//!
//! Follows kedacore/keda at 8b4f083: `pkg/scaling/executor/scale_scaledobjects.go`, `pkg/scalers/aws_sqs_queue_scaler.go`.

use super::behavior::HpaBehavior;
use super::hpa::{Hpa, HpaMetric, HpaScaler, queue_length};
use super::{Observation, ScalingMemory, ScalingPolicy, Target};
use crate::policies::Reason;
use crate::units::{Duration, Instant};

/// Parameters of a KEDA `ScaledObject` with an `aws-sqs-queue` trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct Keda {
    /// Jobs per instance to aim at (`queueLength`, > 0).
    pub queue_length: f64,
    /// Whether running jobs count beside the waiting ones (`scaleOnInFlight`).
    pub running_counts: bool,
    /// Jobs above which a group of zero is woken (`activationQueueLength`).
    pub activation: f64,
    /// Time between two looks of the operator, which moves between 0 and 1 only (`pollingInterval`).
    pub polling: Duration,
    /// Time without activity after which the last instances go (`cooldownPeriod`).
    pub cooldown: Duration,
    /// Time from the start of the run before which they never go (`initialCooldownPeriod`).
    pub initial_cooldown: Duration,
    /// Fewest instances (`minReplicaCount`), beside the pools' own minima.
    pub replicas_min: u32,
    /// Most instances (`maxReplicaCount`), beside the pools' own maxima.
    pub replicas_max: u32,
    /// Time between two looks of the Horizontal Pod Autoscaler, which moves between 1 and N.
    pub period: Duration,
    /// How fast the count may move between 1 and N.
    pub behavior: HpaBehavior,
}

impl Keda {
    /// KEDA's own defaults (`apis/keda/v1alpha1/scaledobject_types.go`, `aws_sqs_queue_scaler.go`): queueLength 5 with
    /// in-flight, activation 0, polling 30 s, cooldown 300 s, 0 to 100 replicas; the rest is Kubernetes'.
    pub fn default_params() -> Self {
        let hpa = Hpa::default_params();
        Self {
            queue_length: 5.0,
            running_counts: true,
            activation: 0.0,
            polling: Duration::from_secs(30),
            cooldown: Duration::from_secs(300),
            initial_cooldown: Duration::ZERO,
            replicas_min: 0,
            replicas_max: 100,
            period: hpa.period,
            behavior: hpa.behavior,
        }
    }
}

/// Scales by a [`Keda`].
pub(super) struct KedaPolicy {
    rule: Keda,
    hpa: HpaScaler,
    /// When the operator looks next.
    poll_at: Instant,
    /// When the operator last saw activity.
    active_at: Option<Instant>,
    /// When the first decision was taken: the object's creation.
    created_at: Option<Instant>,
}

impl KedaPolicy {
    pub(super) fn new(rule: Keda) -> Self {
        let metric =
            HpaMetric::AverageValue { target: rule.queue_length, running_counts: rule.running_counts };
        let hpa = HpaScaler::new(Hpa { period: rule.period, metric, behavior: rule.behavior.clone() });
        Self { rule, hpa, poll_at: Instant::START, active_at: None, created_at: None }
    }

    /// The operator's own step, when it takes one: between zero and the first instances.
    fn poll(&mut self, now: Instant, seen: &Observation, min: u32, max: u32) -> Option<Target> {
        let created_at = *self.created_at.get_or_insert(now);
        if now < self.poll_at {
            return None;
        }
        self.poll_at = now + self.rule.polling;
        let value = queue_length(seen, self.rule.running_counts);
        if value > self.rule.activation {
            self.active_at = Some(now);
            if seen.target > 0 {
                return None;
            }
            let text = format!("{value} jobs wake a group of zero, above {}", self.rule.activation);
            return Some(Target {
                instances: min.max(1).min(max),
                reason: Reason::new("keda-activate", text),
            });
        }
        if min > 0 || seen.target == 0 {
            return None;
        }
        let (since, cooldown) = match self.active_at {
            Some(active_at) => (active_at, self.rule.cooldown),
            None => (created_at, self.rule.initial_cooldown),
        };
        let idle = now.since(since);
        (idle >= cooldown).then(|| {
            let text = format!("no activity for {idle}, the cooldown is {cooldown}");
            Target { instances: 0, reason: Reason::new("keda-to-zero", text) }
        })
    }
}

impl ScalingPolicy for KedaPolicy {
    fn period(&self) -> Duration {
        self.rule.period
    }

    fn decide(&mut self, now: Instant, seen: &Observation) -> Target {
        let max = seen.count_max.min(self.rule.replicas_max.max(seen.count_min));
        let min = seen.count_min.max(self.rule.replicas_min).min(max);
        if let Some(target) = self.poll(now, seen, min, max) {
            return target;
        }
        if seen.target == 0 && min == 0 {
            let text = format!("the group sleeps until more than {} jobs are seen", self.rule.activation);
            return Target { instances: 0, reason: Reason::new("keda-asleep", text) };
        }
        self.hpa.scale(now, seen, min, max)
    }

    fn memory(&self) -> ScalingMemory {
        let hpa = self.hpa.motion.memory.clone();
        let &Self { poll_at, active_at, created_at, .. } = self;
        ScalingMemory::Keda { poll_at, active_at, created_at, hpa }
    }

    fn recall(&mut self, memory: ScalingMemory) {
        if let ScalingMemory::Keda { poll_at, active_at, created_at, hpa } = memory {
            (self.poll_at, self.active_at, self.created_at) = (poll_at, active_at, created_at);
            self.hpa.motion.memory = hpa;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, seen};
    use super::*;

    /// Counts at ticks of 15 s, for the jobs waiting at each.
    fn walk(start: u32, waiting: &[u32]) -> Vec<(u32, &'static str)> {
        let mut policy = KedaPolicy::new(Keda::default_params());
        let mut current = start;
        let tick = |(tick, waiting): (u64, &u32)| {
            let target = policy.decide(at(15 * tick), &Observation { waiting: *waiting, ..seen(current) });
            current = target.instances;
            (target.instances, target.reason.code)
        };
        (0..).zip(waiting).map(tick).collect()
    }

    #[test]
    fn wakes_at_the_poll_and_then_grows_as_an_hpa() {
        let steps = walk(0, &[0, 400, 400, 400, 400]);
        assert_eq!(
            steps,
            [(0, "keda-asleep"), (0, "keda-asleep"), (1, "keda-activate"), (5, "hpa-up"), (10, "hpa-up")]
        );
    }

    #[test]
    fn sleeps_only_after_the_cooldown() {
        let mut waiting = vec![1];
        waiting.resize(30, 0);
        let steps = walk(1, &waiting);
        let asleep = steps.iter().position(|step| step.0 == 0);
        assert_eq!(asleep, Some(20), "300 s after the poll at 0 s: {steps:?}");
        assert_eq!(steps[20].1, "keda-to-zero");
    }

    #[test]
    fn a_group_that_was_never_active_sleeps_at_once() {
        assert_eq!(walk(3, &[0])[0], (0, "keda-to-zero"));
    }

    #[test]
    fn running_jobs_count_unless_told_otherwise() {
        let busy = Observation { waiting: 10, running: 90, ..seen(19) };
        let mut rule = Keda::default_params();
        assert_eq!(
            KedaPolicy::new(rule.clone()).decide(at(0), &busy).instances,
            19,
            "20 is within tolerance"
        );
        rule.queue_length = 4.0;
        assert_eq!(KedaPolicy::new(rule.clone()).decide(at(0), &busy).instances, 25);
        rule.running_counts = false;
        rule.behavior.down.stabilization_window = Duration::ZERO;
        assert_eq!(KedaPolicy::new(rule).decide(at(0), &busy).instances, 3);
    }

    #[test]
    fn the_vendor_maximum_binds_beside_the_pools() {
        let flood = Observation { waiting: 100_000, count_max: 500, ..seen(90) };
        assert_eq!(KedaPolicy::new(Keda::default_params()).decide(at(0), &flood).instances, 100);
        let floor = Observation { waiting: 0, count_min: 2, count_max: 500, ..seen(2) };
        assert_eq!(KedaPolicy::new(Keda::default_params()).decide(at(0), &floor).instances, 2);
    }
}
