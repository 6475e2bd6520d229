//! `ledger backup`, `ledger restore` and `ledger check` with the real program and a real file.

use crate::support::{
    App, Callback, Config, Endpoint, NOWHERE, Program, Vhost, Worker, eventually, postgres::Postgres, quoted,
};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 64;

pub(crate) fn config(amqp_url: &str) -> Config {
    let rounds = Endpoint::plain("rounds")
        .context("format", "\"json\"")
        .context("fields", r#"{ task_id = "/t", instance_id = "/i", round = "/r" }"#);
    Config::bare(amqp_url).endpoint(rounds).endpoint(Endpoint::plain("leave"))
}

pub(crate) fn task(task: &str) -> Vec<u8> {
    Callback::list("PO-77", task).plain()
}

pub(crate) fn round(round: &str) -> Vec<u8> {
    Callback::card(&json!({"t": "t1", "i": "i1", "r": round}).to_string(), 4711).plain()
}

pub(crate) fn file(app: &App) -> PathBuf {
    app.dir().join("ledger.db")
}

pub(crate) fn run(app: &App, args: &[&str]) -> Program {
    Program::new(args).config(app.file()).dir(app.dir())
}

pub(crate) async fn stop(app: &mut App) {
    app.terminate();
    assert_eq!(app.ended().await.code(), Some(0), "{}", app.stderr());
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What the commands of a ledger are, without their states.
async fn ids(app: &App, ledger: &Path) -> Vec<String> {
    let set = format!("ledger.url=sqlite:{}", ledger.display());
    let ran = run(app, &["ledger", "list", "--json", "--limit", "1000000", "--set", &set]).run().await;
    let list = ran.ended_with(DONE).stdout;
    let mut ids: Vec<String> = list
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("JSON")["command_id"]
                .as_str()
                .expect("a text")
                .to_owned()
        })
        .collect();
    ids.sort();
    ids
}

