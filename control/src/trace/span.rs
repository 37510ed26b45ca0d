//! A finished span, and its form in the SDK.

use std::time::SystemTime;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::context::TraceContext;

/// Longest text of an attribute or status, bytes: what others wrote must not fill the queue.
const TEXT_BYTES_MAX: usize = 256;

/// A span that is over.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Its own name in the trace.
    pub(crate) own: TraceContext,
    /// The span that it hangs at; 0 is none.
    pub(crate) parent: u64,
    /// Whether that one belongs to another process.
    pub(crate) is_parent_remote: bool,
    pub(crate) name: &'static str,
    pub(crate) kind: SpanKind,
    pub(crate) began: SystemTime,
    pub(crate) ended: SystemTime,
    /// What went wrong, if anything did.
    pub(crate) error: Option<String>,
    pub(crate) attributes: Vec<KeyValue>,
}

/// An attribute of ours.
pub(crate) fn attribute(name: &'static str, value: impl Into<Value>) -> KeyValue {
    KeyValue::new(name, value)
}

/// A text of bounded length as an attribute.
pub(crate) fn text(name: &'static str, text: &str) -> KeyValue {
    KeyValue::new(name, cut(text).to_owned())
}

fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

impl Span {
    pub(crate) fn into_data(self, scope: InstrumentationScope) -> SpanData {
        let (trace, own) = (TraceId::from(self.own.trace), SpanId::from(self.own.span));
        SpanData {
            span_context: SpanContext::new(trace, own, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: SpanId::from(self.parent),
            parent_span_is_remote: self.is_parent_remote,
            span_kind: self.kind,
            name: self.name.into(),
            start_time: self.began,
            // Clocks that were set back make no span that ends before it begins.
            end_time: self.ended.max(self.began),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: match self.error {
                Some(why) => Status::error(cut(&why).to_owned()),
                None => Status::Unset,
            },
            instrumentation_scope: scope,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn texts_are_cut_between_letters() {
        assert_eq!(cut("short"), "short");
        let long = "é".repeat(TEXT_BYTES_MAX);
        assert_eq!(cut(&long).len(), TEXT_BYTES_MAX);
        assert_eq!(cut(&format!("x{long}")).len(), TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn span_never_ends_before_it_begins() {
        let at = |s| UNIX_EPOCH + Duration::from_secs(s);
        let span = Span {
            own: TraceContext { trace: 1, span: 2, is_sampled: true },
            parent: 3,
            is_parent_remote: false,
            name: "queue",
            kind: SpanKind::Internal,
            began: at(10),
            ended: at(9),
            error: None,
            attributes: Vec::new(),
        };
        let data = span.into_data(InstrumentationScope::default());
        assert_eq!((data.start_time, data.end_time), (at(10), at(10)));
    }
}
