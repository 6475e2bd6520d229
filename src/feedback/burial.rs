//! Dead-letters reports, with the reason in a header.
//!
//! The broker dead-letters rejected messages too, but without our reason. So a copy with the reason is published to the
//! dead-letter exchange, and the message is acknowledged once the broker has the copy. If that fails (no such exchange,
//! no permission, no room), the message is rejected and dead-lettered without the reason, which is in the log.

use std::sync::Arc;

use lapin::{
    BasicProperties, Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use tracing::warn;

use crate::{
    amqp::{Listening, topology::DEAD},
    telemetry::log::chain,
};

/// The header with the reason.
pub(super) const REASON: &str = "countersign-refused";

/// `delivery_mode`: written to disk before it is confirmed.
const PERSISTENT: u8 = 2;

/// All headers together must fit into one frame.
const REASON_CHARS: usize = 1000;

/// Publishes dead letters on one connection.
pub(super) struct Burial {
    listening: Arc<Listening>,
    channel: Option<Channel>,
    /// Whether publishing failed. It is not retried on this connection, since the broker logs each attempt.
    closed: bool,
}

impl Burial {
    pub(super) fn new(listening: Arc<Listening>) -> Self {
        Self { listening, channel: None, closed: false }
    }

    pub(super) async fn bury(&mut self, delivery: &Delivery, reason: &str) -> lapin::Result<()> {
        if !self.closed {
            match self.publish(delivery, reason).await {
                Ok(true) => return delivery.acker.ack(BasicAckOptions::default()).await.map(drop),
                Ok(false) => self.give_up("the broker rejected it"),
                Err(error) => self.give_up(&chain(&error)),
            }
        }
        delivery.acker.reject(BasicRejectOptions { requeue: false }).await.map(drop)
    }

    fn give_up(&mut self, cause: &str) {
        (self.closed, self.channel) = (true, None);
        warn!(
            error = cause,
            exchange = DEAD,
            "cannot attach the reason to a dead letter; rejecting the report without it"
        );
    }

    /// True if the broker has the copy in a queue.
    async fn publish(&mut self, delivery: &Delivery, reason: &str) -> lapin::Result<bool> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.listening.channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                self.channel.insert(channel).clone()
            }
        };
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (routing_key, properties) = (delivery.routing_key.clone(), copied(&delivery.properties, reason));
        let confirm =
            channel.basic_publish(DEAD.into(), routing_key, options, &delivery.data, properties).await?;
        let confirmation = confirm.await?;
        let acknowledged = confirmation.is_ack();
        Ok(acknowledged && confirmation.take_message().is_none())
    }
}

/// The message's properties, with the reason. Omits `user_id`, which the broker would compare with ours, and
/// `expiration`, since dead letters must not expire. Omits the broker's headers too: its own (`x-`), and further
/// routing keys (`CC`, `BCC`), which it would follow with our permissions.
fn copied(properties: &BasicProperties, reason: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(|headers| headers.inner()) {
        if !name.as_str().starts_with("x-") && !matches!(name.as_str(), "CC" | "BCC") {
            headers.insert(name.clone(), value.clone());
        }
    }
    let reason: String = reason.chars().take(REASON_CHARS).collect();
    headers.insert(REASON.into(), AMQPValue::LongString(reason.into()));
    let mut copy = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
    if let Some(value) = properties.message_id() {
        copy = copy.with_message_id(value.clone());
    }
    if let Some(value) = properties.correlation_id() {
        copy = copy.with_correlation_id(value.clone());
    }
    if let Some(value) = properties.content_type() {
        copy = copy.with_content_type(value.clone());
    }
    if let Some(value) = properties.content_encoding() {
        copy = copy.with_content_encoding(value.clone());
    }
    if let Some(value) = properties.kind() {
        copy = copy.with_type(value.clone());
    }
    if let Some(value) = properties.app_id() {
        copy = copy.with_app_id(value.clone());
    }
    if let Some(value) = properties.timestamp() {
        copy = copy.with_timestamp(*value);
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_what_the_message_said_and_why_it_was_refused() {
        let mut headers = FieldTable::default();
        headers.insert("worker".into(), AMQPValue::LongString("w1".into()));
        for of_the_broker in ["CC", "BCC", "x-delivery-count"] {
            headers.insert(of_the_broker.into(), AMQPValue::LongLongInt(0));
        }
        let properties = BasicProperties::default()
            .with_message_id("m".into())
            .with_type("approval.outcome.v1".into())
            .with_user_id("somebody".into())
            .with_expiration("1".into())
            .with_headers(headers);
        let copy = copied(&properties, &"长".repeat(2000));
        assert_eq!((copy.message_id(), copy.kind()), (properties.message_id(), properties.kind()));
        assert_eq!((copy.user_id(), copy.expiration(), *copy.delivery_mode()), (&None, &None, Some(2)));
        let headers = copy.headers().as_ref().unwrap().inner();
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert_eq!(headers.get("worker"), Some(&AMQPValue::LongString("w1".into())));
        assert_eq!(headers.get(REASON), Some(&AMQPValue::LongString("长".repeat(1000).into())));
    }
}
