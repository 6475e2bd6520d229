//! The emulator follows a real service: commands and reports are seen on its page, and nothing is taken from anybody.

use super::{
    Center, messages,
    outcomes::{config, report},
};
use crate::support::{App, Proxy, Vhost, Worker, client, eventually, quoted};
use serde_json::{Value, json};

async fn tap(center: &Center, number: u32) -> Value {
    let answer = client().get(format!("{}/emulator/taps/{number}", center.url)).send().await;
    answer.expect("it runs").json().await.expect("JSON")
}

async fn until_tap_has(center: &Center, number: u32, member: &str) -> Value {
    eventually(member, async || {
        let mut tap = tap(center, number).await;
        if tap[member].is_object() { Ok(tap[member].take()) } else { Err(tap) }
    })
    .await
}

async fn until_page_says(center: &Center, number: u32, words: &str) {
    eventually(words, async || {
        let page = client().get(format!("{}/taps/{number}?lang=en", center.url)).send().await;
        let page = page.expect("it runs").text().await.expect("a page");
        page.contains(words).then_some(()).ok_or(page)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_and_reports_of_a_real_service_are_seen_and_left_to_its_workers() {
    let vhost = Vhost::new().await;
    let mut proxy = Proxy::shut_before(vhost.address());
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("countersign.toml");
    let url = vhost.url_through(proxy.port());
    std::fs::write(&file, format!("[amqp]\nurl = {}\n", quoted(&url))).expect("written");
    let center = Center::with(&["--follow", "--config", file.to_str().expect("a plain path")], "").await;
    let app = App::with(config(&vhost, &center.url)).await;
    let worker = Worker::on(&vhost);
    let press = async || {
        let card = messages::send(&center, &messages::card(&app.callback_url("purchase"), false)).await;
        let told = center.press(&["--message", &card]).await.ended_with(0).json();
        let answer: Value = serde_json::from_str(told["answer"].as_str().expect("an answer")).expect("JSON");
        answer["data"]["command_id"].as_str().expect("a command").to_owned()
    };

    // What is published while it cannot follow is not seen later.
    let unseen = press().await;
    until_page_says(&center, 1, "the emulator has no connection to RabbitMQ now").await;
    worker.command(&unseen).await;
    proxy.open().await;
    until_page_says(&center, 1, "Kept, not yet seen at RabbitMQ").await;

    let id = press().await;
    let command = until_tap_has(&center, 2, "command").await;
    assert_eq!(command["routing_key"], "approval.purchase.-.approve", "{command}");
    worker.command(&id).await;
    let outcome = json!({ "schema": "approval.outcome/1", "command_id": id, "outcome": "refused", "message": "预算不足" });
    report(&vhost, outcome.to_string().as_bytes()).await;
    let seen = until_tap_has(&center, 2, "report").await;
    assert_eq!((&seen["outcome"], &seen["message"]), (&json!("refused"), &json!("预算不足")));
    eventually("the service has the report as well", async || {
        let kept = app.get(&format!("/api/v1/commands/{id}")).await.json()["outcome"].take();
        if kept["outcome"] == "refused" { Ok(()) } else { Err(kept) }
    })
    .await;
    assert_eq!(tap(&center, 1).await["command"], Value::Null);
}
