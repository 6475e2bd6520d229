//! Programs of several versions on one database: a rolling upgrade, and the way back.

use std::sync::Arc;

use countersign::ledger::{Ledger, OpenError, postgres};

use crate::{
    conformance::{acceptance, by},
    scratch::{Backend, Scratch},
};

async fn accepts(ledger: &Arc<dyn Ledger>, task_id: &str) {
    assert!(ledger.accept(acceptance(task_id, "APPROVE", None)).await.is_ok(), "{task_id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_together_make_the_tables_once() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let open = || scratch.replica(scratch.limits(), 100);
    let replicas = tokio::join!(open(), open(), open(), open());
    for (task_id, ledger) in [("t1", replicas.0), ("t2", replicas.1), ("t3", replicas.2), ("t4", replicas.3)]
    {
        accepts(&ledger, task_id).await;
    }
    assert_eq!(scratch.numbers("SELECT version::bigint FROM schema").await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_goes_on_beside_a_newer_one_that_only_added() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let old = scratch.replica(scratch.limits(), 100).await;
    accepts(&old, "before").await;
    // What a newer program does when it starts: it adds, and says that this one may still write.
    scratch
        .execute(
            "ALTER TABLE commands ADD COLUMN newer text; CREATE TABLE newer (id bigint);
             UPDATE schema SET version = version + 1",
        )
        .await;
    accepts(&old, "meanwhile").await;
    let restarted = scratch.replica(scratch.limits(), 100).await;
    accepts(&restarted, "after a restart").await;
    assert_eq!(scratch.count("commands").await, 3);
    assert!(scratch.client().await.requeue_parked(by()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_may_no_longer_write_does_not_start() {
    let scratch = Scratch::new(Backend::Postgres).await;
    drop(scratch.replica(scratch.limits(), 100).await);
    scratch.execute("UPDATE schema SET version = 7, oldest_writer = 5").await;
    for error in [scratch.try_client().await.err().unwrap(), scratch.try_replica().await.err().unwrap()] {
        let OpenError::Postgres(postgres::Error::TooNew { found: 7, known: 1 }) = error else {
            panic!("{error}");
        };
    }
}
