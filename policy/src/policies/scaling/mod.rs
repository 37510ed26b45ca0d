//! Scaling: how many instances a group should hold.

mod behavior;
mod fixed;
mod hpa;
mod keda;
mod sky_serve;
mod target_tracking;

pub use behavior::{HpaBehavior, HpaChange, HpaPolicy, HpaRules, HpaSelect};
pub use fixed::{Schedule, ScheduleStep};
pub use hpa::{Hpa, HpaMetric};
pub use keda::Keda;
pub use sky_serve::{ReplicaRate, SkyServe};
pub use target_tracking::{BacklogTarget, TargetTracking};

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
            Self::Schedule(schedule) => Box::new(fixed::SchedulePolicy::new(schedule, context)),
            _ => Box::new(fixed::StaticPolicy::new(context)),
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
}
