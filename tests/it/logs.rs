//! What is logged, and what never is.

use crate::support::{
    App, Callback, Config, Endpoint, KEY, NOWHERE, TOKEN, Vhost, Worker, command, eventually,
};
use serde_json::Value;

/// Base64 of a key that signs commands.
const SIGNING: &str = "c2lnbmluZy1mYWtlLWZha2UtZmFrZS1mYWtlLWZha2U=";

#[tokio::test(flavor = "multi_thread")]
async fn away_from_a_terminal_every_line_is_a_json_object() {
    let vhost = Vhost::new().await;
    let mut app = App::start(&vhost).await;
    Worker::on(&vhost).command(&app.accept(&Callback::list("i", "t")).await).await;
    app.terminate();
    app.ended().await;
    let log = app.stderr();
    for line in log.lines() {
        let parsed: Result<Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok_and(|value| value.is_object()), "not a JSON object: {line}");
    }
    assert!(!log.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_callback_has_one_line_with_endpoint_outcome_and_duration() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let id = app.accept(&Callback::list("i", "t")).await;
    app.post("leave", Callback::list("i", "t").action("HOLD").plain()).await;
    app.post("nowhere", Callback::list("i", "t").plain()).await;
    let about = |endpoint: &str, word: &str| -> Vec<Value> {
        let lines = app.log_lines().into_iter();
        lines.filter(|line| line["endpoint"] == endpoint && line.to_string().contains(word)).collect()
    };
    eventually("a line for each of three callbacks", async || {
        let found =
            [about("purchase", &id), about("leave", "action_not_allowed"), about("-", "unauthenticated")];
        if found.iter().all(|lines| !lines.is_empty()) { Ok(()) } else { Err(app.stderr()) }
    })
    .await;
    for lines in [about("purchase", &id), about("leave", "action_not_allowed"), about("-", "unauthenticated")]
    {
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = lines[0].as_object().unwrap();
        assert!(line.keys().any(|key| key.starts_with("duration")), "{line:?}");
    }
}

