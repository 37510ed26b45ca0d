//! Which path a request has, and who answers it. One function instead of layers: this is the hot path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::problem::Problem;
use super::{Api, batch, events, health, jobs, listing, machines, openapi, operate};
use crate::ha::{Seat, shard_of};
use crate::number::JobNumber;

/// A path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Jobs,
    Batch,
    Job,
    Result,
    Cancel,
    Events,
    Fleet,
    Machines,
    Hold,
    Reload,
    Decisions,
    Live,
    Ready,
    Metrics,
    OpenApi,
    Workers,
    Objects,
    WebhookSecret,
    Nothing,
}

impl Route {
    pub(crate) const ALL: [Self; 19] = [
        Self::Jobs,
        Self::Batch,
        Self::Job,
        Self::Result,
        Self::Cancel,
        Self::Events,
        Self::Fleet,
        Self::Machines,
        Self::Hold,
        Self::Reload,
        Self::Decisions,
        Self::Live,
        Self::Ready,
        Self::Metrics,
        Self::OpenApi,
        Self::Workers,
        Self::Objects,
        Self::WebhookSecret,
        Self::Nothing,
    ];

    /// The route of a path, and the job's id in it.
    pub(crate) fn of(path: &str) -> (Self, &str) {
        let route = match path {
            "/v1/jobs" => Self::Jobs,
            "/v1/jobs/batch" => Self::Batch,
            "/v1/fleet" => Self::Fleet,
            "/v1/fleet/machines" => Self::Machines,
            "/v1/operate/hold" => Self::Hold,
            "/v1/operate/reload" => Self::Reload,
            "/v1/decisions" => Self::Decisions,
            "/healthz" | "/livez" => Self::Live,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/v1/openapi.json" => Self::OpenApi,
            crate::webhook::SECRET_PATH => Self::WebhookSecret,
            _ if path.starts_with("/v1/workers/") => Self::Workers,
            _ if path.starts_with("/v1/objects/") => Self::Objects,
            _ => {
                let Some(rest) = path.strip_prefix("/v1/jobs/") else { return (Self::Nothing, "") };
                return match rest.split_once('/') {
                    None => (Self::Job, rest),
                    Some((id, "result")) => (Self::Result, id),
                    Some((id, "cancel")) => (Self::Cancel, id),
                    Some((id, "events")) => (Self::Events, id),
                    Some(_) => (Self::Nothing, ""),
                };
            }
        };
        (route, "")
    }

    /// Its name in metrics.
    pub(crate) const fn template(self) -> &'static str {
        match self {
            Self::Jobs => "/v1/jobs",
            Self::Batch => "/v1/jobs/batch",
            Self::Job => "/v1/jobs/{id}",
            Self::Result => "/v1/jobs/{id}/result",
            Self::Cancel => "/v1/jobs/{id}/cancel",
            Self::Events => "/v1/jobs/{id}/events",
            Self::Fleet => "/v1/fleet",
            Self::Machines => "/v1/fleet/machines",
            Self::Hold => "/v1/operate/hold",
            Self::Reload => "/v1/operate/reload",
            Self::Decisions => "/v1/decisions",
            Self::Live => "/livez",
            Self::Ready => "/readyz",
            Self::Metrics => "/metrics",
            Self::OpenApi => "/v1/openapi.json",
            Self::Workers => "/v1/workers",
            Self::Objects => "/v1/objects",
            Self::WebhookSecret => crate::webhook::SECRET_PATH,
            Self::Nothing => "",
        }
    }
}

/// Answers a request, and counts it.
pub(crate) async fn answer(api: Arc<Api>, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let path = request.uri().path();
    let (route, id) = Route::of(path);
    let is_nested = matches!(route, Route::Workers | Route::Objects | Route::WebhookSecret);
    let response = if is_nested {
        nested(&api, route, peer, request).await
    } else {
        let id = id.to_owned();
        own(&api, route, &id, peer, request).await
    };
    let response = response.unwrap_or_else(Problem::into_response);
    api.counters.answered(route, response.status(), started.elapsed());
    response
}

