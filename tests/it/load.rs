//! `send` as a load generator, and `bench disk`.

use crate::support::{App, Config, NOWHERE, Program, Vhost, Worker, eventually, free_port};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const FAILED: i32 = 1;
const USAGE: i32 = 64;
const AWAY: i32 = 69;

fn run(app_file: &Path, args: &[&str]) -> Program {
    Program::new(args).config(app_file).dir(app_file.parent().expect("a file in a directory"))
}

fn summary(stdout: &str) -> Value {
    let mut told: Value = serde_json::from_str(stdout)
        .unwrap_or_else(|fault| panic!("one JSON line and nothing else ({fault}): {stdout}"));
    told["summary"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_sends_so_many_in_each_second_whatever_the_answers_do() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    for endpoint in ["purchase", "leave"] {
        let args = ["send", "--endpoint", endpoint, "--rate", "150", "--duration", "2s", "--json"];
        let told = summary(&run(app.file(), &args).run().await.ended_with(0).stdout);
        assert_eq!((&told["sent"], &told["accepted"]), (&json!(300), &json!(300)), "{told}");
        assert_eq!((&told["rate_wanted"], &told["connections"]), (&json!(150.0), &json!(64)));
        assert_eq!((&told["unsent"], &told["answers"]), (&json!(0), &json!({ "accepted": 300 })));
        // The last one is due just before the two seconds are over.
        let elapsed = told["elapsed_ms"].as_f64().unwrap();
        assert!(elapsed >= 1990.0, "{told}");
        let [p50, p99, max] = ["p50", "p99", "max"].map(|name| told["latency_us"][name].as_u64().unwrap());
        assert!(0 < p50 && p50 <= p99 && p99 <= max, "{told}");
        assert_eq!(told["verify"], Value::Null);
    }
    let rows = app.metric("countersign_callbacks_total{endpoint=\"purchase\",outcome=\"accepted\"}").await;
    assert_eq!(rows, Some(300.0), "each is about a task of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latency_counts_from_the_moment_when_a_callback_was_due() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // Answers one request every 50 ms, over one connection: 20 per second, while 100 are due.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 8192];
        while stream.read(&mut buffer).await.unwrap_or(0) > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let body = r#"{"code":0,"msg":"success","data":{"command_id":"x","status":"accepted"}}"#;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let config = Config::with_url(NOWHERE);
    let args =
        ["send", "--endpoint", "leave", "--rate", "100", "--count", "40", "--connections", "1", "--json"];
    let ran = run(&config.write(), &[&args[..], &["--url", &url]].concat()).run().await.ended_with(0);
    let told = summary(&ran.stdout);
    assert_eq!(told["accepted"], 40, "{told}");
    // The last is due after 390 ms and cannot be answered before 2000 ms; sent one at a time it would take 50 ms.
    let [min, p50, max] = ["min", "p50", "max"].map(|name| told["latency_us"][name].as_u64().unwrap());
    assert!(min >= 49_000 && p50 >= 500_000 && max >= 1_500_000, "{told}");
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_accounts_for_every_id_and_takes_none_from_the_workers() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    for (endpoint, origin) in [("purchase", "list"), ("leave", "card"), ("purchase", "search")] {
        let args =
            ["send", "--endpoint", endpoint, "--origin", origin, "--count", "200", "--connections", "8"];
        let ran = run(app.file(), &[&args[..], &["--verify", "--json"]].concat()).run().await.ended_with(0);
        let told = summary(&ran.stdout);
        let account = json!({
            "answered": 200, "arrived": 200, "missing": 0, "duplicated": 0, "unanswered": 0, "missing_ids": []
        });
        assert_eq!(told["verify"], account, "{endpoint} {origin}");
    }
    let ids: BTreeSet<String> =
        worker.messages(600).await.iter().map(crate::support::Message::message_id).collect();
    assert_eq!(ids.len(), 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_can_empty_the_configured_queue_but_not_under_the_hands_of_others() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    app.until_metric("countersign_amqp_connected", 1.0).await;
    let args = ["send", "--endpoint", "purchase", "--count", "100", "--verify", "queue", "--json"];
    let told = summary(&run(app.file(), &args).run().await.ended_with(0).stdout);
    assert_eq!((&told["verify"]["arrived"], &told["verify"]["missing"]), (&json!(100), &json!(0)));
    eventually("an empty queue", async || match vhost.depth("countersign.commands").await {
        Some(0) => Ok(()),
        depth => Err(depth),
    })
    .await;
    let unread = ["send", "--endpoint", "purchase"];
    run(app.file(), &unread).run().await.ended_with(0);
    eventually("a command in the queue", async || match vhost.depth("countersign.commands").await {
        Some(1) => Ok(()),
        depth => Err(depth),
    })
    .await;
    let ran = run(app.file(), &args).run().await.ended_with(FAILED);
    assert!(ran.stderr.contains("is in use: 1 message,"), "{ran:?}");
    assert_eq!(vhost.depth("countersign.commands").await, Some(1), "left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_what_is_missing_and_fails() {
    let (here, elsewhere) = (Vhost::new().await, Vhost::new().await);
    let (app, other) = (App::start(&here).await, App::start(&elsewhere).await);
    other.until_metric("countersign_amqp_connected", 1.0).await;
    // Sent to one instance, while verification reads from the other's broker.
    let url = format!("http://{}", app.public());
    let args =
        ["send", "--endpoint", "purchase", "--task", "lost", "--count", "12", "--url", &url, "--verify"];
    let args = [&args[..], &["--verify-wait", "1s", "--json"]].concat();
    let told = summary(&run(other.file(), &args).run().await.ended_with(FAILED).stdout);
    let account = &told["verify"];
    assert_eq!(
        (&account["answered"], &account["arrived"], &account["missing"]),
        (&json!(12), &json!(0), &json!(12))
    );
    assert_eq!(account["missing_ids"][1], "lost-2");
    assert_eq!(account["missing_ids"].as_array().unwrap().len(), 10, "enough to look for, and no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_refused_or_finds_nobody_says_so_by_its_exit_code() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let args = ["send", "--endpoint", "leave", "--action", "HOLD", "--count", "30", "--summary", "--json"];
    let told = summary(&run(app.file(), &args).run().await.ended_with(FAILED).stdout);
    assert_eq!((&told["refused"], &told["answers"]), (&json!(30), &json!({ "action_not_allowed": 30 })));
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let args = ["send", "--endpoint", "leave", "--rate", "10", "--duration", "1s", "--url", &nobody];
    let ran = run(app.file(), &args).run().await.ended_with(AWAY);
    assert!(ran.stderr.contains("refused") && ran.stdout.is_empty(), "{ran:?}");
    for wrong in [&["--rate", "0"][..], &["--duration", "5"], &["--connections", "0"], &["--verify", "all"]] {
        run(app.file(), &[&["send", "--endpoint", "leave"], wrong].concat()).run().await.ended_with(USAGE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_is_measured_and_left_as_it_was() {
    let config = Config::with_url(NOWHERE);
    let file = config.write();
    let names = || -> BTreeSet<_> {
        std::fs::read_dir(config.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let before = names();
    let ran = run(&file, &["bench", "disk", "--each", "200ms", "--json"]).run().await.ended_with(0);
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(Path::new(told["directory"].as_str().unwrap()), config.dir());
    let sync = &told["sync"];
    assert!(sync["per_second"].as_u64() > Some(0) && sync["p50_us"].as_u64() > Some(0), "{told}");
    let commits = told["group_commit"].as_array().unwrap();
    let waiters: Vec<_> = commits.iter().map(|commit| commit["waiters"].as_u64().unwrap()).collect();
    assert_eq!(waiters, [1, 16, 64, 256]);
    for commit in commits {
        assert!(commit["per_second"].as_u64() > Some(0) && commit["p99_us"].as_u64() > Some(0), "{told}");
    }
    let (message, grown) = (&told["message_bytes"], &told["ledger_bytes_per_command"]);
    assert!(message.as_u64() > Some(500) && grown.as_u64() > message.as_u64(), "{told}");
    assert_eq!(names(), before, "nothing is left behind, and no ledger is made");
    let words = run(&file, &["bench", "disk", "--each", "100ms"]).run().await.ended_with(0).stdout;
    assert!(words.contains("one sync of 4 KiB") && words.contains("KEPT PER SECOND"), "{words}");
    let nowhere = ["bench", "disk", "--directory", "/nowhere/at/all"];
    run(&file, &nowhere).run().await.ended_with(FAILED);
}
