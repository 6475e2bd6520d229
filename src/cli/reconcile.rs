//! `reconcile`: one pass that compares published commands with the approval center.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::json;

use super::{
    block_on,
    center::failure,
    exit::{Exit, Failure},
    opened::client,
    output::{counted, is_heard, json, lines, say, table},
    time::ZoneArguments,
};
use crate::{
    center::client::Center,
    center::reconcile::{Again, Error, Pace, Summary, Witness, advice, pass},
    config::Loaded,
    ledger::{
        Client, Verdict,
        findings::{Candidate, Finding, Overview, Reach, Which},
    },
    telemetry::log::chain,
    time::{Timestamp, Zone},
};

const EXAMPLES: &str = "\
Examples:
  countersign reconcile                  compare, and list what is not visible
  countersign reconcile --after 0s       also for what was published a moment ago
  countersign reconcile --list --json    only what is known, without a call

It continues where it, or the running service, stopped, and asks again for everything that was not
visible then. It can be interrupted, and run while the service runs.

Findings:
  unseen        the task is still PENDING at the center
  not_found     the center knows no such instance or task
  contradicted  the center shows the other decision

Exit codes: 0 all decisions are visible, 1 some are not, 69 the approval center is unavailable.";

/// Findings read per query.
const PAGE: usize = 500;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Compare what was published at least this long ago [default: reconcile.after]
    #[arg(long, value_name = "DURATION", value_parser = super::values::duration)]
    after: Option<Duration>,
    /// Compare what was received at most this long ago [default: reconcile.within]
    #[arg(long, value_name = "DURATION", value_parser = super::values::duration)]
    within: Option<Duration>,
    /// Make no calls; list what was found before
    #[arg(long)]
    list: bool,
    /// Print one JSON object per finding, and one with a member `summary` at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zone: ZoneArguments,
}

pub(super) fn run(arguments: &Arguments, loaded: &Loaded) -> Result<Exit, Failure> {
    block_on(compare(arguments, loaded))
}

async fn compare(arguments: &Arguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let settings = loaded.reconcile()?;
    let after = arguments.after.unwrap_or(settings.after);
    let within = arguments.within.unwrap_or(settings.within);
    let ledger = client(loaded).await?;
    if arguments.list {
        return tell(&*ledger, arguments, None).await;
    }
    let Some(settings) = loaded.approval_center()? else {
        return Err(Failure::Usage(
            "approval_center.app_id is not configured; `countersign config defaults` explains the section"
                .to_owned(),
        ));
    };
    let center = Center::new(settings).map_err(failure)?;
    let reach = move || Reach { now: Timestamp::now(), after, within };
    let before = ledger.overview().await.context("cannot read the ledger")?;
    let mut progress = Progress::new(&before);
    let pace = Pace { between: Duration::ZERO, pages: None };
    match pass(&center, &*ledger, reach, Again::All, pace, &mut progress).await {
        Ok(summary) => tell(&*ledger, arguments, Some(summary)).await,
        Err(Error::Center(error)) => Err(failure(error)),
        Err(error) => Err(anyhow!(chain(&error)).into()),
    }
}

struct Progress {
    terminal: bool,
    told: Instant,
    ahead: u64,
}

impl Progress {
    fn new(overview: &Overview) -> Self {
        let ahead = overview.published_through.saturating_sub(overview.asked_through) + overview.open();
        Self { terminal: is_heard(), told: Instant::now(), ahead }
    }
}

impl Witness for Progress {
    fn passed(&mut self, summary: &Summary) {
        if self.terminal && self.told.elapsed() >= Duration::from_secs(1) {
            self.told = Instant::now();
            let Summary { commands, calls, .. } = summary;
            let calls = counted(*calls, "call");
            say(format_args!("{commands} of up to {} compared, {calls}", counted(self.ahead, "decision")));
        }
    }

    fn found(&mut self, _: &Candidate, _: &Finding) {}
}

