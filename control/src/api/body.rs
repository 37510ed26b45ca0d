//! Bodies of requests and answers: bounded in bytes and in time.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use serde::Serialize;

use super::problem::Problem;

/// Reads a whole body; one that comes in one piece is not copied.
///
/// # Errors
/// 413 above `max` bytes, 408 when it is not whole within `patience`, 400 when it breaks off.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Incoming,
    max: usize,
    patience: Duration,
) -> Result<Bytes, Problem> {
    if stated_length(headers).is_some_and(|length| length > max as u64) {
        return Err(Problem::too_large("the body", max));
    }
    match tokio::time::timeout(patience, gather(body, max)).await {
        Ok(read) => read,
        Err(_) => {
            let detail = format!("the body was not whole after {} s", patience.as_secs_f64());
            let remedy = "send it faster, or over a better connection";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-body", detail, remedy))
        }
    }
}

fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn gather(mut body: Incoming, max: usize) -> Result<Bytes, Problem> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let broken = |_| Problem::invalid("the body broke off", "send it whole");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if first.len() + all.len() + data.len() > max {
            return Err(Problem::too_large("the body", max));
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// An answer in JSON.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    let bytes = serde_json::to_vec(value).expect("answers encode");
    text(status, "application/json", bytes)
}

/// An answer of some type.
pub(crate) fn text(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
