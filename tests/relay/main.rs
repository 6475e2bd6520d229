//! The relay's sessions against a real RabbitMQ: what the whole program cannot be made to show on purpose.

#[expect(dead_code, unused_imports, reason = "shared with the tests in `it`, which use all of it")]
#[path = "../it/support/mod.rs"]
mod support;

mod leaks;
mod tls;

use std::{future::poll_fn, sync::Arc, time::Duration};

use countersign::{
    amqp,
    command::{Action, CommandId, TaskKey, message::Envelope},
    ledger::Entry,
    relay::{BrokerAnswer, Failure, News, Publisher as _, Session as _},
    secret::Secret,
    time::Timestamp,
};
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use support::Vhost;

const COMMANDS: &str = "countersign.commands";

fn settings(vhost: &Vhost) -> amqp::Settings {
    amqp::Settings { urls: vec![Secret::new(vhost.url())], ..amqp::Settings::default() }
}

fn entry(seq: u64, endpoint: &str) -> Entry {
    let received_at = Timestamp::now();
    Entry {
        seq,
        task_key: TaskKey::from_value(seq),
        envelope: Envelope {
            command_id: CommandId::new(received_at),
            received_at,
            endpoint: Arc::from(endpoint),
            action: Action::Approve,
            approval_code: None,
            instance_id: Some(format!("po-{seq}")),
            trace: None,
            task_id: None,
        },
        body: format!("{{\"seq\":{seq}}}").into_bytes(),
    }
}

/// The order of acks and the hash map of lapin decide which confirm carries which return, so this is tried thousands of
/// times: each wrong match would be a command lost, or one published twice.
#[tokio::test(flavor = "multi_thread")]
async fn among_thousands_in_flight_each_return_counts_for_its_own_command() {
    const PUBLISHES: u64 = 20_000;
    let vhost = Vhost::new().await;
    let (_connection, channel) = vhost.channel().await;
    // No alternate exchange, and a queue for one endpoint only.
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared =
        channel.exchange_declare(COMMANDS.into(), ExchangeKind::Topic, durable, FieldTable::default()).await;
    declared.expect("exchange.declare");
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(COMMANDS.into(), durable, FieldTable::default()).await.expect("queue.declare");
    let bound = channel
        .queue_bind(
            COMMANDS.into(),
            COMMANDS.into(),
            "approval.bound.#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await;
    bound.expect("queue.bind");

    let settings = amqp::Settings { topology: amqp::Topology::None, ..settings(&vhost) };
    let mut session = amqp::Publisher::new(settings).unwrap().connect().await.unwrap();
    let is_bound = |seq: u64| !seq.wrapping_mul(2_654_435_761).is_multiple_of(7);
    let (mut sent, mut told) = (0, 0);
    let mut news = News::default();
    while told < PUBLISHES {
        while sent < PUBLISHES && sent - told < 1024 {
            session.publish(entry(sent, if is_bound(sent) { "bound" } else { "nowhere" }));
            sent += 1;
        }
        session.flush().unwrap();
        if sent == PUBLISHES {
            session.look().unwrap();
        }
        let next = poll_fn(|cx| session.poll_news(cx, &mut news));
        tokio::time::timeout(support::PATIENCE, next).await.expect("the broker answers").unwrap();
        for outcome in news.outcomes.drain(..) {
            match outcome {
                BrokerAnswer::Confirmed => {
                    assert!(is_bound(told), "{told} was returned and counts as confirmed")
                }
                BrokerAnswer::Returned(reason) => {
                    assert!(!is_bound(told), "{told} was confirmed and counts as returned");
                    assert_eq!(reason, "312 NO_ROUTE");
                }
                BrokerAnswer::Nacked => panic!("{told} was nacked"),
            }
            told += 1;
        }
        assert_eq!(news.late, [], "RabbitMQ returns before it confirms");
    }
    session.close().await;
    let routed = (0..PUBLISHES).filter(|seq| is_bound(*seq)).count();
    assert_eq!(vhost.depth(COMMANDS).await, u32::try_from(routed).ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_declared_otherwise_is_named_with_what_to_do_about_it() {
    let vhost = Vhost::new().await;
    let (_connection, channel) = vhost.channel().await;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared =
        channel.exchange_declare(COMMANDS.into(), ExchangeKind::Fanout, durable, FieldTable::default()).await;
    declared.expect("exchange.declare");
    let error = amqp::Publisher::new(settings(&vhost)).unwrap().connect().await.unwrap_err();
    assert!(error.needs_operator());
    let text = error.to_string();
    assert!(text.starts_with("cannot declare exchange countersign.commands on "), "{text}");
    assert!(text.contains("it exists, declared with another type: to use it as it is"), "{text}");
    assert!(!text.contains("guest"), "{text}");
}

/// Something that takes connections and says nothing, as a load balancer without a broker behind it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_says_nothing_is_given_up_in_time_and_cut_off() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://fake-user:fake-password@{}/%2f", listener.local_addr().unwrap());
    let limit = Duration::from_millis(300);
    let settings =
        amqp::Settings { urls: vec![Secret::new(url)], connect_timeout: limit, ..amqp::Settings::default() };
    let mut publisher = amqp::Publisher::new(settings).unwrap();
    let (error, accepted) = tokio::join!(publisher.connect(), listener.accept());
    assert!(matches!(error, Err(amqp::Error::ConnectTimeout { .. })), "{error:?}");
    // The io thread is gone only if its socket is.
    let (mut peer, _) = accepted.unwrap();
    let mut heard = Vec::new();
    let end = tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut heard);
    tokio::time::timeout(support::PATIENCE, end).await.expect("the connection is cut off").unwrap();
    assert_eq!(&heard[..4], b"AMQP");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_broker_is_tried_when_one_is_away() {
    let vhost = Vhost::new().await;
    let away = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("amqp://fake-user:fake-password@{}/%2f", gone.local_addr().unwrap())
    };
    let urls = vec![Secret::new(away), Secret::new(vhost.url())];
    let mut publisher = amqp::Publisher::new(amqp::Settings { urls, ..amqp::Settings::default() }).unwrap();
    publisher.connect().await.unwrap().close().await;
    assert_eq!(vhost.depth(COMMANDS).await, Some(0));
}
