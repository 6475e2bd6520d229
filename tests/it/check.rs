//! `ledger check` finds each fault that is planted in a ledger, of either kind.

use crate::backup::{config, file, round, run, stop, task};
use crate::support::{App, NOWHERE, postgres, postgres::Postgres, quoted};
use serde_json::{Value, json};

const FAILED: i32 = 1;

/// What every case begins with: six commands, two with rounds, four published, one parked, an outcome that is shown.
const LIVED: &str = "UPDATE {relay} SET published_through = 4;
    INSERT INTO {s}exceptions VALUES (2, 'parked', 5, 0, 1790000000000, '');
    INSERT INTO {s}publish_marks VALUES (2, 0, 1, 2, NULL), (4, 2, 3, 4, NULL);
    INSERT INTO {s}outcomes VALUES (1, 1790000000000, 0, 'applied', NULL, NULL, NULL);
    INSERT INTO {s}showings (seq, surface, target, state, attempts, next_attempt_at, changed_at)
        VALUES (1, 'card', 'm', 'shown', 1, 0, 0);
    INSERT INTO {s}contexts (key, registered_at, operators) VALUES ('k', 0, '[\"zhang3\"]');";

/// A fault, and what a check says of it: the kind, the place, and a part of the words. `{s}` is the schema of PostgreSQL,
/// `{relay}` the table of the cursor, `{b}` begins bytes, and `{e}` ends them.
const BOTH: [(&str, &str, &str, &str); 27] = [
    ("DELETE FROM {s}commands WHERE seq = 5", "gap", "command 5", "1 commands are missing"),
    ("DELETE FROM {s}commands WHERE seq IN (3, 4)", "gap", "commands 3 to 4", "2 commands are missing"),
    ("UPDATE {relay} SET published_through = 9", "cursor", "cursor", "the log ends at 6"),
    ("UPDATE {relay} SET pruned_through = 5", "cursor", "cursor", "published only through 4"),
    ("UPDATE {s}reconciliation SET asked_through = 5", "cursor", "reconciliation", "asked through 5"),
    ("UPDATE {s}reconciliation SET skipped_through = 2", "cursor", "reconciliation", "skipped through 2"),
    ("DELETE FROM {s}reconciliation", "*", "reconciliation", ""),
    (
        "UPDATE {s}commands SET command_id = {other} WHERE seq = 5",
        "command_id",
        "commands 5",
        "in the message",
    ),
    ("UPDATE {s}commands SET message = {b}7b7d{e} WHERE seq = 5", "message", "commands 5", "missing field"),
    ("UPDATE {s}commands SET message = {b}7b{e} WHERE seq = 5", "message", "commands 5", "EOF"),
    ("UPDATE {s}commands SET endpoint = 'x' WHERE seq = 5", "column", "commands 5", "endpoint is \"x\""),
    (
        "UPDATE {s}commands SET action = 'reject' WHERE seq = 5",
        "column",
        "commands 5",
        "action is \"reject\"",
    ),
    ("UPDATE {s}commands SET user_id = 'x' WHERE seq = 5", "column", "commands 5", "user_id is \"x\""),
    ("UPDATE {s}commands SET task_id = NULL WHERE seq = 5", "column", "commands 5", "task_id is empty"),
    (
        "UPDATE {s}commands SET instance_id = 'x' WHERE seq = 5",
        "column",
        "commands 5",
        "instance_id is \"x\"",
    ),
    (
        "UPDATE {s}commands SET approval_code = 'x' WHERE seq = 5",
        "column",
        "commands 5",
        "approval_code is \"x\"",
    ),
    (
        "UPDATE {s}commands SET received_at = received_at + 1 WHERE seq = 5",
        "column",
        "commands 5",
        "received_at is",
    ),
    (
        "UPDATE {s}commands SET task_key = task_key + 1 WHERE seq = 5",
        "column",
        "commands 5",
        "task_key is not",
    ),
    (
        "UPDATE {s}commands SET fingerprint = {b}00{e} WHERE seq = 5",
        "column",
        "commands 5",
        "has 1 bytes, not 32",
    ),
    ("INSERT INTO {s}exceptions VALUES (7, 'parked', 0, 0, 0, '')", "*", "7", ""),
    ("DELETE FROM {s}rounds", "round", "commands 1", "no row in rounds"),
    ("UPDATE {s}rounds SET command_id = {other}", "round", "rounds 01ff", "was not pruned"),
    (
        "INSERT INTO {s}outcomes VALUES (9, 0, 0, 'applied', NULL, NULL, NULL)",
        "reference",
        "outcomes of command 9",
        "no such",
    ),
    (
        "INSERT INTO {s}findings VALUES (9, 'unseen', NULL, NULL, 1, 0, 0, NULL)",
        "reference",
        "findings of command 9",
        "",
    ),
    ("DELETE FROM {s}outcomes", "showing", "showings 1", "command 1 has no outcome"),
    (
        "INSERT INTO {s}publish_marks VALUES (3, 1, 1, 1, NULL)",
        "mark",
        "publish_marks 3",
        "the one before ends at 2",
    ),
    ("UPDATE {s}contexts SET operators = '[7]'", "context", "contexts \"k\"", "operators is no list"),
];

