//! The registered contexts.

use serde_json::value::RawValue;

use super::*;
use countersign::command::{Grant, Registered};

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

/// Names a task, permits everything, for ever.
fn context(key: &str, task_id: &str) -> Registration {
    let task = TaskRef {
        task_id: Some(task_id.to_owned()),
        resolved_by: Some(ResolvedBy::Registry),
        ..TaskRef::default()
    };
    Registration {
        key: key.to_owned(),
        message_id: None,
        registered: Registered { grant: Grant::unbound(task), expires_at: None },
        registered_at: Timestamp::now(),
    }
}

fn of_message(key: &str, message_id: u64) -> Registration {
    Registration { message_id: Some(message_id), ..context(key, key) }
}

fn expired(one: Registration, hours_ago: u64) -> Registration {
    expiring(one, Timestamp::now() - Duration::from_secs(3600 * hours_ago))
}

fn expiring(mut one: Registration, at: Timestamp) -> Registration {
    one.registered.expires_at = Some(at);
    one
}

async fn register(ledger: &Handle, contexts: Vec<Registration>) -> Vec<bool> {
    match ledger.register(contexts, by()).await {
        Ok(Registering::Kept { replaced }) => replaced,
        other => panic!("expected to be kept, got {other:?}"),
    }
}

/// The task that a callback with this context and message is about.
async fn task_of(ledger: &Handle, key: &str, message_id: Option<u64>) -> Option<String> {
    let found = ledger.registered(Some(key.to_owned()), message_id).await.unwrap();
    found.map(|found| found.grant.task.task_id.unwrap())
}

