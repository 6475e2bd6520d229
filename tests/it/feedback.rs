//! What comes back from the broker: commands that nobody took, and what workers say before the approver is answered.

use std::time::{Duration, Instant};

use countersign::telemetry::failpoint::DEAD_LETTERS;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions,
        QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};

use crate::support::{
    Answer, App, Callback, Config, Endpoint, KEY, Program, Vhost, Worker, eventually, quoted,
};

const COMMANDS: &str = "countersign.commands";
const DEAD: &str = "countersign.dead";
const UNROUTED: &str = "countersign.unrouted";
const OUTCOMES: &str = "countersign.outcomes";

async fn record(app: &App, command_id: &str) -> Value {
    app.get(&format!("/api/v1/commands/{command_id}")).await.json()
}

async fn until_state(app: &App, command_id: &str, wanted: &str) -> Value {
    eventually(&format!("a command that is {wanted}"), async || {
        let record = record(app, command_id).await;
        if record["state"] == wanted { Ok(record) } else { Err(record["state"].clone()) }
    })
    .await
}

async fn ledger(app: &App, arguments: &[&str]) -> String {
    Program::new([&["ledger"], arguments].concat()).config(app.file()).run().await.ended_with(0).stdout
}

/// The next message of a queue, unacknowledged.
async fn next(channel: &Channel, queue: &str) -> Delivery {
    let consumer =
        channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    consumer.await.expect("consuming").next().await.expect("a delivery").expect("a sound one")
}

async fn reject_next(vhost: &Vhost, queue: &str) -> Delivery {
    vhost.until_declared(queue).await;
    let (_connection, channel) = vhost.channel().await;
    let delivery = next(&channel, queue).await;
    delivery.acker.reject(BasicRejectOptions { requeue: false }).await.expect("rejected");
    // The rejection must not be lost with the connection.
    channel.close(200, "OK".into()).await.expect("closed");
    delivery
}

async fn report(vhost: &Vhost, report: &Value) {
    let (_connection, channel) = vhost.channel().await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    eventually("a queue that takes the report", async || {
        let body = report.to_string();
        let properties = BasicProperties::default().with_delivery_mode(2);
        let published = channel
            .basic_publish(OUTCOMES.into(), OUTCOMES.into(), options, body.as_bytes(), properties)
            .await;
        let confirm = published.expect("published").await.expect("confirmed");
        if confirm.is_ack() && confirm.take_message().is_none() { Ok(()) } else { Err("it came back") }
    })
    .await;
}

/// Until what was in the queue is acknowledged.
async fn until_empty(vhost: &Vhost, queue: &str) {
    eventually("no letter in the queue", async || match vhost.depth(queue).await {
        Some(0) => Ok(()),
        depth => Err(depth),
    })
    .await;
}

