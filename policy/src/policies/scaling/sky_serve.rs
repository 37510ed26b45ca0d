//! SkyServe: replicas by request rate, with a long wait before each change.
//!
//! Follows `sky/serve/autoscalers.py` of SkyPilot (`RequestRateAutoscaler` with hysteresis). Surplus replicas and the
//! on-demand fallback are purchase, not scaling.

use std::collections::VecDeque;

use super::{GroupContext, Observation, ScalingMemory, ScalingPolicy, Target, count_above};
use crate::policies::Reason;
use crate::units::{Duration, Instant};

/// Requests per second that one instance is meant to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReplicaRate {
    /// This many per second (`target_qps_per_replica`, > 0).
    PerSecond(f64),
    /// As many as its slots finish at the expected service time.
    FromServiceTime,
}

/// Parameters of SkyServe's request-rate autoscaler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SkyServe {
    /// Requests per second that one instance is meant to take.
    pub replica_rate: ReplicaRate,
    /// Requests of this long back are counted (> 0).
    pub window: Duration,
    /// Time between two decisions (> 0).
    pub interval: Duration,
    /// Time between two decisions while the target is zero (> 0).
    pub interval_at_zero: Duration,
    /// How long more must be wanted without a break before the target rises.
    pub upscale_delay: Duration,
    /// How long less must be wanted without a break before the target falls.
    pub downscale_delay: Duration,
}

impl SkyServe {
    /// `sky/serve/constants.py`: window 60 s, decisions every 20 s (5 s at zero), up after 300 s, down after 1200 s.
    /// SkyServe has no default rate per replica; the expected service time gives one.
    pub fn default_params() -> Self {
        Self {
            replica_rate: ReplicaRate::FromServiceTime,
            window: Duration::from_secs(60),
            interval: Duration::from_secs(20),
            interval_at_zero: Duration::from_secs(5),
            upscale_delay: Duration::from_secs(300),
            downscale_delay: Duration::from_secs(1200),
        }
    }
}

/// Scales by a [`SkyServe`].
pub(super) struct SkyServePolicy {
    rule: SkyServe,
    /// Requests per second of one instance.
    rate: f64,
    /// Arrivals per tick within the window, oldest first, each with the time of its tick.
    arrivals: VecDeque<(Instant, u64)>,
    /// When the next decision is due.
    decide_at: Instant,
    /// Consecutive decisions that wanted more.
    higher: u64,
    /// Consecutive decisions that wanted less.
    lower: u64,
}

impl SkyServePolicy {
    pub(super) fn new(rule: SkyServe, context: &GroupContext) -> Self {
        let rate = match rule.replica_rate {
            ReplicaRate::PerSecond(rate) => rate,
            ReplicaRate::FromServiceTime => {
                context.slots_per_instance / context.service_expected.as_secs_f64()
            }
        };
        let arrivals = VecDeque::new();
        Self { rule, rate, arrivals, decide_at: Instant::START, higher: 0, lower: 0 }
    }

    fn note_arrivals(&mut self, now: Instant, arrived: u64) {
        self.arrivals.push_back((now, arrived));
        self.arrivals.retain(|(at, _)| now.since(*at) < self.rule.window);
    }

    /// Consecutive decisions that make up `delay`.
    fn decisions(&self, delay: Duration) -> u64 {
        delay.as_nanos() / self.rule.interval.as_nanos().max(1)
    }

    /// The target after one decision that wants `wanted` instead of `current`.
    fn step(&mut self, current: u32, wanted: u32) -> (u32, &'static str) {
        let (higher, lower) = (self.higher.saturating_add(1), self.lower.saturating_add(1));
        (self.higher, self.lower) = (0, 0);
        match wanted.cmp(&current) {
            _ if current == 0 => (wanted, "sky-serve-from-zero"),
            std::cmp::Ordering::Equal => (current, "sky-serve-keep"),
            std::cmp::Ordering::Greater if higher >= self.decisions(self.rule.upscale_delay) => {
                (wanted, "sky-serve-up")
            }
            std::cmp::Ordering::Less if lower >= self.decisions(self.rule.downscale_delay) => {
                (wanted, "sky-serve-down")
            }
            std::cmp::Ordering::Greater => {
                self.higher = higher;
                (current, "sky-serve-waiting-up")
            }
            std::cmp::Ordering::Less => {
                self.lower = lower;
                (current, "sky-serve-waiting-down")
            }
        }
    }
}

