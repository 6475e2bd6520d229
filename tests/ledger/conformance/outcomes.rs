//! What workers report, and how far it is shown.

use super::*;
use countersign::{
    command::outcome::{CardStatus, Kind, Outcome},
    ledger::{Reported, ShowAgain, Showing, ShowingEnd, ShowingState, Shown, Surface},
};

const CARD: &str = "7123456789012345678";

/// A decision taken on a card, if there is one.
async fn decided(ledger: &Handle, task_id: &str, message_id: Option<&str>) -> CommandId {
    let mut acceptance = acceptance(task_id, "APPROVE", None);
    acceptance.command.message_id = message_id.map(str::to_owned);
    accepted(ledger, acceptance).await
}

fn outcome(command_id: CommandId, kind: &str, instance: Option<(&str, i64)>) -> Outcome {
    let instance =
        instance.map(|(id, time)| serde_json::json!({ "instance_id": id, "update_time": time.to_string() }));
    let body = serde_json::json!({ "schema": "approval.outcome/1", "command_id": command_id.to_string(),
        "outcome": kind, "instance": instance });
    Outcome::parse(body.to_string().as_bytes()).unwrap()
}

async fn report(ledger: &Handle, outcome: Outcome) {
    assert_eq!(ledger.report(outcome, true).await, Ok(Reported::Kept));
}

async fn waiting(ledger: &Handle) -> Vec<Showing> {
    ledger.showings(Timestamp::now(), 100).await.unwrap()
}

/// Surface and target of what is to be shown now.
async fn places(ledger: &Handle) -> Vec<(Surface, String)> {
    waiting(ledger).await.into_iter().map(|one| (one.surface, one.target)).collect()
}

async fn settle(ledger: &Handle, showing: &Showing, end: ShowingEnd) {
    let shown = Shown { id: showing.id, command_id: showing.command_id, target: showing.target.clone(), end };
    ledger.settle_showings(vec![shown]).await.unwrap();
}

