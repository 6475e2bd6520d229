//! Enrichment of commands from the approval center, and failures of the center.

use super::{Center, HOOK, instance};
use crate::support::{App, Callback, Config, Endpoint, Message, Vhost, Worker, quoted};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

const ALL: &str = "{ fields = [\"operator\", \"task\", \"instance\"], timeout = \"TIMEOUT\" }";

/// The endpoint `purchase` with enrichment, and `leave` without.
fn config(vhost: &Vhost, url: &str, timeout: &str) -> Config {
    Config::bare(vhost.url())
        .endpoint(Endpoint::encrypted("purchase").set("enrichment", &ALL.replace("TIMEOUT", timeout)))
        .endpoint(Endpoint::plain("leave"))
        .set("approval_center", "base_url", &quoted(url))
        .set("approval_center", "app_id", "\"cli_emulator\"")
        .set("approval_center", "app_secret", "\"emulator-secret\"")
        .set("reconcile", "every", "\"off\"")
}

/// A center that accepts connections but never answers.
async fn silent() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    (url, task)
}

fn enrichment(message: &Message) -> Value {
    message.json()["enrichment"].clone()
}

fn without(status: &str) -> Value {
    json!({ "status": status, "operator": null, "task": null, "instance": null })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_carries_what_the_center_knows_and_the_ledger_what_was_accepted() {
    let vhost = Vhost::new().await;
    let center = Center::start().await;
    let code = center.definition(HOOK).await;
    center.sync(&instance(&code, "PO-77", 1_790_000_000_001)).await;
    let app = App::with(config(&vhost, &center.url, "5s")).await;
    let worker = Worker::on(&vhost);
    let id = app.accept(&Callback::list("PO-77", "PO-77:n1")).await;
    let message = worker.command(&id).await;
    let ids = center.state().await["users"].clone();
    let user = ids.as_array().unwrap().iter().find(|user| user["user_id"] == "zhang3").unwrap().clone();
    assert_eq!(
        enrichment(&message),
        json!({
            "status": "complete",
            "operator": { "open_id": user["open_id"], "union_id": user["union_id"] },
            "task": { "status": "PENDING", "update_time": "2026-09-21T14:13:20.001Z" },
            "instance": { "status": "PENDING", "update_time": "2026-09-21T14:13:20.001Z", "approval_code": code },
        })
    );
    // The stored command is unchanged, and the rest of the message equals it byte for byte.
    let kept = app.get(&format!("/api/v1/commands/{id}")).await.json()["command"].clone();
    assert!(kept.get("enrichment").is_none(), "{kept}");
    let mut rest = message.json();
    rest.as_object_mut().unwrap().remove("enrichment");
    assert_eq!(rest, kept);
    let schema = Validator::of().await;
    assert_eq!(schema.faults(&message.json()), [""; 0]);

    // A task unknown to the center, and one without an id.
    let id = app.accept(&Callback::list("PO-77", "PO-77:n9")).await;
    let told = enrichment(&worker.command(&id).await);
    assert_eq!((&told["status"], &told["task"]), (&json!("partial"), &Value::Null), "{told}");
    assert_eq!(told["instance"]["status"], "PENDING");
    let id = app.accept(&Callback::card("PO-77", 7_123_456_789_012_345_678)).await;
    let told = enrichment(&worker.command(&id).await);
    assert_eq!((&told["status"], &told["instance"]), (&json!("partial"), &Value::Null), "{told}");
    assert_eq!(told["operator"]["open_id"], user["open_id"]);
    let id = app.post("leave", Callback::list("PO-77", "PO-77:n1").plain()).await.command_id();
    assert!(worker.command(&id).await.json().get("enrichment").is_none(), "only where it is configured");
    assert_eq!(app.metric("countersign_enrichments_total{status=\"complete\"}").await, Some(1.0));
    assert_eq!(app.metric("countersign_enrichments_total{status=\"partial\"}").await, Some(2.0));
}

/// The schema, as a worker has it.
struct Validator(jsonschema::Validator);

impl Validator {
    async fn of() -> Self {
        let schema = crate::support::Program::new(["schema"]).run().await.ended_with(0).json();
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        Self(options.build(&schema).expect("a sound schema"))
    }

    fn faults(&self, value: &Value) -> Vec<String> {
        self.0.iter_errors(value).map(|fault| fault.to_string()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_center_that_does_not_answer_holds_up_its_own_task_and_nobody_else() {
    let vhost = Vhost::new().await;
    let (url, _silent) = silent().await;
    let app = App::with(config(&vhost, &url, "3s")).await;
    let worker = Worker::on(&vhost);
    app.until_metric("countersign_amqp_connected", 1.0).await;
    let began = Instant::now();
    let first = app.accept(&Callback::list("PO-77", "PO-77:n1")).await;
    let second = app.accept(&Callback::list("PO-77", "PO-77:n1").action("REJECT")).await;
    let mut others = Vec::new();
    for number in 0..20 {
        let callback = Callback::list("L-1", &format!("L-1:{number}"));
        others.push(app.post("leave", callback.plain()).await.command_id());
    }
    for other in &others {
        worker.command(other).await;
    }
    let overtaken = began.elapsed();
    assert_eq!(worker.count(), others.len(), "all of them, and neither of the two, after {overtaken:?}");
    let told = enrichment(&worker.command(&second).await);
    assert_eq!(told, without("timed_out"));
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(3), "{waited:?}: it was waited for");
    let order: Vec<_> = worker.seen()[others.len()..].iter().map(Message::message_id).collect();
    assert_eq!(order, [first, second], "a task in its order, completed at the same time");
    assert_eq!(enrichment(&worker.seen()[others.len()]), without("timed_out"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_center_that_is_away_makes_commands_incomplete_and_not_late() {
    let vhost = Vhost::new().await;
    let app = App::with(config(&vhost, "http://127.0.0.1:1", "2s")).await;
    let worker = Worker::on(&vhost);
    let first = app.accept(&Callback::list("PO-77", "PO-77:n1")).await;
    assert_eq!(enrichment(&worker.command(&first).await), without("unavailable"));
    // Later commands do not wait to find out the same.
    for number in 0..40 {
        let id = app.accept(&Callback::list("PO-78", &format!("PO-78:{number}"))).await;
        assert_eq!(enrichment(&worker.command(&id).await), without("unavailable"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_published_as_fast_as_the_broker_takes_it() {
    let vhost = Vhost::new().await;
    let (url, _silent) = silent().await;
    // Kept while there is no broker, then published all at once.
    let app_config = config(&vhost, &url, "10s").set("amqp", "url", &quoted(crate::support::NOWHERE));
    let mut app = App::with(app_config).await;
    let mut kept = Vec::new();
    for number in 0..500 {
        kept.push(app.accept(&Callback::list("PO-77", &format!("PO-77:{number}"))).await);
    }
    app.kill();
    app.reconfigure(|config| config.set("amqp", "url", &quoted(vhost.url())));
    app.restart().await;
    let worker = Worker::on(&vhost);
    let before = worker.messages(400).await;
    let busy = before.iter().filter(|message| enrichment(message) == without("busy")).count();
    assert!(busy >= 400, "the first are waited for, the rest are not: {busy}");
    let wanted = kept.iter().cloned().collect();
    worker.commands(&wanted).await;
    let told: Vec<_> = worker.seen().iter().map(enrichment).collect();
    let count = |status: &str| told.iter().filter(|told| **told == without(status)).count();
    let (late, busy) = (count("timed_out"), count("busy"));
    assert!(
        (1..=64).contains(&late) && late + busy == 500,
        "64 are completed at a time: {late} late, {busy} busy"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn enrichment_comes_and_goes_with_a_reload_and_needs_a_center() {
    let vhost = Vhost::new().await;
    let center = Center::start().await;
    let app = App::with(config(&vhost, &center.url, "5s")).await;
    let worker = Worker::on(&vhost);
    let id = app.accept(&Callback::list("PO-77", "PO-77:n1")).await;
    assert_eq!(enrichment(&worker.command(&id).await)["status"], "partial");
    let toml = std::fs::read_to_string(app.file()).expect("the file is there");
    let off = toml.replace("[\"operator\", \"task\", \"instance\"]", "[]");
    assert_ne!(off, toml);
    std::fs::write(app.file(), off).expect("the directory is ours");
    reload(&app, 1.0).await;
    // The old relay may still have taken the next one; the new relay has not.
    let mut number = 1;
    crate::support::eventually("a command that is not completed", async || {
        number += 1;
        let id = app.accept(&Callback::list("PO-77", &format!("PO-77:n{number}"))).await;
        let message = worker.command(&id).await.json();
        if message.get("enrichment").is_none() { Ok(()) } else { Err(message) }
    })
    .await;

    let bare = Config::bare(vhost.url())
        .endpoint(Endpoint::encrypted("purchase").set("enrichment", &ALL.replace("TIMEOUT", "2s")));
    let file = bare.write();
    let checked = crate::support::Program::new(["config", "check"]).config(&file).run().await.ended_with(64);
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(
        said.contains("endpoints[0].enrichment.fields") && said.contains("needs the approval center"),
        "{said}"
    );
}

async fn reload(app: &App, times: f64) {
    let pid = app.pid().to_string();
    let sent = std::process::Command::new("kill").args(["-HUP", &pid]).status().expect("kill can be started");
    assert!(sent.success(), "SIGHUP to our own child");
    app.until_metric("countersign_config_reloads_total{result=\"applied\"}", times).await;
}
