//! A collector of spans, played by the test: it takes OTLP over HTTP and reads it with OpenTelemetry's own types.

use super::eventually;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A span as the collector has it; ids in hexadecimal digits.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) kind: i32,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for a root.
    pub(crate) parent: String,
    pub(crate) failed: bool,
    pub(crate) attributes: BTreeMap<String, String>,
}

#[derive(Default)]
struct Kept {
    heads: Vec<String>,
    bytes: Vec<u8>,
    spans: Vec<Seen>,
    resource: BTreeMap<String, String>,
}

pub(crate) struct Collector {
    pub(crate) url: String,
    kept: Arc<Mutex<Kept>>,
    task: tokio::task::JoinHandle<()>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::with(true).await
    }

    /// Takes connections and requests, and never answers.
    pub(crate) async fn silent() -> Self {
        Self::with(false).await
    }

    async fn with(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let kept = Arc::<Mutex<Kept>>::default();
        let shared = kept.clone();
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                if answers {
                    tokio::spawn(serve(stream, shared.clone()));
                } else {
                    open.push(stream);
                }
            }
        });
        Self { url, kept, task }
    }

    fn kept<T>(&self, of: impl FnOnce(&Kept) -> T) -> T {
        of(&self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn spans(&self) -> Vec<Seen> {
        self.kept(|kept| kept.spans.clone())
    }

    /// What says whose spans they are.
    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        self.kept(|kept| kept.resource.clone())
    }

    /// The heads of all requests.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.kept(|kept| kept.heads.clone())
    }

    /// Everything that came, as text.
    pub(crate) fn everything(&self) -> String {
        self.kept(|kept| String::from_utf8_lossy(&kept.bytes).into_owned())
    }

    /// Waits for the only span of this name with this attribute.
    pub(crate) async fn one(&self, name: &str, (key, value): (&str, &str)) -> Seen {
        eventually(&format!("one span {name} with {key}={value}"), async || {
            let mut spans = self.spans();
            let mut fitting = spans.extract_if(.., |span| {
                span.name == name && span.attributes.get(key).is_some_and(|found| found == value)
            });
            match (fitting.next(), fitting.next()) {
                (Some(only), None) => Ok(only),
                _ => Err(self.spans()),
            }
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, kept: Arc<Mutex<Kept>>) {
    let mut buffer = Vec::new();
    loop {
        let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            match stream.read_buf(&mut buffer).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.expect("a length").trim().parse().expect("a number");
        while buffer.len() < end + 4 + length {
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
        let body: Vec<u8> = buffer.drain(..end + 4 + length).skip(end + 4).collect();
        let export = ExportTraceServiceRequest::decode(&*body).expect("OTLP");
        {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.heads.push(head);
            kept.bytes.extend(body);
            for of in export.resource_spans {
                kept.resource = pairs(of.resource.expect("a resource").attributes);
                kept.spans.extend(of.scope_spans.into_iter().flat_map(|of| of.spans).map(Seen::from));
            }
        }
        let answer = ExportTraceServiceResponse::default().encode_to_vec();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        if stream.write_all(&[head.as_bytes(), &answer].concat()).await.is_err() {
            return;
        }
    }
}

impl From<Span> for Seen {
    fn from(span: Span) -> Self {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(
            span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano,
            "{span:?}"
        );
        Self {
            name: span.name,
            kind: span.kind,
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            failed: span.status.is_some_and(|status| status.code == 2),
            attributes: pairs(span.attributes),
        }
    }
}

fn pairs(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("no attribute is {other:?}"),
    };
    attributes.into_iter().map(|pair| (pair.key, text(pair.value.and_then(|value| value.value)))).collect()
}
