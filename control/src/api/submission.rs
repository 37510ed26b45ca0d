//! From the bytes of a request to a checked [`Submission`]. No socket, no key: the queue's ingress uses it too.

use axum::http::{HeaderMap, StatusCode};
use policy::model::{ClassId, RegionId};
use policy::units::Duration;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::names::Names;
use super::problem::Problem;
use crate::submission::{Idempotency, OBJECTS_MAX, PAYLOAD_BYTES_MAX, Submission, TenantId};
use crate::trace::TraceContext;

/// Jobs of one batch at most.
pub const BATCH_JOBS_MAX: usize = 256;

/// Longest body of one submission, bytes: a payload, and as much again for the rest.
pub const BODY_BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX;

/// Longest body of a batch, bytes.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// Longest name of an input object, bytes (S3's limit).
const INPUT_BYTES_MAX: usize = 1024;

/// Longest webhook address, bytes.
const WEBHOOK_BYTES_MAX: usize = 2048;

/// Longest idempotency key, bytes.
const KEY_BYTES_MAX: usize = 255;

/// Longest deadline, seconds.
const DEADLINE_MAX_S: f64 = 30.0 * 24.0 * 3600.0;

/// Longest part of a parser's message that is passed on, characters.
const ERROR_CHARS_MAX: usize = 300;

/// Last priority.
const PRIORITY_MAX: u8 = 7;

/// A job to do.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Submission)]
pub(crate) struct SubmissionBody<'a> {
    /// Class of the job, a name of the scenario; the scenario's first where there is none.
    class: Option<String>,
    /// Region of the client, a name of the scenario; the scenario's first where there is none.
    region: Option<String>,
    /// 0 is served first, 7 last; the class's own where there is none.
    #[schema(maximum = 7)]
    priority: Option<u8>,
    /// Seconds after which the job is worth nothing; the class's own where there is none.
    #[schema(exclusive_minimum = 0, maximum = 2_592_000)]
    deadline_s: Option<f64>,
    /// What the worker gets, as it is written here; at most 64 KiB.
    #[serde(borrow)]
    #[schema(value_type = serde_json::Value)]
    payload: &'a RawValue,
    /// Keys of input objects.
    #[serde(default)]
    #[schema(max_items = 32)]
    inputs: Vec<String>,
    /// Where the end is announced: an http or https address.
    #[schema(max_length = 2048)]
    webhook: Option<String>,
}

/// Reads a submission. Whose it is, and its idempotency key, are not in the body: [`dress`] adds them.
///
/// # Errors
/// A [`Problem`] of status 400, 413 or 422 that names the value at fault.
pub fn parse(bytes: &[u8], names: &Names) -> Result<Box<Submission>, Problem> {
    let body: SubmissionBody<'_> = serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
    check(body, names)
}

/// A job of a batch: its text, and what was read from it.
pub type BatchItem<'a> = (&'a str, Result<Box<Submission>, Problem>);

/// Reads a batch: an array of submissions. A wrong one among them is a problem of its own.
///
/// # Errors
/// A [`Problem`] when it is no array, is empty, or is too long.
pub fn parse_batch<'a>(bytes: &'a [u8], names: &Names) -> Result<Vec<BatchItem<'a>>, Problem> {
    let items: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
    if items.is_empty() || items.len() > BATCH_JOBS_MAX {
        let detail = format!("a batch of {} jobs", items.len());
        return Err(Problem::invalid(detail, "send 1 to 256 jobs in an array"));
    }
    Ok(items.into_iter().map(|item| (item.get(), parse(item.get().as_bytes(), names))).collect())
}

/// Adds what a body does not say: whose the job is, its idempotency key and its trace.
///
/// # Errors
/// A [`Problem`] for an idempotency key that is too long or no text.
pub(crate) fn dress(
    submission: &mut Submission,
    tenant: (TenantId, u32),
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), Problem> {
    (submission.tenant, submission.tenant_jobs_max) = tenant;
    if let Some(key) = headers.get("idempotency-key") {
        let length = key.len();
        if length == 0 || length > KEY_BYTES_MAX || key.to_str().is_err() {
            let detail = format!("an Idempotency-Key of {length} bytes");
            return Err(Problem::invalid(
                detail,
                "use 1 to 255 visible ASCII characters, for example a UUID",
            ));
        }
        submission.idempotency = Some(idempotency(submission.tenant, key.as_bytes(), body));
    }
    submission.traceparent = headers.get("traceparent").and_then(|value| traceparent(value.as_bytes()));
    Ok(())
}