const SQLITE: [(&str, &str, &str, &str); 7] = [
    ("CREATE TRIGGER t AFTER INSERT ON commands BEGIN SELECT 1; END", "schema", "trigger t", "is not of countersign"),
    ("CREATE TABLE mine (a)", "schema", "table mine", "is not of countersign"),
    ("DROP INDEX publish_events_of", "schema", "index publish_events_of", "is missing"),
    (
        "DROP INDEX commands_by_id; UPDATE commands SET command_id = (SELECT command_id FROM commands WHERE seq = 5) WHERE seq = 6",
        "command_id",
        "commands 6",
        "is also at 5",
    ),
    ("UPDATE commands SET command_id = x'00' WHERE seq = 5", "unreadable", "commands 5", ""),
    (
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'rounds')
            WHERE name = 'publish_events_of'",
        "file",
        "file",
        "",
    ),
    ("UPDATE sqlite_sequence SET seq = 0", "cursor", "showings 1", "the next id is said to be 1"),
];

const POSTGRES: [(&str, &str, &str, &str); 5] = [
    ("UPDATE countersign.log SET head = 5", "cursor", "commands 6", "the log ends at 5"),
    (
        "UPDATE countersign.commands SET fingerprint8 = 0 WHERE seq = 5",
        "column",
        "commands 5",
        "fingerprint8 is not",
    ),
    (
        "UPDATE countersign.commands SET message_id = 'x' WHERE seq = 5",
        "column",
        "commands 5",
        "message_id is \"x\"",
    ),
    ("UPDATE countersign.commands SET at_ms = 0 WHERE seq = 5", "column", "commands 5", "at_ms is 0"),
    (
        "DO $$ BEGIN EXECUTE (SELECT 'ALTER TABLE countersign.commands DROP CONSTRAINT ' || conname FROM pg_constraint
            WHERE conrelid = 'countersign.commands'::regclass AND contype = 'u'); END $$",
        "schema",
        "unique index on commands (command_id)",
        "is missing",
    ),
];

fn sqlite(sql: &str) -> String {
    sql.replace("{s}", "")
        .replace("{relay}", "cursor")
        .replace("{b}", "x'")
        .replace("{e}", "'")
        .replace("{other}", "x'01ff0000000070008000000000000000'")
}

fn postgresql(sql: &str) -> String {
    sql.replace("{s}", "countersign.")
        .replace("{relay}", "countersign.relay")
        .replace("{b}", "'\\x")
        .replace("{e}", "'")
        .replace("{other}", "'01ff0000-0000-7000-8000-000000000000'::uuid")
}

/// The faults that a check tells, one object each.
async fn faults(app: &App, ledger: &str) -> (Option<i32>, Vec<Value>) {
    let set = format!("ledger.url={ledger}");
    let ran = run(app, &["ledger", "check", "--json", "--set", &set]).run().await;
    let lines: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (ran.code, lines)
}

fn found(told: &[Value], (kind, place, what): (&str, &str, &str)) -> bool {
    let word = |fault: &Value, member: &str| fault[member].as_str().unwrap_or_default().to_owned();
    told.iter().any(|fault| {
        (kind == "*" && !word(fault, "kind").is_empty() || word(fault, "kind") == kind)
            && word(fault, "place").contains(place)
            && word(fault, "what").contains(what)
            && word(fault, "advice").ends_with('.')
    })
}

