//! `ledger requeue`: commands by their ids, all that are parked, or what passes a filter, in steps that can be continued.

use std::{pin::pin, time::Duration};

use anyhow::{Context, anyhow};
use clap::{Args, builder::PossibleValuesParser};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::acts::{all_done, each, tell};
use crate::{
    cli::{
        actor::ReasonArguments,
        exit::{Exit, Failure},
        output::{agreed, can_ask, counted, draw, is_heard, json, line, say},
        time::{PeriodArguments, ZoneArguments},
        values::command_ref,
    },
    command::{Seq, id::CommandRef},
    ledger::{ActFilter, Client, Filter, Record, Requeue, RequeueFilter, RequeueStep, State},
    time::Timestamp,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  countersign ledger requeue 4711 --reason 'the worker was down'
  countersign ledger requeue --all-parked
  countersign ledger requeue --state published --since 10:00 --until 10:30 --dry-run
  countersign ledger requeue --state published --since 10:00 --until 10:30 --reason 'queue deleted'
  countersign ledger requeue --unrouted --reason 'the queue is bound again'
  countersign ledger requeue --resume 17

By a filter it takes those that are parked; --state rejected or unrouted takes those that came back,
and --state published those that the broker had already: workers get them again, with the same
message_id. They go in the order of the log, --rate a second, and are one act. It can be interrupted,
and continued with --resume, which is an act of who continues it.";

/// Places of the log that one look takes in, where most commands are of interest.
const WINDOW: Seq = 20_000;

/// Commands that one look brings.
const PAGE: usize = 500;

/// Commands that one step requeues at the most: a step holds up the writer of a running service.
const STEP: u64 = 200;

#[derive(Debug, Args)]
pub(in crate::cli) struct RequeueArguments {
    /// The commands, by command_id or by place in the log
    #[arg(value_name = "COMMAND_ID", value_parser = command_ref, conflicts_with_all = FILTERS,
        required_unless_present_any = ["all_parked", "resume", "state", "unrouted", "endpoint", "task", "instance", "user",
            "since", "until", "around"])]
    command_ids: Vec<CommandRef>,
    /// All that are parked, at once
    #[arg(long, conflicts_with = "command_ids", conflicts_with_all = FILTERS)]
    all_parked: bool,
    /// Continue the act with this number, which was interrupted. The rest is an act of its own
    #[arg(long, value_name = "ACT_ID", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64),
        conflicts_with_all = FILTERS, conflicts_with_all = ["command_ids", "all_parked", "dry_run"])]
    resume: Option<u64>,
    /// Those in this state; may be repeated [default: parked]
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(states()))]
    state: Vec<String>,
    /// Those that no queue was bound for: short for --state unrouted
    #[arg(long, conflicts_with = "state")]
    unrouted: bool,
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
    #[command(flatten)]
    period: PeriodArguments,
    #[command(flatten)]
    zone: ZoneArguments,
    /// Only count them
    #[arg(long, conflicts_with_all = ["command_ids", "all_parked"])]
    dry_run: bool,
    /// Do not ask before; needed where there is no terminal to ask on
    #[arg(long)]
    yes: bool,
    /// Commands a second, by a filter
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    #[command(flatten)]
    reason: ReasonArguments,
    /// Print one JSON object per command; by a filter, one in all
    #[arg(long)]
    json: bool,
}

const FILTERS: [&str; 9] =
    ["state", "unrouted", "endpoint", "task", "instance", "user", "since", "until", "around"];

fn states() -> Vec<&'static str> {
    RequeueFilter::possible_states().map(State::as_str).collect()
}

pub(super) async fn requeue(arguments: &RequeueArguments, ledger: &dyn Client) -> Result<Exit, Failure> {
    if let Some(act) = arguments.resume {
        return resume(arguments, ledger, act).await;
    }
    let by = arguments.reason.by();
    let acts = if arguments.all_parked {
        let requeued = ledger.requeue_parked(by).await.context("nothing was requeued")?;
        if requeued.is_empty() {
            say("nothing is parked");
        }
        all_done(requeued)
    } else if arguments.command_ids.is_empty() {
        return by_filter(arguments, ledger).await;
    } else {
        each(&arguments.command_ids, ledger, |id| ledger.requeue(id, by.clone())).await
    };
    tell("requeued", acts, arguments.json)
}

