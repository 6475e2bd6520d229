//! Pruning in steps, and disk space.

use super::*;
use crate::ledger::retention::{MAX_ROWS, Pass};

#[test]
fn a_step_removes_so_many_contexts_that_expired_long_ago() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let day = Duration::from_secs(86_400);
    let old = (Timestamp::now() - day * 8).as_millisecond();
    scratch.execute(&format!(
        "INSERT INTO contexts (key, expires_at, registered_at)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT 'old-' || i, {old}, 0 FROM n;
         INSERT INTO contexts (key, expires_at, registered_at) VALUES ('lately', {old} + 2 * 86400000, 0), ('for ever', NULL, 0)"
    ));
    let mut connection = Connection::open(scratch.path()).unwrap();
    let step = connection.transaction().unwrap();
    let pruned: Vec<usize> = (0..5).map(|_| contexts::prune(&step, Timestamp::now(), 64).unwrap()).collect();
    assert_eq!(pruned, [64, 64, 64, 8, 0]);
}

/// Commands and acts of long ago, all published.
fn old(commands: usize, acts: usize) -> Scratch {
    let scratch = Scratch::new();
    drop(scratch.open());
    let upto = |n: usize| {
        format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n}) SELECT")
    };
    let (of_commands, of_acts) = (upto(commands), upto(acts));
    scratch.execute(&format!(
        "INSERT INTO commands (seq, command_id, received_at, endpoint, action, action_type, user_id, task_key, fingerprint,
            decision_key, message)
         {of_commands} i, randomblob(16), 0, 'e', 'approve', 'APPROVE', 'u', 0, x'', x'', x'' FROM n;
         UPDATE cursor SET published_through = {commands};
         INSERT INTO acts (at, changed_at, act, via, count) {of_acts} 0, 0, 'requeue', 'cli', 1 FROM n;"
    ));
    scratch
}

/// Prunes commit by commit, to the end of a pass; tells how many rows each has changed.
fn pass(scratch: &Scratch) -> Vec<u64> {
    let connection = Connection::open(scratch.path()).unwrap();
    let (mut pass, mut changed) = (Pass::BEGIN, Vec::new());
    while !pass.is_over() {
        assert!(changed.len() < 1000, "{pass:?}");
        let before = connection.total_changes();
        let limits = Limits::default();
        pass = prune::advance(&connection, &pass, &limits, Timestamp::now(), prune::EVERYWHERE).unwrap();
        changed.push(connection.total_changes() - before);
    }
    changed
}

#[test]
fn a_pass_looks_at_what_stays_once() {
    let scratch = old(300, 150);
    scratch.execute(
        "INSERT INTO exceptions SELECT seq, 'parked', 1, 0, 0, '' FROM commands;
         INSERT INTO act_commands (act_id, seq, at) SELECT id, id, 0 FROM acts;",
    );
    assert_eq!(pass(&scratch), [0; 3], "two looks at the commands, three at the acts");
    assert_eq!(scratch.sql::<i64>("SELECT count(*) FROM acts"), 150);
}

#[test]
fn an_act_of_the_future_keeps_no_older_one() {
    let scratch = old(0, 150);
    scratch.execute(&format!("UPDATE acts SET at = {} WHERE id = 30", i64::MAX));
    pass(&scratch);
    assert_eq!(scratch.sql::<i64>("SELECT max(id) FROM acts"), 30);
}

#[test]
fn a_commit_removes_so_many_rows_of_what_acts_changed() {
    let scratch = old(5, 3);
    scratch.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2400)
         INSERT INTO act_contexts (act_id, tag) SELECT id, i FROM acts, n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
         INSERT INTO act_commands (act_id, seq, at) SELECT 1, seq, 0 FROM commands, n;",
    );
    let changed = pass(&scratch);
    // Of commands, of contexts, and a few of what these belong to.
    let most = 2 * MAX_ROWS as u64 + 64;
    assert!(changed.iter().all(|rows| *rows < most), "{changed:?}");
    pass(&scratch);
    for table in ["commands", "acts", "act_commands", "act_contexts"] {
        assert_eq!(scratch.sql::<i64>(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
}

#[tokio::test]
async fn what_the_window_remembers_stays_even_if_the_clock_makes_it_old() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let mut ids = Vec::new();
    for task in 0..10 {
        ids.push(accepted(&ledger, acceptance(&format!("t{task}"), "APPROVE", None)).await);
    }
    ledger.outbox().settle(Settlement { through: Some(8), ..Settlement::default() }).await.unwrap();
    drop(ledger);
    let connection = Connection::open(scratch.path()).unwrap();
    let step = prune::step(&connection, 0, 6, Timestamp::MAX, 100).unwrap();
    assert_eq!((step.pruned, step.next), (5, None));
    assert_eq!(scratch.sql::<i64>("SELECT min(seq) FROM commands"), 6);
    drop(connection);

    let reader = Reader::open(&scratch.path()).unwrap();
    let sixth = reader.list(&Filter { before: Some(7), limit: 1, ..Filter::default() }).unwrap();
    assert_eq!(reader.pruned_before().unwrap(), Some(sixth[0].received_at));
    assert!(reader.find(ids[0]).unwrap().is_none());
}

#[tokio::test]
async fn without_room_on_the_disk_nothing_is_accepted_until_there_is_room_again() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let limits = Scratch::sizing().limits;
    accepted(&ledger, acceptance("before", "APPROVE", None)).await;
    ledger.limit(Limits { min_free_bytes: u64::MAX, ..limits.clone() });
    let deadline = Instant::now() + Duration::from_secs(20);
    while ledger.probe().await.is_ok() {
        assert!(Instant::now() < deadline, "the disk is looked at");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ledger.accept(acceptance("t", "APPROVE", None)).await, Err(AcceptError::NoRoom));
    // Earlier commands can still be settled.
    ledger.outbox().settle(Settlement { through: Some(1), ..Settlement::default() }).await.unwrap();
    ledger.limit(limits);
    while ledger.probe().await.is_err() {
        assert!(Instant::now() < deadline, "the disk is looked at");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    accepted(&ledger, acceptance("t", "APPROVE", None)).await;
}
