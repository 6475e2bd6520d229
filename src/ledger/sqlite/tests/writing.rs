//! What the writer thread does with its jobs.

use serde_json::value::RawValue;

use super::*;
use crate::{
    command::{Grant, Registered},
    ledger::{Actor, Via},
};

#[tokio::test]
async fn a_writer_that_hangs_does_not_answer_and_one_whose_commit_fails_does() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let other = Connection::open(scratch.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut answers = ledger.answers();
    let early = tokio::time::timeout(Duration::from_millis(200), &mut answers).await;
    assert!(early.is_err(), "the writer waits for the other one");
    other.execute_batch("COMMIT").unwrap();
    assert!(answers.await);
    scratch.execute("ALTER TABLE cursor RENAME TO gone");
    assert!(ledger.probe().await.is_err());
    assert!(ledger.answers().await);
    scratch.execute("ALTER TABLE gone RENAME TO cursor");
    ledger.flush().await;
    assert!(!ledger.answers().await);
}

#[tokio::test]
async fn a_commit_that_fails_after_commands_were_appended_leaves_no_gap_in_the_log() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    scratch.execute("ALTER TABLE exceptions RENAME TO gone");
    let accept = |number: u64| acceptance(&format!("t{number}"), "APPROVE", None);
    let mut kept = 0;
    // A settlement fails with the accepts in its commit; each may also get its own commit.
    loop {
        let settlement = Settlement { cleared: vec![1], ..Settlement::default() };
        let (settled, receipt) =
            tokio::join!(ledger.outbox().settle(settlement), ledger.accept(accept(kept)));
        assert_eq!(settled, Err(AcceptError::Unavailable));
        if receipt.is_err() {
            break;
        }
        kept += 1;
        assert!(kept < 1000, "they never meet in one commit");
    }
    scratch.execute("ALTER TABLE gone RENAME TO exceptions");
    accepted(&ledger, accept(kept)).await;
    assert_eq!(ledger.stats().await.unwrap().head, kept + 1);
}

#[tokio::test]
async fn a_flood_of_refused_callbacks_is_written_in_several_commits_without_waiting_for_more() {
    let scratch = Scratch::new();
    let limits = Limits { refusals_kept: 1000, ..Scratch::sizing().limits };
    let sizing = Sizing { limits, ..Scratch::sizing() };
    let ledger = SqliteLedger::open(&scratch.path(), &sizing).unwrap();
    let began = Instant::now();
    (0..200).for_each(|n| ledger.refused(malformed(n)));
    while scratch.sql::<i64>("SELECT count(*) FROM refusals") < 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "the next prune would take them along");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Without work, nothing is committed.
    let before = ledger.doors.shared.commits.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let commits = ledger.doors.shared.commits.load(Ordering::Relaxed) - before;
    assert!(commits <= 1, "{commits} commits of nothing");
    // What a commit has no room for is still written at the end.
    (0..500).for_each(|n| ledger.refused(malformed(n)));
    drop(ledger);
    assert_eq!(scratch.sql::<i64>("SELECT count(*) FROM refusals"), 700);
}

#[tokio::test]
async fn registrations_alone_are_moved_out_of_the_write_ahead_log_too() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    for batch in 0..8 {
        let contexts = (0..100).map(|n| {
            let data = RawValue::from_string(format!("\"{}\"", "x".repeat(10_000))).unwrap();
            context(&format!("{batch}-{n}"), data)
        });
        assert!(matches!(
            ledger.register(contexts.collect(), Actor::unnamed(Via::Api).into()).await,
            Ok(Registering::Kept { .. })
        ));
    }
    let path = scratch.path();
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::metadata(&path).unwrap().len() <= 4 << 20 {
        assert!(Instant::now() < deadline, "8 MB are not in the database");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Names a task and permits everything, without expiry.
fn context(key: &str, data: Box<RawValue>) -> Registration {
    let task = TaskRef { task_id: Some("t".to_owned()), data: Some(data), ..TaskRef::default() };
    Registration {
        key: key.to_owned(),
        message_id: None,
        registered: Registered { grant: Grant::unbound(task), expires_at: None },
        registered_at: Timestamp::now(),
    }
}

/// A callback refused for its contents.
fn malformed(body_bytes: u64) -> RefusedCallback {
    RefusedCallback { reason: "malformed".to_owned(), body_bytes, ..RefusedCallback::default() }
}
