//! `ledger park|show-again|prune`: what an operator changes in the ledger.

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        actor::ReasonArguments,
        exit::{Exit, Failure},
        opened::client,
        output::{is_heard, json, line, say},
        values::{command_ref, duration},
    },
    command::{CommandId, id::CommandRef},
    config::Loaded,
    ledger::{ActError, Client, Limits, Sizing},
    telemetry::log::chain,
    time::Timestamp,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign ledger park 4711 --reason 'decided by phone'
  countersign ledger park 4711 4712 4713")]
pub(in crate::cli) struct ParkArguments {
    /// The commands, by command_id or by place in the log
    #[arg(value_name = "COMMAND_ID", value_parser = command_ref, required = true)]
    command_ids: Vec<CommandRef>,
    #[command(flatten)]
    reason: ReasonArguments,
    /// Print one JSON object per command
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign ledger show-again 4711
  countersign ledger show-again --all-parked --reason 'the app has its scope again'")]
pub(in crate::cli) struct ShowAgainArguments {
    /// The commands, by command_id or by place in the log
    #[arg(value_name = "COMMAND_ID", value_parser = command_ref, required_unless_present = "all_parked")]
    command_ids: Vec<CommandRef>,
    /// All whose outcome is parked
    #[arg(long, conflicts_with = "command_ids")]
    all_parked: bool,
    #[command(flatten)]
    reason: ReasonArguments,
    /// Print one JSON object per command
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign ledger prune --older-than 30d --dry-run
  countersign ledger prune --older-than 30d --reason 'the disk is full'")]
pub(in crate::cli) struct PruneArguments {
    /// Remove commands received longer ago than this, such as "30d" or "12h"; without it, ledger.retention
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
    /// Only count them
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    reason: ReasonArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn park(arguments: &ParkArguments, ledger: &dyn Client) -> Result<Exit, Failure> {
    let by = arguments.reason.by();
    let acts = each(&arguments.command_ids, ledger, |id| ledger.park(id, by.clone())).await;
    tell("parked", acts, arguments.json)
}

pub(super) async fn show_again(arguments: &ShowAgainArguments, ledger: &dyn Client) -> Result<Exit, Failure> {
    let by = arguments.reason.by();
    let acts = if arguments.all_parked {
        let ordered = ledger.show_parked_again(by).await.context("nothing is shown again")?;
        if ordered.is_empty() {
            say("no outcome is parked");
        }
        all_done(ordered)
    } else {
        each(&arguments.command_ids, ledger, |id| ledger.show_again(id, by.clone())).await
    };
    tell("to be shown again", acts, arguments.json)
}

pub(super) async fn prune(arguments: &PruneArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let Sizing { limits, .. } = &loaded.ledger()?.sizing;
    let limits = Limits { retention: arguments.older_than.or(limits.retention), ..limits.clone() };
    let Some(before) = limits.horizon(Timestamp::now()) else {
        return Err(Failure::Usage("ledger.retention is \"forever\"; use --older-than".to_owned()));
    };
    let ledger = client(loaded).await?;
    let prunable = ledger.prunable(before).await.context("cannot count the commands")?;
    let pruned = if arguments.dry_run {
        0
    } else {
        let terminal = is_heard();
        let mut told = Instant::now();
        let progress = move |pruned| {
            if terminal && told.elapsed() >= Duration::from_secs(1) {
                told = Instant::now();
                say(format_args!("{pruned} of {prunable} removed"));
            }
        };
        ledger
            .prune(before, arguments.reason.by(), Box::new(progress))
            .await
            .context("not all old commands were removed")?
    };
    if arguments.json {
        let before = before.to_string();
        json(&json!({ "received_before": before, "prunable": prunable, "pruned": pruned }))?;
    } else if arguments.dry_run {
        line(format_args!("{prunable} published commands received before {before} would be removed"))?;
    } else {
        line(format_args!("{pruned} published commands received before {before} removed"))?;
    }
    Ok(Exit::Done)
}

/// What was asked for, and what came of it.
pub(super) type Act = (CommandRef, Result<(), ActError>);

pub(super) fn all_done(commands: Vec<CommandId>) -> Vec<Act> {
    commands.into_iter().map(|id| (CommandRef::Id(id), Ok(()))).collect()
}

/// Does something to each of these commands.
pub(super) async fn each<F: Future<Output = Result<(), ActError>>>(
    commands: &[CommandRef],
    ledger: &dyn Client,
    act: impl Fn(CommandId) -> F,
) -> Vec<Act> {
    let mut acts = Vec::with_capacity(commands.len());
    for command in commands {
        let id = match *command {
            CommandRef::Id(id) => Ok(id),
            CommandRef::Seq(seq) => {
                let found = ledger.id_at(seq).await.map_err(ActError::from);
                found.and_then(|id| id.ok_or(ActError::NoSuchPlace(seq)))
            }
        };
        let done = match id {
            Ok(id) => (CommandRef::Id(id), act(id).await),
            Err(error) => (*command, Err(error)),
        };
        acts.push(done);
    }
    acts
}

/// Tells what became of each command.
pub(super) fn tell(done: &str, acts: Vec<Act>, as_json: bool) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for (command, act) in acts {
        let command_id = command.to_string();
        let problem = act.err().map(|error| chain(&error));
        if problem.is_some() {
            exit = Exit::Failed;
        }
        match (as_json, problem) {
            (true, problem) => {
                json(&json!({ "command_id": command_id, "done": problem.is_none(), "problem": problem }))?;
            }
            (false, None) => line(format_args!("{command_id} {done}"))?,
            (false, Some(problem)) => say(format_args!("{command_id} not {done}: {problem}")),
        }
    }
    Ok(exit)
}
