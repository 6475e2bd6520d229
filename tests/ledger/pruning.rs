//! What a transaction of pruning holds in PostgreSQL, and how much it removes.

use std::time::{Duration, Instant};

use countersign::ledger::Settlement;

use crate::{
    conformance::acceptance,
    scratch::{Backend, Scratch, close},
};

/// Rows that one transaction may remove of what acts changed.
const MOST: i64 = 1000;

async fn until(what: &str, scratch: &Scratch, sql: &str, wanted: i64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while scratch.numbers(sql).await != [wanted] {
        assert!(Instant::now() < deadline, "{what}: {:?}", scratch.numbers(sql).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Acts of long ago about nothing that is still there.
const OLD_ACTS: &str =
    "INSERT INTO acts (at, changed_at, act, via, count) VALUES (0, 0, 'register', 'api', 3000),
    (0, 0, 'register', 'api', 3000)";

#[tokio::test(flavor = "multi_thread")]
async fn while_acts_are_pruned_the_relay_may_settle() {
    let scratch = Scratch::new(Backend::Postgres).await;
    close(scratch.open().await).await;
    scratch.execute(OLD_ACTS).await;
    // Whoever removes an act waits here.
    let somebody = scratch.connection().await;
    somebody.batch_execute("SELECT pg_advisory_lock(42)").await.expect("nobody has it");
    scratch
        .execute(
            "CREATE FUNCTION countersign.halt() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN OLD; END';
             CREATE TRIGGER halt BEFORE DELETE ON acts FOR EACH ROW EXECUTE FUNCTION countersign.halt()",
        )
        .await;
    let ledger = scratch.open().await;
    let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
        WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted";
    until("it prunes", &scratch, waiting, 1).await;
    let locks = "SELECT count(*) FROM pg_locks l JOIN pg_locks waiting ON waiting.pid = l.pid
        WHERE waiting.locktype = 'advisory' AND NOT waiting.granted
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.relation = 'relay'::regclass AND l.mode <> 'AccessShareLock'";
    assert_eq!(scratch.numbers(locks).await, [0], "the row of the relay is free");
    somebody.batch_execute("SELECT pg_advisory_unlock(42)").await.expect("it had it");
    until("they are pruned", &scratch, "SELECT count(*) FROM acts", 0).await;
    close(ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_acts_changed_is_removed_a_bounded_number_of_rows_at_a_time() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let ledger = scratch.open().await;
    for task in 0..5 {
        assert!(ledger.accept(acceptance(&format!("t{task}"), "APPROVE", None)).await.is_ok());
    }
    ledger.settle(Settlement { through: Some(5), ..Settlement::default() }).await.expect("it is there");
    close(ledger).await;
    scratch.age(100 * 86_400, 5).await;
    scratch.execute(OLD_ACTS).await;
    scratch
        .execute(
            "INSERT INTO act_contexts (act_id, tag) SELECT a.id, n FROM acts a, generate_series(1, 3000) n;
             INSERT INTO act_commands (act_id, seq, at) SELECT min(a.id), c.seq, 0 FROM acts a, commands c, generate_series(1, 400)
                GROUP BY c.seq, generate_series;
             CREATE TABLE countersign.removed (transaction bigint, rows bigint);
             CREATE FUNCTION countersign.note() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN INSERT INTO countersign.removed SELECT txid_current(), count(*) FROM gone; RETURN NULL; END';
             CREATE TRIGGER note AFTER DELETE ON act_contexts REFERENCING OLD TABLE AS gone
                FOR EACH STATEMENT EXECUTE FUNCTION countersign.note();
             CREATE TRIGGER note AFTER DELETE ON act_commands REFERENCING OLD TABLE AS gone
                FOR EACH STATEMENT EXECUTE FUNCTION countersign.note()",
        )
        .await;
    let ledger = scratch.open().await;
    for table in ["commands", "act_commands"] {
        until(table, &scratch, &format!("SELECT count(*) FROM {table}"), 0).await;
    }
    close(ledger).await;
    // The act of the commands may have been looked at before they were gone.
    let ledger = scratch.open().await;
    for table in ["acts", "act_contexts"] {
        until(table, &scratch, &format!("SELECT count(*) FROM {table}"), 0).await;
    }
    close(ledger).await;
    let removed = scratch.numbers("SELECT sum(rows)::bigint FROM removed GROUP BY transaction").await;
    assert_eq!(removed.iter().sum::<i64>(), 2 * 3000 + 5 * 400);
    assert!(removed.iter().all(|rows| *rows <= MOST), "{removed:?}");
}
