//! Published commands that came back, and who waits for a worker's report.

use super::*;
use countersign::{
    command::outcome::{Kind, Outcome},
    ledger::{
        Collected, DeadLetter, Heard, Why,
        history::{Event, What},
    },
};

fn letter(command_id: Option<CommandId>, why: Why) -> DeadLetter {
    DeadLetter {
        command_id,
        why: Some(why),
        queue: Some("orders".to_owned()),
        died_at: Some(Timestamp::now()),
        reason: None,
        message_id: Some("m-1".to_owned()),
        message_type: Some("approval.command.v1".to_owned()),
        routing_key: "approval.purchase.-.approve".to_owned(),
        body: b"\xff{}".to_vec(),
    }
}

async fn collect(ledger: &Handle, letter: DeadLetter) -> Collected {
    ledger.collect(vec![letter]).await.unwrap()[0]
}

async fn state(ledger: &Handle, id: CommandId) -> State {
    ledger.find(id).await.unwrap().unwrap().state
}

async fn in_state(ledger: &Handle, state: State) -> Vec<CommandId> {
    let filter = Filter { state: Some(state), limit: 10, ..Filter::default() };
    ledger.list(filter).await.unwrap().into_iter().map(|record| record.command_id).collect()
}

/// Two commands, published.
async fn two_published(ledger: &Handle) -> [CommandId; 2] {
    let first = accepted(ledger, acceptance("t1", "APPROVE", None)).await;
    let second = accepted(ledger, acceptance("t2", "APPROVE", None)).await;
    ledger.settle(Settlement { through: Some(2), ..Settlement::default() }).await.unwrap();
    [first, second]
}

