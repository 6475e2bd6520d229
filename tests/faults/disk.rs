//! A disk that fails while the program writes to it.

use crate::life::reload_with;
use crate::oracle::Oracle;
use crate::shim::{Fault, Shim};
use crate::support::{App, Config, Proxy, Vhost, Worker, eventually};
use serde_json::json;

/// A program under load behind the layer, and what looks after both.
async fn under_load() -> (Shim, App, Worker, Oracle) {
    let vhost = Vhost::new().await;
    let (shim, config) = Shim::between(Config::new(&vhost));
    let app = App::with(config).await;
    (shim, app, Worker::on(&vhost), Oracle::new())
}

/// Waits until callbacks are refused because of the ledger.
pub(crate) async fn until_refused(oracle: &Oracle, app: &App) {
    eventually("callbacks to be refused", async || match oracle.send(app).await {
        Some(answer) if answer.status == 503 && answer.reason() == "ledger_unavailable" => Ok(()),
        other => Err(format!("{:?}", other.map(|answer| answer.text()))),
    })
    .await;
}

pub(crate) async fn until_kept(oracle: &Oracle, app: &App) {
    eventually("callbacks to be kept again", async || match oracle.send(app).await {
        Some(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{:?}", other.map(|answer| answer.text()))),
    })
    .await;
}

/// What is known of the ledger is kept for a second.
pub(crate) async fn until_unready(app: &App) {
    eventually("the program to be unready", async || {
        let answer = app.get("/readyz").await;
        let ledger = answer.json()["checks"]["ledger"].take();
        if (answer.status, &ledger) == (503, &json!("unavailable")) { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

/// Waits until the program has said something.
async fn until_said(app: &App, words: &str) {
    eventually(&format!("the log to say {words:?}"), async || {
        let log = app.stderr();
        if log.contains(words) { Ok(()) } else { Err(log.lines().next_back().map(str::to_owned)) }
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
    for _ in 0..20 {
        let answer = oracle.send(&app).await.expect("an answer");
        assert_eq!(answer.reason(), "ledger_unavailable", "{}", answer.text());
    }
    load.stop().await;
    until_unready(&app).await;
    let said = app.stderr();
    assert!(said.contains("nothing is accepted until countersign restarts"), "{said}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_has_no_room_for_a_checkpoint_holds_nothing_up_and_loses_nothing() {
    let (shim, mut app, worker, oracle) = under_load().await;
    shim.set(Fault::NoSpaceBehind);
    let load = oracle.load(&app, 16);
    until_said(&app, "ledger checkpoint failed").await;
    load.until_answered(100).await;
    shim.set(Fault::None);
    let moved = || std::fs::metadata(app.dir().join("ledger.db")).expect("a ledger").len();
    let before = moved();
    eventually("pages to be moved to the database", async || match moved() {
        now if now > before => Ok(()),
        now => Err(now),
    })
    .await;
    load.stop().await;
    assert_eq!(oracle.refused(), 0, "the log had room");
    app.kill();
    app.restart().await;
    oracle.keep(&app, 5).await;
    drop(oracle.account(&app, &worker).await.check("no room for a checkpoint (ENOSPC)"));
}

/// A second sync would succeed, and the log be written over, which has the only good copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_whose_sync_fails_stops_the_ledger_until_a_restart() {
    let (shim, mut app, worker, oracle) = under_load().await;
    shim.set(Fault::FailSyncBehindOnce);
    let load = oracle.load(&app, 16);
    until_said(&app, "nothing is accepted until countersign restarts").await;
    until_refused(&oracle, &app).await;
    load.stop().await;
    until_unready(&app).await;
    app.terminate();
    app.ended().await;
    app.restart().await;
    oracle.keep(&app, 5).await;
    drop(oracle.account(&app, &worker).await.check("EIO on fsync of a checkpoint"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_is_read_only_at_the_start_is_said_and_nothing_is_answered_200() {
    let (shim, mut app, worker, oracle) = under_load().await;
    oracle.keep(&app, 20).await;
    app.kill();
    shim.set(Fault::ReadOnly);
    let status = app.restart_to_its_end().await;
    let said = app.stderr();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("read-only") || said.contains("readonly"), "{said}");
    shim.set(Fault::None);
    app.restart().await;
    oracle.keep(&app, 5).await;
    drop(oracle.account(&app, &worker).await.check("read-only at the start"));
}

/// Callbacks are refused while there is still room for what has to be written about those that were kept.
#[tokio::test(flavor = "multi_thread")]
async fn below_the_least_room_callbacks_are_refused_and_what_was_kept_is_still_settled() {
    let vhost = Vhost::new().await;
    let mut proxy = Proxy::shut_before(vhost.address());
    let app = App::with(Config::with_url(&vhost.url_through(proxy.port())).set(
        "ledger",
        "min_free_bytes",
        "1048576",
    ))
    .await;
    let oracle = Oracle::new();
    oracle.keep(&app, 50).await;
    let free = app.metric("countersign_ledger_free_bytes").await.expect("a file system tells its room");
    assert!(free > 1_048_576.0, "{free}");
    assert!(app.metric("countersign_ledger_size_bytes").await.is_some_and(|bytes| bytes > 0.0));
    assert!(app.metric("countersign_ledger_wal_bytes").await.is_some_and(|bytes| bytes > 0.0));

    let load = oracle.load(&app, 8);
    load.until_answered(50).await;
    let (enough, too_much) = ("min_free_bytes = 1048576", "min_free_bytes = 4611686018427387904");
    reload_with(&app, "applied", |text| text.replace(enough, too_much)).await;
    until_refused(&oracle, &app).await;
    eventually("the program to be unready", async || {
        let answer = app.get("/readyz").await;
        let ledger = answer.json()["checks"]["ledger"].take();
        if (answer.status, &ledger) == (503, &json!("no_room")) { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    // Published and settled without room.
    proxy.open().await;
    let worker = Worker::on(&vhost);
    app.until_metric(r#"countersign_ledger_rows{state="pending"}"#, 0.0).await;

    reload_with(&app, "applied", |text| text.replace(too_much, enough)).await;
    until_kept(&oracle, &app).await;
    load.until_answered(50).await;
    load.stop().await;
    let told = app.stderr().matches("ledger disk is low on space; callbacks are refused").count();
    assert_eq!(told, 1, "once, not for each look");
    drop(oracle.account(&app, &worker).await.check("below min_free_bytes"));
}
