//! Commands that make the broker close the channel: they are parked, and everything else continues.

use crate::support::{App, Broker, Callback, Config, Worker, eventually};
use serde_json::Value;
use std::collections::BTreeSet;

/// The command from the console, once it is in this state.
async fn until_state(app: &App, id: &str, state: &str) -> Value {
    eventually(&format!("{id} {state}"), async || {
        let record = app.get(&format!("/api/v1/commands/{id}")).await.json();
        if record["state"] == state { Ok(record) } else { Err(record) }
    })
    .await
}

/// Sends good commands around a bad one, and checks that the good ones arrive and the bad one is parked with the
/// broker's words.
async fn the_others_go_on(app: &App, worker: &Worker, bad: impl Future<Output = String>, words: [&str; 2]) {
    let mut good = BTreeSet::new();
    for number in 0..5 {
        good.insert(app.accept(&Callback::list("i", &format!("before-{number}"))).await);
    }
    let bad = bad.await;
    for number in 0..5 {
        good.insert(app.accept(&Callback::list("i", &format!("after-{number}"))).await);
    }
    worker.commands(&good).await;
    let later = app.accept(&Callback::list("i", "later")).await;
    worker.command(&later).await;
    let record = until_state(app, &bad, "parked").await;
    let note = record["note"].as_str().unwrap_or_default();
    assert!(words.iter().all(|word| note.contains(word)), "{record}");
    assert_eq!(record["attempts"], 2, "{record}");
    let after = app.accept(&Callback::list("i", "at last")).await;
    worker.command(&after).await;
    app.until_metric("countersign_ledger_rows{state=\"pending\"}", 0.0).await;
    assert!(worker.seen().iter().all(|message| message.message_id() != bad));
    let told = app.log_lines().iter().filter(|line| line.to_string().contains("set aside, so that")).count();
    assert_eq!(told, 1, "what the operator must do is said once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_routing_key_is_refused_does_not_hold_up_the_others() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    broker.writable_topics(&vhost, "countersign.commands", "^approval[.]purchase[.]").await;
    let app = App::with(Config::new(&vhost).set("amqp", "max_attempts", "2")).await;
    let worker = Worker::on(&vhost);
    let bad = async { app.post("leave", Callback::list("i", "bad").plain()).await.command_id() };
    the_others_go_on(&app, &worker, bad, ["403 ACCESS_REFUSED", "approval.leave."]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_too_large_for_the_broker_does_not_hold_up_the_others() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    broker.max_message_size(8192).await;
    let app = App::with(Config::new(&vhost).set("amqp", "max_attempts", "2")).await;
    let worker = Worker::on(&vhost);
    let large = "x".repeat(20_000);
    let bad = async { app.accept(&Callback::list("i", "bad").with("reason", &*large)).await };
    the_others_go_on(&app, &worker, bad, ["406 PRECONDITION_FAILED", "message size"]).await;
    broker.max_message_size(134_217_728).await;
}
