//! What leaves the ledger by its age, and what never does.

use super::*;
use countersign::ledger::Limits;

/// How long ago old commands were received, in seconds.
const OLD: u64 = 100 * 86_400;

fn exception(seq: Seq, state: Exceptional) -> Exception {
    Exception { seq, state, attempts: 1, next_attempt_at: Timestamp::now(), reason: "nack".to_owned() }
}

/// Ten commands: 1 to 6 old, 3 parked, 4 retrying, published through 8.
async fn ten(scratch: &Scratch) -> Vec<CommandId> {
    let ledger = scratch.open().await;
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
    close(ledger).await;
    scratch.age(OLD, 6).await;
    ids
}

/// Waits until the ledger has looked for what is to be pruned.
async fn until_left(scratch: &Scratch, wanted: &[i64]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while scratch.places("commands").await != wanted {
        assert!(Instant::now() < deadline, "{:?} is left, not {wanted:?}", scratch.places("commands").await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_published_and_old_is_pruned_and_the_rest_goes_on(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ids = ten(&scratch).await;
    let ledger = scratch.open().await;
    until_left(&scratch, &[3, 4, 7, 8, 9, 10]).await;
    let stats = ledger.stats().await.unwrap();
    assert_eq!((stats.pending, stats.published, stats.parked), (3, 2, 1), "{stats:?}");
    let seventh = ledger.find(ids[6]).await.unwrap().unwrap();
    assert_eq!(ledger.pruned_before().await.unwrap(), Some(seventh.received_at));
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
    close(ledger).await;
    let ledger = scratch.open().await;
    until_left(&scratch, &[3, 7, 8, 9, 10]).await;
    close(ledger).await;
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_pruned_to_its_end_goes_on_counting_where_it_was(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    ten(&scratch).await;
    scratch.age(OLD, 10).await;
    let ledger = scratch.open().await;
    ledger
        .settle(Settlement { through: Some(10), cleared: vec![3, 4], ..Settlement::default() })
        .await
        .unwrap();
    ledger.flush().await;
    close(ledger).await;
    let operator = scratch.client().await;
    let before = Timestamp::now();
    assert_eq!(
        operator.prunable(before).await.unwrap(),
        u64::try_from(scratch.count("commands").await).unwrap()
    );
    operator.prune(before, by(), Box::new(|_| ())).await.unwrap();
    assert_eq!(scratch.count("commands").await, 0);
    let ledger = scratch.open().await;
    let id = accepted(&ledger, acceptance("next", "APPROVE", None)).await;
    assert_eq!(ledger.find(id).await.unwrap().unwrap().seq, 11);
    let stats = ledger.stats().await.unwrap();
    assert_eq!((stats.pending, stats.published, stats.head), (1, 0, 11));
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_step_is_pruned_in_steps(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    assert_eq!(ledger.pruned_before().await.unwrap(), None);
    let accepts = (0..600).map(|task| ledger.accept(acceptance(&format!("t{task}"), "APPROVE", None)));
    for receipt in futures_util::future::join_all(accepts).await {
        assert!(matches!(receipt, Ok(Receipt::Accepted { .. })));
    }
    ledger.settle(Settlement { through: Some(590), ..Settlement::default() }).await.unwrap();
    ledger.flush().await;
    close(ledger).await;
    let operator = scratch.client().await;
    let before = Timestamp::now() + Duration::from_secs(1);
    assert_eq!(operator.prunable(before).await.unwrap(), 590);
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = steps.clone();
    let progress = Box::new(move |so_far| seen.lock().unwrap().push(so_far));
    assert_eq!(operator.prune(before, by(), progress).await.unwrap(), 590);
    assert_eq!(*steps.lock().unwrap(), [256, 512, 590]);
    assert_eq!(scratch.places("commands").await, (591..=600).collect::<Vec<_>>());
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_is_made_longer_reaches_back_as_far_as_the_log(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let limits = scratch.limits();
    let short = Limits { longest_window: Duration::from_millis(1), ..limits.clone() };
    let ledger = scratch.open_with(short, 1000).await;
    let first = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    // Past the short window, so that it is forgotten at the next commit.
    tokio::time::sleep(Duration::from_millis(20)).await;
    accepted(&ledger, acceptance("t2", "APPROVE", None)).await;
    ledger.limit(limits);
    assert_eq!(duplicate_of(&ledger, acceptance("t1", "APPROVE", None)).await, first);
}
