//! What is answered when a request cannot be served: RFC 9457 problem details, each with what went wrong and the remedy.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use policy::units::Duration;
use serde::Serialize;

use crate::effect::Refusal;
use crate::number::JobNumber;
use crate::shell::Busy;
use crate::store::StoreError;

/// A request that is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}. {remedy}")]
pub struct Problem {
    /// Stable name; the type is `urn:headroom:problem:<kind>`.
    pub kind: &'static str,
    /// HTTP status.
    pub status: StatusCode,
    /// What went wrong, naming the value at fault.
    pub detail: Cow<'static, str>,
    /// What to do about it.
    pub remedy: Cow<'static, str>,
    /// When to come back, seconds.
    pub retry_after_s: Option<u64>,
    /// The job that it is about.
    pub job: Option<JobNumber>,
    /// Methods that the path has, for 405.
    pub allow: Option<&'static str>,
    /// Where it is answered instead, for 307.
    pub location: Option<String>,
}

/// The document, by RFC 9457.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// `urn:headroom:problem:` and a stable name.
    r#type: String,
    /// The status in words.
    title: &'a str,
    /// HTTP status.
    status: u16,
    /// What went wrong, naming the value at fault.
    detail: &'a str,
    /// What to do about it.
    remedy: &'a str,
    /// When to come back, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
    /// The job that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
}

impl Problem {
    /// A problem of kind `kind`.
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        detail: impl Into<Cow<'static, str>>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (detail, remedy) = (detail.into(), remedy.into());
        Self { kind, status, detail, remedy, retry_after_s: None, job: None, allow: None, location: None }
    }

    /// A body or parameter that cannot be understood.
    pub fn invalid(detail: impl Into<Cow<'static, str>>, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", detail, remedy)
    }

    /// Something larger than allowed.
    pub fn too_large(what: &str, max: usize) -> Self {
        let detail = format!("{what} is larger than {max} bytes");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            detail,
            "send less; put large inputs into objects",
        )
    }

    /// No such job, or one of somebody else's.
    pub fn no_job(id: impl std::fmt::Display) -> Self {
        let detail = format!("there is no job `{id}` for this key");
        let remedy =
            "check the id, and that the key is the one that submitted it, or has the scope `operate`";
        Self::new(StatusCode::NOT_FOUND, "no-such-job", detail, remedy)
    }

    /// No such path.
    pub fn no_path() -> Self {
        let remedy = "see /v1/openapi.json for the paths there are";
        Self::new(StatusCode::NOT_FOUND, "no-such-path", "there is nothing at this path", remedy)
    }

    /// A method that the path has not.
    pub fn method(allow: &'static str) -> Self {
        let detail = format!("this path takes {allow} only");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let problem = Self::new(status, "method-not-allowed", detail, "use one of these methods");
        Self { allow: Some(allow), ..problem }
    }

    /// No valid key.
    pub fn unauthorized(detail: &'static str) -> Self {
        let remedy = "send `Authorization: Bearer hr_...`; keys are made by `headroom keys create`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail, remedy)
    }

    /// The plane stops, or has stopped.
    pub fn draining() -> Self {
        let detail = "this server is shutting down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", detail, "send the request again").later(1)
    }

    /// The journal takes no commits.
    pub fn not_writable() -> Self {
        let detail = "the journal takes no commits: no job is accepted or cancelled, and none under way can be looked at";
        let remedy = "free space in the data folder; the plane goes on by itself";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-writable", detail, remedy).later(5)
    }

    /// The plane gave no answer in time; what was asked may still happen.
    pub fn silent() -> Self {
        let detail = "the plane gave no answer in time; what was asked may still happen";
        let remedy = "ask again; a submission with the same Idempotency-Key is never taken twice";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no-answer", detail, remedy).later(5)
    }

    /// The policy or a limit turned a job away.
    pub fn refused(why: Refusal, retry_after: Duration) -> Self {
        let seconds = retry_after.as_nanos().div_ceil(1_000_000_000).max(1);
        let (kind, detail) = match why {
            Refusal::WouldBeLate => ("would-be-late", "the job would have missed its deadline"),
            Refusal::QueueFull => ("queue-full", "the queue is full"),
            Refusal::TenantFull => ("tenant-full", "this key has as many jobs in the system as it may"),
        };
        let remedy = "submit again after the time in Retry-After";
        Self::new(StatusCode::TOO_MANY_REQUESTS, kind, detail, remedy).later(seconds)
    }

    /// Too many requests by one key.
    pub fn too_fast(wait: std::time::Duration) -> Self {
        let detail = "this key sends more requests per second than it may";
        let remedy = "wait for the time in Retry-After, or have the key's rate raised";
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate", detail, remedy).later(seconds.max(1))
    }

    /// Says when to come back.
    #[must_use]
    pub fn later(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// Says where it is answered instead.
    #[must_use]
    pub fn at(self, location: String) -> Self {
        Self { location: Some(location), ..self }
    }

    /// Names the job.
    #[must_use]
    pub fn about(self, job: JobNumber) -> Self {
        Self { job: Some(job), ..self }
    }

    /// The document.
    pub(crate) fn body(&self) -> ProblemBody<'_> {
        ProblemBody {
            r#type: format!("urn:headroom:problem:{}", self.kind),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            remedy: &self.remedy,
            retry_after_s: self.retry_after_s,
            job: self.job.map(|job| job.to_string()),
        }
    }

    /// The answer.
    pub fn into_response(self) -> Response<Body> {
        let body = serde_json::to_vec(&self.body()).expect("problems encode");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        // An address that is no header's value is the operator's mistake; the text names it all the same.
        if let Some(location) = self.location.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(LOCATION, location);
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"headroom\""));
        }
        response
    }
}

impl From<Busy> for Problem {
    fn from(busy: Busy) -> Self {
        match busy {
            Busy::Full => {
                let detail = "more requests wait for the plane than it can take";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail, "ask again in a second")
                    .later(1)
            }
            Busy::Stopped => Self::draining(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!("{error}");
        let detail = "ended jobs cannot be read now";
        let remedy = "ask again; the operator finds the reason in the log";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", detail, remedy).later(5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (nanos, seconds) in [(0, 1), (1, 1), (1_000_000_000, 1), (1_000_000_001, 2)] {
            let problem = Problem::refused(Refusal::QueueFull, Duration::from_nanos(nanos));
            assert_eq!(problem.retry_after_s, Some(seconds), "{nanos}");
        }
    }
}
