//! Admission: whether a job may wait, is turned away, or goes to an external service.

use crate::units::Duration;

/// Turns away what would be late anyway.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shedding {
    /// A job is shed when expected wait + remaining service exceeds the time left to its deadline times this (> 0).
    /// Below 1 sheds earlier, above 1 later.
    pub slack: f64,
}

/// Whether a job may wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Admission {
    /// Deadline-aware shedding, on arrival and again when the job's turn comes; `None` serves everything.
    pub shedding: Option<Shedding>,
    /// A job goes to an external pool of its group, if there is one, once the expected wait passes this.
    pub overflow_above: Option<Duration>,
}

/// What becomes of a job at a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionVerdict {
    /// It may wait.
    Queue,
    /// It goes to an external service.
    Overflow,
    /// It would be late: it is turned away.
    Shed,
}

impl Admission {
    /// Serves everything, in order.
    pub const ALL: Self = Self { shedding: None, overflow_above: None };

    /// What becomes of a job that would wait `wait_expected` and then needs `service_left`, with `time_left` to its
    /// deadline (`None` without one). Overflow is preferred to shedding.
    #[inline]
    pub fn verdict(
        &self,
        wait_expected: Duration,
        service_left: Duration,
        time_left: Option<Duration>,
        has_external: bool,
    ) -> AdmissionVerdict {
        if has_external && self.overflow_above.is_some_and(|limit| wait_expected > limit) {
            return AdmissionVerdict::Overflow;
        }
        match (self.shedding, time_left) {
            (Some(shedding), Some(left)) if wait_expected + service_left > left.scaled(shedding.slack) => {
                AdmissionVerdict::Shed
            }
            _ => AdmissionVerdict::Queue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_jobs_are_shed_and_overflow_comes_first() {
        let s = Duration::from_secs;
        let both = Admission { shedding: Some(Shedding { slack: 1.0 }), overflow_above: Some(s(10)) };
        assert_eq!(both.verdict(s(5), s(8), Some(s(13)), true), AdmissionVerdict::Queue);
        assert_eq!(both.verdict(s(5), s(8), Some(s(12)), true), AdmissionVerdict::Shed);
        assert_eq!(both.verdict(s(11), s(8), Some(s(12)), true), AdmissionVerdict::Overflow);
        assert_eq!(both.verdict(s(11), s(8), Some(s(12)), false), AdmissionVerdict::Shed);
        assert_eq!(both.verdict(s(11), s(8), None, false), AdmissionVerdict::Queue);
        assert_eq!(Admission::ALL.verdict(s(99), s(8), Some(s(1)), true), AdmissionVerdict::Queue);
    }
}
