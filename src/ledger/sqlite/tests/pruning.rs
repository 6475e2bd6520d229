//! Pruning in steps, and disk space.

use super::*;

#[test]
fn a_step_removes_so_many_contexts_that_expired_long_ago() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let day = Duration::from_secs(86_400);
    let old = (Timestamp::now() - day * 8).as_millisecond();
    scratch.execute(&format!(
        "INSERT INTO contexts (key, expires_at, registered_at)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT 'old-' || i, {old}, 0 FROM n;
         INSERT INTO contexts (key, expires_at, registered_at) VALUES ('lately', {old} + 2 * 86400000, 0), ('for ever', NULL, 0)"
    ));
    let mut connection = Connection::open(scratch.path()).unwrap();
    let step = connection.transaction().unwrap();
    let pruned: Vec<usize> = (0..5).map(|_| contexts::prune(&step, Timestamp::now(), 64).unwrap()).collect();
    assert_eq!(pruned, [64, 64, 64, 8, 0]);
}

#[tokio::test]
async fn what_the_window_remembers_stays_even_if_the_clock_makes_it_old() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let mut ids = Vec::new();
    for task in 0..10 {
        ids.push(accepted(&ledger, acceptance(&format!("t{task}"), "APPROVE", None)).await);
    }
    ledger.outbox().settle(Settlement { through: Some(8), ..Settlement::default() }).await.unwrap();
    drop(ledger);
    let connection = Connection::open(scratch.path()).unwrap();
    let step = prune::step(&connection, 0, 6, Timestamp::MAX, 100).unwrap();
    assert_eq!((step.pruned, step.next), (5, None));
    assert_eq!(scratch.sql::<i64>("SELECT min(seq) FROM commands"), 6);
    drop(connection);

    let reader = Reader::open(&scratch.path()).unwrap();
    let sixth = reader.list(&Filter { before: Some(7), limit: 1, ..Filter::default() }).unwrap();
    assert_eq!(reader.pruned_before().unwrap(), Some(sixth[0].received_at));
    assert!(reader.find(ids[0]).unwrap().is_none());
}

#[tokio::test]
async fn without_room_on_the_disk_nothing_is_accepted_until_there_is_room_again() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let limits = Scratch::sizing().limits;
    accepted(&ledger, acceptance("before", "APPROVE", None)).await;
    ledger.limit(Limits { min_free_bytes: u64::MAX, ..limits.clone() });
    let deadline = Instant::now() + Duration::from_secs(20);
    while ledger.probe().await.is_ok() {
        assert!(Instant::now() < deadline, "the disk is looked at");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ledger.accept(acceptance("t", "APPROVE", None)).await, Err(AcceptError::NoRoom));
    // Earlier commands can still be settled.
    ledger.outbox().settle(Settlement { through: Some(1), ..Settlement::default() }).await.unwrap();
    ledger.limit(limits);
    while ledger.probe().await.is_err() {
        assert!(Instant::now() < deadline, "the disk is looked at");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    accepted(&ledger, acceptance("t", "APPROVE", None)).await;
}
