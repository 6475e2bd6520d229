//! Exchanges and queues while the program runs: what is gone, what was there before, what may not be, and what lies in them.

use crate::oracle::Oracle;
use crate::support::{App, Broker, Callback, Config, Proxy, Vhost, Worker, eventually, quoted};
use crate::wire::{Flow, Wire};
use lapin::ExchangeKind;
use lapin::options::{
    BasicConsumeOptions, BasicRejectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

const COMMANDS: &str = "countersign.commands";
const UNROUTED: &str = "countersign.unrouted";
const DEAD: &str = "countersign.dead";
const CONSUMERS: &str = r#"countersign_queue_consumers{queue="commands"}"#;
const FAULTS: &str = "countersign_topology_faults";
const PENDING: &str = r#"countersign_ledger_rows{state="pending"}"#;

fn messages(queue: &str) -> String {
    format!("countersign_queue_messages{{queue=\"{queue}\"}}")
}

fn checks(result: &str) -> String {
    format!("countersign_topology_checks_total{{result=\"{result}\"}}")
}

/// Looks each second.
fn watchful(config: Config) -> Config {
    config.leaving_dead_letters().set("amqp", "check_interval", "\"1s\"")
}

async fn until_said(app: &App, words: &str) {
    eventually(&format!("the log to say {words:?}"), async || {
        let log = app.stderr();
        if log.contains(words) { Ok(()) } else { Err(log.lines().next_back().map(str::to_owned)) }
    })
    .await;
}

async fn until_metric_is_at_least(app: &App, name: &str, wanted: f64) {
    eventually(&format!("{name} to be {wanted} or more"), async || match app.metric(name).await {
        Some(value) if value >= wanted => Ok(()),
        other => Err(other),
    })
    .await;
}

async fn topology(app: &App) -> Value {
    app.get("/readyz").await.json()["topology"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_or_unbound_is_declared_and_bound_again_while_commands_are_published() {
    let vhost = Vhost::new().await;
    let app = App::with(watchful(Config::new(&vhost))).await;
    until_metric_is_at_least(&app, &checks("ok"), 1.0).await;
    assert_eq!(app.metric(&messages("commands")).await, Some(0.0));

    vhost.delete_queue(COMMANDS).await;
    until_said(&app, "missing at the broker; declared again").await;
    assert_eq!(app.metric(&checks("repaired")).await, Some(1.0));
    let id = app.accept(&Callback::list("i", "after the queue was deleted")).await;
    assert_eq!(vhost.take(COMMANDS).await.message_id(), id);

    vhost.unbind(COMMANDS, COMMANDS, "#").await;
    let mut sent = 0;
    eventually("a command in the queue that was unbound", async || {
        sent += 1;
        app.accept(&Callback::list("i", &format!("unbound {sent}"))).await;
        vhost.depth(COMMANDS).await.filter(|depth| *depth > 0).map(drop).ok_or(sent)
    })
    .await;
    assert_eq!(app.metric(CONSUMERS).await, Some(0.0));
    // Those that found no queue meanwhile are not lost, and are told.
    if vhost.depth(UNROUTED).await.is_some_and(|depth| depth > 0) {
        until_said(&app, "unroutable commands in countersign.unrouted").await;
    }
    assert_eq!(
        app.stderr().matches("connected to the broker").count(),
        1,
        "the session that publishes goes on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_queues_and_who_consumes_is_counted_shown_and_told_once() {
    let vhost = Vhost::new().await;
    let app = App::with(watchful(Config::new(&vhost))).await;
    until_said(&app, "queue has no consumers").await;
    assert_eq!(app.metric(CONSUMERS).await, Some(0.0));

    // One is rejected, one finds no queue, one waits.
    let (_connection, channel) = vhost.channel().await;
    app.accept(&Callback::list("i", "rejected")).await;
    let consume = BasicConsumeOptions::default();
    let mut deliveries =
        channel.basic_consume(COMMANDS.into(), "w".into(), consume, FieldTable::default()).await.unwrap();
    let delivery = futures_util::StreamExt::next(&mut deliveries).await.unwrap().unwrap();
    delivery.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    app.until_metric(&messages("dead"), 1.0).await;
    app.until_metric(CONSUMERS, 1.0).await;
    until_said(&app, "queue has consumers again").await;
    until_said(&app, "messages in countersign.dead").await;
    let seen = topology(&app).await;
    assert_eq!(seen["queues"]["dead"], json!({ "messages": 1, "consumers": 0 }));
    assert_eq!(seen["queues"]["commands"]["consumers"], 1);
    assert_eq!(seen["queues"]["outcomes"], json!({ "messages": 0, "consumers": 1 }));
    assert_eq!((&seen["faults"], app.metric(&messages("outcomes")).await), (&json!([]), Some(0.0)));

    let ok = app.metric(&checks("ok")).await.unwrap_or_default();
    until_metric_is_at_least(&app, &checks("ok"), ok + 2.0).await;
    for words in ["queue has no consumers", "messages in countersign.dead"] {
        assert_eq!(app.stderr().matches(words).count(), 1, "{words}");
    }
    vhost.take(DEAD).await;
    until_said(&app, "queue is empty again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_check_what_is_gone_is_told_and_shown_and_nothing_is_declared() {
    let vhost = Vhost::new().await;
    let (_connection, channel) = vhost.channel().await;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default;
    channel.exchange_declare(COMMANDS.into(), ExchangeKind::Topic, durable, none()).await.unwrap();
    let declare = async || {
        channel.queue_declare(COMMANDS.into(), QueueDeclareOptions::durable(), none()).await.unwrap();
        let bind = QueueBindOptions::default();
        channel.queue_bind(COMMANDS.into(), COMMANDS.into(), "#".into(), bind, none()).await.unwrap();
    };
    declare().await;
    let app = App::with(watchful(Config::new(&vhost).set("amqp", "topology", "\"check\""))).await;
    until_metric_is_at_least(&app, &checks("ok"), 2.0).await;
    vhost.delete_queue(COMMANDS).await;
    app.until_metric(FAULTS, 1.0).await;
    let seen = topology(&app).await;
    assert_eq!(seen["faults"], json!([{ "object": format!("queue {COMMANDS}"), "problem": "missing" }]));
    assert_eq!(seen["queues"]["commands"], Value::Null);
    assert_eq!(app.get("/readyz").await.status, 200, "callbacks are kept all the same");
    assert_eq!(app.metric(&messages("commands")).await, None, "what is not there has no number");
    until_metric_is_at_least(&app, &checks("faulty"), 2.0).await;
    assert_eq!(app.stderr().matches("topology mismatch at the broker").count(), 1);
    assert_eq!(vhost.depth(COMMANDS).await, None, "a check declares nothing");
    declare().await;
    app.until_metric(FAULTS, 0.0).await;
    until_said(&app, "exchanges and queues match the topology again").await;
    assert_eq!(app.metric(&messages("dead")).await, None);
    assert_eq!(
        app.stderr().matches("connected to the broker").count(),
        1,
        "the session that publishes goes on"
    );
}

/// A quorum queue tells of its limit a moment after it is reached.
async fn keep_until_refused(oracle: &Oracle, app: &App) {
    eventually("a publish that the queue has no room for", async || {
        oracle.keep(app, 5).await;
        match app.metric(r#"countersign_publishes_total{result="nacked"}"#).await {
            Some(nacked) if nacked >= 1.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

/// The name of a virtual host, in Erlang.
fn name(vhost: &Vhost) -> String {
    let name = vhost.url().rsplit_once('/').expect("a path").1;
    format!("<<\"{name}\">>")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_leaves_no_room_for_stays_in_the_ledger_in_place_of_what_was_confirmed() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    let policy = format!(
        "ok = rabbit_policy:set_op({}, <<\"cap\">>, <<\".*\">>, [{{<<\"max-length\">>, 2}}], 0, <<\"queues\">>, <<\"tests\">>).",
        name(&vhost)
    );
    broker.eval(policy).await;
    let app = App::start(&vhost).await;
    let oracle = Oracle::new();
    // What the queue cannot take is refused, again and again, and nothing that was confirmed is dropped for it.
    keep_until_refused(&oracle, &app).await;
    assert!(app.metric(PENDING).await.unwrap_or_default() > 0.0);
    let worker = Worker::on(&vhost);
    let figures = oracle.account(&app, &worker).await.check("an operator policy with max-length");
    assert_eq!((figures.unknown, figures.parked), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_declared_without_reject_publish_is_used_as_it_is_and_told_with_what_changes_it() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    let (_connection, channel) = vhost.channel().await;
    let text = |text: &str| AMQPValue::LongString(text.into());
    for (queue, overflow) in [(COMMANDS, None), (DEAD, Some("drop-head"))] {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("quorum"));
        if queue == COMMANDS {
            arguments.insert("x-dead-letter-exchange".into(), text(DEAD));
        }
        if let Some(overflow) = overflow {
            arguments.insert("x-overflow".into(), text(overflow));
        }
        channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    }
    let app = App::with(watchful(Config::new(&vhost))).await;
    let worker = Worker::on(&vhost);
    worker.command(&app.accept(&Callback::list("i", "t")).await).await;
    until_metric_is_at_least(&app, &checks("ok"), 3.0).await;
    let log = app.stderr();
    assert_eq!(log.matches("the queue exists without x-overflow=reject-publish").count(), 2, "{log}");
    let pattern = r"'^countersign\\.commands$'";
    assert!(
        log.contains("rabbitmqctl set_policy") && log.replace("\\\\\\\\", "\\\\").contains(pattern),
        "{log}"
    );
    assert!(!log.contains("operator action required") && !log.contains("ended the session"), "{log}");
    assert_eq!(log.matches("connected to the broker").count(), 1, "{log}");
    // What the line sets holds: the queue refuses what it has no room for.
    let policy = format!(
        "ok = rabbit_policy:set({}, <<\"countersign-overflow\">>, <<\"^countersign\\\\.commands$\">>, \
         [{{<<\"overflow\">>, <<\"reject-publish\">>}}, {{<<\"max-length\">>, 1}}], 0, <<\"queues\">>, <<\"tests\">>).",
        name(&vhost)
    );
    broker.eval(policy).await;
    drop(worker);
    let oracle = Oracle::new();
    keep_until_refused(&oracle, &app).await;
    let worker = Worker::on(&vhost);
    let _figures = oracle.account(&app, &worker).await.check("a policy with overflow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_queues_is_told_as_what_it_is_and_nobody_is_told_to_delete_anything() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    let limit = |most: &str| {
        format!(
            "ok = rabbit_vhost_limit:set({}, [{{<<\"max-queues\">>, {most}}}], <<\"tests\">>).",
            name(&vhost)
        )
    };
    broker.eval(limit("1")).await;
    let app = App::start(&vhost).await;
    let id = app.accept(&Callback::list("i", "t")).await;
    until_said(&app, "cannot publish; operator action required").await;
    let log = app.stderr();
    let line = log.lines().find(|line| line.contains("operator action required")).expect("it was said");
    assert!(line.contains("raise the limit") && line.contains("queue limit in vhost"), "{line}");
    assert!(!line.contains("delete") && !line.contains("it exists"), "{line}");
    broker.eval(limit("10")).await;
    assert_eq!(vhost.take(COMMANDS).await.message_id(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_connection_is_allowed_it_is_the_relays() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    let limit = format!(
        "ok = rabbit_vhost_limit:set({}, [{{<<\"max-connections\">>, 1}}], <<\"tests\">>).",
        name(&vhost)
    );
    broker.eval(limit).await;
    let mut proxy = Proxy::shut_before(vhost.address());
    proxy.open().await;
    let app = App::with(watchful(Config::with_url(&vhost.url_through(proxy.port())))).await;
    until_metric_is_at_least(&app, &checks("failed"), 2.0).await;
    assert_eq!(app.stderr().matches("cannot inspect the queues").count(), 1);
    assert_eq!(topology(&app).await, Value::Null);
    proxy.shut().await;
    app.until_metric("countersign_amqp_connected", 0.0).await;
    proxy.open().await;
    app.until_metric("countersign_amqp_connected", 1.0).await;
    app.accept(&Callback::list("i", "t")).await;
    app.until_metric(PENDING, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_never_reached_is_not_said_to_be_lost() {
    let vhost = Vhost::new().await;
    let mut proxy = Proxy::shut_before(vhost.address());
    let app = App::with(watchful(Config::with_url(&vhost.url_through(proxy.port())))).await;
    until_said(&app, "cannot connect to the broker; retrying").await;
    assert!(!app.stderr().contains("lost the broker"), "{}", app.stderr());
    proxy.open().await;
    until_metric_is_at_least(&app, &checks("ok"), 1.0).await;
    proxy.shut().await;
    until_said(&app, "lost the broker; reconnecting").await;
    // What was counted is over.
    eventually("no number of a queue", async || match app.metric(&messages("commands")).await {
        None => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(topology(&app).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_first_broker_is_silent_the_queues_are_looked_at_through_another() {
    let vhost = Vhost::new().await;
    let silent = Wire::to(vhost.address()).await;
    silent.flow(Flow::Stalled, Flow::Stalled);
    let urls = [quoted(&vhost.url_through(silent.port())), quoted(vhost.url())];
    let config = watchful(Config::new(&vhost))
        .set("amqp", "connect_timeout_ms", "1000")
        .env("COUNTERSIGN__AMQP__URLS", &format!("[{}]", urls.join(", ")));
    let app = App::with(config).await;
    until_metric_is_at_least(&app, &checks("ok"), 2.0).await;
}
