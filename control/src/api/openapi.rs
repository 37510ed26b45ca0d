//! The description of the API, as OpenAPI. `docs/openapi.json` is a copy of what is served.

use std::sync::OnceLock;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{batch, body, events, health, jobs, listing, machines, operate};

/// Everything there is.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "headroom",
        description = "Jobs for a fleet that a policy scales. A job that is accepted (200, 202) is durable, and ends \
            exactly once as done, failed, expired or cancelled. Errors are problem details (RFC 9457) with a remedy.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")),
    paths(
        jobs::submit, batch::submit, listing::list, jobs::get, jobs::result, jobs::cancel, delete_job, events::of_job,
        operate::fleet, machines::list, operate::hold, operate::reload, events::decisions,
        health::live, health::ready, health::metrics,
        crate::objects::write::write, crate::objects::read::read, crate::objects::write::remove, crate::objects::route::sign,
        crate::webhook::route::show, crate::webhook::route::change),
    modifiers(&Keys),
    security(("key" = [])),
    tags(
        (name = "jobs", description = "Submit, look, wait, cancel"),
        (name = "objects", description = "Inputs and outputs that are too large for a job's JSON"),
        (name = "operate", description = "The fleet and who decides about it"),
        (name = "health", description = "For supervisors and monitoring; the first two need no key")),
)]
struct Description;

struct Keys;

impl Modify for Keys {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some("hr_<id>_<secret>".to_owned());
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// `DELETE /v1/jobs/{id}`
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", tag = "jobs",
    description = "As `POST /v1/jobs/{id}/cancel`",
    params(("id" = String, Path, description = "Id of the job")),
    responses(
        (status = 200, description = "The job is cancelled, now or before", body = super::view::JobBody),
        (status = 404, description = "No such job for this key", body = super::problem::ProblemBody),
        (status = 409, description = "The job had ended", body = super::problem::ProblemBody)),
)]
#[expect(dead_code, reason = "a second name of `jobs::cancel`, for the description alone")]
fn delete_job() {}

/// The description, as it is served.
pub fn document() -> String {
    let mut text = Description::openapi().to_pretty_json().expect("descriptions encode");
    text.push('\n');
    text
}

pub(crate) fn served() -> Response<Body> {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| Bytes::from(document())).clone();
    body::text(StatusCode::OK, "application/json", document)
}
