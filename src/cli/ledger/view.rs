//! `ledger list|show|stats`: reads the ledger.

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum, builder::PossibleValuesParser};

use crate::{
    cli::{
        actor::who,
        exit::{Exit, Failure},
        output::{json, line, lines, say, table},
        time::{PeriodArguments, ZoneArguments},
        values::{card, command_ref},
    },
    command::id::CommandRef,
    ledger::{
        Client, Filter, OutcomeFilter, OutcomeRecord, Record, ShowingState, State, Stats, Surface, Why,
        history::{ByOperator, Event, What},
    },
    telemetry::taming::indented,
    time::{Timestamp, Zone},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign ledger list --state parked
  countersign ledger list --user zhang3 --around 10:42 --local-time
  countersign ledger list --instance PO-77 --outcome failed
  countersign ledger list --since yesterday --json | jq -r .command_id")]
pub(in crate::cli) struct ListArguments {
    /// Only in this state
    #[arg(long, value_enum)]
    state: Option<StateWord>,
    /// Only of this endpoint
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only with this action
    #[arg(long, value_name = "ACTION", value_parser = PossibleValuesParser::new(["approve", "reject", "custom"]))]
    action: Option<String>,
    /// Only about this task
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// Only about this instance
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// Only by this operator
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only from this card: the message_id of the callback, which is not that of the AMQP message
    #[arg(long, value_name = "ID", value_parser = card)]
    message_id: Option<String>,
    /// Only with this outcome, by the worker's last report; none: without a report
    #[arg(long, value_name = "OUTCOME", value_parser = PossibleValuesParser::new(OutcomeFilter::ALL.map(OutcomeFilter::as_str)))]
    outcome: Option<String>,
    #[command(flatten)]
    period: PeriodArguments,
    #[command(flatten)]
    zone: ZoneArguments,
    /// The next page: only places in the log (SEQ) below this
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    before: Option<u64>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Print one JSON object per command instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign ledger show 4711                                    by its place in the log
  countersign ledger show 6f1c1a52-6a9e-5d0c-9d0f-1f3c5a7b9d21    by its command_id
  countersign ledger show 4711 --json | jq .message")]
pub(in crate::cli) struct ShowArguments {
    /// The command_id, or its place in the log
    #[arg(value_name = "COMMAND_ID", value_parser = command_ref)]
    command: CommandRef,
    #[command(flatten)]
    zone: ZoneArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign ledger stats
  countersign ledger stats --json | jq .pending")]
pub(in crate::cli) struct StatsArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zone: ZoneArguments,
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
    /// A worker rejected it, or its queue dropped it
    Rejected,
    /// No queue was bound for it
    Unrouted,
}

impl From<StateWord> for State {
    fn from(word: StateWord) -> Self {
        match word {
            StateWord::Pending => Self::Pending,
            StateWord::Published => Self::Published,
            StateWord::Parked => Self::Parked,
            StateWord::Rejected => Self::Rejected,
            StateWord::Unrouted => Self::Unrouted,
        }
    }
}

pub(super) async fn list(arguments: &ListArguments, ledger: &dyn Client) -> Result<Exit, Failure> {
    let zone = arguments.zone.zone()?;
    let period = arguments.period.period(Timestamp::now(), &zone)?;
    let limit = usize::try_from(arguments.limit).unwrap_or(usize::MAX - 1);
    let filter = Filter {
        state: arguments.state.map(State::from),
        endpoint: arguments.endpoint.clone(),
        action: arguments.action.as_deref().and_then(|word| word.parse().ok()),
        instance_id: arguments.instance.clone(),
        task_id: arguments.task.clone(),
        user_id: arguments.user.clone(),
        message_id: arguments.message_id.clone(),
        outcome: arguments.outcome.as_deref().and_then(OutcomeFilter::parse),
        since: period.since,
        until: period.until,
        before: arguments.before,
        after: None,
        // One more tells whether there is a next page.
        limit: limit + 1,
        ..Filter::default()
    };
    let mut records = ledger.list(filter).await.context("cannot list the commands")?;
    let more = records.len() > limit;
    records.truncate(limit);
    if arguments.json {
        records.iter().try_for_each(json)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = records.iter().map(|record| row(record, &zone)).collect();
    let head = ["RECEIVED", "STATE", "ENDPOINT", "ACTION", "USER", "INSTANCE", "TASK", "COMMAND", "NOTE"];
    if records.iter().any(|record| record.outcome.is_some()) {
        // Only where workers report: without outcomes it would be a column of nothing.
        let [received, state, endpoint, action, user, instance, task, command, note] = head;
        let head = [received, state, "OUTCOME", endpoint, action, user, instance, task, command, note];
        let rows: Vec<_> = records.iter().zip(rows).map(|(record, row)| with_outcome(record, row)).collect();
        lines(&table(head, &rows))?;
    } else {
        lines(&table(head, &rows))?;
    }
    if let (true, Some(last)) = (more, records.last()) {
        say(format_args!("the newest {}; continue with --before {}", records.len(), last.seq));
    } else if let Some(pruned) = ledger.pruned_before().await.context("cannot list the commands")? {
        say(pruned_before(pruned, &zone));
    }
    Ok(Exit::Done)
}

fn pruned_before(time: Timestamp, zone: &Zone) -> String {
    format!("published commands received before {} have been pruned", zone.show(time))
}

fn row(record: &Record, zone: &Zone) -> [String; 9] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    [
        zone.show(record.received_at),
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
    let is_out = matches!(record.state, State::Published | State::Rejected | State::Unrouted);
    if is_out || record.outcome.is_some() {
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

fn outcome_rows(outcome: &OutcomeRecord, zone: &Zone) -> Vec<[String; 2]> {
    let mut rows = vec![["outcome".to_owned(), self::outcome(outcome)]];
    rows.extend(outcome.message.clone().map(|message| ["message".to_owned(), message]));
    for (name, place) in [("card", &outcome.card), ("instance", &outcome.instance)] {
        let Some(place) = place else { continue };
        let when = match place.next_attempt_at {
            Some(at) if place.attempts > 0 => format!(", tried again {}", zone.show(at)),
            _ => String::new(),
        };
        rows.push([name.to_owned(), format!("{} {}{when}", place.id, place.state.as_str())]);
        rows.extend(place.note.clone().map(|note| [format!("{name} note"), note]));
    }
    rows
}

fn came_back(why: Why, queue: Option<&str>) -> String {
    let queue = queue.unwrap_or("that is not known");
    match why {
        Why::Rejected => format!("came back: a worker rejected it, queue {queue}"),
        Why::DeliveryLimit => format!("came back: workers failed at it too often, queue {queue}"),
        Why::Expired => format!("came back: it waited too long in the queue {queue}"),
        Why::Overflowed => format!("came back: there were too many in the queue {queue}"),
        Why::Unrouted => "came back: no queue was bound for it".to_owned(),
    }
}

/// When something happened, and what, in words.
fn told(event: &Event, zone: &Zone) -> [String; 2] {
    let when = event.at.map_or_else(|| "-".to_owned(), |at| zone.show(at));
    let what = match &event.what {
        What::Accepted => "accepted".to_owned(),
        What::Waiting => "waits for an earlier command of its task".to_owned(),
        What::Refused { attempt, reason } => format!("attempt {attempt}: {reason}"),
        What::Published { not_before, exchange, routing_key } => {
            let exchange = exchange.as_deref().unwrap_or("an exchange that is not known");
            let from = match (not_before, event.at) {
                (None, _) | (_, None) => " (when is not known)".to_owned(),
                (Some(from), Some(to)) if *from == to => String::new(),
                (Some(from), Some(_)) => format!(" (between {} and this)", zone.show(*from)),
            };
            format!("published to {exchange}, routing key {routing_key}; confirmed by the broker{from}")
        }
        What::CameBack { why, queue } => came_back(*why, queue.as_deref()),
        What::Reported { outcome, superseded: 0 } => format!("reported by a worker: {}", outcome.as_str()),
        What::Reported { outcome, superseded } => {
            format!("reported by a worker: {} (report {})", outcome.as_str(), superseded + 1)
        }
        What::ReportRefused { outcome, reason } => {
            format!("a worker's report was refused ({}): {reason}", outcome.as_str())
        }
        What::Shown { surface: Surface::Card, target } => format!("shown on the card {target}"),
        What::Shown { surface: Surface::Instance, target } => format!("shown in the instance {target}"),
        What::RequeuedByOperator(by) => format!("requeued by {}", operator(by)),
        What::ParkedByOperator(by) => format!("parked by {}", operator(by)),
        What::ShownAgainByOperator(by) => format!("outcome shown again by {}", operator(by)),
    };
    [when, what]
}

fn operator(by: &ByOperator) -> String {
    let reason = by.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{} (act {}){reason}", who(&by.actor), by.act_id)
}

pub(super) async fn show(arguments: &ShowArguments, ledger: &dyn Client) -> Result<Exit, Failure> {
    let zone = arguments.zone.zone()?;
    let look = "cannot look the command up";
    let id = match arguments.command {
        CommandRef::Id(id) => Some(id),
        CommandRef::Seq(seq) => ledger.id_at(seq).await.context(look)?,
    };
    let found = match id {
        Some(id) => ledger.find(id).await.context(look)?,
        None => None,
    };
    let Some(record) = found else {
        let pruned = ledger.pruned_before().await.context(look)?;
        let why = match (id.and_then(|id| id.received_at()), pruned) {
            (Some(received), Some(pruned)) if received < pruned => {
                format!(": {}", pruned_before(pruned, &zone))
            }
            _ => String::new(),
        };
        return Err(anyhow!("the ledger has no command {}{why}", arguments.command).into());
    };
    if arguments.json {
        json(&record)?;
        return Ok(Exit::Done);
    }
    let mut rows = vec![
        ["command".to_owned(), record.command_id.to_string()],
        ["state".to_owned(), record.state.as_str().to_owned()],
        ["received".to_owned(), zone.show(record.received_at)],
        ["place".to_owned(), record.seq.to_string()],
    ];
    rows.extend(record.note.clone().map(|note| ["note".to_owned(), note]));
    rows.extend(record.attempts.map(|attempts| ["refusals".to_owned(), attempts.to_string()]));
    rows.extend(record.reconciliation.as_ref().map(|found| {
        let status = found.task_status.as_deref().map(|status| format!(", the task is {status}"));
        let text = format!("{}{}", found.verdict.as_str(), status.unwrap_or_default());
        ["approval center".to_owned(), text]
    }));
    rows.extend(record.next_attempt_at.map(|at| ["tried again".to_owned(), zone.show(at)]));
    if let Some(outcome) = &record.outcome {
        rows.push(["way".to_owned(), way(&record)]);
        rows.extend(outcome_rows(outcome, &zone));
    }
    lines(table(["", ""], &rows).trim_start_matches('\n'))?;
    if let Some(history) = &record.history {
        let rows: Vec<_> = history.iter().map(|event| told(event, &zone)).collect();
        lines(&table(["WHEN", "WHAT"], &rows))?;
    }
    if let Some(command) = &record.command {
        lines(&indented(command.get()))?;
        line("")?;
    }
    Ok(Exit::Done)
}

pub(super) async fn stats(arguments: &StatsArguments, ledger: &dyn Client) -> Result<Exit, Failure> {
    let zone = arguments.zone.zone()?;
    let stats = ledger.stats().await.context("cannot read the statistics")?;
    if arguments.json {
        json(&stats)?;
        return Ok(Exit::Done);
    }
    let Stats {
        pending,
        published,
        parked,
        rejected,
        unrouted,
        oldest_pending_at,
        head,
        cursor,
        refusals,
        ..
    } = stats;
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes} bytes"));
    let oldest = oldest_pending_at.map_or_else(|| "-".to_owned(), |at| zone.show(at));
    for (name, value) in [
        ("pending", pending.to_string()),
        ("published", published.to_string()),
        ("parked", parked.to_string()),
        ("rejected", rejected.to_string()),
        ("unrouted", unrouted.to_string()),
        ("oldest pending", oldest),
        ("head of the log", head.to_string()),
        ("cursor", cursor.to_string()),
        ("refusals kept", refusals.to_string()),
        ("size", bytes(stats.size_bytes)),
    ] {
        line(format_args!("{name:<16} {value}"))?;
    }
    for (name, value) in [
        ("write-ahead log", stats.wal_bytes.map(|bytes| format!("{bytes} bytes"))),
        ("free on its disk", stats.free_bytes.map(|bytes| format!("{bytes} bytes"))),
        ("leader", stats.leader),
        ("standbys in sync", stats.standbys.map(|count| count.to_string())),
    ] {
        if let Some(value) = value {
            line(format_args!("{name:<16} {value}"))?;
        }
    }
    if stats.strays > 0 {
        line(format_args!("{:<16} {}", "strays", stats.strays))?;
    }
    if stats.outcomes_pending + stats.outcomes_parked > 0 {
        let (waiting, parked) = (stats.outcomes_pending, stats.outcomes_parked);
        line(format_args!("{:<16} {waiting} waiting, {parked} parked", "outcomes"))?;
    }
    Ok(Exit::Done)
}
