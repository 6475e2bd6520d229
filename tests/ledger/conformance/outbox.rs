//! What is to be published, and what became of it.

use super::*;

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn a_settled_prefix_is_published_and_exceptions_are_what_they_say(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let mut ids = Vec::new();
    for task in ["a", "b", "c", "d"] {
        ids.push(accepted(&ledger, acceptance(task, "APPROVE", None)).await);
    }
    let now = Timestamp::now();
    let exception = |seq, state| Exception {
        seq,
        state,
        attempts: 3,
        next_attempt_at: now,
        reason: "returned: NO_ROUTE".to_owned(),
    };
    let settlement = Settlement {
        through: Some(3),
        exceptions: vec![exception(1, Exceptional::Retrying), exception(2, Exceptional::Parked)],
        ..Settlement::default()
    };
    ledger.settle(settlement).await.unwrap();
    let states = async || {
        let mut states = Vec::new();
        for id in &ids {
            states.push(ledger.find(*id).await.unwrap().unwrap().state);
        }
        states
    };
    assert_eq!(states().await, [State::Pending, State::Parked, State::Published, State::Pending]);
    let stats = ledger.stats().await.unwrap();
    assert_eq!((stats.pending, stats.parked, stats.published), (2, 1, 1));
    assert_eq!(ledger.cursor().await.unwrap(), 3);
    let above: Vec<_> = ledger.since(0, 10).await.unwrap().iter().map(|entry| entry.seq).collect();
    assert_eq!(above, [3, 4], "exceptions are left out");
    let due = ledger.due(now, 10).await.unwrap();
    assert_eq!((due.len(), due[0].entry.seq, due[0].attempts), (1, 1, 3));
    assert_eq!(ledger.waiting_tasks().await.unwrap().len(), 1);
    for &state in State::ALL {
        let filter = Filter { state: Some(state), limit: 10, ..Filter::default() };
        let listed: Vec<_> =
            ledger.list(filter).await.unwrap().iter().map(|record| record.seq).rev().collect();
        let expected: Vec<_> =
            (1..=4).zip(states().await).filter(|(_, s)| *s == state).map(|(n, _)| n).collect();
        assert_eq!(listed, expected, "{state:?}");
    }
    let only = |state| Filter { state: Some(state), limit: 1, ..Filter::default() };
    let parked = ledger.list(only(State::Parked)).await.unwrap();
    assert_eq!(parked[0].next_attempt_at, None, "it is not tried again by itself");
    assert!(ledger.find(ids[0]).await.unwrap().unwrap().next_attempt_at.is_some());
    // An operator requeues the parked one, from beside the running writer.
    let operator = scratch.client().await;
    assert_eq!(operator.requeue_parked(by()).await.unwrap(), [ids[1]]);
    assert_eq!(states().await[1], State::Pending);
    operator.requeue(ids[2], by()).await.unwrap();
    assert!(matches!(operator.requeue(ids[3], by()).await, Err(ActError::Illegal(_))));
    assert!(matches!(operator.requeue(CommandId::new(now), by()).await, Err(ActError::NotFound(_))));
    ledger.settle(Settlement { cleared: vec![1, 2, 3], ..Settlement::default() }).await.unwrap();
    assert_eq!(states().await, [State::Published, State::Published, State::Published, State::Pending]);
    operator.park(ids[3], by()).await.unwrap();
    let acts = scratch.numbers("SELECT k.seq FROM act_commands k JOIN acts a ON a.id = k.act_id WHERE a.act = 'requeue' ORDER BY k.id").await;
    assert_eq!(acts, [2, 3]);
    assert_eq!(
        scratch
            .numbers("SELECT k.seq FROM act_commands k JOIN acts a ON a.id = k.act_id WHERE a.act = 'park'")
            .await,
        [4]
    );
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn an_exception_from_before_the_clock_was_set_back_is_due_now(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    accepted(&ledger, acceptance("a", "APPROVE", None)).await;
    let now = Timestamp::now();
    for (ahead_s, due) in [(30, 0), (3600, 1)] {
        let exception = Exception {
            seq: 1,
            state: Exceptional::Retrying,
            attempts: 1,
            next_attempt_at: now + Duration::from_secs(ahead_s),
            reason: "nacked".to_owned(),
        };
        let settlement =
            Settlement { through: Some(1), exceptions: vec![exception], ..Settlement::default() };
        ledger.settle(settlement).await.unwrap();
        assert_eq!(ledger.due(now, 10).await.unwrap().len(), due, "{ahead_s} s ahead");
    }
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn of_the_exceptions_that_are_due_those_come_first_that_have_been_due_longest(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let now = Timestamp::now();
    // 4 is from before the clock was set back, 6 is not due yet, 7 is parked.
    let due_since = [2_000, 3_000, 3_000, -3_600_000, 0, -1, 4_000];
    for (seq, ms) in (1..).zip(due_since) {
        accepted(&ledger, acceptance(&format!("task {seq}"), "APPROVE", None)).await;
        let exception = Exception {
            seq,
            state: if seq == 7 { Exceptional::Parked } else { Exceptional::Retrying },
            attempts: 1,
            next_attempt_at: Timestamp::from_millisecond(now.as_millisecond() - ms).unwrap(),
            reason: "nacked".to_owned(),
        };
        let settlement =
            Settlement { through: Some(seq), exceptions: vec![exception], ..Settlement::default() };
        ledger.settle(settlement).await.unwrap();
    }
    let listed = async |limit| -> Vec<Seq> {
        ledger.due(now, limit).await.unwrap().iter().map(|due| due.entry.seq).collect()
    };
    let expected: [&[Seq]; 6] =
        [&[4], &[2, 4], &[2, 3, 4], &[1, 2, 3, 4], &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]];
    for (limit, expected) in (1..).zip(expected) {
        assert_eq!(listed(limit).await, expected, "{limit}");
    }
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn an_operators_park_stands_whatever_the_relay_was_about_to_write(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let id = accepted(&ledger, acceptance("a", "APPROVE", None)).await;
    scratch.client().await.park(id, by()).await.unwrap();
    let exception = Exception {
        seq: 1,
        state: Exceptional::Retrying,
        attempts: 2,
        next_attempt_at: Timestamp::now(),
        reason: "nacked".to_owned(),
    };
    let settlement = Settlement { through: Some(1), exceptions: vec![exception], ..Settlement::default() };
    ledger.settle(settlement).await.unwrap();
    assert_eq!(ledger.find(id).await.unwrap().unwrap().state, State::Parked);
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn the_cursor_never_moves_back(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    for task in ["a", "b"] {
        accepted(&ledger, acceptance(task, "APPROVE", None)).await;
    }
    for through in [2, 1] {
        ledger.settle(Settlement { through: Some(through), ..Settlement::default() }).await.unwrap();
    }
    assert_eq!(ledger.cursor().await.unwrap(), 2);
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn fresh_commands_reach_a_taker_in_order_and_nobody_else(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    accepted(&ledger, acceptance("a", "APPROVE", None)).await;
    assert!(ledger.take_fresh().is_empty());
    ledger.keep_fresh(true);
    let mut head = ledger.head();
    head.wait_for(|head| *head == 1).await.unwrap();
    for (task, action) in [("b", "APPROVE"), ("c", "REJECT"), ("d", "ADD_SIGN")] {
        accepted(&ledger, acceptance(task, action, None)).await;
    }
    head.wait_for(|head| *head == 4).await.unwrap();
    let fresh = ledger.take_fresh();
    // Of two replicas the leader has its own in memory.
    let expected: &[Seq] = if backend == Backend::TwoReplicas { &[3] } else { &[2, 3, 4] };
    assert_eq!(fresh.iter().map(|entry| entry.seq).collect::<Vec<_>>(), expected);
    let mut read = ledger.since(1, 10).await.unwrap();
    let actions = read.iter().map(|entry| entry.envelope.action);
    assert_eq!(actions.collect::<Vec<_>>(), [Action::Approve, Action::Reject, Action::Custom]);
    read.retain(|entry| expected.contains(&entry.seq));
    let parts = |entries: &[Entry]| {
        let parts = |e: &Entry| {
            (e.envelope.command_id, e.envelope.action, e.envelope.task_id.clone(), e.body.clone(), e.task_key)
        };
        entries.iter().map(parts).collect::<Vec<_>>()
    };
    assert_eq!(parts(&fresh), parts(&read), "what is handed on in memory is what stands in the log");
    accepted(&ledger, acceptance("e", "APPROVE", None)).await;
    ledger.keep_fresh(false);
    assert!(ledger.take_fresh().is_empty(), "nobody wants it: it is in the log");
}
