//! What supervisors and monitoring ask.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{Response, StatusCode};

use super::keys::Scope;
use super::problem::Problem;
use super::route::Ask;
use super::wait::parameter;
use super::{Api, body};

/// `GET /livez`
#[utoipa::path(
    get, path = "/livez", tag = "health",
    responses((status = 200, description = "The process answers", content_type = "text/plain", body = String)),
)]
pub(crate) fn live() -> Response<Body> {
    body::text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")
}

/// `GET /readyz`
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    params(("verbose" = Option<String>, Query, description = "One line for each check")),
    responses(
        (status = 200, description = "Jobs are taken", content_type = "text/plain", body = String),
        (status = 503, description = "Not now", content_type = "text/plain", body = String)),
)]
pub(crate) fn ready(api: &Api, query: Option<&str>) -> Response<Body> {
    let checks = [
        ("journal-writable", api.handle.shared().is_writable.load(Ordering::Relaxed)),
        ("not-draining", !*api.draining.borrow()),
        ("leading", api.leads().is_ok()),
    ];
    let is_ready = checks.iter().all(|(_, is_good)| *is_good);
    let is_verbose = query == Some("verbose") || parameter(query, "verbose").is_some();
    let mut text = String::new();
    for (name, is_good) in checks {
        if is_verbose || !is_good {
            text.push_str(if is_good { "[+]" } else { "[-]" });
            text.push_str(name);
            text.push('\n');
        }
    }
    text.push_str(if is_ready { "ok\n" } else { "not ready\n" });
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    body::text(status, "text/plain; charset=utf-8", text)
}

/// Plain text.
pub(crate) fn plain(status: StatusCode, text: String) -> Response<Body> {
    body::text(status, "text/plain; charset=utf-8", text)
}

/// `GET /metrics`
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, description = "OpenMetrics text", content_type = "application/openmetrics-text",
        body = String)),
)]
pub(crate) fn metrics(ask: &Ask<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Scope::Observe)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(body::text(StatusCode::OK, kind, ask.api.metrics()))
}
