//! Jobs as the API shows them.

use std::fmt::Display;
use std::sync::Arc;

use jiff::Timestamp;
use policy::records::JobOutcome;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::names::{Calendar, Names};
use crate::effect::{JobEvent, JobRecord, JobState, JobView};
use crate::number::JobNumber;

/// A job that is in the system, or has ended.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Live(JobView),
    Ended(Arc<JobRecord>),
}

/// A job.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
#[schema(as = Job)]
pub(crate) struct JobBody<'a> {
    /// Its id.
    #[serde(serialize_with = "shown")]
    #[schema(value_type = String, example = "job-0-42")]
    id: JobNumberOrZero,
    /// Where it stands: queued, running, done, failed, expired or cancelled.
    state: &'static str,
    /// Class.
    class: &'a str,
    /// Region of the client; of ended jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
    /// When it was accepted.
    #[serde(serialize_with = "shown_time", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    created_at: Option<Timestamp>,
    /// When it ended.
    #[serde(serialize_with = "shown_time", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
    /// Stage it is at; of jobs in the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    /// Level of quality it got; of ended jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<&'a str>,
    /// Seconds in queues and between attempts; of ended jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_s: Option<f64>,
    /// Seconds being served; of ended jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    service_s: Option<f64>,
    /// How often it was given to a worker.
    deliveries: u16,
    /// Counts its changes.
    version: u32,
    /// What the worker gave back; of jobs that are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<Raw<'a>>,
    /// What the last attempt said; of jobs that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    error: Option<std::borrow::Cow<'a, str>>,
    /// Keys of output objects.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    outputs: &'a [String],
}

/// A job's number; zero only while a body is put together.
type JobNumberOrZero = Option<JobNumber>;

/// JSON as a worker sent it, or its text where it is none.
#[derive(Debug)]
enum Raw<'a> {
    Json(&'a RawValue),
    Text(std::borrow::Cow<'a, str>),
}

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(value) => value.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
        }
    }
}

fn shown<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn shown_time<S: Serializer>(value: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    shown(value, serializer)
}

/// A job that was accepted just now.
pub(crate) fn accepted(job: JobNumber, class: &str) -> JobBody<'_> {
    let state = JobState::Queued.name();
    JobBody { id: Some(job), state, class, version: 1, ..JobBody::default() }
}

/// A job as it is found.
pub(crate) fn found<'a>(found: &'a Found, names: &'a Names, calendar: Calendar) -> JobBody<'a> {
    match found {
        Found::Live(view) => live(view, names, calendar),
        Found::Ended(record) => ended(record, names, calendar),
    }
}

/// A job in the system.
pub(crate) fn live<'a>(view: &JobView, names: &'a Names, calendar: Calendar) -> JobBody<'a> {
    JobBody {
        id: Some(view.job),
        state: view.state.name(),
        class: Names::name(&names.classes, view.class),
        created_at: Some(calendar.at(view.arrived)),
        stage: Some(Names::name(&names.stages, view.stage)),
        deliveries: view.deliveries,
        version: view.version,
        ..JobBody::default()
    }
}

/// A job that ended.
pub(crate) fn ended<'a>(record: &'a JobRecord, names: &'a Names, calendar: Calendar) -> JobBody<'a> {
    let is_done = record.outcome == JobOutcome::Done;
    let has_message = !is_done && !record.result.is_empty();
    JobBody {
        id: Some(record.job),
        state: record.outcome.name(),
        class: Names::name(&names.classes, record.class),
        region: Some(Names::name(&names.regions, record.region)),
        created_at: Some(calendar.at(record.arrived)),
        ended_at: Some(calendar.at(record.ended)),
        stage: None,
        quality: is_done.then(|| Names::name(&names.qualities, record.quality)),
        wait_s: Some(record.waited.as_secs_f64()),
        service_s: Some(record.served.as_secs_f64()),
        deliveries: record.deliveries,
        version: record.version,
        result: (is_done && !record.result.is_empty()).then(|| raw(&record.result)),
        error: has_message.then(|| String::from_utf8_lossy(&record.result)),
        outputs: &record.objects,
    }
}

fn raw(bytes: &[u8]) -> Raw<'_> {
    match serde_json::from_slice::<&RawValue>(bytes) {
        Ok(value) => Raw::Json(value),
        Err(_) => Raw::Text(String::from_utf8_lossy(bytes)),
    }
}

/// The result of a job that is done, as JSON.
pub(crate) fn result(record: &JobRecord) -> Vec<u8> {
    if record.result.is_empty() {
        return b"null".to_vec();
    }
    serde_json::to_vec(&raw(&record.result)).expect("results encode")
}

/// A change of a job.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = JobChange)]
pub(crate) struct ChangeBody<'a> {
    #[serde(serialize_with = "shown")]
    #[schema(value_type = String, example = "job-0-42")]
    id: JobNumberOrZero,
    /// What it is now.
    state: &'static str,
    /// When.
    #[serde(serialize_with = "shown_time")]
    #[schema(value_type = String, format = DateTime)]
    at: Option<Timestamp>,
    /// Stage it is at.
    stage: &'a str,
    /// How often it was given to a worker.
    deliveries: u16,
    /// Counts its changes.
    version: u32,
}

/// A change of a job.
pub(crate) fn change<'a>(event: &JobEvent, names: &'a Names, calendar: Calendar) -> ChangeBody<'a> {
    ChangeBody {
        id: Some(event.job),
        state: event.state.name(),
        at: Some(calendar.at(event.at)),
        stage: Names::name(&names.stages, event.stage),
        deliveries: event.deliveries,
        version: event.version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::units::{Duration, Instant};

    fn record(outcome: JobOutcome, result: &[u8]) -> JobRecord {
        JobRecord {
            job: JobNumber::new(0, 42),
            tenant: 1,
            class: 0,
            region: 9,
            arrived: Instant::START,
            ended: Instant::START + Duration::from_secs(2),
            outcome,
            waited: Duration::from_millis(1500),
            served: Duration::from_millis(500),
            deliveries: 1,
            quality: 0,
            version: 4,
            result: result.into(),
            objects: Vec::new(),
        }
    }

    #[test]
    fn results_are_json_whatever_a_worker_sends() {
        for (bytes, shown) in [
            (&br#"{"a": [1]}"#[..], r#"{"a": [1]}"#),
            (b"{broken", r#""{broken""#),
            (b"\xff\"", "\"\u{fffd}\\\"\""),
            (b"", "null"),
        ] {
            assert_eq!(String::from_utf8(result(&record(JobOutcome::Done, bytes))).as_deref(), Ok(shown));
        }
    }

    #[test]
    fn failures_carry_a_message_and_no_result() {
        let names = Names { classes: vec!["dance".to_owned()], ..Names::default() };
        let calendar = Calendar::new(crate::clock::Clock::starting(Instant::START));
        let failed = record(JobOutcome::Failed, b"no such model");
        let body = serde_json::to_value(ended(&failed, &names, calendar)).expect("encodes");
        assert_eq!(body["error"], "no such model");
        assert_eq!(body["id"], "job-0-42");
        assert_eq!(body["wait_s"], 1.5);
        assert!(body.get("result").is_none());
    }
}
