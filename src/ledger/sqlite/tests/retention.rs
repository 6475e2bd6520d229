//! What leaves the ledger by its age, and what never does.

use super::*;
use crate::ledger::Limits;

/// Makes the first `count` commands a hundred days old.
fn age(scratch: &Scratch, count: u64) {
    let days = 100 * 86_400_000_i64;
    scratch.execute(&format!("UPDATE commands SET received_at = received_at - {days} WHERE seq <= {count}"));
}

fn exception(seq: Seq, state: Exceptional) -> Exception {
    Exception { seq, state, attempts: 1, next_attempt_at: Timestamp::now(), reason: "nack".to_owned() }
}

/// Ten commands: 1 to 6 old, 3 parked, 4 retrying, published through 8.
async fn ten(scratch: &Scratch) -> Vec<CommandId> {
    let ledger = scratch.open();
    let mut ids = Vec::new();
    for task in 0..10 {
        ids.push(accepted(&ledger, acceptance(&format!("t{task}"), "APPROVE", None)).await);
    }
    let settlement = Settlement {
        through: Some(8),
        exceptions: vec![exception(3, Exceptional::Parked), exception(4, Exceptional::Retrying)],
        ..Settlement::default()
    };
    ledger.settle(settlement).await.unwrap();
    ledger.flush().await;
    drop(ledger);
    age(scratch, 6);
    ids
}

fn left(scratch: &Scratch) -> String {
    scratch.sql("SELECT group_concat(seq, ' ') FROM (SELECT seq FROM commands ORDER BY seq)")
}