fn filter(arguments: &RequeueArguments) -> Result<RequeueFilter, Failure> {
    let zone = arguments.zone.zone()?;
    let period = arguments.period.period(Timestamp::now(), &zone)?;
    let mut states = arguments.state.clone();
    if states.is_empty() {
        let state = if arguments.unrouted { State::Unrouted } else { State::Parked };
        states.push(state.as_str().to_owned());
    }
    let filter = RequeueFilter {
        states,
        endpoint: arguments.endpoint.clone(),
        instance_id: arguments.instance.clone(),
        task_id: arguments.task.clone(),
        user_id: arguments.user.clone(),
        since: period.since,
        until: period.until,
    };
    // Nobody wants all decisions of months again.
    if filter.wanted().any(|state| state == State::Published) && !filter.is_narrow() {
        return Err(Failure::Usage(
            "--state published alone would publish everything again; narrow it by --since, --until, --around, \
             --endpoint, --task, --instance or --user"
                .to_owned(),
        ));
    }
    Ok(filter)
}

/// What a filter finds before anything is done.
#[derive(Debug, Default)]
struct Survey {
    /// By state, in the order of the filter.
    found: Vec<(State, u64)>,
    /// Pending ones, which are published anyway.
    pending: u64,
}

impl Survey {
    fn total(&self) -> u64 {
        self.found.iter().map(|(_, count)| count).sum()
    }

    fn words(&self) -> String {
        let words = self.found.iter().filter(|(_, count)| *count > 0);
        let words: Vec<_> = words.map(|(state, count)| format!("{count} {}", state.as_str())).collect();
        words.join(", ")
    }
}

async fn by_filter(arguments: &RequeueArguments, ledger: &dyn Client) -> Result<Exit, Failure> {
    let filter = filter(arguments)?;
    let (first, through) = bounds(ledger, &filter).await?;
    let begin = Requeue {
        filter,
        through,
        done_through: first,
        requeued: 0,
        skipped: 0,
        finished: false,
        continues: None,
        continued_by: None,
    };
    let survey = survey(ledger, &begin).await?;
    let total = survey.total();
    if total == 0 || arguments.dry_run {
        if arguments.json {
            json(
                &json!({ "act": null, "matching": total, "pending": survey.pending, "requeued": 0, "skipped": 0,
                "finished": false }),
            )?;
        } else if total == 0 {
            line("nothing to requeue")?;
            hint(ledger, &begin).await?;
        } else {
            let commands = counted(total, "command");
            line(format_args!("{commands} would be requeued: {}", survey.words()))?;
        }
        tell_pending(&survey);
        return Ok(Exit::Done);
    }
    tell_pending(&survey);
    if !arguments.yes && !confirmed(&survey, arguments.rate)? {
        say("nothing was requeued");
        return Ok(Exit::Failed);
    }
    let act = ledger.begin(begin.act(arguments.reason.by())).await.context("nothing was requeued")?;
    run(arguments, ledger, act, begin, Some(total)).await
}

fn tell_pending(survey: &Survey) {
    if survey.pending > 0 {
        let pending = counted(survey.pending, "matching command");
        say(format_args!("skipped: {pending} that are pending, and are published anyway"));
    }
}

/// Tells of commands that only another state would find.
async fn hint(ledger: &dyn Client, begin: &Requeue) -> Result<(), Failure> {
    let wanted: Vec<State> = begin.filter.wanted().collect();
    if wanted.contains(&State::Published) || !begin.filter.is_narrow() {
        return Ok(());
    }
    let published =
        RequeueFilter { states: vec![State::Published.as_str().to_owned()], ..begin.filter.clone() };
    let survey = survey(ledger, &Requeue { filter: published, ..begin.clone() }).await?;
    if survey.total() > 0 {
        let commands = counted(survey.total(), "command");
        say(format_args!("{commands} that match are published; --state published requeues them"));
    }
    Ok(())
}

