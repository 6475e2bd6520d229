mod contexts;
mod files;
mod findings;
mod history;
mod listing;
mod outcomes;
mod refusals;
mod retention;
mod sameness;
mod versions;

use std::{fs, time::Duration};

use rusqlite::Connection;

use super::*;
use crate::{
    command::{Action, Command, CommandId, Fingerprint, Origin, ResolvedBy, TaskRef, id::FingerprintParts},
    ledger::{
        Accept, Acceptance, Contexts, Entry, Exception, Filter, Findings, Lifecycle, Limits, Lookup,
        OnConflict, Outbox, Outcomes, Receipt, RefusalFilter, RefusedCallback, Registering, Registration,
        Reported, Settlement, Shown,
        state::{Exceptional, State},
    },
    time::Timestamp,
};

struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> Settings {
        Settings {
            path: self.directory.path().join("ledger.db"),
            queue_capacity: 1000,
            max_batch: 256,
            limits: Limits {
                refusals_kept: 10,
                longest_window: Duration::from_secs(60),
                ..Limits::default()
            },
        }
    }

    fn open(&self) -> SqliteLedger {
        SqliteLedger::open(&self.settings()).unwrap()
    }

    fn sql<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        Connection::open(self.settings().path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn execute(&self, sql: &str) {
        Connection::open(self.settings().path).unwrap().execute_batch(sql).unwrap();
    }
}

fn acceptance(task_id: &str, action_type: &str, round: Option<&str>) -> Acceptance {
    let received_at = Timestamp::now();
    let command = Command {
        command_id: CommandId::new(received_at),
        endpoint: "purchase".into(),
        received_at,
        action: Action::of(action_type),
        action_type: action_type.to_owned(),
        origin: Some(Origin::List),
        user_id: "zhang3".to_owned(),
        approval_code: Some("CODE".to_owned()),
        task: TaskRef {
            instance_id: Some("i".to_owned()),
            task_id: Some(task_id.to_owned()),
            round: round.map(str::to_owned),
            resolved_by: Some(ResolvedBy::Opaque),
            ..TaskRef::default()
        },
        reason: None,
        attachments: Vec::new(),
        action_context: None,
        message_id: None,
        search_id: None,
        conflicts_with: None,
        repeats: None,
        extra: Vec::new(),
    };
    let fingerprint = Fingerprint::of(&FingerprintParts {
        endpoint: "purchase",
        task_id: Some(task_id),
        round,
        user_id: "zhang3",
        action_type,
        ..Default::default()
    });
    Acceptance {
        command,
        fingerprint,
        window: Duration::from_secs(60),
        repeats_window: Duration::from_secs(24 * 3600),
        on_conflict: OnConflict::Publish,
    }
}

async fn accepted(ledger: &SqliteLedger, acceptance: Acceptance) -> CommandId {
    match ledger.accept(acceptance).await {
        Ok(Receipt::Accepted { command_id }) => command_id,
        other => panic!("expected accepted, got {other:?}"),
    }
}

async fn duplicate_of(ledger: &SqliteLedger, acceptance: Acceptance) -> CommandId {
    match ledger.accept(acceptance).await {
        Ok(Receipt::Duplicate { command_id }) => command_id,
        other => panic!("expected a duplicate, got {other:?}"),
    }
}

#[tokio::test]
async fn an_accepted_command_is_on_the_disk_with_its_message() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let acceptance = acceptance("t1", "APPROVE", None);
    let received_at = acceptance.command.received_at.as_millisecond();
    let id = accepted(&ledger, acceptance).await;
    let stored: Vec<u8> = scratch.sql("SELECT message FROM commands");
    let message: serde_json::Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(message["command_id"], id.to_string());
    let record = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((record.state, record.seq, record.task_id.as_deref()), (State::Pending, 1, Some("t1")));
    assert_eq!(record.received_at.as_millisecond(), received_at);
    assert_eq!(record.command.unwrap().get().as_bytes(), stored);
}

#[tokio::test]
async fn a_settled_prefix_is_published_and_exceptions_are_what_they_say() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
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
    let mut operator = OperatorActs::open(&scratch.settings().path).unwrap();
    assert_eq!(operator.requeue_parked().unwrap(), [ids[1]]);
    assert_eq!(states().await[1], State::Pending);
    operator.requeue(ids[2]).unwrap();
    assert!(matches!(operator.requeue(ids[3]), Err(ActError::Illegal(_))));
    assert!(matches!(operator.requeue(CommandId::new(now)), Err(ActError::NotFound(_))));
    ledger.settle(Settlement { cleared: vec![1, 2, 3], ..Settlement::default() }).await.unwrap();
    assert_eq!(states().await, [State::Published, State::Published, State::Published, State::Pending]);
    operator.park(ids[3]).unwrap();
    let acts: String =
        scratch.sql("SELECT group_concat(act || ' ' || seq, ', ' ORDER BY rowid) FROM operator_acts");
    assert_eq!(acts, "requeue 2, requeue 3, park 4");
}

#[tokio::test]
async fn an_exception_from_before_the_clock_was_set_back_is_due_now() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
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

