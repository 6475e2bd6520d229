//! Commands that are returned after they were reported as confirmed.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_late_return_makes_an_exception_of_a_published_command() {
    let bench = Bench::new();
    bench.confirm_all();
    bench.accept([1, 2]);
    bench.until_cursor(2).await;
    bench.return_late(1);
    bench.until("the exception", |world| world.exceptions.contains_key(&1)).await;
    assert_eq!((bench.state(1), bench.world().exceptions[&1].attempts), (State::Pending, 1));
    bench.until("published again", |world| world.exceptions.is_empty()).await;
    assert_eq!(bench.world().published, [1, 2, 1]);
    assert_eq!((bench.counted("returned"), bench.counted("confirmed")), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_late_return_waits_for_a_ledger_that_cannot_be_read() {
    let bench = Bench::new();
    bench.confirm_all();
    bench.accept([1, 2]);
    bench.until_cursor(2).await;
    bench.world().ledger_fails = true;
    bench.return_late(1);
    sleep(Duration::from_secs(20)).await;
    bench.world().ledger_fails = false;
    bench.until("the exception", |world| world.exceptions.contains_key(&1)).await;
    bench.until("published again", |world| world.exceptions.is_empty()).await;
    assert_eq!(bench.world().published, [1, 2, 1]);
    // A command still unknown to the ledger when the session ends is looked up before the next one.
    bench.world().ledger_fails = true;
    bench.return_late(2);
    a_moment().await;
    bench.cut();
    sleep(Duration::from_secs(20)).await;
    bench.world().ledger_fails = false;
    bench.until("published again", |world| world.published.len() == 4).await;
    assert_eq!(bench.world().published, [1, 2, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_not_settled_while_a_late_return_is_not_in_the_ledger() {
    let bench = Bench::new();
    bench.confirm_all();
    bench.accept([1]);
    bench.until_cursor(1).await;
    bench.world().ledger_fails = true;
    bench.return_late(1);
    a_moment().await;
    let before = Instant::now();
    assert!(!bench.stop_within(Duration::from_secs(5)).await.settled);
    assert_eq!(before.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn after_a_late_return_later_commands_of_its_task_wait() {
    let bench = Bench::new();
    bench.confirm_all();
    bench.accept([7]);
    bench.until_cursor(1).await;
    bench.return_late(1);
    bench.until("the exception", |world| world.exceptions.contains_key(&1)).await;
    bench.accept([7, 8]);
    bench.until("all", |world| world.cursor == 3 && world.exceptions.is_empty()).await;
    assert_eq!(bench.world().published, [1, 3, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_late_return_of_an_exception_blocks_its_task_before_the_confirm_is_settled() {
    let bench = Bench::new();
    bench.accept([7]);
    bench.until_published(1).await;
    bench.answer(BrokerAnswer::Nacked);
    bench.until_published(2).await;
    // In one batch of news, so the ledger still has the exception of the first refusal.
    bench.answer(BrokerAnswer::Confirmed);
    bench.return_late(1);
    bench.until("the exception", |world| world.exceptions.get(&1).is_some_and(|e| e.attempts == 2)).await;
    bench.confirm_all();
    bench.accept([7]);
    bench.until("all", |world| world.cursor == 2 && world.exceptions.is_empty()).await;
    assert_eq!(bench.world().published, [1, 1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn late_returns_count_towards_the_most_attempts() {
    let bench = Bench::new();
    bench.confirm_all();
    bench.accept([7]);
    bench.until_cursor(1).await;
    for attempts in 1..=2 {
        bench.return_late(1);
        bench.until("the exception", |world| world.exceptions.contains_key(&1)).await;
        assert_eq!(bench.world().exceptions[&1].attempts, attempts);
        bench.until("published again", |world| world.exceptions.is_empty()).await;
    }
    bench.return_late(1);
    bench.until("the exception", |world| world.exceptions.contains_key(&1)).await;
    assert_eq!((bench.state(1), bench.world().exceptions[&1].attempts), (State::Parked, 3));
    bench.accept([7]);
    bench.until_cursor(2).await;
    assert_eq!(bench.world().published, [1, 1, 1, 2], "a parked command holds nobody back");
    bench.operator(1, Exceptional::Requeued);
    bench.until("requeued", |world| world.exceptions.is_empty()).await;
    bench.return_late(1);
    bench.until("the exception", |world| world.exceptions.contains_key(&1)).await;
    assert_eq!(bench.world().exceptions[&1].attempts, 1, "an operator's requeue starts again");
}