/// Asks on the terminal.
fn confirmed(survey: &Survey, rate: u32) -> Result<bool, Failure> {
    let commands = counted(survey.total(), "command");
    if !can_ask() {
        return Err(Failure::Usage(format!(
            "{commands} would be requeued ({}); without a terminal to ask on, --yes does it",
            survey.words()
        )));
    }
    let seconds = survey.total().div_ceil(u64::from(rate));
    let seconds = counted(seconds, "second");
    agreed(format_args!(
        "Requeue {commands} ({}) in about {seconds}? Workers get them again, with the same message_id.",
        survey.words()
    ))
}

/// Before which place in the log nothing matches, and the last that may. Later commands are not touched.
async fn bounds(ledger: &dyn Client, filter: &RequeueFilter) -> Result<(Seq, Seq), Failure> {
    let head = ledger.stats().await.context("cannot read the ledger")?.head;
    if filter.since.is_none() && filter.until.is_none() {
        return Ok((0, head));
    }
    let period = Filter { since: filter.since, until: filter.until, limit: 1, ..Filter::default() };
    let first = list(ledger, Filter { after: Some(0), ..period.clone() }).await?;
    let last = list(ledger, period).await?;
    match (first.first(), last.first()) {
        (Some(first), Some(last)) => Ok((first.seq - 1, last.seq.min(head))),
        _ => Ok((head, head)),
    }
}

async fn list(ledger: &dyn Client, filter: Filter) -> Result<Vec<Record>, Failure> {
    Ok(ledger.list(filter).await.context("cannot list the commands")?)
}

/// The next commands after a place that pass the filter but for their state, in order of the log, and up to where these are
/// all. Each look is short, however long the log is: no act may hold up what else uses the ledger.
async fn look(ledger: &dyn Client, of: &Requeue, after: Seq) -> Result<(Vec<Record>, Seq), Failure> {
    let listing = Filter { after: Some(after), ..of.filter.listing(PAGE) };
    let states: Vec<State> = of.filter.wanted().collect();
    let (mut found, mut through) = (Vec::new(), of.through);
    if states.contains(&State::Published) {
        through = through.min(after + WINDOW);
        found = list(ledger, Filter { before: Some(through + 1), ..listing }).await?;
        if found.len() == PAGE {
            through = found.last().map_or(through, |last| last.seq);
        }
    } else {
        // Few have one of these states, wherever they are.
        for state in states {
            let listing = Filter { state: Some(state), before: Some(through + 1), ..listing.clone() };
            let page = list(ledger, listing).await?;
            if page.len() == PAGE {
                through = page.last().map_or(through, |last| last.seq);
            }
            found.extend(page);
        }
        found.sort_by_key(|record| record.seq);
        found.retain(|record| record.seq <= through);
    }
    found.retain(|record| of.filter.is_in_time(record));
    Ok((found, through))
}

async fn survey(ledger: &dyn Client, of: &Requeue) -> Result<Survey, Failure> {
    let found = of.filter.wanted().map(|state| (state, 0)).collect();
    let mut survey = Survey { found, pending: 0 };
    let mut after = of.done_through;
    while after < of.through {
        let (records, through) = look(ledger, of, after).await?;
        for record in records {
            match survey.found.iter_mut().find(|(state, _)| *state == record.state) {
                Some((_, count)) => *count += 1,
                None if record.state == State::Pending => survey.pending += 1,
                None => {}
            }
        }
        after = through;
    }
    Ok(survey)
}

