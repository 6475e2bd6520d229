//! What happened to a command, as it is told of one.

use super::*;
use countersign::{
    command::outcome::{Kind, Outcome},
    ledger::{
        ShowingEnd,
        history::{ByOperator, Event, What},
    },
};

const KEY: &str = "approval.purchase.code.approve";

async fn told(ledger: &Handle, id: CommandId) -> Vec<Event> {
    ledger.find(id).await.unwrap().unwrap().history.expect("of one command it is told")
}

fn published() -> What {
    What::Published {
        not_before: None,
        exchange: Some("countersign.commands".to_owned()),
        routing_key: KEY.to_owned(),
    }
}

/// What happened, without the times.
async fn whats(ledger: &Handle, id: CommandId) -> Vec<What> {
    let timeless = |what| match what {
        What::Published { exchange, routing_key, .. } => {
            What::Published { not_before: None, exchange, routing_key }
        }
        other => other,
    };
    told(ledger, id).await.into_iter().map(|event| timeless(event.what)).collect()
}

fn settlement(through: u64) -> Settlement {
    Settlement {
        through: Some(through),
        exchange: Some("countersign.commands".into()),
        ..Settlement::default()
    }
}

fn refusal(seq: u64, attempts: u32) -> Exception {
    Exception {
        seq,
        state: Exceptional::Retrying,
        attempts,
        next_attempt_at: Timestamp::now(),
        reason: if attempts == 0 { "waits".to_owned() } else { format!("returned, {attempts}") },
    }
}

fn refused(attempt: u32) -> What {
    What::Refused { attempt, reason: format!("returned, {attempt}") }
}

