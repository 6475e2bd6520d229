//! A ledger whose file, or whose write-ahead log, was cut or written over: it opens or it refuses, and never panics. When
//! nothing but the end of the log is missing, what opens is a prefix of what was there, with nothing left out before its
//! end; when the end of the main file is missing, it does not open as if it were whole.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use countersign::{
    command::{Action, Command, CommandId, Fingerprint, TaskRef, id::FingerprintParts},
    ledger::{
        Accept, Acceptance, Filter, Limits, OnConflict, Receipt, RefusalFilter, Sizing,
        sqlite::{Reader, SqliteLedger},
    },
    time::Timestamp,
};

const COMMANDS: usize = 40;

fn sizing() -> Sizing {
    let limits = Limits { min_free_bytes: 0, ..Limits::default() };
    Sizing { queue_capacity: 64, max_batch: 4, limits }
}

fn acceptance(number: usize) -> Acceptance {
    let user_id = format!("operator-{number}");
    let fingerprint = Fingerprint::of(&FingerprintParts {
        endpoint: "e",
        user_id: &user_id,
        ..FingerprintParts::default()
    });
    let received_at = Timestamp::now();
    let command = Command {
        command_id: CommandId::new(received_at),
        endpoint: Arc::from("e"),
        received_at,
        action: Action::Approve,
        action_type: "APPROVE".to_owned(),
        origin: None,
        user_id,
        approval_code: None,
        task: TaskRef { task_id: Some(format!("task-{number}")), ..TaskRef::default() },
        reason: Some("r".repeat(number * 50)),
        attachments: Vec::new(),
        action_context: None,
        message_id: None,
        search_id: None,
        conflicts_with: None,
        repeats: None,
        trace: None,
        extra: Vec::new(),
    };
    Acceptance {
        since: Instant::now(),
        command,
        fingerprint,
        window: Duration::from_secs(60),
        repeats_window: Duration::from_secs(24 * 3600),
        on_conflict: OnConflict::Publish,
    }
}

/// A ledger's files as a crash would leave them, and the ids that were answered.
struct Template {
    main: Vec<u8>,
    wal: Vec<u8>,
    ids: Vec<CommandId>,
    directory: tempfile::TempDir,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("template.db");
    let ledger = SqliteLedger::open(&path, &sizing()).expect("a new ledger");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let ids = (0..COMMANDS)
        .map(|number| {
            let acceptance = acceptance(number);
            let id = acceptance.command.command_id;
            let receipt = runtime.block_on(ledger.accept(acceptance)).expect("accepted");
            assert_eq!(receipt, Receipt::Accepted { command_id: id });
            id
        })
        .collect();
    // While it is open: the log is not written back yet.
    let main = fs::read(&path).expect("a file");
    let wal = fs::read(path.with_extension("db-wal")).unwrap_or_default();
    drop(ledger);
    Template { main, wal, ids, directory }
});

fn clear(path: &Path) {
    for end in ["db", "db-wal", "db-shm", "db.lock"] {
        // What is not there need not go.
        drop(fs::remove_file(path.with_extension(end)));
    }
}

fn present(path: &Path) -> Option<Vec<CommandId>> {
    let reader = Reader::open(path).ok()?;
    let filter = Filter { limit: 10_000, ..Filter::default() };
    let mut ids: Vec<CommandId> = reader.list(&filter).ok()?.iter().map(|record| record.command_id).collect();
    ids.reverse();
    // None of these may panic either.
    drop((reader.stats(), reader.refusals(&RefusalFilter { limit: 100, ..RefusalFilter::default() })));
    Some(ids)
}

pub(super) fn run(data: &[u8]) {
    let Some((in_wal, cut, writes)) = super::read::<(bool, Option<u32>, Vec<(u32, u8)>)>(data) else {
        return;
    };
    let template = &*TEMPLATE;
    let (mut main, mut wal) = (template.main.clone(), template.wal.clone());
    let file = if in_wal { &mut wal } else { &mut main };
    let length = file.len();
    if length == 0 {
        return;
    }
    if let Some(cut) = cut {
        file.truncate(cut as usize % (length + 1));
    }
    for (at, byte) in writes.iter().take(64) {
        let length = file.len();
        if length > 0 {
            file[*at as usize % length] = *byte;
        }
    }
    let only_cut = writes.is_empty();
    let whole = file.len() == length && only_cut;

    let path: PathBuf = template.directory.path().join("mutated.db");
    clear(&path);
    fs::write(&path, &main).expect("room");
    fs::write(path.with_extension("db-wal"), &wal).expect("room");
    // A new file would be begun where there is none: that one is missing, and not damaged.
    let opened = SqliteLedger::open(&path, &sizing());
    if whole {
        assert!(opened.is_ok(), "{opened:?}");
    }
    if let Ok(ledger) = opened {
        drop(ledger);
        if let Some(ids) = present(&path) {
            if whole {
                assert_eq!(ids, template.ids);
            } else if only_cut && in_wal {
                // A commit that was not synced was not answered. Nothing before the end is left out.
                assert!(template.ids.starts_with(&ids), "{} of {COMMANDS}", ids.len());
            } else if only_cut && !main.is_empty() {
                assert_eq!(ids, template.ids, "the main file was cut to {} of {length} bytes", main.len());
            }
        }
    }
    clear(&path);
}