async fn own(
    api: &Arc<Api>,
    route: Route,
    id: &str,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    guard_browsers(api, &request)?;
    let (parts, body) = request.into_parts();
    let method = if parts.method == Method::HEAD { Method::GET } else { parts.method.clone() };
    match (route, &method) {
        (Route::Live, &Method::GET) => return Ok(health::live()),
        (Route::Ready, &Method::GET) => return Ok(health::ready(api, parts.uri.query())),
        (Route::OpenApi, &Method::GET) => return Ok(openapi::served()),
        _ => {}
    }
    api.leads()?;
    let caller = api.caller(&parts.headers)?;
    api.answers_for(|seat| shard(seat, route, &method, id, &caller), &parts.uri)?;
    let ask = Ask { api, caller, parts, body, peer };
    match (route, &method) {
        (Route::Jobs, &Method::POST) => jobs::submit(ask).await,
        (Route::Jobs, &Method::GET) => listing::list(ask).await,
        (Route::Batch, &Method::POST) => batch::submit(ask).await,
        (Route::Job, &Method::GET) => jobs::get(ask, id).await,
        (Route::Job, &Method::DELETE) | (Route::Cancel, &Method::POST) => jobs::cancel(ask, id).await,
        (Route::Result, &Method::GET) => jobs::result(ask, id).await,
        (Route::Events, &Method::GET) => events::of_job(ask, id).await,
        (Route::Fleet, &Method::GET) => operate::fleet(&ask),
        (Route::Machines, &Method::GET) => machines::list(ask).await,
        (Route::Hold, &Method::POST) => operate::hold(ask).await,
        (Route::Reload, &Method::POST) => operate::reload(ask).await,
        (Route::Decisions, &Method::GET) => events::decisions(ask),
        (Route::Metrics, &Method::GET) => health::metrics(&ask),
        (Route::Nothing | Route::Workers | Route::Objects | Route::WebhookSecret, _) => {
            Err(Problem::no_path())
        }
        (Route::Jobs, _) => Err(Problem::method("GET, HEAD, POST")),
        (Route::Job, _) => Err(Problem::method("GET, HEAD, DELETE")),
        (Route::Batch | Route::Cancel | Route::Hold | Route::Reload, _) => Err(Problem::method("POST")),
        (Route::Result | Route::Events | Route::Fleet | Route::Machines | Route::Decisions, _)
        | (Route::Live | Route::Ready | Route::Metrics | Route::OpenApi, _) => {
            Err(Problem::method("GET, HEAD"))
        }
    }
}

/// The shard that a request is for, where it is for one: a job's own, or that of the tenant who submits or lists.
fn shard(seat: &Seat, route: Route, method: &Method, id: &str, caller: &super::keys::Caller) -> Option<u16> {
    match route {
        Route::Job | Route::Result | Route::Cancel | Route::Events => {
            id.parse::<JobNumber>().ok().map(JobNumber::shard)
        }
        // An operator lists the jobs of the shard that is asked.
        Route::Jobs if *method != Method::POST => caller.only().map(|tenant| shard_of(tenant, seat.shards)),
        Route::Jobs | Route::Batch => Some(shard_of(caller.tenant(), seat.shards)),
        _ => None,
    }
}

/// A request whose sender is known.
pub(crate) struct Ask<'a> {
    pub(crate) api: &'a Arc<Api>,
    pub(crate) caller: super::keys::Caller,
    pub(crate) parts: axum::http::request::Parts,
    pub(crate) body: Incoming,
    pub(crate) peer: SocketAddr,
}

async fn nested(
    api: &Arc<Api>,
    route: Route,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    guard_browsers(api, &request)?;
    api.leads()?;
    let router = if route == Route::Workers { &api.workers } else { &api.objects };
    let router = router.clone().ok_or_else(Problem::no_path)?;
    request.extensions_mut().insert(ConnectInfo(peer));
    match TowerToHyperService::new(router).call(request.map(Body::new)).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

/// Without keys, anybody who can connect may do everything: so may any page in a browser on this machine, were it not
/// for these two headers, which a page cannot choose.
fn guard_browsers<B>(api: &Api, request: &Request<B>) -> Result<(), Problem> {
    if !api.keys.is_open() {
        return Ok(());
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    let is_local = matches!(name, "localhost" | "[::1]") || name.starts_with("127.");
    if is_local && !request.headers().contains_key(ORIGIN) {
        return Ok(());
    }
    let detail = "without keys, this server answers local programs only, and no pages in a browser";
    let remedy = "make a key with `headroom keys create`, or ask for localhost without an Origin header";
    Err(Problem::new(StatusCode::FORBIDDEN, "local-only", detail, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_route() {
        for (path, route, id) in [
            ("/v1/jobs", Route::Jobs, ""),
            ("/v1/jobs/batch", Route::Batch, ""),
            ("/v1/jobs/job-0-1", Route::Job, "job-0-1"),
            ("/v1/jobs/job-0-1/result", Route::Result, "job-0-1"),
            ("/v1/jobs/job-0-1/cancel", Route::Cancel, "job-0-1"),
            ("/v1/jobs/job-0-1/events", Route::Events, "job-0-1"),
            ("/v1/jobs/job-0-1/events/x", Route::Nothing, ""),
            ("/v1/jobs/", Route::Job, ""),
            ("/v1", Route::Nothing, ""),
            ("//v1/jobs", Route::Nothing, ""),
            ("/v1/workers/connect", Route::Workers, ""),
            ("/v1/objects/outputs/job-0-1/a.png", Route::Objects, ""),
            ("/v1/webhook-secret", Route::WebhookSecret, ""),
            ("/healthz", Route::Live, ""),
        ] {
            assert_eq!(Route::of(path), (route, id), "{path}");
        }
    }

    #[test]
    fn numbers_of_routes_follow_their_order() {
        for (number, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, number);
        }
    }
}
