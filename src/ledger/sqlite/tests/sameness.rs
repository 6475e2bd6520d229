//! What is the same callback again, and what contradicts an earlier one.

use super::*;

#[tokio::test]
async fn a_repeat_is_a_duplicate_within_one_commit_and_after_a_restart() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    // Handed over at once, so that they meet in one commit.
    let both = tokio::join!(
        ledger.accept(acceptance("t1", "APPROVE", None)),
        ledger.accept(acceptance("t1", "APPROVE", None))
    );
    let (Ok(Receipt::Accepted { command_id }), Ok(Receipt::Duplicate { command_id: again })) = both else {
        panic!("{both:?}")
    };
    assert_eq!(command_id, again);
    ledger.flush().await;
    drop(ledger);
    let ledger = scratch.open();
    assert_eq!(duplicate_of(&ledger, acceptance("t1", "APPROVE", None)).await, command_id);
    assert_eq!(ledger.stats().await.unwrap().head, 1);
}

#[tokio::test]
async fn without_a_round_a_repeat_after_the_window_is_a_new_decision() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let first = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    let short = Acceptance { window: Duration::ZERO, ..acceptance("t1", "APPROVE", None) };
    assert_ne!(accepted(&ledger, short).await, first);
    drop(ledger);
    scratch.execute("UPDATE commands SET received_at = received_at - 61000");
    let ledger = scratch.open();
    accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
}

#[tokio::test]
async fn what_was_accepted_before_a_restart_is_as_old_as_it_is() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let first = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    drop(ledger);
    scratch.execute("UPDATE commands SET received_at = received_at - 40000");
    let ledger = scratch.open();
    let within = |seconds, action| Acceptance {
        window: Duration::from_secs(seconds),
        on_conflict: OnConflict::Refuse,
        ..acceptance("t1", action, None)
    };
    assert_eq!(ledger.accept(within(60, "REJECT")).await, Ok(Receipt::Conflicting { with: first }));
    assert_eq!(duplicate_of(&ledger, within(60, "APPROVE")).await, first);
    accepted(&ledger, within(30, "REJECT")).await;
    drop(ledger);
    scratch.execute("DELETE FROM commands WHERE seq = 2");
    assert_ne!(accepted(&scratch.open(), within(30, "APPROVE")).await, first);
}

#[tokio::test]
async fn a_command_from_the_future_is_still_remembered_after_a_restart() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let first = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    drop(ledger);
    scratch.execute("UPDATE commands SET received_at = received_at + 3600000");
    assert_eq!(duplicate_of(&scratch.open(), acceptance("t1", "APPROVE", None)).await, first);
}

/// What a kept command says: `repeats` and `conflicts_with`.
async fn said(ledger: &SqliteLedger, id: CommandId) -> (Option<String>, Option<String>) {
    let record = ledger.find(id).await.unwrap().unwrap();
    let message: serde_json::Value = serde_json::from_str(record.command.unwrap().get()).unwrap();
    let text = |name: &str| message[name].as_str().map(str::to_owned);
    (text("repeats"), text("conflicts_with"))
}

/// As if so many seconds had passed since all that was accepted.
fn age(scratch: &Scratch, seconds: u64) {
    scratch.execute(&format!("UPDATE commands SET received_at = received_at - {}", seconds * 1000));
}

#[tokio::test]
async fn a_captured_decision_that_comes_again_after_the_window_names_the_one_it_repeats() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let reject = accepted(&ledger, acceptance("t1", "REJECT", None)).await;
    drop(ledger);
    age(&scratch, 3600);
    let ledger = recalled(&scratch, 1).await;
    let approve = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    assert_eq!(
        said(&ledger, approve).await,
        (None, Some(reject.to_string())),
        "hours later, and told all the same"
    );
    let replay = accepted(&ledger, acceptance("t1", "REJECT", None)).await;
    assert_eq!(said(&ledger, replay).await, (Some(reject.to_string()), Some(approve.to_string())));
    assert_eq!(
        duplicate_of(&ledger, acceptance("t1", "REJECT", None)).await,
        replay,
        "dedupe_window is as before"
    );
    drop(ledger);
    age(&scratch, 3600);
    // The newest earlier one is named.
    let ledger = recalled(&scratch, 3).await;
    let third = accepted(&ledger, acceptance("t1", "REJECT", None)).await;
    assert_eq!(said(&ledger, third).await, (Some(replay.to_string()), None));
    let other = accepted(&ledger, acceptance("t2", "REJECT", None)).await;
    assert_eq!(said(&ledger, other).await, (None, None));
    // Not beyond the window of its endpoint.
    let nothing =
        Acceptance { repeats_window: Duration::from_secs(3000), ..acceptance("t1", "APPROVE", None) };
    let after = accepted(&ledger, nothing).await;
    assert_eq!(said(&ledger, after).await, (None, Some(third.to_string())));
}

