//! `refusals`: why approvers saw 提交失败, read from the ledger, whether or not `serve` runs.

use std::borrow::Cow;

use anyhow::{Context, anyhow};
use clap::{Args, builder::PossibleValuesParser};

use super::{
    block_on,
    exit::{Exit, Failure},
    opened,
    output::{json, lines, say, table},
    time::{Period, PeriodArguments, ZoneArguments},
};
use crate::{
    config::Loaded,
    http::answer::Rule,
    intake::{self, NO_CALLBACK, Refusal},
    ledger::{Client, ContextTask, Filter, KeptRefusal, RefusalFilter},
    time::{Timestamp, Zone},
};

const EXAMPLES: &str = "\
Examples:
  countersign refusals --user zhang3 --around 10:42    why did zhang3 see 提交失败 at about 10:42?
  countersign refusals --since '2 h ago' --local-time
  countersign refusals --reason unauthenticated --json | jq -r .detail | sort | uniq -c
  countersign refusals 4711                            one of them, whole

Reads the ledger, whether or not the service runs. The sender of an unauthenticated
callback is not known: with --user those of the same time are counted, with the command that lists
them. The newest ledger.refusals_kept are kept, of strangers and of others each.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Only this one, by its id, in full
    #[arg(value_name = "ID", exclusive = false, value_parser = clap::value_parser!(u64).range(1..))]
    id: Option<u64>,
    /// Only by this operator
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only about this task, by the callback itself or by its context
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// Only about this instance, by the callback itself or by its context
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// Only from this card: the message_id of the callback
    #[arg(long, value_name = "ID", value_parser = super::values::card)]
    message_id: Option<String>,
    /// Only for this reason
    #[arg(long, value_name = "REASON", value_parser = PossibleValuesParser::new(words()))]
    reason: Option<String>,
    /// Only of this endpoint, by the name in the URL
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only from this peer, as the column PEER has it
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<String>,
    #[command(flatten)]
    period: PeriodArguments,
    #[command(flatten)]
    zone: ZoneArguments,
    /// The next page: only ids below this
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    before: Option<u64>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Print one JSON object per refused callback instead of the table
    #[arg(long)]
    json: bool,
}

fn words() -> Vec<&'static str> {
    Refusal::ALL.iter().copied().map(Refusal::as_str).chain(NO_CALLBACK).collect()
}

pub(super) fn run(arguments: &Arguments, loaded: &Loaded) -> Result<Exit, Failure> {
    block_on(list(arguments, loaded))
}

async fn list(arguments: &Arguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let zone = arguments.zone.zone()?;
    let period = arguments.period.period(Timestamp::now(), &zone)?;
    let ledger = opened::client(loaded).await?;
    let limit = usize::try_from(arguments.limit).unwrap_or(usize::MAX - 1);
    let filter = RefusalFilter {
        id: arguments.id,
        reason: arguments.reason.clone(),
        endpoint: arguments.endpoint.clone(),
        peer: arguments.peer.clone(),
        user_id: arguments.user.clone(),
        nobody: false,
        instance_id: arguments.instance.clone(),
        task_id: arguments.task.clone(),
        message_id: arguments.message_id.clone(),
        since: period.since,
        until: period.until,
        before: arguments.before,
        // One more, to detect a next page.
        limit: limit + 1,
    };
    let look = async |filter: RefusalFilter| {
        ledger.refusals(filter).await.context("cannot list the refused callbacks")
    };
    let mut found = look(filter.clone()).await?;
    if let Some(id) = arguments.id
        && found.is_empty()
    {
        return Err(anyhow!("the ledger has no refused callback {id}; only the newest are kept").into());
    }
    let more = found.len() > limit;
    found.truncate(limit);
    if arguments.json {
        found.iter().try_for_each(json)?;
        return Ok(Exit::Done);
    }
    // Faults elsewhere in the configuration do not affect past refusals.
    let intake = loaded.intake().ok();
    if let (Some(_), [one]) = (arguments.id, &*found) {
        lines(table(["", ""], &whole(one, &zone)).trim_start_matches('\n'))?;
    } else if !found.is_empty() {
        let rows: Vec<_> = found.iter().map(|one| row(one, &zone)).collect();
        lines(&table(HEAD, &rows))?;
    }
    explain(&found, intake);
    if found.is_empty() {
        say("no refused callback matches");
    }
    if let (true, Some(last)) = (more, found.last()) {
        say(format_args!("the newest {}; continue with --before {}", found.len(), last.id));
    }
    if arguments.user.is_some() || arguments.task.is_some() || arguments.instance.is_some() {
        let nobodys = RefusalFilter { nobody: true, limit: 1000, ..strangers(&filter) };
        hint(arguments, period, &zone, look(nobodys).await?.len(), &*ledger).await?;
    }
    Ok(Exit::Done)
}

/// The filter without the fields that an unread callback does not have.
fn strangers(filter: &RefusalFilter) -> RefusalFilter {
    RefusalFilter { user_id: None, task_id: None, instance_id: None, message_id: None, ..filter.clone() }
}