/// Lists open findings page by page, then prints a summary.
async fn tell(ledger: &dyn Client, arguments: &Arguments, passed: Option<Summary>) -> Result<Exit, Failure> {
    let zone = arguments.zone.zone()?;
    let overview = ledger.overview().await.context("cannot read the ledger")?;
    let mut after = 0;
    loop {
        let found = ledger.findings(Which::Open, after, PAGE).await.context("cannot read the ledger")?;
        let Some(last) = found.last() else { break };
        let first = after == 0;
        after = last.seq;
        if arguments.json {
            found.iter().try_for_each(json)?;
            continue;
        }
        let rows: Vec<_> = found.iter().map(|found| row(found, &zone)).collect();
        let text = table(HEAD, &rows);
        // Print the header once, not per page.
        let text = if first { &text } else { text.split_once('\n').map_or("", |(_, rows)| rows) };
        lines(text)?;
    }
    if arguments.json {
        let counts: serde_json::Map<_, _> = Verdict::ALL
            .iter()
            .enumerate()
            .map(|(place, verdict)| {
                (verdict.as_str().to_owned(), passed.map(|passed| passed.verdicts[place]).into())
            })
            .collect();
        let pass = passed.map(|Summary { commands, calls, .. }| {
            json!({ "commands": commands, "calls": calls, "verdicts": counts })
        });
        json(&json!({ "summary": { "pass": pass, "standing": overview } }))?;
    } else {
        sum_up(&overview, passed);
    }
    Ok(if overview.open() == 0 { Exit::Done } else { Exit::Failed })
}

const HEAD: [&str; 9] =
    ["RECEIVED", "VERDICT", "TASK IS", "ACTION", "INSTANCE", "TASK", "CHECKS", "ASKED AGAIN", "COMMAND"];

fn row(found: &Candidate, zone: &Zone) -> [String; 9] {
    let dash = || "-".to_owned();
    let finding = found.finding.clone().unwrap_or_else(Finding::seen);
    [
        zone.show(found.received_at),
        finding.verdict.as_str().to_owned(),
        finding.task_status.unwrap_or_else(dash),
        found.action.as_str().to_owned(),
        found.instance_id.clone().unwrap_or_else(dash),
        found.task_id.clone().unwrap_or_else(dash),
        finding.checks.to_string(),
        finding.next_check_at.map_or_else(dash, |at| zone.show(at)),
        found.command_id.to_string(),
    ]
}

/// The message if nothing is open. It claims no more than was compared.
fn closed(overview: &Overview, passed: Option<Summary>) -> String {
    let Overview { seen, ended, untellable, .. } = overview;
    match (seen + ended, untellable) {
        (0, 0) => "nothing was compared, so nothing is known: no decision has been published for longer than \
                   reconcile.after (--after) that was received within reconcile.within (--within)"
            .to_owned(),
        (0, _) => format!(
            "nothing was compared: {untellable} decisions name no instance and task that the center could be asked for"
        ),
        _ if passed.is_some_and(|passed| passed.commands == 0) => {
            "no decision was due to be compared; all that were compared before are visible, or ended otherwise"
                .to_owned()
        }
        _ => "every decision that was compared is visible, or ended otherwise".to_owned(),
    }
}

fn sum_up(overview: &Overview, passed: Option<Summary>) {
    if let Some(Summary { commands, calls, verdicts, .. }) = passed {
        let counts: Vec<_> = Verdict::ALL
            .iter()
            .zip(verdicts)
            .filter(|(_, count)| *count > 0)
            .map(|(verdict, count)| format!("{count} {}", verdict.as_str()))
            .collect();
        let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
        let (decisions, calls) = (counted(commands, "decision"), counted(calls, "call"));
        say(format_args!("{decisions} compared with the approval center by {calls}{counts}"));
    }
    if overview.open() == 0 {
        say(closed(overview, passed));
    }
    for (verdict, count) in [
        (Verdict::Unseen, overview.unseen),
        (Verdict::NotFound, overview.not_found),
        (Verdict::Contradicted, overview.contradicted),
    ] {
        if let (1.., Some(advice)) = (count, advice(verdict)) {
            say(format_args!("{count} {}: {advice}", verdict.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_compared_is_not_called_visible() {
        let passed = |commands| Some(Summary { commands, ..Summary::default() });
        let of = |seen, ended, untellable| Overview { seen, ended, untellable, ..Overview::default() };
        for passed in [None, passed(0)] {
            assert!(closed(&of(0, 0, 0), passed).starts_with("nothing was compared, so nothing is known"));
        }
        assert!(closed(&of(0, 0, 3), passed(3)).starts_with("nothing was compared: 3 decisions name no"));
        assert!(closed(&of(5, 0, 0), passed(0)).starts_with("no decision was due to be compared; all"));
        for (overview, passed) in [(of(5, 0, 0), passed(5)), (of(0, 1, 2), passed(3)), (of(5, 0, 0), None)] {
            assert!(closed(&overview, passed).starts_with("every decision that was compared is visible"));
        }
    }
}
