//! `center`: manual calls of the approval center's APIs.

mod apply;
pub(super) mod check;
mod definition;
mod instances;
mod message;
mod sync;
mod tasks;
mod whoami;

use std::path::Path;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};

use super::{
    block_on,
    exit::{Exit, Failure},
    output::say,
};
use crate::{
    center::client::{Center, Error, Fault, Millis, UserIdType},
    config::Loaded,
    telemetry::log::chain,
    time::Zone,
};

const EXAMPLES: &str = "\
Examples:
  countersign center whoami                                are app_id and app_secret right?
  countersign center definition check 0F0E0D0C-…           does the definition point here?
  countersign center tasks --instance PO-77                what does the center show of PO-77?
  countersign center sync instance.json                    synchronise an instance

Needs [approval_center] in the configuration: app_id and app_secret, and base_url if it is not
Feishu's own (see `countersign config defaults`). Try it without a tenant: `countersign emulator`.

Exit codes: 0 done, 1 refused, or a check failed, 64 wrong usage or configuration, 69 the approval
center is unavailable.";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum CenterCommand {
    /// Get an access token and show the app; look up the ids of a user
    Whoami(whoami::Arguments),
    /// Show, check, create or change a definition
    #[command(subcommand)]
    Definition(definition::DefinitionCommand),
    /// List third-party tasks with their status
    Tasks(tasks::Arguments),
    /// Find instances
    Instances(instances::Arguments),
    /// Show a native instance with its form, tasks, comments and history
    Instance(instances::OneArguments),
    /// Synchronise instances from files
    Sync(sync::Arguments),
    /// Compare the versions of instances and tasks in files with those at the center
    CheckInstances(sync::CheckArguments),
    /// Send or update a card
    #[command(subcommand)]
    Message(message::MessageCommand),
}

/// Which kind of ids.
#[derive(Debug, Args)]
struct IdArguments {
    /// What names users: open_id, union_id or user_id
    #[arg(long, value_name = "KIND", default_value = "user_id", value_parser = id_type)]
    user_id_type: UserIdType,
}

fn id_type(text: &str) -> Result<UserIdType, String> {
    let kind = UserIdType::from(text);
    if kind.is_known() { Ok(kind) } else { Err("must be open_id, union_id or user_id".to_owned()) }
}

pub(super) fn run(command: CenterCommand, loaded: &Loaded) -> Result<Exit, Failure> {
    let Some(settings) = loaded.approval_center()? else {
        return Err(Failure::Usage(
            "approval_center.app_id is not configured; `countersign config defaults` explains the section"
                .to_owned(),
        ));
    };
    let center = Center::new(settings).map_err(failure)?;
    block_on(async {
        match command {
            CenterCommand::Whoami(arguments) => whoami::run(&arguments, &center).await,
            CenterCommand::Definition(command) => definition::run(command, &center, loaded).await,
            CenterCommand::Tasks(arguments) => tasks::run(&arguments, &center).await,
            CenterCommand::Instances(arguments) => instances::run(&arguments, &center).await,
            CenterCommand::Instance(arguments) => instances::show(&arguments, &center).await,
            CenterCommand::Sync(arguments) => sync::run(&arguments, &center).await,
            CenterCommand::CheckInstances(arguments) => sync::check(&arguments, &center).await,
            CenterCommand::Message(command) => message::run(command, &center).await,
        }
    })
}

/// The error, with advice on how to fix it.
pub(super) fn failure(error: Error) -> Failure {
    let mut words = chain(&error);
    if let Some(advice) = error.fault().and_then(Fault::advice) {
        words.push_str("; ");
        words.push_str(advice);
    }
    match error {
        Error::Request { .. } => Failure::Usage(words),
        error if error.is_away() => Failure::Unavailable(anyhow!(words)),
        _ => Failure::Failed(anyhow!(words)),
    }
}

/// Reads a file and strips the BOM; `-` is stdin.
fn read(path: &Path) -> Result<String, Failure> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin().lock())
    } else {
        std::fs::read_to_string(path)
    };
    let mut text = text.with_context(|| format!("cannot read {}", path.display()))?;
    // Windows editors prepend a BOM, which neither JSON nor TOML parsers accept.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

fn wrong(path: &Path, problem: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("{}: {problem}", path.display()))
}

/// Reads JSON: one value, a list, or several values in sequence.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, Failure> {
    let text = read(path)?;
    let mut all = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>() {
        let value = value.map_err(|error| wrong(path, format!("is not JSON: {error}")))?;
        let values = match value {
            serde_json::Value::Array(list) => list,
            one => vec![one],
        };
        for value in values {
            all.push(T::deserialize(value).map_err(|error| wrong(path, error))?);
        }
    }
    Ok(all)
}

/// A time for display; `-` if it is unset or out of calendar range.
fn when(time: Millis, zone: &Zone) -> String {
    time.timestamp().map_or_else(|| "-".to_owned(), |time| zone.show(time))
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// Reports on stderr how much of a long list has been read.
#[derive(Debug, Default)]
struct Progress {
    pages: u32,
    items: u64,
}

impl Progress {
    fn page(&mut self, items: usize, total: Option<u64>, more: bool) {
        self.pages += 1;
        self.items += items as u64;
        if self.pages > 1 || more {
            let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
            say(format_args!("page {}: {}{of}", self.pages, self.items));
        }
    }
}
