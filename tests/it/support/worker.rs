//! A consumer like that of a third-party system: manual acknowledgement, one message at a time.

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
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a command is JSON")
    }

    /// The `message_id` property; empty if absent.
    pub(crate) fn message_id(&self) -> String {
        self.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// The value of a header, which must exist and be a string.
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

/// Consumes one queue until dropped, across any broker outage, and keeps the messages.
pub(crate) struct Worker {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    messages: Vec<Message>,
    /// The number of deliveries per `message_id`.
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

    /// All messages so far, including redeliveries.
    pub(crate) fn seen(&self) -> Vec<Message> {
        self.look().messages.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.look().messages.len()
    }

    /// [`Worker::count`], for a task that may outlive the worker.
    pub(crate) fn counter(&self) -> impl Fn() -> usize + Send + use<> {
        let seen = Arc::clone(&self.seen);
        move || seen.lock().unwrap_or_else(PoisonError::into_inner).messages.len()
    }

    fn look(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until at least `count` messages have arrived and returns all of them.
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

    /// Waits until all these commands have arrived, and returns the number of deliveries of every id.
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
        // Ignore why it ended: the broker was stopped, or the queue does not exist yet. Callers that wait for a
        // message have their own bound.
        drop(consume(&url, &queue, &seen).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every step has a bound: lapin's `ack`, for one, never resolves if the connection ends during it, and a worker that
/// hangs would look like a lost message.
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

/// Ends a session with the broker; the cause does not matter.
struct Ended;

impl From<lapin::Error> for Ended {
    fn from(_: lapin::Error) -> Self {
        Self
    }
}

/// Far longer than any step takes.
const STEP: Duration = Duration::from_secs(5);

async fn step<T>(step: impl Future<Output = lapin::Result<T>>) -> Result<T, Ended> {
    Ok(timeout(STEP, step).await.map_err(|_| Ended)??)
}
