//! The users of `countersign topology print --permissions`, at a real broker: each may do what it is for, and nothing else.

use crate::support::{App, Broker, Callback, Config, Program, Vhost, Worker, eventually, quoted};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicRejectOptions,
    ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use serde_json::json;

const COMMANDS: &str = "countersign.commands";
const OUTCOMES: &str = "countersign.outcomes";
const DEAD: &str = "countersign.dead";
const UNROUTED: &str = "countersign.unrouted";
const USERS: [&str; 3] = ["countersign", "worker", "monitoring"];

/// The URL of the virtual host for one of the users.
fn url(vhost: &Vhost, user: &str) -> String {
    let (_, rest) = vhost.url().split_once('@').expect("a user");
    format!("amqp://{user}:fake-{user}@{rest}")
}

fn config(vhost: &Vhost) -> Config {
    Config::with_url(&url(vhost, "countersign"))
        .set("approval_center", "base_url", &quoted("http://127.0.0.1:1"))
        .set("approval_center", "app_id", &quoted("cli_fake"))
        .set("approval_center", "app_secret", &quoted("fake-secret"))
        .set("amqp", "check_interval", &quoted("1s"))
}

/// Adds the three users, and tells what the program prints, line by line.
async fn users(shell: impl AsyncFn(String) -> Result<(), String>, config: &Config) -> Vec<String> {
    for user in USERS {
        // A failed run on this node may have left it.
        shell(format!("rabbitmqctl delete_user {user}")).await.unwrap_or_default();
        let add = format!("rabbitmqctl add_user {user} fake-{user}");
        shell(add.clone()).await.unwrap_or_else(|problem| panic!("{add}: {problem}"));
    }
    let file = config.dir().join("permissions.toml");
    std::fs::write(&file, config.toml()).expect("the directory is ours");
    let printed =
        Program::new(["topology", "print", "--permissions"]).config(&file).run().await.ended_with(0);
    let lines = printed.stdout.lines().filter(|line| line.starts_with("rabbitmqctl ")).map(str::to_owned);
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 5, "{}", printed.stdout);
    lines
}

/// Runs lines as `sh -e` does: up to the first that fails.
async fn permit(shell: impl AsyncFn(String) -> Result<(), String>, lines: &[String]) -> Result<(), String> {
    for line in lines {
        shell(line.clone()).await.map_err(|problem| format!("{line}: {problem}"))?;
    }
    Ok(())
}

/// Tries one thing on a channel of its own; what the broker says if it refuses.
async fn tried(
    connection: &Connection,
    what: impl AsyncFnOnce(&Channel) -> lapin::Result<()>,
) -> Result<(), String> {
    let channel = connection.create_channel().await.expect("a channel");
    match what(&channel).await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

async fn publish(channel: &Channel, exchange: &str, routing_key: &str, body: &[u8]) -> lapin::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_delivery_mode(2);
    let confirm =
        channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties).await?.await?;
    assert!(confirm.is_ack() && confirm.take_message().is_none(), "{exchange} {routing_key}");
    Ok(())
}

async fn get(channel: &Channel, queue: &str) -> lapin::Result<()> {
    channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.map(drop)
}

async fn look(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), passive, FieldTable::default()).await.map(drop)
}

async fn declare(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let options = QueueDeclareOptions::durable();
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.map(drop)
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()).await
}

