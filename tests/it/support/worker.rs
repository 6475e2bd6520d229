//! A consumer as a third-party system runs one: manual acknowledgement, one message after the other.

use super::{Vhost, eventually};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A message as it came from the queue.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

impl From<Delivery> for Message {
    fn from(delivery: Delivery) -> Self {
        Self {
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            properties: delivery.properties,
            body: delivery.data,
        }
    }
}

impl Message {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a command is JSON")
    }

    /// The `message_id` property; empty when there is none.
    pub(crate) fn message_id(&self) -> String {
        self.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// A header, which must be there and a string.
    pub(crate) fn header(&self, name: &str) -> String {
        let table = self.properties.headers().as_ref().expect("headers").inner();
        match table.get(name) {
            Some(AMQPValue::LongString(text)) => text.to_string(),
            other => panic!("the header {name}: {other:?}, of {table:?}"),
        }
    }

    /// The headers, all of which must be strings.
    pub(crate) fn headers(&self) -> BTreeMap<String, String> {
        let table = self.properties.headers().clone().unwrap_or_default();
        let text = |value: &AMQPValue| match value {
            AMQPValue::LongString(text) => text.to_string(),
            other => panic!("a header that is not a string: {other:?}"),
        };
        table.inner().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }
}

/// Consumes one queue until it is dropped, through any loss of the broker, and keeps what came.
pub(crate) struct Worker {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    messages: Vec<Message>,
    /// How often each `message_id` came.
    counts: BTreeMap<String, usize>,
}

impl Worker {
    /// Consumes `countersign.commands` as soon as it exists.
    pub(crate) fn on(vhost: &Vhost) -> Self {
        Self::on_queue(vhost, "countersign.commands")
    }

    /// Consumes another queue as soon as it exists.
    pub(crate) fn on_queue(vhost: &Vhost, queue: &str) -> Self {
        Self::at(vhost.url(), queue)
    }

    /// Consumes a queue of the broker at this URL.
    pub(crate) fn at(url: &str, queue: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(consume_for_ever(url.to_owned(), queue.to_owned(), Arc::clone(&seen)));
        Self { seen, task }
    }

    /// Everything that came so far, redeliveries included.
    pub(crate) fn seen(&self) -> Vec<Message> {
        self.look().messages.clone()
    }

    /// How many messages came so far.
    pub(crate) fn count(&self) -> usize {
        self.look().messages.len()
    }

    fn look(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until at least `count` messages came and returns all that did.
    pub(crate) async fn messages(&self, count: usize) -> Vec<Message> {
        eventually(&format!("{count} messages in the queue"), async || {
            let came = self.count();
            if came >= count { Ok(()) } else { Err(format!("{came} messages")) }
        })
        .await;
        self.seen()
    }

    /// Waits for the message of one command.
    pub(crate) async fn command(&self, command_id: &str) -> Message {
        eventually(&format!("command {command_id} in the queue"), async || {
            let seen = self.look();
            let found = seen.messages.iter().find(|message| message.message_id() == command_id).cloned();
            found.ok_or_else(|| seen.counts.keys().cloned().collect::<Vec<_>>())
        })
        .await
    }

    /// Waits until every one of these commands came, and returns how often each id came at all.
    pub(crate) async fn commands(&self, wanted: &BTreeSet<String>) -> BTreeMap<String, usize> {
        eventually(&format!("all of {} commands in the queue", wanted.len()), async || {
            let seen = self.look();
            let missing = wanted.iter().filter(|id| !seen.counts.contains_key(*id)).count();
            if missing == 0 { Ok(seen.counts.clone()) } else { Err(format!("{missing} missing")) }
        })
        .await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn consume_for_ever(url: String, queue: String, seen: Arc<Mutex<Seen>>) {
    loop {
        // Why it ended does not matter: the broker was stopped, or the queue is not there yet. Whoever waits for
        // a message bounds the waiting.
        drop(consume(&url, &queue, &seen).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every step has a bound of its own: lapin's `ack`, for one, never resolves when the connection ends under it, and a
/// worker that hangs would look like a lost message.
async fn consume(url: &str, queue: &str, seen: &Mutex<Seen>) -> Result<(), Ended> {
    let connection = step(Connection::connect(url, ConnectionProperties::default())).await?;
    let channel = step(connection.create_channel()).await?;
    step(channel.basic_qos(500, BasicQosOptions::default())).await?;
    let (tag, options) = ("worker".into(), BasicConsumeOptions::default());
    let consuming = channel.basic_consume(queue.into(), tag, options, FieldTable::default());
    let mut deliveries = step(consuming).await?;
    loop {
        let delivery = match timeout(STEP, deliveries.next()).await {
            Ok(Some(delivery)) => delivery?,
            Ok(None) => return Ok(()),
            Err(_) if connection.status().connected() && channel.status().connected() => continue,
            Err(_) => return Err(Ended),
        };
        let acker = delivery.acker.clone();
        let message = Message::from(delivery);
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen.counts.entry(message.message_id()).or_default() += 1;
            seen.messages.push(message);
        }
        step(acker.ack(BasicAckOptions::default())).await?;
    }
}

/// Why a session with the broker ended is nobody's question; that it did is.
struct Ended;

impl From<lapin::Error> for Ended {
    fn from(_: lapin::Error) -> Self {
        Self
    }
}

/// Far above what any step takes.
const STEP: Duration = Duration::from_secs(5);

async fn step<T>(step: impl Future<Output = lapin::Result<T>>) -> Result<T, Ended> {
    Ok(timeout(STEP, step).await.map_err(|_| Ended)??)
}