/// Opens the ledger, and waits until so many commands are remembered.
async fn recalled(scratch: &Scratch, commands: u64) -> SqliteLedger {
    let ledger = scratch.open();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let remembered = ledger.stats().await.unwrap().remembered.unwrap();
        if remembered.commands == commands {
            return ledger;
        }
        assert!(Instant::now() < deadline, "{remembered:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_is_within_dedupe_window_is_known_before_anything_is_accepted() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let mut ids = Vec::new();
    for task in 0..50 {
        ids.push(accepted(&ledger, acceptance(&format!("t{task}"), "APPROVE", None)).await);
    }
    drop(ledger);
    for _ in 0..3 {
        let ledger = scratch.open();
        for task in [0, 25, 49] {
            let again = duplicate_of(&ledger, acceptance(&format!("t{task}"), "APPROVE", None)).await;
            assert_eq!(again, ids[task]);
        }
    }
}

#[tokio::test]
async fn beyond_dedupe_window_a_contradiction_is_told_and_never_refused() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let approve = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    drop(ledger);
    age(&scratch, 61);
    let ledger = recalled(&scratch, 1).await;
    let refusing = Acceptance { on_conflict: OnConflict::Refuse, ..acceptance("t1", "REJECT", None) };
    let reject = accepted(&ledger, refusing).await;
    assert_eq!(said(&ledger, reject).await, (None, Some(approve.to_string())));
}

#[tokio::test]
async fn a_repeat_of_what_was_pruned_is_none() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    ledger.settle(Settlement { through: Some(1), ..Settlement::default() }).await.unwrap();
    drop(ledger);
    age(&scratch, 3600);
    let ledger = recalled(&scratch, 1).await;
    let mut operator = OperatorActs::open(&scratch.settings().path).unwrap();
    assert_eq!(operator.prune(Timestamp::now() - Duration::from_secs(1800), |_| ()).unwrap(), 1);
    let again = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    assert_eq!(said(&ledger, again).await, (None, None));
}

#[tokio::test]
async fn with_a_round_a_repeat_is_a_duplicate_for_ever_and_a_new_round_is_not() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let first = accepted(&ledger, acceptance("t1", "APPROVE", Some("1"))).await;
    drop(ledger);
    scratch.execute("UPDATE commands SET received_at = received_at - 3153600000000");
    let ledger = scratch.open();
    assert_eq!(duplicate_of(&ledger, acceptance("t1", "APPROVE", Some("1"))).await, first);
    accepted(&ledger, acceptance("t1", "APPROVE", Some("2"))).await;
}

#[tokio::test]
async fn a_contradiction_is_published_with_the_earlier_one_named_or_refused() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let first = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    let refusing = Acceptance { on_conflict: OnConflict::Refuse, ..acceptance("t1", "REJECT", None) };
    assert_eq!(ledger.accept(refusing).await, Ok(Receipt::Conflicting { with: first }));
    assert_eq!(ledger.stats().await.unwrap().head, 1);
    let second = accepted(&ledger, acceptance("t1", "REJECT", None)).await;
    let record = ledger.find(second).await.unwrap().unwrap();
    let message: serde_json::Value = serde_json::from_str(record.command.unwrap().get()).unwrap();
    assert_eq!(message["conflicts_with"], first.to_string());
    accepted(&ledger, acceptance("t2", "REJECT", None)).await;
    let other = ledger.list(Filter { limit: 1, ..Filter::default() }).await.unwrap();
    let other = ledger.find(other[0].command_id).await.unwrap().unwrap().command.unwrap();
    assert!(other.get().contains("\"conflicts_with\":null"), "another task: {other}");
}
