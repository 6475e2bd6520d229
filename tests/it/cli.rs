//! The program as a tool: data on stdout, messages on stderr, exit codes 0, 1, 64, 69.

use crate::support::{
    App, Broker, Callback, Config, Endpoint, KEY, NOWHERE, Program, TOKEN, Vhost, Worker, eventually, open,
    seal,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const FAILED: i32 = 1;
const USAGE: i32 = 64;
const AWAY: i32 = 69;

/// Nobody listens there.
const CLOSED: &str = "http://127.0.0.1:1";

fn run(app_file: &Path, args: &[&str]) -> Program {
    Program::new(args).config(app_file).dir(app_file.parent().expect("a file in a directory"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_help_and_a_wrong_one_is_a_usage_error() {
    for args in [
        &["--help"][..],
        &["serve", "--help"],
        &["config", "check", "--help"],
        &["config", "show", "--help"],
        &["send", "--help"],
        &["tail", "--help"],
        &["ledger", "--help"],
        &["ledger", "list", "--help"],
        &["ledger", "show", "--help"],
        &["ledger", "stats", "--help"],
        &["ledger", "prune", "--help"],
        &["ledger", "requeue", "--help"],
        &["refusals", "--help"],
        &["encrypt", "--help"],
        &["decrypt", "--help"],
        &["keygen", "--help"],
        &["topology", "print", "--help"],
        &["healthcheck", "--help"],
        &["--version"],
    ] {
        let ran = Program::new(args).run().await.ended_with(0);
        assert!(ran.stdout.contains("countersign") && ran.stderr.is_empty(), "{args:?}: {ran:?}");
    }
    for args in [&["nonsense"][..], &["serve", "--nonsense"], &["send", "--origin", "nowhere"], &[]] {
        let ran = Program::new(args).run().await.ended_with(USAGE);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{args:?}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_send_prints_the_body_of_every_origin() {
    let file = Config::with_url(NOWHERE);
    let file = (file.write(), file);
    let cases = [
        ("list", &["instance_id", "task_id"][..], &["message_id", "id"][..]),
        ("card", &["message_id"], &["instance_id", "task_id", "id", "approval_code"]),
        ("search", &["id"], &["instance_id", "task_id", "message_id"]),
    ];
    for (origin, there, not_there) in cases {
        for endpoint in ["leave", "purchase"] {
            let args = [
                "send",
                "--endpoint",
                endpoint,
                "--origin",
                origin,
                "--action",
                "REJECT",
                "--context",
                "ctx 1",
            ];
            let args = [&args[..], &["--reason", "金额不符", "--dry-run"]].concat();
            let ran = run(&file.0, &args).run().await.ended_with(0);
            let mut body = ran.json();
            if endpoint == "purchase" {
                assert_eq!(body.as_object().unwrap().len(), 1, "nothing beside the ciphertext: {body}");
                body = serde_json::from_slice(&open(KEY, body["encrypt"].as_str().unwrap())).unwrap();
            }
            assert_eq!(
                (&body["action_type"], &body["action_context"], &body["reason"], &body["token"]),
                (&json!("REJECT"), &json!("ctx 1"), &json!("金额不符"), &json!(TOKEN))
            );
            for member in there {
                assert!(!body[*member].is_null(), "{origin} without {member}: {body}");
            }
            for member in not_there {
                assert!(body.get(member).is_none(), "{origin} with {member}: {body}");
            }
            assert!(
                origin != "card" || body["message_id"].is_u64(),
                "a number, as the platform sends it: {body}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn send_takes_no_task_that_contradicts_the_context() {
    let endpoint = Endpoint::plain("leave")
        .context("format", "['json', 'pattern', 'opaque']")
        .context("fields", "{ instance_id = '/i', task_id = '/t' }")
        .context("pattern", "'(?P<task_id>.+)!'");
    let config = Config::bare(NOWHERE).endpoint(endpoint);
    let config = (config.write(), config);
    let dry = async |args: &[&str]| {
        let all = [&["send", "--endpoint", "leave", "--dry-run"][..], args].concat();
        run(&config.0, &all).run().await
    };
    for (args, words) in [
        (
            &["--task", "n2", "--context", r#"{"i":"PO-77","t":"n3"}"#][..],
            ["--task says \"n2\"", "the task \"n3\""],
        ),
        (&["--task", "n2", "--context", "n3!"], ["--task says \"n2\"", "the task \"n3\""]),
        (
            &["--origin", "card", "--task", "n2", "--context", "n3!"],
            ["--task says \"n2\"", "the task \"n3\""],
        ),
        (
            &["--instance", "PO-78", "--context", r#"{"i":"PO-77"}"#],
            ["--instance says \"PO-78\"", "the instance \"PO-77\""],
        ),
        (&["--count", "2", "--context", "n3!"], ["a task of its own", "\"n3\" for all of them"]),
    ] {
        let ran = dry(args).await.ended_with(64);
        assert!(ran.stdout.is_empty(), "{args:?}: {}", ran.stdout);
        for words in words.into_iter().chain(["context_invalid", "Leave "]) {
            assert!(ran.stderr.contains(words), "{args:?} without {words:?}: {}", ran.stderr);
        }
    }

    for (args, instance, task) in [
        // By default, the context's ids.
        (&["--context", r#"{"i":"PO-77","t":"n3"}"#][..], Some("PO-77"), "n3"),
        (&["--context", r#"{"i":"PO-77","t":"n3"}"#, "--task", "n3"], Some("PO-77"), "n3"),
        (&["--context", "n3!", "--instance", "PO-78"], Some("PO-78"), "n3"),
        // The context names no task.
        (&["--context", "free text", "--task", "n2"], None, "n2"),
    ] {
        let body = dry(args).await.ended_with(0).json();
        assert_eq!(body["task_id"], task, "{args:?}: {body}");
        assert!(instance.is_none_or(|instance| body["instance_id"] == instance), "{args:?}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn send_plays_the_approval_center() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    for (count, (endpoint, origin)) in
        [("leave", "list"), ("purchase", "card"), ("purchase", "search")].into_iter().enumerate()
    {
        let context = format!("context {count}");
        let args = [
            "send",
            "--endpoint",
            endpoint,
            "--origin",
            origin,
            "--action",
            "APPROVE",
            "--context",
            &context,
        ];
        let ran = run(app.file(), &args).run().await.ended_with(0);
        let command = worker.messages(count + 1).await[count].json();
        assert_eq!((&command["endpoint"], &command["origin"]), (&json!(endpoint), &json!(origin)));
        assert_eq!(command["action_context"], context.as_str());
        let id = command["command_id"].as_str().unwrap();
        assert!(ran.stdout.contains(id), "it tells the command id: {}", ran.stdout);
        // A card identifies its task only by its context, and this context names none.
        let answer: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
        let named = if origin == "card" { &Value::Null } else { &command["task"]["task_id"] };
        assert_eq!(answer.get("task_id").unwrap_or(&Value::Null), named, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn send_with_a_count_sends_so_many_different_callbacks() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let ran = run(
        app.file(),
        &["send", "--endpoint", "purchase", "--origin", "list", "--count", "25", "--connections", "3"],
    )
    .run()
    .await
    .ended_with(0);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(
        lines.iter().any(|line| line.starts_with("25 sent in "))
            && lines.iter().any(|line| line.starts_with("latency in ms: ")),
        "{lines:?}"
    );
    let ids: BTreeSet<String> =
        worker.messages(25).await.iter().map(crate::support::Message::message_id).collect();
    assert_eq!(ids.len(), 25);
    app.until_metric("countersign_callbacks_total{endpoint=\"purchase\",outcome=\"accepted\"}", 25.0).await;
}

/// Nothing is sent further than a closed port of this machine, which is the proxy.
#[tokio::test(flavor = "multi_thread")]
async fn send_warns_when_token_or_callback_can_be_read_on_the_way() {
    let config = Config::with_url(NOWHERE);
    let file = config.write();
    let said = async |endpoint: &str, url: &str| {
        let args = ["send", "--endpoint", endpoint, "--url", url];
        run(&file, &args)
            .env("http_proxy", CLOSED)
            .env("https_proxy", CLOSED)
            .run()
            .await
            .ended_with(AWAY)
            .stderr
    };
    for host in ["far.example", "localhost.example.com", "10.0.0.7:8080"] {
        let (plain, sealed) = (
            said("leave", &format!("http://{host}")).await,
            said("purchase", &format!("http://{host}")).await,
        );
        assert!(plain.contains("no key: the token goes over the wire as it is"), "{host}: {plain}");
        assert!(sealed.contains("can capture callbacks and send them again"), "{host}: {sealed}");
    }
    for url in ["https://far.example", "http://127.0.0.1:1"] {
        let told = said("leave", url).await;
        assert!(!told.contains("warning"), "{url}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn send_fails_when_it_is_refused_and_says_when_nobody_is_there() {
    let mut app = App::with(Config::with_url(NOWHERE)).await;
    let refused = run(app.file(), &["send", "--endpoint", "leave", "--origin", "list", "--action", "HOLD"]);
    let refused = refused.run().await.ended_with(FAILED);
    assert!(format!("{}{}", refused.stdout, refused.stderr).contains("action_not_allowed"), "{refused:?}");
    let downgraded =
        run(app.file(), &["send", "--endpoint", "purchase", "--plain"]).run().await.ended_with(FAILED);
    assert!(
        format!("{}{}", downgraded.stdout, downgraded.stderr).contains("unauthenticated"),
        "{downgraded:?}"
    );
    app.kill();
    run(app.file(), &["send", "--endpoint", "leave", "--origin", "list"]).run().await.ended_with(AWAY);
    run(app.file(), &["send", "--endpoint", "nowhere", "--origin", "list"]).run().await.ended_with(USAGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_is_decrypted_again_and_by_anybody_who_has_the_key() {
    let config = Config::with_url(NOWHERE);
    let file = config.write();
    let text = "{\"reason\":\"同意\"}";
    let encrypt = async |more: &[&str]| {
        let args = [&["encrypt", "--endpoint", "purchase"][..], more].concat();
        run(&file, &args).stdin(text).run().await.ended_with(0)
    };
    let body = encrypt(&[]).await.json();
    assert_eq!(open(KEY, body["encrypt"].as_str().unwrap()), text.as_bytes());
    let raw = encrypt(&["--raw"]).await.stdout;
    assert_eq!(open(KEY, &raw), text.as_bytes());
    assert_ne!(Some(raw.trim()), body["encrypt"].as_str(), "a fresh IV each time");
    for sealed in [body.to_string(), raw, seal(KEY, text.as_bytes())] {
        let decrypt = run(&file, &["decrypt", "--endpoint", "purchase"]).stdin(sealed);
        assert_eq!(decrypt.run().await.ended_with(0).stdout.trim_end_matches('\n'), text);
    }
    let elsewhere = Program::new(["decrypt"]).env("COUNTERSIGN_ACTION_CALLBACK_KEY", KEY).dir(config.dir());
    let opened = elsewhere.stdin(seal(KEY, text.as_bytes())).run().await.ended_with(0).stdout;
    assert_eq!(opened.trim_end_matches('\n'), text);
}

/// P1 of platform.md#test-vectors, the only vector that the platform itself published.
#[tokio::test(flavor = "multi_thread")]
async fn the_published_vector_is_decrypted_and_a_spoilt_one_is_not() {
    let endpoint = Endpoint::plain("p1").credentials(&[("fake-token", Some("test key"))]);
    let config = Config::bare(NOWHERE).endpoint(endpoint);
    let file = config.write();
    let vector = "P37w+VZImNgPEO1RBhJ6RtKl7n6zymIbEG1pReEzghk=";
    let ran = run(&file, &["decrypt", "--endpoint", "p1"]).stdin(vector).run().await.ended_with(0);
    assert_eq!(ran.stdout.trim_end_matches('\n'), "hello world");
    let spoilt = vector.replace("zghk=", "zgak=");
    let ran = run(&file, &["decrypt", "--endpoint", "p1"]).stdin(spoilt).run().await.ended_with(FAILED);
    assert_eq!(ran.stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_secrets_are_long_and_never_the_same() {
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let ran = Program::new(["keygen"]).run().await.ended_with(0);
        let made: toml::Table = ran.stdout.parse().unwrap();
        for key in ["action_callback_token", "action_callback_key"] {
            let secret = made["credentials"][0][key].as_str().unwrap();
            assert!(secret.len() >= 32, "{}", ran.stdout);
            assert!(seen.insert(secret.to_owned()), "twice the same");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_topology_is_that_of_the_contract_and_a_broker_takes_it() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    let config = Config::new(&vhost).set("amqp", "topology", "\"check\"");
    let ran = run(&config.write(), &["topology", "print"]).run().await.ended_with(0);
    let definitions = ran.json();
    let named = |kind: &str, name: &str| -> Value {
        let all = definitions[kind].as_array().unwrap_or_else(|| panic!("no {kind} in {definitions}"));
        all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name} in {kind}")).clone()
    };
    let commands = named("exchanges", "countersign.commands");
    assert_eq!((&commands["type"], &commands["durable"]), (&json!("topic"), &json!(true)));
    assert_eq!(commands["arguments"]["alternate-exchange"], "countersign.unrouted");
    assert_eq!(named("exchanges", "countersign.unrouted")["type"], "fanout");
    assert_eq!(named("exchanges", "countersign.dead")["durable"], true);
    let queue = named("queues", "countersign.commands");
    assert_eq!(queue["arguments"]["x-queue-type"], "quorum");
    assert_eq!(queue["arguments"]["x-dead-letter-exchange"], "countersign.dead");
    named("queues", "countersign.unrouted");
    named("queues", "countersign.dead");
    let bindings = definitions["bindings"].as_array().unwrap();
    for (source, key) in
        [("countersign.commands", Some("#")), ("countersign.unrouted", None), ("countersign.dead", None)]
    {
        let found = bindings.iter().any(|binding| {
            binding["source"] == source
                && binding["destination"] == source
                && key.is_none_or(|key| binding["routing_key"] == key)
        });
        assert!(found, "no binding of {source} in {definitions}");
    }
    let path = config.dir().join("definitions.json");
    std::fs::write(&path, &ran.stdout).unwrap();
    broker.import(&path).await;
    let app = App::with(config).await;
    let id = app.accept(&Callback::list("i", "t")).await;
    Worker::on(&vhost).command(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_listed_shown_and_counted_while_the_service_runs() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let first = app.accept(&Callback::list("i", "t1")).await;
    let second = app.accept(&Callback::list("i", "t2")).await;
    let listed = run(app.file(), &["ledger", "list"]).run().await.ended_with(0).stdout;
    assert!(listed.contains(&first) && listed.contains(&second), "{listed}");
    let json = run(app.file(), &["ledger", "list", "--json"]).run().await.ended_with(0).stdout;
    assert!(json.contains(&first) && json.contains(&second), "{json}");
    let shown = run(app.file(), &["ledger", "show", &first]).run().await.ended_with(0).stdout;
    assert!(shown.contains(&first) && shown.contains("t1") && shown.contains("pending"), "{shown}");
    let shown = run(app.file(), &["ledger", "show", &first, "--json"]).run().await.ended_with(0).json();
    assert_eq!((&shown["command_id"], &shown["command"]["task"]["task_id"]), (&json!(first), &json!("t1")));
    let stats = run(app.file(), &["ledger", "stats", "--json"]).run().await.ended_with(0).json();
    assert_eq!((&stats["pending"], &stats["published"], &stats["parked"]), (&json!(2), &json!(0), &json!(0)));
    let missing = ["ledger", "show", "019a0000-0000-7000-8000-000000000001"];
    run(app.file(), &missing).run().await.ended_with(FAILED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requeued_command_is_published_again_under_the_same_id() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let id = app.accept(&Callback::list("i", "t")).await;
    worker.command(&id).await;
    app.until_metric("countersign_ledger_rows{state=\"published\"}", 1.0).await;
    run(app.file(), &["ledger", "requeue", &id]).run().await.ended_with(0);
    let messages = worker.messages(2).await;
    assert_eq!((messages[0].message_id(), messages[1].message_id()), (id.clone(), id.clone()));
    assert_eq!(messages[0].body, messages[1].body);
    app.until_metric("countersign_ledger_rows{state=\"published\"}", 1.0).await;
    app.until_metric("countersign_ledger_rows{state=\"pending\"}", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_published_commands_are_pruned_by_hand_and_what_is_parked_stays() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let id = app.accept(&Callback::list("i", "t")).await;
    app.until_metric(r#"countersign_ledger_rows{state="published"}"#, 1.0).await;
    let told = run(app.file(), &["ledger", "prune", "--dry-run", "--json"]).run().await.ended_with(0).json();
    assert_eq!((&told["prunable"], &told["pruned"]), (&json!(0), &json!(0)), "received a moment ago");
    let text = run(app.file(), &["ledger", "prune", "--older-than", "1m"]).run().await.ended_with(0).stdout;
    assert!(text.starts_with("0 published commands received before 20"), "{text}");
    run(app.file(), &["ledger", "prune", "--older-than", "soon"]).run().await.ended_with(64);
    run(app.file(), &["ledger", "show", &id]).run().await.ended_with(0);
    let stats = run(app.file(), &["ledger", "stats", "--json"]).run().await.ended_with(0).json();
    assert!(stats["free_bytes"].as_u64() > Some(0) && stats["size_bytes"].as_u64() > Some(0), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_tells_by_its_exit_code() {
    let mut app = App::with(Config::with_url(NOWHERE)).await;
    run(app.file(), &["healthcheck"]).run().await.ended_with(0);
    app.kill();
    let ran = run(app.file(), &["healthcheck"]).run().await.ended_with(AWAY);
    assert!(!ran.stderr.is_empty(), "it says why");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_follows_the_commands_and_takes_none_from_the_workers() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    worker.command(&app.accept(&Callback::list("i", "before")).await).await;
    let mut tail = run(app.file(), &["tail"]).start();
    eventually("the word `ready`", async || {
        assert_eq!(tail.exit_code(), None, "{:?}", tail.lines());
        let lines = tail.lines();
        if lines.iter().any(|line| line.contains("ready")) { Ok(()) } else { Err(lines) }
    })
    .await;
    let accepted = [
        app.accept(&Callback::list("i", "first")).await,
        app.accept(&Callback::list("i", "second").action("REJECT")).await,
    ];
    let told = eventually("two commands on the tail", async || {
        let lines = tail.lines();
        let json = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let commands: Vec<Value> = json.filter(|value| value["schema"] == "approval.command/1").collect();
        if commands.len() == 2 { Ok(commands) } else { Err(lines) }
    })
    .await;
    for (command, id) in told.iter().zip(&accepted) {
        assert_eq!(*command, worker.command(id).await.json(), "the same as the worker's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_says_when_the_broker_is_away() {
    let config = Config::with_url(NOWHERE);
    let ran = run(&config.write(), &["tail"]).run().await.ended_with(AWAY);
    assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{ran:?}");
}
