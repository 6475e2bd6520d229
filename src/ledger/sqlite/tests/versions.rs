//! From one version of the schema to the next.

use super::*;
use crate::{command::outcome::Kind, ledger::OutcomeFilter};

/// A ledger as the first version left it: of seven commands the first is published, then one each is retrying, parked,
/// requeued and published, and the last two are pending.
const FIRST: &str = "
    INSERT INTO commands SELECT value, CAST(printf('%016d', value) AS BLOB), 1700000000000 + value, 'purchase', 'approve',
        'APPROVE', 'zhang3', NULL, 'i', 't' || value, value, zeroblob(32), zeroblob(16), CAST('{\"n\":' || value || '}' AS BLOB)
        FROM generate_series(1, 7);
    UPDATE cursor SET published_through = 5;
    INSERT INTO exceptions VALUES (2, 'retrying', 3, 1700000000000, 1700000000000, 'returned'),
        (3, 'parked', 20, 1700000000000, 1700000000000, 'returned'),
        (4, 'requeued', 0, 1700000000000, 1700000000000, 'requeued by an operator');
    INSERT INTO rounds VALUES (zeroblob(32), CAST('0000000000000001' AS BLOB));
    INSERT INTO operator_acts VALUES (1, 1700000000000, 4, 'requeue');
    INSERT INTO refusals (id, refused_at, endpoint, reason, body_bytes, user_id, strange)
        VALUES (1, 1700000000000, 'purchase', 'malformed', 3, 'zhang3', 0);";

/// A ledger of a version before this one.
fn of_version(scratch: &Scratch, version: usize) {
    let connection = Connection::open(scratch.settings().path).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    for step in &schema::MIGRATIONS[..version] {
        connection.execute_batch(step).unwrap();
    }
    connection.pragma_update(None, "application_id", schema::APPLICATION_ID).unwrap();
    connection.pragma_update(None, "user_version", version as i32).unwrap();
    // The bundled SQLite has no generate_series.
    let rows = "(WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 7)
                 SELECT value FROM n)";
    connection.execute_batch(&FIRST.replace("generate_series(1, 7)", rows)).unwrap();
}

/// Everything that the first version knows, as text.
fn contents(scratch: &Scratch) -> Vec<String> {
    let connection = Connection::open(scratch.settings().path).unwrap();
    let mut all = Vec::new();
    // What the probe wrote is nobody's loss.
    let cursor = "(SELECT published_through, pruned_through FROM cursor)";
    let refusals = "(SELECT id, refused_at, endpoint, reason, detail, peer, body_bytes, action_type, user_id,
        approval_code, instance_id, task_id, message_id, strange FROM refusals)";
    for table in ["commands", "exceptions", "rounds", "operator_acts", refusals, cursor] {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            Ok((0..columns).map(|column| format!("{:?}", row.get_ref(column).unwrap())).collect::<String>())
        });
        all.extend(rows.unwrap().map(Result::unwrap));
    }
    all
}

#[tokio::test]
async fn a_ledger_of_any_version_before_keeps_every_row_and_gains_what_it_lacks() {
    for version in 1..schema::MIGRATIONS.len() {
        grows_from(version).await;
    }
}

