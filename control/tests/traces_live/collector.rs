//! A collector that keeps what it is sent, read by the protocol's own types.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message;
use tokio::net::TcpListener;

use super::house::SOON;

/// A span as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) span: String,
    /// Empty where there is none.
    pub(crate) parent: String,
    /// Unix time, nanoseconds.
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) error: Option<String>,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Seen {
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

#[derive(Clone)]
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    headers: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let collector = Self { address, seen: Arc::default(), headers: Arc::default() };
        let theirs = collector.clone();
        let take = async move |headers: HeaderMap, body: Bytes| {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            theirs.headers.lock().expect("not poisoned").push(headers);
            let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
            theirs.seen.lock().expect("not poisoned").extend(read(request));
            StatusCode::OK
        };
        let router = axum::Router::new().route("/v1/traces", axum::routing::post(take));
        tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        collector
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    pub(crate) fn headers(&self) -> Vec<HeaderMap> {
        self.headers.lock().expect("not poisoned").clone()
    }

    /// Waits until so many spans of each name have come, and gives all by name, in the order of their beginnings.
    pub(crate) async fn until(&self, counts: &[(&str, usize)]) -> BTreeMap<String, Vec<Seen>> {
        let until = tokio::time::Instant::now() + SOON;
        loop {
            let mut by_name: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
            for span in self.seen() {
                by_name.entry(span.name.clone()).or_default().push(span);
            }
            for spans in by_name.values_mut() {
                spans.sort_by_key(|span| span.began);
            }
            if counts.iter().all(|(name, count)| by_name.get(*name).is_some_and(|all| all.len() >= *count)) {
                for (name, count) in counts {
                    assert_eq!(by_name[*name].len(), *count, "{name}: {by_name:#?}");
                }
                assert_eq!(by_name.len(), counts.len(), "{by_name:#?}");
                return by_name;
            }
            assert!(tokio::time::Instant::now() < until, "not all came: {by_name:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn read(request: ExportTraceServiceRequest) -> Vec<Seen> {
    let mut seen = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = texts(resource_spans.resource.map(|found| found.attributes).unwrap_or_default());
        for span in resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let status = span.status.unwrap_or_default();
            seen.push(Seen {
                resource: resource.clone(),
                name: span.name,
                trace: hex(&span.trace_id),
                span: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                began: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
                error: (status.code == SpanStatus::Error as i32).then_some(status.message),
                attributes: texts(span.attributes),
            });
        }
    }
    seen
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    };
    attributes.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}
