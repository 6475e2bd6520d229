//! Duplicates and conflicts: which callbacks are one decision, and which contradict each other.

use crate::refuse::assert_refused;
use crate::support::{App, Callback, Config, Endpoint, KEY, NOWHERE, Vhost, Worker};
use serde_json::{Value, json};

/// An endpoint whose contexts contain the task and its round.
fn rounds(name: &str) -> Endpoint {
    Endpoint::plain(name)
        .context("format", "\"json\"")
        .context("fields", r#"{ task_id = "/t", instance_id = "/i", round = "/r" }"#)
}

/// Once this is published, so is everything sent before, because the relay keeps the order of acceptance.
async fn marker(app: &App, worker: &Worker, name: &str) {
    let id = app.post("leave", Callback::list("marker", name).plain()).await.command_id();
    worker.command(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_callback_twice_is_one_command_and_one_message() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let callback = Callback::card("ctx", 7_690_275_278_685_244_603);
    let first = app.post("purchase", callback.encrypted(KEY)).await;
    let again = app.post("purchase", callback.encrypted(KEY)).await;
    assert_eq!((first.status_word().as_str(), again.status_word().as_str()), ("accepted", "duplicate"));
    assert_eq!((again.status, again.command_id()), (200, first.command_id()));
    marker(&app, &worker, "m").await;
    let ids: Vec<String> = worker.seen().iter().map(crate::support::Message::message_id).collect();
    assert_eq!(ids.iter().filter(|id| **id == first.command_id()).count(), 1, "{ids:?}");
    assert_eq!(ids.len(), 2, "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_at_the_same_moment_is_one_command() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let callback = Callback::list("i", "t");
    let mut posts = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (client, url, body) = (app.client(), app.callback_url("purchase"), callback.encrypted(KEY));
        posts.spawn(async move { crate::support::post(&client, &url, body).await.expect("an answer") });
    }
    let answers = posts.join_all().await;
    let accepted = answers.iter().filter(|answer| answer.status_word() == "accepted").count();
    let duplicates = answers.iter().filter(|answer| answer.status_word() == "duplicate").count();
    assert_eq!((accepted, duplicates), (1, 15));
    assert!(answers.iter().all(|answer| answer.command_id() == answers[0].command_id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_that_differs_only_in_reason_or_unknown_members_is_the_same() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let callback = Callback::list("i", "t");
    let first = app.post("leave", callback.plain()).await.command_id();
    for other in [callback.clone().with("reason", "ok"), callback.clone().with("new_member", 1)] {
        let again = app.post("leave", other.plain()).await;
        assert_eq!((again.status_word().as_str(), again.command_id()), ("duplicate", first.clone()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_names_another_decision_makes_another_command() {
    let config = Config::with_url(NOWHERE).endpoint(Endpoint::plain("other"));
    let app = App::with(config).await;
    let base = Callback::list("i", "t").context("c");
    let variants = [
        ("leave", base.clone()),
        ("other", base.clone()),
        ("leave", base.clone().context("d")),
        ("leave", base.clone().with("instance_id", "i2")),
        ("leave", base.clone().with("task_id", "t2")),
        ("leave", base.clone().with("id", "t")),
        ("leave", base.clone().with("message_id", 7)),
        ("leave", base.clone().operator("li4")),
        ("leave", base.clone().action("REJECT")),
    ];
    for (endpoint, callback) in variants {
        let answer = app.post(endpoint, callback.plain()).await;
        assert_eq!(answer.status_word(), "accepted", "{callback:?}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_round_a_callback_is_a_repeat_only_within_the_window() {
    let endpoint = Endpoint::plain("short").set("dedupe_window", "\"300ms\"");
    let app = App::with(Config::bare(NOWHERE).endpoint(endpoint)).await;
    let body = Callback::list("i", "t").plain();
    let first = app.post("short", body.clone()).await.command_id();
    // Repeat it until it becomes a new command, after the window; it must not stay a duplicate forever.
    let second = crate::support::eventually("a new command after the window", async || {
        let answer = app.post("short", body.clone()).await;
        if answer.status_word() == "accepted" { Ok(answer.command_id()) } else { Err(answer.text()) }
    })
    .await;
    assert_ne!(first, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_round_a_callback_is_a_repeat_for_ever_and_a_new_round_is_a_new_decision() {
    let config = Config::bare(NOWHERE).endpoint(rounds("rounds").set("dedupe_window", "\"1ms\""));
    let app = App::with(config).await;
    let round = |number: u32| {
        Callback::card("", 7)
            .context(&json!({"t": "t1", "i": "i1", "r": number.to_string()}).to_string())
            .plain()
    };
    let first = app.post("rounds", round(1)).await;
    assert_eq!(first.status_word(), "accepted");
    let second = app.post("rounds", round(2)).await;
    assert_eq!(second.status_word(), "accepted", "{}", second.text());
    // Whole requests later, the window of a millisecond is over.
    let again = app.post("rounds", round(1)).await;
    assert_eq!((again.status_word().as_str(), again.command_id()), ("duplicate", first.command_id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_known_after_a_restart_with_and_without_a_round() {
    let mut app = App::with(Config::with_url(NOWHERE).endpoint(rounds("rounds"))).await;
    let with_round = Callback::card(&json!({"t": "t1", "i": "i1", "r": "1"}).to_string(), 7).plain();
    let without = Callback::list("i", "t").plain();
    let ids = [
        app.post("rounds", with_round.clone()).await.command_id(),
        app.post("leave", without.clone()).await.command_id(),
    ];
    app.kill();
    app.restart().await;
    for (endpoint, body, id) in [("rounds", with_round, &ids[0]), ("leave", without, &ids[1])] {
        let again = app.post(endpoint, body).await;
        assert_eq!((again.status_word().as_str(), &again.command_id()), ("duplicate", id), "{endpoint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_is_published_and_names_what_it_contradicts() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let approve = app.accept(&Callback::list("i", "t")).await;
    let reject = app.accept(&Callback::list("i", "t").action("REJECT")).await;
    assert_eq!(worker.command(&approve).await.json()["conflicts_with"], Value::Null);
    let command = worker.command(&reject).await.json();
    assert_eq!((&command["conflicts_with"], &command["action"]), (&json!(approve), &json!("reject")));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_on_one_task_do_not_contradict_each_other() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    app.accept(&Callback::list("i", "t")).await;
    let other = app.accept(&Callback::list("i", "t").operator("li4").action("REJECT")).await;
    assert_eq!(worker.command(&other).await.json()["conflicts_with"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_conflicts_are_refused_the_first_decision_stands() {
    let vhost = Vhost::new().await;
    let config = Config::new(&vhost).endpoint(Endpoint::plain("strict").set("on_conflict", "\"refuse\""));
    let app = App::with(config).await;
    let worker = Worker::on(&vhost);
    let approve = Callback::list("i", "t");
    let first = app.post("strict", approve.plain()).await.command_id();
    assert_refused(&app.post("strict", approve.clone().action("REJECT").plain()).await, "conflicting");
    assert_eq!(app.post("strict", approve.plain()).await.status_word(), "duplicate");
    marker(&app, &worker, "m").await;
    let strict: Vec<Value> = worker
        .seen()
        .iter()
        .map(|message| message.json())
        .filter(|command| command["endpoint"] == "strict")
        .collect();
    assert_eq!(strict.len(), 1, "{strict:?}");
    assert_eq!((&strict[0]["command_id"], &strict[0]["action"]), (&json!(first), &json!("approve")));
}

/// The list and the card are two questions about one task: each may be answered, and contradictions are detected
/// across both.
#[tokio::test(flavor = "multi_thread")]
async fn list_and_card_of_one_task_are_two_commands_and_contradict_each_other() {
    let vhost = Vhost::new().await;
    let endpoint = Endpoint::plain("both")
        .context("format", "\"json\"")
        .context("fields", r#"{ task_id = "/t", instance_id = "/i" }"#);
    let app = App::with(Config::bare(vhost.url()).endpoint(endpoint)).await;
    let worker = Worker::on(&vhost);
    let context = r#"{"i":"PO-77","t":"n2"}"#;
    let list = Callback::list("PO-77", "n2").context(context);
    let card = Callback::card(context, 7);
    let first = app.post("both", list.plain()).await.command_id();
    let second = app.post("both", card.plain()).await;
    assert_eq!(second.status_word(), "accepted");
    let third = app.post("both", card.clone().action("REJECT").plain()).await.command_id();
    let second = second.command_id();
    assert_eq!(worker.command(&first).await.json()["task"], {
        let mut task = worker.command(&second).await.json()["task"].clone();
        task["approval_code"] = json!("PO_APPROVAL");
        task
    });
    assert_eq!(worker.command(&second).await.json()["conflicts_with"], Value::Null);
    assert_eq!(worker.command(&third).await.json()["conflicts_with"], json!(second));
    assert_eq!(app.post("both", list.plain()).await.command_id(), first, "a double tap in the list");
}
