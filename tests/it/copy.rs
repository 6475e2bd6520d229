//! `ledger copy` with the real program, between a real file and a real PostgreSQL.

use crate::support::{
    App, Callback, Config, Endpoint, NOWHERE, Program, Ran, Vhost, Worker, client, eventually,
    postgres::{self, Postgres},
    quoted,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 64;

/// Hours, as milliseconds.
const HOUR: i64 = 3_600_000;

/// One endpoint with rounds, one with long windows, and one with registered contexts.
fn config(amqp_url: &str) -> Config {
    let rounds = Endpoint::plain("rounds")
        .context("format", "\"json\"")
        .context("fields", r#"{ task_id = "/t", instance_id = "/i", round = "/r" }"#);
    let wide = Endpoint::plain("wide").set("dedupe_window", "\"1h\"").set("repeats_window", "\"7d\"");
    let registered = Endpoint::plain("registered").context("format", "\"registry\"");
    Config::bare(amqp_url).endpoint(rounds).endpoint(wide).endpoint(registered)
}

fn round() -> Vec<u8> {
    Callback::card(&json!({"t": "t1", "i": "i1", "r": "1"}).to_string(), 4711).plain()
}

/// Decisions of zhang3 on one task each.
fn wide(task: &str) -> Callback {
    Callback::list("PO-77", task)
}

fn file(app: &App) -> PathBuf {
    app.dir().join("ledger.db")
}

fn execute(app: &App, sql: &str) {
    rusqlite::Connection::open(file(app)).expect("a ledger").execute_batch(sql).expect("SQL of ours");
}

async fn database() -> String {
    tokio::task::block_in_place(Postgres::shared).database().await
}

async fn numbers(url: &str, sql: &str) -> Vec<i64> {
    let rows = postgres::client(url).await.query(sql, &[]).await.expect("SQL of ours");
    rows.iter().map(|row| row.get(0)).collect()
}

fn program(app: &App, args: &[&str]) -> Program {
    Program::new(args).config(app.file()).dir(app.dir())
}

fn copy(app: &App, to: &str, args: &[&str]) -> Program {
    program(app, &[&["ledger", "copy", "--to", to], args].concat())
}

async fn stop(app: &mut App) {
    app.terminate();
    assert_eq!(app.ended().await.code(), Some(0), "{}", app.stderr());
}

async fn register(app: &App, key: &str, body: &Value) {
    let url = format!("http://{}/api/v1/contexts/{key}", app.admin());
    let sent = client().put(url).json(body).send().await.expect("an answer");
    assert!(sent.status().is_success(), "{}", sent.text().await.expect("text"));
}

/// A ledger that was served from and has a bit of everything; nothing is pending.
async fn lived(vhost: &Vhost) -> App {
    let mut app = App::with(config(vhost.url())).await;
    let worker = Worker::on(vhost);
    for task in ["days", "hours", "now"] {
        assert_eq!(app.post("wide", wide(task).plain()).await.status_word(), "accepted");
    }
    assert_eq!(app.post("rounds", round()).await.status_word(), "accepted");
    assert_eq!(app.post("wide", wide("now").plain()).await.status_word(), "duplicate");
    for (key, message_id) in [("key-1", json!(77)), ("key/采购", Value::Null)] {
        let key = key.replace('/', "%2F");
        let body = json!({ "instance_id": "PO-1", "task_id": key, "message_id": message_id, "operators": ["zhang3"],
            "data": { "amount": 1.50 } });
        register(&app, &key, &body).await;
    }
    for body in [wide("x").token("wrong").plain(), b"{".to_vec(), wide("x").without("user_id").plain()] {
        assert!(app.post("wide", body).await.status >= 400);
    }
    let last = app.post("wide", wide("last").plain()).await.command_id();
    worker.command(&last).await;
    stop(&mut app).await;
    execute(
        &app,
        &format!(
            "UPDATE commands SET received_at = received_at - {} WHERE seq = 1;
             UPDATE commands SET received_at = received_at - {} WHERE seq = 2;
             INSERT INTO exceptions VALUES (3, 'parked', 5, 0, 1790000000000, 'nobody is bound');
             INSERT INTO acts (id, at, changed_at, act, via, name, sudo_user, host, peer, reason, count, detail) VALUES
                (11, 1790000000000, 1790000000000, 'park', 'cli', 'li4', 'wang5', 'h1', NULL, '为什么', 1, NULL),
                (12, 1790000001000, 1790000003000, 'requeue', 'cli', 'li4', NULL, 'h1', NULL, NULL, 2, '{{\"a\":1}}'),
                (13, 1790000002000, 1790000002000, 'show_again', 'api', 'ops', NULL, NULL, '192.0.2.7', NULL, 1, NULL);
             INSERT INTO act_commands (act_id, seq, at) VALUES (11, 3, 1790000000000), (12, 4, 1790000001000),
                (12, 5, 1790000003000), (13, 4, 1790000002000);
             INSERT INTO publish_events (seq, at, event, attempt, passed, words, exchange) VALUES
                (3, 1790000000000, 'waiting', NULL, 0, NULL, NULL),
                (3, 1790000000500, 'refused', 1, 0, 'no' || char(0) || 'queue', NULL),
                (4, 1790000000500, 'published', NULL, 1, NULL, 'countersign');
             INSERT INTO outcomes VALUES (1, 1790000000000, 2, 'applied', 'DONE', '好', '{{\"a\":1}}'),
                (2, 1790000000000, 0, 'failed', NULL, 'why', NULL);
             INSERT INTO showings (id, seq, surface, target, state, attempts, next_attempt_at, changed_at, note) VALUES
                (40, 1, 'card', 'm1', 'shown', 1, 0, 1790000000000, NULL),
                (41, 1, 'instance', 'PO-77', 'parked', 3, 0, 1790000000000, 'rejected'),
                (42, 2, 'card', 'm2', 'waiting', 0, 1790000000000, 1790000000000, NULL);
             DELETE FROM showings WHERE id = 42;
             INSERT INTO showings (id, seq, surface, target, state, attempts, next_attempt_at, changed_at, note) VALUES
                (41 + 2, 2, 'card', 'm2', 'waiting', 0, 1790000000000, 1790000000000, NULL);
             INSERT INTO refused_reports (seq, at, outcome, reason) VALUES (1, 1790000000000, 'refused', 'not yours');
             INSERT INTO instance_versions VALUES ('PO-77', 1790000000123, 1);
             INSERT INTO findings VALUES (1, 'unseen', 'PENDING', 'PENDING', 3, 1790000000000, 1790000003000, 1790000009000),
                (2, 'contradicted', NULL, NULL, 1, 1790000000000, 1790000003000, NULL);
             UPDATE reconciliation SET skipped_through = 1, asked_through = 4, passed_at = 1790000004000, seen = 7, ended = 8,
                untellable = 9",
            10 * 24 * HOUR,
            2 * HOUR
        ),
    );
    app
}

/// Adds commands and rounds, so that a table takes several portions.
fn grow(app: &App, rows: u32) {
    execute(
        app,
        &format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows}),
                last AS (SELECT * FROM commands ORDER BY seq DESC LIMIT 1)
             INSERT INTO commands SELECT seq + n, randomblob(16), received_at + n % 7, endpoint, action, action_type, 'li4',
                approval_code, instance_id, task_id, task_key, randomblob(32), randomblob(16),
                CAST('{{\"message_id\":\"m' || (seq + n) || '\"}}' AS BLOB) FROM last, n;
             INSERT INTO rounds SELECT fingerprint, command_id FROM commands WHERE user_id = 'li4';
             UPDATE cursor SET published_through = (SELECT max(seq) FROM commands)"
        ),
    );
}

