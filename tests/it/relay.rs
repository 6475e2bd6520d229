//! From the ledger to the queue: the exact message, and failures of the broker.

use crate::support::{App, Broker, Callback, Config, KEY, Message, Proxy, Vhost, Worker, eventually, quoted};
use lapin::options::{BasicConsumeOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const COMMANDS: &str = "countersign.commands";

#[tokio::test(flavor = "multi_thread")]
async fn the_message_is_the_command_to_the_letter() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let callback = Callback::list("po-2026-0001", "po-2026-0001-t1").context("ctx").with("reason", "ok").raw(
        "attachments",
        r#"[{"file_type":"IMAGE","file_size":12345,"file_name":"1.png","url":"https://cdn.example.invalid/1"}]"#,
    );
    let id = app.accept(&callback).await;
    let message = Worker::on(&vhost).command(&id).await;
    let command = message.json();
    let received_at = command["received_at"].as_str().unwrap().to_owned();
    assert_eq!(
        command,
        json!({
            "schema": "approval.command/1", "command_id": id, "endpoint": "purchase", "received_at": received_at,
            "action": "approve", "action_type": "APPROVE", "origin": "list", "operator": {"user_id": "zhang3"},
            "task": {"approval_code": "PO_APPROVAL", "instance_id": "po-2026-0001", "task_id": "po-2026-0001-t1",
                     "round": null, "business_key": null, "resolved_by": "opaque", "data": {}},
            "reason": "ok",
            "attachments": [{"file_type": "IMAGE", "file_name": "1.png", "file_size": 12345,
                             "url": "https://cdn.example.invalid/1"}],
            "action_context": "ctx", "message_id": null, "search_id": null, "conflicts_with": null, "repeats": null, "extra": {}
        })
    );
    let instant: countersign::time::Timestamp = received_at.parse().unwrap();
    assert!(received_at.len() == 24 && received_at.ends_with('Z'), "milliseconds and UTC: {received_at}");

    let properties = &message.properties;
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
    assert_eq!(text(properties.message_id()), Some(id.clone()));
    assert_eq!(text(properties.kind()).as_deref(), Some("approval.command.v1"));
    assert_eq!(text(properties.content_type()).as_deref(), Some("application/json"));
    assert_eq!(text(properties.content_encoding()).as_deref(), Some("utf-8"));
    assert_eq!(text(properties.app_id()).as_deref(), Some("countersign"));
    assert_eq!(text(properties.correlation_id()).as_deref(), Some("po-2026-0001"));
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(properties.timestamp().map(|seconds| seconds.cast_signed()), Some(instant.as_second()));
    assert_eq!(*properties.expiration(), None);
    assert_eq!(*properties.user_id(), None);
    assert_eq!(*properties.priority(), None);

    let headers = message.headers();
    let expected = [
        ("schema", "approval.command/1"),
        ("endpoint", "purchase"),
        ("action", "approve"),
        ("instance_id", "po-2026-0001"),
        ("task_id", "po-2026-0001-t1"),
        ("traceparent", headers["traceparent"].as_str()),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let parts: Vec<usize> = headers["traceparent"].split('-').map(str::len).collect();
    assert_eq!(parts, [2, 32, 16, 2], "a W3C trace context: {}", headers["traceparent"]);

    assert_eq!(message.exchange, COMMANDS);
    assert_eq!(message.routing_key, "approval.purchase.po_approval.approve");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_key_is_lower_case_and_hexes_what_is_not_plain() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let codes = [
        ("0F0E0D0C-1111_x", "approval.purchase.0f0e0d0c-1111_x.reject"),
        ("a.b c#*", "approval.purchase.a%2eb%20c%23%2a.reject"),
        ("采", "approval.purchase.%e9%87%87.reject"),
    ];
    for (code, expected) in codes {
        let callback = Callback::list("i", code).with("approval_code", code).action("REJECT");
        assert_eq!(worker.command(&app.accept(&callback).await).await.routing_key, expected);
    }
    // As docs/workers.md describes: a code that is too long, and the property that is truncated.
    let code = "采".repeat(150);
    let long = Callback::list(&"审".repeat(100), "long").with("approval_code", &*code);
    let message = worker.command(&app.accept(&long).await).await;
    let digest: String =
        Sha256::digest(code.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let (key, rest) = message.routing_key.split_once(&format!("-{digest}")).expect("the digest of the code");
    assert!(rest == ".approve" && message.routing_key.len() <= 255, "{key}");
    assert!(key.starts_with("approval.purchase.%e9%87%87%e9"), "{key}");
    assert!(key.ends_with("%e9") || key.ends_with("%87"), "cut, but not within an escape: {key}");
    let correlation = message.properties.correlation_id().as_ref().map(ToString::to_string);
    assert_eq!(correlation, Some("审".repeat(85)));
    assert_eq!(message.json()["task"]["approval_code"], code);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exchange_the_queue_and_the_type_can_be_named_otherwise() {
    let vhost = Vhost::new().await;
    let config = Config::new(&vhost)
        .set("amqp", "exchange", "\"approvals\"")
        .set("amqp", "queue", "\"approvals.erp\"")
        .set("amqp", "message_type", "\"erp.approval.v1\"");
    let app = App::with(config).await;
    let id = app.accept(&Callback::list("i", "t")).await;
    let message = Worker::on_queue(&vhost, "approvals.erp").command(&id).await;
    assert_eq!(message.exchange, "approvals");
    assert_eq!(
        message.properties.kind().as_ref().map(ToString::to_string).as_deref(),
        Some("erp.approval.v1")
    );
    app.post("leave", Callback::list("i", "t").plain()).await;
    drop(app);
    vhost.delete_queue("approvals.erp").await;
    vhost.delete_exchange("approvals").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_before_the_broker_was_there_is_published_in_its_order() {
    let vhost = Vhost::new().await;
    let mut proxy = Proxy::shut_before(vhost.address());
    let app = App::with(Config::with_url(&vhost.url_through(proxy.port()))).await;
    let mut accepted = Vec::new();
    for number in 0..50 {
        accepted.push(app.accept(&Callback::list("i", &format!("t{number}"))).await);
    }
    app.until_metric("countersign_ledger_rows{state=\"pending\"}", 50.0).await;
    proxy.open().await;
    let worker = Worker::on(&vhost);
    let came: Vec<String> = worker.messages(50).await.iter().map(Message::message_id).collect();
    assert_eq!(came, accepted);
    app.until_metric("countersign_ledger_rows{state=\"pending\"}", 0.0).await;
    app.until_metric("countersign_ledger_rows{state=\"published\"}", 50.0).await;
}

/// Posts over several connections until stopped, so that there is always something between the ledger and the broker.
/// Every answer must be 200; returns the promised commands.
async fn traffic(app: &App, stop: &AtomicBool) -> BTreeSet<String> {
    let sender = async |sender: usize| {
        let mut accepted = BTreeSet::new();
        while !stop.load(Ordering::Relaxed) {
            let task = format!("{sender}-{}", accepted.len());
            accepted.insert(app.accept(&Callback::list("i", &task)).await);
            // Limit the rate: the backlog of an outage must be published before the test ends.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        accepted
    };
    futures_util::future::join_all((0..8).map(sender)).await.into_iter().flatten().collect()
}

/// Causes `misfortune` during traffic, and checks that every callback answered with 200 arrives.
async fn nothing_is_lost_through(app: &App, worker: &Worker, misfortune: impl Future<Output = ()>) {
    let stop = AtomicBool::new(false);
    let happening = async {
        worker.messages(20).await;
        misfortune.await;
        let before = worker.count();
        worker.messages(before + 20).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (accepted, ()) = tokio::join!(traffic(app, &stop), happening);
    let came = worker.commands(&accepted).await;
    let strangers: Vec<&String> = came.keys().filter(|id| !accepted.contains(*id)).collect();
    assert!(strangers.is_empty(), "published without being in the ledger: {strangers:?}");
    for message in worker.seen() {
        assert_eq!(message.json()["command_id"], message.message_id());
    }
    app.until_metric("countersign_ledger_rows{state=\"pending\"}", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_broker_is_stopped_and_started_in_mid_traffic() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    nothing_is_lost_through(&app, &worker, async {
        broker.stop().await;
        app.until_metric("countersign_amqp_connected", 0.0).await;
        broker.start().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_connections_are_cut_in_mid_traffic() {
    let vhost = Vhost::new().await;
    let mut proxy = Proxy::shut_before(vhost.address());
    proxy.open().await;
    let app = App::with(Config::with_url(&vhost.url_through(proxy.port()))).await;
    let worker = Worker::on(&vhost);
    nothing_is_lost_through(&app, &worker, async {
        for _ in 0..10 {
            let before = worker.count();
            worker.messages(before + 5).await;
            proxy.shut().await;
            proxy.open().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_exchange_is_declared_again_and_nothing_is_lost() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    nothing_is_lost_through(&app, &worker, vhost.delete_exchange(COMMANDS)).await;
    assert!(vhost.has_exchange(COMMANDS).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_blocks_publishing_callbacks_are_accepted_and_published_afterwards() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    worker.command(&app.accept(&Callback::list("i", "before")).await).await;
    broker.memory_alarm(true).await;
    let mut accepted = BTreeSet::new();
    for number in 0..10 {
        accepted.insert(app.accept(&Callback::list("i", &format!("t{number}"))).await);
    }
    // RabbitMQ blocks a connection only when it next publishes.
    app.until_metric("countersign_amqp_blocked", 1.0).await;
    broker.memory_alarm(false).await;
    app.until_metric("countersign_amqp_blocked", 0.0).await;
    worker.commands(&accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_queue_is_bound_for_is_caught_by_the_alternate_exchange() {
    let vhost = Vhost::new().await;
    // Nobody binds it again.
    let app =
        App::with(Config::new(&vhost).leaving_dead_letters().set("amqp", "check_interval", "\"off\"")).await;
    // Once a command has arrived this way, the queue is not only declared but bound.
    app.accept(&Callback::list("i", "before")).await;
    vhost.take(COMMANDS).await;
    vhost.unbind(COMMANDS, COMMANDS, "#").await;
    let id = app.accept(&Callback::list("i", "t")).await;
    let message = vhost.take("countersign.unrouted").await;
    assert_eq!(message.message_id(), id);
    assert_eq!(vhost.depth(COMMANDS).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_rejects_goes_to_the_dead_letters() {
    let vhost = Vhost::new().await;
    let app = App::with(Config::new(&vhost).leaving_dead_letters()).await;
    let id = app.accept(&Callback::list("i", "t")).await;
    vhost.until_declared(COMMANDS).await;
    let (_connection, channel) = vhost.channel().await;
    let mut deliveries = channel
        .basic_consume(
            COMMANDS.into(),
            "poisoned".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let delivery = futures_util::StreamExt::next(&mut deliveries).await.unwrap().unwrap();
    delivery.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    assert_eq!(vhost.take("countersign.dead").await.message_id(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn checking_the_topology_accepts_but_publishes_only_once_all_of_it_is_there() {
    let vhost = Vhost::new().await;
    let mut app = App::with(Config::new(&vhost).set("amqp", "topology", "\"check\"")).await;
    let id = app.accept(&Callback::list("i", "t")).await;
    eventually("a log line that names what is missing", async || {
        let log = app.stderr();
        if log.contains("countersign.") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(vhost.depth(COMMANDS).await, None, "a check declares nothing");
    assert!(!vhost.has_exchange(COMMANDS).await, "a check declares nothing");
    let state = async |app: &App| app.get(&format!("/api/v1/commands/{id}")).await.json();
    assert!(state(&app).await.to_string().contains("pending"));
    // Somebody with the permission to declare creates only what publishing needs.
    let (_connection, channel) = vhost.channel().await;
    let durable = lapin::options::ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel
        .exchange_declare(COMMANDS.into(), lapin::ExchangeKind::Topic, durable, Default::default())
        .await
        .unwrap();
    channel
        .queue_declare(COMMANDS.into(), lapin::options::QueueDeclareOptions::durable(), Default::default())
        .await
        .unwrap();
    channel
        .queue_bind(COMMANDS.into(), COMMANDS.into(), "#".into(), Default::default(), Default::default())
        .await
        .unwrap();
    let worker = Worker::on(&vhost);
    worker.command(&id).await;
    app.kill();
    app.restart().await;
    worker.command(&app.accept(&Callback::list("i", "t2")).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topology_of_none_is_left_alone() {
    let vhost = Vhost::new().await;
    let (_connection, channel) = vhost.channel().await;
    let durable = lapin::options::ExchangeDeclareOptions { durable: true, ..Default::default() };
    // A kind that the program would never declare, so it works only if it is left unchanged.
    channel
        .exchange_declare("theirs".into(), lapin::ExchangeKind::Headers, durable, FieldTable::default())
        .await
        .unwrap();
    let queue = lapin::options::QueueDeclareOptions::durable();
    channel.queue_declare("theirs".into(), queue, FieldTable::default()).await.unwrap();
    let mut all = FieldTable::default();
    all.insert("x-match".into(), lapin::types::AMQPValue::LongString("any".into()));
    all.insert("endpoint".into(), lapin::types::AMQPValue::LongString("purchase".into()));
    channel
        .queue_bind(
            "theirs".into(),
            "theirs".into(),
            "".into(),
            lapin::options::QueueBindOptions::default(),
            all,
        )
        .await
        .unwrap();
    let config = Config::new(&vhost)
        .set("amqp", "topology", "\"none\"")
        .set("amqp", "exchange", &quoted("theirs"))
        .set("amqp", "queue", &quoted("theirs"));
    let app = App::with(config).await;
    let id = app.accept(&Callback::list("i", "t")).await;
    assert_eq!(vhost.take("theirs").await.message_id(), id);
    for name in [COMMANDS, "countersign.unrouted", "countersign.dead"] {
        assert_eq!(vhost.depth(name).await, None, "{name} was declared");
    }
    drop(app);
    vhost.delete_queue("theirs").await;
    vhost.delete_exchange("theirs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_returned_message_is_tried_again_alone_and_parked_at_last() {
    let vhost = Vhost::new().await;
    let (_connection, channel) = vhost.channel().await;
    let durable = lapin::options::ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel
        .exchange_declare("picky".into(), lapin::ExchangeKind::Topic, durable, FieldTable::default())
        .await
        .unwrap();
    let queue = lapin::options::QueueDeclareOptions::durable();
    channel.queue_declare("picky".into(), queue, FieldTable::default()).await.unwrap();
    // Only approvals are bound, without an alternate exchange, so that a rejection is returned.
    let options = lapin::options::QueueBindOptions::default();
    channel
        .queue_bind(
            "picky".into(),
            "picky".into(),
            "approval.*.*.approve".into(),
            options,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let config = Config::new(&vhost)
        .set("amqp", "topology", "\"none\"")
        .set("amqp", "exchange", "\"picky\"")
        .set("amqp", "queue", "\"picky\"")
        .set("amqp", "max_attempts", "2");
    let app = App::with(config).await;
    let returned = app.accept(&Callback::list("i", "returned").action("REJECT")).await;
    let routed = app.accept(&Callback::list("i", "routed")).await;
    assert_eq!(vhost.take("picky").await.message_id(), routed);
    app.until_metric("countersign_ledger_rows{state=\"parked\"}", 1.0).await;
    assert_eq!(app.metric("countersign_publishes_total{result=\"returned\"}").await, Some(2.0));
    let record = app.get(&format!("/api/v1/commands/{returned}")).await.json();
    assert!(record.to_string().contains("\"parked\""), "{record}");
    drop(app);
    vhost.delete_queue("picky").await;
    vhost.delete_exchange("picky").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn later_commands_of_a_task_wait_for_the_one_that_was_returned() {
    let vhost = Vhost::new().await;
    let config = Config::new(&vhost)
        .set("amqp", "topology", "\"none\"")
        .set("amqp", "exchange", "\"late\"")
        .set("amqp", "queue", "\"late\"");
    let (_connection, channel) = vhost.channel().await;
    let durable = lapin::options::ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel
        .exchange_declare("late".into(), lapin::ExchangeKind::Topic, durable, FieldTable::default())
        .await
        .unwrap();
    let app = App::with(config).await;
    let first = app.accept(&Callback::list("i", "t").operator("a")).await;
    eventually("the first command returned", async || {
        match app.metric("countersign_publishes_total{result=\"returned\"}").await {
            Some(count) if count >= 1.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let second = app.accept(&Callback::list("i", "t").operator("b")).await;
    let third = app.accept(&Callback::list("i", "t").operator("c")).await;
    let queue = lapin::options::QueueDeclareOptions::durable();
    channel.queue_declare("late".into(), queue, FieldTable::default()).await.unwrap();
    let options = lapin::options::QueueBindOptions::default();
    channel
        .queue_bind("late".into(), "late".into(), "#".into(), options, FieldTable::default())
        .await
        .unwrap();
    let worker = Worker::on_queue(&vhost, "late");
    worker.commands(&BTreeSet::from([first.clone(), second.clone(), third.clone()])).await;
    let mut order: Vec<String> = Vec::new();
    for message in worker.seen() {
        if !order.contains(&message.message_id()) {
            order.push(message.message_id());
        }
    }
    assert_eq!(order, [first, second, third]);
    drop((worker, app));
    vhost.delete_queue("late").await;
    vhost.delete_exchange("late").await;
}

/// Encrypted by the test, opened and rendered by the program: nothing of the body may be lost.
#[tokio::test(flavor = "multi_thread")]
async fn any_text_survives_the_way() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let texts = [
        "\u{0}\u{1f}\u{7f}",
        "\"\\/\u{2028}\u{2029}",
        "𝄞 👩‍👩‍👧 é",
        "</script><!--",
        "\u{feff}x",
        &"长".repeat(3000),
    ];
    for (number, text) in texts.into_iter().enumerate() {
        let callback = Callback::list("i", &format!("t{number}")).context(text).with("reason", text);
        let id = app.post("purchase", callback.encrypted(KEY)).await.command_id();
        let command: Value = worker.command(&id).await.json();
        assert_eq!(
            (command["action_context"].as_str(), command["reason"].as_str()),
            (Some(text), Some(text))
        );
    }
}
