//! Keeping a command.

use super::*;
use countersign::command::outcome::{Kind, Outcome};

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_command_is_on_the_disk_with_its_message(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let acceptance = acceptance("t1", "APPROVE", None);
    let received_at = acceptance.command.received_at.as_millisecond();
    let id = accepted(&ledger, acceptance).await;
    let record = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((record.state, record.seq, record.task_id.as_deref()), (State::Pending, 1, Some("t1")));
    assert_eq!(record.received_at.as_millisecond(), received_at);
    let entry = ledger.since(0, 1).await.unwrap().remove(0);
    let message: serde_json::Value = serde_json::from_slice(&entry.body).unwrap();
    assert_eq!(message["command_id"], id.to_string());
    assert_eq!(record.command.unwrap().get().as_bytes(), entry.body);
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_keeps_nothing(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open_with(scratch.limits(), 0).await;
    assert_eq!(ledger.accept(acceptance("a", "APPROVE", None)).await, Err(AcceptError::Overloaded));
    assert_eq!(ledger.stats().await.unwrap().head, 0);
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_promises_nothing_and_forgets_nothing(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    accepted(&ledger, acceptance("a", "APPROVE", None)).await;
    // A table that is away stands in for any failing statement.
    scratch.execute("ALTER TABLE commands RENAME TO gone").await;
    assert_eq!(ledger.accept(acceptance("b", "APPROVE", None)).await, Err(AcceptError::Unavailable));
    scratch.execute("ALTER TABLE gone RENAME TO commands").await;
    // Not a duplicate: the failed one was taken back from the window, and its place in the log is used now.
    accepted(&ledger, acceptance("b", "APPROVE", None)).await;
    assert_eq!(ledger.stats().await.unwrap().head, 2);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_double_tap_is_remembered_by_the_process_that_answered_it(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let id = accepted(&ledger, acceptance("t", "APPROVE", None)).await;
    let other = accepted(&ledger, acceptance("other", "APPROVE", None)).await;
    let mut taps = Vec::new();
    // Two replicas take turns, so each gets one of two, and is asked twice.
    for _ in 0..4 {
        let tap = acceptance("t", "APPROVE", None);
        taps.push(tap.command.received_at.as_millisecond());
        assert_eq!(duplicate_of(&ledger, tap).await, id);
    }
    let mut told = Vec::new();
    for _ in 0..2 {
        let found = ledger.find(id).await.unwrap().unwrap().duplicates_at.unwrap();
        told.extend(found.into_iter().map(Timestamp::as_millisecond));
    }
    if backend != Backend::TwoReplicas {
        // The same process twice.
        assert_eq!(told[..4], told[4..]);
        told.truncate(4);
        assert!(told.is_sorted(), "oldest first");
    }
    told.sort_unstable();
    assert_eq!(told, taps);
    assert_eq!(ledger.find(other).await.unwrap().unwrap().duplicates_at, Some(Vec::new()));
    let elsewhere = scratch.client().await.find(id).await.unwrap().unwrap();
    assert_eq!(elsewhere.duplicates_at, None, "nobody there knows");
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_counted_for_those_who_watch_whoever_makes_it(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let mut watching = ledger.changes();
    let mut changed = async |what: &str| {
        let changed = tokio::time::timeout(Duration::from_secs(30), watching.changed()).await;
        changed.unwrap_or_else(|_| panic!("{what} was not noticed")).unwrap();
    };
    let id = accepted(&ledger, acceptance("t", "APPROVE", None)).await;
    changed("an accept").await;
    assert_eq!(duplicate_of(&ledger, acceptance("t", "APPROVE", None)).await, id);
    if backend != Backend::TwoReplicas {
        changed("a duplicate").await;
    }
    ledger.settle(Settlement { through: Some(1), ..Settlement::default() }).await.unwrap();
    changed("a settlement").await;
    let outcome =
        Outcome { command_id: id, kind: Kind::Applied, status: None, message: None, instance: None };
    assert_eq!(ledger.report(outcome, true).await, Ok(Reported::Kept));
    changed("an outcome").await;
    ledger.refused(RefusedCallback { reason: "malformed".to_owned(), ..RefusedCallback::default() });
    changed("a refusal").await;
    scratch.client().await.requeue(id, by()).await.unwrap();
    changed("an act of another process").await;
}
