//! Keeping a command.

use super::*;

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
