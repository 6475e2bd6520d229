//! The ledger: whether it is writable, sound and has space, what is waiting, and recent refusals.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use super::Results;
use crate::{
    cli::{exit::Failure, output::counted},
    config::Loaded,
    intake::Refusal,
    ledger::{
        Settings, Stats,
        sqlite::{self, Reader, RefusedLately, Soundness},
    },
    telemetry::log::chain,
    time::Timestamp,
};

/// Fresh commands reach the broker within a second; older ones are waiting for something.
const OLD: Duration = Duration::from_secs(60);

/// People notice a decision that waits this long.
const TOO_OLD: Duration = Duration::from_secs(15 * 60);

/// A gigabyte of cached pages takes a second; a slow disk about ten.
const QUICK_CHECK: Duration = Duration::from_secs(10);

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn look(results: &mut Results, loaded: &Loaded) -> Result<(), Failure> {
    let Ok(settings) = loaded.ledger() else {
        return results.skipped("ledger", "its configuration is wrong");
    };
    let path = settings.path.as_path();
    let shown = path.display();
    if !path.exists() {
        return missing(results, settings);
    }
    owners(results, path)?;
    // Opening in append mode changes nothing, but reveals a read-only file, disk or wrong owner.
    if let Err(error) = OpenOptions::new().append(true).open(path) {
        let words =
            format!("{shown} cannot be written: {error}; every callback is refused as ledger_unavailable");
        return results.wrong("ledger", format!("{words}. Fix owner, mode or mount"));
    }
    let opened = Reader::open(path).map_err(|error| chain(&error)).and_then(|reader| match reader.stats() {
        Ok(stats) => Ok((stats, reader)),
        Err(error) => Err(format!("cannot be read: {}; {RESTORE}", chain(&error))),
    });
    let (stats, reader) = match opened {
        Ok(opened) => opened,
        Err(problem) => {
            return results.wrong("ledger", format!("{shown}: {problem}"));
        }
    };
    results.ok("ledger", format!("{shown}: {} published, {} pending", stats.published, stats.pending))?;
    pages(results, &reader, path)?;
    room(results, settings, stats.free_bytes)?;
    waiting(results, &stats)?;
    refused(results, settings, &reader)
}

const RESTORE: &str = "stop serve, restore the ledger from a backup, or move it away and accept the loss";

