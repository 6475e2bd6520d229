//! A disk that fails while the program writes to it.

use crate::oracle::Oracle;
use crate::shim::{Fault, Shim};
use crate::support::{App, Config, Vhost, Worker, eventually};
use serde_json::json;

/// A program under load behind the layer, and what looks after both.
async fn under_load() -> (Shim, App, Worker, Oracle) {
    let vhost = Vhost::new().await;
    let (shim, config) = Shim::between(Config::new(&vhost));
    let app = App::with(config).await;
    (shim, app, Worker::on(&vhost), Oracle::new())
}

/// Waits until callbacks are refused because of the ledger.
async fn until_refused(oracle: &Oracle, app: &App) {
    eventually("callbacks to be refused", async || match oracle.send(app).await {
        Some(answer) if answer.status == 503 && answer.reason() == "ledger_unavailable" => Ok(()),
        other => Err(format!("{:?}", other.map(|answer| answer.text()))),
    })
    .await;
}

async fn until_kept(oracle: &Oracle, app: &App) {
    eventually("callbacks to be kept again", async || match oracle.send(app).await {
        Some(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{:?}", other.map(|answer| answer.text()))),
    })
    .await;
}

/// What is known of the ledger is kept for a second.
async fn until_unready(app: &App) {
    eventually("the program to be unready", async || {
        let answer = app.get("/readyz").await;
        let ledger = answer.json()["checks"]["ledger"].take();
        if (answer.status, &ledger) == (503, &json!("unavailable")) { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

/// A fault after which the program goes on by itself once it is over.
async fn passes(fault: Fault, name: &str) {
    let (shim, app, worker, oracle) = under_load().await;
    let load = oracle.load(&app, 8);
    load.until_answered(50).await;
    shim.set(fault);
    until_refused(&oracle, &app).await;
    until_unready(&app).await;
    shim.set(Fault::None);
    until_kept(&oracle, &app).await;
    load.until_answered(50).await;
    load.stop().await;
    drop(oracle.account(&app, &worker).await.check(name));
}

/// A fault after which nobody knows what is on the disk: the program refuses until it is started again.
async fn poisons(fault: Fault, name: &str) {
    let (shim, mut app, worker, oracle) = under_load().await;
    let load = oracle.load(&app, 8);
    load.until_answered(50).await;
    shim.set(fault);
    until_refused(&oracle, &app).await;
    // The disk is sound again, and that must not be believed.
    shim.set(Fault::None);
    let answered = load.answered();
    for _ in 0..20 {
        let answer = oracle.send(&app).await.expect("an answer");
        assert_eq!(answer.reason(), "ledger_unavailable", "{}", answer.text());
    }
    load.stop().await;
    until_unready(&app).await;
    let said = app.stderr();
    assert!(said.contains("nothing is accepted until countersign is started again"), "{said}");
    // The requests that were under way when the fault came may still have been in a commit before it.
    assert!(answered > 0);
    app.terminate();
    app.ended().await;
    app.restart().await;
    oracle.keep(&app, 5).await;
    drop(oracle.account(&app, &worker).await.check(name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    passes(Fault::NoSpace, "disk full (ENOSPC)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_with_eio_stops_the_ledger_until_a_restart() {
    poisons(Fault::FailWrite, "EIO on write").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sync_that_fails_stops_the_ledger_until_a_restart() {
    poisons(Fault::FailSyncOnce, "EIO on fsync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_became_read_only_stops_the_ledger_until_a_restart() {
    poisons(Fault::ReadOnly, "read-only file system (EROFS)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_are_cut_short_are_finished_or_refused() {
    let (shim, app, worker, oracle) = under_load().await;
    let load = oracle.load(&app, 8);
    load.until_answered(50).await;
    shim.set(Fault::ShortWrite);
    load.until_answered(50).await;
    shim.set(Fault::None);
    load.stop().await;
    drop(oracle.account(&app, &worker).await.check("short writes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_an_hour_and_forward_a_year_loses_and_doubles_nothing() {
    let (shim, mut app, worker, oracle) = under_load().await;
    let load = oracle.load(&app, 8);
    load.until_answered(50).await;
    for seconds in [-3600, 365 * 86_400, 0] {
        shim.set_clock(seconds);
        load.until_answered(50).await;
        // A repeat within the window is the same one, whatever the clock says meanwhile.
        let decision = crate::oracle::Decision::new(&format!("clock {seconds}"), 0);
        let first = app.post("purchase", decision.body()).await;
        oracle.note(decision.clone(), Some(&first), true);
        shim.set_clock(seconds - 1800);
        let again = app.post("purchase", decision.body()).await;
        assert_eq!((again.status_word().as_str(), again.command_id()), ("duplicate", first.command_id()));
        shim.set_clock(seconds);
    }
    load.stop().await;
    app.terminate();
    app.ended().await;
    app.restart().await;
    oracle.keep(&app, 5).await;
    drop(oracle.account(&app, &worker).await.check("clock back an hour, forward a year, and back"));
}
