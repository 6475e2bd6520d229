//! Killed between any two steps: at every named point, while callbacks come and go.

use crate::oracle::Oracle;
use crate::support::{App, Callback, Config, Program, Vhost, Worker, eventually};
use countersign::telemetry::failpoint::NAMES;
use rusqlite::Connection;
use serde_json::json;
use tokio::task::JoinHandle;

/// The program is told by this variable where to die.
const KILL_AT: &str = "COUNTERSIGN_KILL_AT";

fn told_to_die(app: &mut App, at: &str) {
    app.reconfigure(|config| config.env(KILL_AT, at));
}

/// Has it started again, and holds it to what was answered.
async fn recover(mut app: App, worker: &Worker, oracle: &Oracle, point: &str) {
    told_to_die(&mut app, "");
    app.restart().await;
    oracle.keep(&app, 3).await;
    let figures = oracle.account(&app, worker).await;
    drop(figures.check(&format!("SIGKILL at {point}")));
}

/// What is registered and refused beside the callbacks, so that these are written too.
fn chatter(app: &App) -> JoinHandle<()> {
    let (client, contexts) = (app.client(), format!("http://{}/api/v1/contexts/", app.admin()));
    let stranger = app.callback_url("purchase");
    tokio::spawn(async move {
        for number in 0.. {
            let context = json!({ "instance_id": "i", "task_id": format!("t{number}") });
            let put = client.put(format!("{contexts}key-{number}")).json(&context).send().await;
            let refused = client.post(&stranger).body("{}").send().await;
            if put.is_err() && refused.is_err() {
                return;
            }
        }
    })
}

async fn killed_under_load(point: &str, passing: u64) {
    let vhost = Vhost::new().await;
    // Dies at the point in its first life already.
    let mut app = App::with(Config::new(&vhost).env(KILL_AT, &format!("{point}@{passing}"))).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 16);
    let chatter = chatter(&app);
    eventually(&format!("{point} to be passed"), async || if app.runs() { Err("it runs") } else { Ok(()) })
        .await;
    load.stop().await;
    chatter.abort();
    let status = app.ended().await;
    assert_eq!(status.code(), None, "killed, and not ended by itself: {status}");
    recover(app, &worker, &oracle, point).await;
}

async fn killed_at_start(point: &str) {
    let vhost = Vhost::new().await;
    let mut app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 8);
    load.until_answered(50).await;
    app.kill();
    load.stop().await;
    told_to_die(&mut app, point);
    let status = app.restart_to_its_end().await;
    assert_eq!(status.code(), None, "killed, and not ended by itself: {status}");
    recover(app, &worker, &oracle, point).await;
}

async fn killed_at_stop(point: &str) {
    let vhost = Vhost::new().await;
    let mut app = App::with(Config::new(&vhost).env(KILL_AT, point)).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 8);
    load.until_answered(50).await;
    app.terminate();
    assert_eq!(app.ended().await.code(), None, "killed, and not ended by itself");
    load.stop().await;
    recover(app, &worker, &oracle, point).await;
}

/// Published commands that are old enough, so that the next start prunes.
async fn killed_while_pruning(point: &str) {
    let vhost = Vhost::new().await;
    let mut app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 8);
    load.until_answered(300).await;
    load.stop().await;
    drop(oracle.account(&app, &worker).await.check("before pruning"));
    app.kill();
    let ledger = Connection::open(app.dir().join("ledger.db")).expect("a ledger");
    ledger
        .execute("UPDATE commands SET received_at = received_at - 100 * 86400000 WHERE seq <= 250", [])
        .expect("nobody else has it open");
    drop(ledger);
    told_to_die(&mut app, point);
    app.restart_to_its_end().await;
    recover(app, &worker, &oracle, point).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_named_point_nothing_that_was_answered_is_lost() {
    for point in NAMES {
        match point.split_once(':') {
            Some(("start", _)) => killed_at_start(point).await,
            Some(("stop", _)) => killed_at_stop(point).await,
            Some(("checkpoint", _)) => killed_under_load(point, 1).await,
            // Each look at what is old passes it; the first of a start has something to delete.
            _ if ["prune:deleted", "ledger:pruned"].contains(&point) => killed_while_pruning(point).await,
            _ => killed_under_load(point, 23).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_committed_and_not_answered_is_found_by_its_repeat() {
    let vhost = Vhost::new().await;
    let mut app = App::with(Config::new(&vhost).env(KILL_AT, "ledger:handed_on")).await;
    let callback = Callback::list("i", "t");
    assert!(app.try_post("purchase", callback.encrypted(crate::support::KEY)).await.is_err(), "no answer");
    app.ended().await;
    told_to_die(&mut app, "");
    app.restart().await;
    let answer = app.post("purchase", callback.encrypted(crate::support::KEY)).await;
    assert_eq!(answer.status_word(), "duplicate", "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_prune_that_is_killed_half_way_leaves_whole_steps() {
    let vhost = Vhost::new().await;
    let config = Config::new(&vhost).set("ledger", "retention", "\"forever\"");
    let app = App::with(config).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 8);
    load.until_answered(600).await;
    let ledger = app.dir().join("ledger.db");
    let age = |days: i64| {
        let ledger = Connection::open(&ledger).expect("a ledger");
        ledger.busy_timeout(std::time::Duration::from_secs(20)).expect("an open database");
        let aged = ledger.execute(
            "UPDATE commands SET received_at = received_at - ?1 * 86400000 WHERE seq <= (SELECT published_through FROM cursor)",
            [days],
        );
        aged.expect("the writer waits for its turn")
    };
    eventually("600 to be published", async || {
        match app.metric(r#"countersign_ledger_rows{state="published"}"#).await {
            Some(rows) if rows >= 600.0 => Ok(()),
            rows => Err(rows),
        }
    })
    .await;
    let old = age(100);
    let prune = ["ledger", "prune", "--older-than", "30d", "--json"];
    let killed = Program::new(prune).config(app.file()).env(KILL_AT, "prune:deleted@2").run().await;
    assert_eq!(killed.code, None, "{}", killed.stderr);
    let told = Program::new(prune).config(app.file()).run().await.ended_with(0).json();
    assert_eq!(told["pruned"].as_u64(), Some(old as u64 - 256), "one step was carried out before: {told}");
    load.until_answered(50).await;
    load.stop().await;
    drop(oracle.account(&app, &worker).await.check("SIGKILL of ledger prune"));
}