impl ScalingPolicy for SkyServePolicy {
    /// The shorter of the two intervals, so that a group of zero is woken in time.
    fn period(&self) -> Duration {
        self.rule.interval_at_zero.min(self.rule.interval)
    }

    fn decide(&mut self, now: Instant, seen: &Observation) -> Target {
        self.note_arrivals(now, seen.arrived);
        let current = seen.target;
        let keep = |code, text: String| Target { instances: current, reason: Reason::new(code, text) };
        if now < self.decide_at {
            return keep("sky-serve-between", format!("the next decision is due at {}", self.decide_at));
        }
        let count = self.arrivals.iter().fold(0_u64, |sum, (_, arrived)| sum.saturating_add(*arrived));
        let per_second = count as f64 / self.rule.window.as_secs_f64();
        let needed = count_above(per_second / self.rate);
        let wanted = needed.clamp(seen.count_min, seen.count_max.max(seen.count_min));
        let (instances, code) = self.step(current, wanted);
        self.decide_at = now + if instances == 0 { self.rule.interval_at_zero } else { self.rule.interval };
        let text = format!(
            "{per_second:.3} requests/s over {}, {:.3} per instance: {wanted} wanted; {} decisions higher, {} lower",
            self.rule.window, self.rate, self.higher, self.lower
        );
        Target { instances, reason: Reason::new(code, text) }
    }
    fn memory(&self) -> ScalingMemory {
        let (arrivals, decide_at) = (self.arrivals.clone(), self.decide_at);
        ScalingMemory::SkyServe { arrivals, decide_at, higher: self.higher, lower: self.lower }
    }

    fn recall(&mut self, memory: ScalingMemory) {
        if let ScalingMemory::SkyServe { arrivals, decide_at, higher, lower } = memory {
            (self.arrivals, self.decide_at) = (arrivals, decide_at);
            (self.higher, self.lower) = (higher, lower);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, context, seen};
    use super::*;

    /// One slot per instance and 8 s per job: 0.125 requests/s each. Returns the time and target of each change.
    fn walk(start: u32, ticks: u64, arrived: impl Fn(u64) -> u64) -> Vec<(u64, u32)> {
        let mut policy = SkyServePolicy::new(SkyServe::default_params(), &context());
        let (mut current, mut changes) = (start, Vec::new());
        for tick in 0..ticks {
            let secs = 5 * tick;
            let seen = Observation { arrived: arrived(secs), ..seen(current) };
            let target = policy.decide(at(secs), &seen).instances;
            if target != current {
                changes.push((secs, target));
            }
            current = target;
        }
        changes
    }

    #[test]
    fn rises_after_fifteen_decisions_and_falls_after_sixty() {
        // 5 jobs per 5 s are 1/s: 8 instances. At 0 s the window holds too little to want more than 1.
        assert_eq!(walk(1, 80, |_| 5), [(300, 8)]);
        assert_eq!(walk(20, 400, |_| 5), [(1180, 8)]);
    }

    #[test]
    fn one_decision_the_other_way_starts_over() {
        // Silence from 200 s to 300 s empties the window, so the rise is counted from 320 s again.
        let changes = walk(1, 200, |secs| if (200..300).contains(&secs) { 0 } else { 5 });
        assert_eq!(changes, [(600, 8)]);
    }

    #[test]
    fn a_group_of_zero_wakes_at_once() {
        assert_eq!(walk(0, 10, |secs| u64::from(secs == 15)), [(15, 1)]);
    }

    #[test]
    fn limits_and_instant_service_are_kept() {
        let mut policy = SkyServePolicy::new(SkyServe::default_params(), &context());
        let flood = Observation { arrived: u64::MAX / 2, count_max: 30, ..seen(0) };
        assert_eq!(policy.decide(at(0), &flood).instances, 30);
        let instant = GroupContext { service_expected: Duration::ZERO, ..context() };
        let mut policy = SkyServePolicy::new(SkyServe::default_params(), &instant);
        assert_eq!(policy.decide(at(0), &Observation { arrived: 9, ..seen(0) }).instances, 0);
    }
}