#[tokio::test]
async fn of_the_exceptions_that_are_due_those_come_first_that_have_been_due_longest() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
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
    let connection = Connection::open(scratch.settings().path).unwrap();
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", reader::DUE_LONGEST)).unwrap();
    let rows = statement.query_map([0, 1, 2], |row| row.get::<_, String>(3)).unwrap();
    let plan: Vec<_> = rows.map(Result::unwrap).filter(|row| row.contains(" exceptions ")).collect();
    let by_index = |range| format!("SEARCH exceptions USING INDEX exceptions_due (next_attempt_at{range}?)");
    assert_eq!(plan, [by_index(">"), by_index("<")]);
}

#[tokio::test]
async fn an_operators_park_stands_whatever_the_relay_was_about_to_write() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let id = accepted(&ledger, acceptance("a", "APPROVE", None)).await;
    OperatorActs::open(&scratch.settings().path).unwrap().park(id).unwrap();
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

#[tokio::test]
async fn the_cursor_never_moves_back() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    for task in ["a", "b"] {
        accepted(&ledger, acceptance(task, "APPROVE", None)).await;
    }
    for through in [2, 1] {
        ledger.settle(Settlement { through: Some(through), ..Settlement::default() }).await.unwrap();
    }
    assert_eq!(ledger.cursor().await.unwrap(), 2);
}

#[tokio::test]
async fn fresh_commands_reach_a_taker_in_order_and_nobody_else() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    accepted(&ledger, acceptance("a", "APPROVE", None)).await;
    assert!(ledger.take_fresh().is_empty());
    ledger.keep_fresh(true);
    let head = ledger.head();
    assert_eq!(*head.borrow(), 1, "who has a receipt finds the command in `head`");
    for (task, action) in [("b", "APPROVE"), ("c", "REJECT"), ("d", "ADD_SIGN")] {
        accepted(&ledger, acceptance(task, action, None)).await;
    }
    assert_eq!(*head.borrow(), 4);
    let fresh = ledger.take_fresh();
    assert_eq!(fresh.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2, 3, 4]);
    let actions = fresh.iter().map(|entry| entry.envelope.action);
    assert_eq!(actions.collect::<Vec<_>>(), [Action::Approve, Action::Reject, Action::Custom]);
    let read = ledger.since(1, 10).await.unwrap();
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

#[tokio::test]
async fn a_writer_that_hangs_does_not_answer_and_one_whose_commit_fails_does() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let other = Connection::open(scratch.settings().path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut answers = ledger.answers();
    let early = tokio::time::timeout(Duration::from_millis(200), &mut answers).await;
    assert!(early.is_err(), "the writer waits for the other one");
    other.execute_batch("COMMIT").unwrap();
    assert!(answers.await);
    scratch.execute("ALTER TABLE cursor RENAME TO gone");
    assert!(ledger.probe().await.is_err());
    assert!(ledger.answers().await);
    scratch.execute("ALTER TABLE gone RENAME TO cursor");
    ledger.flush().await;
    assert!(!ledger.answers().await);
}

#[tokio::test]
async fn a_full_queue_refuses_and_keeps_nothing() {
    let scratch = Scratch::new();
    let ledger = SqliteLedger::open(&Settings { queue_capacity: 0, ..scratch.settings() }).unwrap();
    assert_eq!(ledger.accept(acceptance("a", "APPROVE", None)).await, Err(AcceptError::Overloaded));
    assert_eq!(ledger.stats().await.unwrap().head, 0);
}

#[tokio::test]
async fn a_commit_that_fails_promises_nothing_and_forgets_nothing() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    accepted(&ledger, acceptance("a", "APPROVE", None)).await;
    // A table that is away stands in for any failing statement.
    scratch.execute("ALTER TABLE commands RENAME TO gone");
    assert_eq!(ledger.accept(acceptance("b", "APPROVE", None)).await, Err(AcceptError::Unavailable));
    assert_eq!(ledger.probe().await, Ok(()));
    scratch.execute("ALTER TABLE gone RENAME TO commands");
    // Not a duplicate: the failed one was taken back from the window, and its place in the log is used now.
    accepted(&ledger, acceptance("b", "APPROVE", None)).await;
    assert_eq!(ledger.stats().await.unwrap().head, 2);
}

#[tokio::test]
async fn a_commit_that_fails_after_commands_were_appended_leaves_no_gap_in_the_log() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    scratch.execute("ALTER TABLE exceptions RENAME TO gone");
    let accept = |number: u64| acceptance(&format!("t{number}"), "APPROVE", None);
    let mut kept = 0;
    // A settlement fails, and what is accepted with it; each may also have a commit of its own.
    loop {
        let settlement = Settlement { cleared: vec![1], ..Settlement::default() };
        let (settled, receipt) = tokio::join!(ledger.settle(settlement), ledger.accept(accept(kept)));
        assert_eq!(settled, Err(AcceptError::Unavailable));
        if receipt.is_err() {
            break;
        }
        kept += 1;
        assert!(kept < 1000, "they never meet in one commit");
    }
    scratch.execute("ALTER TABLE gone RENAME TO exceptions");
    accepted(&ledger, accept(kept)).await;
    assert_eq!(ledger.stats().await.unwrap().head, kept + 1);
}
