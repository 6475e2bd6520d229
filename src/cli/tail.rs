//! `tail`: follows the commands.

use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    block_on,
    exit::{Exit, Failure},
    output::{json, say},
};
use crate::{
    amqp::{
        self, Settings, listen_in,
        signing::{Signed, SigningKey, check},
    },
    config::Loaded,
};

/// Timeout for immediate answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prefetch for slow terminals: enough to keep a fast one busy, while bounding memory.
const PREFETCH: u16 = 256;

const EXAMPLES: &str = "\
Examples:
  countersign tail                                    all commands from now on
  countersign tail --binding 'approval.purchase.#'    of one endpoint
  countersign tail --binding 'approval.*.*.reject'    only rejections
  countersign tail --count 1 | jq                     wait for one command and exit

Prints `ready` on stderr once it is subscribed. Takes nothing from the consumers: it has a queue of
its own, which RabbitMQ deletes when the command exits. Exits with 69 if the broker is unavailable.

Where commands are signed ([amqp.signing]) it checks the signatures, by the keys of this configuration:
--headers shows `signature`, which is valid, invalid or none; what is not valid is told on stderr.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Binding key, in the syntax of topic exchanges; may be repeated
    #[arg(long, value_name = "PATTERN", default_value = "#")]
    binding: Vec<String>,
    /// Print an object with routing_key, properties, headers, signature and body instead of the body alone
    #[arg(long)]
    headers: bool,
    /// Exit after this many commands
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub(super) fn run(arguments: &Arguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let amqp = &loaded.amqp()?.broker;
    block_on(async {
        let listening =
            listen_in(amqp, "countersign tail").await.map_err(|error| Failure::Unavailable(error.into()))?;
        let followed = tokio::select! {
            followed = follow(arguments, amqp, &listening) => followed,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot wait for Ctrl-C").map(|()| Exit::Done).map_err(Failure::Failed)
            }
        };
        // An unanswered close changes nothing: the queue is deleted with the connection.
        listening.close("tail has ended").await;
        followed
    })
}

async fn follow(
    arguments: &Arguments,
    amqp: &Settings,
    connection: &amqp::Listening,
) -> Result<Exit, Failure> {
    let listening = Listening { exchange: &amqp.exchange, bindings: &arguments.binding, acks: true };
    let mut consumer = subscribe_soon(&listening, connection).await?;
    say("ready");
    let mut seen = 0;
    while arguments.count.is_none_or(|count| seen < count) {
        let delivery = match consumer.next().await {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => {
                return Err(Failure::Unavailable(
                    anyhow::Error::new(error).context("the broker closed the connection"),
                ));
            }
            None => return Err(Failure::Unavailable(anyhow!("the broker ended the subscription"))),
        };
        print(&delivery, arguments.headers, signature(&delivery, &amqp.signing))?;
        seen += 1;
        // lapin may never answer if the connection ends at this moment.
        let acked = tokio::time::timeout(PATIENCE, delivery.acker.ack(BasicAckOptions::default())).await;
        acked
            .map_err(anyhow::Error::new)
            .and_then(|acked| acked.map_err(anyhow::Error::new))
            .context("the broker closed the connection")
            .map_err(Failure::Unavailable)?;
    }
    Ok(Exit::Done)
}

/// A subscription through an exclusive queue.
pub(super) struct Listening<'a> {
    pub(super) exchange: &'a str,
    /// Routing key patterns.
    pub(super) bindings: &'a [String],
    /// False to consume without acknowledgements, so that a slow reader does not hold up the broker.
    pub(super) acks: bool,
}

