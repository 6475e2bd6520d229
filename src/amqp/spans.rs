//! Spans of publishes and deliveries, by OpenTelemetry's conventions for messaging with RabbitMQ.

use lapin::{message::Delivery, types::AMQPValue};

use super::window::Answer;
use crate::{
    command::message::Envelope,
    telemetry::traces::{self, Kind, Span, TraceContext},
};

/// The span of one publish, ended by the broker's answer. If there is none, because the session is over, it ends as failed
/// when it is dropped.
pub(super) struct Publishing(Option<Span>);

impl Publishing {
    /// Below the callback's span, also after a restart and on another replica.
    pub(super) fn of(envelope: &Envelope, exchange: &str, body_bytes: usize) -> Self {
        if !traces::is_on() {
            return Self(None);
        }
        let span = Span::below(envelope.trace(), Kind::Producer, format!("publish {exchange}"));
        let Some(span) = span else { return Self(None) };
        let id = envelope.command_id.to_string();
        Self(Some(
            span.with("messaging.system", "rabbitmq")
                .with("messaging.operation.type", "send")
                .with("messaging.operation.name", "publish")
                .with("messaging.destination.name", exchange.to_owned())
                .with("messaging.rabbitmq.destination.routing_key", envelope.routing_key())
                .with("messaging.message.id", id.clone())
                .with("messaging.message.body.size", body_bytes)
                .with("countersign.endpoint", envelope.endpoint.to_string())
                .with("countersign.command_id", id),
        ))
    }

    /// What the message carries, so that the worker's spans come below this one.
    pub(super) fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(Span::context)
    }

    pub(super) fn end(mut self, answer: &Answer) {
        let Some(span) = self.0.take() else { return };
        match answer {
            Answer { returned: Some(_), .. } => span.failed("returned").end(),
            Answer { ack: false, .. } => span.failed("nacked").end(),
            Answer { .. } => span.end(),
        }
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            span.failed("unanswered").end();
        }
    }
}

/// The trace that a message says it belongs to. A broken header is none.
#[must_use]
pub fn trace_of(delivery: &Delivery) -> Option<TraceContext> {
    let headers = delivery.properties.headers().as_ref()?;
    match headers.inner().get("traceparent")? {
        AMQPValue::LongString(text) => TraceContext::parse(std::str::from_utf8(text.as_bytes()).ok()?),
        AMQPValue::ShortString(text) => TraceContext::parse(text.as_str()),
        _ => None,
    }
}