/// All that the commands tell of a ledger.
async fn told(app: &App, ledger: &str) -> Vec<String> {
    let set = format!("ledger.url={ledger}");
    let run = async |args: &[&str]| {
        let ran = program(app, &[args, &["--set", &set]].concat()).run().await;
        // Findings are worth a code.
        let code = if args[0] == "reconcile" { FAILED } else { DONE };
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
        ran.stdout
    };
    let mut told = vec![
        run(&["ledger", "list", "--json", "--limit", "100000"]).await,
        run(&["ledger", "list", "--json", "--message-id", "4711"]).await,
        run(&["ledger", "list", "--json", "--state", "parked"]).await,
        run(&["ledger", "list", "--json", "--outcome", "failed"]).await,
        run(&["ledger", "list", "--json", "--since", "3 h ago", "--user", "zhang3"]).await,
        run(&["refusals", "--json"]).await,
        run(&["reconcile", "--list", "--json"]).await,
    ];
    for seq in 1..=5 {
        told.push(run(&["ledger", "show", &seq.to_string(), "--json"]).await);
    }
    told.push(run(&["audit", "--json"]).await);
    told.push(run(&["audit", "--json", "--context", "key-1"]).await);
    let mut stats: Value = serde_json::from_str(&run(&["ledger", "stats", "--json"]).await).expect("JSON");
    let members = stats.as_object_mut().expect("an object");
    members.retain(|name, _| {
        !["size_bytes", "wal_bytes", "free_bytes", "standbys", "leader"].contains(&&**name)
    });
    told.push(stats.to_string());
    // PostgreSQL keeps no zero byte.
    told.iter().map(|text| text.replace("\\u0000", "\u{fffd}")).collect()
}

