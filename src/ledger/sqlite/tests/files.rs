//! The files on disk: the log and its checkpoints, the lock; missing, replaced, broken.

use super::*;

#[tokio::test]
async fn what_a_crash_left_in_the_log_is_moved_and_synced_before_it_counts() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let id = accepted(&ledger, acceptance("a", "APPROVE", None)).await;
    // What the disk holds if the process is killed now.
    let after = Scratch::new();
    for file in ["ledger.db", "ledger.db-wal"] {
        fs::copy(scratch.directory.path().join(file), after.directory.path().join(file)).unwrap();
    }
    let restarted = after.open();
    let left = fs::metadata(after.directory.path().join("ledger.db-wal")).map(|wal| wal.len()).unwrap_or(0);
    assert_eq!(left, 0, "the log was moved to the database");
    let again = restarted.accept(acceptance("a", "APPROVE", None)).await;
    assert_eq!(again, Ok(Receipt::Duplicate { command_id: id }));
}

#[tokio::test]
async fn the_log_does_not_grow_for_ever_although_nothing_is_accepted() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let wal = scratch.directory.path().join("ledger.db-wal");
    let (mut largest, mut steady) = (0, 0);
    for _ in 0..300_000 {
        ledger.probe().await.unwrap();
        let size = fs::metadata(&wal).unwrap().len();
        steady = if size > largest { 0 } else { steady + 1 };
        largest = largest.max(size);
        // The log restarted and then stayed within its size. How soon depends on when the checkpointer gets a core.
        if steady > 300 {
            return;
        }
    }
    panic!("after 300 000 commits the log has {largest} bytes and still grows");
}

/// Callers that give the writer no pause: after every checkpoint there is more in the log.
#[tokio::test]
async fn the_log_restarts_although_the_writer_never_rests() {
    const CALLERS: usize = 8;
    let scratch = Scratch::new();
    let ledger = Arc::new(scratch.open());
    let wal = scratch.directory.path().join("ledger.db-wal");
    let (mut largest, mut steady, mut taken) = (0, 0, 0);
    let mut callers = tokio::task::JoinSet::new();
    let call = |n: usize| {
        let ledger = ledger.clone();
        async move { accepted(&ledger, acceptance(&format!("task-{n}"), "APPROVE", None)).await }
    };
    for n in 0..CALLERS {
        callers.spawn(call(n));
    }
    while callers.join_next().await.is_some() {
        taken += 1;
        let size = fs::metadata(&wal).unwrap().len();
        steady = if size > largest { 0 } else { steady + 1 };
        largest = largest.max(size);
        assert!(
            largest < 8 * checkpoint::WAL_FULL_BYTES,
            "after {taken} accepts the log has {largest} bytes"
        );
        // Restarted, and stayed within its size.
        if steady > 100 * CALLERS {
            return;
        }
        callers.spawn(call(CALLERS + taken));
    }
}

#[tokio::test]
async fn a_log_that_somebody_keeps_from_being_moved_is_no_ledger_to_begin_with() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let path = scratch.path();
    // Left in the log by a crash; a reader needs the state before the last commit.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("UPDATE cursor SET probed_at = 1").unwrap();
    let mut reader = Connection::open(&path).unwrap();
    let transaction = reader.transaction().unwrap();
    transaction.query_row("SELECT probed_at FROM cursor", [], |row| row.get::<_, i64>(0)).unwrap();
    other.execute_batch("UPDATE cursor SET probed_at = 2").unwrap();
    let Err(OpenError::File { source, .. }) = SqliteLedger::open(&scratch.path(), &Scratch::sizing()) else {
        panic!("it is not refused")
    };
    assert!(source.to_string().contains("another process reads it"), "{source}");
    drop(transaction);
    scratch.open();
}

#[tokio::test]
async fn an_empty_log_beside_no_database_is_not_a_loss() {
    let scratch = Scratch::new();
    fs::write(scratch.directory.path().join("ledger.db-wal"), "").unwrap();
    accepted(&scratch.open(), acceptance("t", "APPROVE", None)).await;
}

#[tokio::test]
async fn a_file_that_was_removed_or_replaced_is_not_written_to_any_more() {
    for suffix in ["", "-wal", "-shm"] {
        for replaced in [false, true] {
            let scratch = Scratch::new();
            let ledger = scratch.open();
            accepted(&ledger, acceptance("a", "APPROVE", None)).await;
            let file = scratch.directory.path().join(format!("ledger.db{suffix}"));
            let aside = scratch.directory.path().join("aside");
            fs::rename(&file, &aside).unwrap();
            if replaced {
                fs::copy(&aside, &file).unwrap();
            }
            let answer = ledger.accept(acceptance("b", "APPROVE", None)).await;
            assert_eq!(answer, Err(AcceptError::Unavailable), "{suffix} {replaced}");
            // In its place again, but nobody knows what happened to it meanwhile.
            fs::rename(&aside, &file).unwrap();
            assert_eq!(ledger.probe().await, Err(AcceptError::Unavailable));
            drop(ledger);
            accepted(&scratch.open(), acceptance("c", "APPROVE", None)).await;
        }
    }
}

