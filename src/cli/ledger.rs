//! `ledger list|show|stats|requeue|park|show-again|prune`: works on the ledger's file, whether or not `serve` runs.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{
    exit::{Exit, Failure},
    output::{indented, json, line, say, table, write},
};
use crate::{
    command::CommandId,
    config::{Loaded, parse_duration},
    ledger::{
        Filter, Limits, OutcomeRecord, Record, ShowingState, State, Stats,
        sqlite::{ActError, Operator, Reader},
    },
    telemetry::log::chain,
    time::Timestamp,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List commands, newest first
    List(ListArguments),
    /// Show one command with its message
    Show(ShowArguments),
    /// Show how many commands are in which state, and how far publishing has come
    Stats(StatsArguments),
    /// Have commands published again that are parked or were published
    ///
    /// A running service finds them within seconds. Their message_id stays the same.
    Requeue(RequeueArguments),
    /// Take pending commands out of the way, until they are requeued
    Park(ParkArguments),
    /// Have outcomes shown again that the approval center has refused for good
    ///
    /// A running service finds them within seconds. What waits is tried at once; what is all shown is shown again, which
    /// changes nothing.
    ShowAgain(ShowAgainArguments),
    /// Remove old published commands from the ledger
    ///
    /// A running service does so by itself, by ledger.retention. What is pending or parked always stays. The file does not
    /// shrink: its free pages are used again.
    Prune(PruneArguments),
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Only in this state
    #[arg(long, value_enum)]
    state: Option<StateWord>,
    /// Only of this endpoint
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only about this task
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// Only about this instance
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// Only by this operator
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Print one JSON object per command in place of the table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// The command_id
    #[arg(value_name = "COMMAND_ID", value_parser = parse_id)]
    command_id: CommandId,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct StatsArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RequeueArguments {
    /// The commands
    #[arg(value_name = "COMMAND_ID", value_parser = parse_id, required_unless_present = "all_parked")]
    command_ids: Vec<CommandId>,
    /// All that are parked
    #[arg(long, conflicts_with = "command_ids")]
    all_parked: bool,
    /// Print one JSON object per command
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ParkArguments {
    /// The commands
    #[arg(value_name = "COMMAND_ID", value_parser = parse_id, required = true)]
    command_ids: Vec<CommandId>,
    /// Print one JSON object per command
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowAgainArguments {
    /// The commands
    #[arg(value_name = "COMMAND_ID", value_parser = parse_id, required_unless_present = "all_parked")]
    command_ids: Vec<CommandId>,
    /// All whose outcome was refused for good
    #[arg(long, conflicts_with = "command_ids")]
    all_parked: bool,
    /// Print one JSON object per command
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PruneArguments {
    /// Remove what was received longer ago than this, such as "30d" or "12h"; without it, ledger.retention
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    older_than: Option<Duration>,
    /// Only tell how many it would be
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The states, as words of the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum StateWord {
    /// The broker has not confirmed it yet
    Pending,
    /// The broker has it
    Published,
    /// The broker refused it too often, or an operator parked it
    Parked,
}

impl From<StateWord> for State {
    fn from(word: StateWord) -> Self {
        match word {
            StateWord::Pending => Self::Pending,
            StateWord::Published => Self::Published,
            StateWord::Parked => Self::Parked,
        }
    }
}

fn parse_id(text: &str) -> Result<CommandId, String> {
    CommandId::parse(text).ok_or_else(|| "not a command_id, which is a UUID".to_owned())
}

fn parse_age(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "not a duration such as \"30d\", \"12h\" or \"30m\"".to_owned())
}

pub(super) fn run(command: Command, loaded: &Loaded) -> Result<Exit, Failure> {
    match command {
        Command::List(arguments) => list(&arguments, &reader(loaded)?),
        Command::Show(arguments) => show(&arguments, &reader(loaded)?),
        Command::Stats(arguments) => stats(&arguments, &reader(loaded)?),
        Command::Requeue(arguments) => requeue(&arguments, &mut operator(loaded)?),
        Command::Park(arguments) => {
            let mut operator = operator(loaded)?;
            let acts = arguments.command_ids.iter().map(|id| (*id, operator.park(*id))).collect();
            tell("parked", acts, arguments.json)
        }
        Command::ShowAgain(arguments) => show_again(&arguments, &mut operator(loaded)?),
        Command::Prune(arguments) => prune(&arguments, loaded),
    }
}

fn reader(loaded: &Loaded) -> Result<Reader, Failure> {
    let opened = Reader::open(&loaded.ledger()?.path);
    Ok(opened.with_context(|| format!("cannot look into the ledger ({})", named_by(loaded)))?)
}

fn operator(loaded: &Loaded) -> Result<Operator, Failure> {
    let opened = Operator::open(&loaded.ledger()?.path);
    Ok(opened.with_context(|| format!("cannot write to the ledger ({})", named_by(loaded)))?)
}

/// Where the ledger was named, and how to name another.
fn named_by(loaded: &Loaded) -> String {
    let origin = loaded.effective.origin("ledger.url").unwrap_or("default");
    format!("ledger.url from {origin}; --config FILE or --set ledger.url=sqlite:PATH names another")
}

fn list(arguments: &ListArguments, reader: &Reader) -> Result<Exit, Failure> {
    let filter = Filter {
        state: arguments.state.map(State::from),
        endpoint: arguments.endpoint.clone(),
        instance_id: arguments.instance.clone(),
        task_id: arguments.task.clone(),
        user_id: arguments.user.clone(),
        limit: usize::try_from(arguments.limit).unwrap_or(usize::MAX),
        ..Filter::default()
    };
    let records = reader.list(&filter).context("cannot list the commands")?;
    if arguments.json {
        records.iter().try_for_each(json)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = records.iter().map(row).collect();
    let head = ["RECEIVED", "STATE", "ENDPOINT", "ACTION", "USER", "INSTANCE", "TASK", "COMMAND", "NOTE"];
    if records.iter().any(|record| record.outcome.is_some()) {
        // Only where workers report: without the way back it would be a column of nothing.
        let [received, state, endpoint, action, user, instance, task, command, note] = head;
        let head = [received, state, "OUTCOME", endpoint, action, user, instance, task, command, note];
        let rows: Vec<_> = records.iter().zip(rows).map(|(record, row)| with_outcome(record, row)).collect();
        write(table(head, &rows).as_bytes())?;
    } else {
        write(table(head, &rows).as_bytes())?;
    }
    if records.len() == filter.limit {
        say(format_args!("the newest {}; there may be more (--limit)", records.len()));
    } else if let Some(pruned) = reader.pruned_before().context("cannot list the commands")? {
        say(pruned_before(pruned));
    }
    Ok(Exit::Done)
}

fn pruned_before(time: Timestamp) -> String {
    format!("published commands received before {time} have been pruned")
}

fn row(record: &Record) -> [String; 9] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    [
        record.received_at.to_string(),
        record.state.as_str().to_owned(),
        record.endpoint.clone(),
        record.action.clone(),
        record.user_id.clone(),
        or_dash(&record.instance_id),
        or_dash(&record.task_id),
        record.command_id.to_string(),
        record.note.clone().unwrap_or_default(),
    ]
}

fn with_outcome(record: &Record, row: [String; 9]) -> [String; 10] {
    let [received, state, endpoint, action, user, instance, task, command, note] = row;
    let outcome = record.outcome.as_ref().map_or_else(|| "-".to_owned(), outcome);
    [received, state, outcome, endpoint, action, user, instance, task, command, note]
}

/// What became of it, and how far that is shown, in two words at the most.
fn outcome(outcome: &OutcomeRecord) -> String {
    match outcome.showing {
        ShowingState::Nothing => outcome.outcome.as_str().to_owned(),
        showing => format!("{}, {}", outcome.outcome.as_str(), showing.as_str()),
    }
}

/// How far a command has come, from the callback to what the approver sees.
fn way(record: &Record) -> String {
    let mut way = vec!["accepted"];
    // A command that is published again has been published before: its worker has spoken.
    if record.state == State::Published || record.outcome.is_some() {
        way.push("published");
    }
    if let Some(outcome) = &record.outcome {
        way.push(outcome.outcome.as_str());
        if outcome.showing == ShowingState::Shown {
            way.push("shown");
        }
    }
    way.join(" → ")
}

fn outcome_rows(outcome: &OutcomeRecord) -> Vec<[String; 2]> {
    let mut rows = vec![["outcome".to_owned(), self::outcome(outcome)]];
    rows.push(["reported".to_owned(), outcome.reported_at.to_string()]);
    rows.extend(outcome.message.clone().map(|message| ["message".to_owned(), message]));
    for (name, place) in [("card", &outcome.card), ("instance", &outcome.instance)] {
        let Some(place) = place else { continue };
        let when = match (place.shown_at, place.next_attempt_at) {
            (Some(at), _) => format!(" {at}"),
            (None, Some(at)) if place.attempts > 0 => format!(", tried again {at}"),
            _ => String::new(),
        };
        rows.push([name.to_owned(), format!("{} {}{when}", place.id, place.state.as_str())]);
        rows.extend(place.note.clone().map(|note| [format!("{name} note"), note]));
    }
    rows
}

fn show(arguments: &ShowArguments, reader: &Reader) -> Result<Exit, Failure> {
    let found = reader.find(arguments.command_id).context("cannot look the command up")?;
    let Some(record) = found else {
        let id = arguments.command_id;
        let pruned = reader.pruned_before().context("cannot look the command up")?;
        let why = match (id.received_at(), pruned) {
            (Some(received), Some(pruned)) if received < pruned => {
                format!(": {}", pruned_before(pruned))
            }
            _ => String::new(),
        };
        return Err(anyhow!("the ledger has no command {id}{why}").into());
    };
    if arguments.json {
        json(&record)?;
        return Ok(Exit::Done);
    }
    let mut rows = vec![
        ["command".to_owned(), record.command_id.to_string()],
        ["state".to_owned(), record.state.as_str().to_owned()],
        ["received".to_owned(), record.received_at.to_string()],
        ["place".to_owned(), record.seq.to_string()],
    ];
    rows.extend(record.note.clone().map(|note| ["note".to_owned(), note]));
    rows.extend(record.attempts.map(|attempts| ["refusals".to_owned(), attempts.to_string()]));
    rows.extend(record.reconciliation.as_ref().map(|found| {
        let status = found.task_status.as_deref().map(|status| format!(", the task is {status}"));
        let text = format!("{}{}", found.verdict.as_str(), status.unwrap_or_default());
        ["approval center".to_owned(), text]
    }));
    rows.extend(record.next_attempt_at.map(|at| ["tried again".to_owned(), at.to_string()]));
    if let Some(outcome) = &record.outcome {
        rows.push(["way".to_owned(), way(&record)]);
        rows.extend(outcome_rows(outcome));
    }
    write(table(["", ""], &rows).trim_start_matches('\n').as_bytes())?;
    if let Some(command) = &record.command {
        line(indented(command))?;
    }
    Ok(Exit::Done)
}

fn stats(arguments: &StatsArguments, reader: &Reader) -> Result<Exit, Failure> {
    let stats = reader.stats().context("cannot take the numbers")?;
    if arguments.json {
        json(&stats)?;
        return Ok(Exit::Done);
    }
    let Stats { pending, published, parked, oldest_pending_at, head, cursor, refusals, .. } = stats;
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes} bytes"));
    let oldest = oldest_pending_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    for (name, value) in [
        ("pending", pending.to_string()),
        ("published", published.to_string()),
        ("parked", parked.to_string()),
        ("oldest pending", oldest),
        ("head of the log", head.to_string()),
        ("cursor", cursor.to_string()),
        ("refusals kept", refusals.to_string()),
        ("file", bytes(stats.size_bytes)),
        ("write-ahead log", bytes(stats.wal_bytes)),
        ("free on its disk", bytes(stats.free_bytes)),
    ] {
        line(format_args!("{name:<16} {value}"))?;
    }
    if stats.outcomes_pending + stats.outcomes_parked > 0 {
        let (waiting, parked) = (stats.outcomes_pending, stats.outcomes_parked);
        line(format_args!("{:<16} {waiting} waiting, {parked} parked", "outcomes"))?;
    }
    Ok(Exit::Done)
}

fn requeue(arguments: &RequeueArguments, operator: &mut Operator) -> Result<Exit, Failure> {
    let acts = if arguments.all_parked {
        let requeued = operator.requeue_parked().context("nothing was requeued")?;
        if requeued.is_empty() {
            say("nothing is parked");
        }
        requeued.into_iter().map(|id| (id, Ok(()))).collect()
    } else {
        arguments.command_ids.iter().map(|id| (*id, operator.requeue(*id))).collect()
    };
    tell("requeued", acts, arguments.json)
}

fn show_again(arguments: &ShowAgainArguments, operator: &mut Operator) -> Result<Exit, Failure> {
    let acts = if arguments.all_parked {
        let ordered = operator.show_parked_again().context("nothing is shown again")?;
        if ordered.is_empty() {
            say("no outcome is parked");
        }
        ordered.into_iter().map(|id| (id, Ok(()))).collect()
    } else {
        arguments.command_ids.iter().map(|id| (*id, operator.show_again(*id))).collect()
    };
    tell("to be shown again", acts, arguments.json)
}

fn prune(arguments: &PruneArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let settings = loaded.ledger()?;
    let limits =
        Limits { retention: arguments.older_than.or(settings.limits.retention), ..settings.limits.clone() };
    let Some(before) = limits.horizon(Timestamp::now()) else {
        return Err(Failure::Usage("ledger.retention is \"forever\"; say --older-than".to_owned()));
    };
    let mut operator = operator(loaded)?;
    let prunable = operator.prunable(before).context("cannot count the commands")?;
    let pruned = if arguments.dry_run {
        0
    } else {
        let terminal = io::stderr().is_terminal();
        let mut told = Instant::now();
        let pruned = operator.prune(before, |pruned| {
            if terminal && told.elapsed() >= Duration::from_secs(1) {
                told = Instant::now();
                say(format_args!("{pruned} of {prunable} removed"));
            }
        });
        pruned.context("not all old commands were removed")?
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

/// Tells what became of each command.
fn tell(done: &str, acts: Vec<(CommandId, Result<(), ActError>)>, as_json: bool) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for (command_id, act) in acts {
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