const HEAD: [&str; 9] = ["REFUSED", "REASON", "USER", "INSTANCE", "TASK", "ENDPOINT", "PEER", "ID", "CAUSE"];

fn row(one: &KeptRefusal, zone: &Zone) -> [String; 9] {
    let refused = &one.refused;
    let dash = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".to_owned());
    let named = refused.context_task.as_ref();
    let of_context =
        |member: fn(&ContextTask) -> &Option<String>| named.and_then(|named| member(named).as_ref());
    [
        zone.show(refused.refused_at),
        refused.reason.clone(),
        dash(refused.user_id.as_ref()),
        dash(refused.instance_id.as_ref().or(of_context(|named| &named.instance_id))),
        dash(refused.task_id.as_ref().or(refused.search_id.as_ref()).or(of_context(|named| &named.task_id))),
        refused.endpoint.clone(),
        dash(refused.peer.as_ref()),
        one.id.to_string(),
        dash(refused.detail.as_ref()),
    ]
}

fn whole(one: &KeptRefusal, zone: &Zone) -> Vec<[String; 2]> {
    let refused = &one.refused;
    let named = refused.context_task.clone().unwrap_or_default();
    let sender = if refused.stranger { "a stranger" } else { "knows key or token" };
    [
        ("refused", Some(zone.show(refused.refused_at))),
        ("reason", Some(refused.reason.clone())),
        ("cause", refused.detail.clone()),
        ("endpoint", Some(refused.endpoint.clone())),
        ("peer", refused.peer.clone()),
        ("sender", Some(sender.to_owned())),
        ("body", Some(format!("{} bytes read", refused.body_bytes))),
        ("action", refused.action_type.clone()),
        ("user", refused.user_id.clone()),
        ("approval code", refused.approval_code.clone()),
        ("instance", refused.instance_id.clone()),
        ("task", refused.task_id.clone()),
        ("searched task", refused.search_id.clone()),
        ("card", refused.message_id.clone()),
        ("context: instance", named.instance_id),
        ("context: task", named.task_id),
        ("context: round", named.round),
        ("context: business key", named.business_key),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some([name.to_owned(), value?]))
    .collect()
}

/// Explains each reason: the sentence the approver read, and what to do.
fn explain(found: &[KeptRefusal], intake: Option<&intake::Settings>) {
    let mut told: Vec<&str> = Vec::new();
    for one in found {
        let refused = &one.refused;
        if told.contains(&&*refused.reason) {
            continue;
        }
        told.push(&refused.reason);
        let reason = &refused.reason;
        match reason.parse::<Refusal>() {
            Ok(refusal) => {
                let sentence = sentence(intake, &refused.endpoint, refusal);
                let whose = match refusal {
                    Refusal::Declined => "the approver read the worker's message or, without one,",
                    _ => "the approver read",
                };
                say(format_args!("{reason}: {whose} \u{201c}{sentence}\u{201d} {}", refusal.advice()));
            }
            Err(_) => say(format_args!(
                "{reason}: no callback, so no approver saw it; somebody asked for a path by another method than POST"
            )),
        }
    }
}

/// The endpoint's current sentence for approvers. Sentences configured at the time are not kept.
fn sentence(intake: Option<&intake::Settings>, endpoint: &str, refusal: Refusal) -> Cow<'static, str> {
    let (locale, own) = intake.map(|intake| intake.words(endpoint, refusal)).unwrap_or_default();
    own.map_or_else(|| Rule::of(refusal).sentence(locale).into(), |own| own.to_string().into())
}

/// Mentions what else happened in the period: callbacks with unknown senders, and accepted commands.
async fn hint(
    arguments: &Arguments,
    period: Period,
    zone: &Zone,
    nobodys: usize,
    ledger: &dyn Client,
) -> Result<(), Failure> {
    let mut span = String::new();
    for (flag, time) in [("--since", period.since), ("--until", period.until)] {
        if let Some(time) = time {
            span.push_str(&format!(" {flag} {}", zone.show(time)));
        }
    }
    if nobodys > 0 {
        let count = if nobodys == 1000 { "1000 or more".to_owned() } else { nobodys.to_string() };
        say(format_args!("{count} more without a known sender: countersign refusals{span}"));
    }
    let filter = Filter {
        user_id: arguments.user.clone(),
        task_id: arguments.task.clone(),
        instance_id: arguments.instance.clone(),
        since: period.since,
        until: period.until,
        limit: 1,
        ..Filter::default()
    };
    if !ledger.list(filter).await.context("cannot list the commands")?.is_empty() {
        let mut who = String::new();
        for (flag, id) in
            [("--user", &arguments.user), ("--task", &arguments.task), ("--instance", &arguments.instance)]
        {
            if let Some(id) = id {
                who.push_str(&format!(" {flag} '{id}'"));
            }
        }
        say(format_args!("there are accepted ones as well: countersign ledger list{who}{span}"));
    }
    Ok(())
}
