//! Many callbacks about one thing at one moment.

use crate::oracle::{Decision, Oracle};
use crate::support::{App, Callback, Config, Endpoint, KEY, NOWHERE, Vhost, Worker, client, post};
use std::collections::BTreeSet;
use tokio::task::JoinSet;

/// Sends bodies all at once, each over a connection of its own.
async fn at_once(app: &App, bodies: Vec<Vec<u8>>) -> Vec<crate::support::Answer> {
    let mut senders = JoinSet::new();
    for body in bodies {
        let url = app.callback_url("purchase");
        senders.spawn(async move { post(&client(), &url, body).await.expect("an answer") });
    }
    senders.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_repeats_at_once_are_one_command() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    for round in 0..3 {
        let decision = Decision::new(&format!("burst-{round}"), 0);
        // Each encrypted by itself, as the platform would: only the meaning is the same.
        let answers = at_once(&app, (0..200).map(|_| decision.body()).collect()).await;
        let accepted = answers.iter().filter(|answer| answer.status_word() == "accepted").count();
        let ids: BTreeSet<_> = answers.iter().map(crate::support::Answer::command_id).collect();
        assert_eq!(
            (answers.len(), accepted, ids.len()),
            (200, 1, 1),
            "one is accepted, the others are told so"
        );
        answers.iter().for_each(|answer| oracle.note(decision.clone(), Some(answer), true));
    }
    let figures = oracle.account(&app, &worker).await.check("200 repeats at once");
    assert_eq!((figures.answered, figures.arrived, figures.published_again), (3, 3, 0));
}

/// An approve and a reject of one operator on one task, sent at once, so that they are in one commit or in two.
async fn both_ways(app: &App, task: &str) -> Vec<crate::support::Answer> {
    let tap = Callback::list("i", task);
    let bodies = ["APPROVE", "REJECT"].map(|action| tap.clone().action(action).encrypted(KEY));
    at_once(app, bodies.to_vec()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn approve_and_reject_at_once_are_both_published_and_one_names_the_other() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let mut kept = BTreeSet::new();
    for round in 0..50 {
        kept.extend(
            both_ways(&app, &format!("t-{round}")).await.iter().map(crate::support::Answer::command_id),
        );
    }
    assert_eq!(kept.len(), 100);
    worker.commands(&kept).await;
    let commands: Vec<_> = worker.seen().iter().map(crate::support::Message::json).collect();
    for round in 0..50 {
        let of_task: Vec<_> =
            commands.iter().filter(|c| c["task"]["task_id"] == format!("t-{round}")).collect();
        assert_eq!(of_task.len(), 2, "each once");
        assert_eq!(of_task[0]["conflicts_with"], serde_json::Value::Null);
        assert_eq!(of_task[1]["conflicts_with"], of_task[0]["command_id"], "the later names the earlier");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn approve_and_reject_at_once_are_one_command_where_conflicts_are_refused() {
    let purchase = Endpoint::encrypted("purchase").set("on_conflict", "\"refuse\"");
    let app = App::with(Config::bare(NOWHERE).endpoint(purchase)).await;
    for round in 0..50 {
        let answers = both_ways(&app, &format!("t-{round}")).await;
        let mut told: Vec<_> = answers.iter().map(|answer| (answer.status, answer.reason())).collect();
        told.sort();
        assert_eq!(told, [(200, "success".to_owned()), (409, "conflicting".to_owned())]);
    }
    app.until_metric(r#"countersign_ledger_rows{state="pending"}"#, 50.0).await;
}
