//! Which commands are listed: by time above all, for which there is no index.

use super::*;
use countersign::{
    command::outcome::{Kind, Outcome},
    ledger::{DeadLetter, OutcomeFilter, Why},
};

/// Commands received at these moments, in seconds from a certain time, in the order in which they are committed; with ids
/// such as one process makes, which only grow.
async fn received(ledger: &Handle, seconds: &[i64]) {
    let mut newest = i64::MIN;
    for (task, second) in seconds.iter().enumerate() {
        newest = newest.max(at(*second).as_millisecond());
        let mut id = *CommandId::floor(newest).as_bytes();
        id[15] = u8::try_from(task + 1).unwrap();
        let mut acceptance = acceptance(&format!("t{task}"), "APPROVE", None);
        acceptance.command.received_at = at(*second);
        acceptance.command.command_id = CommandId::from_bytes(id);
        accepted(ledger, acceptance).await;
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millisecond((1_700_000_000 + seconds) * 1000).unwrap()
}

async fn listed(ledger: &Handle, filter: Filter) -> Vec<Seq> {
    let found = ledger.list(Filter { limit: 10, ..filter }).await.unwrap();
    found.iter().map(|record| record.seq).collect()
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn commands_are_found_by_the_time_of_their_receipt_whatever_the_clock_did(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    // The third was overtaken; after the fifth the clock was set back by an hour.
    received(&ledger, &[0, 20, 10, 30, 3_600, 15, 40]).await;
    let seconds = [0, 20, 10, 30, 3_600, 15, 40];
    for since in [-5, 0, 9, 10, 15, 31, 3_599, 3_601] {
        for until in [-5, 0, 10, 16, 30, 40, 3_600, 9_999] {
            for (since, until) in [(Some(since), Some(until)), (Some(since), None), (None, Some(until))] {
                let within = |second: i64| {
                    since.is_none_or(|since| since <= second) && until.is_none_or(|until| second < until)
                };
                let expected: Vec<Seq> =
                    (1..=7).rev().filter(|seq| within(seconds[*seq as usize - 1])).collect();
                let filter = Filter { since: since.map(at), until: until.map(at), ..Filter::default() };
                assert_eq!(listed(&ledger, filter).await, expected, "{since:?} {until:?}");
            }
        }
    }
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn commands_are_found_by_their_card_and_by_their_outcome(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let mut ids = Vec::new();
    for (task, message_id, context) in
        [("t1", Some("77"), None), ("t2", None, Some(r#""message_id":"77""#)), ("t3", Some("777"), None)]
    {
        let mut acceptance = acceptance(task, "APPROVE", None);
        acceptance.command.message_id = message_id.map(str::to_owned);
        acceptance.command.action_context = context.map(str::to_owned);
        ids.push(accepted(&ledger, acceptance).await);
    }
    let card = |id: &str| Filter { message_id: Some(id.to_owned()), ..Filter::default() };
    assert_eq!(listed(&ledger, card("77")).await, [1]);
    assert_eq!(listed(&ledger, card("7")).await, Vec::<Seq>::new());

    let report = |command_id, kind| Outcome { command_id, kind, status: None, message: None, instance: None };
    assert_eq!(ledger.report(report(ids[0], Kind::Applied), true).await, Ok(Reported::Kept));
    assert_eq!(ledger.report(report(ids[2], Kind::Applied), true).await, Ok(Reported::Kept));
    assert_eq!(ledger.report(report(ids[2], Kind::Failed), true).await, Ok(Reported::Kept));
    let expected = [vec![1], vec![], vec![3], vec![2]];
    for (outcome, expected) in OutcomeFilter::ALL.into_iter().zip(expected) {
        let filter = Filter { outcome: Some(outcome), ..Filter::default() };
        assert_eq!(listed(&ledger, filter).await, expected, "{outcome:?}");
        assert_eq!(OutcomeFilter::parse(outcome.as_str()), Some(outcome));
    }
    assert_eq!(ledger.id_at(2).await.unwrap(), Some(ids[1]));
    assert_eq!(ledger.id_at(4).await.unwrap(), None);
    assert_eq!(ledger.id_at(u64::MAX).await.unwrap(), None);
}

/// How far the commands of [`sparse`] are from one another: several slices.
const APART: Seq = 9000;

/// Ten commands in all states, one a minute.
async fn sparse(scratch: &Scratch, ledger: &Handle) {
    let mut ids = Vec::new();
    for task in 0..10_u32 {
        let action = ["REJECT", "APPROVE", "TRANSFER"][task as usize % 3];
        let mut acceptance = acceptance(&format!("t{task}"), action, None);
        acceptance.command.received_at = at(i64::from(task) * 60);
        acceptance.command.command_id = CommandId::new(acceptance.command.received_at);
        ids.push(accepted(ledger, acceptance).await);
    }
    let exception = |seq, state| {
        let reason = "nack".to_owned();
        Exception { seq, state, attempts: 1, next_attempt_at: Timestamp::now(), reason }
    };
    let exceptions = vec![exception(1, Exceptional::Parked), exception(2, Exceptional::Retrying)];
    let settlement = Settlement { through: Some(7), exceptions, ..Settlement::default() };
    ledger.settle(settlement).await.unwrap();
    let letter = |place: usize, why| DeadLetter {
        command_id: Some(ids[place]),
        why: Some(why),
        queue: None,
        died_at: None,
        reason: None,
        message_id: None,
        message_type: None,
        routing_key: String::new(),
        body: Vec::new(),
    };
    ledger.collect(vec![letter(2, Why::Rejected), letter(3, Why::Unrouted)]).await.unwrap();
    scratch.spread(APART).await;
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_searched_for_is_found_in_all_slices_in_both_directions(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    sparse(&scratch, &ledger).await;
    let all = Filter::default;
    for (filter, expected) in [
        (all(), vec![10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (Filter { state: Some(State::Pending), ..all() }, vec![10, 9, 8, 2]),
        (Filter { state: Some(State::Published), ..all() }, vec![7, 6, 5]),
        (Filter { state: Some(State::Parked), ..all() }, vec![1]),
        (Filter { state: Some(State::Rejected), ..all() }, vec![3]),
        (Filter { state: Some(State::Unrouted), ..all() }, vec![4]),
        (Filter { action: Some(Action::Approve), ..all() }, vec![8, 5, 2]),
        (Filter { action: Some(Action::Reject), ..all() }, vec![10, 7, 4, 1]),
        (Filter { action: Some(Action::Custom), ..all() }, vec![9, 6, 3]),
        (Filter { action: Some(Action::Custom), state: Some(State::Published), ..all() }, vec![6]),
        (Filter { user_id: Some("nobody".to_owned()), ..all() }, vec![]),
        (Filter { before: Some(3 * APART), since: Some(at(1)), ..all() }, vec![2]),
    ] {
        let mut expected: Vec<Seq> = expected.into_iter().map(|place: Seq| place * APART).collect();
        assert_eq!(listed(&ledger, filter.clone()).await, expected, "{filter:?}");
        expected.reverse();
        let ascending = Filter { after: Some(0), ..filter };
        assert_eq!(listed(&ledger, ascending.clone()).await, expected, "{ascending:?}");
    }
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_search_whose_time_is_over_says_how_far_it_came_and_is_continued_there(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    sparse(&scratch, &ledger).await;
    for state in [None, Some(State::Pending), Some(State::Parked), Some(State::Unrouted)] {
        let filter = Filter { state, limit: 10, ..Filter::default() };
        let expected = listed(&ledger, filter.clone()).await;
        let (mut seen, mut before, mut stops) = (Vec::new(), None, 0);
        loop {
            let filter = Filter { before, ..filter.clone() };
            let found = ledger.search(filter, Duration::ZERO).await.unwrap();
            seen.extend(found.rows.iter().map(|record| record.seq));
            let Some(stopped) = found.stopped else { break };
            stops += 1;
            assert!(before.is_none_or(|before| stopped.at < before), "it comes forward");
            // The next that is there: all before it are still to be looked at.
            let next = i64::try_from(stopped.at.div_ceil(APART)).unwrap();
            assert_eq!(stopped.back_to, Some(at((next - 1) * 60)));
            before = Some(stopped.at);
        }
        assert_eq!(seen, expected, "{state:?}");
        assert!(stops > 10, "{stops}");
    }
    let patient =
        ledger.search(Filter { limit: 3, ..Filter::default() }, Duration::from_secs(60)).await.unwrap();
    assert_eq!(patient.stopped, None);
    let (page, next) = patient.page(2, |record| record.seq);
    assert_eq!((page.len(), next), (2, Some(9 * APART)));
}

/// A ledger in which nothing is found without waiting, as on a disk that hangs.
#[rstest::rstest]
#[case::postgres(Backend::Postgres)]
#[case::pgbouncer(Backend::Bouncer)]
#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_the_server_stops_goes_on_with_less(#[case] backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    sparse(&scratch, &ledger).await;
    let mut other = scratch.connection().await;
    let lock = other.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE exceptions IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let search = ledger.search(Filter { limit: 10, ..Filter::default() }, Duration::from_secs(60));
    let search = tokio::spawn(search);
    let watcher = scratch.connection().await;
    // It waits for the lock again and again, in transactions of their own.
    let mut began = std::collections::BTreeSet::new();
    while began.len() < 3 {
        let sql = "SELECT xact_start::text FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%exceptions%'";
        began.extend(watcher.query(sql, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    lock.rollback().await.unwrap();
    let found = search.await.unwrap().unwrap();
    assert_eq!((found.rows.len(), found.stopped), (10, None));
}
