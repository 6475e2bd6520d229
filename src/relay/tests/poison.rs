//! Commands over which the broker ends the session.

use super::*;

fn settings() -> Settings {
    Settings { max_attempts: 3, ..super::settings() }
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_the_session_is_set_aside_and_the_others_go_on() {
    let handle = Handle::new();
    handle.world().poison = [5].into();
    handle.confirm_all();
    handle.accept(0..20);
    let bench = Bench::start(&handle, settings());
    let before = Instant::now();
    bench.until_cursor(20).await;
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    assert_eq!(bench.world().confirmed.len(), 19);
    let exception = bench.world().exceptions[&5].clone();
    assert_eq!(
        (exception.state, exception.attempts, &*exception.reason),
        (
            Exceptional::Retrying,
            1,
            "the broker ended the session over it: 406 PRECONDITION_FAILED - the test says so"
        )
    );
    assert_eq!(bench.world().sessions, 3, "one that was lost in company, one that it lost alone");
    bench.until("parked", |world| world.exceptions[&5].state == Exceptional::Parked).await;
    let attempts = bench.world().exceptions[&5].attempts;
    assert_eq!((attempts, bench.world().sessions), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn later_ones_of_its_task_wait_and_those_that_are_tried_with_it_are_not_sent_twice() {
    let bench = Bench::start(&Handle::new(), settings());
    bench.confirm_all();
    bench.world().poison = [1].into();
    bench.accept([7]);
    bench.until("the exception", |world| world.exceptions.contains_key(&1)).await;
    assert_eq!(bench.world().sessions, 1, "alone from the start, so it needs no second time");
    bench.accept([7, 8, 9]);
    bench.until("the others", |world| world.confirmed.len() == 2).await;
    bench.until("the end", |world| world.confirmed.contains(&2)).await;
    assert_eq!(bench.state(1), State::Parked);
    let published = bench.world().published.clone();
    assert_eq!(published, [1, 3, 4, 1, 1, 2], "each of the others once");
}

#[tokio::test(start_paused = true)]
async fn what_is_fixed_in_time_is_published() {
    let bench = Bench::start(&Handle::new(), Settings { max_attempts: 100, ..settings() });
    bench.confirm_all();
    bench.world().poison = [2].into();
    bench.accept([1, 2, 3]);
    bench.until_cursor(3).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.state(2), State::Pending);
    bench.world().poison.clear();
    bench.until("all", |world| world.exceptions.is_empty()).await;
    assert_eq!(bench.state(2), State::Published);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_ends_the_session_over_everything_parks_nothing() {
    let bench = Bench::start(&Handle::new(), settings());
    bench.confirm_all();
    bench.world().poison = (1..=10).collect();
    bench.accept(0..10);
    sleep(Duration::from_secs(3600)).await;
    let parked = |world: &World| world.exceptions.values().any(|e| e.state == Exceptional::Parked);
    assert!(!parked(&bench.world()));
    assert!(bench.world().connects < 250, "{} times in an hour", bench.world().connects);
    bench.world().poison.clear();
    bench.until("all", |world| world.cursor == 10 && world.exceptions.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn sessions_that_end_for_other_reasons_make_no_exceptions() {
    let bench = Bench::start(&Handle::new(), settings());
    for _ in 0..50 {
        bench.accept([7]);
        a_moment().await;
        // With one in flight, and with many: some answered or none.
        bench.cut();
        sleep(Duration::from_secs(5)).await;
    }
    bench.world().away = true;
    bench.cut();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(bench.world().exceptions.len(), 0);
    bench.world().away = false;
    bench.confirm_all();
    bench.until_cursor(50).await;
    assert_eq!(bench.world().exceptions.len(), 0);
}
