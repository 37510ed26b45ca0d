//! Jobs in pages: those in the system by number, then the ended ones, latest first.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use policy::records::JobOutcome;
use serde::Serialize;

use super::keys::Scope;
use super::problem::Problem;
use super::route::Ask;
use super::view::{self, Found, JobBody};
use super::wait::parameter;
use super::{Api, body};
use crate::effect::JobState;
use crate::number::JobNumber;
use crate::submission::TenantId;

/// Jobs of one page where nothing is said.
const LIMIT: usize = 50;

/// Jobs of one page at most.
const LIMIT_MAX: usize = 500;

/// Ended jobs that one page looks at; a tenant with few among many pages through more.
const SCAN_MAX: usize = 2_000;

/// A page of jobs.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = JobPage)]
pub(crate) struct PageBody<'a> {
    /// The jobs; there may be few, or none, before the last page.
    jobs: Vec<JobBody<'a>>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// Which states are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Live(Option<JobState>),
    Ended(Option<JobOutcome>),
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    Live(Option<JobNumber>),
    Ended(Option<JobNumber>),
}

/// `GET /v1/jobs`
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs",
    params(
        ("state" = Option<String>, Query, description = "live, queued, running, ended, done, failed, expired or cancelled"),
        ("limit" = Option<u32>, Query, description = "Jobs of the page, at most 500; 50 where nothing is said"),
        ("cursor" = Option<String>, Query, description = "The `cursor` of the page before")),
    responses(
        (status = 200, description = "A page: jobs in the system by id, then ended ones, latest first", body = PageBody),
        (status = 400, description = "A wrong parameter", body = super::problem::ProblemBody)),
)]
pub(crate) async fn list(ask: Ask<'_>) -> Result<Response<Body>, Problem> {
    let Ask { api, caller, parts, .. } = ask;
    caller.needs(Scope::Read)?;
    let query = parts.uri.query();
    let wanted = wanted(parameter(query, "state"))?;
    let limit = limit(parameter(query, "limit"), LIMIT, LIMIT_MAX)?;
    let start = match wanted {
        Wanted::All | Wanted::Live(_) => Cursor::Live(None),
        Wanted::Ended(_) => Cursor::Ended(None),
    };
    let cursor = parameter(query, "cursor").map_or(Ok(start), read_cursor)?;
    let (found, next) = match cursor {
        Cursor::Live(after) => live(api, caller.only(), wanted, after, limit).await?,
        Cursor::Ended(before) => ended(api, caller.only(), wanted, before, limit).await?,
    };
    let names = api.names();
    let jobs = found.iter().map(|found| view::found(found, &names, api.calendar)).collect();
    Ok(body::json(StatusCode::OK, &PageBody { jobs, cursor: next.map(write_cursor) }))
}

async fn live(
    api: &Api,
    tenant: Option<TenantId>,
    wanted: Wanted,
    after: Option<JobNumber>,
    limit: usize,
) -> Result<(Vec<Found>, Option<Cursor>), Problem> {
    api.commits()?;
    let listing = api.patiently(api.handle.list(tenant, after, limit)).await?;
    let is_wanted = |state| !matches!(wanted, Wanted::Live(Some(one)) if one != state);
    let jobs = listing.jobs.into_iter().filter(|view| is_wanted(view.state)).map(Found::Live).collect();
    let next = match listing.after {
        Some(after) => Some(Cursor::Live(Some(after))),
        None => (wanted == Wanted::All).then_some(Cursor::Ended(None)),
    };
    Ok((jobs, next))
}