/// Subscribes to the exchange, and waits briefly if it is missing: `serve` declares it after connecting to the
/// broker, and may have been started only a moment ago.
pub(super) async fn subscribe_soon(
    listening: &Listening<'_>,
    connection: &amqp::Listening,
) -> Result<Consumer, Failure> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        let channel =
            connection.channel().await.context("cannot open a channel").map_err(Failure::Unavailable)?;
        let error = match subscribe(listening, &channel).await {
            Ok(consumer) => return Ok(consumer),
            Err(error) => error,
        };
        let missing = matches!(error.kind(), lapin::ErrorKind::ProtocolError(error) if error.get_id() == 404);
        if !missing || tokio::time::Instant::now() >= deadline {
            let cause = anyhow::Error::new(error).context(format!(
                "cannot subscribe to the exchange {:?}; `countersign serve` declares it if topology = \"declare\"",
                listening.exchange
            ));
            return Err(if missing { Failure::Failed(cause) } else { Failure::Unavailable(cause) });
        }
        if !std::mem::replace(&mut told, true) {
            say(format_args!("waiting for the exchange {:?}", listening.exchange));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn subscribe(listening: &Listening<'_>, channel: &Channel) -> lapin::Result<Consumer> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    // Named by the broker, exclusive to this connection, deleted with it.
    let options =
        QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
    for binding in listening.bindings {
        channel
            .queue_bind(
                queue.name().clone(),
                listening.exchange.into(),
                binding.as_str().into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
    }
    channel
        .basic_consume(
            queue.name().clone(),
            "".into(),
            BasicConsumeOptions {
                exclusive: true,
                no_ack: !listening.acks,
                ..BasicConsumeOptions::default()
            },
            FieldTable::default(),
        )
        .await
}

/// `None` if commands are not signed.
fn signature(delivery: &Delivery, keys: &[SigningKey]) -> Option<Signed> {
    let headers = delivery.properties.headers().as_ref();
    let header = |name: &str| match headers?.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        _ => None,
    };
    (!keys.is_empty()).then(|| check(keys, header, &delivery.data))
}

fn print(delivery: &Delivery, headers: bool, signature: Option<Signed>) -> Result<(), Failure> {
    let body = body(&delivery.data);
    let properties = &delivery.properties;
    let signature: Option<&'static str> = signature.map(Into::into);
    if let Some(state @ ("invalid" | "none")) = signature {
        let id = text_of(properties.message_id()).unwrap_or_default();
        say(format_args!("signature {state}: message_id {id:?}"));
    }
    if !headers {
        return json(&body);
    }
    let headers = headers_of(delivery);
    json(&Described {
        routing_key: delivery.routing_key.as_str(),
        redelivered: delivery.redelivered,
        properties: json!({
            "message_id": text_of(properties.message_id()),
            "type": text_of(properties.kind()),
            "content_type": text_of(properties.content_type()),
            "content_encoding": text_of(properties.content_encoding()),
            "delivery_mode": properties.delivery_mode(),
            "timestamp": properties.timestamp(),
            "app_id": text_of(properties.app_id()),
            "correlation_id": text_of(properties.correlation_id()),
        }),
        headers,
        signature,
        body: &body,
    })
}

#[derive(Serialize)]
struct Described<'a> {
    routing_key: &'a str,
    redelivered: bool,
    properties: Value,
    headers: Map<String, Value>,
    /// `None` if commands are not signed.
    signature: Option<&'static str>,
    /// Raw: keeps digits and member order.
    body: &'a RawValue,
}

/// The headers of a message as JSON.
pub(super) fn headers_of(delivery: &Delivery) -> Map<String, Value> {
    delivery.properties.headers().as_ref().map_or_else(Map::new, |table| {
        table.inner().iter().map(|(name, value)| (name.to_string(), value_of(value))).collect()
    })
}

fn text_of(property: &Option<ShortString>) -> Option<&str> {
    property.as_ref().map(ShortString::as_str)
}

/// A header as JSON. countersign's own are texts; other publishers may use any type.
fn value_of(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::Boolean(value) => (*value).into(),
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}

/// The body on one line: unchanged if it is JSON, else as a text. A line break in JSON is never within a string.
fn body(data: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(data);
    RawValue::from_string(text.replace(['\n', '\r'], " "))
        .ok()
        .filter(|_| !text.trim().is_empty())
        .map_or_else(|| RawValue::from_string(Value::from(&*text).to_string()), Ok)
        .expect("a JSON text is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_line_of_json_whatever_came() {
        for (data, shown) in [
            (&b"{\"b\":1.50,\"a\":12345678901234567890}"[..], "{\"b\":1.50,\"a\":12345678901234567890}"),
            (b"{\n  \"a\": 1\n}", "{   \"a\": 1 }"),
            (b"not json", "\"not json\""),
            (b"two\nlines", "\"two\\nlines\""),
            (b"", "\"\""),
            (b"\xff", "\"\u{fffd}\""),
        ] {
            assert_eq!(body(data).get(), shown);
        }
    }
}
