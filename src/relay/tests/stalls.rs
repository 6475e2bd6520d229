//! Brokers that take commands and confirm none, while there are others to try.

use super::*;

/// A relay before three brokers.
fn bench() -> Bench {
    let handle = Handle::new();
    handle.world().others = 2;
    Bench::start(&handle, settings())
}

async fn until_sessions(bench: &Bench, sessions: u32) -> Duration {
    let began = Instant::now();
    bench.until(&format!("{sessions} sessions"), |world| world.sessions == sessions).await;
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_confirm_is_given_up_early_for_another_broker_and_later_in_each_round() {
    let bench = bench();
    bench.accept([1]);
    for (session, least, most) in [(2, 10, 12), (3, 10, 14), (4, 10, 16), (5, 20, 26), (6, 20, 32)] {
        let took = until_sessions(&bench, session).await.as_secs();
        assert!((least..=most).contains(&took), "session {session} after {took} s");
        assert_eq!(bench.world().passed_over, session - 1);
    }
    // Nothing is longer than the deadline of a confirm, which a single broker has as well.
    until_sessions(&bench, 10).await;
    assert!(until_sessions(&bench, 11).await <= Duration::from_secs(31 + 30));
    bench.confirm_all();
    bench.until_cursor(1).await;
    // A confirm is a new beginning.
    bench.world().policy = None;
    bench.accept([2]);
    bench.until("the next", |world| world.published.last() == Some(&2)).await;
    let sessions = bench.world().sessions;
    assert!(until_sessions(&bench, sessions + 1).await <= Duration::from_secs(12));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_only_refuses_and_takes_its_time_is_given_up_early() {
    let bench = bench();
    bench.accept(1..=20);
    bench.until_published(20).await;
    sleep(Duration::from_secs(7)).await;
    bench.answer(BrokerAnswer::Nacked);
    assert!(until_sessions(&bench, 2).await <= Duration::from_secs(5));
    bench.confirm_all();
    bench.until("all", |world| world.confirmed.len() == 20).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_and_a_slow_broker_are_no_stall() {
    let bench = bench();
    bench.world().policy = Some(Box::new(|_| Some(BrokerAnswer::Nacked)));
    bench.accept(1..=20);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.world().sessions, 1, "a full queue");

    let bench = self::bench();
    bench.accept(1..=10);
    bench.until_published(10).await;
    for _ in 0..5 {
        sleep(Duration::from_secs(5)).await;
        bench.answer(BrokerAnswer::Confirmed);
    }
    a_moment().await;
    assert_eq!(bench.world().sessions, 1, "a slow broker");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_has_fallen_silent_is_passed_over_and_one_that_ended_the_session_is_not() {
    let bench = bench();
    until_sessions(&bench, 1).await;
    bench.cut();
    until_sessions(&bench, 2).await;
    assert_eq!(bench.world().passed_over, 0);
    bench.world().silent = true;
    bench.cut();
    until_sessions(&bench, 3).await;
    assert_eq!(bench.world().passed_over, 1);
}