async fn tells_the_same(app: &App, ledger: &str, before: &[String]) {
    for (number, (now, before)) in told(app, ledger).await.iter().zip(before).enumerate() {
        assert_eq!(now, before, "look {number}");
    }
}

fn sqlite(app: &App) -> String {
    format!("sqlite:{}", file(app).display())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_says_and_remembers_what_the_file_did() {
    let vhost = Vhost::new().await;
    let mut app = lived(&vhost).await;
    let to = database().await;
    let before = told(&app, &sqlite(&app)).await;
    assert!(before[1].contains("\"seq\":4") && before[2].contains("\"seq\":3"), "{before:?}");

    let preview = copy(&app, &to, &["--dry-run", "--json"]).run().await.ended_with(DONE).json();
    let copied = copy(&app, &to, &["--json"]).run().await.ended_with(DONE);
    let (rows, tables) = (&copied.json()["rows"], &copied.json()["tables"]);
    assert_eq!((&preview["rows"], &preview["tables"], &preview["there"]), (rows, tables, &json!(0)));
    assert_eq!(
        (&tables["commands"], &tables["refusals"], &tables["contexts"]),
        (&json!(5), &json!(3), &json!(2))
    );
    assert!(copied.stderr.contains("next: set ledger.url"), "{}", copied.stderr);
    tells_the_same(&app, &to, &before).await;

    // A file that was moved is not served from; one that says so again is no failure.
    let refused = app.restart_to_its_end().await;
    assert_ne!(refused.code(), Some(0));
    assert!(app.stderr().contains("set ledger.url to that"), "{}", app.stderr());
    let again = copy(&app, &to, &[]).run().await.ended_with(DONE);
    assert!(again.stdout.contains("was copied at"), "{again:?}");

    let url = quoted(&to);
    app.reconfigure(|config| config.set("ledger", "url", &url));
    app.restart().await;
    let id =
        |seq: usize| serde_json::from_str::<Value>(&before[6 + seq]).expect("JSON")["command_id"].clone();
    let round = app.post("rounds", round()).await;
    assert_eq!((round.status_word(), json!(round.command_id())), ("duplicate".to_owned(), id(4)));
    let now = app.post("wide", wide("now").plain()).await;
    assert_eq!((now.status_word(), json!(now.command_id())), ("duplicate".to_owned(), id(3)));
    let worker = Worker::on(&vhost);
    for (task, action, member, expected) in [
        ("hours", "APPROVE", "repeats", id(2)),
        ("days", "APPROVE", "repeats", Value::Null),
        ("now", "REJECT", "conflicts_with", id(3)),
    ] {
        let command = app.post("wide", wide(task).action(action).plain()).await.command_id();
        assert_eq!(worker.command(&command).await.json()[member], expected, "{task} {action}");
    }
    for key in ["key-1", "key%2F采购"] {
        let shown = app.get(&format!("/api/v1/contexts/{key}")).await;
        assert_eq!(shown.status, 200, "{key}: {}", shown.text());
        assert_eq!(shown.json()["operators"], json!(["zhang3"]));
    }
    assert_eq!(app.post("registered", Callback::card("key-1", 1).plain()).await.status, 200);
    // Ids go on after the largest that a showing ever had.
    let next = "SELECT nextval(pg_get_serial_sequence('countersign.showings', 'id'))";
    assert_eq!(numbers(&to, next).await, [44]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_killed_goes_on_and_until_then_nothing_uses_the_database() {
    let vhost = Vhost::new().await;
    let mut app = lived(&vhost).await;
    grow(&app, 5000);
    let to = database().await;
    let before = told(&app, &sqlite(&app)).await;
    let mut there = 0;
    for (point, at_least) in [
        ("copy:begun", 0),
        ("copy:portion", 1),
        ("copy:portion@2", 2000),
        ("copy:portion@3", 4000),
        ("copy:finished", 10_000),
    ] {
        let killed = copy(&app, &to, &[]).env("COUNTERSIGN_KILL_AT", point).run().await;
        assert_eq!(killed.code, None, "{point}: {killed:?}");
        let preview = copy(&app, &to, &["--dry-run", "--json"]).run().await.ended_with(DONE).json();
        let now = preview["there"].as_u64().expect("a number");
        assert!(now >= at_least && now >= there, "{point}: {preview}");
        there = now;
        if point == "copy:portion@2" {
            let served = ["serve", "--set", &format!("ledger.url={to}")];
            let served = program(&app, &served).run().await;
            assert!(served.code != Some(0) && served.stderr.contains("copy is not finished"), "{served:?}");
            let accept = format!(
                "SELECT * FROM countersign.accept_v1({}0, false, false, 2000, false)",
                "'{}', ".repeat(21)
            );
            let said =
                postgres::client(&to).await.batch_execute(&accept).await.expect_err("it is half a ledger");
            assert!(format!("{said:?}").contains("a ledger is being copied into this one"), "{said:?}");
            let stats = ["ledger", "stats", "--set", &format!("ledger.url={to}")];
            assert!(
                program(&app, &stats).run().await.ended_with(FAILED).stderr.contains("copy is not finished")
            );
        }
    }
    let last = copy(&app, &to, &["--json"]).run().await.ended_with(DONE).json();
    assert!(last["copied_before"].is_string() && last["rows"] == last["there"], "{last}");
    tells_the_same(&app, &to, &before).await;
    // In the order of the log, and as old as in the file.
    let odd = "SELECT count(*) FROM countersign.commands c, countersign.commands d, countersign.copied
        WHERE d.seq = c.seq + 1 AND (c.at_ms > d.at_ms OR abs(c.received_at - c.at_ms - ahead_ms) > 10)";
    assert_eq!(numbers(&to, odd).await, [0]);
    assert_eq!(numbers(&to, "SELECT count(*) FROM countersign.rounds").await, [5001]);
    assert_ne!(app.restart_to_its_end().await.code(), Some(0), "the file was moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_ledger_that_has_changed_since_is_not_completed() {
    let vhost = Vhost::new().await;
    let app = lived(&vhost).await;
    let to = database().await;
    let killed = copy(&app, &to, &[]).env("COUNTERSIGN_KILL_AT", "copy:portion@3").run().await;
    assert_eq!(killed.code, None, "{killed:?}");
    execute(&app, "UPDATE contexts SET registered_at = registered_at + 1000000");
    let refused = copy(&app, &to, &[]).run().await.ended_with(FAILED);
    assert!(refused.stderr.contains("has changed since; --restart"), "{}", refused.stderr);
    let before = told(&app, &sqlite(&app)).await;
    copy(&app, &to, &["--restart"]).run().await.ended_with(DONE);
    tells_the_same(&app, &to, &before).await;
    // Nothing of a finished one is removed.
    execute(&app, "UPDATE contexts SET registered_at = registered_at + 1000000");
    let refused = copy(&app, &to, &["--restart"]).run().await.ended_with(FAILED);
    assert!(refused.stderr.contains("holds a ledger already"), "{}", refused.stderr);
    tells_the_same(&app, &to, &before).await;
}

fn refused(ran: &Ran, words: &str) {
    assert!(ran.code == Some(FAILED) && ran.stderr.contains(words), "{words}: {ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pending_or_served_from_is_not_copied() {
    let mut app = App::with(config(NOWHERE)).await;
    let pending = app.post("wide", wide("now").plain()).await.command_id();
    let to = database().await;
    refused(&copy(&app, &to, &[]).run().await, "in use by another countersign");
    stop(&mut app).await;
    for args in [&[][..], &["--dry-run"]] {
        refused(
            &copy(&app, &to, args).run().await,
            "1 of its commands are not published: 1 pending, 0 retrying, 0 requeued",
        );
    }
    for (state, words) in [("retrying", "0 pending, 1 retrying"), ("requeued", "0 retrying, 1 requeued")] {
        execute(&app, &format!("INSERT OR REPLACE INTO exceptions VALUES (1, '{state}', 1, 0, 0, '')"));
        refused(&copy(&app, &to, &[]).run().await, words);
    }
    assert_eq!(
        numbers(&to, "SELECT count(*) FROM pg_namespace WHERE nspname = 'countersign'").await,
        [0],
        "untouched"
    );

    // A database from which somebody serves, and one from which somebody did.
    program(&app, &["ledger", "park", &pending]).run().await.ended_with(DONE);
    let url = quoted(&to);
    let mut other = App::with(config(NOWHERE).set("ledger", "url", &url)).await;
    refused(&copy(&app, &to, &[]).run().await, "stop all replicas");
    refused(&copy(&app, &to, &["--dry-run"]).run().await, "stop all replicas");
    stop(&mut other).await;
    eventually("the end of the lease", async || {
        let ran = copy(&app, &to, &["--dry-run"]).run().await;
        if ran.code == Some(DONE) { Ok(()) } else { Err(ran) }
    })
    .await;
    other.restart().await;
    other.post("wide", wide("other").plain()).await.command_id();
    stop(&mut other).await;
    eventually("the end of the lease", async || {
        let ran = copy(&app, &to, &[]).run().await;
        let words = "holds a ledger already (1 commands, 0 contexts, 0 refused callbacks)";
        if ran.code == Some(FAILED) && ran.stderr.contains(words) { Ok(()) } else { Err(ran) }
    })
    .await;

    // What is parked above the cursor is copied as it is.
    let to = database().await;
    copy(&app, &to, &[]).run().await.ended_with(DONE);
    let stats =
        program(&app, &["ledger", "stats", "--json", "--set", &format!("ledger.url={to}")]).run().await;
    let stats = stats.ended_with(DONE).json();
    assert_eq!((&stats["pending"], &stats["parked"], &stats["head"]), (&json!(0), &json!(1), &json!(1)));
    refused(&copy(&app, &database().await, &[]).run().await, "already; to copy it again, remove");
}

async fn usage(ran: Program, words: &str) {
    let ran = ran.run().await.ended_with(USAGE);
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_are_named_and_a_password_need_not_be_on_the_command_line() {
    let config = Config::bare(NOWHERE).endpoint(Endpoint::plain("leave"));
    let (toml, ledger) = (config.write(), config.dir().join("ledger.db"));
    let run =
        |args: &[&str]| Program::new([&["ledger", "copy"], args].concat()).config(&toml).dir(config.dir());
    usage(run(&[]), "name the database to copy to with --to URL or --to-file FILE").await;
    usage(run(&["--to", "sqlite:other.db"]), "to move a SQLite file, move it").await;
    usage(run(&["--to", "mysql://hush@h/d"]), "--to: does not begin with sqlite: or postgres:").await;
    usage(run(&["--from", "postgres://u@h/d", "--to", "postgres://u@h/e"]), "only a SQLite ledger").await;
    usage(run(&["--set", "ledger.url=postgres://u@127.0.0.1/d"]), "name the SQLite file with --from").await;
    let missing = run(&["--to", "postgres://u@127.0.0.1:1/d"]).run().await;
    refused(&missing, "cannot open the ledger file");
    assert!(!ledger.exists() && !lock(&ledger).exists(), "nothing is made");

    let to = database().await;
    let file = config.dir().join("url");
    std::fs::write(&file, to.replace("countersign@", "countersign:hush@") + "\n")
        .expect("the directory is ours");
    let mut app = App::with(config.clone()).await;
    stop(&mut app).await;
    let path = file.display().to_string();
    let by_file = run(&["--to-file", &path, "--dry-run"]).run().await.ended_with(DONE);
    assert!(!by_file.stderr.contains("warning") && !by_file.stdout.contains("hush"), "{by_file:?}");
    let warned = run(&["--to", &to.replace("countersign@", "countersign:hush@"), "--dry-run"]).run().await;
    assert!(warned.ended_with(DONE).stderr.contains("can read the password in --to"));
    let from = format!("sqlite:{}", ledger.display());
    let configured = format!("ledger.url={to}");
    let ran = run(&["--from", &from, "--set", &configured]).run().await.ended_with(DONE);
    assert!(ran.stdout.contains("1 row copied from") && !ran.stderr.contains("set ledger.url"), "{ran:?}");
}

fn lock(ledger: &Path) -> PathBuf {
    ledger.with_extension("db.lock")
}
