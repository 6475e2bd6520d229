//! Spans of callbacks, commits, publishes, outcomes and showings, for a collector that speaks OTLP. Off by default; then no
//! span is made.
//!
//! There is one exporter for the process, like the log: [`start`] sets it up. A span is handed over without waiting:
//! if the queue is full, it is dropped and counted. Spans carry no secret, no context, no identity and no text of an approver
//! or a worker.

mod context;
mod exporter;
mod otlp;

use std::{
    borrow::Cow,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use reqwest::{Url, header::HeaderMap};
use tokio::time::timeout;

pub use context::TraceContext;

use super::metrics::Spans;
use context::span_of_command;
use exporter::Exporter;

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where spans are posted: the collector's address with `/v1/traces`.
    pub url: Url,
    /// What the collector wants to see with each request. Marked as sensitive, so that `Debug` does not show the values.
    pub headers: HeaderMap,
    /// Of a hundred traces that start here, so many are recorded. A trace that comes from elsewhere says itself.
    pub sample_percent: u8,
    /// Time limit of one request.
    pub timeout: Duration,
    /// Whether a proxy of the environment is used.
    pub proxied: bool,
}

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

/// Starts to export on the runtime of the caller. Once per process: a later call changes nothing.
///
/// # Errors
/// The client cannot be set up.
pub fn start(settings: &Settings, counters: &Spans) -> Result<(), reqwest::Error> {
    let (exporter, work) = Exporter::new(settings, counters.clone())?;
    if EXPORTER.set(exporter).is_ok() {
        tokio::spawn(work);
    }
    Ok(())
}

/// Sends what waits. Resolves when that is done, or at once if spans are off. No span that is made later is sent for sure.
pub async fn flush() {
    if let Some(exporter) = EXPORTER.get() {
        exporter.flush().await;
    }
}

/// How long a span may keep work that is done from going on.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes spans whose parents are looked up, if spans are on. Those that take more than a second are lost.
pub async fn within_patience(spans: impl Future<Output = ()>) {
    if is_on() {
        timeout(PATIENCE, spans).await.ok();
    }
}

/// Whether spans are made.
#[must_use]
pub fn is_on() -> bool {
    EXPORTER.get().is_some()
}

/// The context that a command gets from its callback: the parent of its publish. `incoming` is the context of the request.
///
/// It follows from the two and the settings alone, so that it is the same after a crash and on every replica.
#[must_use]
pub fn of_callback(incoming: Option<TraceContext>, command_id: &[u8; 16]) -> TraceContext {
    match incoming {
        Some(incoming) if is_on() && incoming.is_sampled() => {
            TraceContext { span_id: span_of_command(command_id), ..incoming }
        }
        Some(incoming) => incoming,
        None => rooted(TraceContext::of_command(command_id)),
    }
}

/// The kind of a span, with its number in OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A step within this process.
    Internal = 1,
    /// It answers a request.
    Server = 2,
    /// It makes a request.
    Client = 3,
    /// It sends a message.
    Producer = 4,
    /// It takes a message.
    Consumer = 5,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A yes or a no.
    Flag(bool),
    /// A number.
    Number(i64),
}

/// A step of a trace. It is handed over by [`Span::end`]; one that is dropped never was.
#[must_use]
#[derive(Debug, Clone)]
pub struct Span {
    name: Cow<'static, str>,
    kind: Kind,
    context: TraceContext,
    parent: Option<[u8; 8]>,
    began: SystemTime,
    ended: SystemTime,
    attributes: Vec<(&'static str, Value)>,
    failed: bool,
}

impl Span {
    /// A span that begins now, below another one. `None` if spans are off, or if the trace is not recorded.
    pub fn below(parent: TraceContext, kind: Kind, name: impl Into<Cow<'static, str>>) -> Option<Self> {
        if !is_on() || !parent.is_sampled() {
            return None;
        }
        let context = TraceContext { span_id: random(), ..parent };
        Some(Self::new(context, Some(parent.span_id), kind, name.into()))
    }

    /// The span of a request: of a callback, if it made a command with this id. `None` as with [`Self::below`].
    pub fn of_request(
        incoming: Option<TraceContext>,
        command_id: Option<&[u8; 16]>,
        name: impl Into<Cow<'static, str>>,
    ) -> Option<Self> {
        if !is_on() {
            return None;
        }
        let span_id = command_id.map_or_else(random, span_of_command);
        let context = match incoming {
            Some(incoming) => TraceContext { span_id, ..incoming },
            None => {
                let trace_id = command_id.copied().unwrap_or_else(random);
                rooted(TraceContext { trace_id, span_id, flags: 0 })
            }
        };
        let parent = incoming.map(|incoming| incoming.span_id);
        context.is_sampled().then(|| Self::new(context, parent, Kind::Server, name.into()))
    }

    fn new(context: TraceContext, parent: Option<[u8; 8]>, kind: Kind, name: Cow<'static, str>) -> Self {
        let now = SystemTime::now();
        let attributes = Vec::with_capacity(10);
        Self { name, kind, context, parent, began: now, ended: now, attributes, failed: false }
    }

    /// It began so long ago.
    pub fn for_the_last(mut self, took: Duration) -> Self {
        self.began = self.ended.checked_sub(took).unwrap_or(self.ended);
        self
    }

    /// Adds an attribute.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// Marks it as failed, with a word of a closed list.
    pub fn failed(mut self, word: &'static str) -> Self {
        self.failed = true;
        self.with("error.type", word)
    }

    /// The context that goes with a message of this span.
    #[must_use]
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// It ends now. Handed over without waiting; dropped and counted if there is no room.
    pub fn end(mut self) {
        self.ended = SystemTime::now().max(self.began);
        if let Some(exporter) = EXPORTER.get() {
            exporter.take(self);
        }
    }
}

/// Decides whether a trace that starts here is recorded.
fn rooted(context: TraceContext) -> TraceContext {
    context.sampled(EXPORTER.get().is_some_and(|exporter| exporter.samples(&context.trace_id)))
}

/// Not zero, which means "none".
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness from the system nothing else of the service works; ids that repeat only mix up spans.
    getrandom::fill(&mut bytes).ok();
    bytes[N - 1] |= u8::from(bytes == [0; N]);
    bytes
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}
