//! How PostgreSQL finds what is looked for.

use std::time::{Duration, Instant};

use countersign::{ledger::ActFilter, time::Timestamp};

use crate::scratch::{Backend, Scratch, close};

/// An accept of 64 commands, each with nothing in it that another has.
const ACCEPT: &str = "SELECT count(a.*) FROM (
    SELECT array_agg(gen_random_uuid()) AS ids, array_agg(1::bigint) AS ones, array_agg('t'::text) AS words,
        array_agg(NULL::text) AS nothings, array_agg(sha256(random()::text::bytea)) AS hashes,
        array_agg((random() * 9e18)::bigint) AS numbers, array_agg(60000::bigint) AS windows,
        array_agg(false) AS no, array_agg('{'::bytea) AS bodies
    FROM generate_series(1, 64)) i, countersign.accept_v1(
    ids, ones, words, words, words, words, nothings, nothings, words, nothings, ones, hashes, numbers, hashes, numbers,
    windows, windows, no, no, bodies, bodies, 0, false, false, 2000, true) a";

/// Rows that the accepts of the last hour may have left. No statistics are gathered: that happens a minute later at the
/// earliest, and until then a plan that is right for an empty table is kept.
const ROWS: &str = "INSERT INTO countersign.commands
    SELECT 1000 + n, gen_random_uuid(), 0, 0, 'e', 'approve', 'APPROVE', 'u', NULL, NULL, 't', NULL, 1, sha256(int8send(n)),
        hashint8extended(n, 0), sha256(int8send(-n)), hashint8extended(n, 1), '{}'
    FROM generate_series(1, 20000) AS n";

#[tokio::test(flavor = "multi_thread")]
async fn an_accept_does_not_scan_a_log_that_has_grown_since_its_session_began() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let ledger = scratch.open().await;
    let session = scratch.connection().await;
    for _ in 0..10 {
        session.query(ACCEPT, &[]).await.expect("accepted");
    }
    session.execute(ROWS, &[]).await.expect("inserted");
    for _ in 0..10 {
        session.batch_execute("BEGIN").await.expect("a transaction");
        session.query(ACCEPT, &[]).await.expect("accepted");
        let sql = "SELECT seq_tup_read + idx_tup_fetch AS rows FROM pg_stat_xact_user_tables WHERE relname = 'commands'";
        let read = session.query_one(sql, &[]).await.expect("what it has read");
        assert!(read.get::<_, i64>("rows") < 1000, "rows of the log were read one after the other");
        session.batch_execute("ROLLBACK").await.expect("rolled back");
    }
    close(ledger).await;
}

/// Waits until the sessions of programs have ended: only then they have told what they read.
async fn until_alone(scratch: &Scratch) {
    let others = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'countersign'";
    let deadline = Instant::now() + Duration::from_secs(20);
    while scratch.numbers(others).await != [0] {
        assert!(Instant::now() < deadline, "a session does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_acts_since_a_time_are_listed_without_reading_older_ones() {
    let scratch = Scratch::new(Backend::Postgres).await;
    close(scratch.open().await).await;
    scratch
        .execute(
            "INSERT INTO acts (at, changed_at, act, via, count) SELECT n, n, 'park', 'cli', 1
                FROM generate_series(1, 20000) AS n;
             INSERT INTO acts (at, changed_at, act, via, count)
                SELECT (extract(epoch FROM now()) * 1000)::bigint, 0, 'park', 'cli', 1",
        )
        .await;
    // As autovacuum does for a table that grows.
    scratch.execute("ANALYZE acts").await;
    until_alone(&scratch).await;
    let rows = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'acts'";
    let before = scratch.numbers(rows).await[0];
    let operator = scratch.client().await;
    let since = Some(Timestamp::now() - Duration::from_secs(3600));
    let filter = ActFilter { since, limit: 50, ..ActFilter::default() };
    assert_eq!(operator.acts(filter).await.expect("it is there").len(), 1);
    drop(operator);
    until_alone(&scratch).await;
    let read = scratch.numbers(rows).await[0] - before;
    assert!((1..100).contains(&read), "{read} rows were read");
}
