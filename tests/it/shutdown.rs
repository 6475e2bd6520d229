//! SIGTERM: unready, no new connections, everything in progress is finished.

use crate::support::{App, Callback, Config, Line, Vhost, Worker, eventually};
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_loses_nothing_that_was_answered_and_exits_0() {
    let vhost = Vhost::new().await;
    let mut app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..8 {
        let (client, url) = (app.client(), app.callback_url("leave"));
        senders.spawn(async move {
            let mut accepted = BTreeSet::new();
            // Until the listener is gone.
            for number in 0.. {
                let body = Callback::list("i", &format!("{sender}-{number}")).plain();
                match crate::support::post(&client, &url, body).await {
                    Ok(answer) if answer.status == 200 => drop(accepted.insert(answer.command_id())),
                    Ok(answer) => assert_eq!(answer.reason(), "shutting_down", "{}", answer.text()),
                    Err(_) => break,
                }
            }
            accepted
        });
    }
    worker.messages(50).await;
    app.terminate();
    let status = app.ended().await;
    assert_eq!(status.code(), Some(0), "{}", app.stderr());
    let accepted: BTreeSet<String> = senders.join_all().await.into_iter().flatten().collect();
    // Settled within the grace period, or published by the next start; never lost.
    app.restart().await;
    worker.commands(&accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_drains_it_is_not_ready_and_finishes_the_request_under_way() {
    let vhost = Vhost::new().await;
    let config = Config::new(&vhost).set("http", "body_read_timeout_ms", "30000").set(
        "",
        "shutdown_grace_ms",
        "30000",
    );
    let mut app = App::with(config).await;
    let body = Callback::list("i", "under way").plain();
    let (start, rest) = body.split_at(40);
    let mut line = Line::to(app.public()).await;
    let head = format!("POST /callbacks/leave HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    line.write(&[head.as_bytes(), start].concat()).await.unwrap();
    // An answer on another connection shows that the server had time to see the first.
    assert_eq!(app.post("leave", Callback::list("i", "before").plain()).await.status, 200);
    app.terminate();
    eventually("/readyz to say 503", async || match app.try_admin("/readyz").await {
        Ok(answer) if answer.status == 503 => Ok(()),
        other => Err(other),
    })
    .await;
    assert!(app.runs(), "a request is under way");
    line.write(rest).await.unwrap();
    let answer = line.answer().await.expect("the request under way is answered");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.command_id();
    assert_eq!(app.ended().await.code(), Some(0), "{}", app.stderr());
    app.restart().await;
    Worker::on(&vhost).command(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn within_the_delay_it_is_not_ready_and_takes_callbacks_all_the_same() {
    // The test does not wait for its end.
    let config = Config::with_url(crate::support::NOWHERE).set("", "shutdown_delay_ms", "600000");
    let mut app = App::with(config).await;
    app.terminate();
    eventually("/readyz to say 503", async || match app.get("/readyz").await {
        answer if answer.status == 503 => Ok(()),
        answer => Err(answer.text()),
    })
    .await;
    assert_eq!(app.get("/readyz").await.json()["checks"]["accepting"], "draining");
    app.accept(&Callback::list("i", "t")).await;
    assert!(app.runs(), "the balancer is given its time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_delay_at_once() {
    for again in ["TERM", "INT"] {
        let config = Config::with_url(crate::support::NOWHERE).set("", "shutdown_delay_ms", "600000");
        let mut app = App::with(config).await;
        app.terminate();
        eventually("/readyz to say 503", async || match app.get("/readyz").await {
            answer if answer.status == 503 => Ok(()),
            answer => Err(answer.text()),
        })
        .await;
        app.signal(again);
        assert_eq!(app.ended().await.code(), Some(0), "{}", app.stderr());
    }
}

/// SQLite allows one writer at a time, so our transaction blocks the program's commits.
#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_could_not_be_written_before_the_end_is_named_in_the_log() {
    let config = Config::with_url(crate::support::NOWHERE).set("", "shutdown_grace_ms", "500");
    let mut app = App::with(config).await;
    let other = rusqlite::Connection::open(app.dir().join("ledger.db")).expect("its ledger");
    other.execute_batch("BEGIN IMMEDIATE").expect("between two commits");
    app.signal("HUP");
    eventually(
        "the reload",
        async || {
            if app.stderr().contains("configuration applied") { Ok(()) } else { Err(()) }
        },
    )
    .await;
    app.terminate();
    assert_eq!(app.ended().await.code(), Some(0), "{}", app.stderr());
    assert!(app.stderr().contains("the reload may not be among the acts of the ledger"), "{}", app.stderr());
    other.execute_batch("ROLLBACK").expect("our own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_finishes_does_not_hold_up_the_stop_beyond_the_grace_period() {
    let vhost = Vhost::new().await;
    let config =
        Config::new(&vhost).set("http", "body_read_timeout_ms", "600000").set("", "shutdown_grace_ms", "500");
    let mut app = App::with(config).await;
    let mut line = Line::to(app.public()).await;
    line.write(b"POST /callbacks/leave HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{").await.unwrap();
    assert_eq!(app.post("leave", Callback::list("i", "t").plain()).await.status, 200);
    app.terminate();
    app.ended().await;
    line.until_closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_broker_away_it_stops_within_the_grace_period_and_exits_0() {
    let config = Config::with_url(crate::support::NOWHERE).set("", "shutdown_grace_ms", "500");
    let mut app = App::with(config).await;
    app.accept(&Callback::list("i", "t")).await;
    app.terminate();
    assert_eq!(app.ended().await.code(), Some(0), "{}", app.stderr());
}