/// Everything that somebody who wants to forge, read, hide or divert decisions could try, but for what `may` says.
async fn everything_else_is_refused(connection: &Connection, user: &str) {
    macro_rules! refused {
        ($what:literal, $channel:ident => $tried:expr) => {
            let told = tried(connection, async |$channel: &Channel| $tried).await;
            let words = told.expect_err(&format!("{user} may {}", $what));
            assert!(words.contains("ACCESS_REFUSED"), "{user}, {}: {words}", $what);
        };
    }
    let none = FieldTable::default;
    let key = "approval.purchase.-.approve";
    refused!("forge a command by the exchange", c => publish(c, COMMANDS, key, b"{}").await);
    refused!("forge a command by the default exchange", c => publish(c, "", COMMANDS, b"{}").await);
    refused!("report by the default exchange", c => publish(c, "", OUTCOMES, b"{}").await);
    refused!("forge a dead letter", c => publish(c, DEAD, key, b"{}").await);
    refused!("forge an unrouted command", c => publish(c, UNROUTED, key, b"{}").await);
    refused!("publish to an exchange of the broker's", c => publish(c, "amq.topic", key, b"{}").await);
    refused!("read dead letters", c => get(c, DEAD).await);
    refused!("read unrouted commands", c => get(c, UNROUTED).await);
    refused!("read reports", c => get(c, OUTCOMES).await);
    refused!("purge reports", c => c.queue_purge(OUTCOMES.into(), Default::default()).await.map(drop));
    refused!("purge dead letters", c => c.queue_purge(DEAD.into(), Default::default()).await.map(drop));
    refused!("declare a queue", c => declare(c, "mine").await);
    refused!("declare a queue without a name", c => {
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        c.queue_declare("".into(), options, none()).await.map(drop)
    });
    refused!("declare an exchange", c => {
        c.exchange_declare("mine".into(), ExchangeKind::Topic, ExchangeDeclareOptions::default(), none()).await
    });
    refused!("delete a queue", c => {
        c.queue_delete(COMMANDS.into(), QueueDeleteOptions::default()).await.map(drop)
    });
    refused!("delete an exchange", c => {
        c.exchange_delete(OUTCOMES.into(), ExchangeDeleteOptions::default()).await
    });
    // A name is that of an exchange and of a queue alike: the two that a worker may read and write make no binding.
    refused!("divert commands to the reports", c => bind(c, OUTCOMES, COMMANDS, "#").await);
    refused!("divert one command to the reports", c => bind(c, OUTCOMES, COMMANDS, key).await);
    refused!("divert what has no topic to the reports", c => bind(c, OUTCOMES, COMMANDS, "").await);
    refused!("divert reports to the commands", c => bind(c, COMMANDS, OUTCOMES, OUTCOMES).await);
    refused!("bind the reports otherwise", c => bind(c, OUTCOMES, OUTCOMES, "x").await);
    refused!("bind an exchange", c => {
        let options = ExchangeBindOptions::default();
        c.exchange_bind(OUTCOMES.into(), COMMANDS.into(), "#".into(), options, none()).await
    });
    refused!("unbind an exchange", c => {
        let options = ExchangeUnbindOptions::default();
        c.exchange_unbind(OUTCOMES.into(), COMMANDS.into(), "#".into(), options, none()).await
    });
    refused!("unbind the commands", c => {
        c.queue_unbind(COMMANDS.into(), COMMANDS.into(), "#".into(), none()).await
    });
    refused!("unbind the reports", c => {
        c.queue_unbind(OUTCOMES.into(), OUTCOMES.into(), OUTCOMES.into(), none()).await
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_printed_permissions_each_user_can_do_what_it_is_for_and_nothing_else() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    let config = config(&vhost).leaving_dead_letters();
    let shell = async |line: String| broker.shell(&line).await;
    let lines = users(shell, &config).await;
    // From RabbitMQ 4.3 on, not all can be had before the service has declared its exchange. What can be had is enough for
    // it, and lets the worker do nothing.
    if let Err(problem) = permit(shell, &lines).await {
        assert!(problem.contains("set_topic_permissions"), "{problem}");
        let early = Connection::connect(&url(&vhost, "worker"), ConnectionProperties::default()).await;
        assert!(early.is_err(), "the worker may not even enter the virtual host");
    }

    // The service declares, publishes, looks, takes reports, and says of one that is refused why.
    let app = App::with(config).await;
    let commands: Vec<String> = vec![
        app.accept(&Callback::list("i", "t1")).await,
        app.accept(&Callback::list("i", "t2")).await,
        app.accept(&Callback::list("i", "t3")).await,
    ];
    vhost.until_declared(OUTCOMES).await;
    permit(shell, &lines).await.expect("the exchange exists");
    app.until_metric("countersign_ledger_rows{state=\"pending\"}", 0.0).await;
    eventually("a look at the queues", async || {
        match app.metric("countersign_topology_checks_total{result=\"ok\"}").await {
            Some(looks) if looks > 0.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(app.metric("countersign_topology_faults").await, Some(0.0));

    // A worker takes commands, acknowledges, rejects, and reports.
    let worker = Connection::connect(&url(&vhost, "worker"), ConnectionProperties::default()).await.unwrap();
    let channel = worker.create_channel().await.unwrap();
    let consume = BasicConsumeOptions::default();
    let mut deliveries =
        channel.basic_consume(COMMANDS.into(), "w".into(), consume, FieldTable::default()).await.unwrap();
    for (number, command_id) in commands.iter().enumerate() {
        let delivery = futures_util::StreamExt::next(&mut deliveries).await.unwrap().unwrap();
        if number == 0 {
            delivery.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
            continue;
        }
        let mut report =
            json!({ "schema": "approval.outcome/1", "command_id": command_id, "outcome": "applied" });
        if number == 2 {
            report["instance"] = json!({ "instance_id": "another", "approval_code": "x" });
        }
        tried(&worker, async |channel| {
            publish(channel, OUTCOMES, OUTCOMES, report.to_string().as_bytes()).await
        })
        .await
        .expect("a worker reports");
        delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
    }
    assert_eq!(vhost.take(DEAD).await.message_id(), commands[0]);
    app.until_metric("countersign_outcomes_total{outcome=\"applied\"}", 1.0).await;
    app.until_metric("countersign_outcomes_total{outcome=\"not_permitted\"}", 1.0).await;
    let refused = vhost.take(DEAD).await;
    assert!(refused.header("countersign-refused").contains("another"), "{:?}", refused.properties);
    everything_else_is_refused(&worker, "worker").await;
    // Not refused, and so it stands in docs/workers.md: to throw commands away, and to look how many messages there are.
    tried(&worker, async |c| c.queue_purge(COMMANDS.into(), Default::default()).await.map(drop))
        .await
        .expect("who may read may purge");
    tried(&worker, async |c| look(c, COMMANDS).await).await.expect("who may read may look");
    // Up to RabbitMQ 4.2 everybody may look at everything; from 4.3 on, who has some right to it.
    let open = tried(&worker, async |c| look(c, DEAD).await).await;
    assert!(open.as_ref().err().is_none_or(|words| words.contains("ACCESS_REFUSED")), "{open:?}");

    // The service has nothing to do with what is not its own.
    let service =
        Connection::connect(&url(&vhost, "countersign"), ConnectionProperties::default()).await.unwrap();
    for queue in ["mine", "countersign.commands2", "countersignXcommands"] {
        let declaring = tried(&service, async |channel| declare(channel, queue).await).await;
        assert!(declaring.expect_err(queue).contains("ACCESS_REFUSED"), "{queue}");
    }
    for exchange in ["", "amq.topic"] {
        let publishing =
            tried(&service, async |channel| publish(channel, exchange, COMMANDS, b"{}").await).await;
        assert!(publishing.expect_err(exchange).contains("ACCESS_REFUSED"), "{exchange}");
    }

    // Who monitors looks, by the management API alone where the broker shows nothing to who has no right; and reads nothing.
    let monitoring =
        Connection::connect(&url(&vhost, "monitoring"), ConnectionProperties::default()).await.unwrap();
    for queue in [COMMANDS, DEAD] {
        let looking = tried(&monitoring, async |c| look(c, queue).await).await;
        assert_eq!(looking.is_ok(), open.is_ok(), "{queue}: {looking:?}");
    }
    everything_else_is_refused(&monitoring, "monitoring").await;
    let reading = tried(&monitoring, async |channel| get(channel, COMMANDS).await).await;
    assert!(reading.expect_err("it reads no command").contains("ACCESS_REFUSED"));
    let reporting =
        tried(&monitoring, async |channel| publish(channel, OUTCOMES, OUTCOMES, b"{}").await).await;
    assert!(reporting.expect_err("it reports nothing").contains("ACCESS_REFUSED"));
    assert!(!app.stderr().contains("operator action required"), "{}", app.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_declares_nothing_may_declare_nothing_and_works() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    // A name that is not that of the exchange as well.
    let config = |vhost: &Vhost| config(vhost).set("amqp", "queue", &quoted("commands"));
    // Somebody else makes it.
    let made = App::with(config(&vhost).set("amqp", "url", &quoted(vhost.url()))).await;
    vhost.until_declared(OUTCOMES).await;
    vhost.until_declared("commands").await;
    drop(made);

    let config = config(&vhost).set("amqp", "topology", &quoted("check"));
    let shell = async |line: String| broker.shell(&line).await;
    permit(shell, &users(shell, &config).await).await.expect("the exchange exists");
    let app = App::with(config).await;
    let worker = Worker::on_queue(&vhost, "commands");
    let id = app.accept(&Callback::list("i", "t")).await;
    worker.command(&id).await;
    let report = json!({ "schema": "approval.outcome/1", "command_id": id, "outcome": "applied" });
    let reporter =
        Connection::connect(&url(&vhost, "worker"), ConnectionProperties::default()).await.unwrap();
    for body in [report.to_string(), "no report".to_owned()] {
        tried(&reporter, async |channel| publish(channel, OUTCOMES, OUTCOMES, body.as_bytes()).await)
            .await
            .expect("a worker reports");
    }
    app.until_metric("countersign_outcomes_total{outcome=\"applied\"}", 1.0).await;
    // It may read what it refused itself, and takes it.
    app.until_metric("countersign_ledger_strays", 1.0).await;
    let service =
        Connection::connect(&url(&vhost, "countersign"), ConnectionProperties::default()).await.unwrap();
    let declaring = tried(&service, async |channel| declare(channel, "mine").await).await;
    assert!(declaring.expect_err("it declares nothing").contains("ACCESS_REFUSED"));
    let reading = tried(&service, async |channel| get(channel, "commands").await).await;
    assert!(reading.expect_err("it reads no command").contains("ACCESS_REFUSED"));
    let binding = tried(&service, async |channel| bind(channel, "commands", COMMANDS, "x").await).await;
    assert!(binding.expect_err("it binds nothing").contains("ACCESS_REFUSED"));
    // It sees all queues, and what is in them.
    for queue in ["commands", "unrouted", "dead", "outcomes"] {
        let messages = format!("countersign_queue_messages{{queue=\"{queue}\"}}");
        eventually("a look at the queues", async || match app.metric(&messages).await {
            Some(_) => Ok(()),
            None => Err(messages.clone()),
        })
        .await;
    }
}