/// Digests of an idempotency key and of the body that came with it.
pub fn idempotency(tenant: TenantId, key: &[u8], body: &[u8]) -> Idempotency {
    let first = |digest: &[u8], count| {
        digest.iter().take(count).fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte))
    };
    let key = Sha256::new_with_prefix(tenant.to_be_bytes()).chain_update(key).finalize();
    Idempotency { key: first(&key, 16), body: first(&Sha256::digest(body), 8) as u64 }
}

fn check(body: SubmissionBody<'_>, names: &Names) -> Result<Box<Submission>, Problem> {
    let payload = body.payload.get();
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Problem::too_large("`payload`", PAYLOAD_BYTES_MAX));
    }
    if let Some(priority) = body.priority.filter(|priority| *priority > PRIORITY_MAX) {
        return Err(wrong(format!("`priority` is {priority}"), "use 0 (served first) to 7"));
    }
    let deadline = body.deadline_s.map(deadline).transpose()?;
    if body.inputs.len() > OBJECTS_MAX {
        return Err(wrong(format!("`inputs` names {} objects", body.inputs.len()), "name 32 at most"));
    }
    body.inputs.iter().try_for_each(|key| check_input(key))?;
    body.webhook.as_deref().map(check_webhook).transpose()?;
    Ok(Box::new(Submission {
        tenant: 0,
        tenant_jobs_max: u32::MAX,
        class: ClassId(number("class", body.class.as_deref(), &names.classes)?),
        region: RegionId(number("region", body.region.as_deref(), &names.regions)?),
        priority: body.priority,
        deadline,
        payload: payload.as_bytes().into(),
        inputs: body.inputs,
        idempotency: None,
        webhook: body.webhook,
        traceparent: None,
    }))
}

fn number(what: &str, name: Option<&str>, names: &[String]) -> Result<u16, Problem> {
    let Some(name) = name else { return Ok(0) };
    match names.iter().position(|known| known == name) {
        Some(number) => Ok(number as u16),
        None => {
            let shown: String = name.chars().take(64).collect();
            Err(wrong(format!("there is no {what} `{shown}`"), format!("use one of: {}", names.join(", "))))
        }
    }
}

fn deadline(seconds: f64) -> Result<Duration, Problem> {
    if seconds > 0.0 && seconds <= DEADLINE_MAX_S {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(wrong(format!("`deadline_s` is {seconds}"), "use more than 0 and at most 2592000 (30 days)"))
}

fn check_input(key: &str) -> Result<(), Problem> {
    let is_plain = !key.chars().any(char::is_control) && !key.contains('\\');
    let is_path = key.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if is_plain && is_path && key.len() <= INPUT_BYTES_MAX {
        return Ok(());
    }
    let shown: String = key.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect();
    let remedy = "use a relative path like `inputs/cat.png`, at most 1024 bytes";
    Err(wrong(format!("`inputs` has the key `{shown}`"), remedy))
}

fn check_webhook(address: &str) -> Result<(), Problem> {
    let is_usable = |url: reqwest::Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    };
    if address.len() <= WEBHOOK_BYTES_MAX && reqwest::Url::parse(address).is_ok_and(is_usable) {
        return Ok(());
    }
    let remedy = "use an http or https address without user name, at most 2048 bytes";
    Err(wrong("`webhook` is no address that could be called", remedy))
}

/// A W3C trace context, version 00; anything else is ignored, as the recommendation asks.
fn traceparent(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    text.parse::<TraceContext>().is_ok().then(|| text.to_owned())
}

fn unreadable(error: &serde_json::Error) -> Problem {
    let remedy = "send JSON as in /v1/openapi.json: {\"class\": \"...\", \"payload\": {...}}";
    // The error repeats names and values of the body, however long they are; the place is at its end.
    let mut text = error.to_string();
    if text.chars().count() > ERROR_CHARS_MAX {
        text = text.chars().take(ERROR_CHARS_MAX).collect();
        text = format!("{text} ... at line {} column {}", error.line(), error.column());
    }
    if error.is_data() {
        return wrong(format!("the body is JSON and no submission: {text}"), remedy);
    }
    Problem::invalid(format!("the body is no JSON: {text}"), remedy)
}

