//! `send`: plays the approval center, for one callback or as a load generator.

mod answer;
mod body;
mod connection;
mod load;
mod plan;
mod tally;
mod template;
mod verify;
mod worker;

use std::{path::PathBuf, time::Duration};

use clap::Args;
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::{
    Trust, block_on, client,
    exit::{Exit, Failure},
    exposed, opened,
    output::{json, line, say, say_lines},
    reachable, url,
    values::duration,
};
use crate::{command::outcome::Kind, config::Loaded};
use answer::post;
use body::Origin;
use load::LoadArguments;
use plan::Plan;
use tally::{Given, Summary, Tally};
use worker::Awaited;

/// The platform waits 5 to 10 s (platform.md#callback-transport). A little more shows answers that come too late for
/// it.
const PATIENCE: Duration = Duration::from_secs(15);

/// Number of refusals printed individually; more than a screenful adds nothing.
const TOLD: u64 = 5;

const EXAMPLES: &str = "\
Examples:
  countersign send                                  approve a made-up task, as from the list
  countersign send --origin card --task PO-77/n2    as from the card; the context names the task
  countersign send --action REJECT --instance PO-77 --task n2 --reason 'too dear'
  countersign send --count 1000 --connections 8     a thousand tasks
  countersign send --wait 10s                       and what does the worker say?
  countersign send --dry-run | countersign decrypt  what is inside an encrypted callback
  countersign send --plain                          see how a plain callback is refused
  countersign send --rate 500 --duration 30s        a load of 500 in each second
  countersign send --duration 10s --connections 64  as much as 64 connections can do
  countersign send --count 20000 --verify --json    see every command arrive at the broker

Token and key are those of the endpoint's first credential in the configuration, or of the
environment (COUNTERSIGN_ACTION_CALLBACK_TOKEN, COUNTERSIGN_ACTION_CALLBACK_KEY), or of files.
With a key the callback is encrypted.

Prints one JSON line per answer; with --wait it has what the worker reported, or null. Exits with 0 if all were answered 200, 1 if one was refused,
69 if one was not answered; then nothing more is sent. With --wait, also 1 if one was not applied in time.

With --rate, --duration, --verify or --summary it is a load generator: it prints no answers,
continues when one is missing, and prints counts and latencies at the end (--json: as one JSON
line). At a rate, latency counts from the time the callback was due, however late it was sent.
--verify reads the commands back, through a queue of its own that is bound to the exchange before
the first callback and takes nothing from the consumers; the broker has twice the work meanwhile.
--verify queue consumes the configured queue itself, which must be empty and without consumers.
Exits with 1 if a command was answered and does not arrive.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Which endpoint's URL, token and key [default: the only one configured]
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Where the approver acts, which decides what the callback carries
    #[arg(long, value_enum, default_value_t = Origin::List)]
    origin: Origin,
    /// The action_type
    #[arg(long, value_name = "TYPE", default_value = "APPROVE")]
    action: String,
    /// The action_context, verbatim [default: for a card and for a JSON context, one that names the task; else none]
    #[arg(long, value_name = "TEXT")]
    context: Option<String>,
    /// The approver's comment
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The approver's user_id
    #[arg(long, value_name = "ID", default_value = "demo-user")]
    user: String,
    /// The instance_id [default: the one that --context names, else a fresh one]
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// The task_id, or the id of a search hit [default: as for --instance]; with --count, -1, -2 … are added
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// The message_id of a card [default: a fresh one]; with --count, it goes up
    #[arg(long, value_name = "NUMBER")]
    message_id: Option<u64>,
    /// The approval_code [default: the endpoint's first, else "demo"; a card has none]
    #[arg(long, value_name = "CODE")]
    approval_code: Option<String>,
    /// Where to send: the whole URL, or only scheme, host and port [default: http.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// For https://: trust the authorities in this PEM file [default: the system's; without --url, any certificate]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Read the action_callback_token from this file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Read the action_callback_key from this file
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Send it unencrypted although there is a key
    #[arg(long, conflicts_with = "key_file")]
    plain: bool,
    /// Send this many callbacks, each for a task of its own [default: 1; unlimited with --rate or --duration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Number of connections [default: 1; as a load generator 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: Option<u16>,
    /// After each answer wait this long for what the worker reports, by the ledger of the configuration
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["rate", "duration", "verify", "summary", "dry_run"])]
    wait: Option<Duration>,
    /// Print the bodies, one a line, and send nothing. A plain body shows the token
    #[arg(long)]
    dry_run: bool,
    /// Print the summary as JSON too, as the last line on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArguments,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct LastLine<'a> {
    summary: &'a Summary,
}

