//! `audit`: what was changed, by whom and why, read from the ledger, whether or not `serve` runs.

use anyhow::{Context, anyhow};
use clap::{Args, builder::PossibleValuesParser};
use serde_json::Value;

use super::{
    actor::who,
    block_on,
    exit::{Exit, Failure},
    opened,
    output::{json, lines, say, table},
    time::{PeriodArguments, ZoneArguments},
    values::command_ref,
};
use crate::{
    command::id::CommandRef,
    config::Loaded,
    ledger::{ActFilter, ActKind, ActRecord, Requeue},
    time::{Timestamp, Zone},
};

const EXAMPLES: &str = "\
Examples:
  countersign audit --since yesterday            what was changed, by whom and why
  countersign audit --command 4711               who requeued this command?
  countersign audit --context 'PO-77/approve'    who registered this context?
  countersign audit --act reload --json | jq .detail.changed

Reads the ledger, whether or not the service runs. An act is kept for ledger.retention, and for as long
as a command or a registered context that it is about. What a command line says of its user is a claim:
anybody who can write the ledger could say otherwise.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Only this one, by its id
    #[arg(value_name = "ACT_ID", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    id: Option<u64>,
    /// Only what was done to this command, by command_id or by place in the log
    #[arg(long, value_name = "COMMAND_ID", value_parser = command_ref)]
    command: Option<CommandRef>,
    /// Only what was done to the registered context with this key
    #[arg(long, value_name = "KEY")]
    context: Option<String>,
    /// Only acts of this kind
    #[arg(long, value_name = "ACT", value_parser = PossibleValuesParser::new(words()))]
    act: Option<String>,
    /// Only by this user, before sudo or after, or this API token
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    #[command(flatten)]
    period: PeriodArguments,
    #[command(flatten)]
    zone: ZoneArguments,
    /// The next page: only ids below this
    #[arg(long, value_name = "ACT_ID", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    before: Option<u64>,
    /// At most this many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Print one JSON object per act instead of the table
    #[arg(long)]
    json: bool,
}

fn words() -> Vec<&'static str> {
    ActKind::ALL.iter().copied().map(ActKind::as_str).collect()
}

pub(super) fn run(arguments: &Arguments, loaded: &Loaded) -> Result<Exit, Failure> {
    block_on(list(arguments, loaded))
}

async fn list(arguments: &Arguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let zone = arguments.zone.zone()?;
    let period = arguments.period.period(Timestamp::now(), &zone)?;
    let ledger = opened::client(loaded).await?;
    let limit = usize::try_from(arguments.limit).unwrap_or(usize::MAX - 1);
    let command_id = match arguments.command {
        None => None,
        Some(CommandRef::Id(id)) => Some(id),
        Some(CommandRef::Seq(seq)) => {
            let found = ledger.id_at(seq).await.context("cannot look the command up")?;
            Some(found.ok_or_else(|| anyhow!("the ledger has no command with seq {seq}"))?)
        }
    };
    let filter = ActFilter {
        id: arguments.id,
        command_id,
        context: arguments.context.clone(),
        kind: arguments.act.as_deref().and_then(|word| word.parse().ok()),
        actor: arguments.actor.clone(),
        since: period.since,
        until: period.until,
        before: arguments.before,
        // One more tells whether there is a next page.
        limit: limit + 1,
    };
    let mut found = ledger.acts(filter).await.context("cannot list the acts")?;
    let more = found.len() > limit;
    found.truncate(limit);
    if arguments.json {
        found.iter().try_for_each(json)?;
        return Ok(Exit::Done);
    }
    if found.is_empty() {
        say("no act matches");
    } else {
        let rows: Vec<_> = found.iter().map(|act| row(act, &zone)).collect();
        lines(&table(HEAD, &rows))?;
    }
    for act in &found {
        if requeue(act).is_some_and(|requeue| !requeue.finished && requeue.continued_by.is_none()) {
            let id = act.id;
            say(format_args!(
                "act {id} is not finished; to continue: countersign ledger requeue --resume {id}"
            ));
        }
    }
    if let (true, Some(last)) = (more, found.last()) {
        say(format_args!("the newest {}; continue with --before {}", found.len(), last.id));
    }
    Ok(Exit::Done)
}

const HEAD: [&str; 7] = ["AT", "ACT", "BY", "CHANGED", "DETAIL", "ID", "REASON"];

fn row(act: &ActRecord, zone: &Zone) -> [String; 7] {
    [
        zone.show(act.at),
        act.act.as_str().to_owned(),
        who(&act.actor),
        act.count.to_string(),
        detail(act, zone),
        act.id.to_string(),
        act.reason.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn requeue(act: &ActRecord) -> Option<Requeue> {
    (act.act == ActKind::Requeue).then(|| Requeue::read(act.detail.as_ref()?.get()))?
}

/// The detail in one line.
fn detail(act: &ActRecord, zone: &Zone) -> String {
    if let Some(of) = requeue(act) {
        let Requeue { filter, skipped, done_through, through, finished, continues, continued_by, .. } = of;
        let mut words = vec![filter.states.join(" or ")];
        for (name, value) in [
            ("endpoint", &filter.endpoint),
            ("instance", &filter.instance_id),
            ("task", &filter.task_id),
            ("user", &filter.user_id),
        ] {
            words.extend(value.as_ref().map(|value| format!("{name} {value}")));
        }
        for (name, time) in [("since", filter.since), ("until", filter.until)] {
            words.extend(time.map(|time| format!("{name} {}", zone.show(time))));
        }
        if skipped > 0 {
            words.push(format!("{skipped} skipped"));
        }
        if !finished {
            words.push(format!("stopped at place {done_through} of {through}"));
        }
        words.extend(continues.map(|act| format!("continues act {act}")));
        words.extend(continued_by.map(|act| format!("continued by act {act}")));
        return words.join(", ");
    }
    let Some(detail) = &act.detail else { return "-".to_owned() };
    match serde_json::from_str(detail.get()) {
        Ok(Value::Object(members)) => {
            let members = members.iter().filter(|(_, value)| !is_empty(value));
            members.map(|(name, value)| format!("{name} {}", words_of(value))).collect::<Vec<_>>().join(", ")
        }
        _ => detail.get().to_owned(),
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn words_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(words_of).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
