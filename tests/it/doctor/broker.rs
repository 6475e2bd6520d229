//! `doctor`'s findings at a real broker. The commands it prints are run.

use super::{DONE, FAILED, lacks, line};
use crate::support::{
    App, Broker, Callback, Config, Managed, NOWHERE, Program, Ran, Vhost, Worker, eventually, quoted,
};
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use std::{ffi::OsString, path::Path, process::Command};

const COMMANDS: &str = "countersign.commands";

async fn doctor(file: &Path, args: &[&str], env: &[(&'static str, OsString)]) -> Ran {
    let mut program =
        Program::new([&["doctor"], args].concat()).config(file).dir(file.parent().expect("a directory"));
    // Hide the rabbitmqctl of this machine's own node.
    program = program.env("PATH", "/nonexistent");
    for (name, value) in env {
        program = program.env(name, value.clone());
    }
    program.run().await
}

async fn declare(vhost: &Vhost, queue: &str, arguments: &[(&str, &str)]) {
    let (_connection, channel) = vhost.channel().await;
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), durable, table).await.expect("it is declared");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_otherwise_is_wrong_and_nothing_is_made_by_looking() {
    let vhost = Vhost::new().await;
    let config = Config::new(&vhost);
    let file = config.write();
    let ran = doctor(&file, &[], &[]).await.ended_with(FAILED);
    assert!(
        line(&ran, "wrong  queue: ").contains("countersign.commands is not there; serve makes it"),
        "{}",
        ran.stdout
    );
    declare(&vhost, COMMANDS, &[("x-queue-type", "classic")]).await;
    let (_connection, channel) = vhost.channel().await;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let direct =
        channel.exchange_declare(COMMANDS.into(), ExchangeKind::Direct, durable, FieldTable::default());
    direct.await.expect("it is declared");
    let ran = doctor(&file, &[], &[]).await.ended_with(FAILED);
    let queue = line(&ran, "wrong  queue: ");
    assert!(queue.contains("is declared otherwise, so that nothing can be published: "), "{queue}");
    assert!(queue.contains("inequivalent arg "), "{queue}");
    assert!(queue.contains("set amqp.topology to \"check\""), "{queue}");
    let exchange =
        ran.stdout.lines().find(|line| line.starts_with("wrong  exchange: countersign.commands")).unwrap();
    assert!(exchange.contains("is declared otherwise, so that nothing can be published"), "{exchange}");
    // If serve only checks the topology, it uses it as it is.
    let ran = doctor(&file, &["--set", "amqp.topology=check"], &[]).await;
    assert!(line(&ran, "risky  queue: ").contains("is used as it is"), "{}", ran.stdout);
    assert!(!vhost.has_exchange("countersign.dead").await && vhost.depth("countersign.dead").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_would_drop_is_told_with_the_line_that_changes_it_and_so_is_what_does_drop() {
    let broker = Broker::managed().await;
    let vhost = broker.vhost();
    let mut app = App::with(Config::new(&vhost).leaving_dead_letters()).await;
    vhost.until_declared(COMMANDS).await;
    app.kill();
    let (management, control) = (broker.url(), broker.control());
    let asked = ["--management-url", management.as_str()];
    let ran = doctor(app.file(), &asked, &[]).await;
    assert!(
        line(&ran, "ok     policies: ").contains("according to the management API at http://127.0.0.1:"),
        "{}",
        ran.stdout
    );
    lacks(&ran, "overflow");

    let name = vhost.url().rsplit('/').next().expect("a virtual host").to_owned();
    let kept = [("x-queue-type", "quorum"), ("x-dead-letter-exchange", "countersign.dead")];
    let drops = [kept[0], kept[1], ("x-overflow", "drop-head")];
    for (arguments, how) in [
        (&drops[..], "countersign.commands is declared with x-overflow: drop-head"),
        (&kept[..], "countersign.commands is not declared with x-overflow: reject-publish"),
    ] {
        vhost.delete_queue(COMMANDS).await;
        declare(&vhost, COMMANDS, arguments).await;
        let ran = doctor(app.file(), &asked, &[]).await;
        let found = line(&ran, "risky  overflow: ").to_owned();
        assert!(found.contains(how), "{found}");
        let (_, mend) = found.split_once("if it has none: ").expect("a line to paste");
        paste(&broker, mend).await;
        eventually("the policy to be in force", async || {
            let ran = doctor(app.file(), &asked, &[]).await;
            if ran.stdout.contains("  overflow: ") { Err(ran.stdout) } else { Ok(()) }
        })
        .await;
        // A quorum queue follows the policy, however it was declared.
        if arguments == &drops[..] {
            paste(&broker, &format!("rabbitmqctl clear_policy -p {name} countersign-overflow")).await;
        }
    }

    // The operator's policy that this test is about. rabbitmqctl reports the same as the management API.
    let cap = r#"'{"max-length":2,"message-ttl":1,"expires":86400000}'"#;
    paste(&broker, &format!("rabbitmqctl set_operator_policy -p {name} cap '.*' {cap} --apply-to queues"))
        .await;
    let who = "by the policy countersign-overflow or the operator policy cap";
    let told = [
        format!("countersign.commands drops commands that were confirmed after 1 ms, {who}"),
        format!(
            "countersign.commands is deleted, with all that is in it, when nobody has used it for 86400000 ms, {who}"
        ),
        "countersign.dead drops messages that people are to look at after 1 ms, by the operator policy cap"
            .to_owned(),
    ];
    for (args, env) in [(&asked[..], &[][..]), (&[][..], &control[..])] {
        let ran = eventually("the operator's policy to be told", async || {
            let ran = doctor(app.file(), args, env).await.ended_with(FAILED);
            let has = |words: &String| ran.stdout.contains(&format!("wrong  policies: {words}"));
            if told.iter().all(has) { Ok(ran) } else { Err(ran.stdout) }
        })
        .await;
        assert!(!ran.stdout.contains("countersign.commands drops its oldest"), "it refuses: {}", ran.stdout);
    }
    let ran = doctor(app.file(), &[], &[]).await;
    let found = line(&ran, "-      policies: ");
    assert!(
        found.contains("could not be looked at") && found.contains("no rabbitmqctl on this machine"),
        "{found}"
    );

    // Expired messages are not reported as rejected by workers.
    paste(&broker, &format!("rabbitmqctl set_operator_policy -p {name} cap '^{COMMANDS}$' '{{\"message-ttl\":1}}' --apply-to queues"))
        .await;
    app.restart().await;
    app.accept(&Callback::list("i", "t")).await;
    eventually("the command to expire", async || match vhost.depth("countersign.dead").await {
        Some(1) => Ok(()),
        depth => Err(depth),
    })
    .await;
    let ran = doctor(app.file(), &asked, &[]).await.ended_with(FAILED);
    let found = line(&ran, "risky  dead letters: ");
    assert!(
        found.contains("messages in countersign.dead: 1;") && found.contains("x-death of each says why"),
        "{found}"
    );
    assert!(!found.contains("were rejected by workers"), "{found}");
    let dead = vhost.take("countersign.dead").await;
    let headers = dead.properties.headers().as_ref().expect("headers").inner();
    let reason = AMQPValue::LongString("expired".into());
    assert_eq!(headers.get("x-first-death-reason"), Some(&reason));
    // RabbitMQ 4 leaves it out before the first delivery.
    let deliveries = headers.get("x-delivery-count");
    assert!(
        matches!(deliveries, None | Some(AMQPValue::LongLongInt(0))),
        "doctor has not taken it: {deliveries:?}"
    );
}

/// Runs a line as an operator would paste it, on the node's own machine.
async fn paste(broker: &Managed, line: &str) {
    let (line, control) = (line.to_owned(), broker.control());
    let ran =
        tokio::task::spawn_blocking(move || Command::new("sh").args(["-c", &line]).envs(control).output());
    let ran = ran.await.expect("no panic").expect("sh can be started");
    assert!(
        ran.status.success(),
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_let_us_in_is_told_with_the_line_that_mends_it() {
    let broker = Broker::managed().await;
    let vhost = broker.vhost();
    let (authority, name) = {
        let (rest, name) = vhost.url().rsplit_once('/').expect("a virtual host");
        (rest.split_once('@').expect("a user").1.to_owned(), name.to_owned())
    };
    let add =
        "ok = rabbit_auth_backend_internal:add_user(<<\"o'neill\">>, <<\"fake-hush\">>, <<\"tests\">>).";
    broker.eval(add.to_owned()).await;
    let config = |user: &str, path: &str| {
        let url = format!("amqp://{user}@{authority}/{path}");
        let config = Config::with_url(&url);
        let file = config.write();
        (config, file)
    };
    let management = broker.url();
    let asked = ["--management-url", management.as_str()];

    let (_config, file) = config("guest:fake-wrong", &name);
    let ran = doctor(&file, &asked, &[]).await.ended_with(FAILED);
    let found = line(&ran, "wrong  broker: ");
    assert!(
        found.contains("User or password is wrong") && found.contains("rabbitmqctl change_password 'guest'"),
        "{found}"
    );
    assert!(!found.contains(".."), "{found}");

    let (_config, file) = config("guest:guest", "team%2Fprod");
    let ran = doctor(&file, &asked, &[]).await.ended_with(FAILED);
    let found = line(&ran, "wrong  broker: ").to_owned();
    let (_, mend) = found.split_once("or make it: ").expect("a line to paste");
    assert!(mend.starts_with("rabbitmqctl add_vhost 'team/prod' && rabbitmqctl set_permissions"), "{mend}");
    paste(&broker, mend.strip_suffix(". Callbacks are still kept").expect("the end")).await;
    let ran = doctor(&file, &asked, &[]).await;
    assert!(line(&ran, "ok     broker: ").contains("/team%2fprod"), "{}", ran.stdout);

    // A user without permissions, then with those that the line grants, which are enough for serve.
    let (config, file) = config("o'neill:fake-hush", &name);
    let ran = doctor(&file, &asked, &[]).await.ended_with(FAILED);
    let found = line(&ran, "wrong  broker: ").to_owned();
    let (_, mend) = found.split_once("may not use this virtual host: ").expect("a line to paste");
    paste(&broker, mend.strip_suffix(". Callbacks are still kept").expect("the end")).await;
    let app = App::with(config).await;
    vhost.until_declared(COMMANDS).await;
    let id = app.accept(&Callback::list("i", "t")).await;
    Worker::on(&vhost).command(&id).await;
    let ran = doctor(&file, &asked, &[]).await.ended_with(DONE);
    let found = line(&ran, "-      policies: ");
    assert!(found.contains(r"rabbitmqctl set_user_tags 'o'\''neill' monitoring"), "{found}");
    assert!(!format!("{ran:?}").contains("fake-hush"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_url_is_tried_and_one_that_is_away_is_told() {
    let vhost = Vhost::new().await;
    let urls = format!("[{}, {}]", quoted(NOWHERE), quoted(vhost.url()));
    let config = Config::bare(NOWHERE).endpoint(crate::support::Endpoint::encrypted("purchase"));
    let text = config.toml().replace(&format!("url = {}", quoted(NOWHERE)), &format!("urls = {urls}"));
    let file = config.dir().join("several.toml");
    std::fs::write(&file, text).expect("the directory is ours");
    let ran = doctor(&file, &[], &[]).await;
    assert!(line(&ran, "risky  broker 1: ").contains("serve uses another URL meanwhile"), "{}", ran.stdout);
    assert!(line(&ran, "ok     broker 2: ").contains("connected to 127.0.0.1:"), "{}", ran.stdout);
}
