//! `send`: plays the approval center, for one callback or as a load generator.

mod body;
mod connection;
mod load;
mod tally;
mod template;
mod verify;

use std::{
    borrow::Cow,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use serde_with::skip_serializing_none;

use super::{
    Trust, block_on, client,
    credentials::{choose, envelope, random, secret_from},
    exit::{Exit, Failure},
    exposed,
    output::{json, line, say, say_lines},
    reachable, url,
};
use crate::{
    callback::cipher::Key, config::Loaded, intake::EndpointSettings, proxy, secret::Secret,
    telemetry::log::chain,
};
use body::{Decision, Origin};
use load::LoadArguments;
use tally::{Given, Summary, Tally, millis};
use template::{Marks, Template};

/// The platform itself waits 5 to 10 s (platform.md#callback-transport); a little more shows an answer that comes too
/// late for it.
const PATIENCE: Duration = Duration::from_secs(15);

/// Refusals that are told in words; more than a screen of them tells nothing new.
const TOLD: u64 = 5;

const EXAMPLES: &str = "\
Examples:
  countersign send                                  approve a made-up task, as from the list
  countersign send --origin card --task PO-77/n2    as from the bot's card, with a context that names the task
  countersign send --action REJECT --instance PO-77 --task n2 --reason 'too dear'
  countersign send --count 1000 --connections 8     a thousand tasks
  countersign send --dry-run | countersign decrypt  what is inside an encrypted callback
  countersign send --plain                          see how a plain callback is refused
  countersign send --rate 500 --duration 30s        a load of 500 in each second
  countersign send --duration 10s --connections 64  as much as 64 connections can do
  countersign send --count 20000 --verify --json    see every command arrive at the broker

Token and key are those of the endpoint's first credential in the configuration, or of the
environment (COUNTERSIGN_ACTION_CALLBACK_TOKEN, COUNTERSIGN_ACTION_CALLBACK_KEY), or of files.
With a key the callback is encrypted.

Prints one JSON line per answer. Exits with 0 if all were answered 200, 1 if one was refused,
69 if one was not answered; then nothing more is sent.

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
    /// Print the bodies, one a line, and send nothing. A plain body shows the token
    #[arg(long)]
    dry_run: bool,
    /// Print the summary as JSON too, as the last line on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArguments,
}

/// How one callback was answered.
#[skip_serializing_none]
#[derive(Debug, Serialize)]
struct Answer {
    /// Absent if neither the callback nor its context names one, as far as is known here: what a context was registered
    /// for, the service alone knows.
    task_id: Option<String>,
    /// Absent if there was no answer.
    http_status: Option<u16>,
    /// `accepted`, `duplicate`, a reason, `unanswered`, or `unknown` for an answer that is not countersign's.
    outcome: String,
    command_id: Option<String>,
    /// The sentence for the approver, or why there was no answer.
    message: Option<String>,
    elapsed_ms: f64,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct LastLine<'a> {
    summary: &'a Summary,
}

/// All that does not change from one callback to the next.
struct Plan<'a> {
    arguments: &'a Arguments,
    endpoint: Option<&'a EndpointSettings>,
    endpoint_name: String,
    token: Secret,
    key: Option<Secret>,
    /// What fresh ids begin with: two runs do not get in each other's way.
    run: String,
    first_message_id: u64,
    /// Instance and task that `--context` names.
    named: (Option<String>, Option<String>),
}

pub(super) fn run(arguments: &Arguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let plan = plan(arguments, loaded)?;
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
        let summary = if arguments.load.wanted() {
            load::run(&plan, &url, amqp).await?
        } else {
            let trust = Trust::of(arguments.ca_file.as_deref(), arguments.url.is_none());
            send(&plan, &url, &client(&url, trust, PATIENCE)?).await?
        };
        if arguments.json {
            json(&LastLine { summary: &summary })?;
        } else {
            say_lines(&summary.words());
        }
        Ok(summary.exit())
    })
}

fn plan<'a>(arguments: &'a Arguments, loaded: &'a Loaded) -> Result<Plan<'a>, Failure> {
    let by_file = arguments.token_file.is_some();
    let endpoint = match loaded.endpoints() {
        Ok(endpoints) => match choose(endpoints, arguments.endpoint.as_deref()) {
            Ok(endpoint) => Some(endpoint),
            // With a token at hand, an endpoint of another machine's configuration will do.
            Err(_) if by_file && (endpoints.is_empty() || arguments.endpoint.is_some()) => None,
            Err(failure) => return Err(failure),
        },
        Err(_) if by_file => None,
        Err(faults) => return Err(faults.into()),
    };
    let credential = endpoint.and_then(|endpoint| endpoint.credentials.first());
    let token = match (&arguments.token_file, credential) {
        (Some(path), _) => secret_from(path, "--token-file")?,
        (None, Some(credential)) => credential.action_callback_token.clone(),
        (None, None) => return Err(Failure::Usage("there is no token; use --token-file".to_owned())),
    };
    let key = match &arguments.key_file {
        Some(path) => Some(secret_from(path, "--key-file")?),
        None => credential.and_then(|credential| credential.action_callback_key.clone()),
    };
    let name = endpoint.map(|endpoint| endpoint.name.clone()).or_else(|| arguments.endpoint.clone());
    let fresh = u64::from_be_bytes(random());
    let plan = Plan {
        arguments,
        endpoint,
        endpoint_name: name.unwrap_or_else(|| "default".to_owned()),
        token,
        key: key.filter(|_| !arguments.plain),
        run: format!("demo-{:08x}", fresh >> 32),
        // 19 digits, as the captured one: beyond what a double holds exactly.
        first_message_id: arguments
            .message_id
            .unwrap_or(7_000_000_000_000_000_000 + fresh % 1_000_000_000_000_000_000),
        named: (None, None),
    };
    let named = match plan.endpoint.filter(|_| arguments.context.is_some()) {
        Some(endpoint) => body::named(endpoint, &plan.decision_about(String::new(), plan.first_message_id)),
        None => (None, None),
    };
    contradiction(arguments, &named)?;
    Ok(Plan { named, ..plan })
}

