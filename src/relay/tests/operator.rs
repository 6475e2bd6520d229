//! An operator's acts in another process while the relay holds commands in memory.

use super::*;

#[tokio::test(start_paused = true)]
async fn new_commands_go_on_when_an_operator_parks_those_that_crowd_them_out() {
    let bench =
        Bench::start(&Handle::new(), Settings { max_exceptions: 50, max_attempts: 1000, ..settings() });
    bench.answer_all(|_| Some(BrokerAnswer::Nacked));
    bench.accept(0..400);
    sleep(Duration::from_secs(300)).await;
    let crowd: Vec<_> = bench.world().exceptions.keys().copied().collect();
    assert!(bench.world().cursor < 400, "the others are held back");
    for seq in &crowd {
        bench.operator(*seq, Exceptional::Parked);
    }
    bench.confirm_all();
    let before = Instant::now();
    bench.until_cursor(400).await;
    assert!(before.elapsed() < Duration::from_secs(60), "{:?}", before.elapsed());
    assert_eq!(bench.world().sessions, 1, "without another session");
    for seq in crowd {
        assert_eq!(bench.state(seq), State::Parked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_at_a_crowd_leaves_those_that_wait_alone() {
    let bench =
        Bench::start(&Handle::new(), Settings { max_exceptions: 10, max_attempts: 1000, ..settings() });
    bench.answer_all(|seq| Some(if seq <= 20 { BrokerAnswer::Nacked } else { BrokerAnswer::Confirmed }));
    bench.accept(0..20);
    bench.until("a crowd", |world| world.exceptions.len() == 20).await;
    bench.accept(0..20);
    sleep(Duration::from_secs(100)).await;
    // Their later commands are not published before them: the double checks that too.
    assert!(bench.world().published.iter().all(|seq| *seq <= 20));
    for seq in 1..=15 {
        bench.operator(seq, Exceptional::Parked);
    }
    bench.until_cursor(40).await;
    let mut others: Vec<_> = bench.world().published.iter().copied().filter(|seq| *seq > 20).collect();
    others.sort_unstable();
    assert_eq!(others, (21..=35).collect::<Vec<_>>(), "those of 16 to 20 wait");
    bench.confirm_all();
    bench.until("the end", |world| world.exceptions.len() == 15).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_parked_while_the_broker_blocks_is_not_published_after() {
    let bench = Bench::start(&Handle::new(), Settings { max_in_flight: 2, ..settings() });
    a_moment().await;
    bench.accept([1, 2, 3, 4]);
    bench.until_published(2).await;
    bench.block(true);
    a_moment().await;
    bench.operator(3, Exceptional::Parked);
    bench.confirm_all();
    bench.accept([5, 6]);
    a_moment().await;
    bench.operator(5, Exceptional::Parked);
    sleep(Duration::from_secs(3600)).await;
    bench.block(false);
    bench.until_cursor(6).await;
    assert_eq!(bench.world().published, [1, 2, 4, 6]);
}

#[tokio::test(start_paused = true)]
async fn an_exception_that_is_parked_while_the_broker_blocks_is_not_tried_after() {
    let bench = Bench::start(&Handle::new(), Settings { max_in_flight: 1, ..settings() });
    bench.accept([1]);
    bench.until_published(1).await;
    bench.answer(BrokerAnswer::Nacked);
    bench.until("the exception", |world| world.exceptions.contains_key(&1)).await;
    bench.accept([2]);
    bench.until_published(2).await;
    // Due now, and waiting for room in the window.
    sleep(Duration::from_secs(5)).await;
    bench.block(true);
    a_moment().await;
    bench.operator(1, Exceptional::Parked);
    bench.answer(BrokerAnswer::Confirmed);
    sleep(Duration::from_secs(3600)).await;
    bench.block(false);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.world().published, [1, 2]);
    assert_eq!(bench.state(1), State::Parked);
}