async fn ended(
    api: &Api,
    tenant: Option<TenantId>,
    wanted: Wanted,
    before: Option<JobNumber>,
    limit: usize,
) -> Result<(Vec<Found>, Option<Cursor>), Problem> {
    let (mut jobs, mut before) = (Vec::new(), before);
    let mut seen = 0;
    while seen < SCAN_MAX {
        let asked = (limit - jobs.len()).max(if tenant.is_some() { LIMIT_MAX } else { 0 });
        let page = api.handle.latest_ended(before, asked).await?;
        let is_last = page.len() < asked;
        seen += page.len();
        for record in page {
            if jobs.len() == limit {
                return Ok((jobs, before.map(|job| Cursor::Ended(Some(job)))));
            }
            before = Some(record.job);
            let is_wanted = !matches!(wanted, Wanted::Ended(Some(one)) if one != record.outcome);
            if is_wanted && tenant.is_none_or(|tenant| tenant == record.tenant) {
                jobs.push(Found::Ended(record));
            }
        }
        if is_last {
            return Ok((jobs, None));
        }
        if jobs.len() == limit {
            break;
        }
    }
    Ok((jobs, before.map(|job| Cursor::Ended(Some(job)))))
}

fn wanted(state: Option<&str>) -> Result<Wanted, Problem> {
    let outcome = |outcome| Ok(Wanted::Ended(Some(outcome)));
    match state {
        None => Ok(Wanted::All),
        Some("live") => Ok(Wanted::Live(None)),
        Some("queued") => Ok(Wanted::Live(Some(JobState::Queued))),
        Some("running") => Ok(Wanted::Live(Some(JobState::Running))),
        Some("ended") => Ok(Wanted::Ended(None)),
        Some("done") => outcome(JobOutcome::Done),
        Some("failed") => outcome(JobOutcome::Failed),
        Some("expired") => outcome(JobOutcome::Expired),
        Some("cancelled") => outcome(JobOutcome::Cancelled),
        Some(other) => {
            let remedy = "use live, queued, running, ended, done, failed, expired or cancelled";
            Err(Problem::invalid(format!("`state` is `{}`", super::jobs::clip(other)), remedy))
        }
    }
}

/// How much is wished of a page: from 1 to `max`, or `otherwise` where nothing is said.
///
/// # Errors
/// 400.
pub(super) fn limit(text: Option<&str>, otherwise: usize, max: usize) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(otherwise) };
    let limit = text.parse().ok().filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| wrong("limit", text, format!("use 1 to {max}")))
}

/// A cursor that is none.
pub(super) fn wrong_cursor(text: &str) -> Problem {
    wrong("cursor", text, "use the `cursor` of the page before, as it was")
}

/// A parameter that cannot be used.
pub(super) fn wrong(parameter: &str, value: &str, remedy: impl Into<Cow<'static, str>>) -> Problem {
    Problem::invalid(format!("`{parameter}` is `{}`", super::jobs::clip(value)), remedy)
}

fn read_cursor(text: &str) -> Result<Cursor, Problem> {
    let read = || match text.split_once('.')? {
        ("live", "") => Some(Cursor::Live(None)),
        ("ended", "") => Some(Cursor::Ended(None)),
        ("live", job) => Some(Cursor::Live(Some(job.parse().ok()?))),
        ("ended", job) => Some(Cursor::Ended(Some(job.parse().ok()?))),
        _ => None,
    };
    read().ok_or_else(|| wrong_cursor(text))
}

fn write_cursor(cursor: Cursor) -> String {
    let (list, job) = match cursor {
        Cursor::Live(job) => ("live", job),
        Cursor::Ended(job) => ("ended", job),
    };
    format!("{list}.{}", job.map(|job| job.to_string()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_they_were_written() {
        let job = Some(JobNumber::new(3, 7));
        for cursor in [Cursor::Live(None), Cursor::Live(job), Cursor::Ended(None), Cursor::Ended(job)] {
            assert_eq!(read_cursor(&write_cursor(cursor)).as_ref(), Ok(&cursor));
        }
        for wrong in ["", "live", "live.x", "dead.job-0-1", "live.job-0-01"] {
            assert!(read_cursor(wrong).is_err(), "{wrong}");
        }
    }
}
