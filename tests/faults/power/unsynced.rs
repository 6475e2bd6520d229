//! The power fails after something else went wrong with a sync: what can be read need not be on the disk.

use super::disk::{Chance, Disk, records};
use super::{Failure, Looked, Receipt, seed};
use crate::oracle::Decision;
use crate::say;
use crate::shim::{Fault, Shim};
use crate::support::{App, Config, NOWHERE, Program, client, eventually, post};
use countersign::command::CommandId;
use countersign::ledger::sqlite::Reader;
use std::collections::{BTreeMap, BTreeSet};
use tokio::task::JoinSet;

/// Sends decisions at once, each over a connection of its own; what was answered 200, and with what word.
async fn at_once(url: &str, shim: &Shim, decisions: &[Decision]) -> Vec<(Receipt, String)> {
    let mut senders = JoinSet::new();
    for decision in decisions.iter().cloned() {
        let url = url.to_owned();
        senders.spawn(async move { (post(&client(), &url, decision.body()).await, decision) });
    }
    let answers = senders.join_all().await.into_iter().filter_map(|(answer, decision)| {
        let answer = answer.ok().filter(|answer| answer.status == 200)?;
        let receipt = Receipt { decision, command_id: answer.command_id(), at: shim.written() };
        Some((receipt, answer.status_word()))
    });
    answers.collect()
}

/// The power fails at the last record: on every disk that can be left, what was answered is there.
async fn fail_now(app: &App, shim: &Shim, receipts: &[Receipt], name: &str) {
    let seed = seed();
    let mut chance = Chance::new(seed);
    let reader =
        Reader::open(&app.dir().join("ledger.db")).expect("it can be read as long as there is power");
    let body = |receipt: &Receipt| {
        let id = CommandId::parse(&receipt.command_id).expect("a command id");
        let record = reader.find(id).expect("a ledger").expect("a command that was answered");
        record.command.expect("a message").get().as_bytes().to_vec()
    };
    let bodies: BTreeMap<String, Vec<u8>> =
        receipts.iter().map(|receipt| (receipt.command_id.clone(), body(receipt))).collect();
    let mut disk = Disk::default();
    records(&shim.journal()).iter().for_each(|record| disk.apply(record));
    let mut looked = Looked::default();
    for image in 0..40 {
        let failure = Failure {
            left: disk.after_power_failure(&mut chance),
            promised: receipts.iter().collect(),
            bodies: &bodies,
            confirmed: BTreeSet::new(),
            which: format!("{name}: seed {seed}, disk {image}"),
        };
        failure.check(&mut chance, &mut looked).await;
    }
    say(&format!(
        "{name}: seed {seed}, answered 200 {}, receipts looked for {}, missing 0",
        receipts.len(),
        looked.receipts
    ));
}

fn decisions(name: &str, count: usize) -> Vec<Decision> {
    (0..count).map(|number| Decision::new(&format!("{name}-{number}"), number)).collect()
}

/// The first that is answered after a crash may be a repeat, for which nothing is written and so nothing synced.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_that_is_answered_after_a_crash_outlives_a_power_failure() {
    let (shim, config) = Shim::between(Config::with_url(NOWHERE));
    let mut app = App::with(config).await;
    let url = app.callback_url("purchase");
    let mut receipts: Vec<Receipt> =
        at_once(&url, &shim, &decisions("before", 5)).await.into_iter().map(|(receipt, _)| receipt).collect();
    assert_eq!(receipts.len(), 5);
    shim.set(Fault::KillAtSync);
    // A single one: whatever else is written after the crash would sync it along.
    let unanswered = decisions("unanswered", 1);
    assert!(at_once(&url, &shim, &unanswered).await.is_empty(), "killed before the sync, and yet answered");
    app.ended().await;
    shim.set(Fault::None);

    // Nobody asks whether it is ready, since it would try a commit for that.
    let serve = Program::new(["serve"]).config(app.file());
    let serve = shim.environment().iter().fold(serve, |serve, (name, value)| serve.env(name, value));
    let running = serve.start();
    let repeated = eventually("the repeats to be answered", async || {
        let answers = at_once(&url, &shim, &unanswered).await;
        if answers.is_empty() { Err(running.lines()) } else { Ok(answers) }
    })
    .await;
    for (receipt, word) in repeated {
        assert_eq!(word, "duplicate", "what was written and not synced could not be read");
        receipts.push(receipt);
    }
    drop(running);
    fail_now(&app, &shim, &receipts, "a repeat answered after a crash").await;
}

/// What was written and not synced stays readable, and lies before all that is appended to the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_after_a_failed_sync_and_a_restart_outlives_a_power_failure() {
    let (shim, config) = Shim::between(Config::with_url(NOWHERE));
    let mut app = App::with(config).await;
    let url = app.callback_url("purchase");
    let mut receipts = Vec::new();
    for life in 0..3 {
        let answered = at_once(&url, &shim, &decisions(&format!("life-{life}"), 10)).await;
        assert_eq!(answered.len(), 10);
        receipts.extend(answered.into_iter().map(|(receipt, _)| receipt));
        shim.set(Fault::FailSyncOnce);
        assert!(at_once(&url, &shim, &decisions(&format!("lost-{life}"), 4)).await.is_empty());
        app.terminate();
        app.ended().await;
        app.restart().await;
    }
    let answered = at_once(&url, &shim, &decisions("last", 10)).await;
    receipts.extend(answered.into_iter().map(|(receipt, _)| receipt));
    app.kill();
    fail_now(&app, &shim, &receipts, "answered after a failed sync and a restart").await;
}
