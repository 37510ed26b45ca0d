//! The paths of objects, and who asks. Every request comes with a key, or with a URL that was signed.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::routing::{any, post};
use object_store::Error;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::time::Duration;

use super::access::{Wish, no_object};
use super::depot::system_error;
use super::key::Key;
use super::signing::{Denied, Grant};
use super::{Objects, read, write};
use crate::api::Problem;
use crate::clock::unix_ms;

/// Path above all objects.
const PREFIX: &str = "/v1/objects/";

/// Longest body of a wish for a signed URL, bytes.
const SIGN_BYTES_MAX: usize = 4096;

/// A signed URL opens its object for so long where nothing else is said, seconds.
const EXPIRES_S: u64 = 3600;

/// And at most for so long, seconds (S3's limit).
const EXPIRES_MAX_S: u64 = 7 * 24 * 3600;

pub(super) fn router(objects: Objects) -> Router {
    Router::new()
        .route("/v1/objects/sign", post(sign).fallback(async || Problem::method("POST").into_response()))
        .route("/v1/objects/{*key}", any(object))
        .fallback(async || Problem::no_path().into_response())
        .with_state(objects)
}

async fn object(State(objects): State<Objects>, request: Request) -> Response<Body> {
    serve(&objects, request).await.unwrap_or_else(Problem::into_response)
}

async fn serve(objects: &Objects, request: Request) -> Result<Response<Body>, Problem> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let key = Key::from_url_path(path).map_err(|error| invalid_key(&error))?;
    let wish = match parts.method {
        Method::GET | Method::HEAD => Wish::Read,
        Method::PUT => Wish::Write,
        Method::DELETE => Wish::Remove,
        _ => return Err(Problem::method("GET, HEAD, PUT, DELETE")),
    };
    match Grant::read(parts.uri.query()) {
        Some(grant) => {
            let now = unix_ms() / 1000;
            let signer = &objects.0.signer;
            let checked = grant.and_then(|grant| signer.check(&grant, &parts.method, &key, now));
            checked.map_err(|denied| refused(denied, &key))?;
        }
        None => {
            objects.allow(&objects.who(&parts.headers)?, &key, wish).await?;
        }
    }
    match wish {
        Wish::Read => read::read(objects, &key, &parts).await,
        Wish::Write => write::write(objects, &key, &parts.headers, body).await,
        Wish::Remove => write::remove(objects, &key).await,
    }
}

/// A URL to make.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ObjectGrantWish)]
pub(crate) struct SignBody {
    /// The object.
    key: String,
    /// GET, or PUT.
    method: String,
    /// Seconds for which the URL opens the object; at most 7 days.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 604_800)]
    expires_s: Option<u64>,
}

/// A URL that was made.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ObjectGrant)]
pub(crate) struct SignedBody {
    /// Opens the object to whoever has it.
    url: String,
    /// By this method; GET opens HEAD too.
    method: String,
    /// Until then.
    #[schema(value_type = String, format = DateTime)]
    expires_at: jiff::Timestamp,
}

/// `POST /v1/objects/sign`
#[utoipa::path(
    post, path = "/v1/objects/sign", tag = "objects", request_body = SignBody,
    responses(
        (status = 200, description = "A URL that opens one object by one method for some time", body = SignedBody),
        (status = 403, description = "This key may not do that itself", body = crate::api::ProblemBody),
        (status = 404, description = "Not an object of this key", body = crate::api::ProblemBody)),
)]
pub(crate) async fn sign(
    State(objects): State<Objects>,
    headers: HeaderMap,
    request: Request,
) -> Response<Body> {
    let signed = signed(&objects, &headers, request.into_body()).await;
    let json = |signed: SignedBody| {
        let mut response = Response::new(Body::from(serde_json::to_vec(&signed).expect("answers encode")));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    };
    signed.map_or_else(Problem::into_response, json)
}

async fn signed(objects: &Objects, headers: &HeaderMap, body: Body) -> Result<SignedBody, Problem> {
    let who = objects.who(headers)?;
    let reading =
        tokio::time::timeout(objects.0.settings.patience, axum::body::to_bytes(body, SIGN_BYTES_MAX));
    let bytes = match reading.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return Err(Problem::too_large("the body", SIGN_BYTES_MAX)),
        Err(_) => return Err(write::slow(objects.0.settings.patience)),
    };
    let wrong = |detail: String| {
        let remedy =
            "send JSON like {\"key\": \"inputs/1/cat.png\", \"method\": \"PUT\", \"expires_s\": 600}";
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", detail, remedy)
    };
    let asked: SignBody = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let key = Key::parse(&asked.key).map_err(|error| invalid_key(&error))?;
    let (method, wish) = match asked.method.as_str() {
        "GET" => (Method::GET, Wish::Read),
        "PUT" => (Method::PUT, Wish::Write),
        _ => return Err(wrong("`method` is neither GET nor PUT".to_owned())),
    };
    let lasts = asked.expires_s.unwrap_or(EXPIRES_S);
    if !(1..=EXPIRES_MAX_S).contains(&lasts) {
        return Err(wrong(format!("`expires_s` is {lasts}; use 1 to {EXPIRES_MAX_S}")));
    }
    objects.allow(&who, &key, wish).await?;
    if wish == Wish::Write {
        objects.is_open(&key).await?;
    }
    let expires = unix_ms() / 1000 + lasts;
    let of_store = objects.0.depot.signed(&method, &key, Duration::from_secs(lasts)).await;
    let url = match of_store.map_err(|error| failed(&key, &error))? {
        Some(url) => url,
        None => {
            let query = objects.0.signer.query(&method, &key, expires);
            let base = objects.0.public_url.get().map_or("", String::as_str);
            format!("{}{PREFIX}{key}?{query}", base.trim_end_matches('/'))
        }
    };
    let expires_at = jiff::Timestamp::from_second(expires as i64).unwrap_or(jiff::Timestamp::MAX);
    Ok(SignedBody { url, method: method.to_string(), expires_at })
}

fn invalid_key(error: &super::key::KeyError) -> Problem {
    let remedy = "name objects `inputs/<tenant>/<name>`, like `inputs/1/cat.png`";
    Problem::new(StatusCode::BAD_REQUEST, "invalid-key", error.to_string(), remedy)
}

fn refused(denied: Denied, key: &Key) -> Problem {
    let detail = match denied {
        Denied::Wrong => format!("this URL was not signed for this method on `{key}`"),
        Denied::Expired => format!("the time of this URL for `{key}` is over"),
    };
    let remedy = "have a new one made with `POST /v1/objects/sign`, and use it as it is";
    Problem::new(StatusCode::FORBIDDEN, "signature", detail, remedy)
}

/// What an error of the store means to a client.
pub(super) fn failed(key: &Key, error: &Error) -> Problem {
    if matches!(error, Error::NotFound { .. }) {
        return no_object(key);
    }
    match system_error(error) {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            tracing::error!("no room for objects: {error}");
            let detail = format!("there is no room for `{key}`; nothing of it was kept");
            let remedy =
                "ask again later; the operator frees space, or shortens the time that objects are kept";
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "no-room", detail, remedy).later(60)
        }
        Some(ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::AlreadyExists) => {
            let detail =
                format!("`{key}` and another object cannot both be: one's name is a folder of the other");
            Problem::new(StatusCode::CONFLICT, "key-in-the-way", detail, "choose another name")
        }
        _ => {
            tracing::error!("the store of objects failed: {error}");
            let detail = "the store of objects does not answer as it should";
            let remedy = "ask again; the operator finds the reason in the log";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "objects", detail, remedy).later(5)
        }
    }
}
