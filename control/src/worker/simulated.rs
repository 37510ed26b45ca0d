//! Work that only takes time: for tests, load and rehearsals without a GPU.

use std::time::{Duration, Instant};

use policy::model::PoolId;
use scenarios::scenario::Scenario;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::runner::{JobControl, Runner, Skills, Timed};
use super::service_time::ServiceTimes;
use crate::protocol::{Report, Start};

/// Longest simulated work, seconds.
const SERVICE_S_MAX: f64 = 86_400.0;

/// Time between two looks at a hanging job.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a payload may ask of a simulated worker; other keys are not looked at.
#[derive(Debug, Default, Deserialize)]
struct Wish<'a> {
    /// How long, seconds; drawn from the scenario, or nothing, where it is not said.
    service_s: Option<f64>,
    /// Fail with this message.
    fail: Option<String>,
    /// Whether the failure may go away.
    #[serde(default)]
    again: bool,
    /// Neither end nor move until cancelled; with `"forever"`, not even then.
    hang: Option<Hang>,
    /// Report progress so many times.
    progress: Option<u32>,
    /// The result; `{}` where it is not said.
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Hang {
    Cancellable,
    Forever,
}

/// Sleeps.
#[derive(Clone, Debug, Default)]
pub struct SleepRunner {
    times: Option<ServiceTimes>,
}

impl SleepRunner {
    /// A runner that takes the time that a payload names, or none.
    pub fn new() -> Self {
        Self::default()
    }

    /// A runner that takes the times of a scenario's stages on one of its pools, where a payload names none.
    pub fn of(scenario: Scenario, pool: PoolId) -> Self {
        Self { times: Some(ServiceTimes::new(scenario, pool)) }
    }

    fn after(&self, start: &Start, wish: &Wish<'_>) -> Duration {
        let drawn =
            || self.times.as_ref().and_then(|times| times.seconds(start.job, &start.stage, &start.quality));
        let seconds = wish.service_s.or_else(drawn).unwrap_or(0.0);
        Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, SERVICE_S_MAX) } else { 0.0 })
    }
}

impl Runner for SleepRunner {
    fn skills(&self) -> Skills {
        Skills { models: vec!["simulated".to_owned()], device: "none: work is simulated".to_owned() }
    }

    fn timed(&self, start: &Start) -> Option<Timed> {
        if self.times.is_none() && matches!(&*start.payload, b"{}" | b"null" | b"") {
            let report = Report::Done { result: b"{}".as_slice().into(), objects: Vec::new() };
            return Some(Timed { after: Duration::ZERO, report });
        }
        // Payloads of real models may be anything: they take the scenario's time.
        let wish = serde_json::from_slice::<Wish<'_>>(&start.payload).unwrap_or_default();
        if wish.hang.is_some() || wish.progress.is_some() {
            return None;
        }
        Some(Timed { after: self.after(start, &wish), report: wish.report() })
    }

    fn run(&self, start: Start, control: JobControl) -> Report {
        let Ok(wish) = serde_json::from_slice::<Wish<'_>>(&start.payload) else {
            return Report::Failed { message: "the payload cannot be read".to_owned(), again: false };
        };
        match wish.hang {
            Some(Hang::Forever) => loop {
                std::thread::sleep(LOOK_EVERY);
            },
            Some(Hang::Cancellable) => {
                while !control.is_cancelled() {
                    std::thread::sleep(LOOK_EVERY);
                }
            }
            None => {
                let (steps, after) = (wish.progress.unwrap_or(1).max(1), self.after(&start, &wish));
                let began = Instant::now();
                for done in 1..=steps {
                    let until = began + after.mul_f64(f64::from(done) / f64::from(steps));
                    std::thread::sleep(until.saturating_duration_since(Instant::now()));
                    if control.is_cancelled() {
                        break;
                    }
                    control.progress(done, steps);
                }
            }
        }
        if control.is_cancelled() {
            return Report::Failed { message: "cancelled".to_owned(), again: true };
        }
        wish.report()
    }
}

impl Wish<'_> {
    fn report(&self) -> Report {
        match &self.fail {
            Some(message) => Report::Failed { message: message.clone(), again: self.again },
            None => {
                let result = self.result.map_or("{}", RawValue::get);
                Report::Done { result: result.as_bytes().into(), objects: Vec::new() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::model::Lease;

    use super::*;
    use crate::number::JobNumber;

    fn start(payload: &str) -> Start {
        Start {
            lease: Lease { slot: 1, token: 1 },
            job: JobNumber(1),
            stage: "generate".to_owned(),
            delivery: 1,
            quality: "full".to_owned(),
            deadline_ms: None,
            payload: payload.as_bytes().into(),
            inputs: Vec::new(),
            carry: Box::default(),
            traceparent: None,
        }
    }

    #[test]
    fn payloads_say_how_long_and_how_it_ends() {
        let done = |result: &str| Report::Done { result: result.as_bytes().into(), objects: Vec::new() };
        let check = |payload: &str, expected: Option<(f64, Report)>| {
            let expected =
                expected.map(|(seconds, report)| Timed { after: Duration::from_secs_f64(seconds), report });
            assert_eq!(SleepRunner::new().timed(&start(payload)), expected, "{payload}");
        };
        check("{}", Some((0.0, done("{}"))));
        check(r#"{"service_s": 0.25}"#, Some((0.25, done("{}"))));
        check(r#"{"service_s": -1, "result": {"a": [1]}}"#, Some((0.0, done(r#"{"a": [1]}"#))));
        let failed = |again| Report::Failed { message: "no".to_owned(), again };
        check(r#"{"fail": "no"}"#, Some((0.0, failed(false))));
        check(r#"{"fail": "no", "again": true, "service_s": 1}"#, Some((1.0, failed(true))));
        check(r#"{"prompt": "a cat"}"#, Some((0.0, done("{}"))));
        check("not JSON", Some((0.0, done("{}"))));
        check(r#"{"hang": "forever"}"#, None);
        check(r#"{"progress": 4}"#, None);
    }

    #[test]
    fn steps_end_with_the_report() {
        let report = SleepRunner::new()
            .run(start(r#"{"progress": 3, "service_s": 0.003, "fail": "x"}"#), JobControl::alone());
        assert_eq!(report, Report::Failed { message: "x".to_owned(), again: false });
    }
}