fn missing(results: &mut Results, settings: &Settings) -> Result<(), Failure> {
    let path = settings.path.as_path();
    let (shown, directory) = (path.display(), directory(path));
    if !directory.is_dir() {
        let words = format!("the directory of {shown} does not exist; create it, writable for the service");
        return results.wrong("ledger", words);
    }
    match can_be_filled(directory) {
        Ok(()) => {
            results.ok("ledger", format!("{shown} does not exist yet; serve creates it"))?;
            room(results, settings, sqlite::free_bytes(path))
        }
        Err(error) => {
            let words = format!("{shown} does not exist yet and cannot be created: {error}");
            results.wrong("ledger", format!("{words}. Fix owner, mode or mount of its directory"))
        }
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// Whether files can be created in a directory. The probe file is removed at once.
fn can_be_filled(directory: &Path) -> io::Result<()> {
    let probe = directory.join(format!(".countersign-doctor-{}", process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    fs::remove_file(probe)
}

/// The ledger and its companion files that exist.
fn files(path: &Path) -> impl Iterator<Item = PathBuf> {
    ["", "-wal", "-shm", ".lock"].into_iter().map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}

/// Root can write everywhere, so when run as root, a write attempt does not show whether the service can.
fn owners(results: &mut Results, path: &Path) -> Result<(), Failure> {
    let Ok(owner) = fs::metadata(directory(path)).map(|found| found.uid()) else { return Ok(()) };
    for file in files(path) {
        let Ok(found) = fs::metadata(&file).map(|found| found.uid()) else { continue };
        if found != owner && owner != 0 {
            let words = format!(
                "{} belongs to the user with the id {found}, and its directory to {owner}: the service cannot write it, if it \
                 runs as the owner of the directory. chown --reference={} {}",
                file.display(),
                quoted(directory(path)),
                quoted(&file)
            );
            results.wrong("ledger", words)?;
        }
    }
    Ok(())
}

fn quoted(path: &Path) -> String {
    super::shell(&path.display().to_string())
}

fn pages(results: &mut Results, reader: &Reader, path: &Path) -> Result<(), Failure> {
    let seconds = QUICK_CHECK.as_secs();
    match reader.quick_check(QUICK_CHECK) {
        Ok(Soundness::Sound) => results.ok("ledger pages", "sound (PRAGMA quick_check)"),
        Ok(Soundness::Damaged(faults)) => {
            let words = format!("{} is damaged: {}", path.display(), faults.join("; "));
            results.wrong("ledger pages", format!("{words}. Look at the disk; {RESTORE}"))
        }
        Ok(Soundness::Unfinished) => {
            let by_hand = format!("sqlite3 {} 'PRAGMA quick_check'", quoted(path));
            results
                .skipped("ledger pages", format!("not all looked at within {seconds} s; by hand: {by_hand}"))
        }
        Err(error) => {
            results.wrong("ledger pages", format!("{} cannot be read: {}", path.display(), chain(&error)))
        }
    }
}

fn room(results: &mut Results, settings: &Settings, free_bytes: Option<u64>) -> Result<(), Failure> {
    let Some(free) = free_bytes else {
        return results.skipped("disk", "its file system does not report free space");
    };
    let least = settings.limits.min_free_bytes;
    let words = format!("{} left for the ledger; below {} callbacks are refused", mib(free), mib(least));
    let advice = "make room, or move the ledger to a larger disk; `countersign ledger prune --older-than 30d` frees pages, not the file";
    match free {
        free if free < least => results.wrong("disk", format!("{words}: now. {advice}")),
        free if free < least.saturating_mul(2) => results.risky("disk", format!("{words}; {advice}")),
        _ => results.ok("disk", words),
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Reports what is pending or parked.
fn waiting(results: &mut Results, stats: &Stats) -> Result<(), Failure> {
    if let Some(age) = stats.oldest_pending_at.map(|at| Timestamp::now().since(at)).filter(|age| *age > OLD) {
        let words = format!(
            "{} pending, the oldest for {} s; is serve running, and the broker there? `countersign ledger list \
             --state pending` says why each waits",
            counted(stats.pending, "command"),
            age.as_secs()
        );
        if age > TOO_OLD { results.wrong("pending", words) } else { results.risky("pending", words) }?;
    }
    if stats.parked > 0 {
        let words = format!(
            "{} parked, and no worker gets them: `countersign ledger list --state parked` says why; fix that, \
             then `countersign ledger requeue --all-parked`",
            counted(stats.parked, "command")
        );
        results.wrong("parked commands", words)?;
    }
    if stats.outcomes_parked > 0 {
        let words = format!(
            "{} outcomes were rejected by the approval center, and its cards or lists do not show them: `countersign \
             ledger show COMMAND` says why; fix that, then `countersign ledger show-again --all-parked`",
            stats.outcomes_parked
        );
        results.wrong("parked outcomes", words)?;
    }
    Ok(())
}

fn refused(results: &mut Results, settings: &Settings, reader: &Reader) -> Result<(), Failure> {
    let found = match reader.refused_since(Timestamp::now() - DAY) {
        Ok(found) => found,
        Err(error) => return results.skipped("refusals", format!("cannot be read: {}", chain(&error))),
    };
    if found.is_empty() {
        return match settings.limits.refusals_kept {
            0 => results.skipped("refusals", "ledger.refusals_kept is 0: none is kept"),
            _ => results.ok("refusals", "none within 24 h"),
        };
    }
    for RefusedLately { reason, count, refused_at, endpoint, detail, user_id, instance_id, task_id } in found
    {
        let about: Vec<String> = [("user", user_id), ("instance", instance_id), ("task", task_id)]
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name} {}", value?)))
            .collect();
        let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
        let words = format!(
            "{count} within 24 h, the newest at {} for {endpoint}{about}: {}",
            results.at(refused_at),
            detail.as_deref().unwrap_or("no more is known")
        );
        let advice = reason.parse().map_or("See the documentation of the reason.", Refusal::advice);
        results.risky(
            &format!("refusals, {reason}"),
            format!("{words}. {advice} See `countersign refusals --reason {reason}`"),
        )?;
    }
    Ok(())
}