fn outcome(command_id: &str, word: &str, message: Option<&str>) -> Value {
    json!({ "schema": "approval.outcome/1", "command_id": command_id, "outcome": word, "message": message })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_command_comes_home_is_requeued_and_done() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let id = app.accept(&Callback::list("i", "t")).await;
    assert_eq!(reject_next(&vhost, COMMANDS).await.properties.message_id().as_ref().unwrap().as_str(), id);
    let rejected = until_state(&app, &id, "rejected").await;
    let events = rejected["history"].as_array().unwrap();
    let came_back = events.iter().find(|event| event["event"] == "came_back").expect("it is told");
    assert_eq!((&came_back["why"], &came_back["queue"]), (&json!("rejected"), &json!(COMMANDS)));
    assert_eq!(app.metric("countersign_ledger_rows{state=\"rejected\"}").await, Some(1.0));
    // Once the ledger has it, the letter is acknowledged and counted.
    app.until_metric("countersign_dead_letters_total{result=\"open\"}", 1.0).await;
    until_empty(&vhost, DEAD).await;
    assert!(ledger(&app, &["list", "--state", "rejected"]).await.contains(&id));
    assert!(ledger(&app, &["show", &id]).await.contains("a worker rejected it, queue countersign.commands"));
    let looked = Program::new(["doctor"]).config(app.file()).run().await.stdout;
    assert!(looked.contains("rejected commands: 1 command came back"), "{looked}");

    let worker = Worker::on(&vhost);
    ledger(&app, &["requeue", &id]).await;
    worker.command(&id).await;
    until_state(&app, &id, "published").await;
    report(&vhost, &outcome(&id, "applied", None)).await;
    eventually("an outcome", async || {
        let outcome = record(&app, &id).await["outcome"]["outcome"].clone();
        if outcome == "applied" { Ok(()) } else { Err(outcome) }
    })
    .await;
    assert!(ledger(&app, &["show", &id]).await.contains("accepted → published → applied"));
    assert_eq!(app.metric("countersign_outcomes_pending").await, Some(0.0), "nothing is to be shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unrouted_command_is_sent_on_once_a_queue_is_bound() {
    let vhost = Vhost::new().await;
    // Nobody binds it again.
    let app = App::with(Config::new(&vhost).set("amqp", "check_interval", "\"off\"")).await;
    app.accept(&Callback::list("i", "before")).await;
    vhost.take(COMMANDS).await;
    vhost.unbind(COMMANDS, COMMANDS, "#").await;
    let id = app.accept(&Callback::list("i", "t")).await;
    until_state(&app, &id, "unrouted").await;
    until_empty(&vhost, UNROUTED).await;
    // Too early: it comes back.
    ledger(&app, &["requeue", &id]).await;
    let letters = "countersign_dead_letters_total{result=\"open\"}";
    app.until_metric(letters, 2.0).await;
    until_state(&app, &id, "unrouted").await;

    let (_connection, channel) = vhost.channel().await;
    let none = || (QueueBindOptions::default(), FieldTable::default());
    let (options, arguments) = none();
    channel.queue_bind(COMMANDS.into(), COMMANDS.into(), "#".into(), options, arguments).await.unwrap();
    ledger(&app, &["requeue", "--unrouted", "--yes", "--reason", "the queue is bound again"]).await;
    assert_eq!(vhost.take(COMMANDS).await.message_id(), id);
    until_state(&app, &id, "published").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn send_waits_for_what_the_worker_says() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    vhost.until_declared(OUTCOMES).await;
    let send = |wait: &str| {
        Program::new([
            "send",
            "--endpoint",
            "purchase",
            "--url",
            &app.callback_url("purchase"),
            "--wait",
            wait,
        ])
        .config(app.file())
        .run()
    };
    let (sent, id) = tokio::join!(send("20s"), answer_next(&vhost, "refused", Some("no budget")));
    let sent = sent.ended_with(1);
    let line: Value = serde_json::from_str(sent.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(line["command_id"], id);
    assert_eq!(line["worker"], json!({ "outcome": "refused", "message": "no budget" }));
    let (sent, _) = tokio::join!(send("20s"), answer_next(&vhost, "applied", None));
    sent.ended_with(0);
    let line: Value =
        serde_json::from_str(send("0s").await.ended_with(1).stdout.lines().next().unwrap()).unwrap();
    assert_eq!(line["worker"]["outcome"], Value::Null);
}

/// The reasons of the broker, each by a queue that has no other.
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_tells_why_the_broker_gave_a_command_up() {
    let vhost = Vhost::new().await;
    let app = App::with(Config::new(&vhost).set("amqp", "queue", "\"\"")).await;
    let text = |text: &str| AMQPValue::LongString(text.into());
    let number = AMQPValue::LongLongInt;
    let cases = [
        ("expired", vec![("x-message-ttl", number(1))]),
        ("overflowed", vec![("x-max-length", number(0)), ("x-overflow", text("drop-head"))]),
        ("delivery_limit", vec![("x-queue-type", text("quorum")), ("x-delivery-limit", number(0))]),
    ];
    let (_connection, channel) = vhost.channel().await;
    vhost.until_declared(OUTCOMES).await;
    for (why, arguments) in cases {
        let mut table = FieldTable::default();
        table.insert("x-dead-letter-exchange".into(), text(DEAD));
        for (name, value) in arguments {
            table.insert(name.into(), value);
        }
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(why.into(), durable, table).await.unwrap();
        let options = QueueBindOptions::default();
        let exchange = COMMANDS;
        channel
            .queue_bind(why.into(), exchange.into(), "#".into(), options, FieldTable::default())
            .await
            .unwrap();
        let id = app.accept(&Callback::list("i", why)).await;
        if why == "delivery_limit" {
            let delivery = next(&channel, why).await;
            delivery.acker.reject(BasicRejectOptions { requeue: true }).await.unwrap();
        }
        let record = until_state(&app, &id, "rejected").await;
        let came_back: Vec<_> = record["history"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["event"] == "came_back")
            .map(|event| (event["why"].clone(), event["queue"].clone()))
            .collect();
        assert_eq!(came_back, [(json!(why), json!(why))]);
        channel.queue_delete(why.into(), QueueDeleteOptions::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_of_this_ledger_is_kept_aside_and_shown_as_what_it_is() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    vhost.until_declared(DEAD).await;
    vhost.until_declared(OUTCOMES).await;
    let (_connection, channel) = vhost.channel().await;
    let unknown = "019a0000-0000-7000-8000-000000000001";
    let foreign = BasicProperties::default()
        .with_message_id(unknown.into())
        .with_type("order.created\u{1b}[31m".into());
    let options = BasicPublishOptions::default();
    channel.basic_publish(DEAD.into(), "orders".into(), options, b"{\"n\":1}", foreign).await.unwrap();
    let large = BasicProperties::default().with_message_id("large".into());
    channel.basic_publish(DEAD.into(), "orders".into(), options, &[b'x'; 300_000], large).await.unwrap();
    report(&vhost, &json!("no report")).await;
    app.until_metric("countersign_ledger_strays", 3.0).await;
    let listed = app.get("/api/v1/strays").await.json();
    let strays = listed["strays"].as_array().unwrap();
    assert_eq!(strays.len(), 3, "{listed}");
    let of = |message_id: Value| strays.iter().find(|one| one["message_id"] == message_id).unwrap();
    assert_eq!(
        (&of(json!(unknown))["body"], &of(json!(unknown))["routing_key"]),
        (&json!("{\"n\":1}"), &json!("orders"))
    );
    assert!(of(Value::Null)["reason"].as_str().unwrap().contains("not"), "{listed}");
    let large = of(json!("large"));
    assert_eq!(large["body"].as_str().unwrap().len(), 256 << 10);
    assert_eq!(large["reason"], "its body has 300000 bytes, of which 262144 are kept");
    let table = ledger(&app, &["strays"]).await;
    assert!(table.contains(unknown) && !table.contains('\u{1b}'), "{table}");
    let ids: Vec<String> = strays.iter().map(|one| one["id"].to_string()).collect();
    ledger(&app, &["strays", "--remove", &ids[0], "--remove", &ids[1], "--remove", &ids[2]]).await;
    let again = Program::new(["ledger", "strays", "--remove", &ids[0]]).config(app.file()).run().await;
    again.ended_with(1);
    app.until_metric("countersign_ledger_strays", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_strays_stay_with_the_broker_and_hold_up_no_command_of_their_batch() {
    let vhost = Vhost::new().await;
    let mut app = App::start(&vhost).await;
    vhost.until_declared(DEAD).await;
    let connection = rusqlite::Connection::open(app.dir().join("ledger.db")).unwrap();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
        INSERT INTO strays (came_at, routing_key, body) SELECT 1700000000000, 'orders', x'7b7d' FROM n";
    connection.execute_batch(fill).unwrap();
    drop(connection);
    let id = app.accept(&Callback::list("i", "t")).await;
    // One transaction: the broker has both before it delivers the first.
    vhost.until_declared(COMMANDS).await;
    let (_connection, channel) = vhost.channel().await;
    let command = next(&channel, COMMANDS).await;
    channel.tx_select().await.unwrap();
    let options = BasicPublishOptions::default();
    for body in [b"1", b"2"] {
        let foreign = BasicProperties::default().with_delivery_mode(2);
        channel.basic_publish(DEAD.into(), "orders".into(), options, body, foreign).await.unwrap();
    }
    command.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    channel.tx_commit().await.unwrap();
    until_state(&app, &id, "rejected").await;
    assert_eq!(app.metric("countersign_ledger_strays").await, Some(10_000.0));
    app.terminate();
    assert!(app.ended().await.success());
    assert_eq!(app.stderr().matches("too many strays").count(), 1);
    eventually("the strays alone in the queue", async || match vhost.depth(DEAD).await {
        Some(2) => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_left_stays_in_its_queue() {
    let vhost = Vhost::new().await;
    let app = App::with(Config::new(&vhost).leaving_dead_letters()).await;
    let id = app.accept(&Callback::list("i", "t")).await;
    reject_next(&vhost, COMMANDS).await;
    assert_eq!(vhost.take(DEAD).await.message_id(), id);
    assert_eq!(record(&app, &id).await["state"], "published");
}

/// INVARIANT: a dead letter is acknowledged after the commit that keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_survives_a_crash_at_each_step() {
    for point in DEAD_LETTERS {
        let vhost = Vhost::new().await;
        let mut app = App::with(Config::new(&vhost).env("COUNTERSIGN_KILL_AT", &format!("{point}@1"))).await;
        let id = app.accept(&Callback::list("i", "t")).await;
        reject_next(&vhost, COMMANDS).await;
        app.ended().await;
        app.reconfigure(|config| config.env("COUNTERSIGN_KILL_AT", ""));
        app.restart().await;
        until_state(&app, &id, "rejected").await;
        eventually("an empty queue", async || match vhost.depth(DEAD).await {
            Some(0) => Ok(()),
            other => Err(other),
        })
        .await;
        assert_eq!(app.metric("countersign_ledger_strays").await, Some(0.0), "{point}");
    }
}

// --- the approver hears the worker ---------------------------------------------------------------

/// Far more than these tests wait for, and less than what the platform allows: a wait without end would be longer.
const UNNOTICED: Duration = Duration::from_secs(4);

/// An endpoint whose answers wait this long.
fn waits(vhost: &Vhost, wait: &str) -> Config {
    let endpoint = Endpoint::encrypted("purchase").set("answer", &format!("{{ wait = {} }}", quoted(wait)));
    Config::bare(vhost.url()).endpoint(endpoint)
}

/// A worker that reports the outcome of the next command.
async fn answer_next(vhost: &Vhost, word: &str, message: Option<&str>) -> String {
    vhost.until_declared(COMMANDS).await;
    let (_connection, channel) = vhost.channel().await;
    let delivery = next(&channel, COMMANDS).await;
    let id = delivery.properties.message_id().as_ref().expect("an id").to_string();
    report(vhost, &outcome(&id, word, message)).await;
    delivery.acker.ack(BasicAckOptions::default()).await.expect("acknowledged");
    channel.close(200, "OK".into()).await.expect("closed");
    id
}

async fn send(app: &App, callback: &Callback) -> Answer {
    app.post("purchase", callback.encrypted(KEY)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_approver_reads_what_the_worker_says() {
    let vhost = Vhost::new().await;
    let app = App::with(waits(&vhost, "4s")).await;
    // The queue of reports is there, so that the worker is in time.
    vhost.until_declared(OUTCOMES).await;
    let no = Callback::list("i", "no");
    let (answer, id) = tokio::join!(send(&app, &no), answer_next(&vhost, "refused", Some("预算\u{7}不足\n")));
    assert_eq!((answer.status, answer.reason()), (409, "declined".to_owned()), "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["message"], "预算 不足");
    assert_eq!((&body["without_prefix"], &body["code"]), (&json!("true"), &json!(40901)));
    assert_eq!(body["data"], json!({ "command_id": id, "status": "accepted" }));
    // 200 would have meant kept; so does this.
    assert_eq!(record(&app, &id).await["outcome"]["outcome"], "refused");
    // Tapped again: answered by what is known, without another command.
    let again = send(&app, &no).await.json();
    assert_eq!((&again["msg"], &again["data"]["status"]), (&json!("declined"), &json!("duplicate")));
    assert_eq!(again["data"]["command_id"], id);

    let (answer, id) = tokio::join!(
        async { send(&app, &Callback::list("i", "failed")).await },
        answer_next(&vhost, "failed", None)
    );
    assert_eq!((answer.status, &answer.json()["data"]["command_id"]), (409, &json!(id)));
    assert!(answer.json()["message"].as_str().unwrap().contains("业务系统"), "{}", answer.text());

    let (answer, id) = tokio::join!(
        async { send(&app, &Callback::list("i", "yes")).await },
        answer_next(&vhost, "applied", Some("done"))
    );
    assert_eq!((answer.status, answer.command_id()), (200, id));

    let declined = "countersign_callbacks_total{endpoint=\"purchase\",outcome=\"declined\"}";
    assert_eq!(app.metric(declined).await, Some(3.0));
    assert_eq!(app.metric("countersign_answers_waited_total{result=\"heard\"}").await, Some(4.0));
    let refusals = app.get("/api/v1/refusals?reason=declined").await.json();
    let detail = refusals["refusals"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("kept as") && detail.contains("a worker reported failed"), "{detail}");
    assert!(!app.stderr().contains("预算"), "the worker's words are not logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_longer_than_the_endpoint_says() {
    let vhost = Vhost::new().await;
    let mut app = App::with(waits(&vhost, "300ms")).await;
    let began = Instant::now();
    let answer = send(&app, &Callback::list("i", "slow")).await;
    assert_eq!((answer.status, answer.status_word()), (200, "accepted".to_owned()));
    let waited = began.elapsed();
    assert!((Duration::from_millis(300)..UNNOTICED).contains(&waited), "{waited:?}");
    assert_eq!(app.metric("countersign_answers_waited_total{result=\"nothing\"}").await, Some(1.0));

    // A stop does not cut it off, and it does not hold up the stop: the answer comes, then the end.
    let callback = Callback::list("i", "stopping").encrypted(KEY);
    let (client, url) = (app.client(), app.callback_url("purchase"));
    let waiting = tokio::spawn(async move { client.post(url).body(callback).send().await });
    app.until_metric("countersign_ledger_rows{state=\"published\"}", 2.0).await;
    app.terminate();
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    assert!(app.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_broker_leaves_nobody_waiting() {
    let vhost = Vhost::new().await;
    let config = waits(&vhost, "200ms").set("amqp", "url", "\"amqp://guest:guest@127.0.0.1:1\"");
    let app = App::with(config).await;
    let began = Instant::now();
    let answer = send(&app, &Callback::list("i", "t")).await;
    assert_eq!((answer.status, answer.status_word()), (200, "accepted".to_owned()));
    assert!(began.elapsed() < UNNOTICED, "{:?}", began.elapsed());
}
