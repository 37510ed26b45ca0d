//! What the load programs share: connections, requests, the job, a pace of their own.

#![allow(dead_code, reason = "each load program uses a part")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub(crate) mod plain;

/// Size of a job, bytes.
const PAYLOAD_BYTES: usize = 256;

/// A plane to send to.
pub(crate) struct Target {
    authority: String,
    key: Option<String>,
}

impl Target {
    pub(crate) fn new(url: &str) -> Self {
        let authority = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Self { authority, key: std::env::var("HEADROOM_KEY").ok() }
    }

    pub(crate) async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(&self.authority).await.expect("the plane listens");
        stream.set_nodelay(true).expect("a socket takes its options");
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        sender
    }

    /// A blocking connection.
    pub(crate) fn plain_connect(&self) -> std::net::TcpStream {
        let stream = std::net::TcpStream::connect(&self.authority).expect("the plane listens");
        stream.set_nodelay(true).expect("a socket takes its options");
        stream
    }

    /// A request as it goes over the wire.
    pub(crate) fn plain_request(&self, path: &str, body: &str) -> String {
        let key = self.key.as_ref().map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{key}content-length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        )
    }

    pub(crate) fn request(&self, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request =
            Request::post(path).header("host", &self.authority).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        request.body(Full::new(body)).expect("a request")
    }
}

/// A job of 256 bytes.
pub(crate) fn job() -> String {
    let head = "{\"prompt\":\"a photo of a cat on a red sofa\",\"width\":1024,\"height\":1024,\"pad\":\"";
    format!("{{\"payload\":{head}{}\"}}}}", "x".repeat(PAYLOAD_BYTES - head.len() - 2))
}

/// Quantiles of latencies, as text.
pub(crate) fn quantiles(name: &str, mut nanos: Vec<u64>) -> String {
    if nanos.is_empty() {
        return format!("{name}: nothing");
    }
    nanos.sort_unstable();
    let at =
        |p: f64| nanos[((nanos.len() as f64 * p).ceil() as usize).clamp(1, nanos.len()) - 1] as f64 / 1e6;
    let (p50, p90, p99, p999, max) = (at(0.5), at(0.9), at(0.99), at(0.999), at(1.0));
    format!(
        "{name}: n={} p50={p50:.2} p90={p90:.2} p99={p99:.2} p99.9={p999:.2} max={max:.2} ms",
        nanos.len()
    )
}

/// The status of an answer and its body, once it has been read; `None` without an answer.
pub(crate) async fn once(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Option<(StatusCode, Bytes)> {
    sender.ready().await.ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let status = answer.status();
    Some((status, answer.into_body().collect().await.ok()?.to_bytes()))
}

/// Sends each due instant when it has come. A thread of its own: tokio's timer rounds up to a millisecond.
pub(crate) fn pace(
    started: Instant,
    due: impl IntoIterator<Item = Duration> + Send + 'static,
) -> tokio::sync::mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for due in due {
            let due = started + due;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(due).is_err() {
                return;
            }
        }
    });
    receiver
}
