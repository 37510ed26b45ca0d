//! Scaling: how many instances a group should hold.

mod behavior;
mod fixed;
mod hpa;
mod keda;
mod sky_serve;
mod target_tracking;

pub use behavior::{HpaBehavior, HpaChange, HpaMemory, HpaPolicy, HpaRules, HpaSelect};
pub use fixed::{Schedule, ScheduleStep};
pub use hpa::{Hpa, HpaMetric};
pub use keda::Keda;
pub use sky_serve::{ReplicaRate, SkyServe};
pub use target_tracking::{BacklogTarget, TargetTracking};

use std::collections::VecDeque;

use super::Reason;
use crate::units::{Duration, Instant};

/// Which rule decides how many instances a group should hold, with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// The initial count, always.
    Static,
    /// Counts at given times.
    Schedule(Schedule),
    /// AWS target tracking on the backlog per instance.
    TargetTracking(TargetTracking),
    /// Kubernetes Horizontal Pod Autoscaler v2.
    Hpa(Hpa),
    /// KEDA on the length of a queue.
    Keda(Keda),
    /// SkyServe on the request rate.
    SkyServe(SkyServe),
}

/// What a scaling policy knows of its group before the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupContext {
    /// Instances ready when the run starts, over the group's pools.
    pub count_initial: u32,
    /// Sum of the pools' minima.
    pub count_min: u32,
    /// Sum of the pools' maxima.
    pub count_max: u32,
    /// Expected time of one job on one slot.
    pub service_expected: Duration,
    /// Jobs one instance runs at once (the scarcest slot kind of the group).
    pub slots_per_instance: f64,
    /// Expected time from launch to ready of the group's slowest pool.
    pub startup_expected: Duration,
}

impl Scaling {
    /// The policy that decides for one group.
    pub fn build(&self, context: &GroupContext) -> Box<dyn ScalingPolicy> {
        match self {
            Self::Static => Box::new(fixed::StaticPolicy::new(context)),
            Self::Schedule(rule) => Box::new(fixed::SchedulePolicy::new(rule, context)),
            Self::TargetTracking(rule) => {
                Box::new(target_tracking::TargetTrackingPolicy::new(*rule, context))
            }
            Self::Hpa(rule) => Box::new(hpa::HpaScaler::new(rule.clone())),
            Self::Keda(rule) => Box::new(keda::KedaPolicy::new(rule.clone())),
            Self::SkyServe(rule) => Box::new(sky_serve::SkyServePolicy::new(*rule, context)),
        }
    }
}

/// The count nearest above `exact`; NaN and negatives become 0, too large saturates.
fn count_above(exact: f64) -> u32 {
    exact.ceil() as u32
}

/// What a scaling policy sees of its group at a tick.
///
/// Rates are per second over the time since the last tick. Counts are instances unless they say jobs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Jobs that entered the group's queues since the last tick.
    pub arrived: u64,
    /// Time since the last tick; zero at the first.
    pub elapsed: Duration,
    /// Jobs waiting now.
    pub waiting: u32,
    /// Age of the job that has waited longest.
    pub waiting_age: Duration,
    /// Jobs on a slot now.
    pub running: u32,
    /// Mean service time: measured since the last tick where jobs finished, else the expected one.
    pub service_mean: Duration,
    /// Jobs one instance runs at once (the scarcest slot kind of the group).
    pub slots_per_instance: f64,
    /// Instances ready for work.
    pub ready: u32,
    /// Instances requested, booting or loading.
    pub starting: u32,
    /// Instances finishing their last jobs.
    pub draining: u32,
    /// Sum of the pools' minima.
    pub count_min: u32,
    /// Sum of the pools' maxima.
    pub count_max: u32,
    /// The target now in force.
    pub target: u32,
    /// Expected time from launch to ready of the group's slowest pool.
    pub startup_expected: Duration,
}

impl Observation {
    /// Arrivals per second since the last tick; zero at the first.
    pub fn arrival_rate(&self) -> f64 {
        if self.elapsed == Duration::ZERO { 0.0 } else { self.arrived as f64 / self.elapsed.as_secs_f64() }
    }

    /// Share of ready slots that are busy, 0..=1; zero without ready instances.
    pub fn utilization(&self) -> f64 {
        let slots = f64::from(self.ready + self.draining) * self.slots_per_instance;
        if slots > 0.0 { (f64::from(self.running) / slots).min(1.0) } else { 0.0 }
    }
}