async fn filled(app: &App) {
    for number in 0..2 {
        app.post("rounds", round(&number.to_string())).await.command_id();
    }
    for number in 2..6 {
        app.post("leave", task(&format!("t{number}"))).await.command_id();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_that_is_planted_in_a_file_is_found() {
    let mut app = App::with(config(NOWHERE)).await;
    filled(&app).await;
    stop(&mut app).await;
    let ledger = file(&app);
    let execute = |path: &std::path::Path, sql: &str| {
        let connection = rusqlite::Connection::open(path).expect("a ledger");
        connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    };
    execute(&ledger, &sqlite(LIVED));
    let url = |path: &std::path::Path| format!("sqlite:{}", path.display());
    let (code, told) = faults(&app, &url(&ledger)).await;
    assert_eq!((code, told.len(), &told[0]["faults"]), (Some(0), 1, &json!(0)), "{told:?}");
    let case = app.dir().join("case.db");
    for (sql, kind, place, what) in BOTH.iter().chain(&SQLITE) {
        std::fs::copy(&ledger, &case).expect("ours");
        execute(&case, &sqlite(sql));
        let (code, told) = faults(&app, &url(&case)).await;
        assert_eq!(code, Some(FAILED), "{sql}: {told:?}");
        assert!(found(&told, (kind, place, what)), "{sql}: {told:?}");
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(app.dir().join(format!("case.db{suffix}"))).ok();
        }
    }
}

/// A database with the six commands, whose service has stopped.
async fn database() -> (App, String) {
    let url = tokio::task::block_in_place(Postgres::shared).database().await;
    let mut app = App::with(config(NOWHERE).set("ledger", "url", &quoted(&url))).await;
    filled(&app).await;
    stop(&mut app).await;
    (app, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_that_is_planted_in_a_database_is_found() {
    let (app, url) = database().await;
    let client = postgres::client(&url).await;
    client.batch_execute(&postgresql(LIVED)).await.expect("SQL of ours");
    let (code, told) = faults(&app, &url).await;
    assert_eq!((code, told.len(), &told[0]["faults"]), (Some(0), 1, &json!(0)), "{told:?}");
    let name = url.rsplit('/').next().expect("a name").split('?').next().expect("a name").to_owned();
    drop(client);
    let other = url.replace(&name, "postgres");
    for (sql, kind, place, what) in BOTH.iter().chain(&POSTGRES) {
        // Each on a copy of its own.
        let case = format!("{name}_case");
        let admin = postgres::client(&other).await;
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {case} WITH (FORCE)"))
            .await
            .expect("SQL of ours");
        admin.batch_execute(&format!("CREATE DATABASE {case} TEMPLATE {name}")).await.expect("SQL of ours");
        let case_url = url.replace(&name, &case);
        let sql = postgresql(sql);
        let client = postgres::client(&case_url).await;
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        drop(client);
        let (code, told) = faults(&app, &case_url).await;
        assert_eq!(code, Some(FAILED), "{sql}: {told:?}");
        assert!(found(&told, (kind, place, what)), "{sql}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_copied_ledger_the_times_may_fall_as_its_machines_clock_did() {
    let (app, url) = database().await;
    let client = postgres::client(&url).await;
    client
        .batch_execute("UPDATE countersign.commands SET at_ms = 0 WHERE seq = 5")
        .await
        .expect("SQL of ours");
    let (code, told) = faults(&app, &url).await;
    assert!(code == Some(FAILED) && found(&told, ("column", "commands 5", "at_ms is 0")), "{told:?}");
    let copied =
        "INSERT INTO countersign.copied (id, source, content, ahead_ms, doing, rows, begun_at, finished_at)
        VALUES (1, 'ledger.db', '', 0, 'commands', 6, 0, 0)";
    client.batch_execute(copied).await.expect("SQL of ours");
    let (code, told) = faults(&app, &url).await;
    assert_eq!((code, told.len(), &told[0]["faults"]), (Some(0), 1, &json!(0)), "{told:?}");
}
