//! What a receiver gets: a thin body that names the job, its end and where the result is.

use jiff::Timestamp;
use policy::records::JobOutcome;
use serde::Serialize;

use crate::effect::WebhookTask;

#[derive(Serialize)]
struct Message<'a> {
    id: &'a str,
    r#type: String,
    timestamp: Timestamp,
    data: Data,
}

#[derive(Serialize)]
struct Data {
    job: String,
    outcome: &'static str,
    job_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_url: Option<String>,
}

/// The body of an announcement: the same bytes at every attempt, always far below the 20 kB that the standard allows.
pub(super) fn body(task: &WebhookTask, id: &str, ended: Timestamp, public_url: &str) -> Vec<u8> {
    let job_url = format!("{}/v1/jobs/{}", public_url.trim_end_matches('/'), task.job);
    let outcome = task.outcome.name();
    let message = Message {
        id,
        r#type: format!("job.{outcome}"),
        timestamp: ended,
        data: Data {
            job: task.job.to_string(),
            outcome,
            result_url: (task.outcome == JobOutcome::Done).then(|| format!("{job_url}/result")),
            job_url,
        },
    };
    serde_json::to_vec(&message).expect("messages encode")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::JobNumber;

    #[test]
    fn body_is_thin_and_says_where_the_result_is() {
        let task = |outcome| WebhookTask {
            job: JobNumber::new(0, 42),
            tenant: 1,
            url: "https://example.com/hook".to_owned(),
            outcome,
            ended: policy::units::Instant::START,
            unix_ms: 0,
        };
        let at = Timestamp::UNIX_EPOCH;
        let done = body(&task(JobOutcome::Done), "msg_1", at, "https://plane.example/");
        assert_eq!(
            String::from_utf8(done).expect("text"),
            r#"{"id":"msg_1","type":"job.done","timestamp":"1970-01-01T00:00:00Z","data":{"job":"job-0-42","#
                .to_owned()
                + r#""outcome":"done","job_url":"https://plane.example/v1/jobs/job-0-42","#
                + r#""result_url":"https://plane.example/v1/jobs/job-0-42/result"}}"#
        );
        let failed = body(&task(JobOutcome::Failed), "msg_1", at, "https://plane.example");
        let failed: serde_json::Value = serde_json::from_slice(&failed).expect("JSON");
        assert_eq!(failed["type"], "job.failed");
        assert!(failed["data"].get("result_url").is_none());
    }
}
