//! An object from a client: it is there once the client was told so, or not at all.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde::Serialize;

use super::key::Key;
use super::read::tag;
use super::route::failed;
use super::{Objects, kind};
use crate::api::Problem;

/// An object that was written.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Object)]
pub(crate) struct WrittenBody<'a> {
    /// Its name.
    key: &'a str,
    /// Its length.
    bytes: u64,
}

/// Of a body that is refused, so much is read before the answer.
const LET_OUT_BYTES: usize = 8 << 20;

/// For so long at most.
const LET_OUT_FOR: Duration = Duration::from_secs(2);

/// `PUT /v1/objects/{key}`
#[utoipa::path(
    put, path = "/v1/objects/{key}", tag = "objects",
    params(("key" = String, Path, description = "`inputs/<tenant>/...`; workers write `outputs/<job>/...`")),
    request_body(content_type = "application/octet-stream", description = "The object"),
    responses(
        (status = 201, description = "The object is there, and on disk", body = WrittenBody),
        (status = 403, description = "Not this key's to write", body = crate::api::ProblemBody),
        (status = 409, description = "The job has ended", body = crate::api::ProblemBody),
        (status = 413, description = "Larger than allowed", body = crate::api::ProblemBody),
        (status = 507, description = "No room; nothing was kept", body = crate::api::ProblemBody)),
)]
pub(crate) async fn write(
    objects: &Objects,
    key: &Key,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<Response<Body>, Problem> {
    // Who asks first begins to send when the body is asked for.
    let mut begun = !headers.contains_key(header::EXPECT);
    let written = take(objects, key, headers, &mut body, &mut begun).await;
    if let Err(problem) = &written
        && problem.status != StatusCode::REQUEST_TIMEOUT
        && begun
    {
        let_out(&mut body).await;
    }
    written
}

async fn take(
    objects: &Objects,
    key: &Key,
    headers: &HeaderMap,
    body: &mut Body,
    begun: &mut bool,
) -> Result<Response<Body>, Problem> {
    for name in [header::IF_MATCH, header::IF_NONE_MATCH, header::CONTENT_RANGE, header::CONTENT_ENCODING] {
        if headers.contains_key(&name) {
            let detail =
                format!("objects are written whole and whatever was there: `{name}` is not understood");
            return Err(Problem::invalid(detail, "send the request without this header"));
        }
    }
    objects.is_open(key).await?;
    let stated = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let length: u64 = stated.unwrap_or(0);
    let max = objects.0.settings.bytes_max;
    if length > max {
        return Err(Problem::too_large("the object", max as usize));
    }
    let _place = objects.0.writes.acquire().await.map_err(|_| Problem::draining())?;
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| kind::said(value.to_str().ok()?));
    let kind = said.unwrap_or_else(|| kind::by_ending(key.as_str()));
    let wrong = |error| failed(key, &error);
    let mut upload = objects.0.depot.upload(key, kind, length).await.map_err(wrong)?;
    *begun = true;
    let bytes = copy(objects, key, body, &mut upload).await?;
    // While it came, its job may have ended.
    objects.is_open(key).await?;
    upload.finish().await.map_err(wrong)?;
    let tag = objects.0.depot.head(key).await.map(|meta| tag(&meta)).ok();
    let written = WrittenBody { key: key.as_str(), bytes };
    let mut response = Response::new(Body::from(serde_json::to_vec(&written).expect("answers encode")));
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// Copies a body into an upload, and tells its length.
async fn copy(
    objects: &Objects,
    key: &Key,
    body: &mut Body,
    upload: &mut super::depot::Upload,
) -> Result<u64, Problem> {
    let settings = &objects.0.settings;
    let mut length = 0_u64;
    loop {
        let frame = match tokio::time::timeout(settings.patience, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(Problem::invalid("the body broke off", "send it whole")),
            Ok(None) => return Ok(length),
            Err(_) => return Err(slow(settings.patience)),
        };
        let Ok(bytes) = frame.into_data() else { continue };
        length += bytes.len() as u64;
        if length > settings.bytes_max {
            return Err(Problem::too_large("the object", settings.bytes_max as usize));
        }
        upload.write(bytes).await.map_err(|error| failed(key, &error))?;
    }
}

/// Reads on for a while after a refusal: many clients write all that they have before they read an answer, and would see a
/// broken connection instead of it.
async fn let_out(body: &mut Body) {
    let rest = async {
        let mut left = LET_OUT_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, |data| data.len())) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(LET_OUT_FOR, rest).await;
}

/// A body that does not come.
pub(super) fn slow(patience: Duration) -> Problem {
    let detail = format!("nothing of the body came for {} s", patience.as_secs_f64());
    let remedy = "send it faster, or over a better connection";
    Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-body", detail, remedy)
}

/// `DELETE /v1/objects/{key}`
#[utoipa::path(
    delete, path = "/v1/objects/{key}", tag = "objects",
    params(("key" = String, Path, description = "An input of this key's tenant, or an output of one of its jobs")),
    responses(
        (status = 204, description = "The object is gone, now or before"),
        (status = 404, description = "Not an object of this key", body = crate::api::ProblemBody)),
)]
pub(crate) async fn remove(objects: &Objects, key: &Key) -> Result<Response<Body>, Problem> {
    let _place = objects.0.writes.acquire().await.map_err(|_| Problem::draining())?;
    match objects.0.depot.delete(key).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(failed(key, &error)),
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