fn report(command_id: CommandId, kind: &str, message: &str) -> Outcome {
    let body = serde_json::json!({ "schema": "approval.outcome/1", "command_id": command_id.to_string(),
        "outcome": kind, "message": message });
    Outcome::parse(body.to_string().as_bytes()).unwrap()
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_came_back_says_so_until_it_is_requeued_or_has_an_outcome(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let [first, second] = two_published(&ledger).await;
    assert_eq!(collect(&ledger, letter(Some(first), Why::DeliveryLimit)).await, Collected::Open);
    assert_eq!(collect(&ledger, letter(Some(second), Why::Unrouted)).await, Collected::Open);
    assert_eq!(
        (state(&ledger, first).await, state(&ledger, second).await),
        (State::Rejected, State::Unrouted)
    );
    assert_eq!(in_state(&ledger, State::Rejected).await, [first]);
    assert_eq!(in_state(&ledger, State::Unrouted).await, [second]);
    assert!(in_state(&ledger, State::Published).await.is_empty());
    let stats = ledger.stats().await.unwrap();
    assert_eq!((stats.published, stats.rejected, stats.unrouted), (0, 1, 1));

    let client = scratch.client().await;
    assert!(client.park(first, by()).await.is_err());
    client.requeue(first, by()).await.unwrap();
    assert_eq!(state(&ledger, first).await, State::Pending);
    ledger.settle(Settlement { cleared: vec![1], ..Settlement::default() }).await.unwrap();
    assert_eq!(state(&ledger, first).await, State::Published);
    assert_eq!(ledger.report(report(second, "applied", ""), true).await, Ok(Reported::Kept));
    assert_eq!(state(&ledger, second).await, State::Published);
    let stats = ledger.stats().await.unwrap();
    assert_eq!((stats.published, stats.rejected, stats.unrouted), (2, 0, 0));

    let history = ledger.find(first).await.unwrap().unwrap().history.unwrap();
    let what = What::CameBack { why: Why::DeliveryLimit, queue: Some("orders".to_owned()) };
    let came_back = |event: &&Event| event.what == what;
    assert_eq!(history.iter().filter(came_back).count(), 1, "{history:?}");
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_from_before_a_requeue_or_after_an_outcome_opens_nothing(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let [first, second] = two_published(&ledger).await;
    scratch.client().await.requeue(first, by()).await.unwrap();
    let died = |seconds| DeadLetter {
        died_at: Some(Timestamp::now() - Duration::from_secs(seconds)),
        ..letter(Some(first), Why::Rejected)
    };
    assert_eq!(collect(&ledger, died(300)).await, Collected::Closed);
    // The broker's clock may be behind: to ask for a requeue too often is better than to hide a rejection.
    assert_eq!(collect(&ledger, died(30)).await, Collected::Open);
    // Rejected again, before the ledger knows that it was published again.
    assert_eq!(collect(&ledger, letter(Some(first), Why::Rejected)).await, Collected::Open);
    assert_eq!(state(&ledger, first).await, State::Pending);
    ledger.settle(Settlement { cleared: vec![1], ..Settlement::default() }).await.unwrap();
    assert_eq!(state(&ledger, first).await, State::Rejected);
    // An older letter that comes later hides nothing.
    assert_eq!(collect(&ledger, died(300)).await, Collected::Closed);
    assert_eq!(state(&ledger, first).await, State::Rejected);

    assert_eq!(ledger.report(report(second, "applied", ""), true).await, Ok(Reported::Kept));
    assert_eq!(collect(&ledger, letter(Some(second), Why::Rejected)).await, Collected::Closed);
    assert_eq!(state(&ledger, second).await, State::Published);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_from_before_a_requeue_does_not_hide_what_comes_back_after_it(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let [first, _] = two_published(&ledger).await;
    assert_eq!(ledger.report(report(first, "failed", "no stock"), true).await, Ok(Reported::Kept));
    scratch.client().await.requeue(first, by()).await.unwrap();
    ledger.settle(Settlement { cleared: vec![1], ..Settlement::default() }).await.unwrap();
    assert_eq!(collect(&ledger, letter(Some(first), Why::DeliveryLimit)).await, Collected::Open);
    assert_eq!(state(&ledger, first).await, State::Rejected);

    // The worker says the same as before: that is an answer all the same.
    assert_eq!(ledger.report(report(first, "failed", "no stock"), true).await, Ok(Reported::Repeat));
    assert_eq!(state(&ledger, first).await, State::Published);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_comes_before_the_confirm_counts_after_it(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let id = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    assert_eq!(collect(&ledger, letter(Some(id), Why::Rejected)).await, Collected::Open);
    assert_eq!(state(&ledger, id).await, State::Pending);
    assert_eq!(ledger.since(0, 10).await.unwrap().len(), 1, "the relay may still publish it");
    ledger.settle(Settlement { through: Some(1), ..Settlement::default() }).await.unwrap();
    assert_eq!(state(&ledger, id).await, State::Rejected);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_came_back_is_not_pruned(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let [first, second] = two_published(&ledger).await;
    assert_eq!(collect(&ledger, letter(Some(first), Why::Expired)).await, Collected::Open);
    let client = scratch.client().await;
    let later = Timestamp::now() + Duration::from_secs(3600);
    assert_eq!(client.prunable(later).await.unwrap(), 1);
    assert_eq!(client.prune(later, by(), Box::new(|_| {})).await.unwrap(), 1);
    assert!(ledger.find(second).await.unwrap().is_none());
    assert_eq!(state(&ledger, first).await, State::Rejected);
    let stats = ledger.stats().await.unwrap();
    assert_eq!((stats.published, stats.rejected), (0, 1));
    assert_eq!(ledger.report(report(first, "applied", ""), false).await, Ok(Reported::Kept));
    assert_eq!(client.prune(later, by(), Box::new(|_| {})).await.unwrap(), 1);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_of_the_ledger_is_kept_aside(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let unknown = CommandId::new(Timestamp::now());
    let report = DeadLetter {
        why: None,
        queue: None,
        reason: Some("it is\0no JSON".to_owned()),
        ..letter(None, Why::Rejected)
    };
    let letters = vec![letter(Some(unknown), Why::Overflowed), report];
    assert_eq!(ledger.collect(letters).await.unwrap(), [Collected::Stray; 2]);
    let strays = ledger.strays(None, 10).await.unwrap();
    assert_eq!(strays.len(), 2);
    assert_eq!((strays[0].why, strays[1].why), (None, Some(Why::Overflowed)));
    assert!(strays[0].reason.as_deref().unwrap().contains("no JSON"));
    assert_eq!((strays[1].body.as_str(), strays[1].queue.as_deref()), ("\u{fffd}{}", Some("orders")));
    assert_eq!(ledger.strays(Some(strays[0].id), 10).await.unwrap(), [strays[1].clone()]);
    assert_eq!(ledger.stats().await.unwrap().strays, 2);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_hears_a_report_from_before_and_from_after_and_nobody_waits_for_longer(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let [first, second] = two_published(&ledger).await;
    let soon = || (Instant::now() + Duration::from_secs(20)).into();
    // Both replicas in turn: one keeps the report, the other waits for it.
    let (heard, reported) =
        tokio::join!(ledger.heard(first, soon()), ledger.report(report(first, "refused", "预算不足"), false));
    assert_eq!(reported, Ok(Reported::Kept));
    let refused = Heard { kind: Kind::Refused, message: Some("预算不足".to_owned()) };
    assert_eq!(heard, Some(refused.clone()));
    for _ in 0..2 {
        assert_eq!(ledger.heard(first, soon()).await, Some(refused.clone()));
    }
    let short = Instant::now() + Duration::from_millis(30);
    assert_eq!(ledger.heard(second, short.into()).await, None);
    assert!(ledger.stats().await.unwrap().outcomes_pending == 0, "nothing is to be shown");
}
