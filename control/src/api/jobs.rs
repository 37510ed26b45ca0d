//! Jobs one by one: submit, look, wait, cancel.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::LOCATION;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use policy::records::JobOutcome;

use super::audit::Entry;
use super::keys::Scope;
use super::problem::Problem;
use super::route::Ask;
use super::submission::{BODY_BYTES_MAX, dress, parse};
use super::view::{self, Found};
use super::{Api, body, wait};
use crate::command::Command;
use crate::effect::Answer;
use crate::number::JobNumber;
use crate::shell::News;
use crate::submission::TenantId;

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// `POST /v1/jobs`
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs",
    request_body = super::submission::SubmissionBody,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body is the same job, for 24 hours"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: answer once the job has ended, or after N seconds"),
        ("wait" = Option<u32>, Query, description = "As `Prefer: wait=N`; at most 300")),
    responses(
        (status = 200, description = "The job has ended", body = view::JobBody),
        (status = 202, description = "The job is accepted and durable", body = view::JobBody),
        (status = 400, description = "No JSON", body = super::problem::ProblemBody),
        (status = 413, description = "Too large", body = super::problem::ProblemBody),
        (status = 422, description = "A wrong value, or an idempotency key with another body", body = super::problem::ProblemBody),
        (status = 429, description = "Turned away; see Retry-After", body = super::problem::ProblemBody),
        (status = 503, description = "Not now; see Retry-After", body = super::problem::ProblemBody)),
)]
pub(crate) async fn submit(ask: Ask<'_>) -> Result<Response<Body>, Problem> {
    let Ask { api, caller, parts, body, .. } = ask;
    caller.needs(Scope::Submit)?;
    api.takes_jobs()?;
    let wait = wait::asked(parts.uri.query(), &parts.headers)?;
    let bytes = body::read(&parts.headers, body, BODY_BYTES_MAX, api.limits.body_patience).await?;
    let names = api.names();
    let mut submission = parse(&bytes, &names)?;
    dress(&mut submission, (caller.tenant(), caller.jobs_max()), &parts.headers, &bytes)?;
    super::inputs::check(api, &submission).await?;
    let class = submission.class;
    let submitted = api.patiently(api.handle.submit(submission, wait.is_some())).await?;
    api.counters.submitted(class, &submitted.answer);
    match submitted.answer {
        Answer::Accepted(job) => {
            let end = match (wait, submitted.end) {
                (Some(wait), Some(end)) => api.until(wait, async { end.await.ok() }).await.flatten(),
                _ => None,
            };
            if let Some(record) = end {
                return Ok(body::json(StatusCode::OK, &view::ended(&record, &names, api.calendar)));
            }
            let shown = view::accepted(job, names.classes.get(class.index()).map_or("", String::as_str));
            Ok(at(job, body::json(StatusCode::ACCEPTED, &shown)))
        }
        Answer::Known(job) => {
            let mut found = api.find(job, None).await?;
            if let Some(wait) = wait {
                found = api.wait_for(found, wait).await?;
            }
            let is_end = wait.is_some() && matches!(found, Found::Ended(_));
            let status = if is_end { StatusCode::OK } else { StatusCode::ACCEPTED };
            let mut response = at(job, body::json(status, &view::found(&found, &names, api.calendar)));
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
        other => Err(refusal(&other)),
    }
}

/// What answers that are no acceptance become.
pub(crate) fn refusal(answer: &Answer) -> Problem {
    match answer {
        Answer::OtherBody(job) => {
            let detail = format!("the Idempotency-Key was used with another body, for {job}");
            let remedy = "use a new key for a new job, and the same bytes for the same one";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", detail, remedy)
                .about(*job)
        }
        Answer::Rejected { why, retry_after } => Problem::refused(*why, *retry_after),
        Answer::Accepted(_)
        | Answer::Known(_)
        | Answer::Cancelled
        | Answer::NotRunning
        | Answer::Reloaded
        | Answer::NotReloaded(_) => {
            let detail = "the plane gave an answer to another question";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail, "report this as a bug")
        }
    }
}

/// `GET /v1/jobs/{id}`
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "jobs",
    params(
        ("id" = String, Path, description = "Id of the job"),
        ("wait" = Option<u32>, Query, description = "Answer once the job has ended, or after this many seconds; at most 300")),
    responses(
        (status = 200, description = "The job as it stands", body = view::JobBody),
        (status = 404, description = "No such job for this key", body = super::problem::ProblemBody)),
)]
pub(crate) async fn get(ask: Ask<'_>, id: &str) -> Result<Response<Body>, Problem> {
    let Ask { api, caller, parts, .. } = ask;
    caller.needs(Scope::Read)?;
    let found = look(api, caller.only(), &parts, id).await?;
    Ok(body::json(StatusCode::OK, &view::found(&found, &api.names(), api.calendar)))
}

/// `GET /v1/jobs/{id}/result`
#[utoipa::path(
    get, path = "/v1/jobs/{id}/result", tag = "jobs",
    params(
        ("id" = String, Path, description = "Id of the job"),
        ("wait" = Option<u32>, Query, description = "Answer once the job has ended, or after this many seconds; at most 300")),
    responses(
        (status = 200, description = "What the worker gave back: JSON"),
        (status = 404, description = "No such job for this key", body = super::problem::ProblemBody),
        (status = 409, description = "The job has not ended, or not as done", body = super::problem::ProblemBody)),
)]
pub(crate) async fn result(ask: Ask<'_>, id: &str) -> Result<Response<Body>, Problem> {
    let Ask { api, caller, parts, .. } = ask;
    caller.needs(Scope::Read)?;
    let conflict =
        |kind, detail: String, remedy: &'static str| Problem::new(StatusCode::CONFLICT, kind, detail, remedy);
    match look(api, caller.only(), &parts, id).await? {
        Found::Live(view) => {
            let detail = format!("{} is {}", view.job, view.state.name());
            let problem = conflict("job-not-ended", detail, "ask again later, or wait with ?wait=30");
            Err(problem.later(1).about(view.job))
        }
        Found::Ended(record) if record.outcome == JobOutcome::Done => {
            Ok(body::text(StatusCode::OK, "application/json", view::result(&record)))
        }
        Found::Ended(record) => {
            let detail = format!("{} is {}", record.job, record.outcome.name());
            let problem = conflict("job-without-result", detail, "see the job for the reason");
            Err(problem.about(record.job))
        }
    }
}

