//! Several replicas of one ledger in PostgreSQL: who leads, and what ends a term.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use countersign::ledger::{AcceptError, Ledger, Settlement};
use rstest_reuse::{apply, template};

use crate::{
    conformance::acceptance,
    scratch::{Backend, Scratch},
};

/// A lease expires after 6 s; this is for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(30);

#[template]
#[rstest::rstest]
#[case::postgres(Backend::Postgres)]
#[case::pgbouncer(Backend::Bouncer)]
fn each_way(#[case] backend: Backend) {}

async fn replica(scratch: &Scratch) -> Arc<dyn Ledger> {
    scratch.replica(scratch.limits(), 100).await
}

/// Waits until a replica leads, or leads no longer.
async fn until(ledger: &Arc<dyn Ledger>, leads: bool) {
    let mut term = ledger.term();
    let changed = tokio::time::timeout(PATIENCE, term.wait_for(|term| term.is_some() == leads)).await;
    changed.expect("it comes to that").expect("the ledger is there");
}

#[apply(each_way)]
#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_another_follows_when_it_stops_or_dies(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let first = replica(&scratch).await;
    until(&first, true).await;
    let second = replica(&scratch).await;
    // More often than the second looks.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(second.term().borrow().is_none(), "there is a leader");
    }
    first.flush().await;
    assert!(first.term().borrow().is_none(), "who stops gives the lease back");
    until(&second, true).await;
    let third = replica(&scratch).await;
    drop(second);
    until(&third, true).await;
}

#[apply(each_way)]
#[tokio::test(flavor = "multi_thread")]
async fn who_stops_gives_the_lease_back_at_once(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    for round in 0..5 {
        let ledger = replica(&scratch).await;
        until(&ledger, true).await;
        assert!(ledger.accept(acceptance(&format!("t{round}"), "APPROVE", None)).await.is_ok());
        ledger.flush().await;
        assert_eq!(scratch.numbers("SELECT expires_at FROM relay").await, [0], "round {round}");
    }
}

#[apply(each_way)]
#[tokio::test(flavor = "multi_thread")]
async fn who_resigns_lets_another_lead_and_leads_again_soon_if_there_is_none(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let first = replica(&scratch).await;
    until(&first, true).await;
    assert!(first.resign());
    until(&first, false).await;
    let began = Instant::now();
    until(&first, true).await;
    let alone = began.elapsed();
    assert!(alone > Duration::from_secs(1), "{alone:?}: others would have looked twice");
    assert!(alone < Duration::from_secs(4), "{alone:?}");

    let second = replica(&scratch).await;
    assert!(!second.resign(), "it does not lead");
    assert!(first.resign());
    until(&first, false).await;
    until(&second, true).await;
    // Longer than it leaves the lead to others.
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(first.term().borrow().is_none(), "there is a leader");
    }
    assert_eq!(first.leader(), second.leader());
}

#[apply(each_way)]
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_by_somebody_else_refuses_before_the_approver_is_told_of_a_timeout(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = replica(&scratch).await;
    let somebody = scratch.connection().await;
    somebody.batch_execute("BEGIN; SELECT 1 FROM log FOR UPDATE").await.expect("nobody holds it for long");
    let began = Instant::now();
    assert_eq!(ledger.accept(acceptance("t1", "APPROVE", None)).await, Err(AcceptError::Unavailable));
    // The platform gives up after 5 s (platform.md#callback-transport).
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // What the look-up of its context took counts as well.
    let mut late = acceptance("t2", "APPROVE", None);
    late.since = Instant::now() - Duration::from_secs(2);
    let began = Instant::now();
    assert_eq!(ledger.accept(late).await, Err(AcceptError::Unavailable));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    somebody.batch_execute("COMMIT").await.expect("it is alive");
    assert!(ledger.accept(acceptance("t1", "APPROVE", None)).await.is_ok());
}

#[apply(each_way)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_or_settled_in_a_term_that_is_over_is_refused(backend: Backend) {
    for over in ["term = gen_random_uuid()", "server = server - 1"] {
        let scratch = Scratch::new(backend).await;
        let ledger = scratch.open().await;
        assert!(ledger.since(0, 10).await.is_ok(), "the term has begun");
        scratch.execute(&format!("UPDATE relay SET {over}")).await;
        assert!(ledger.cursor().await.is_err(), "{over}");
        assert!(ledger.since(0, 10).await.is_err(), "{over}");
        assert!(ledger.waiting_tasks().await.is_err(), "{over}");
        let settlement = Settlement { through: Some(1), ..Settlement::default() };
        assert_eq!(ledger.settle(settlement).await, Err(AcceptError::Unavailable), "{over}");
        assert_eq!(scratch.numbers("SELECT published_through FROM relay").await, [0], "{over}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_ends_the_term_and_the_same_process_leads_again() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let ledger = replica(&scratch).await;
    until(&ledger, true).await;
    let mut since = 0;
    for _ in 0..3 {
        let before = scratch.numbers("SELECT ('x' || left(term::text, 8))::bit(32)::bigint FROM relay").await;
        let mut term = ledger.term();
        term.borrow_and_update();
        // One of this term: those of the term before are left open, and used no more.
        let one = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = 'countersign' AND datname = current_database()
               AND extract(epoch FROM backend_start) * 1000000 > {since} ORDER BY random() LIMIT 1"
        );
        since = scratch.numbers("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").await[0];
        scratch.execute(&one).await;
        tokio::time::timeout(PATIENCE, term.changed())
            .await
            .expect("its loss is noticed")
            .expect("it is there");
        until(&ledger, true).await;
        let after = scratch.numbers("SELECT ('x' || left(term::text, 8))::bit(32)::bigint FROM relay").await;
        assert_ne!(before, after, "another term");
        assert_eq!(ledger.probe().await, Ok(()));
    }
}
