//! `ledger copy`: from SQLite to PostgreSQL.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        exit::{Exit, Failure},
        output::{counted, is_heard, json, line, say},
    },
    config::{Loaded, ledger_location, read_secret},
    ledger::{
        Location,
        copy::{self, Copied, Error, Preview},
        postgres::Options,
    },
    secret::Secret,
};

pub(super) const EXAMPLES: &str = "\
Examples, where ledger.url is the SQLite file:
  countersign ledger copy --to postgres://countersign@db1/approvals --dry-run
  countersign ledger copy --to-file /etc/countersign/postgres.url

Examples, where ledger.url is the database already:
  countersign ledger copy --from sqlite:/var/lib/countersign/countersign.db

Before: stop the service, and let what is pending be published (docs/operations.md#move).
Afterwards: set ledger.url to the database, and start the replicas. The file stays as it is; a note
beside it, FILE.moved, keeps `countersign serve` off it.";

#[derive(Debug, Args)]
pub(in crate::cli) struct CopyArguments {
    /// The ledger to copy, such as sqlite:/var/lib/countersign/countersign.db [default: ledger.url, if that is SQLite]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// The database to copy it to, such as postgres://user@host/database [default: ledger.url, if that is PostgreSQL]. A
    /// password does not belong on a command line: --to-file, or ledger.password_file
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// The file with the URL of that database
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    to_file: Option<PathBuf>,
    /// Remove what an earlier copy that was interrupted has brought, and copy all again
    #[arg(long)]
    restart: bool,
    /// Only tell what would be copied, and whether something is in the way
    #[arg(long, conflicts_with = "restart")]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn copy(arguments: &CopyArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let (from, to) = (source(arguments, loaded)?, target(arguments, loaded)?);
    let ends = || format!("{} to {}", from.display(), to.address);
    if arguments.dry_run {
        let found = copy::preview(&from, &to).await;
        let Preview { tables, there } = found.with_context(|| format!("would not copy {}", ends()))?;
        let rows: u64 = tables.iter().map(|(_, rows)| rows).sum();
        if arguments.json {
            json(
                &json!({ "from": from, "to": to.address.to_string(), "tables": by_name(&tables), "rows": rows, "there": there }),
            )?;
        } else {
            told(&tables)?;
            let rest =
                if there == 0 { String::new() } else { format!("; {there} of them are there already") };
            line(format_args!("{} would be copied from {}{rest}", counted(rows, "row"), ends()))?;
        }
        return Ok(Exit::Done);
    }
    let began = Instant::now();
    let mut last = None;
    let mut shown = Instant::now();
    let terminal = is_heard();
    let work = copy::copy(&from, &to, arguments.restart, |rows, total| {
        last = Some(rows);
        if terminal && shown.elapsed() >= Duration::from_secs(1) {
            shown = Instant::now();
            say(format_args!("{rows} of {total} rows copied"));
        }
    });
    let done = tokio::select! {
        done = work => done.map_err(anyhow::Error::new),
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    let Copied { tables, there, before } = match done {
        Ok(copied) => copied,
        Err(error) => {
            if let Some(rows) = last.filter(|_| !is_final(&error)) {
                say(format_args!("{rows} rows are there; the same command goes on where it stopped"));
            }
            return Err(error.context(format!("cannot copy {}", ends())).into());
        }
    };
    let rows: u64 = tables.iter().map(|(_, rows)| rows).sum();
    if arguments.json {
        json(&json!({
            "from": from, "to": to.address.to_string(), "tables": by_name(&tables), "rows": rows, "there": there,
            "copied_before": before, "seconds": began.elapsed().as_secs_f64(),
        }))?;
    } else if let Some(before) = before {
        line(format_args!("{} was copied at {before} already", from.display()))?;
    } else {
        told(&tables)?;
        line(format_args!(
            "{} copied from {} in {:.1} s",
            counted(rows - there, "row"),
            ends(),
            began.elapsed().as_secs_f64()
        ))?;
    }
    next(&from, &to, loaded);
    Ok(Exit::Done)
}

/// True if the same command would fail again.
fn is_final(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Missing { .. } | Error::Read { .. }))
}

/// What is left to do.
fn next(from: &std::path::Path, to: &Options, loaded: &Loaded) {
    let is_set = matches!(
        loaded.ledger().map(|settings| &settings.location),
        Ok(Location::Postgres(set)) if set.address.to_string() == to.address.to_string()
    );
    if !is_set {
        say(format_args!("next: set ledger.url to {} with its user, and ledger.password_file", to.address));
    }
    say(format_args!(
        "next: start the replicas, and keep {} until you have seen them work; no `countersign serve` uses it any more",
        from.display()
    ));
}

fn told(tables: &[(&'static str, u64)]) -> Result<(), Failure> {
    tables
        .iter()
        .filter(|(_, rows)| *rows > 0)
        .try_for_each(|(table, rows)| line(format_args!("{rows:>10}  {table}")))
}

fn by_name(tables: &[(&'static str, u64)]) -> Map<String, Value> {
    tables.iter().map(|(table, rows)| ((*table).to_owned(), json!(rows))).collect()
}

/// A URL of the command line.
fn location(flag: &str, url: &Secret) -> Result<Location, Failure> {
    ledger_location(url).map_err(|problem| Failure::Usage(format!("{flag}: {problem}")))
}

fn source(arguments: &CopyArguments, loaded: &Loaded) -> Result<PathBuf, Failure> {
    let named = match &arguments.from {
        Some(url) => location("--from", &Secret::new(url.as_str()))?,
        None => loaded.ledger()?.location.clone(),
    };
    match named {
        Location::Sqlite(path) => Ok(path),
        Location::Postgres(_) if arguments.from.is_some() => {
            Err(Failure::Usage("--from: only a SQLite ledger can be copied, sqlite:PATH".to_owned()))
        }
        Location::Postgres(_) => Err(Failure::Usage(
            "ledger.url is PostgreSQL; name the SQLite file with --from sqlite:PATH".to_owned(),
        )),
    }
}

fn target(arguments: &CopyArguments, loaded: &Loaded) -> Result<Options, Failure> {
    let named = match (&arguments.to, &arguments.to_file) {
        (Some(url), _) => location("--to", &Secret::new(url.as_str()))?,
        (None, Some(file)) => {
            let url = read_secret(file);
            let url =
                url.map_err(|problem| Failure::Usage(format!("--to-file: {}: {problem}", file.display())))?;
            location("--to-file", &url)?
        }
        (None, None) => loaded.ledger()?.location.clone(),
    };
    match named {
        Location::Postgres(options) => {
            let on_command_line = arguments.to.is_some() && options.address.has_password();
            if on_command_line {
                say("warning: everybody on this machine can read the password in --to; --to-file FILE hides it");
            }
            if let Some(host) = options.address.unprotected() {
                say(format_args!(
                    "warning: {host} is another machine, and sslmode is {}: who can change packets on the way can read and \
                     forge decisions; use sslmode=verify-full",
                    options.address.ssl_mode.as_str()
                ));
            }
            Ok(options)
        }
        Location::Sqlite(_) if arguments.to.is_some() || arguments.to_file.is_some() => Err(Failure::Usage(
            "a ledger can be copied to PostgreSQL only, postgres://user@host/database; to move a SQLite file, move it".to_owned(),
        )),
        Location::Sqlite(_) => {
            Err(Failure::Usage("name the database to copy to with --to URL or --to-file FILE".to_owned()))
        }
    }
}
