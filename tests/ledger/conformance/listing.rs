//! Which commands are listed: by time above all, for which there is no index.

use super::*;
use countersign::{
    command::outcome::{Kind, Outcome},
    ledger::OutcomeFilter,
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