pub(super) fn run(arguments: &Arguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let plan = Plan::new(arguments, loaded)?;
    if arguments.dry_run {
        for number in 0..arguments.count.unwrap_or(1) {
            line(String::from_utf8_lossy(&plan.body(number)))?;
        }
        return Ok(Exit::Done);
    }
    let path = format!("/callbacks/{}", plan.endpoint_name);
    let url = match &arguments.url {
        Some(text) => url(text, &path)?,
        None => {
            let http = loaded.http()?;
            if http.listen.port() == 0 {
                return Err(Failure::Usage("http.listen has no fixed port; use --url".to_owned()));
            }
            let scheme = if http.tls.is_some() { "https" } else { "http" };
            url(&format!("{scheme}://{}", reachable(http.listen)), &path)?
        }
    };
    if let Some(exposed) = exposed(&url, plan.key.is_some()) {
        say(format_args!("warning: {url} is {exposed}"));
    }
    let amqp = if arguments.load.verifies() { Some(&loaded.amqp()?.broker) } else { None };
    block_on(async {
        let (summary, all_applied) = if arguments.load.wanted() {
            (load::run(&plan, &url, amqp).await?, true)
        } else {
            let trust = Trust::of(arguments.ca_file.as_deref(), arguments.url.is_none());
            let worker = match arguments.wait {
                Some(wait) => Some(Awaited::new(opened::client(loaded).await?, wait)),
                None => None,
            };
            send(&plan, &url, &client(&url, trust, PATIENCE)?, worker.as_ref()).await?
        };
        if arguments.json {
            json(&LastLine { summary: &summary })?;
        } else {
            say_lines(&summary.words());
        }
        Ok(if all_applied { summary.exit() } else { Exit::Failed })
    })
}

/// Sends the callbacks and prints each answer. Stops at the first missing answer. Returns false as well if a worker that was
/// waited for has not applied its command.
async fn send(
    plan: &Plan<'_>,
    url: &reqwest::Url,
    client: &reqwest::Client,
    worker: Option<&Awaited>,
) -> Result<(Summary, bool), Failure> {
    let count = plan.arguments.count.unwrap_or(1);
    let connections = plan.arguments.connections.unwrap_or(1);
    let (mut tally, mut all_applied) = (Tally::start(), true);
    let mut answers = stream::iter(0..count)
        .map(async |number| {
            let answer = post(client, url, plan.task_told(number), plan.body(number)).await;
            match worker {
                Some(worker) => worker.report(answer).await,
                None => Ok(answer),
            }
        })
        .buffer_unordered(usize::from(connections));
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        json(&answer)?;
        match answer.http_status {
            Some(status) => {
                let latency = Duration::from_secs_f64(answer.elapsed_ms / 1e3);
                tally.answered(status, &answer.outcome, latency);
                let applied = Some(Kind::Applied.as_str());
                all_applied &= answer.worker.as_ref().is_none_or(|worker| worker.outcome == applied);
            }
            None => drop(tally.unanswered(answer.message.as_deref().unwrap_or_default())),
        }
        if tally.failures() <= TOLD && answer.http_status != Some(200) {
            say(answer.words());
        }
        if answer.http_status.is_none() {
            break;
        }
    }
    drop(answers);
    let given = Given { run: plan.run.clone(), connections: u64::from(connections), rate_wanted: None };
    let unsent = count - tally.sent();
    Ok((tally.summary(given, unsent, None), all_applied))
}
