//! `ledger check`: whether the ledger keeps its invariants.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        exit::{Exit, Failure},
        opened::named_by,
        output::{counted, is_heard, json, line, say},
    },
    config::Loaded,
    ledger::{
        Location,
        check::{self, Checked, Fault, Kind},
    },
};

/// Faults of one kind that are printed.
const SHOWN: u64 = 20;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign ledger check
  countersign ledger check /var/backups/countersign.db")]
pub(in crate::cli) struct CheckArguments {
    /// A backup to look at [default: the ledger of the configuration]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print one JSON object per fault, and one at the end
    #[arg(long)]
    json: bool,
}

/// Prints faults as they are found, but not a million of one kind.
pub(super) struct Faults {
    counts: BTreeMap<Kind, u64>,
    as_json: bool,
    failure: Option<Failure>,
}

impl Faults {
    pub(super) fn new(as_json: bool) -> Self {
        Self { counts: BTreeMap::new(), as_json, failure: None }
    }

    pub(super) fn tell(&mut self, fault: &Fault) {
        let count = self.counts.entry(fault.kind).or_default();
        *count += 1;
        if *count > SHOWN || self.failure.is_some() {
            return;
        }
        let Fault { kind, place, what } = fault;
        let word = kind.as_str();
        let told = if self.as_json {
            json(&json!({ "kind": word, "place": place, "what": what, "advice": kind.advice() }))
        } else {
            line(format_args!("{word}: {place}: {what}"))
        };
        self.failure = told.err();
    }

    /// Says what each kind means. An error if something could not be printed.
    pub(super) fn end(self) -> Result<(), Failure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        for (kind, count) in self.counts {
            let word = kind.as_str();
            if count > SHOWN {
                say(format_args!("{} more of {word}", count - SHOWN));
            }
            if !self.as_json {
                say(format_args!("{word}: {}", kind.advice()));
            }
        }
        Ok(())
    }
}

/// Tells once a second how far something is, if a person looks on.
pub(super) fn progress(done: &'static str) -> impl FnMut(u64, u64) + Send {
    let terminal = is_heard();
    let mut told = Instant::now();
    move |now, total| {
        if terminal && told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            let of = if total > 0 { format!(" of {total}") } else { String::new() };
            say(format_args!("{now}{of} {done}"));
        }
    }
}

pub(super) fn by_name(tables: &[(&'static str, u64)]) -> Map<String, Value> {
    tables.iter().map(|(table, rows)| ((*table).to_owned(), json!(rows))).collect()
}

pub(super) fn rows(tables: &[(&'static str, u64)]) -> u64 {
    tables.iter().map(|(_, rows)| rows).sum()
}

pub(super) async fn check(arguments: &CheckArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let began = Instant::now();
    let mut faults = Faults::new(arguments.json);
    let mut shown = progress("rows read");
    let (place, looked) = {
        let mut tell = |fault: &Fault| faults.tell(fault);
        let mut progress = |rows| shown(rows, 0);
        match &arguments.file {
            Some(file) => {
                let looked = at_file(file, &mut tell, &mut progress).await;
                (file.display().to_string(), looked.context("cannot look at the file"))
            }
            None => {
                let location = &loaded.ledger()?.location;
                let looked = check::check(location, &mut tell, &mut progress).await;
                (
                    location.to_string(),
                    looked.with_context(|| format!("cannot look at the ledger ({})", named_by(loaded))),
                )
            }
        }
    };
    let report = looked?;
    faults.end()?;
    tell(&report, &place, began.elapsed(), arguments.json)?;
    Ok(if report.faults == 0 { Exit::Done } else { Exit::Failed })
}

/// A file with a write-ahead log is a ledger, and any other a copy, which is left as it is.
async fn at_file(
    file: &std::path::Path,
    tell: &mut (dyn FnMut(&Fault) + Send),
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Checked, check::Error> {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    if std::fs::metadata(PathBuf::from(log)).is_ok_and(|log| log.len() > 0) {
        check::check(&Location::Sqlite(file.to_owned()), tell, progress).await
    } else {
        check::check_copy(file, tell, progress).await
    }
}

fn tell(report: &Checked, place: &str, took: Duration, as_json: bool) -> Result<(), Failure> {
    let Checked { faults, tables, head, cursor, pruned, newest } = report;
    if as_json {
        return json(&json!({
            "ledger": place, "faults": faults, "rows": rows(tables), "tables": by_name(tables), "head": head, "cursor": cursor,
            "pruned": pruned, "newest": newest, "seconds": took.as_secs_f64(),
        }));
    }
    let found = if *faults == 0 { "sound".to_owned() } else { counted(*faults, "fault") };
    line(format_args!(
        "{place}: {found}; {} in {:.1} s, the log ends at {head}, published through {cursor}",
        counted(rows(tables), "row"),
        took.as_secs_f64()
    ))
}