fn wrong(
    detail: impl Into<std::borrow::Cow<'static, str>>,
    remedy: impl Into<std::borrow::Cow<'static, str>>,
) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-submission", detail, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names { classes: list(&["dance", "bulk"]), regions: list(&["eu", "us"]), ..Names::default() }
    }

    #[test]
    fn payload_is_kept_as_it_was_written() {
        let text = r#"{"class":"bulk","region":"us","priority":3,"deadline_s":1.5,"payload": {"a" : 1.10, "b":"é"} }"#;
        let submission = parse(text.as_bytes(), &names()).expect("valid");
        assert_eq!(&*submission.payload, r#"{"a" : 1.10, "b":"é"}"#.as_bytes());
        assert_eq!((submission.class, submission.region), (ClassId(1), RegionId(1)));
        assert_eq!(submission.deadline, Some(Duration::from_millis(1500)));
        assert_eq!(submission.priority, Some(3));
    }

    #[test]
    fn mistakes_are_named() {
        let long_payload = format!(r#"{{"payload":"{}"}}"#, "x".repeat(PAYLOAD_BYTES_MAX));
        let many_inputs = format!(r#"{{"payload":1,"inputs":[{}"a"]}}"#, r#""a","#.repeat(32));
        for (text, status, word) in [
            ("", 400, "no JSON"),
            ("{", 400, "no JSON"),
            ("{}", 422, "payload"),
            ("[]", 422, "no submission"),
            (r#"{"payload":1,"clas":"dance"}"#, 422, "clas"),
            (r#"{"payload":1,"payload":2}"#, 422, "duplicate"),
            (r#"{"payload":1}x"#, 400, "trailing"),
            (r#"{"payload":1,"class":"tango"}"#, 422, "tango"),
            (r#"{"payload":1,"region":"mars"}"#, 422, "mars"),
            (r#"{"payload":1,"priority":8}"#, 422, "priority"),
            (r#"{"payload":1,"priority":-1}"#, 422, "-1"),
            (r#"{"payload":1,"deadline_s":0}"#, 422, "deadline_s"),
            (r#"{"payload":1,"deadline_s":1e300}"#, 422, "deadline_s"),
            (r#"{"payload":1,"inputs":["../etc/passwd"]}"#, 422, "passwd"),
            (r#"{"payload":1,"inputs":["/a"]}"#, 422, "/a"),
            (r#"{"payload":1,"inputs":[""]}"#, 422, "inputs"),
            (r#"{"payload":1,"webhook":"file:///etc/passwd"}"#, 422, "webhook"),
            (r#"{"payload":1,"webhook":"https://u:p@example.com"}"#, 422, "webhook"),
            (&many_inputs, 422, "33"),
            (&long_payload, 413, "payload"),
        ] {
            let problem = parse(text.as_bytes(), &names()).expect_err(text);
            assert_eq!(problem.status.as_u16(), status, "{text:.60}: {problem}");
            assert!(problem.detail.contains(word), "{text:.60}: {problem}");
        }
    }

    #[test]
    fn one_wrong_job_of_a_batch_leaves_the_others() {
        let batch = parse_batch(br#"[{"payload":1},{"payload":1,"class":"tango"},{"payload":3}]"#, &names());
        let batch = batch.expect("an array");
        assert_eq!(batch.iter().map(|(_, parsed)| parsed.is_ok()).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(batch[2].0, r#"{"payload":3}"#);
        for wrong in ["[]", "{}", "1"] {
            assert!(parse_batch(wrong.as_bytes(), &names()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn idempotency_keys_of_tenants_are_apart() {
        let digest = |tenant, key: &str, body: &str| idempotency(tenant, key.as_bytes(), body.as_bytes());
        assert_eq!(digest(1, "k", "b"), digest(1, "k", "b"));
        assert_ne!(digest(1, "k", "b").key, digest(2, "k", "b").key);
        assert_ne!(digest(1, "k", "b").body, digest(1, "k", "c").body);
    }

    #[test]
    fn only_valid_trace_contexts_are_kept() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(traceparent(good.as_bytes()).as_deref(), Some(good));
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(traceparent(bad.as_bytes()), None, "{bad}");
        }
    }
}