/// `POST /v1/jobs/{id}/cancel`
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel", tag = "jobs",
    params(("id" = String, Path, description = "Id of the job")),
    responses(
        (status = 200, description = "The job is cancelled, now or before", body = view::JobBody),
        (status = 404, description = "No such job for this key", body = super::problem::ProblemBody),
        (status = 409, description = "The job had ended", body = super::problem::ProblemBody)),
)]
pub(crate) async fn cancel(ask: Ask<'_>, id: &str) -> Result<Response<Body>, Problem> {
    let Ask { api, caller, peer, .. } = ask;
    if !caller.has(Scope::Operate) {
        caller.needs(Scope::Submit)?;
    }
    let job: JobNumber = id.parse().map_err(|_| Problem::no_job(clip(id)))?;
    let tenant = caller.only();
    api.commits()?;
    let answer = api.patiently(api.handle.ask(Command::Cancel { job, tenant })).await?;
    let is_new = answer == Answer::Cancelled;
    let found = api.find(job, tenant).await;
    let outcome = if is_new { "cancelled" } else { "refused" };
    api.audit.note(Entry::new(&caller, peer, "cancel", job.to_string(), outcome));
    match found? {
        // The end follows the cancellation at once, but on another way.
        Found::Ended(record) if record.outcome == JobOutcome::Cancelled => {
            Ok(body::json(StatusCode::OK, &view::ended(&record, &api.names(), api.calendar)))
        }
        found if is_new => Ok(body::json(StatusCode::OK, &view::found(&found, &api.names(), api.calendar))),
        _ => {
            let detail = format!("{job} had ended before");
            let remedy = "nothing is left to do; see the job for its end";
            Err(Problem::new(StatusCode::CONFLICT, "job-ended", detail, remedy).about(job))
        }
    }
}

async fn look(
    api: &Arc<Api>,
    tenant: Option<TenantId>,
    parts: &axum::http::request::Parts,
    id: &str,
) -> Result<Found, Problem> {
    let wait = wait::asked(parts.uri.query(), &parts.headers)?;
    let job: JobNumber = id.parse().map_err(|_| Problem::no_job(clip(id)))?;
    let found = api.find(job, tenant).await?;
    match wait {
        Some(wait) => api.wait_for(found, wait).await,
        None => Ok(found),
    }
}

/// An id as it may be shown: whoever sent it, it is short.
pub(crate) fn clip(id: &str) -> String {
    id.chars().take(64).collect()
}

fn at(job: JobNumber, mut response: Response<Body>) -> Response<Body> {
    if let Ok(place) = HeaderValue::try_from(format!("/v1/jobs/{job}")) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

impl Api {
    /// A job, if `tenant` may see it.
    ///
    /// # Errors
    /// 404, or 503 when the plane or its store cannot say.
    pub(crate) async fn find(&self, job: JobNumber, tenant: Option<TenantId>) -> Result<Found, Problem> {
        let may = |whose: TenantId| tenant.is_none_or(|tenant| tenant == whose);
        let found = match self.handle.shared().recent(job) {
            Some(record) => Found::Ended(record),
            None if self.commits().is_err() => {
                Found::Ended(self.handle.ended(job).await?.ok_or_else(Problem::not_writable)?)
            }
            // What is no longer in the durable state is among the ended ones by then, so the order matters.
            None => match self.patiently(self.handle.job(job)).await? {
                Some(view) => Found::Live(view),
                None => Found::Ended(self.handle.ended(job).await?.ok_or_else(|| Problem::no_job(job))?),
            },
        };
        let whose = match &found {
            Found::Live(view) => view.tenant,
            Found::Ended(record) => record.tenant,
        };
        if may(whose) { Ok(found) } else { Err(Problem::no_job(job)) }
    }

    /// The job at its end, or as it stands when `wait` is over or the server stops.
    pub(crate) async fn wait_for(&self, found: Found, wait: Duration) -> Result<Found, Problem> {
        let Found::Live(view) = &found else { return Ok(found) };
        let job = view.job;
        let mut news = self.handle.watch(job).await?;
        let end = async {
            loop {
                match news.recv().await {
                    Some(News::Ended(record)) => return Some(record),
                    Some(News::Changed(_) | News::Progress { .. }) => {}
                    // It ended between the two questions.
                    None => return None,
                }
            }
        };
        match self.until(wait, end).await {
            Some(Some(record)) => Ok(Found::Ended(record)),
            Some(None) | None => self.find(job, None).await,
        }
    }

    /// What `future` gives; nothing when `wait` is over or the server stops first.
    pub(crate) async fn until<T>(&self, wait: Duration, future: impl Future<Output = T>) -> Option<T> {
        let mut draining = self.draining.clone();
        tokio::select! {
            biased;
            value = future => Some(value),
            () = tokio::time::sleep(wait) => None,
            () = super::drained(&mut draining) => None,
        }
    }
}