async fn resume(arguments: &RequeueArguments, ledger: &dyn Client, act: u64) -> Result<Exit, Failure> {
    let mut act = act;
    let known = loop {
        let filter = ActFilter { id: Some(act), limit: 1, ..ActFilter::default() };
        let found = ledger.acts(filter).await.context("cannot look the act up")?.pop();
        let known = found.and_then(|found| Requeue::read(found.detail?.get()));
        let Some(known) = known else {
            return Err(anyhow!("the ledger has no act {act} that requeues by a filter").into());
        };
        // A later act has a higher number, so this ends.
        let Some(next) = known.continued_by.filter(|next| *next > act) else { break known };
        say(format_args!("act {act} was continued as act {next}"));
        act = next;
    };
    if known.finished {
        say(format_args!("act {act} is finished; there is nothing to continue"));
        return told(arguments, act, &known);
    }
    let (rest, at) = ledger.resume(act, arguments.reason.by()).await.context("nothing was requeued")?;
    run(arguments, ledger, rest, at, None).await
}

/// Requeues step by step, from where the act is.
async fn run(
    arguments: &RequeueArguments,
    ledger: &dyn Client,
    act: u64,
    mut at: Requeue,
    total: Option<u64>,
) -> Result<Exit, Failure> {
    let rate = u64::from(arguments.rate);
    // Several steps a second, so that it looks even to workers.
    let most = (rate / 5).clamp(1, STEP);
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    let (mut looked, mut next) = (at.done_through, Instant::now());
    let go_on = format!("countersign ledger requeue --resume {act}");
    loop {
        let step = next_step(ledger, act, &at, &mut looked, most).await;
        let done = match step {
            Ok(None) => None,
            Ok(Some(step)) => {
                let wanted = step.places.len() as u64;
                let stopped = || format!("stopped; to continue: {go_on}");
                at = ledger.requeue_step(step).await.with_context(stopped)?;
                Some(wanted)
            }
            Err(failure) => {
                say(format_args!("stopped; to continue: {go_on}"));
                return Err(failure);
            }
        };
        progress(&at, total);
        if at.finished {
            break;
        }
        next = next.max(Instant::now()) + Duration::from_micros(done.unwrap_or(0) * 1_000_000 / rate);
        tokio::select! {
            biased;
            _ = &mut interrupted => {
                clear();
                say(format_args!("interrupted; to continue: {go_on}"));
                told(arguments, act, &at)?;
                return Ok(Exit::Failed);
            }
            () = sleep_until(next) => {}
        }
    }
    clear();
    told(arguments, act, &at)
}

/// The next step with something to do, or the last; `None` if this look found nothing, and there is more to look at.
async fn next_step(
    ledger: &dyn Client,
    act: u64,
    at: &Requeue,
    looked: &mut Seq,
    most: u64,
) -> Result<Option<RequeueStep>, Failure> {
    let mut places = Vec::new();
    let mut through = at.through;
    if *looked < at.through {
        let wanted: Vec<State> = at.filter.wanted().collect();
        let (records, all_through) = look(ledger, at, *looked).await?;
        places.extend(records.iter().filter(|one| wanted.contains(&one.state)).map(|one| one.seq));
        through = all_through;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if places.len() > most {
            places.truncate(most);
            through = places.last().copied().unwrap_or(through);
        }
    }
    *looked = through;
    if places.is_empty() && through < at.through {
        return Ok(None);
    }
    Ok(Some(RequeueStep { act, after: at.done_through, places, done_through: through }))
}

fn progress(at: &Requeue, total: Option<u64>) {
    if is_heard() {
        let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
        draw(format_args!("{}{of} requeued, place {} of {}", at.requeued, at.done_through, at.through));
    }
}

fn clear() {
    if is_heard() {
        draw("");
    }
}

/// Tells how far the act is.
fn told(arguments: &RequeueArguments, act: u64, at: &Requeue) -> Result<Exit, Failure> {
    let Requeue { requeued, skipped, finished, .. } = *at;
    if arguments.json {
        json(&json!({ "act": act, "requeued": requeued, "skipped": skipped, "finished": finished }))?;
    } else {
        let skipped = match skipped {
            0 => String::new(),
            skipped => format!(", {skipped} skipped: pending by then, or gone"),
        };
        line(format_args!("{} requeued{skipped} (act {act})", counted(requeued, "command")))?;
    }
    Ok(Exit::Done)
}