/// Waits until the writer has looked for what is to be pruned.
async fn until_left(scratch: &Scratch, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while left(scratch) != wanted {
        assert!(Instant::now() < deadline, "{} is left, not {wanted}", left(scratch));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn only_what_is_published_and_old_is_pruned_and_the_rest_goes_on() {
    let scratch = Scratch::new();
    let ids = ten(&scratch).await;
    let ledger = scratch.open();
    until_left(&scratch, "3 4 7 8 9 10").await;
    let stats = ledger.stats().await.unwrap();
    assert_eq!((stats.pending, stats.published, stats.parked), (3, 2, 1), "{stats:?}");
    assert!(ledger.find(ids[0]).await.unwrap().is_none());
    let states: Vec<State> = ledger
        .list(Filter { limit: 10, ..Filter::default() })
        .await
        .unwrap()
        .into_iter()
        .map(|record| record.state)
        .collect();
    use State::{Parked, Pending, Published};
    assert_eq!(states, [Pending, Pending, Published, Published, Pending, Parked]);
    let pending: Vec<Seq> = ledger.since(8, 10).await.unwrap().iter().map(|entry| entry.seq).collect();
    assert_eq!(pending, [9, 10]);

    // An exception that is over is pruned in its turn, though the log went on before it.
    ledger.settle(Settlement { cleared: vec![4], ..Settlement::default() }).await.unwrap();
    ledger.flush().await;
    drop(ledger);
    let ledger = scratch.open();
    until_left(&scratch, "3 7 8 9 10").await;
    drop(ledger);
}

#[tokio::test]
async fn a_log_that_was_pruned_to_its_end_goes_on_counting_where_it_was() {
    let scratch = Scratch::new();
    ten(&scratch).await;
    age(&scratch, 10);
    let ledger = scratch.open();
    ledger
        .settle(Settlement { through: Some(10), cleared: vec![3, 4], ..Settlement::default() })
        .await
        .unwrap();
    ledger.flush().await;
    drop(ledger);
    let mut operator = OperatorActs::open(&scratch.settings().path).unwrap();
    let before = Timestamp::now();
    assert_eq!(
        operator.prunable(before).unwrap(),
        scratch.sql::<i64>("SELECT count(*) FROM commands") as u64
    );
    operator.prune(before, |_| ()).unwrap();
    assert_eq!(scratch.sql::<i64>("SELECT count(*) FROM commands"), 0);
    let ledger = scratch.open();
    let id = accepted(&ledger, acceptance("next", "APPROVE", None)).await;
    assert_eq!(ledger.find(id).await.unwrap().unwrap().seq, 11);
    let stats = ledger.stats().await.unwrap();
    assert_eq!((stats.pending, stats.published, stats.head), (1, 0, 11));
}

#[tokio::test]
async fn what_the_window_needs_is_never_pruned() {
    let scratch = Scratch::new();
    let limits = Limits { retention: Some(Duration::from_secs(60)), ..scratch.settings().limits };
    let hour = Limits { longest_window: Duration::from_secs(3600), ..limits };
    let now = Timestamp::now();
    assert_eq!(now.since(hour.horizon(now).unwrap()).as_secs(), 3660);
    assert_eq!(Limits { retention: None, ..hour }.horizon(now), None, "for ever");
}

#[tokio::test]
async fn what_the_window_remembers_stays_even_if_the_clock_makes_it_old() {
    let scratch = Scratch::new();
    let ids = ten(&scratch).await;
    let connection = Connection::open(scratch.settings().path).unwrap();
    let step = prune::step(&connection, 0, 6, Timestamp::MAX, 100).unwrap();
    assert_eq!((step.pruned, step.next), (3, None));
    assert_eq!(left(&scratch), "3 4 6 7 8 9 10");
    drop(connection);

    let reader = Reader::open(&scratch.settings().path).unwrap();
    let sixth = reader.list(&Filter { before: Some(7), limit: 1, ..Filter::default() }).unwrap();
    assert_eq!(reader.pruned_before().unwrap(), Some(sixth[0].received_at));
    assert!(reader.find(ids[0]).unwrap().is_none());
}

#[tokio::test]
async fn more_than_one_step_is_pruned_in_steps() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    assert_eq!(Reader::open(&scratch.settings().path).unwrap().pruned_before().unwrap(), None);
    let accepts = (0..600).map(|task| ledger.accept(acceptance(&format!("t{task}"), "APPROVE", None)));
    for receipt in futures_util::future::join_all(accepts).await {
        assert!(matches!(receipt, Ok(Receipt::Accepted { .. })));
    }
    ledger.settle(Settlement { through: Some(590), ..Settlement::default() }).await.unwrap();
    ledger.flush().await;
    drop(ledger);
    let mut operator = OperatorActs::open(&scratch.settings().path).unwrap();
    let before = Timestamp::now() + Duration::from_secs(1);
    let mut steps = Vec::new();
    assert_eq!(operator.prunable(before).unwrap(), 590);
    assert_eq!(operator.prune(before, |so_far| steps.push(so_far)).unwrap(), 590);
    assert_eq!(steps, [256, 512, 590]);
    assert_eq!(left(&scratch), "591 592 593 594 595 596 597 598 599 600");
}

#[tokio::test]
async fn without_room_on_the_disk_nothing_is_accepted_until_there_is_room_again() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let limits = scratch.settings().limits;
    accepted(&ledger, acceptance("before", "APPROVE", None)).await;
    ledger.limit(Limits { min_free_bytes: u64::MAX, ..limits.clone() });
    let deadline = Instant::now() + Duration::from_secs(20);
    while ledger.probe().await.is_ok() {
        assert!(Instant::now() < deadline, "the disk is looked at");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ledger.accept(acceptance("t", "APPROVE", None)).await, Err(AcceptError::NoRoom));
    // What was kept before can still be settled.
    ledger.settle(Settlement { through: Some(1), ..Settlement::default() }).await.unwrap();
    ledger.limit(limits);
    while ledger.probe().await.is_err() {
        assert!(Instant::now() < deadline, "the disk is looked at");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    accepted(&ledger, acceptance("t", "APPROVE", None)).await;
}

#[tokio::test]
async fn a_window_that_is_made_longer_reaches_back_as_far_as_the_log() {
    let scratch = Scratch::new();
    let limits = scratch.settings().limits;
    let short = Limits { longest_window: Duration::from_millis(1), ..limits.clone() };
    let ledger = SqliteLedger::open(&Settings { limits: short, ..scratch.settings() }).unwrap();
    let first = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    // Past the short window, so that it is forgotten at the next commit.
    tokio::time::sleep(Duration::from_millis(20)).await;
    accepted(&ledger, acceptance("t2", "APPROVE", None)).await;
    ledger.limit(limits);
    assert_eq!(duplicate_of(&ledger, acceptance("t1", "APPROVE", None)).await, first);
}
