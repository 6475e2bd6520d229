//! Tests of the support code itself, on which the other tests depend.

use crate::support::{Broker, Callback, KEY, Proxy, Vhost, Worker, eventually, open, seal};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use std::collections::BTreeSet;

const QUEUE: &str = "countersign.commands";

async fn declare(vhost: &Vhost) {
    let (_connection, channel) = vhost.channel().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments).await.expect("a queue");
}

async fn publish(url: &str, message_id: &str) -> lapin::Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let properties = BasicProperties::default().with_message_id(message_id.into()).with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm = channel.basic_publish("".into(), QUEUE.into(), options, b"{}", properties).await?.await?;
    assert!(confirm.is_ack());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_published_to_a_virtual_host_reaches_the_worker_on_it_and_no_other() {
    let broker = Broker::stoppable().await;
    let (one, other) = (broker.vhost().await, broker.vhost().await);
    declare(&one).await;
    declare(&other).await;
    publish(one.url(), "first").await.unwrap();
    publish(other.url(), "second").await.unwrap();
    let (worker, other_worker) = (Worker::on(&one), Worker::on(&other));
    assert_eq!(worker.messages(1).await[0].message_id(), "first");
    assert_eq!(other_worker.messages(1).await[0].message_id(), "second");
    eventually("acknowledged messages", async || match one.depth(QUEUE).await {
        Some(0) => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_broker_is_away_and_a_started_one_has_what_it_had() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    declare(&vhost).await;
    publish(vhost.url(), "kept").await.unwrap();
    broker.stop().await;
    publish(vhost.url(), "refused").await.unwrap_err();
    broker.start().await;
    assert_eq!(Worker::on(&vhost).command("kept").await.exchange, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_on_after_the_broker_was_away() {
    let vhost = Vhost::new().await;
    declare(&vhost).await;
    let mut proxy = Proxy::shut_before(vhost.address());
    let url = vhost.url_through(proxy.port());
    publish(&url, "through a shut proxy").await.unwrap_err();
    proxy.open().await;
    let worker = Worker::at(&url, QUEUE);
    publish(&url, "a").await.unwrap();
    worker.command("a").await;
    proxy.shut().await;
    publish(vhost.url(), "b").await.unwrap();
    proxy.open().await;
    let came = worker.commands(&BTreeSet::from(["a".to_owned(), "b".to_owned()])).await;
    assert_eq!(came.len(), 2);
}

#[test]
fn an_encrypted_callback_opens_to_the_plain_one() {
    let callback = Callback::card("{\"t\":1}", 7_123_456_789_012_345_678).context("审批");
    let outer: serde_json::Value = serde_json::from_slice(&callback.encrypted(KEY)).unwrap();
    assert_eq!(open(KEY, outer["encrypt"].as_str().unwrap()), callback.plain());
}

/// P1 of platform.md#test-vectors, the only vector that the platform itself published.
#[test]
fn the_published_vector_opens() {
    assert_eq!(open("test key", "P37w+VZImNgPEO1RBhJ6RtKl7n6zymIbEG1pReEzghk="), b"hello world");
    assert_eq!(open("test key", &seal("test key", b"")), b"");
}
