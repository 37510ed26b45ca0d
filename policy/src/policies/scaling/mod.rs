//! Scaling: how many instances a group should hold.

use super::Reason;
use crate::units::{Duration, Instant};

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
