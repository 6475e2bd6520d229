//! `ledger strays`: dead letters that are no command of this ledger.

use anyhow::{Context, anyhow};
use clap::Args;

use crate::{
    cli::{
        actor::ReasonArguments,
        exit::{Exit, Failure},
        output::{json, lines, say, table},
        time::ZoneArguments,
    },
    ledger::{Client, Stray, Why},
    time::Zone,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  countersign ledger strays                            what came, newest first
  countersign ledger strays --json | jq -r .body       the messages themselves
  countersign ledger strays --remove 17 --remove 18    those were dealt with";

#[derive(Debug, Args)]
pub(in crate::cli) struct StraysArguments {
    /// The next page: only ids below this
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    before: Option<u64>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Remove this one, by its id; may be given several times
    #[arg(long, value_name = "ID", conflicts_with_all = ["before", "limit", "json"])]
    remove: Vec<u64>,
    #[command(flatten)]
    reason: ReasonArguments,
    #[command(flatten)]
    zone: ZoneArguments,
    /// Print one JSON object per message, with its body
    #[arg(long)]
    json: bool,
}

pub(super) async fn strays(arguments: &StraysArguments, ledger: &dyn Client) -> Result<Exit, Failure> {
    if !arguments.remove.is_empty() {
        return remove(arguments, ledger).await;
    }
    let zone = arguments.zone.zone()?;
    let limit = usize::try_from(arguments.limit).unwrap_or(usize::MAX - 1);
    let mut found = ledger.strays(arguments.before, limit + 1).await.context("cannot list the strays")?;
    let more = found.len() > limit;
    found.truncate(limit);
    if arguments.json {
        found.iter().try_for_each(json)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = found.iter().map(|stray| row(stray, &zone)).collect();
    lines(&table(["CAME", "ID", "WHY", "QUEUE", "TYPE", "MESSAGE", "BYTES", "NOTE"], &rows))?;
    if let (true, Some(last)) = (more, found.last()) {
        say(format_args!("the newest {}; continue with --before {}", found.len(), last.id));
    }
    Ok(Exit::Done)
}

fn row(stray: &Stray, zone: &Zone) -> [String; 8] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    [
        zone.show(stray.came_at),
        stray.id.to_string(),
        stray.why.map_or("-", Why::as_str).to_owned(),
        or_dash(&stray.queue),
        or_dash(&stray.message_type),
        or_dash(&stray.message_id),
        stray.body.len().to_string(),
        stray.reason.clone().unwrap_or_default(),
    ]
}

async fn remove(arguments: &StraysArguments, ledger: &dyn Client) -> Result<Exit, Failure> {
    let (ids, by) = (&arguments.remove, arguments.reason.by());
    let removed = ledger.remove_strays(ids.clone(), by).await.context("cannot remove the strays")?;
    if removed < ids.len() as u64 {
        let missing = ids.len() as u64 - removed;
        return Err(anyhow!("{missing} of {} are not there; {removed} removed", ids.len()).into());
    }
    say(format_args!("{removed} removed"));
    Ok(Exit::Done)
}