/// Sends decisions until told to stop, each when the one before was answered; returns how many.
fn load(app: &App, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (client, url, stop) = (app.client(), app.callback_url("leave"), stop.clone());
    tokio::spawn(async move {
        let mut answered = 0;
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let body = task(&format!("load-{number}"));
            let answer = client.post(&url).body(body).send().await.expect("it answers");
            assert_eq!(answer.status(), 200, "an accept failed during the backup");
            answered += 1;
        }
        answered
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_a_ledger_with_all_that_was_answered_before_it_began() {
    let vhost = Vhost::new().await;
    let app = App::with(config(vhost.url())).await;
    let mut before = Vec::new();
    for number in 0..50 {
        before.push(app.post("leave", task(&format!("before-{number}"))).await.command_id());
    }
    let over = Arc::new(AtomicBool::new(false));
    let load = load(&app, &over);
    for round in 0..5 {
        let to = app.dir().join(format!("backup-{round}.db"));
        let made = run(&app, &["ledger", "backup", &to.display().to_string(), "--json"])
            .run()
            .await
            .ended_with(DONE)
            .json();
        let found = ids(&app, &to).await;
        assert!(before.iter().all(|id| found.contains(id)), "{made}");
        assert_eq!(made["tables"]["commands"], json!(found.len()), "{made}");
        assert_eq!(made["bytes"], json!(std::fs::metadata(&to).expect("it is there").len()));
        assert_eq!(std::fs::metadata(&to).expect("it is there").permissions().mode() & 0o777, 0o600);
        // What was answered before a backup begins is in it.
        let newest = app.post("leave", task(&format!("between-{round}"))).await.command_id();
        before.push(newest);
    }
    over.store(true, Ordering::Relaxed);
    let answered = load.await.expect("no accept failed");
    assert!(answered > 5, "{answered}");
    let leftovers: Vec<_> = std::fs::read_dir(app.dir()).expect("ours").filter_map(Result::ok).collect();
    assert!(
        leftovers.iter().all(|entry| !entry.file_name().to_string_lossy().contains(".part")),
        "{leftovers:?}"
    );
    run(&app, &["ledger", "check"]).run().await.ended_with(DONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_leaves_nothing_under_its_name_and_an_older_one_as_it_was() {
    let app = App::with(config(NOWHERE)).await;
    for number in 0..20 {
        app.post("leave", task(&format!("t{number}"))).await.command_id();
    }
    let to = app.dir().join("backup.db");
    let name = to.display().to_string();
    for point in ["backup:copying", "backup:copied", "backup:synced"] {
        let killed = run(&app, &["ledger", "backup", &name]).env("COUNTERSIGN_KILL_AT", point).run().await;
        assert_eq!(killed.code, None, "{point}: {killed:?}");
        assert!(!to.exists(), "{point}");
    }
    run(&app, &["ledger", "backup", &name]).run().await.ended_with(DONE);
    let first = std::fs::read(&to).expect("it is there");
    app.post("leave", task("later")).await.command_id();
    let refused = run(&app, &["ledger", "backup", &name]).run().await.ended_with(FAILED);
    assert!(refused.stderr.contains("exists already; --force replaces it"), "{refused:?}");
    for point in ["backup:copying", "backup:copied", "backup:synced"] {
        let killed =
            run(&app, &["ledger", "backup", &name, "--force"]).env("COUNTERSIGN_KILL_AT", point).run().await;
        assert_eq!(killed.code, None, "{point}: {killed:?}");
        assert!(std::fs::read(&to).expect("it is there") == first, "{point}");
    }
    let killed = run(&app, &["ledger", "backup", &name, "--force"])
        .env("COUNTERSIGN_KILL_AT", "backup:named")
        .run()
        .await;
    assert_eq!(killed.code, None, "{killed:?}");
    assert_eq!(ids(&app, &to).await.len(), 21, "it had its name already");
    let own = file(&app).display().to_string();
    let refused = run(&app, &["ledger", "backup", &own, "--force"]).run().await.ended_with(FAILED);
    assert!(refused.stderr.contains("belongs to a ledger in use"), "{refused:?}");
}

/// Looking into a backup makes an empty log and its index beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_looked_into_is_replaced_and_one_with_commits_of_its_own_is_not() {
    let mut app = App::with(config(NOWHERE)).await;
    app.post("leave", task("t1")).await.command_id();
    let to = app.dir().join("backup.db");
    let name = to.display().to_string();
    run(&app, &["ledger", "backup", &name]).run().await.ended_with(DONE);
    assert_eq!(ids(&app, &to).await.len(), 1);
    std::fs::write(beside(&to, "-wal"), "").expect("ours");
    std::fs::write(beside(&to, "-shm"), vec![0; 32768]).expect("ours");
    app.post("leave", task("t2")).await.command_id();
    run(&app, &["ledger", "backup", &name, "--force"]).run().await.ended_with(DONE);
    for suffix in ["-wal", "-shm"] {
        assert!(!beside(&to, suffix).exists(), "{suffix} is of the file that was replaced");
    }
    assert_eq!(ids(&app, &to).await.len(), 2);
    for suffix in ["-wal", "-journal"] {
        std::fs::write(beside(&to, suffix), "something").expect("ours");
        let refused = run(&app, &["ledger", "backup", &name, "--force"]).run().await.ended_with(FAILED);
        assert!(refused.stderr.contains("belongs to a ledger in use"), "{suffix}: {refused:?}");
        std::fs::remove_file(beside(&to, suffix)).expect("it is left");
    }
    // Its log is empty after a start, and gone after a stop.
    let own = file(&app);
    stop(&mut app).await;
    let set = format!("ledger.url=sqlite:{name}");
    app.restart().await;
    let refused =
        run(&app, &["ledger", "backup", &own.display().to_string(), "--force", "--set", &set]).run().await;
    assert!(refused.ended_with(FAILED).stderr.contains("belongs to a ledger in use"));
    stop(&mut app).await;
    let before = std::fs::metadata(&own).expect("it is there").ino();
    let refused = run(&app, &["ledger", "backup", &own.display().to_string(), "--force"]).run().await;
    assert!(refused.ended_with(FAILED).stderr.contains("is the ledger itself"));
    assert_eq!(std::fs::metadata(&own).expect("it is there").ino(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_backup_also_while_the_copy_is_looked_at() {
    let mut app = App::with(config(NOWHERE)).await;
    stop(&mut app).await;
    let rows = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 300000)
        INSERT INTO contexts (key, registered_at, operators) SELECT 'context-' || n, n, '[\"zhang3\"]' FROM n;
        PRAGMA wal_checkpoint(TRUNCATE)";
    rusqlite::Connection::open(file(&app)).expect("a ledger").execute_batch(rows).expect("SQL of ours");
    let to = app.dir().join("backup.db");
    let part = beside(&to, ".part");
    let mut running = run(&app, &["ledger", "backup", &to.display().to_string()]).start();
    eventually("the check", async || {
        let threads = running.threads();
        if threads.contains(&"check".to_owned()) { Ok(()) } else { Err(threads) }
    })
    .await;
    assert!(part.exists());
    running.interrupt();
    let code = eventually("its end", async || running.exit_code().ok_or(())).await;
    assert_eq!(code, Some(FAILED), "{:?}", running.lines());
    assert!(running.lines().iter().any(|line| line.contains("interrupted")), "{:?}", running.lines());
    assert!(!part.exists() && !to.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ledger_gives_no_backup_and_postgresql_has_tools_of_its_own() {
    let mut app = App::with(config(NOWHERE)).await;
    app.post("leave", task("t1")).await.command_id();
    stop(&mut app).await;
    let connection = rusqlite::Connection::open(file(&app)).expect("a ledger");
    connection.execute_batch("UPDATE commands SET message = x'7b7d'").expect("SQL of ours");
    drop(connection);
    let to = app.dir().join("backup.db");
    let ran = run(&app, &["ledger", "backup", &to.display().to_string()]).run().await.ended_with(FAILED);
    assert!(
        ran.stdout.contains("message: commands 1") && ran.stderr.contains("no backup was made"),
        "{ran:?}"
    );
    assert!(!to.exists() && !beside(&to, ".part").exists());
    for command in ["backup", "restore"] {
        let ran = run(&app, &["ledger", command, "x", "--set", "ledger.url=postgres://u@127.0.0.1:1/d"])
            .run()
            .await;
        assert!(ran.ended_with(USAGE).stderr.contains("pg_basebackup"), "{command}");
    }
}

/// The drill of docs/operations.md: an older backup takes the place of a ledger that has gone on.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_nothing_is_published_twice_by_itself_and_what_is_missing_is_named() {
    let vhost = Vhost::new().await;
    let mut app = App::with(config(vhost.url())).await;
    let worker = Worker::on(&vhost);
    let published = app.post("leave", task("published")).await.command_id();
    worker.command(&published).await;
    eventually("the cursor", async || {
        let stats = run(&app, &["ledger", "stats", "--json"]).run().await.json();
        if stats["published"] == json!(1) { Ok(()) } else { Err(stats) }
    })
    .await;
    stop(&mut app).await;
    // Pending in the backup, and published afterwards.
    app.reconfigure(|config| config.set("amqp", "url", &quoted(NOWHERE)));
    app.restart().await;
    let pending = app.post("leave", task("pending")).await.command_id();
    let backup = app.dir().join("backup.db");
    run(&app, &["ledger", "backup", &backup.display().to_string()]).run().await.ended_with(DONE);
    let sound = run(&app, &["ledger", "check", &backup.display().to_string()]).run().await.ended_with(DONE);
    assert!(
        sound.stdout.contains("sound") && !beside(&backup, "-shm").exists(),
        "it is left as it is: {sound:?}"
    );
    stop(&mut app).await;
    app.reconfigure(|config| config.set("amqp", "url", &quoted(vhost.url())));
    app.restart().await;
    worker.command(&pending).await;
    let missing = app.post("leave", task("missing")).await.command_id();
    worker.command(&missing).await;

    let name = backup.display().to_string();
    let refused = run(&app, &["ledger", "restore", &name]).run().await.ended_with(FAILED);
    assert!(refused.stderr.contains("in use by another countersign"), "{refused:?}");
    stop(&mut app).await;
    let before = std::fs::read(file(&app)).expect("it is there");
    let plan =
        run(&app, &["ledger", "restore", &name, "--dry-run", "--json"]).run().await.ended_with(DONE).json();
    assert_eq!(
        (&plan["restored"], &plan["commands"][0]["command_id"]),
        (&json!(false), &json!(pending)),
        "{plan}"
    );
    assert!(std::fs::read(file(&app)).expect("it is there") == before, "a plan changes nothing");
    let restored = run(&app, &["ledger", "restore", &name, "--json"]).run().await.ended_with(DONE).json();
    let aside = PathBuf::from(restored["aside"].as_str().expect("the old one is kept"));
    assert_eq!(restored["commands"].as_array().map(Vec::len), Some(1), "{restored}");

    // The old file names what the backup lacks, since the time that restore tells.
    let set = format!("ledger.url=sqlite:{}", aside.display());
    let since = restored["missing_since"].as_str().expect("a time");
    let listed = run(&app, &["ledger", "list", "--json", "--since", since, "--set", &set])
        .run()
        .await
        .ended_with(DONE);
    assert!(listed.stdout.contains(&missing) && !listed.stdout.contains(&published), "{listed:?}");

    app.restart().await;
    // A decision that comes later goes past the parked one.
    let later = app.post("leave", task("later")).await.command_id();
    worker.command(&later).await;
    assert_eq!(worker.seen().iter().filter(|seen| seen.message_id() == pending).count(), 1, "it is parked");
    run(&app, &["ledger", "requeue", &pending]).run().await.ended_with(DONE);
    eventually("the same command again", async || {
        let count = worker.seen().iter().filter(|seen| seen.message_id() == pending).count();
        if count == 2 { Ok(()) } else { Err(count) }
    })
    .await;
    run(&app, &["ledger", "check"]).run().await.ended_with(DONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pending_is_published_if_the_operator_says_so_and_a_kill_leaves_one_ledger_or_none() {
    let mut app = App::with(config(NOWHERE)).await;
    let pending = app.post("leave", task("pending")).await.command_id();
    let backup = app.dir().join("backup.db");
    let name = backup.display().to_string();
    run(&app, &["ledger", "backup", &name]).run().await.ended_with(DONE);
    let late = app.post("leave", task("late")).await.command_id();
    // A kill leaves a write-ahead log, which must follow its database.
    app.kill();
    let listed = async |app: &App| ids(app, &file(app)).await;
    assert_eq!(listed(&app).await.len(), 2);
    for (point, is_there) in [("restore:aside", true), ("restore:moved", false), ("restore:moved@2", false)] {
        let killed = run(&app, &["ledger", "restore", &name]).env("COUNTERSIGN_KILL_AT", point).run().await;
        assert_eq!(killed.code, None, "{point}: {killed:?}");
        assert_eq!(file(&app).exists(), is_there, "{point}");
        if point == "restore:moved" {
            assert!(beside(&file(&app), "-wal").exists(), "the log is still there");
            let refused = app.restart_to_its_end().await;
            assert_ne!(refused.code(), Some(0), "a log without its database is no ledger");
        }
    }
    // Another file of that kind, which is younger by its name, and a journal that is nobody's.
    std::fs::write(beside(&file(&app), ".before-99991231T000000Z"), "").expect("ours");
    std::fs::write(beside(&file(&app), "-journal"), "stale").expect("ours");
    let restored = run(&app, &["ledger", "restore", &name, "--pending", "publish", "--json"])
        .run()
        .await
        .ended_with(DONE)
        .json();
    std::fs::remove_file(beside(&file(&app), ".before-99991231T000000Z")).expect("it is left alone");
    assert!(!beside(&file(&app), "-journal").exists() && !beside(&file(&app), ".restoring").exists());
    assert_eq!(listed(&app).await, [pending]);
    let stats = run(&app, &["ledger", "stats", "--json"]).run().await.ended_with(DONE).json();
    assert_eq!((&stats["pending"], &stats["parked"]), (&json!(1), &json!(0)), "{stats}");
    let old: Vec<PathBuf> = std::fs::read_dir(app.dir())
        .expect("ours")
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.to_string_lossy();
            name.contains(".before-") && !name.ends_with("-wal") && !name.ends_with("-journal")
        })
        .collect();
    assert_eq!(old.len(), 1, "{old:?}");
    assert_eq!(restored["aside"], json!(old[0]), "it is named whichever run moved it");
    assert!(ids(&app, &old[0]).await.contains(&late), "the log followed its database");
    app.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_looks_at_a_running_service_of_either_kind() {
    let vhost = Vhost::new().await;
    let url = tokio::task::block_in_place(Postgres::shared).database().await;
    for ledger in [None, Some(&url)] {
        let mut config = config(vhost.url());
        if let Some(url) = ledger {
            config = config.set("ledger", "url", &quoted(url));
        }
        let app = App::with(config).await;
        app.post("rounds", round("1")).await.command_id();
        let over = Arc::new(AtomicBool::new(false));
        let load = load(&app, &over);
        for _ in 0..5 {
            let checked = run(&app, &["ledger", "check", "--json"]).run().await.ended_with(DONE).json();
            assert_eq!(checked["faults"], json!(0), "{checked}");
            assert_eq!(checked["tables"]["rounds"], json!(1), "{checked}");
        }
        over.store(true, Ordering::Relaxed);
        load.await.expect("no accept failed");
    }
}
