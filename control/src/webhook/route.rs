//! A tenant's signing secret over HTTP: shown, and changed.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::routing::get;
use jiff::Timestamp;
use serde::Serialize;

use super::secrets::{Held, Secrets};
use crate::api::{Caller, KeyRing, Problem, Scope};

/// Path of the route.
pub const SECRET_PATH: &str = "/v1/webhook-secret";

#[derive(Clone)]
pub(crate) struct Door {
    keys: Arc<KeyRing>,
    secrets: Arc<Secrets>,
}

/// What verifies the announcements to a tenant.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = WebhookSecret)]
pub(crate) struct SecretBody {
    /// Signs from now on.
    secret: String,
    /// Signs too, for some time after a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    /// Until when the previous one signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    previous_until: Option<Timestamp>,
}

/// The route.
pub fn router(keys: Arc<KeyRing>, secrets: Arc<Secrets>) -> axum::Router {
    let methods =
        get(show).post(change).fallback(async || Problem::method("GET, HEAD, POST").into_response());
    axum::Router::new().route(SECRET_PATH, methods).with_state(Door { keys, secrets })
}

/// `GET /v1/webhook-secret`
#[utoipa::path(
    get, path = "/v1/webhook-secret", tag = "jobs",
    responses((status = 200, description = "The secret that signs announcements to this key's tenant", body = SecretBody)),
)]
pub(crate) async fn show(State(door): State<Door>, headers: HeaderMap) -> Response<Body> {
    let shown = caller(&door, &headers).map(|caller| door.secrets.of(caller.tenant(), Timestamp::now()));
    answer(shown)
}

/// `POST /v1/webhook-secret`
#[utoipa::path(
    post, path = "/v1/webhook-secret", tag = "jobs",
    description = "Makes a new secret. The one before signs beside it for 24 hours; the one before that is void at once.",
    responses((status = 200, description = "The new secret", body = SecretBody)),
)]
pub(crate) async fn change(State(door): State<Door>, headers: HeaderMap) -> Response<Body> {
    let caller = match caller(&door, &headers) {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let (secrets, tenant) = (door.secrets, caller.tenant());
    let changed = tokio::task::spawn_blocking(move || secrets.change(tenant, Timestamp::now())).await;
    let failed = |why: String| {
        tracing::error!("a webhook secret was not changed: {why}");
        let detail = "the change could not be written; the secret is what it was";
        let remedy = "ask again; the operator finds the reason in the log";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store", detail, remedy).later(5)
    };
    answer(match changed {
        Ok(Ok(held)) => {
            tracing::info!("tenant {tenant} has a new webhook secret, by key `{}`", caller.id());
            Ok(held)
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    })
}

/// Who submits may know what the answers are signed with.
fn caller(door: &Door, headers: &HeaderMap) -> Result<Caller, Problem> {
    let caller = door.keys.caller(headers)?;
    caller.needs(Scope::Submit)?;
    Ok(caller)
}

fn answer(held: Result<Held, Problem>) -> Response<Body> {
    let held = match held {
        Ok(held) => held,
        Err(problem) => return problem.into_response(),
    };
    let (previous, previous_until) = held.previous.map(|(secret, until)| (secret.text(), until)).unzip();
    let body = SecretBody { secret: held.current.text(), previous, previous_until };
    let mut response = Response::new(Body::from(serde_json::to_vec(&body).expect("secrets encode")));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