fn parked() -> ShowingEnd {
    ShowingEnd::Parked { reason: "code 60001".to_owned() }
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_shown_where_there_is_something_to_show_it_on(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let neither = decided(&ledger, "t1", None).await;
    report(&ledger, outcome(neither, "applied", None)).await;
    assert!(waiting(&ledger).await.is_empty());
    let record = ledger.find(neither).await.unwrap().unwrap().outcome.unwrap();
    assert_eq!((record.outcome, record.showing), (Kind::Applied, ShowingState::Nothing));

    let both = decided(&ledger, "t2", Some(CARD)).await;
    report(&ledger, outcome(both, "refused", Some(("I", 7)))).await;
    let due = waiting(&ledger).await;
    assert_eq!(
        places(&ledger).await,
        [(Surface::Card, CARD.to_owned()), (Surface::Instance, "I".to_owned())]
    );
    assert_eq!((due[0].kind, due[0].action, due[0].instance.clone()), (Kind::Refused, Action::Approve, None));
    assert_eq!(due[1].instance.as_deref(), Some(r#"{"instance_id":"I","update_time":"7"}"#));
    assert_eq!(due[1].version, None);
    settle(&ledger, &due[0], ShowingEnd::Shown { version: None }).await;
    assert_eq!(ledger.stats().await.unwrap().outcomes_pending, 1);
    settle(&ledger, &due[1], ShowingEnd::Shown { version: Some(7) }).await;
    let record = ledger.find(both).await.unwrap().unwrap().outcome.unwrap();
    assert_eq!(record.showing, ShowingState::Shown);
    assert!(record.card.unwrap().shown_at.is_some() && record.instance.unwrap().shown_at.is_some());
    let listed = ledger.list(Filter { limit: 10, ..Filter::default() }).await.unwrap();
    assert!(listed.iter().all(|record| record.outcome.is_some()));
    let unknown = CommandId::new(Timestamp::now());
    assert_eq!(ledger.report(outcome(unknown, "applied", None), true).await, Ok(Reported::UnknownCommand));
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_shown_has_the_action_and_the_words_of_the_report(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let before = Timestamp::now().as_millisecond();
    for action_type in ["APPROVE", "REJECT", "FORWARD"] {
        let mut acceptance = acceptance(action_type, action_type, None);
        acceptance.command.message_id = Some(action_type.to_owned());
        let id = accepted(&ledger, acceptance).await;
        let body = serde_json::json!({ "schema": "approval.outcome/1", "command_id": id.to_string(),
            "outcome": "refused", "status": "FORWARDED", "message": "不在岗" });
        report(&ledger, Outcome::parse(body.to_string().as_bytes()).unwrap()).await;
        let record = ledger.find(id).await.unwrap().unwrap().outcome.unwrap();
        assert_eq!(
            (record.outcome, record.status, record.message.as_deref(), record.superseded),
            (Kind::Refused, Some(CardStatus::Forwarded), Some("不在岗"), 0)
        );
        assert!(record.reported_at.as_millisecond() >= before);
        let card = record.card.unwrap();
        assert!(card.next_attempt_at.is_some_and(|at| at.as_millisecond() >= before));
        assert_eq!((card.id.as_str(), card.attempts, card.shown_at), (action_type, 0, None));
    }
    let due = waiting(&ledger).await;
    let actions: Vec<_> = due.iter().map(|one| (one.target.as_str(), one.action)).collect();
    assert_eq!(
        actions,
        [("APPROVE", Action::Approve), ("REJECT", Action::Reject), ("FORWARD", Action::Custom)]
    );
    let words = |one: &Showing| {
        (one.kind, one.status, one.message.as_deref())
            == (Kind::Refused, Some(CardStatus::Forwarded), Some("不在岗"))
    };
    assert!(due.iter().all(words), "{due:?}");
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_changes_nothing_and_another_outcome_starts_again(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let id = decided(&ledger, "t1", Some(CARD)).await;
    report(&ledger, outcome(id, "failed", Some(("I", 7)))).await;
    let first = waiting(&ledger).await;
    settle(&ledger, &first[0], parked()).await;
    assert_eq!(ledger.report(outcome(id, "failed", Some(("I", 7))), true).await, Ok(Reported::Repeat));
    assert_eq!(
        ledger.report(outcome(id, "failed", None), true).await,
        Ok(Reported::Repeat),
        "what it does not bring stays"
    );
    assert_eq!(ledger.stats().await.unwrap().outcomes_parked, 1);

    report(&ledger, outcome(id, "applied", None)).await;
    let second = waiting(&ledger).await;
    let places: Vec<_> = second.iter().map(|one| (one.surface, one.kind, one.instance.is_some())).collect();
    assert_eq!(places, [(Surface::Instance, Kind::Applied, true), (Surface::Card, Kind::Applied, false)]);
    // What was under way for the report before settles nothing of this one.
    settle(&ledger, &first[0], ShowingEnd::Shown { version: None }).await;
    let record = ledger.find(id).await.unwrap().unwrap().outcome.unwrap();
    assert_eq!((record.superseded, record.card.unwrap().state), (1, ShowingState::Waiting));
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn both_reports_of_one_batch_are_kept_in_their_order(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let id = decided(&ledger, "t1", Some(CARD)).await;
    let both = tokio::join!(
        ledger.report(outcome(id, "failed", None), true),
        ledger.report(outcome(id, "applied", None), true),
    );
    assert_eq!(both, (Ok(Reported::Kept), Ok(Reported::Kept)));
    let due = waiting(&ledger).await;
    assert_eq!((due.len(), due[0].status), (1, None::<CardStatus>));
    // Of two replicas each is asked for one, and either may come first.
    assert!(due[0].kind == Kind::Applied || backend == Backend::TwoReplicas, "{due:?}");
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn of_one_instance_the_first_that_waits_is_shown_first_and_holds_up_no_other(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    for (task, instance) in [("t1", "I"), ("t2", "I"), ("t3", "J")] {
        let id = decided(&ledger, task, None).await;
        report(&ledger, outcome(id, "applied", Some((instance, 7)))).await;
    }
    let due = waiting(&ledger).await;
    let targets: Vec<_> = due.iter().map(|one| &*one.target).collect();
    assert_eq!(targets, ["I", "J"]);
    // Put off, the first still goes before the second.
    let later = Timestamp::now() + Duration::from_secs(60);
    settle(&ledger, &due[0], ShowingEnd::Again { at: later, reason: "away".to_owned() }).await;
    assert_eq!(places(&ledger).await, [(Surface::Instance, "J".to_owned())]);
    let again = ledger.showings(later, 100).await.unwrap();
    assert_eq!((again.len(), again.iter().find(|one| one.target == "I").unwrap().attempts), (2, 1));
    // Parked, it is out of the way; shown, the next one knows with which version.
    settle(&ledger, &due[0], ShowingEnd::Shown { version: Some(41) }).await;
    let next = waiting(&ledger).await.into_iter().find(|one| one.target == "I").unwrap();
    assert_eq!(next.version, Some(41));
    settle(&ledger, &next, parked()).await;
    assert_eq!(places(&ledger).await, [(Surface::Instance, "J".to_owned())]);
    // A clock that was set back must not put it off for ever.
    settle(
        &ledger,
        &due[1],
        ShowingEnd::Again { at: later + Duration::from_secs(86_400), reason: String::new() },
    )
    .await;
    assert_eq!(places(&ledger).await, [(Surface::Instance, "J".to_owned())]);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_shown_again_what_was_refused_and_it_is_recorded(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let id = decided(&ledger, "t1", Some(CARD)).await;
    assert_eq!(ledger.show_again(id, by()).await, Ok(ShowAgain::NoOutcome));
    assert_eq!(
        ledger.show_again(CommandId::new(Timestamp::now()), by()).await,
        Ok(ShowAgain::UnknownCommand)
    );
    let nothing = decided(&ledger, "t2", None).await;
    report(&ledger, outcome(nothing, "applied", None)).await;
    assert_eq!(ledger.show_again(nothing, by()).await, Ok(ShowAgain::NothingToShow));

    report(&ledger, outcome(id, "applied", Some(("I", 7)))).await;
    let due = waiting(&ledger).await;
    settle(&ledger, &due[0], parked()).await;
    settle(&ledger, &due[1], ShowingEnd::Shown { version: Some(7) }).await;
    assert!(waiting(&ledger).await.is_empty());
    let card = ledger.find(id).await.unwrap().unwrap().outcome.unwrap().card.unwrap();
    assert_eq!((card.state, card.note.as_deref()), (ShowingState::Parked, Some("code 60001")));

    let operator = scratch.client().await;
    assert_eq!(ledger.parked_showings(9).await.unwrap(), [1]);
    assert!(ledger.parked_showings(0).await.unwrap().is_empty());
    assert_eq!(operator.show_parked_again(by()).await.unwrap(), [id]);
    assert!(ledger.parked_showings(9).await.unwrap().is_empty());
    assert!(operator.show_parked_again(by()).await.unwrap().is_empty());
    assert_eq!(places(&ledger).await, [(Surface::Card, CARD.to_owned())], "the instance is shown already");
    settle(&ledger, &waiting(&ledger).await[0], ShowingEnd::Shown { version: None }).await;
    operator.show_again(id, by()).await.unwrap();
    assert_eq!(places(&ledger).await.len(), 2, "all of it, once all of it was shown");
    assert!(matches!(operator.show_again(nothing, by()).await, Err(ActError::NothingToShow)));
    assert_eq!(
        scratch
            .numbers(
                "SELECT k.seq FROM act_commands k JOIN acts a ON a.id = k.act_id WHERE a.act = 'show_again'"
            )
            .await
            .len(),
        2
    );
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_goes_with_its_command_which_stays_until_it_is_shown(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    for (task, instance) in [("t1", "I"), ("t2", "J"), ("t3", "K")] {
        let id = decided(&ledger, task, None).await;
        report(&ledger, outcome(id, "applied", Some((instance, 7)))).await;
    }
    ledger.settle(Settlement { through: Some(3), ..Settlement::default() }).await.unwrap();
    let due = waiting(&ledger).await;
    settle(&ledger, &due[0], ShowingEnd::Shown { version: Some(7) }).await;
    settle(&ledger, &due[2], parked()).await;
    let operator = scratch.client().await;
    let tomorrow = Timestamp::now() + Duration::from_secs(86_400);
    assert_eq!(operator.prunable(tomorrow).await.unwrap(), 2);
    assert_eq!(operator.prune(tomorrow, by(), Box::new(|_| ())).await.unwrap(), 2);
    for table in ["commands", "outcomes", "showings"] {
        assert_eq!(scratch.places(table).await, [2], "{table}");
    }
    assert!(scratch.places("instance_versions").await.is_empty());
    let stats = ledger.stats().await.unwrap();
    assert_eq!((stats.published, stats.outcomes_pending, stats.outcomes_parked), (1, 1, 0));
    settle(&ledger, &due[1], ShowingEnd::Shown { version: Some(7) }).await;
    assert_eq!(operator.prune(tomorrow, by(), Box::new(|_| ())).await.unwrap(), 1);
    for table in ["commands", "outcomes", "instance_versions"] {
        assert!(scratch.places(table).await.is_empty(), "{table}");
    }
    assert_eq!(ledger.stats().await.unwrap().published, 0);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_reported_is_there_after_a_restart(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let id = decided(&ledger, "t1", Some(CARD)).await;
    report(&ledger, outcome(id, "applied", None)).await;
    close(ledger).await;
    let ledger = scratch.open().await;
    assert_eq!(places(&ledger).await, [(Surface::Card, CARD.to_owned())]);
    assert_eq!(ledger.report(outcome(id, "applied", None), true).await, Ok(Reported::Repeat));
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_stays_for_its_outcome_keeps_its_history(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let kept = decided(&ledger, "kept", Some(CARD)).await;
    let gone = decided(&ledger, "gone", None).await;
    ledger.settle(Settlement { through: Some(1), ..Settlement::default() }).await.unwrap();
    scratch.execute("UPDATE publish_marks SET first_at = first_at - 60000, last_at = last_at - 60000").await;
    ledger.settle(Settlement { through: Some(2), ..Settlement::default() }).await.unwrap();
    report(&ledger, outcome(kept, "applied", None)).await;
    assert_eq!(ledger.show_again(kept, by()).await.unwrap(), ShowAgain::Ordered);
    let operator = scratch.client().await;
    operator.show_again(kept, by()).await.unwrap();
    let before = ledger.find(kept).await.unwrap().unwrap().history.unwrap();
    let tomorrow = Timestamp::now() + Duration::from_secs(86_400);
    assert_eq!(operator.prune(tomorrow, by(), Box::new(|_| ())).await.unwrap(), 1);
    assert!(ledger.find(gone).await.unwrap().is_none());
    assert_eq!(ledger.find(kept).await.unwrap().unwrap().history.unwrap(), before);
    close(ledger).await;
}
