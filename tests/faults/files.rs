//! A ledger that is not where or what it should be.

use crate::disk::{until_kept, until_refused, until_unready};
use crate::oracle::Oracle;
use crate::support::{App, Config, Program, Proxy, Vhost, Worker, eventually};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file of the ledger of a program, by what follows its name.
fn file(app: &App, suffix: &str) -> PathBuf {
    app.dir().join(format!("ledger.db{suffix}"))
}

fn sql(path: &Path, statements: &str) {
    let ledger = Connection::open(path).expect("a database");
    ledger.busy_timeout(Duration::from_secs(20)).expect("an open database");
    ledger.execute_batch(statements).expect("nobody else writes to it for long");
}

/// A program whose broker is away, and what it answered so far.
async fn without_a_broker() -> (Vhost, Proxy, App, Oracle) {
    let vhost = Vhost::new().await;
    let proxy = Proxy::shut_before(vhost.address());
    let app = App::with(Config::with_url(&vhost.url_through(proxy.port()))).await;
    (vhost, proxy, app, Oracle::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_moved_away_under_load_is_not_answered_for() {
    for suffix in ["", "-wal"] {
        let (vhost, mut proxy, mut app, oracle) = without_a_broker().await;
        let load = oracle.load(&app, 8);
        load.until_answered(50).await;
        let aside = app.dir().join("aside");
        std::fs::rename(file(&app, suffix), &aside).unwrap();
        until_refused(&oracle, &app).await;
        load.stop().await;
        until_unready(&app).await;
        let said = app.stderr();
        assert!(said.contains("was removed or replaced while in use"), "{said}");
        app.terminate();
        app.ended().await;
        if suffix.is_empty() {
            // It must not be begun anew.
            let status = app.restart_to_its_end().await;
            assert_eq!(status.code(), Some(1));
            assert!(app.stderr().contains("the database is empty or missing"), "{}", app.stderr());
        }
        std::fs::rename(&aside, file(&app, suffix)).unwrap();
        app.restart().await;
        oracle.keep(&app, 5).await;
        proxy.open().await;
        let worker = Worker::on(&vhost);
        drop(oracle.account(&app, &worker).await.check(&format!("ledger.db{suffix} moved away and back")));
    }
}

/// Has a program with pending commands start on a ledger that somebody has changed, which it must refuse and leave as it is.
async fn refuses_to_start(name: &str, words: &str, change: impl FnOnce(&Path)) {
    let (vhost, mut proxy, mut app, oracle) = without_a_broker().await;
    oracle.keep(&app, 60).await;
    app.kill();
    let kept = ["", "-wal"]
        .map(|suffix| (file(&app, suffix), std::fs::read(file(&app, suffix)).expect("it is there")));
    change(&file(&app, ""));
    let left = ["", "-wal"].map(|suffix| std::fs::read(file(&app, suffix)).ok());
    let status = app.restart_to_its_end().await;
    let said = app.stderr();
    assert_eq!(status.code(), Some(1), "{name}: {said}");
    assert!(said.contains(words) && said.contains("ledger.db"), "{name}: {said}");
    let now = ["", "-wal"].map(|suffix| std::fs::read(file(&app, suffix)).ok());
    assert!(now == left, "{name}: what was refused is left as it was");
    // Restored from a backup.
    drop(std::fs::remove_file(file(&app, "-shm")));
    for (path, content) in kept {
        std::fs::write(path, content).expect("its directory is there");
    }
    app.restart().await;
    oracle.keep(&app, 5).await;
    proxy.open().await;
    let worker = Worker::on(&vhost);
    drop(oracle.account(&app, &worker).await.check(name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_missing_beside_its_log_is_not_begun_anew() {
    let missing = |ledger: &Path| std::fs::remove_file(ledger).unwrap();
    refuses_to_start("ledger missing, its -wal there", "empty or missing", missing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_cut_short_is_not_opened() {
    refuses_to_start("ledger cut short", "is damaged", |ledger| {
        // All of it is in the database, and then half of it is not.
        sql(ledger, "PRAGMA wal_checkpoint(TRUNCATE)");
        let half = std::fs::metadata(ledger).unwrap().len() / 2;
        std::fs::OpenOptions::new().write(true).open(ledger).unwrap().set_len(half).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_something_else_is_not_opened() {
    refuses_to_start("database of something else", "not a ledger of countersign", |ledger| {
        std::fs::remove_file(ledger).unwrap();
        std::fs::remove_file(ledger.with_extension("db-wal")).unwrap();
        sql(ledger, "CREATE TABLE bookmarks (url TEXT)");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_a_newer_version_is_left_to_the_newer_program() {
    refuses_to_start("ledger of a newer version", "Run the newer program", |ledger| {
        sql(ledger, "PRAGMA user_version = 99; PRAGMA wal_checkpoint(TRUNCATE)");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_somebody_else_has_locked_refuses_and_goes_on_by_itself() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    oracle.keep(&app, 20).await;
    let mut other = Connection::open(file(&app, "")).unwrap();
    other.busy_timeout(Duration::from_secs(20)).unwrap();
    let lock = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    until_refused(&oracle, &app).await;
    drop(lock);
    until_kept(&oracle, &app).await;
    oracle.keep(&app, 20).await;
    drop(oracle.account(&app, &worker).await.check("locked by another process"));
}

/// The pages of the file that hold this text.
fn pages_with(content: &[u8], text: &str) -> Vec<usize> {
    const PAGE: usize = 4096;
    let holds = |page: &[u8]| page.windows(text.len()).any(|window| window == text.as_bytes());
    content.chunks(PAGE).enumerate().filter(|(_, page)| holds(page)).map(|(at, _)| at * PAGE).collect()
}

/// A ledger of which the disk has turned a page in the middle of what is pending into nonsense.
struct Damage {
    path: PathBuf,
    sound: Vec<u8>,
    places: Vec<usize>,
}

impl Damage {
    fn to(app: &App) -> Self {
        let path = file(app, "");
        let sound = std::fs::read(&path).expect("the ledger is there");
        let places = pages_with(&sound, "context of single-100\"");
        assert!(!places.is_empty());
        let mut damaged = sound.clone();
        places.iter().for_each(|place| damaged[*place..place + 4096].fill(0xA5));
        std::fs::write(&path, &damaged).expect("the ledger can be written");
        Self { path, sound, places }
    }

    /// Brings the page back, which nobody may have written over.
    fn repair(&self) {
        let mut content = std::fs::read(&self.path).expect("the ledger is there");
        for place in &self.places {
            let page = &mut content[*place..place + 4096];
            assert!(page.iter().all(|byte| *byte == 0xA5), "somebody wrote over what could not be read");
            page.copy_from_slice(&self.sound[*place..place + 4096]);
        }
        std::fs::write(&self.path, &content).expect("the ledger can be written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_among_what_is_read_at_the_start_is_said_and_it_does_not_start() {
    let (vhost, mut proxy, mut app, oracle) = without_a_broker().await;
    oracle.keep(&app, 200).await;
    app.terminate();
    app.ended().await;
    let damage = Damage::to(&app);
    let status = app.restart_to_its_end().await;
    assert_eq!(status.code(), Some(1));
    assert!(app.stderr().contains("is damaged: database disk image is malformed"), "{}", app.stderr());
    damage.repair();
    app.restart().await;
    oracle.keep(&app, 5).await;
    proxy.open().await;
    let worker = Worker::on(&vhost);
    drop(oracle.account(&app, &worker).await.check("a damaged page within the window, repaired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_among_what_is_pending_is_said_and_not_passed_by_the_cursor() {
    let (vhost, mut proxy, mut app, oracle) = without_a_broker().await;
    oracle.keep(&app, 200).await;
    app.terminate();
    app.ended().await;
    // Older than the window, so that the start does not read it.
    sql(
        &file(&app, ""),
        "UPDATE commands SET received_at = received_at - 3600000; PRAGMA wal_checkpoint(TRUNCATE)",
    );
    let damage = Damage::to(&app);
    proxy.open().await;
    let worker = Worker::on(&vhost);
    app.restart().await;
    eventually("the damage to be said", async || {
        let said = app.stderr();
        if said.contains("malformed") { Ok(()) } else { Err(said.lines().next_back().map(str::to_owned)) }
    })
    .await;
    oracle.keep(&app, 5).await;
    app.terminate();
    app.ended().await;
    let cursor: i64 = Connection::open(file(&app, ""))
        .unwrap()
        .query_row("SELECT published_through FROM cursor", [], |row| row.get(0))
        .unwrap();
    assert!(cursor < 101, "the cursor has passed what could not be read: {cursor}");
    damage.repair();
    app.restart().await;
    oracle.keep(&app, 5).await;
    drop(oracle.account(&app, &worker).await.check("a damaged page among what is pending, repaired"));
}

/// Runs a command on the ledger of a program.
async fn ledger(app: &App, arguments: &[&str]) -> String {
    let ran = Program::new(["ledger"].iter().chain(arguments).copied()).config(app.file()).run().await;
    ran.ended_with(0).stdout
}

/// Fills a ledger with rows that nobody sent, all of tasks of their own: old and published, or pending.
fn fill(ledger: &Path, rows: usize, published: bool) {
    let age_ms = if published { 100 * 86_400_000_i64 } else { 3_600_000 };
    let now = countersign::time::Timestamp::now().as_millisecond() - age_ms;
    let through = if published { rows } else { 0 };
    sql(
        ledger,
        &format!(
            r#"BEGIN;
            INSERT INTO commands (seq, command_id, received_at, endpoint, action, action_type, user_id, approval_code, instance_id,
                task_id, task_key, fingerprint, decision_key, message)
            WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < {rows})
            SELECT value, CAST(printf('%016d', value) AS BLOB), {now}, 'purchase', 'approve', 'APPROVE', 'filler', NULL, 'i',
                'filled-' || value, value, CAST(printf('%032d', value) AS BLOB), CAST(printf('%016d', value) AS BLOB),
                CAST(printf('{{"schema":"approval.command/1","command_id":"30303030-3030-3030-3030-%012x","filled":%d}}', value, value)
                    AS BLOB)
            FROM n;
            UPDATE cursor SET published_through = {through};
            COMMIT; PRAGMA wal_checkpoint(TRUNCATE)"#
        ),
    );
}

/// A program that was started once, so that there is a ledger, and was stopped again.
async fn stopped(config: Config) -> App {
    let mut app = App::with(config).await;
    app.terminate();
    app.ended().await;
    app
}

async fn rows(app: &App, state: &str) -> f64 {
    app.metric(&format!("countersign_ledger_rows{{state={state:?}}}")).await.expect("is always there")
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_under_load_holds_nobody_up_and_takes_only_what_is_old_and_published() {
    const OLD: usize = 10_000;
    let vhost = Vhost::new().await;
    let mut app = stopped(Config::new(&vhost)).await;
    fill(&file(&app, ""), OLD, true);
    app.restart().await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 8);
    let oldest = || -> i64 {
        let ledger = Connection::open(file(&app, "")).expect("the ledger is there");
        ledger.query_row("SELECT min(seq) FROM commands", [], |row| row.get(0)).expect("there are commands")
    };
    // Answers are given between the steps, not after all of them.
    let mut meanwhile = 0;
    while oldest() <= OLD as i64 {
        oracle.keep(&app, 1).await;
        meanwhile += 1;
    }
    load.stop().await;
    crate::say(&format!("pruning {OLD} rows under load: {meanwhile} answers in a row meanwhile"));
    assert!(meanwhile >= 5, "only {meanwhile} answers while {OLD} rows were pruned");
    let listed =
        Program::new(["ledger", "list", "--state", "parked"]).config(app.file()).run().await.ended_with(0);
    assert!(listed.stderr.contains("have been pruned"), "{}", listed.stderr);
    let show = ["ledger", "show", "01000000-0000-7000-8000-000000000000"];
    let gone = Program::new(show).config(app.file()).run().await.ended_with(1);
    assert!(gone.stderr.contains("have been pruned"), "{}", gone.stderr);
    app.kill();
    app.restart().await;
    let figures = oracle.account(&app, &worker).await.check("pruning under load");
    assert_eq!(figures.unknown, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_while_it_prunes_refuses_and_goes_on() {
    use crate::shim::{Fault, Shim};
    const OLD: usize = 10_000;
    let vhost = Vhost::new().await;
    let (shim, config) = Shim::between(Config::new(&vhost));
    let mut app = stopped(config).await;
    fill(&file(&app, ""), OLD, true);
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    app.restart().await;
    oracle.keep(&app, 5).await;
    shim.set(Fault::NoSpace);
    until_refused(&oracle, &app).await;
    let left = rows(&app, "published").await;
    assert!(left > 1000.0, "it had pruned all before the disk was full: {left}");
    // By hand it fails as well, and says so.
    let prune = Program::new(["ledger", "prune", "--older-than", "30d"]).config(app.file());
    let prune = shim.environment().iter().fold(prune, |prune, (name, value)| prune.env(name, value));
    let ran = prune.run().await.ended_with(1);
    assert!(ran.stderr.contains("not all old commands were removed"), "{}", ran.stderr);
    shim.set(Fault::None);
    until_kept(&oracle, &app).await;
    oracle.keep(&app, 20).await;
    // The service looks again within a minute; somebody who cannot wait does it by hand, beside it, and the service may
    // be at it as well by then.
    let told = ledger(&app, &["prune", "--older-than", "30d", "--json"]).await;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(told["pruned"].as_u64() <= told["prunable"].as_u64(), "{told}");
    let told = ledger(&app, &["prune", "--older-than", "30d", "--json"]).await;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((told["pruned"].as_u64(), told["prunable"].as_u64()), (Some(0), Some(0)), "{told}");
    app.kill();
    app.restart().await;
    oracle.keep(&app, 5).await;
    assert!(rows(&app, "published").await < 100.0);
    drop(oracle.account(&app, &worker).await.check("disk full while pruning"));
}

/// So many pending rows at the start: it is ready at once, and all get published.
async fn starts_with_pending(count: usize) {
    let vhost = Vhost::new().await;
    let mut app = stopped(Config::new(&vhost)).await;
    fill(&file(&app, ""), count, false);
    let before = std::time::Instant::now();
    app.restart().await;
    let ready = before.elapsed();
    let oracle = Oracle::new();
    oracle.keep(&app, 20).await;
    eventually_drained(&app).await;
    let took = before.elapsed();
    // Exactly once each, since nothing was interrupted.
    let wanted = u32::try_from(count + 20).expect("a few millions");
    eventually("the queue to have all", async || match vhost.depth("countersign.commands").await {
        Some(depth) if depth == wanted => Ok(()),
        other => Err(other),
    })
    .await;
    crate::say(&format!(
        "{count} pending at the start: ready after {ready:.1?}, all published after {took:.1?}"
    ));
}

async fn eventually_drained(app: &App) {
    const LONG: Duration = Duration::from_secs(1800);
    crate::support::eventually_within(LONG, "nothing to be pending", async || {
        match app.metric(r#"countersign_ledger_rows{state="pending"}"#).await {
            Some(0.0) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_thousands_of_pending_rows_it_is_ready_at_once_and_publishes_all() {
    starts_with_pending(20_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a million messages"]
async fn with_a_million_pending_rows_it_is_ready_at_once_and_publishes_all() {
    starts_with_pending(1_000_000).await;
}
