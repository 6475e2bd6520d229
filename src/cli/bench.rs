//! `bench disk`: measures the ledger's disk, to size a machine.

use std::{
    cell::{Cell, RefCell},
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    block_on,
    credentials::random,
    exit::{Exit, Failure},
    output::{json, line, lines, say, table},
};
use crate::{
    command::{
        Action, Command as Kept, CommandId, Fingerprint, Origin, TaskRef, id::FingerprintParts, message,
    },
    config::Loaded,
    ledger::{
        Accept, Acceptance, Lifecycle, Limits, Location, OnConflict, Receipt, Sizing, sqlite::SqliteLedger,
    },
    time::Timestamp,
};

/// Context size of an ordinary approval: makes a message of about 800 bytes.
const CONTEXT_BYTES: usize = 240;
/// Callbacks waiting for the disk at the same time.
const WAITERS: [usize; 4] = [1, 16, 64, 256];
/// Data written per sync: one page of the ledger.
const PAGE: [u8; 4096] = [0x5a; 4096];
/// Longest time recorded exactly.
const LONGEST_US: u64 = 60_000_000;

const EXAMPLES: &str = "\
Examples:
  countersign bench disk                              the directory of ledger.url
  countersign bench disk --directory /mnt/other       another one
  countersign bench disk --json | jq .group_commit

Every decision is synced to this disk before its approver is answered. All that wait at the same
time share one sync: the rate grows with the number of approvers, and none waits less than one sync.
Writes some tens of MiB to a temporary directory next to the ledger, for some seconds. Do not run it
under load: it slows the service down.";

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  countersign bench disk")]
pub(super) enum BenchCommand {
    /// Measure what a sync costs in the ledger's directory, and how many decisions it keeps in a second
    Disk(DiskArguments),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DiskArguments {
    /// The directory to measure [default: that of ledger.url]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How long each of the five measurements takes
    #[arg(long, value_name = "DURATION", value_parser = super::values::duration, default_value = "2s")]
    each: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Measured {
    directory: PathBuf,
    /// Sequentially appending a page to a file and syncing it.
    sync: Times,
    /// Accepts through a ledger like that of `serve`.
    group_commit: Vec<GroupCommit>,
    /// Message size per accept.
    message_bytes: usize,
    /// Growth of the ledger's file per command.
    ledger_bytes_per_command: u64,
}

#[derive(Debug, Serialize)]
struct GroupCommit {
    /// Concurrent accepts.
    waiters: usize,
    #[serde(flatten)]
    times: Times,
}

#[derive(Debug, Serialize)]
struct Times {
    per_second: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
}

impl Times {
    fn of(times: &Histogram<u64>, took: Duration) -> Self {
        Self {
            per_second: (times.len() as f64 / took.as_secs_f64()).round() as u64,
            p50_us: times.value_at_quantile(0.5),
            p99_us: times.value_at_quantile(0.99),
            max_us: times.max(),
        }
    }
}

/// A directory that is removed on drop, with its content.
struct Scratch(PathBuf);

impl Scratch {
    fn make(beside: &Path) -> Result<Self, Failure> {
        let name = format!(".countersign-bench-{:016x}", u64::from_be_bytes(random()));
        let path = beside.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make a directory in {}", beside.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            say(format_args!("countersign: cannot remove {}: {error}", self.0.display()));
        }
    }
}

pub(super) fn run(command: BenchCommand, loaded: impl FnOnce() -> Loaded) -> Result<Exit, Failure> {
    let BenchCommand::Disk(arguments) = command;
    let directory = match &arguments.directory {
        Some(directory) => directory.clone(),
        None => {
            let loaded = loaded();
            let Location::Sqlite(path) = &loaded.ledger()?.location else {
                return Err(Failure::Usage(
                    "ledger.url is PostgreSQL, whose disk is another machine's; name a directory to measure one of this machine"
                        .to_owned(),
                ));
            };
            let parent = path.parent().map(Path::to_owned).unwrap_or_default();
            if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent }
        }
    };
    let measured = block_on(async {
        let scratch = Scratch::make(&directory)?;
        tokio::select! {
            measured = measure(&directory, &scratch.0, arguments.each) => measured,
            // The scratch directory is removed in any case.
            _ = tokio::signal::ctrl_c() => Err(Failure::Said(Exit::Failed)),
        }
    })?;
    if arguments.json {
        json(&measured)?;
    } else {
        tell(&measured)?;
    }
    Ok(Exit::Done)
}

