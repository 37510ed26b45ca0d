//! An object, or a part of it, to a client.

use axum::body::Body;
use axum::http::header::{self, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;
use object_store::{Attribute, Attributes, GetOptions, GetRange, ObjectMeta};

use super::depot::stream;
use super::key::Key;
use super::range::{Asked, asked, names};
use super::route::failed;
use super::{Objects, kind};
use crate::api::Problem;

/// `GET /v1/objects/{key}`
#[utoipa::path(
    get, path = "/v1/objects/{key}", tag = "objects",
    params(("key" = String, Path, description = "`inputs/<tenant>/...` or `outputs/<job>/...`")),
    responses(
        (status = 200, description = "The object; `Range` gives a part of it (206), `If-None-Match` spares it (304)"),
        (status = 404, description = "No such object for this key", body = crate::api::ProblemBody)),
)]
pub(crate) async fn read(objects: &Objects, key: &Key, parts: &Parts) -> Result<Response<Body>, Problem> {
    let depot = &objects.0.depot;
    let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let (known, range) = (header(header::IF_NONE_MATCH), header(header::RANGE));
    let is_head = parts.method == Method::HEAD;
    let mut options = GetOptions::default();
    if known.is_some() || range.is_some() {
        let meta = depot.head(key).await.map_err(|error| failed(key, &error))?;
        let tag = tag(&meta);
        if known.is_some_and(|known| names(known, &tag)) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            insert(&mut response, header::ETAG, &tag);
            return Ok(response);
        }
        // A part of what is no more the same would be of no use.
        let range = range.filter(|_| header(header::IF_RANGE).is_none_or(|same| same == tag) && !is_head);
        match range.map_or(Asked::Whole, |range| asked(range, meta.size)) {
            Asked::Whole => {}
            Asked::Part(part) => options.range = Some(GetRange::Bounded(part)),
            Asked::Outside => return Ok(outside(key, meta.size)),
        }
    }
    options.head = is_head;
    let is_part = options.range.is_some();
    let found = depot.get(key, options).await.map_err(|error| failed(key, &error))?;
    let (range, size) = (found.range.clone(), found.meta.size);
    let length = if is_head { size } else { range.end - range.start };
    let (tag, changed, kind) = (tag(&found.meta), changed(&found.meta), kind_of(key, &found.attributes));
    let body = if is_head { Body::empty() } else { Body::from_stream(stream(found)) };
    let mut response = Response::new(body);
    if is_part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let part = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
        insert(&mut response, header::CONTENT_RANGE, &part);
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    insert(&mut response, header::CONTENT_TYPE, &kind);
    insert(&mut response, header::ETAG, &tag);
    insert(&mut response, header::LAST_MODIFIED, &changed);
    insert(&mut response, header::ACCEPT_RANGES, "bytes");
    insert(&mut response, header::CACHE_CONTROL, "private");
    // What a tenant uploads must not run as a page of this server.
    insert(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    insert(&mut response, header::CONTENT_SECURITY_POLICY, "sandbox");
    Ok(response)
}

fn outside(key: &Key, size: u64) -> Response<Body> {
    let detail = format!("`{key}` has {size} bytes, and none in that range");
    let problem =
        Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", detail, "ask for bytes that are there");
    let mut response = problem.into_response();
    insert(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
    response
}

fn insert(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The store's tag, quoted; of a store that has none, time and size.
pub(super) fn tag(meta: &ObjectMeta) -> String {
    match &meta.e_tag {
        Some(tag) if tag.starts_with('"') => tag.clone(),
        Some(tag) => format!("\"{tag}\""),
        None => format!("\"{:x}-{:x}\"", meta.last_modified.timestamp_millis(), meta.size),
    }
}

fn changed(meta: &ObjectMeta) -> String {
    let at = Timestamp::from_second(meta.last_modified.timestamp()).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn kind_of(key: &Key, attributes: &Attributes) -> String {
    let kept = attributes.get(&Attribute::ContentType);
    kept.map_or_else(|| kind::by_ending(key.as_str()).to_owned(), |kind| kind.to_string())
}
