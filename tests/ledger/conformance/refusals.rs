//! Refused callbacks: how many are kept, and whose.

use super::*;
use countersign::ledger::ContextTask;

/// The newest, as they were handed over.
async fn found(ledger: &Handle, reason: Option<&str>, limit: usize) -> Vec<RefusedCallback> {
    let filter = RefusalFilter { reason: reason.map(str::to_owned), limit, ..RefusalFilter::default() };
    ledger.refusals(filter).await.unwrap().into_iter().map(|kept| kept.refused).collect()
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_noise_does_not_push_out_what_approvers_ask_about(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let refused = |user_id: Option<&str>| RefusedCallback {
        reason: if user_id.is_some() { "conflicting" } else { "unauthenticated" }.to_owned(),
        stranger: user_id.is_none(),
        user_id: user_id.map(str::to_owned),
        ..malformed(0)
    };
    ledger.refused(refused(Some("zhang3")));
    for _ in 0..30 {
        ledger.refused(refused(None));
    }
    ledger.flush().await;
    let of = async |reason: &str| found(&ledger, Some(reason), 100).await.len();
    assert_eq!((of("conflicting").await, of("unauthenticated").await), (1, 10));
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn refused_callbacks_are_kept_and_the_oldest_dropped(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    for n in 0..15 {
        let reason = if n % 2 == 0 { "malformed" } else { "unauthenticated" }.to_owned();
        ledger.refused(RefusedCallback { reason, ..malformed(n) });
    }
    // The probe is a commit that takes along what was handed over before it.
    ledger.flush().await;
    let kept = found(&ledger, None, 100).await;
    assert_eq!(kept.iter().map(|one| one.body_bytes).collect::<Vec<_>>(), (5..15).rev().collect::<Vec<_>>());
    let malformed = found(&ledger, Some("malformed"), 2).await;
    assert_eq!(malformed.iter().map(|one| one.body_bytes).collect::<Vec<_>>(), [14, 12]);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_and_what_the_context_named_is_kept_member_by_member(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let text = |text: &str| Some(text.to_owned());
    let full = RefusedCallback {
        refused_at: Timestamp::from_millisecond(1_764_000_000_123).unwrap(),
        endpoint: "purchase".to_owned(),
        reason: "context_invalid".to_owned(),
        detail: text("a detail"),
        peer: text("192.0.2.7"),
        body_bytes: 321,
        stranger: false,
        action_type: text("APPROVE"),
        user_id: text("zhang3"),
        approval_code: text("PO"),
        instance_id: text("own-instance"),
        task_id: text("own-task"),
        search_id: text("search"),
        message_id: text("7690275278685244603"),
        context_task: Some(ContextTask {
            instance_id: text("named-instance"),
            task_id: text("named-task"),
            round: text("2"),
            business_key: text("PO-77"),
        }),
    };
    let bare = RefusedCallback { stranger: true, context_task: None, ..malformed(1) };
    ledger.refused(full.clone());
    ledger.refused(bare.clone());
    ledger.flush().await;
    let kept = found(&ledger, None, 10).await;
    assert_eq!(kept, [RefusedCallback { refused_at: kept[0].refused_at, ..bare }, full]);
}

/// A callback that was refused for its contents.
fn malformed(body_bytes: u64) -> RefusedCallback {
    RefusedCallback {
        refused_at: Timestamp::now(),
        endpoint: "purchase".to_owned(),
        reason: "malformed".to_owned(),
        body_bytes,
        ..RefusedCallback::default()
    }
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn refused_callbacks_are_found_by_who_what_when_and_number(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let text = |text: &str| Some(text.to_owned());
    let at = |seconds: i64| Timestamp::from_millisecond((1_764_000_000 + seconds) * 1000).unwrap();
    let base = |seconds: i64| RefusedCallback { refused_at: at(seconds), ..malformed(0) };
    for refused in [
        RefusedCallback {
            user_id: text("zhang3"),
            task_id: text("n1"),
            instance_id: text("PO-77"),
            peer: text("192.0.2.7"),
            ..base(0)
        },
        RefusedCallback { user_id: text("li4"), search_id: text("n1"), message_id: text("77"), ..base(60) },
        RefusedCallback { endpoint: "sales".to_owned(), reason: "unauthenticated".to_owned(), ..base(120) },
        RefusedCallback {
            user_id: text("zhang3"),
            context_task: Some(ContextTask {
                instance_id: text("PO-77"),
                task_id: text("n1"),
                ..ContextTask::default()
            }),
            // The clock was set back.
            ..base(30)
        },
    ] {
        ledger.refused(refused);
    }
    ledger.flush().await;
    let all = || RefusalFilter { limit: 10, ..RefusalFilter::default() };
    let filters = [
        (all(), vec![4, 3, 2, 1]),
        (RefusalFilter { limit: 2, ..all() }, vec![4, 3]),
        (RefusalFilter { before: Some(3), ..all() }, vec![2, 1]),
        (RefusalFilter { id: Some(3), ..all() }, vec![3]),
        (RefusalFilter { id: Some(9), ..all() }, vec![]),
        (RefusalFilter { user_id: text("zhang3"), ..all() }, vec![4, 1]),
        (RefusalFilter { nobody: true, ..all() }, vec![3]),
        (RefusalFilter { peer: text("192.0.2.7"), ..all() }, vec![1]),
        (RefusalFilter { peer: text("192.0.2.8"), ..all() }, vec![]),
        (RefusalFilter { id: Some(3), before: Some(3), ..all() }, vec![]),
        (RefusalFilter { task_id: text("n1"), ..all() }, vec![4, 2, 1]),
        (RefusalFilter { instance_id: text("PO-77"), ..all() }, vec![4, 1]),
        (RefusalFilter { message_id: text("77"), ..all() }, vec![2]),
        (RefusalFilter { endpoint: text("sales"), ..all() }, vec![3]),
        (RefusalFilter { reason: text("malformed"), user_id: text("li4"), ..all() }, vec![2]),
        (RefusalFilter { since: Some(at(30)), until: Some(at(60)), ..all() }, vec![4]),
        (RefusalFilter { since: Some(at(30)), until: Some(at(61)), ..all() }, vec![4, 2]),
        (RefusalFilter { since: Some(at(61)), ..all() }, vec![3]),
        (RefusalFilter { until: Some(at(30)), ..all() }, vec![1]),
        (RefusalFilter { user_id: text("zhang3"), task_id: text("n2"), ..all() }, vec![]),
    ];
    for (filter, expected) in filters {
        let found = ledger.refusals(filter.clone()).await.unwrap();
        assert_eq!(found.iter().map(|one| one.id).collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn a_search_of_refused_callbacks_stops_in_time_and_is_continued(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let at = |n: u64| Timestamp::from_millisecond((1_764_000_000 + n as i64) * 1000).unwrap();
    for n in 1..=5 {
        ledger.refused(RefusedCallback { refused_at: at(n), ..malformed(n) });
    }
    ledger.flush().await;
    // More than one slice lies between two of them.
    let id = if backend == Backend::Sqlite { "" } else { "ALTER TABLE refusals ALTER id DROP IDENTITY;" };
    scratch.execute(&format!("{id} UPDATE refusals SET id = id * 5000")).await;
    let ledger = scratch.open().await;
    let filter = RefusalFilter { reason: Some("malformed".to_owned()), limit: 9, ..RefusalFilter::default() };
    let (mut seen, mut before, mut stops) = (Vec::new(), None, 0);
    loop {
        let found =
            ledger.search_refusals(RefusalFilter { before, ..filter.clone() }, Duration::ZERO).await.unwrap();
        seen.extend(found.rows.iter().map(|one| one.id));
        let Some(stopped) = found.stopped else { break };
        stops += 1;
        assert_eq!(stopped.back_to, Some(at(stopped.at.div_ceil(5000))));
        before = Some(stopped.at);
    }
    assert_eq!(seen, [25_000, 20_000, 15_000, 10_000, 5000]);
    assert!(stops > 5, "{stops}");
    let kept = ledger.refusals(filter).await.unwrap();
    assert_eq!(kept.iter().map(|one| one.id).collect::<Vec<_>>(), seen);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_callback_that_cannot_be_kept_is_remembered(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    ledger.refused(malformed(1));
    ledger.flush().await;
    assert!(ledger.newest_refusals_dropped().is_empty());
    // It is closed.
    ledger.refused(malformed(2));
    ledger.refused(RefusedCallback { stranger: true, ..malformed(3) });
    let dropped = ledger.refusals_dropped();
    assert_eq!((dropped.known, dropped.strangers), (1, 1));
    let mut sizes: Vec<_> = ledger.newest_refusals_dropped().iter().map(|one| one.body_bytes).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 3]);
    assert_eq!(found(&ledger, None, 9).await.iter().map(|one| one.body_bytes).collect::<Vec<_>>(), [1]);
}