/// A callback whose own ids say something else than its context is refused whatever else it says; nobody means to send it.
fn contradiction(arguments: &Arguments, named: &(Option<String>, Option<String>)) -> Result<(), Failure> {
    for (flag, what, given, named) in [
        ("--instance", "the instance", &arguments.instance, &named.0),
        ("--task", "the task", &arguments.task, &named.1),
    ] {
        if let (Some(given), Some(named)) = (given, named)
            && given != named
        {
            return Err(Failure::Usage(format!(
                "{flag} says {given:?} and --context names {what} {named:?}; countersign refuses such a callback as \
                 context_invalid. Leave one of the two out: without --context, one that fits is made"
            )));
        }
    }
    let many = arguments.count.is_some_and(|count| count > 1) || arguments.load.wanted();
    if let (true, Some(task), Origin::List | Origin::Search) = (many, &named.1, arguments.origin) {
        return Err(Failure::Usage(format!(
            "each of many callbacks is about a task of its own, and --context names {task:?} for all of them; \
             countersign refuses such callbacks as context_invalid. Leave --context out: one that fits is made for each"
        )));
    }
    Ok(())
}

impl Plan<'_> {
    /// The callback with this number, counted from 0.
    fn decision(&self, number: u64) -> Decision {
        let task = match self.arguments.count {
            Some(2..) => format!("{}{}", self.task_prefix(), number + 1),
            _ => self.task(),
        };
        self.decision_about(task, self.first_message_id.wrapping_add(number))
    }

    /// The task that the callback with this number names; `None` if it carries no task, and its context is not known to
    /// name one.
    fn task_told(&self, number: u64) -> Option<String> {
        match (self.arguments.origin, &self.arguments.context) {
            (Origin::Card, Some(_)) => self.named.1.clone(),
            _ => Some(self.decision(number).task),
        }
    }

    fn task(&self) -> String {
        let given = self.arguments.task.as_ref().or(self.named.1.as_ref());
        given.cloned().unwrap_or_else(|| format!("{}-task", self.run))
    }

    /// What the task ids of many callbacks begin with; a number follows.
    fn task_prefix(&self) -> String {
        format!("{}-", self.task())
    }

    fn decision_about(&self, task: String, message_id: u64) -> Decision {
        let arguments = self.arguments;
        let origin = arguments.origin;
        let instance = arguments.instance.as_ref().or(self.named.0.as_ref());
        let instance = instance.unwrap_or(&self.run).clone();
        let formats = self.endpoint.map_or(&[][..], |endpoint| &endpoint.context.formats);
        let context = arguments.context.clone().or_else(|| body::context(origin, formats, &instance, &task));
        let approval_code = arguments.approval_code.clone().or_else(|| match origin {
            Origin::Card => None,
            Origin::List | Origin::Search => Some(
                self.endpoint
                    .and_then(|endpoint| endpoint.approval_codes.first().cloned())
                    .unwrap_or_else(|| "demo".to_owned()),
            ),
        });
        Decision {
            action: arguments.action.clone(),
            user: arguments.user.clone(),
            approval_code,
            instance,
            task,
            message_id,
            context,
            reason: arguments.reason.clone(),
        }
    }

    /// The body as it goes over the wire.
    fn body(&self, number: u64) -> Vec<u8> {
        let plain = body::render(self.arguments.origin, &self.decision(number), self.token.expose());
        match &self.key {
            Some(key) => envelope(key, &plain).into_bytes(),
            None => plain,
        }
    }

    /// The bodies of many callbacks.
    fn template(&self) -> Template {
        let marks = Marks::draw();
        let decision =
            self.decision_about(format!("{}{}", self.task_prefix(), marks.number), marks.message_id);
        let plain = body::render(self.arguments.origin, &decision, self.token.expose());
        Template::new(&plain, &marks, self.first_message_id, self.key.as_ref().map(Key::derive))
    }
}

