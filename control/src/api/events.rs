//! News as server-sent events: of one job until its end, and the decisions of the policies.
//!
//! The id of a job's event is the version of its change. A client that comes back with `Last-Event-ID` gets the state as
//! it is now if it is newer; changes in between are not told one by one.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};

use super::drained;
use super::jobs::clip;
use super::keys::Scope;
use super::problem::Problem;
use super::route::Ask;
use super::view::{self, Found};
use crate::number::JobNumber;
use crate::shell::{News, Row};

/// Time after which something is said, so that nobody takes the connection for dead.
const PING_EVERY: Duration = Duration::from_secs(15);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// One decision of a policy.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Decision)]
pub(crate) struct DecisionBody<'a> {
    /// Seconds since the journal began.
    at_s: f64,
    /// Which policy.
    policy: &'a str,
    /// Group or pool.
    subject: &'a str,
    /// Before.
    from: u32,
    /// After.
    to: u32,
    /// Stable code of the reason.
    code: &'a str,
    /// The reason in a sentence.
    reason: &'a str,
}

/// `GET /v1/jobs/{id}/events`
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", tag = "jobs",
    params(
        ("id" = String, Path, description = "Id of the job"),
        ("Last-Event-ID" = Option<u32>, Header, description = "Version that was seen last")),
    responses(
        (status = 200, description = "Server-sent events `changed` (id = version), `progress`, last `ended`; after a \
            reconnection changes in between collapse into the latest", content_type = "text/event-stream",
            body = view::ChangeBody),
        (status = 204, description = "The end was seen; do not connect again"),
        (status = 404, description = "No such job for this key", body = super::problem::ProblemBody)),
)]
pub(crate) async fn of_job(ask: Ask<'_>, id: &str) -> Result<Response<Body>, Problem> {
    let Ask { api, caller, parts, .. } = ask;
    caller.needs(Scope::Read)?;
    let job: JobNumber = id.parse().map_err(|_| Problem::no_job(clip(id)))?;
    let mut seen = last_seen(&parts.headers)?;
    let found = api.find(job, caller.only()).await?;
    if let Found::Ended(record) = &found
        && record.version <= seen
    {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let mut news = api.handle.watch(job).await?;
    let (api, open) = (api.clone(), api.counters.opened_stream());
    let mut draining = api.draining.clone();
    Ok(stream(async_stream::stream! {
        let _open = open;
        yield Ok::<_, Infallible>(Bytes::from_static(b"retry: 1000\n\n"));
        let mut ping_at = Instant::now() + PING_EVERY;
        loop {
            let news = tokio::select! {
                news = news.recv() => news,
                () = sleep_until(ping_at) => {
                    ping_at = Instant::now() + PING_EVERY;
                    yield Ok(Bytes::from_static(b": ping\n\n"));
                    continue;
                }
                () = drained(&mut draining) => return,
            };
            let end = match news {
                Some(News::Changed(event)) => {
                    if event.version > seen {
                        seen = event.version;
                        let names = api.names();
                        let body = view::change(&event, &names, api.calendar);
                        yield Ok(event_bytes("changed", Some(event.version), &body));
                    }
                    continue;
                }
                Some(News::Progress { done, of }) => {
                    yield Ok(Bytes::from(format!("event: progress\ndata: {{\"done\":{done},\"of\":{of}}}\n\n")));
                    continue;
                }
                Some(News::Ended(record)) => record,
                None => match api.find(job, None).await {
                    Ok(Found::Ended(record)) => record,
                    // The plane has stopped: the client comes back to the next one.
                    Ok(Found::Live(_)) | Err(_) => return,
                },
            };
            let names = api.names();
            let body = view::ended(&end, &names, api.calendar);
            yield Ok(event_bytes("ended", Some(end.version), &body));
            return;
        }
    }))
}

/// `GET /v1/decisions`
#[utoipa::path(
    get, path = "/v1/decisions", tag = "operate",
    responses((status = 200, description = "Server-sent events `decision`, from now on; `missed` with a count where \
        the client was too slow", content_type = "text/event-stream", body = DecisionBody)),
)]
pub(crate) fn decisions(ask: Ask<'_>) -> Result<Response<Body>, Problem> {
    let Ask { api, caller, .. } = ask;
    caller.needs(Scope::Observe)?;
    let mut rows = api.handle.shared().rows();
    let mut draining = api.draining.clone();
    let open = api.counters.opened_stream();
    Ok(stream(async_stream::stream! {
        let _open = open;
        yield Ok::<_, Infallible>(Bytes::from_static(b"retry: 1000\n\n"));
        let mut ping_at = Instant::now() + PING_EVERY;
        loop {
            let row = tokio::select! {
                row = rows.recv() => row,
                () = sleep_until(ping_at) => {
                    ping_at = Instant::now() + PING_EVERY;
                    yield Ok(Bytes::from_static(b": ping\n\n"));
                    continue;
                }
                () = drained(&mut draining) => return,
            };
            match row {
                Ok(Row::Decided(row)) => {
                    let body = DecisionBody {
                        at_s: row.at_s,
                        policy: row.policy,
                        subject: &row.subject,
                        from: row.from,
                        to: row.to,
                        code: row.code,
                        reason: &row.reason,
                    };
                    yield Ok(event_bytes("decision", None, &body));
                }
                Ok(Row::Minute(_) | Row::Instance(_) | Row::Job(_)) => {}
                Err(RecvError::Lagged(missed)) => {
                    yield Ok(Bytes::from(format!("event: missed\ndata: {{\"rows\":{missed}}}\n\n")));
                }
                Err(RecvError::Closed) => return,
            }
        }
    }))
}

fn last_seen(headers: &HeaderMap) -> Result<u32, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(0) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| Problem::invalid("`Last-Event-ID` is no version", "send the id of the last event"))
}

fn stream(
    events: impl futures_util::Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
) -> Response<Body> {
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// An event; JSON has no line breaks outside of strings, and escapes them inside.
fn event_bytes<T: Serialize>(name: &str, id: Option<u32>, data: &T) -> Bytes {
    let mut bytes = Vec::with_capacity(256);
    if let Some(id) = id {
        bytes.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    bytes.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
    let at = bytes.len();
    serde_json::to_writer(&mut bytes, data).expect("events encode");
    // Results are kept as workers wrote them, line breaks between values included.
    for byte in &mut bytes[at..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    bytes.extend_from_slice(b"\n\n");
    Bytes::from(bytes)
}
