//! Scaling that looks at the clock only: a fixed count, and counts at given times.

use super::{GroupContext, Observation, ScalingMemory, ScalingPolicy, Target};
use crate::policies::Reason;
use crate::units::{Duration, Instant};

/// Time between two ticks of policies that only read the clock; short against any start-up time.
const PERIOD: Duration = Duration::from_secs(10);

/// A count from a time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleStep {
    /// When the instances should be ready, from the start of the run, or of each repetition.
    pub at: Duration,
    /// Instances from then on.
    pub instances: u32,
}

/// Counts at given times; before the first step the initial count holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// In any order; of two steps at one time the later in the list counts.
    pub steps: Vec<ScheduleStep>,
    /// How long before a rise instances are launched; `None` is the group's expected start-up time.
    pub lead: Option<Duration>,
    /// Length after which the steps start over, e.g. a day; `None` is never.
    pub repeat: Option<Duration>,
}

impl Schedule {
    /// No steps, launched one expected start-up time early, once.
    pub fn default_params() -> Self {
        Self { steps: Vec::new(), lead: None, repeat: None }
    }
}

/// Keeps the initial count.
pub(super) struct StaticPolicy {
    instances: u32,
}

impl StaticPolicy {
    pub(super) fn new(context: &GroupContext) -> Self {
        Self { instances: context.count_initial }
    }
}

impl ScalingPolicy for StaticPolicy {
    fn period(&self) -> Duration {
        PERIOD
    }

    fn decide(&mut self, _now: Instant, _seen: &Observation) -> Target {
        let text = format!("the count is fixed at {}", self.instances);
        Target { instances: self.instances, reason: Reason::new("static", text) }
    }

    fn memory(&self) -> ScalingMemory {
        ScalingMemory::Nothing
    }

    fn recall(&mut self, _memory: ScalingMemory) {}
}

/// Follows a [`Schedule`].
pub(super) struct SchedulePolicy {
    steps: Vec<ScheduleStep>,
    lead: Option<Duration>,
    repeat: Option<Duration>,
    count_initial: u32,
}

impl SchedulePolicy {
    pub(super) fn new(schedule: &Schedule, context: &GroupContext) -> Self {
        let mut steps = schedule.steps.clone();
        steps.sort_by_key(|step| step.at); // stable: of two steps at one time the later in the list comes last
        let repeat = schedule.repeat.filter(|every| *every > Duration::ZERO);
        if let Some(every) = repeat {
            steps.retain(|step| step.at < every);
        }
        Self { steps, lead: schedule.lead, repeat, count_initial: context.count_initial }
    }

    /// The count in force at `at`.
    fn count_at(&self, at: Instant) -> u32 {
        let (round, offset) = self.offset(at);
        let in_force = self.steps.iter().rev().find(|step| step.at <= offset);
        match (in_force, round) {
            (Some(step), _) => step.instances,
            (None, 0) => self.count_initial,
            (None, _) => self.steps.last().map_or(self.count_initial, |step| step.instances),
        }
    }

    /// The highest count in force at any time of `[from, until)`.
    fn count_highest(&self, from: Instant, until: Instant) -> u32 {
        let mut highest = self.count_at(from);
        let (_, offset) = self.offset(from);
        let span = until.since(from);
        for step in &self.steps {
            // A step of this repetition, or of the next one: further ones hold the same counts again.
            let is_ahead = step.at > offset;
            let ahead = if is_ahead { step.at - offset } else { self.until_next_round(step.at, offset) };
            if ahead > Duration::ZERO && ahead < span {
                highest = highest.max(step.instances);
            }
        }
        highest
    }

    /// Time from `offset` into one repetition until `at` of the next; never comes without repetition.
    fn until_next_round(&self, at: Duration, offset: Duration) -> Duration {
        self.repeat.map_or(Duration::MAX, |every| every - offset + at)
    }

    /// Which repetition `at` is in, and how far into it.
    fn offset(&self, at: Instant) -> (u64, Duration) {
        match self.repeat {
            None => (0, at.since(Instant::START)),
            Some(every) => {
                let (nanos, every) = (at.as_nanos(), every.as_nanos());
                (nanos / every, Duration::from_nanos(nanos % every))
            }
        }
    }
}

impl ScalingPolicy for SchedulePolicy {
    fn period(&self) -> Duration {
        PERIOD
    }

    /// Rises count one lead early (and one period, since the next tick may be too late); falls count at their time.
    fn decide(&mut self, now: Instant, seen: &Observation) -> Target {
        let lead = self.lead.unwrap_or(seen.startup_expected);
        let instances = self.count_highest(now, now + lead + PERIOD);
        let text = format!(
            "the schedule asks for {} now and at most {instances} within the lead of {lead}",
            self.count_at(now)
        );
        Target { instances, reason: Reason::new("schedule", text) }
    }

    fn memory(&self) -> ScalingMemory {
        ScalingMemory::Nothing
    }

    fn recall(&mut self, _memory: ScalingMemory) {}
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, context, seen};
    use super::*;

    fn step(secs: u64, instances: u32) -> ScheduleStep {
        ScheduleStep { at: Duration::from_secs(secs), instances }
    }

    fn check(schedule: &Schedule, expected: &[(u64, u32)]) {
        let mut policy = SchedulePolicy::new(schedule, &context());
        for (secs, instances) in expected {
            assert_eq!(policy.decide(at(*secs), &seen(4)).instances, *instances, "at {secs} s");
        }
    }

    #[test]
    fn static_keeps_the_initial_count() {
        let mut policy = StaticPolicy::new(&context());
        assert_eq!(policy.decide(at(0), &seen(9)).instances, 4);
        assert_eq!(policy.decide(at(9999), &Observation { waiting: 9999, ..seen(9) }).instances, 4);
    }

    #[test]
    fn rises_come_one_start_up_early_and_falls_on_time() {
        // Start-up takes 180 s; the tick at 820 s is the first whose reach (lead and one period) passes 1000 s.
        let schedule = Schedule { steps: vec![step(2000, 5), step(1000, 20)], ..Schedule::default_params() };
        check(&schedule, &[(0, 4), (810, 4), (820, 20), (1000, 20), (1990, 20), (2000, 5), (9999, 5)]);
        check(&Schedule { lead: Some(Duration::ZERO), ..schedule }, &[(990, 4), (1000, 20)]);
    }

    #[test]
    fn a_repeated_schedule_looks_into_its_next_round() {
        let schedule = Schedule {
            steps: vec![step(0, 2), step(100, 30), step(500, 3), step(5000, 99)],
            repeat: Some(Duration::from_secs(1000)),
            lead: None,
        };
        // The step past the end of the round never comes.
        check(
            &schedule,
            &[(0, 30), (499, 30), (500, 3), (900, 3), (920, 30), (1099, 30), (1500, 3), (1920, 30)],
        );
    }

    #[test]
    fn an_empty_schedule_keeps_the_initial_count() {
        check(&Schedule::default_params(), &[(0, 4), (86_400, 4)]);
        check(&Schedule { repeat: Some(Duration::ZERO), ..Schedule::default_params() }, &[(7, 4)]);
    }
}
