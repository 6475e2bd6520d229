//! The messages of OTLP that carry spans (opentelemetry-proto, `trace/v1/trace.proto`), as far as they are used.
//!
//! Written by hand, because the crate with the generated ones brings OpenTelemetry's whole SDK along; the tests read them with
//! that crate.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::{Message, Oneof};

use super::{Span, Value};

/// The conventions by which the attributes are named.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<SpanMessage>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct SpanMessage {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

/// `STATUS_CODE_ERROR`
const ERROR: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "One", tags = "1, 2, 3")]
    value: Option<One>,
}

#[derive(Clone, PartialEq, Oneof)]
enum One {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// The collector's answer.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
}

impl Request {
    /// One message for all spans; `instance` tells replicas apart.
    pub(super) fn of(spans: Vec<Span>, instance: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let of_process = [
            ("service.name", Value::from("countersign")),
            ("service.version", Value::from(version)),
            ("service.instance.id", Value::from(instance.to_owned())),
        ];
        let scope_spans = ScopeSpans {
            scope: Some(Scope { name: "countersign".to_owned(), version: version.to_owned() }),
            spans: spans.into_iter().map(message).collect(),
            schema_url: SCHEMA_URL.to_owned(),
        };
        let resource = Resource { attributes: of_process.into_iter().map(pair).collect() };
        let schema_url = SCHEMA_URL.to_owned();
        Self {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource),
                scope_spans: vec![scope_spans],
                schema_url,
            }],
        }
    }
}

fn message(span: Span) -> SpanMessage {
    let Span { name, kind, context, parent, began, ended, attributes, failed } = span;
    SpanMessage {
        trace_id: context.trace_id.to_vec(),
        span_id: context.span_id.to_vec(),
        parent_span_id: parent.map(Vec::from).unwrap_or_default(),
        name: name.into_owned(),
        kind: kind as i32,
        start_time_unix_nano: nanos(began),
        end_time_unix_nano: nanos(ended),
        attributes: attributes.into_iter().map(pair).collect(),
        status: failed.then_some(Status { code: ERROR }),
        flags: u32::from(context.flags),
    }
}

fn pair((key, value): (&'static str, Value)) -> KeyValue {
    let value = match value {
        Value::Text(text) => One::Text(text.into_owned()),
        Value::Flag(flag) => One::Flag(flag),
        Value::Number(number) => One::Number(number),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