#[tokio::test]
async fn after_flush_nothing_is_accepted_and_one_file_is_left() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    accepted(&ledger, acceptance("a", "APPROVE", None)).await;
    ledger.flush().await;
    assert_eq!(ledger.accept(acceptance("b", "APPROVE", None)).await, Err(AcceptError::Unavailable));
    let wal = fs::metadata(scratch.directory.path().join("ledger.db-wal")).map(|wal| wal.len()).unwrap_or(0);
    assert_eq!(wal, 0);
}

#[test]
fn a_ledger_has_one_writer() {
    let scratch = Scratch::new();
    let first = scratch.open();
    assert!(matches!(SqliteLedger::open(&scratch.path(), &Scratch::sizing()), Err(OpenError::Locked { .. })));
    drop(first);
    scratch.open();
}

#[tokio::test]
async fn a_broken_ledger_is_refused_rather_than_recreated() {
    let refused = |prepare: &dyn Fn(&Scratch)| {
        let scratch = Scratch::new();
        drop(scratch.open());
        prepare(&scratch);
        let error = SqliteLedger::open(&scratch.path(), &Scratch::sizing()).expect_err("must be refused");
        format!("{error}")
    };
    let newer = refused(&|scratch| scratch.execute("PRAGMA user_version = 99"));
    assert!(newer.contains("version 99"), "{newer}");
    let foreign = refused(&|scratch| scratch.execute("PRAGMA application_id = 1"));
    assert!(foreign.contains("not a ledger of countersign"), "{foreign}");
    for stranger in ["CREATE TABLE notes (text)", "PRAGMA application_id = 1", "PRAGMA user_version = 7"] {
        let scratch = Scratch::new();
        scratch.execute(stranger);
        let before = fs::read(scratch.path()).unwrap();
        let error = SqliteLedger::open(&scratch.path(), &Scratch::sizing()).expect_err(stranger);
        assert!(matches!(error, OpenError::Foreign { .. }), "{stranger}: {error}");
        assert_eq!(fs::read(scratch.path()).unwrap(), before, "{stranger}: not one byte is changed");
    }
    let garbage = refused(&|scratch| fs::write(scratch.path(), vec![b'x'; 8192]).unwrap());
    assert!(garbage.contains("damaged"), "{garbage}");
    let headless =
        refused(&|scratch| scratch.execute("INSERT INTO exceptions VALUES (9, 'parked', 1, 0, 0, '')"));
    assert!(headless.contains("damaged"), "{headless}");
    let cut_off = refused(&|scratch| scratch.execute("UPDATE cursor SET published_through = 7"));
    assert!(cut_off.contains("damaged"), "{cut_off}");
    let halved = refused(&|scratch| {
        let file = fs::OpenOptions::new().write(true).open(scratch.path()).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    });
    assert!(halved.contains("damaged"), "{halved}");
    let orphaned = refused(&|scratch| {
        fs::write(scratch.directory.path().join("ledger.db-wal"), b"something").unwrap();
        fs::remove_file(scratch.path()).unwrap();
    });
    assert!(orphaned.contains("damaged"), "{orphaned}");
    let nowhere = Path::new("/nonexistent/ledger.db");
    assert!(matches!(SqliteLedger::open(nowhere, &Scratch::sizing()), Err(OpenError::File { .. })));
}

#[tokio::test]
async fn what_a_failed_start_left_behind_is_taken_over() {
    let scratch = Scratch::new();
    fs::write(scratch.path(), b"").unwrap();
    accepted(&scratch.open(), acceptance("a", "APPROVE", None)).await;
}

#[tokio::test]
async fn nobody_but_its_owner_can_read_a_ledger_and_what_stands_beside_it() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let ledger = scratch.open();
    accepted(&ledger, acceptance("a", "APPROVE", None)).await;
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"] {
        let mode = fs::metadata(scratch.directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}: {mode:o}");
    }
}

#[test]
fn a_symbolic_link_is_neither_a_ledger_nor_its_lock() {
    use std::os::unix::fs::symlink;
    let told = |error: OpenError| crate::telemetry::log::chain(&error);
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("target");
    for name in ["ledger.db", "ledger.db.lock"] {
        let scratch = Scratch::new();
        symlink(&target, scratch.directory.path().join(name)).unwrap();
        // Nothing is created through a link, and an existing target stays as it is.
        let error = told(SqliteLedger::open(&scratch.path(), &Scratch::sizing()).unwrap_err());
        assert!(error.ends_with("it is a symbolic link; name the file itself"), "{error}");
        assert!(!target.exists());
        fs::write(&target, "theirs").unwrap();
        assert!(SqliteLedger::open(&scratch.path(), &Scratch::sizing()).is_err());
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        fs::remove_file(&target).unwrap();
    }
    let scratch = Scratch::new();
    let path = scratch.directory.path().join("ledger.db");
    drop(scratch.open());
    fs::rename(&path, &target).unwrap();
    symlink(&target, &path).unwrap();
    assert!(told(Reader::open(&path).unwrap_err()).contains("it is a symbolic link"));
    assert!(told(SqliteClient::open(&path).unwrap_err()).contains("it is a symbolic link"));

    // Links in its parent path are the operator's business.
    let way = elsewhere.path().join("way");
    symlink(elsewhere.path(), &way).unwrap();
    assert!(Reader::open(&way.join("target")).is_ok());
}