async fn measure(directory: &Path, scratch: &Path, each: Duration) -> Result<Measured, Failure> {
    say(format_args!("measuring in {} for about {} s", directory.display(), (each * 5).as_secs()));
    let file = scratch.join("sync");
    let sync = tokio::task::spawn_blocking(move || syncs(&file, each)).await.context("cannot measure")??;
    let path = scratch.join("ledger.db");
    let sizing = Sizing { queue_capacity: 4096, max_batch: 256, limits: Limits::default() };
    let ledger = SqliteLedger::open(&path, &sizing).context("cannot open a ledger there")?;
    let accepted = Cell::new(0_u64);
    let mut group_commit = Vec::new();
    for waiters in WAITERS {
        group_commit.push(GroupCommit { waiters, times: accepts(&ledger, waiters, each, &accepted).await? });
    }
    ledger.flush().await;
    drop(ledger);
    let bytes = fs::metadata(&path).context("cannot look at the ledger")?.len();
    Ok(Measured {
        directory: directory.to_owned(),
        sync,
        group_commit,
        message_bytes: message::render(&decision(0)).len(),
        ledger_bytes_per_command: bytes / accepted.get().max(1),
    })
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("sound bounds")
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(LONGEST_US).max(1)
}

fn syncs(path: &Path, each: Duration) -> anyhow::Result<Times> {
    let mut file =
        OpenOptions::new().create_new(true).append(true).open(path).context("cannot make a file")?;
    let (mut times, began) = (histogram(), Instant::now());
    while began.elapsed() < each || times.is_empty() {
        let from = Instant::now();
        file.write_all(&PAGE).and_then(|()| file.sync_data()).context("cannot write and sync")?;
        times.saturating_record(micros(from));
    }
    Ok(Times::of(&times, began.elapsed()))
}

/// Keeps `waiters` accepts in flight for `each`.
async fn accepts(
    ledger: &SqliteLedger,
    waiters: usize,
    each: Duration,
    accepted: &Cell<u64>,
) -> anyhow::Result<Times> {
    let (times, began) = (RefCell::new(histogram()), Instant::now());
    let wait = async || {
        while began.elapsed() < each {
            let number = accepted.replace(accepted.get() + 1);
            let acceptance = acceptance(number);
            let from = Instant::now();
            let receipt = ledger.accept(acceptance).await.context("the ledger does not keep anything")?;
            anyhow::ensure!(matches!(receipt, Receipt::Accepted { .. }), "every decision is another");
            times.borrow_mut().saturating_record(micros(from));
        }
        Ok(())
    };
    join_all((0..waiters).map(|_| wait())).await.into_iter().collect::<anyhow::Result<()>>()?;
    Ok(Times::of(&times.into_inner(), began.elapsed()))
}

fn decision(number: u64) -> Kept {
    let received_at = Timestamp::now();
    Kept {
        command_id: CommandId::new(received_at),
        endpoint: "bench".into(),
        received_at,
        action: Action::Approve,
        action_type: "APPROVE".to_owned(),
        origin: Some(Origin::List),
        user_id: "bench-user".to_owned(),
        approval_code: Some("0F0E0D0C-1111-4222-8333-444455556666".to_owned()),
        task: TaskRef {
            instance_id: Some("bench-instance".to_owned()),
            task_id: Some(format!("bench-task-{number}")),
            ..TaskRef::default()
        },
        reason: Some("within the budget".to_owned()),
        attachments: Vec::new(),
        action_context: Some("c".repeat(CONTEXT_BYTES)),
        message_id: None,
        search_id: None,
        conflicts_with: None,
        repeats: None,
        extra: Vec::new(),
        trace: None,
    }
}

fn acceptance(number: u64) -> Acceptance {
    let command = decision(number);
    let fingerprint = Fingerprint::of(&FingerprintParts {
        endpoint: &command.endpoint,
        task_id: command.task.task_id.as_deref(),
        user_id: &command.user_id,
        action_type: &command.action_type,
        ..FingerprintParts::default()
    });
    Acceptance {
        since: Instant::now(),
        command,
        fingerprint,
        window: Duration::from_secs(60),
        repeats_window: Duration::from_secs(24 * 3600),
        on_conflict: OnConflict::Publish,
    }
}

fn tell(measured: &Measured) -> Result<(), Failure> {
    let ms = |us: u64| format!("{:.2}", us as f64 / 1e3);
    let sync = &measured.sync;
    line(format_args!(
        "one sync of 4 KiB: p50 {} ms, p99 {} ms, max {} ms; {} in a second, one after the other",
        ms(sync.p50_us),
        ms(sync.p99_us),
        ms(sync.max_us),
        sync.per_second
    ))?;
    line("")?;
    let rows: Vec<_> = measured
        .group_commit
        .iter()
        .map(|GroupCommit { waiters, times }| {
            [
                waiters.to_string(),
                times.per_second.to_string(),
                ms(times.p50_us),
                ms(times.p99_us),
                ms(times.max_us),
            ]
        })
        .collect();
    lines(&table(["WAITING AT ONCE", "KEPT PER SECOND", "P50 MS", "P99 MS", "MAX MS"], &rows))?;
    line("")?;
    line(format_args!(
        "each decision takes {} bytes of the ledger (a message of {} bytes): a million take {:.1} GB",
        measured.ledger_bytes_per_command,
        measured.message_bytes,
        measured.ledger_bytes_per_command as f64 / 1e3
    ))
}
