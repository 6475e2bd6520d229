//! A SQLite file: its owner, its pages and its disk.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use super::RESTORE;
use crate::{
    cli::{doctor::Results, exit::Failure},
    ledger::{
        Client, Sizing, Stats,
        sqlite::{Reader, Soundness, SqliteClient, free_bytes},
    },
    telemetry::log::chain,
};

/// A gigabyte of cached pages takes a second; a slow disk about ten.
const QUICK_CHECK: Duration = Duration::from_secs(10);

/// Opens the ledger, or says why not.
pub(super) fn open(
    results: &mut Results,
    path: &Path,
    sizing: &Sizing,
) -> Result<Option<Box<dyn Client>>, Failure> {
    let shown = path.display();
    if !path.exists() {
        return missing(results, path, sizing).map(|()| None);
    }
    owners(results, path)?;
    // Opening in append mode changes nothing, but reveals a read-only file, disk or wrong owner.
    if let Err(error) = OpenOptions::new().append(true).open(path) {
        let words =
            format!("{shown} cannot be written: {error}; every callback is refused as ledger_unavailable");
        results.wrong("ledger", format!("{words}. Fix owner, mode or mount"))?;
        return Ok(None);
    }
    match SqliteClient::open(path) {
        Ok(ledger) => Ok(Some(Box::new(ledger))),
        Err(error) => {
            results.wrong("ledger", format!("{shown}: {}", chain(&error)))?;
            Ok(None)
        }
    }
}

/// Looks at the file of a ledger that can be read.
pub(super) fn look(
    results: &mut Results,
    path: &Path,
    sizing: &Sizing,
    stats: &Stats,
) -> Result<(), Failure> {
    match Reader::open(path) {
        Ok(reader) => pages(results, &reader, path)?,
        Err(error) => results.wrong("ledger pages", chain(&error))?,
    }
    room(results, sizing, stats.free_bytes)
}

fn missing(results: &mut Results, path: &Path, sizing: &Sizing) -> Result<(), Failure> {
    let (shown, directory) = (path.display(), directory(path));
    if !directory.is_dir() {
        let words = format!("the directory of {shown} does not exist; create it, writable for the service");
        return results.wrong("ledger", words);
    }
    match can_be_filled(directory) {
        Ok(()) => {
            results.ok("ledger", format!("{shown} does not exist yet; serve creates it"))?;
            room(results, sizing, free_bytes(path))
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
    crate::cli::doctor::shell(&path.display().to_string())
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

fn room(results: &mut Results, sizing: &Sizing, free_bytes: Option<u64>) -> Result<(), Failure> {
    let Some(free) = free_bytes else {
        return results.skipped("disk", "its file system does not report free space");
    };
    let least = sizing.limits.min_free_bytes;
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