async fn eventually(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !reached().await {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_context_comes_back_as_it_was_registered_after_a_restart_too(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let expires_at = Some("2999-01-01T00:00:00.123Z".parse().unwrap());
    let whole = Registration {
        key: "{\"k\": \"审批\"}\n\0'".to_owned(),
        message_id: Some(u64::MAX),
        registered: Registered {
            grant: Grant {
                task: TaskRef {
                    instance_id: Some("i".to_owned()),
                    task_id: Some("t".to_owned()),
                    round: Some("2".to_owned()),
                    business_key: Some("PO-77".to_owned()),
                    resolved_by: Some(ResolvedBy::Registry),
                    data: Some(raw("{ \"amount\":12345678901234567890.10 ,\"amount\":1}")),
                },
                operators: Some(vec!["zhang3".to_owned(), "\"".to_owned()]),
                actions: Some(vec!["APPROVE".to_owned()]),
                approval_code: Some("CODE".to_owned()),
                endpoint: Some("purchase".to_owned()),
            },
            expires_at,
        },
        registered_at: Timestamp::now(),
    };
    assert_eq!(register(&ledger, vec![whole.clone(), context("least", "t")]).await, [false, false]);
    let least = ledger.registration("least".to_owned()).await.unwrap().unwrap();
    assert_eq!(
        format!("{least:?}"),
        format!("{:?}", context("least", "t")).replace(
            &format!("{:?}", context("least", "t").registered_at),
            &format!("{:?}", least.registered_at)
        )
    );
    close(ledger).await;
    let ledger = scratch.open().await;
    let shown = ledger.registration(whole.key.clone()).await.unwrap().unwrap();
    assert_eq!(format!("{shown:?}"), format!("{whole:?}"));
    for (key, message_id) in [(Some(whole.key.clone()), None), (None, Some(u64::MAX))] {
        let found = ledger.registered(key, message_id).await.unwrap().unwrap();
        assert_eq!(format!("{found:?}"), format!("{:?}", whole.registered));
    }
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn the_key_counts_before_the_message_and_neither_is_nothing(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    register(&ledger, vec![context("a", "by key"), of_message("b", 7)]).await;
    assert_eq!(task_of(&ledger, "a", Some(7)).await.as_deref(), Some("by key"));
    assert_eq!(task_of(&ledger, "unknown", Some(7)).await.as_deref(), Some("b"));
    for (key, message_id) in [("unknown", None), ("A", None), ("a ", Some(8)), ("", Some(0))] {
        assert_eq!(task_of(&ledger, key, message_id).await, None, "{key} {message_id:?}");
    }
    assert!(ledger.registered(None, None).await.unwrap().is_none());
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_context_is_replaced_whole_and_removed(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    register(&ledger, vec![of_message("a", 7)]).await;
    assert_eq!(register(&ledger, vec![context("a", "second")]).await, [true]);
    assert_eq!(task_of(&ledger, "a", None).await.as_deref(), Some("second"));
    assert_eq!(task_of(&ledger, "b", Some(7)).await, None, "the message is no longer said to be its own");
    assert!(ledger.unregister("a".to_owned(), by()).await.unwrap());
    assert!(!ledger.unregister("a".to_owned(), by()).await.unwrap());
    assert_eq!(task_of(&ledger, "a", Some(7)).await, None);
    assert!(ledger.registration("a".to_owned()).await.unwrap().is_none());
    assert_eq!(register(&ledger, vec![of_message("a", 7)]).await, [false]);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_message_means_one_context_and_a_batch_is_kept_whole_or_not_at_all(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    register(&ledger, vec![of_message("a", 1), of_message("b", 2), expired(of_message("c", 3), 1)]).await;
    for (item, batch) in [
        (1, vec![context("new", "new"), of_message("other", 2), context("a", "changed")]),
        (1, vec![of_message("x", 9), of_message("y", 9)]),
        (0, vec![of_message("b", 1), of_message("x", 10)]),
    ] {
        assert_eq!(ledger.register(batch, by()).await, Ok(Registering::MessageTaken { item }));
    }
    for key in ["a", "b", "c"] {
        assert_eq!(task_of(&ledger, key, None).await.as_deref(), Some(key));
    }
    assert_eq!(scratch.count("contexts").await, 3);

    // Two that change places, and an expired one that nobody can act on any more.
    let swapped = vec![of_message("a", 2), of_message("b", 1), of_message("d", 3)];
    assert_eq!(register(&ledger, swapped).await, [true, true, false]);
    let mut tasks = Vec::new();
    for message_id in 1..=3 {
        tasks.push(task_of(&ledger, "unknown", Some(message_id)).await.unwrap());
    }
    assert_eq!(tasks, ["b", "a", "d"]);
    let c = ledger.registration("c".to_owned()).await.unwrap().unwrap();
    assert_eq!(c.message_id, None);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn accepts_and_a_flood_of_registrations_are_all_answered(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let flood = (0..10).map(|batch| {
        let contexts = (0..300).map(|n| context(&format!("{batch}-{n}"), "t")).collect();
        ledger.register(contexts, by())
    });
    let flood: Vec<_> = flood.collect();
    let accepts: Vec<_> =
        (0..10).map(|n| ledger.accept(acceptance(&format!("t{n}"), "APPROVE", None))).collect();
    for accept in accepts {
        assert!(matches!(accept.await, Ok(Receipt::Accepted { .. })));
    }
    for batch in flood {
        assert!(matches!(batch.await, Ok(Registering::Kept { replaced }) if replaced == [false; 300]));
    }
    // What is queued when the ledger is closed is carried out.
    let last: Vec<_> =
        (0..9).map(|n| ledger.register(vec![context(&format!("last-{n}"), "t"); 1], by())).collect();
    ledger.flush().await;
    for one in last {
        assert!(one.await.is_ok());
    }
    close(ledger).await;
    assert_eq!(scratch.count("contexts").await, 3009);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_expired_a_week_ago_is_pruned_step_by_step_and_nothing_else_is(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    register(&ledger, (0..200).map(|n| of_message(&format!("old-{n}"), n)).collect()).await;
    let lately = expired(context("lately", "t"), 7 * 24 - 1);
    register(
        &ledger,
        vec![
            lately,
            context("for ever", "t"),
            expiring(context("later", "t"), Timestamp::now() + Duration::from_secs(3600)),
        ],
    )
    .await;
    close(ledger).await;
    let old = expired(context("old", "t"), 7 * 24 + 1).registered.expires_at.unwrap().as_millisecond();
    scratch.execute(&format!("UPDATE contexts SET expires_at = {old} WHERE key LIKE 'old-%'")).await;
    assert_eq!(scratch.count("contexts").await, 203);

    // It begins at the start, and takes some at a time.
    let ledger = scratch.open().await;
    eventually("pruned", async || scratch.count("contexts").await == 3).await;
    accepted(&ledger, acceptance("t", "APPROVE", None)).await;
    for key in ["lately", "for ever", "later"] {
        assert!(ledger.registration(key.to_owned()).await.unwrap().is_some(), "{key}");
    }
    let found = ledger.registered(Some("lately".to_owned()), None).await.unwrap().unwrap();
    assert!(found.expires_at.unwrap() < Timestamp::now(), "expired can be told");
    assert_eq!(scratch.count("contexts").await, 3);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_cannot_be_read_or_written_is_unavailable_until_it_can(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    register(&ledger, vec![context("a", "t")]).await;
    assert!(task_of(&ledger, "a", None).await.is_some());
    scratch.execute("ALTER TABLE contexts RENAME TO gone").await;
    let look = || ledger.registered(Some("a".to_owned()), Some(1));
    assert_eq!(look().await.unwrap_err(), AcceptError::Unavailable);
    assert_eq!(ledger.register(vec![context("b", "t")], by()).await, Err(AcceptError::Unavailable));
    assert_eq!(ledger.unregister("a".to_owned(), by()).await, Err(AcceptError::Unavailable));
    assert!(ledger.registration("a".to_owned()).await.is_err());
    scratch.execute("ALTER TABLE gone RENAME TO contexts").await;
    assert!(look().await.unwrap().is_some());
    assert_eq!(register(&ledger, vec![context("b", "t")]).await, [false]);
    // What somebody else wrote must not become a permission for everybody.
    scratch.execute("UPDATE contexts SET operators = 'zhang3' WHERE key = 'a'").await;
    assert_eq!(look().await.unwrap_err(), AcceptError::Unavailable);

    ledger.flush().await;
    assert_eq!(look().await.unwrap_err(), AcceptError::Unavailable);
    assert_eq!(ledger.register(vec![context("c", "t")], by()).await, Err(AcceptError::Unavailable));
}