/// How many instances a group should hold, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Instances, before the purchase policy adds its own surplus; the dispatcher clamps it to the pools' limits.
    pub instances: u32,
    /// Why.
    pub reason: Reason,
}

/// Decides how many instances a group should hold.
pub trait ScalingPolicy: Send {
    /// Time between two ticks.
    fn period(&self) -> Duration;

    /// The target from now on; called once every [`ScalingPolicy::period`].
    fn decide(&mut self, now: Instant, seen: &Observation) -> Target;

    /// What it remembers.
    fn memory(&self) -> ScalingMemory;

    /// Takes up what a policy of its kind remembered, perhaps under other parameters; any other memory is left aside.
    fn recall(&mut self, memory: ScalingMemory);
}

/// What a scaling policy remembers from one decision to the next. Its parameters are not in it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub enum ScalingMemory {
    /// A fixed count and a schedule remember nothing.
    Nothing,
    /// Consecutive values above the target, and below the scale-in threshold.
    TargetTracking { above: u32, below: u32 },
    /// Of the Horizontal Pod Autoscaler.
    Hpa(HpaMemory),
    /// When the operator looks next, last saw activity and began; and its autoscaler's memory.
    Keda { poll_at: Instant, active_at: Option<Instant>, created_at: Option<Instant>, hpa: HpaMemory },
    /// Arrivals by tick, when the next decision is due, and consecutive decisions that wanted more, and less.
    SkyServe { arrivals: VecDeque<(Instant, u64)>, decide_at: Instant, higher: u64, lower: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn at(secs: u64) -> Instant {
        Instant::START + Duration::from_secs(secs)
    }

    /// One slot per instance, 8 s per job, up to 1000 instances.
    pub(super) fn context() -> GroupContext {
        GroupContext {
            count_initial: 4,
            count_min: 0,
            count_max: 1000,
            service_expected: Duration::from_secs(8),
            slots_per_instance: 1.0,
            startup_expected: Duration::from_secs(180),
        }
    }

    /// A quiet group with `count` instances, all ready.
    pub(super) fn seen(count: u32) -> Observation {
        let context = context();
        Observation {
            arrived: 0,
            elapsed: Duration::from_secs(15),
            waiting: 0,
            waiting_age: Duration::ZERO,
            running: 0,
            service_mean: context.service_expected,
            slots_per_instance: context.slots_per_instance,
            ready: count,
            starting: 0,
            draining: 0,
            count_min: context.count_min,
            count_max: context.count_max,
            target: count,
            startup_expected: context.startup_expected,
        }
    }

    /// Whatever is seen, a policy answers within the group's limits and gives a reason with text.
    #[test]
    fn every_policy_stays_within_limits_on_random_input() {
        let rules = [
            Scaling::Static,
            Scaling::TargetTracking(TargetTracking::default_params()),
            Scaling::Hpa(Hpa::default_params()),
            Scaling::Keda(Keda::default_params()),
            Scaling::SkyServe(SkyServe::default_params()),
        ];
        let chance = crate::units::random::Stream::new(11, 0, "scaling-limits");
        for (which, rule) in (0_u64..).zip(&rules) {
            let context = GroupContext { count_min: 2, count_max: 60, ..context() };
            let (mut policy, mut now, mut target) = (rule.build(&context), Instant::START, 4);
            assert!(policy.period() > Duration::ZERO);
            for tick in 0..2000 {
                let draw = |index, bound| chance.child(which).child(tick).below(index, bound) as u32;
                let ready = draw(0, u64::from(target) + 1);
                let input = Observation {
                    arrived: u64::from(draw(1, 500)),
                    elapsed: policy.period(),
                    waiting: draw(2, 2) * draw(3, 5000),
                    running: draw(4, u64::from(ready) + 1),
                    ready,
                    starting: target - ready,
                    count_min: 2,
                    count_max: 60,
                    target,
                    ..seen(target)
                };
                let answer = policy.decide(now, &input);
                assert!((2..=60).contains(&answer.instances), "{rule:?}: {answer:?}");
                assert!(!answer.reason.code.is_empty() && !answer.reason.text.is_empty());
                target = answer.instances;
                now += policy.period();
            }
        }
    }
}