async fn three(ledger: &Handle) -> [CommandId; 3] {
    let mut ids = [CommandId::from_bytes([0; 16]); 3];
    for (task, id) in ids.iter_mut().enumerate() {
        *id = accepted(ledger, acceptance(&format!("t{task}"), "APPROVE", None)).await;
    }
    ids
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_when_a_command_was_published_and_to_where(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let ids = three(&ledger).await;
    assert_eq!(whats(&ledger, ids[0]).await, [What::Accepted]);
    let before = Timestamp::now().as_millisecond();
    ledger.settle(settlement(1)).await.unwrap();
    ledger.settle(settlement(2)).await.unwrap();
    let after = Timestamp::now().as_millisecond();
    for id in &ids[..2] {
        let events = told(&ledger, *id).await;
        assert_eq!(whats(&ledger, *id).await, [What::Accepted, published()]);
        let What::Published { not_before: Some(from), .. } = events[1].what else { panic!("{events:?}") };
        let to = events[1].at.unwrap().as_millisecond();
        assert!(before <= from.as_millisecond() && from.as_millisecond() <= to && to <= after, "{events:?}");
    }
    assert_eq!(whats(&ledger, ids[2]).await, [What::Accepted], "the third is not");
    // Another exchange has a mark of its own, and so has what comes more than a second later.
    ledger.settle(Settlement { exchange: Some("other".into()), ..settlement(3) }).await.unwrap();
    let What::Published { exchange, .. } = &told(&ledger, ids[2]).await[1].what else { panic!() };
    assert_eq!(exchange.as_deref(), Some("other"));
    let marks = scratch.numbers("SELECT after FROM publish_marks ORDER BY through").await;
    assert_eq!((marks.first(), marks.last()), (Some(&0), Some(&2)), "{marks:?}");
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_by_the_broker_is_told_and_that_a_command_waits_for_another(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let ids = three(&ledger).await;
    // Refused twice, moved to another time, and through at last; the second waits for it; the third goes by.
    for exceptions in
        [vec![refusal(1, 1), refusal(2, 0)], vec![refusal(1, 2)], vec![refusal(1, 2), refusal(2, 0)]]
    {
        ledger.settle(Settlement { exceptions, ..settlement(3) }).await.unwrap();
    }
    ledger.settle(Settlement { cleared: vec![1, 2, 3], ..settlement(3) }).await.unwrap();
    assert_eq!(whats(&ledger, ids[0]).await, [What::Accepted, refused(1), refused(2), published()]);
    assert_eq!(whats(&ledger, ids[1]).await, [What::Accepted, What::Waiting, published()]);
    assert_eq!(whats(&ledger, ids[2]).await, [What::Accepted, published()]);
    // Returned after all: it was published once before.
    ledger.settle(Settlement { exceptions: vec![refusal(3, 1)], ..settlement(3) }).await.unwrap();
    assert_eq!(whats(&ledger, ids[2]).await, [What::Accepted, published(), refused(1)]);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_operators_and_workers_did_is_told_in_its_place(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let ids = three(&ledger).await;
    let operator = scratch.client().await;
    operator.park(ids[0], by()).await.unwrap();
    let acted = |act_id| ByOperator { act_id, actor: by().actor, reason: by().reason };
    let park = What::ParkedByOperator(acted(1));
    ledger.settle(settlement(3)).await.unwrap();
    assert_eq!(whats(&ledger, ids[0]).await, [What::Accepted, park.clone()]);
    operator.requeue(ids[0], by()).await.unwrap();
    operator.requeue(ids[1], by()).await.unwrap();
    ledger.settle(Settlement { cleared: vec![1, 2], ..settlement(3) }).await.unwrap();
    let requeued = |act_id| What::RequeuedByOperator(acted(act_id));
    assert_eq!(whats(&ledger, ids[0]).await, [What::Accepted, park, requeued(2), published()]);
    assert_eq!(whats(&ledger, ids[1]).await, [What::Accepted, published(), requeued(3), published()]);

    let instance = countersign::command::outcome::Instance::of(
        serde_json::value::RawValue::from_string(r#"{"instance_id":"i"}"#.to_owned()).unwrap(),
    );
    let outcome = Outcome {
        command_id: ids[2],
        kind: Kind::Applied,
        status: None,
        message: None,
        instance: Some(instance.unwrap()),
    };
    assert_eq!(ledger.report(outcome, true).await, Ok(Reported::Kept));
    let showing = ledger.showings(Timestamp::now(), 9).await.unwrap().remove(0);
    let shown = Shown {
        id: showing.id,
        command_id: ids[2],
        target: showing.target,
        end: ShowingEnd::Shown { version: Some(7) },
    };
    ledger.settle_showings(vec![shown]).await.unwrap();
    let reported = What::Reported { outcome: Kind::Applied, superseded: 0 };
    let shown = What::Shown { surface: countersign::ledger::Surface::Instance, target: "i".to_owned() };
    assert_eq!(whats(&ledger, ids[2]).await, [What::Accepted, published(), reported, shown]);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn few_events_of_a_command_are_kept_and_the_first_is_among_them(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let ids = three(&ledger).await;
    for attempt in 1..=100 {
        ledger.settle(Settlement { exceptions: vec![refusal(2, attempt)], ..settlement(2) }).await.unwrap();
    }
    let events = whats(&ledger, ids[1]).await;
    let expected: Vec<What> =
        [What::Accepted, refused(1)].into_iter().chain((70..=100).map(refused)).collect();
    assert_eq!(events, expected);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_program_published_has_no_time_and_what_is_pruned_has_no_history(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let ids = three(&ledger).await;
    ledger.settle(Settlement { exceptions: vec![refusal(1, 1)], ..settlement(2) }).await.unwrap();
    ledger.settle(Settlement { cleared: vec![1], ..settlement(2) }).await.unwrap();
    scratch.execute("DELETE FROM publish_marks; DELETE FROM publish_events WHERE event = 'refused'").await;
    let unknown = What::Published { not_before: None, exchange: None, routing_key: KEY.to_owned() };
    let second = told(&ledger, ids[1]).await;
    assert_eq!((second[1].at, &second[1].what), (None, &unknown));
    // Marks that begin later do not cover it either.
    ledger.settle(settlement(3)).await.unwrap();
    assert_eq!(told(&ledger, ids[1]).await[1].what, unknown);

    scratch.age(1_000_000, 3).await;
    let operator = scratch.client().await;
    let before = Timestamp::now() - Duration::from_secs(3600);
    assert_eq!(operator.prune(before, by(), Box::new(|_| ())).await.unwrap(), 3);
    for table in ["publish_marks", "publish_events"] {
        assert_eq!(scratch.count(table).await, 0, "{table}");
    }
}