/// At every level, from the broker connection to the parser, the log contains no configured secret and no received
/// ciphertext. At `info` it contains no context either.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_ciphertext_is_logged_at_any_level_and_no_context_at_info() {
    for filter in ["info", "trace"] {
        let vhost = Vhost::new().await;
        let config = Config::with_url(vhost.url())
            .endpoint(Endpoint::plain("strict").set("on_conflict", "\"refuse\""))
            .set("admin", "token", "\"fake-admin-token\"")
            .set("amqp.signing", "keys", &format!("[ {{ secret = \"whsec_{SIGNING}\" }} ]"))
            .set("log", "filter", &format!("\"{filter}\""));
        let mut app = App::with(config).await;
        let callback = Callback::list("i", "t").context("a-private-context");
        let sealed = callback.encrypted(KEY);
        let id = app.post("purchase", sealed.clone()).await.command_id();
        Worker::on(&vhost).command(&id).await;
        let attempts = [
            ("purchase", callback.clone().token("guessed-token").encrypted(KEY)),
            ("purchase", callback.encrypted("guessed-key")),
            ("leave", callback.clone().raw("user_id", "{}").plain()),
            ("leave", callback.plain()[..80].to_vec()),
            ("strict", callback.plain()),
            ("strict", callback.clone().action("REJECT").plain()),
        ];
        for (endpoint, body) in attempts {
            app.post(endpoint, body).await;
        }
        app.get_as("fake-admin-token", "/api/v1/commands").await;
        app.get_as("guessed-admin-token", "/api/v1/commands").await;
        app.terminate();
        app.ended().await;
        let log = app.stderr();
        let outer: Value = serde_json::from_slice(&sealed).unwrap();
        let ciphertext = &outer["encrypt"].as_str().unwrap()[..40];
        for secret in [TOKEN, KEY, "fake-admin-token", SIGNING, "guessed-", ciphertext] {
            assert!(!log.contains(secret), "{secret} is in the log at {filter}: {}", around(&log, secret));
        }
        assert!(
            filter != "info" || !log.contains("a-private-context"),
            "{}",
            around(&log, "a-private-context")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_password_is_not_logged_while_it_is_away() {
    let url = "amqp://fake-user:fake-amqp-password@127.0.0.1:1/%2f";
    let mut app = App::with(Config::with_url(url).set("log", "filter", "\"debug\"")).await;
    eventually("a word about the connection", async || {
        let log = app.stderr();
        if log.to_lowercase().contains("connect") { Ok(()) } else { Err(log) }
    })
    .await;
    app.terminate();
    app.ended().await;
    assert!(!app.stderr().contains("fake-amqp-password"), "{}", around(&app.stderr(), "fake-amqp-password"));
}

/// lapin itself would print a returned message with its whole body.
#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_returned_message_is_not_logged() {
    let vhost = Vhost::new().await;
    let (_connection, channel) = vhost.channel().await;
    let durable = lapin::options::ExchangeDeclareOptions { durable: true, ..Default::default() };
    let arguments = lapin::types::FieldTable::default();
    channel.exchange_declare("unbound".into(), lapin::ExchangeKind::Topic, durable, arguments).await.unwrap();
    let config = Config::new(&vhost)
        .set("amqp", "topology", "\"none\"")
        .set("amqp", "exchange", "\"unbound\"")
        .set("amqp", "queue", "\"unbound\"");
    let mut app = App::with(config).await;
    app.accept(&Callback::list("i", "t").context("a-private-context").with("reason", "a-private-reason"))
        .await;
    eventually("a returned message", async || {
        match app.metric("countersign_publishes_total{result=\"returned\"}").await {
            Some(count) if count > 0.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    app.terminate();
    app.ended().await;
    let log = app.stderr();
    for private in ["a-private-context", "a-private-reason"] {
        assert!(!log.contains(private), "{}", around(&log, private));
    }
    vhost.delete_exchange("unbound").await;
}

/// The lines of the log that contain a word.
fn around(log: &str, word: &str) -> String {
    log.lines().filter(|line| line.contains(word)).take(3).collect::<Vec<_>>().join("\n")
}

/// A reload turns them off and on; the ledger always has them.
#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_callbacks_say_who_decided_about_what_unless_that_is_turned_off() {
    let mut app = App::with(Config::with_url(NOWHERE)).await;
    let about = |line: &Value| -> Vec<Value> {
        ["user_id", "instance_id", "task_id"].iter().filter_map(|name| line.get(name)).cloned().collect()
    };
    let lines = async |app: &App, wanted: usize| {
        eventually("the lines of the callbacks", async || {
            let of_callback =
                |line: &Value| matches!(line["message"].as_str(), Some("callback kept" | "callback refused"));
            let found: Vec<Value> = app.log_lines().into_iter().filter(of_callback).collect();
            if found.len() == wanted { Ok(found) } else { Err(found) }
        })
        .await
    };
    let press = async |app: &App, task: &str| {
        app.accept(&Callback::list("PO-77", task)).await;
        app.post("leave", Callback::list("PO-77", task).action("HOLD").plain()).await;
    };
    press(&app, "first-task").await;
    let told = lines(&app, 2).await;
    assert_eq!(
        told.iter().map(about).collect::<Vec<_>>(),
        [["zhang3", "PO-77", "first-task"]; 2],
        "{told:?}"
    );
    app.reconfigure(|config| config.set("log", "identities", "false"));
    app.signal("HUP");
    app.until_metric("countersign_config_reloads_total{result=\"applied\"}", 1.0).await;
    press(&app, "second-task").await;
    let told = lines(&app, 4).await;
    assert!(told[2..].iter().all(|line| about(line).is_empty()), "{told:?}");
    app.terminate();
    app.ended().await;
    assert!(!app.stderr().contains("second-task"), "{}", around(&app.stderr(), "second-task"));
}

/// systemd passes the device and inode of the journal's socket; a file of ours replaces it.
#[tokio::test(flavor = "multi_thread")]
async fn lines_for_the_journal_begin_with_their_priority_and_others_do_not() {
    use std::os::unix::fs::MetadataExt;
    let config = Config::with_url(NOWHERE).set("http", "listen", "\"127.0.0.1:0\"").set(
        "admin",
        "listen",
        "\"127.0.0.1:0\"",
    );
    let file = config.write();
    for redirected in [false, true] {
        let path = config.dir().join(format!("log-{redirected}"));
        let stderr = std::fs::File::create(&path).unwrap();
        let metadata = stderr.metadata().unwrap();
        let inode = if redirected { metadata.ino() + 1 } else { metadata.ino() };
        let mut child = command()
            .arg("serve")
            .env("COUNTERSIGN_CONFIG", &file)
            .env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev()))
            .stdin(std::process::Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let log = eventually("a line at info and one at warn", async || {
            let log = std::fs::read_to_string(&path).unwrap();
            let both = ["\"INFO\"", "\"WARN\""].iter().all(|level| log.contains(level));
            if both && log.ends_with('\n') { Ok(log) } else { Err(log) }
        })
        .await;
        child.kill().unwrap();
        child.wait().unwrap();
        for line in log.lines() {
            let (priority, rest) = line.split_at(if redirected { 0 } else { 3 });
            let parsed: Value = serde_json::from_str(rest).unwrap_or_else(|_| panic!("{redirected}: {line}"));
            let wanted = match parsed["level"].as_str().unwrap() {
                "ERROR" => "<3>",
                "WARN" => "<4>",
                "INFO" => "<6>",
                other => panic!("{other}: {line}"),
            };
            assert!(redirected || priority == wanted, "{line}");
        }
    }
}
