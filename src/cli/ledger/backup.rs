//! `ledger backup` and `ledger restore`: copies of a SQLite ledger, and back.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use super::check::{Faults, by_name, progress, rows};
use crate::{
    cli::{
        actor::ReasonArguments,
        exit::{Exit, Failure},
        output::{counted, json, line, say_lines},
    },
    config::Loaded,
    ledger::{
        Location,
        check::{self, Checked, Fault},
        sqlite::{self, BackupError, Made, Pending, Waiting},
    },
    time::Timestamp,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  countersign ledger backup /var/backups/countersign.db --force
  countersign ledger check /var/backups/countersign.db
  countersign ledger restore /var/backups/countersign.db --dry-run";

#[derive(Debug, Args)]
pub(in crate::cli) struct BackupArguments {
    /// The file to make
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it exists, once the new one is whole
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Then {
    Park,
    Publish,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RestoreArguments {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What becomes of commands that are pending in the backup: they are parked, or published (again)
    #[arg(long, value_enum, default_value = "park")]
    pending: Then,
    #[command(flatten)]
    reason: ReasonArguments,
    /// Only check the backup, and tell what would happen
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The file of the ledger; of a database its own tools make copies.
fn file(loaded: &Loaded, work: &str) -> Result<PathBuf, Failure> {
    match &loaded.ledger()?.location {
        Location::Sqlite(path) => Ok(path.clone()),
        Location::Postgres(options) => Err(Failure::Usage(format!(
            "the ledger is {}, and PostgreSQL's own tools {work} it: pg_basebackup with archived WAL loses nothing that was answered \
             200, pg_dump --schema=countersign is one state of it (docs/operations.md#backup). ledger check works on it",
            options.address
        ))),
    }
}

/// Looks at a copy. Prints what is wrong.
async fn sound(copy: &Path, as_json: bool) -> Result<Checked, Failure> {
    let mut faults = Faults::new(as_json);
    let mut shown = progress("rows looked at");
    let looked = {
        let mut tell = |fault: &Fault| faults.tell(fault);
        check::check_copy(copy, &mut tell, &mut |rows| shown(rows, 0)).await
    };
    let report = looked.with_context(|| format!("cannot look at {}", copy.display()))?;
    faults.end()?;
    Ok(report)
}

/// [`sound`], on a thread of its own: a check of a file does not wait for anything, and would see no Ctrl-C.
async fn sound_unless(interrupts: &mut Signal, copy: PathBuf, as_json: bool) -> Result<Checked, Failure> {
    let (tell, told) = oneshot::channel();
    let look = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let report = runtime.context("cannot look at the copy").map_err(Failure::from);
        // Nobody waits for it after Ctrl-C.
        tell.send(report.and_then(|runtime| runtime.block_on(sound(&copy, as_json)))).ok();
    };
    std::thread::Builder::new().name("check".to_owned()).spawn(look).context("cannot look at the copy")?;
    tokio::select! {
        report = told => report.context("the check ended")?,
        _ = interrupts.recv() => Err(anyhow::Error::new(BackupError::Interrupted).into()),
    }
}

pub(super) async fn backup(arguments: &BackupArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let from = file(loaded, "back up")?;
    let began = Instant::now();
    // From now on Ctrl-C ends nothing by itself.
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let made = made(&mut interrupts, &from, &arguments.file, arguments.force).await;
    let made = made.with_context(|| format!("cannot back up {}", from.display()))?;
    let report = sound_unless(&mut interrupts, made.path().to_owned(), arguments.json).await?;
    if report.faults > 0 {
        let words = anyhow!(
            "the ledger {} has {}; no backup was made, and an older one is as it was",
            from.display(),
            counted(report.faults, "fault")
        );
        return Err(words.into());
    }
    let bytes = made.keep(arguments.force).with_context(|| format!("cannot back up {}", from.display()))?;
    let Checked { tables, head, cursor, newest, .. } = report;
    let (rows, seconds, to) = (rows(&tables), began.elapsed().as_secs_f64(), arguments.file.display());
    if arguments.json {
        json(&json!({
            "from": from, "file": arguments.file, "rows": rows, "tables": by_name(&tables), "head": head, "cursor": cursor,
            "newest": newest, "bytes": bytes, "seconds": seconds,
        }))?;
    } else {
        line(format_args!(
            "{to}: {} in {bytes} bytes, the log ends at {head}, published through {cursor}; copied and checked in {seconds:.1} s",
            counted(rows, "row")
        ))?;
    }
    Ok(Exit::Done)
}

/// The copy, unless somebody interrupts it: then nothing of it is left.
async fn made(interrupts: &mut Signal, from: &Path, to: &Path, force: bool) -> Result<Made, anyhow::Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let work = {
        let (from, to, stop) = (from.to_owned(), to.to_owned(), stop.clone());
        tokio::task::spawn_blocking(move || {
            sqlite::back_up(&from, &to, force, &stop, progress("pages copied"))
        })
    };
    tokio::pin!(work);
    let done = tokio::select! {
        done = &mut work => done,
        _ = interrupts.recv() => {
            stop.store(true, Ordering::Relaxed);
            // It may be whole all the same.
            work.await.map(|copied| copied.and(Err(BackupError::Interrupted)))
        }
    };
    Ok(done.context("the copy ended")??)
}

pub(super) async fn restore(arguments: &RestoreArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let path = file(loaded, "restore")?;
    let backup = &arguments.file;
    let mut log = backup.as_os_str().to_owned();
    log.push("-wal");
    if std::fs::metadata(PathBuf::from(log)).is_ok_and(|log| log.len() > 0) {
        let error = BackupError::InUse(backup.clone());
        return Err(anyhow::Error::new(error)
            .context("cannot restore: there is a -wal file beside it")
            .into());
    }
    let report = sound(backup, arguments.json).await?;
    if report.faults > 0 {
        let words =
            format!("{} has {}; nothing was changed", backup.display(), counted(report.faults, "fault"));
        return Err(anyhow!(words).into());
    }
    let pending = match arguments.pending {
        Then::Park => Pending::Park,
        Then::Publish => Pending::Publish,
    };
    let cannot = || format!("cannot restore {}; nothing was changed", path.display());
    let restoring = sqlite::prepare(backup, &path, pending, &arguments.reason.by()).with_context(cannot)?;
    let (waiting, as_of) = (restoring.pending.clone(), restoring.as_of);
    let now = Timestamp::now();
    let aside = if arguments.dry_run {
        None
    } else {
        // The parked commands are in it by now.
        if sound(restoring.file(), arguments.json).await?.faults > 0 {
            return Err(anyhow!(cannot()).into());
        }
        restoring
            .put()
            .with_context(|| format!("cannot restore {}; start the same command again", path.display()))?
    };
    let word = match pending {
        Pending::Park => "parked",
        Pending::Publish => "to be published",
    };
    if arguments.json {
        let commands: Vec<Value> = waiting
            .iter()
            .map(|waiting| {
                json!({ "command_id": waiting.command_id, "seq": waiting.seq, "received_at": waiting.received_at,
                    "user_id": waiting.user_id, "instance_id": waiting.instance_id, "task_id": waiting.task_id })
            })
            .collect();
        json(&json!({
            "ledger": path, "from": backup, "restored": !arguments.dry_run, "aside": aside, "head": report.head,
            "cursor": report.cursor, "missing_since": as_of, "missing_until": now, "pending": word, "commands": commands,
        }))?;
        return Ok(Exit::Done);
    }
    for Waiting { seq, command_id, received_at, user_id, instance_id, task_id } in &waiting {
        let about: Vec<String> = [("instance", instance_id), ("task", task_id)]
            .into_iter()
            .filter_map(|(name, value)| Some(format!(", {name} {}", value.as_ref()?)))
            .collect();
        line(format_args!(
            "{command_id} {word}: seq {seq}, {received_at}, user {user_id}{}",
            about.concat()
        ))?;
    }
    let did = if arguments.dry_run { "would be restored" } else { "restored" };
    line(format_args!(
        "{} {did} from {}: the log ends at {}, published through {}, {} {word}",
        path.display(),
        backup.display(),
        report.head,
        report.cursor,
        counted(waiting.len() as u64, "command")
    ))?;
    line(format_args!("decisions that were accepted from {as_of} to {now} are missing"))?;
    if !arguments.dry_run {
        say_lines(&next(aside.as_deref(), as_of));
    }
    Ok(Exit::Done)
}

/// How to find what is missing.
fn next(aside: Option<&Path>, as_of: Timestamp) -> String {
    let mut words = String::new();
    if let Some(aside) = aside {
        words = format!(
            "next: the old ledger is {0}. If it can be read, it names what is missing:\n\
             next:   countersign --set ledger.url=sqlite:{0} ledger list --since {as_of}\n",
            crate::telemetry::taming::Tamed(aside.display())
        );
    }
    words
        + "next: otherwise look for \"callback kept\" since then in the log of the service\n\
           next: start the service, and look at what is parked: countersign ledger list --state parked\n\
           next: what was not carried out: countersign ledger requeue COMMAND_ID; countersign reconcile tells what is visible"
}