/// Sends the callbacks and prints each answer; ends at the first that does not come.
async fn send(plan: &Plan<'_>, url: &reqwest::Url, client: &reqwest::Client) -> Result<Summary, Failure> {
    let count = plan.arguments.count.unwrap_or(1);
    let connections = plan.arguments.connections.unwrap_or(1);
    let mut tally = Tally::start();
    let mut answers = stream::iter(0..count)
        .map(|number| post(client, url, plan.task_told(number), plan.body(number)))
        .buffer_unordered(usize::from(connections));
    while let Some(answer) = answers.next().await {
        json(&answer)?;
        match answer.http_status {
            Some(status) => {
                let latency = Duration::from_secs_f64(answer.elapsed_ms / 1e3);
                tally.answered(status, &answer.outcome, latency);
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
    Ok(tally.summary(given, unsent, None))
}

async fn post(
    client: &reqwest::Client,
    url: &reqwest::Url,
    task_id: Option<String>,
    body: Vec<u8>,
) -> Answer {
    let began = Instant::now();
    let request = client.post(url.clone()).header("content-type", "application/json").body(body);
    let answered = async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok::<_, reqwest::Error>((status, response.bytes().await?))
    };
    match answered.await {
        Ok((status, bytes)) => read(task_id, status, &bytes, millis(began.elapsed())),
        Err(error) => Answer {
            task_id,
            http_status: None,
            outcome: "unanswered".to_owned(),
            command_id: None,
            message: Some(format!(
                "not reached{}: {}",
                proxy::words(url.as_str()),
                chain(&error.without_url())
            )),
            elapsed_ms: millis(began.elapsed()),
        },
    }
}

fn read(task_id: Option<String>, status: u16, bytes: &[u8], elapsed_ms: f64) -> Answer {
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Answer {
        task_id,
        http_status: Some(status),
        outcome: outcome_of(status, bytes).into_owned(),
        command_id: text("/data/command_id"),
        message: text("/message"),
        elapsed_ms,
    }
}

/// The word of an answer: `accepted` or `duplicate`, or the reason of a refusal.
fn outcome_of(status: u16, bytes: &[u8]) -> Cow<'_, str> {
    /// Of both kinds of answers, what tells them apart.
    #[derive(Default, serde::Deserialize)]
    struct Words<'a> {
        #[serde(borrow)]
        msg: Option<Cow<'a, str>>,
        #[serde(borrow)]
        data: Option<Data<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        status: Option<Cow<'a, str>>,
    }
    let words: Words<'_> = serde_json::from_slice(bytes).unwrap_or_default();
    let word = if status == 200 { words.data.and_then(|data| data.status) } else { words.msg };
    word.unwrap_or(Cow::Borrowed("unknown"))
}

impl Answer {
    fn words(&self) -> String {
        let message = self.message.as_deref().unwrap_or_default();
        match self.http_status {
            Some(status) => format!("countersign: refused with {status} {}: {message}", self.outcome),
            None => format!("countersign: no answer: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whatever_it_is() {
        let body = br#"{"code":0,"msg":"success","data":{"command_id":"0199","status":"duplicate"}}"#;
        let answer = read(Some("t".to_owned()), 200, body, 1.0);
        assert_eq!((answer.outcome.as_str(), answer.command_id.as_deref()), ("duplicate", Some("0199")));
        let body = br#"{"code":40300,"msg":"unauthenticated","message":"no","without_prefix":"true"}"#;
        let answer = read(Some("t".to_owned()), 403, body, 1.0);
        assert_eq!((answer.outcome.as_str(), answer.message.as_deref()), ("unauthenticated", Some("no")));
        assert_eq!(read(Some("t".to_owned()), 502, b"<html>", 1.0).outcome, "unknown");
    }

    /// Answers one request with these bytes; `None` hangs up.
    async fn answering(answer: Option<&'static str>) -> reqwest::Url {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"the body") {
                let mut some = [0; 1024];
                let count = stream.read(&mut some).await.unwrap();
                assert!(count > 0, "the whole request comes");
                seen.extend_from_slice(&some[..count]);
            }
            let head = String::from_utf8_lossy(&seen).to_lowercase();
            assert!(head.starts_with("post /callbacks/a http/1.1"), "{head}");
            assert!(head.contains("content-type: application/json"), "{head}");
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        format!("http://{address}/callbacks/a").parse().unwrap()
    }

    async fn posted(url: &reqwest::Url) -> Answer {
        rustls::crypto::ring::default_provider().install_default().ok();
        post(&client(url, Trust::System, PATIENCE).unwrap(), url, Some("t".to_owned()), b"the body".to_vec())
            .await
    }

    #[tokio::test]
    async fn a_post_ends_in_an_answer_or_in_none() {
        let url = answering(Some(
            "HTTP/1.1 422 X\r\ncontent-length: 34\r\n\r\n{\"msg\":\"malformed\",\"message\":\"no\"}",
        ))
        .await;
        let answer = posted(&url).await;
        assert_eq!((answer.http_status, answer.outcome.as_str()), (Some(422), "malformed"));
        let answer = posted(&answering(None).await).await;
        assert_eq!((answer.http_status, answer.outcome.as_str()), (None, "unanswered"));
        let answer = posted(&"http://127.0.0.1:1/".parse().unwrap()).await;
        assert!(answer.message.unwrap().contains("refused"));
    }
}