async fn grows_from(version: usize) {
    let scratch = Scratch::new();
    of_version(&scratch, version);
    let before = contents(&scratch);
    assert_eq!(before.len(), 7 + 3 + 1 + 1 + 1 + 1);
    let reader = Reader::open(&scratch.settings().path).unwrap();
    let read_only = reader.stats().unwrap();
    assert_eq!(reader.list(&Filter { limit: 10, ..Filter::default() }).unwrap().len(), 7);
    let first = CommandId::from_bytes(*b"0000000000000001");
    assert_eq!(reader.find(first).unwrap().unwrap().reconciliation, None);
    let audited = Auditor::open(&scratch.settings().path);
    assert_eq!(matches!(audited, Err(AuditError::Older)), version < 5, "{version}: {audited:?}");
    let about = |task_id: Option<&str>| RefusalFilter {
        task_id: task_id.map(str::to_owned),
        limit: 10,
        ..RefusalFilter::default()
    };
    let refused = &reader.refusals(&about(None)).unwrap()[0].refused;
    assert_eq!((refused.user_id.as_deref(), &refused.context_task), (Some("zhang3"), &None));
    assert!(reader.refusals(&about(Some("n1"))).unwrap().is_empty());
    let reported = |outcome| {
        let since = Timestamp::from_millisecond(1_600_000_000_000).ok();
        reader.list(&Filter { outcome: Some(outcome), since, limit: 10, ..Filter::default() }).unwrap().len()
    };
    assert_eq!((reported(OutcomeFilter::None), reported(OutcomeFilter::Last(Kind::Applied))), (7, 0));
    let history = reader.find(first).unwrap().unwrap().history.unwrap();
    assert_eq!(
        history.iter().map(|event| event.at.is_some()).collect::<Vec<_>>(),
        [true, false],
        "{history:?}"
    );
    let mut operator = Operator::open(&scratch.settings().path).unwrap();
    assert!(operator.show_parked_again().unwrap().is_empty());
    assert_eq!(operator.prunable(Timestamp::now()).unwrap(), 2);
    drop((reader, operator));

    // Its rows are of any age.
    let limits = Limits { retention: None, ..Limits::default() };
    let ledger = SqliteLedger::open(&Settings { limits, ..scratch.settings() }).unwrap();
    assert_eq!(scratch.sql::<i64>("PRAGMA user_version"), schema::MIGRATIONS.len() as i64);
    assert_eq!(contents(&scratch), before);
    let listed = ledger.list(Filter { limit: 10, ..Filter::default() }).await.unwrap();
    let states: Vec<_> = listed.iter().rev().map(|record| record.state).collect();
    assert_eq!(
        states,
        [
            State::Published,
            State::Pending,
            State::Parked,
            State::Pending,
            State::Published,
            State::Pending,
            State::Pending
        ]
    );
    let stats = ledger.stats().await.unwrap();
    assert_eq!((stats.pending, stats.published, stats.parked, stats.refusals), (4, 2, 1, 1));
    let rows = |stats: Stats| Stats {
        size_bytes: None,
        wal_bytes: None,
        free_bytes: None,
        remembered: None,
        ..stats
    };
    assert_eq!(
        rows(stats),
        rows(read_only),
        "the command line looks at a ledger without bringing it up to date"
    );
    assert_eq!(scratch.sql::<i64>("SELECT count(*) FROM contexts"), 0);
    assert_eq!(scratch.sql::<i64>("SELECT count(*) FROM outcomes"), 0);
    accepted(&ledger, acceptance("t8", "APPROVE", None)).await;
    assert_eq!(ledger.stats().await.unwrap().head, 8);

    let schema = "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema ORDER BY name)";
    let fresh = Scratch::new();
    drop(fresh.open());
    assert_eq!(scratch.sql::<String>(schema), fresh.sql::<String>(schema));
}

#[test]
fn a_program_that_does_not_know_a_version_says_which_it_knows_and_touches_nothing() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let path = scratch.settings().path;
    let words = |found, known| {
        format!(
            "the ledger {} has schema version {found}; this program knows versions up to {known}. Run the newer program",
            path.display()
        )
    };
    // The program before the contexts, and this one before whatever comes next.
    assert_eq!(schema::admit(&path, 2, 1).unwrap_err().to_string(), words(2, 1));
    assert!(schema::admit(&path, 1, 1).is_ok() && schema::admit(&path, 1, 2).is_ok());
    scratch.execute(&format!("PRAGMA user_version = {}", schema::MIGRATIONS.len() + 1));
    let before = fs::read(&path).unwrap();
    let known = schema::MIGRATIONS.len();
    assert_eq!(SqliteLedger::open(&scratch.settings()).unwrap_err().to_string(), words(known + 1, known));
    assert_eq!(Reader::open(&path).unwrap_err().to_string(), words(known + 1, known));
    assert_eq!(fs::read(&path).unwrap(), before);
}
