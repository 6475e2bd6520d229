//! What is the same callback again, and what contradicts an earlier one.

use super::*;

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_a_duplicate_within_one_commit_and_after_a_restart(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    // Handed over at once, so that they meet in one commit.
    let both = tokio::join!(
        ledger.accept(acceptance("t1", "APPROVE", None)),
        ledger.accept(acceptance("t1", "APPROVE", None))
    );
    // Of two replicas either may come first.
    let (command_id, again) = match both {
        (Ok(Receipt::Accepted { command_id }), Ok(Receipt::Duplicate { command_id: again })) => {
            (command_id, again)
        }
        (Ok(Receipt::Duplicate { command_id: again }), Ok(Receipt::Accepted { command_id }))
            if backend == Backend::TwoReplicas =>
        {
            (command_id, again)
        }
        _ => panic!("{both:?}"),
    };
    assert_eq!(command_id, again);
    ledger.flush().await;
    close(ledger).await;
    let ledger = scratch.open().await;
    assert_eq!(duplicate_of(&ledger, acceptance("t1", "APPROVE", None)).await, command_id);
    assert_eq!(ledger.stats().await.unwrap().head, 1);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn without_a_round_a_repeat_after_the_window_is_a_new_decision(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let first = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    let short = Acceptance { window: Duration::ZERO, ..acceptance("t1", "APPROVE", None) };
    assert_ne!(accepted(&ledger, short).await, first);
    close(ledger).await;
    scratch.age(61, ALL).await;
    let ledger = scratch.open().await;
    accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_before_a_restart_is_as_old_as_it_is(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let first = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    close(ledger).await;
    scratch.age(40, ALL).await;
    let ledger = scratch.open().await;
    let within = |seconds, action| Acceptance {
        window: Duration::from_secs(seconds),
        on_conflict: OnConflict::Refuse,
        ..acceptance("t1", action, None)
    };
    assert_eq!(ledger.accept(within(60, "REJECT")).await, Ok(Receipt::Conflicting { with: first }));
    assert_eq!(duplicate_of(&ledger, within(60, "APPROVE")).await, first);
    accepted(&ledger, within(30, "REJECT")).await;
    close(ledger).await;
    scratch.execute("DELETE FROM commands WHERE seq = 2").await;
    assert_ne!(accepted(&scratch.open().await, within(30, "APPROVE")).await, first);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_command_from_the_future_is_still_remembered_after_a_restart(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let first = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    close(ledger).await;
    scratch.execute("UPDATE commands SET received_at = received_at + 3600000").await;
    assert_eq!(duplicate_of(&scratch.open().await, acceptance("t1", "APPROVE", None)).await, first);
}

/// What a kept command says: `repeats` and `conflicts_with`.
async fn said(ledger: &Handle, id: CommandId) -> (Option<String>, Option<String>) {
    let record = ledger.find(id).await.unwrap().unwrap();
    let message: serde_json::Value = serde_json::from_str(record.command.unwrap().get()).unwrap();
    let text = |name: &str| message[name].as_str().map(str::to_owned);
    (text("repeats"), text("conflicts_with"))
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_captured_decision_that_comes_again_after_the_window_names_the_one_it_repeats(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let reject = accepted(&ledger, acceptance("t1", "REJECT", None)).await;
    close(ledger).await;
    scratch.age(3600, ALL).await;
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
    close(ledger).await;
    scratch.age(3600, ALL).await;
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

/// Opens the ledger, and waits until so many commands are remembered, if it remembers in memory.
async fn recalled(scratch: &Scratch, commands: u64) -> Handle {
    let ledger = scratch.open().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Some(remembered) = ledger.stats().await.unwrap().remembered
        && remembered.commands != commands
    {
        assert!(Instant::now() < deadline, "{remembered:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ledger
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_within_dedupe_window_is_known_before_anything_is_accepted(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let mut ids = Vec::new();
    for task in 0..50 {
        ids.push(accepted(&ledger, acceptance(&format!("t{task}"), "APPROVE", None)).await);
    }
    close(ledger).await;
    for _ in 0..3 {
        let ledger = scratch.open().await;
        for task in [0, 25, 49] {
            let again = duplicate_of(&ledger, acceptance(&format!("t{task}"), "APPROVE", None)).await;
            assert_eq!(again, ids[task]);
        }
    }
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn beyond_dedupe_window_a_contradiction_is_told_and_never_refused(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let approve = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    close(ledger).await;
    scratch.age(61, ALL).await;
    let ledger = recalled(&scratch, 1).await;
    let refusing = Acceptance { on_conflict: OnConflict::Refuse, ..acceptance("t1", "REJECT", None) };
    let reject = accepted(&ledger, refusing).await;
    assert_eq!(said(&ledger, reject).await, (None, Some(approve.to_string())));
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_what_was_pruned_is_none(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    ledger.settle(Settlement { through: Some(1), ..Settlement::default() }).await.unwrap();
    close(ledger).await;
    scratch.age(3600, ALL).await;
    let ledger = recalled(&scratch, 1).await;
    let operator = scratch.client().await;
    assert_eq!(
        operator.prune(Timestamp::now() - Duration::from_secs(1800), by(), Box::new(|_| ())).await.unwrap(),
        1
    );
    let again = accepted(&ledger, acceptance("t1", "APPROVE", None)).await;
    assert_eq!(said(&ledger, again).await, (None, None));
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn with_a_round_a_repeat_is_a_duplicate_for_ever_and_a_new_round_is_not(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let first = accepted(&ledger, acceptance("t1", "APPROVE", Some("1"))).await;
    close(ledger).await;
    scratch.age(100 * 365 * 86_400, ALL).await;
    let ledger = scratch.open().await;
    assert_eq!(duplicate_of(&ledger, acceptance("t1", "APPROVE", Some("1"))).await, first);
    accepted(&ledger, acceptance("t1", "APPROVE", Some("2"))).await;
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_is_published_with_the_earlier_one_named_or_refused(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
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
