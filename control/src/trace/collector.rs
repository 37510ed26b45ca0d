//! The way to the collector: OTLP over HTTP, protobuf, with this crate's own HTTP client.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::{Key, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, ResponseBodyTooLarge};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;

use super::TraceError;
use super::settings::TraceSettings;
use crate::worker::plain_client;

/// One request, from the connection to the last byte of the answer.
const REQUEST_FOR: Duration = Duration::from_secs(10);

/// Longest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

const SERVICE_NAME: Key = Key::from_static_str("service.name");

/// What the collector's last failure was, for the log: the exporter's own errors do not say.
pub(crate) type LastFailure = Arc<Mutex<String>>;

/// An exporter to the collector that the settings or the environment name, as `service` where the environment gives no
/// other name.
pub(crate) fn exporter(
    settings: &TraceSettings,
    service: &'static str,
) -> Result<(SpanExporter, LastFailure), TraceError> {
    let wrong = |error: &dyn std::fmt::Display| TraceError(error.to_string());
    let failure = LastFailure::default();
    let client = plain_client().map_err(|error| wrong(&error))?;
    let courier = Courier { client, failure: failure.clone() };
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_http_client(courier)
        .with_protocol(Protocol::HttpBinary)
        .with_retry_policy(RetryPolicy::recommended());
    if let Some(endpoint) = settings.endpoint() {
        let url = reqwest::Url::parse(&endpoint).map_err(|error| wrong(&format!("`{endpoint}`: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(&format!("`{endpoint}` is neither http nor https")));
        }
        builder = builder.with_endpoint(endpoint);
    }
    let mut exporter = builder.build().map_err(|error| wrong(&error))?;
    exporter.set_resource(&resource(service));
    Ok((exporter, failure))
}

fn resource(service: &'static str) -> Resource {
    let found = Resource::builder().build();
    let given = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let listed = || found.get(&SERVICE_NAME).map(|name| name.as_str().into_owned());
    let listed = || listed().filter(|name| !name.starts_with("unknown_service"));
    let name = given.or_else(listed).unwrap_or_else(|| service.to_owned());
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = Resource::builder_empty().with_attribute(version);
    let others = found.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    builder.with_attributes(others).with_service_name(name).build()
}

/// Carries requests.
#[derive(Debug)]
struct Courier {
    client: reqwest::Client,
    failure: LastFailure,
}

#[async_trait::async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.carry(request).await;
        let failure = match &answer {
            Ok(answer) if answer.status().is_success() => return Ok(answer.clone()),
            Ok(answer) => format!("it answered {}", answer.status()),
            Err(error) => causes(error.as_ref()),
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        answer
    }
}

impl Courier {
    async fn carry(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let request = self.client.request(parts.method, parts.uri.to_string()).headers(parts.headers);
        let request = request.timeout(REQUEST_FOR).body(body);
        // Without the URL, which may hold a token.
        let mut answer = request.send().await.map_err(reqwest::Error::without_url)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Box::new(ResponseBodyTooLarge::new()));
            }
            bytes.extend_from_slice(&chunk);
        }
        let mut response = Response::new(Bytes::from(bytes));
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        Ok(response)
    }
}

fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
