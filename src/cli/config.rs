//! `config check`, `config show`, `config defaults`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    exit::{Exit, Failure},
    output::{counted, json, line, lines, say},
};
use crate::config::{Fault, Faults, Loaded, NEEDS_RESTART, Origin, REFERENCE, Warning};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  countersign config defaults    every key, explained
  countersign config check       every fault
  countersign config show        what is in force")]
pub(super) enum ConfigCommand {
    /// Check the configuration: every fault and warning, with key and origin
    ///
    /// Faults and warnings go to stderr, one a line. Exits with 64 if there is a fault.
    Check(CheckArguments),
    /// Show the configuration in force, secrets redacted
    Show(ShowArguments),
    /// Print every key with its meaning, limits and default
    #[command(after_help = "\
Examples:
  countersign config defaults | less
  countersign config defaults | grep -A 8 dedupe_window")]
    Defaults,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign config check
  countersign config check --config new.toml
  countersign config check --json | jq .faults")]
pub(super) struct CheckArguments {
    /// Print one JSON object instead of text, faults included
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign config show
  countersign config show --origins          also the file, the variable or the flag of each value
  countersign config show --json | jq .http")]
pub(super) struct ShowArguments {
    /// Also show where each value was set
    #[arg(long)]
    origins: bool,
    /// Print JSON instead of TOML; with --origins, an object with `values` and `origins`
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: ConfigCommand, load: impl FnOnce() -> Loaded) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check(arguments) => check(&arguments, &load()),
        ConfigCommand::Show(arguments) => show(&arguments, &load()),
        ConfigCommand::Defaults => {
            lines(REFERENCE)?;
            Ok(Exit::Done)
        }
    }
}

fn check(arguments: &CheckArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let file = loaded.file.as_ref().map(|file| file.display().to_string());
    let config = loaded.config();
    let is_sound = config.is_ok() && loaded.lapsed().is_empty();
    if arguments.json {
        let endpoints: Vec<_> = config
            .iter()
            .flat_map(|config| &config.intake.endpoints)
            .map(|endpoint| &endpoint.name)
            .collect();
        json(&json!({
            "ok": is_sound,
            "file": file,
            "endpoints": endpoints,
            "warnings": loaded.warnings.iter().map(of_warning).collect::<Vec<_>>(),
            "faults": loaded.faults().iter().chain(loaded.lapsed()).map(of_fault).collect::<Vec<_>>(),
        }))?;
        return Ok(if is_sound { Exit::Done } else { Exit::Usage });
    }
    for warning in &loaded.warnings {
        say(format_args!("warning: {warning}"));
    }
    if !is_sound {
        return Err(Faults(loaded.faults().iter().chain(loaded.lapsed()).cloned().collect()).into());
    }
    let config = config?;
    line(format_args!("configuration  {}", file.as_deref().unwrap_or("no file; environment and defaults")))?;
    line(format_args!("callbacks      {}", config.http.listen))?;
    line(format_args!("internal       {}", config.admin.listen))?;
    line(format_args!("ledger         {}", config.ledger.location))?;
    for endpoint in &config.intake.endpoints {
        let encrypted =
            endpoint.credentials.iter().any(|credential| credential.action_callback_key.is_some());
        let credentials = counted(endpoint.credentials.len() as u64, "credential");
        line(format_args!(
            "endpoint       POST /callbacks/{}  {}, {credentials}",
            endpoint.name,
            if encrypted { "encrypted" } else { "plain" },
        ))?;
    }
    line(format_args!("reload         SIGHUP takes every key but {}", NEEDS_RESTART.join(", ")))?;
    line(match loaded.warnings.len() {
        0 => "ok".to_owned(),
        count => format!("ok, {}", counted(count as u64, "warning")),
    })?;
    Ok(Exit::Done)
}

fn of_fault(fault: &Fault) -> serde_json::Value {
    json!({
        "key": fault.key,
        "problem": fault.problem,
        "expected": fault.expected,
        "origin": fault.origin.as_ref().map(Origin::to_string),
    })
}

fn of_warning(warning: &Warning) -> serde_json::Value {
    json!({
        "key": warning.key,
        "problem": warning.problem,
        "origin": warning.origin.as_ref().map(Origin::to_string),
    })
}

fn show(arguments: &ShowArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    loaded.config()?;
    let effective = &loaded.effective;
    match (arguments.json, arguments.origins) {
        (false, origins) => lines(&effective.to_toml(origins))?,
        (true, false) => json(&effective.to_json())?,
        (true, true) => json(&json!({ "values": effective.to_json(), "origins": effective.origins() }))?,
    }
    Ok(Exit::Done)
}
