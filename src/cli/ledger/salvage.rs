//! `ledger salvage` and `ledger import`: out of a damaged file, and into a new ledger.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::check::{Faults, by_name, progress, rows};
use crate::{
    cli::{
        actor::ReasonArguments,
        exit::{Exit, Failure},
        output::{counted, document, json, line, say},
    },
    config::Loaded,
    ledger::{
        check::{self, Fault},
        dump::{self, Imported},
        sqlite::{self, Salvaged},
    },
};

pub(super) const EXAMPLES: &str = "\
Examples:
  countersign ledger salvage aside/countersign.db --output countersign.jsonl
  countersign ledger import countersign.jsonl

Stop the service and move the ledger's files aside first. What is not certainly published and not certainly pending is parked.";

/// Ranges that are printed one by one.
const SHOWN: usize = 50;

#[derive(Debug, Args)]
pub(in crate::cli) struct SalvageArguments {
    /// The damaged file. Its -wal file must be beside it, if there is one
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The file to write [default: standard output]
    #[arg(long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Replace OUT if it exists
    #[arg(long, requires = "output")]
    force: bool,
    #[command(flatten)]
    reason: ReasonArguments,
    /// Print the summary as JSON
    #[arg(long, requires = "output")]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArguments {
    /// What `ledger salvage` has written
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) fn salvage(arguments: &SalvageArguments) -> Result<Exit, Failure> {
    let began = Instant::now();
    let id = std::process::id();
    let scratch = match &arguments.output {
        Some(output) => beside(output, &format!(".scratch-{id}")),
        None => std::env::temp_dir().join(format!("countersign-salvage-{id}.db")),
    };
    if let Some(output) = arguments.output.as_ref().filter(|output| !arguments.force && output.exists()) {
        let words = anyhow::anyhow!("{} exists already; --force replaces it", output.display());
        return Err(words.into());
    }
    if let Some(output) = &arguments.output {
        not_a_ledger(output, &arguments.file)?;
    }
    let salvaged = sqlite::salvage(&arguments.file, scratch, &arguments.reason.by(), progress("pages read"));
    let salvaged =
        salvaged.with_context(|| format!("nothing was salvaged from {}", arguments.file.display()))?;
    let tables = match &arguments.output {
        Some(output) => {
            to_file(&salvaged, output).with_context(|| format!("cannot write {}", output.display()))?
        }
        None => match dump::write(&salvaged, &mut document()) {
            Err(dump::Error::File(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Err(Failure::Said(Exit::Failed));
            }
            written => written.context("cannot write to stdout")?,
        },
    };
    let is_whole =
        salvaged.lost.is_empty() && salvaged.bad_pages.is_empty() && salvaged.unreadable.is_empty();
    if arguments.json {
        summary(&salvaged, &tables, arguments, began.elapsed().as_secs_f64())?;
    } else {
        tell(&salvaged, arguments);
        let words = format!(
            "{} of {} salvaged in {:.1} s",
            counted(rows(&tables), "row"),
            arguments.file.display(),
            began.elapsed().as_secs_f64()
        );
        if arguments.output.is_some() { line(words)? } else { say(words) }
    }
    Ok(if is_whole && !salvaged.log_is_cut { Exit::Done } else { Exit::Failed })
}

/// Refuses to write over what is to be read, whatever it is called there, and over any other database.
fn not_a_ledger(output: &Path, file: &Path) -> Result<(), Failure> {
    let refused =
        |what: &str| Err(anyhow::anyhow!("OUT is {what}: {}; name another file", output.display()).into());
    for suffix in ["", "-wal", "-shm", "-journal", ".lock"] {
        let one = beside(file, suffix);
        let found = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        let resolved = |path: &Path| {
            let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
            Some(fs::canonicalize(directory).ok()?.join(path.file_name()?))
        };
        let is_same = found(output).is_some_and(|output| found(&one) == Some(output));
        if is_same || resolved(output).is_some_and(|output| resolved(&one) == Some(output)) {
            return refused("a file of the ledger that is read");
        }
    }
    let mut head = [0; 16];
    let is_database = File::open(output).and_then(|mut found| found.read_exact(&mut head)).is_ok()
        && &head == b"SQLite format 3\0";
    if is_database { refused("a database") } else { Ok(()) }
}

/// Writes to another name first, so that OUT is whole or not there.
fn to_file(salvaged: &Salvaged, output: &Path) -> Result<dump::Tables, dump::Error> {
    let part = beside(output, &format!(".part-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
    let file = file.map_err(dump::Error::File)?;
    let written = write(salvaged, file).and_then(|tables| {
        named(&part, output).map_err(dump::Error::File)?;
        Ok(tables)
    });
    if written.is_err() {
        fs::remove_file(&part).ok();
    }
    written
}

fn write(salvaged: &Salvaged, file: File) -> Result<dump::Tables, dump::Error> {
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let tables = dump::write(salvaged, &mut file)?;
    file.flush().and_then(|()| file.get_ref().sync_all()).map_err(dump::Error::File)?;
    Ok(tables)
}

fn named(part: &Path, output: &Path) -> io::Result<()> {
    fs::rename(part, output)?;
    let directory = output.parent().filter(|parent| *parent != Path::new(""));
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn tell(salvaged: &Salvaged, arguments: &SalvageArguments) {
    for (page, of) in salvaged.bad_pages.iter().take(SHOWN) {
        say(format_args!("page {page} of {of} is damaged"));
    }
    for (of, rows) in &salvaged.unreadable {
        say(format_args!("{} of {of} cannot be read", counted(*rows, "row")));
    }
    for (first, last) in salvaged.lost.iter().take(SHOWN) {
        say(format_args!("lost: commands {first} to {last}"));
    }
    for (seq, id) in salvaged.lost_ids.iter().take(SHOWN) {
        say(format_args!("lost: command {seq} is {id}"));
    }
    let more = salvaged.lost.len().max(salvaged.lost_ids.len()).max(salvaged.bad_pages.len());
    if more > SHOWN {
        say(format_args!("and more; --json tells all"));
    }
    if salvaged.log_is_cut {
        say(format_args!(
            "the write-ahead log of {} is damaged or cut; what was committed after that is not known, nor whether it was published",
            arguments.file.display()
        ));
    }
    if !salvaged.cursor_is_known {
        say("how far publishing had come is not known");
    }
    if salvaged.unknown > 0 {
        say(format_args!(
            "{} parked, since it is not known whether they were published",
            counted(salvaged.unknown, "command")
        ));
    }
}

fn summary(
    salvaged: &Salvaged,
    tables: &dump::Tables,
    arguments: &SalvageArguments,
    seconds: f64,
) -> Result<(), Failure> {
    let pages: Vec<Value> =
        salvaged.bad_pages.iter().map(|(page, of)| json!({ "page": page, "of": of })).collect();
    let ids: Vec<Value> = salvaged
        .lost_ids
        .iter()
        .map(|(seq, id)| json!({ "seq": seq, "command_id": id.to_string() }))
        .collect();
    json(&json!({
        "file": arguments.file, "output": arguments.output, "rows": rows(tables), "tables": by_name(tables),
        "bad_pages": pages, "unreadable": salvaged.unreadable, "lost": salvaged.lost, "lost_commands": ids,
        "parked": salvaged.unknown, "cursor_known": salvaged.cursor_is_known, "log_cut": salvaged.log_is_cut,
        "head": salvaged.head, "seconds": seconds,
    }))
}

pub(super) async fn import(arguments: &ImportArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let began = Instant::now();
    let location = &loaded.ledger()?.location;
    let done = dump::import(&arguments.file, location, progress("rows imported")).await;
    let Imported { tables, left_out, lost, head, cursor } = done.map_err(|error| {
        let became = match &error {
            dump::Error::Commit(_) => "whether it is there now is not known; countersign ledger stats tells",
            _ => "nothing was changed",
        };
        let words = format!("cannot import {} into {location}; {became}", arguments.file.display());
        anyhow::Error::new(error).context(words)
    })?;
    let mut faults = Faults::new(arguments.json);
    let mut shown = progress("rows looked at");
    let looked = {
        let mut tell = |fault: &Fault| faults.tell(fault);
        check::check(location, &mut tell, &mut |rows| shown(rows, 0)).await
    };
    let report = looked.context("everything was imported, but cannot be looked at")?;
    faults.end()?;
    let (count, seconds) = (rows(&tables), began.elapsed().as_secs_f64());
    if arguments.json {
        json(&json!({
            "file": arguments.file, "ledger": location.to_string(), "rows": count, "tables": by_name(&tables),
            "left_out": left_out, "lost": lost, "head": head, "cursor": cursor, "faults": report.faults, "seconds": seconds,
        }))?;
    } else {
        line(format_args!(
            "{} imported into {location} in {seconds:.1} s, {} left out with {}: {}",
            counted(count, "row"),
            counted(left_out, "row"),
            counted(lost, "lost command"),
            if report.faults == 0 { "sound".to_owned() } else { counted(report.faults, "fault") }
        ))?;
        say(
            "next: countersign ledger list --state parked says which commands wait for you; then start the service",
        );
    }
    Ok(if report.faults == 0 { Exit::Done } else { Exit::Failed })
}
