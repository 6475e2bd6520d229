//! `emulator`: a stand-in for the approval center.

mod follow;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::dev::ServerHandle;
use anyhow::{Context, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

pub(super) use follow::arrived;

use super::{
    Trust, block_on, client,
    exit::{Exit, Failure},
    output::{json, line, lines, say, say_lines, table},
    reachable, url,
};
use crate::{
    amqp,
    config::Loaded,
    emulator::{Emulator, Settings, serve},
    telemetry::log,
};

const EXAMPLES: &str = "\
Examples:
  countersign emulator                                   run it
  countersign emulator press --instance PO-77 --task n1  press the button APPROVE of a task
  countersign emulator press --message 709… --action REJECT --reason 'too dear'
  countersign emulator state                             what the center has
  countersign emulator scenario double-tap               play a scenario of `countersign dev`
  countersign emulator --follow --config countersign.toml
                                                         show the commands of a real service as well

With it `countersign center …` works without a tenant, if the configuration says
  [approval_center]
  base_url = \"http://127.0.0.1:8900\"
  app_id = \"cli_emulator\"
  app_secret = \"emulator-secret\"
It behaves as the platform does, traps included, keeps everything in memory, and prints `ready` on
stderr once it listens.";

/// Longer than the emulator itself waits for the answer to a callback, and than a scenario takes.
const PATIENCE: Duration = Duration::from_secs(60);

const HERE: &str = "http://127.0.0.1:8900";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<EmulatorCommand>,
    /// With a broker, a service and a worker: the same as `countersign dev`
    #[arg(long)]
    demo: bool,
    /// Show on the page what the service of the configuration publishes, and what its workers report; takes nothing from them
    #[arg(long, conflicts_with = "demo")]
    follow: bool,
    #[command(flatten)]
    stand_in: StandInArguments,
}

impl Arguments {
    /// How the emulator of a demo behaves, if one is wanted.
    pub(super) fn demo(&self) -> Option<&StandInArguments> {
        (self.demo && self.command.is_none()).then_some(&self.stand_in)
    }
}

/// How the emulator behaves, by itself or with all around it.
#[derive(Debug, Args)]
pub(super) struct StandInArguments {
    /// IP address and port; 0 takes a free one, which is printed
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8900")]
    listen: SocketAddr,
    /// Lifetime of an access token
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = super::values::duration)]
    token_lifetime: Duration,
    /// Calls of one API allowed per second
    #[arg(long, value_name = "N", default_value_t = 50)]
    per_second: u32,
    /// Calls of one API allowed per minute
    #[arg(long, value_name = "N", default_value_t = 1000)]
    per_minute: u32,
    /// A scope that the app does not have; may be repeated
    #[arg(long, value_name = "SCOPE")]
    without_scope: Vec<String>,
    /// How long it waits for the answer to a callback: 10 s at Feishu, 5 s at Lark
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::values::duration)]
    callback_timeout: Duration,
    /// A user of the tenant, by user_id; may be repeated [default: zhang3, li4 and wang5]
    #[arg(long, value_name = "ID")]
    user: Vec<String>,
    /// How far its clock is ahead of this machine's
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = super::values::duration)]
    clock_ahead: Duration,
    /// A name under which other machines reach it; may be repeated. Addresses and localhost always do
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum EmulatorCommand {
    /// Press a button of a task or a card: the real callback is sent
    Press(PressArguments),
    /// Print what the center has, as JSON
    State(StateArguments),
    /// Play a scenario of a running `countersign dev`, and print what is expected beside what was seen
    Scenario(ScenarioArguments),
}

/// Where the approver acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Origin {
    /// The list of pending tasks
    List,
    /// A search hit
    Search,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign emulator press --instance PO-77 --task n1
  countersign emulator press --message 7093141256317 --action REJECT --reason 'too dear'
  countersign emulator press --instance PO-77 --task n1 --user li4 --json")]
struct PressArguments {
    /// The instance of the task
    #[arg(long, value_name = "ID", requires = "task", required_unless_present = "message")]
    instance: Option<String>,
    /// The task
    #[arg(long, value_name = "ID", requires = "instance")]
    task: Option<String>,
    /// Or a card, by its message_id
    #[arg(long, value_name = "ID", conflicts_with = "instance")]
    message: Option<String>,
    /// Which button
    #[arg(long, value_name = "TYPE", default_value = "APPROVE")]
    action: String,
    /// The comment
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Press it as another user, by user_id
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Where the task was found
    #[arg(long, value_enum, default_value_t = Origin::List)]
    origin: Origin,
    /// URL of the emulator
    #[arg(long, value_name = "URL", default_value = HERE)]
    url: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign emulator state | jq .instances")]
struct StateArguments {
    /// URL of the emulator
    #[arg(long, value_name = "URL", default_value = HERE)]
    url: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign emulator scenario               list them
  countersign emulator scenario double-tap    play one")]
struct ScenarioArguments {
    /// Its name; without one, all are listed
    name: Option<String>,
    /// URL of the emulator
    #[arg(long, value_name = "URL", default_value = HERE)]
    url: String,
}

pub(super) fn run(arguments: &Arguments, load: impl FnOnce() -> Loaded) -> Result<Exit, Failure> {
    match &arguments.command {
        None if arguments.follow => {
            let broker = load().amqp()?.broker.clone();
            block_on(stand_in(&arguments.stand_in, Some(broker)))
        }
        None => block_on(stand_in(&arguments.stand_in, None)),
        Some(EmulatorCommand::Press(arguments)) => block_on(press(arguments)),
        Some(EmulatorCommand::State(arguments)) => block_on(async {
            let told = ask(&arguments.url, "/emulator/state", None).await?;
            lines(&serde_json::to_string_pretty(&told.1).context("cannot express the state as JSON")?)?;
            line("")?;
            Ok(Exit::Done)
        }),
        Some(EmulatorCommand::Scenario(arguments)) => block_on(scenario(arguments)),
    }
}

/// An emulator that listens.
pub(super) struct Listening {
    pub(super) emulator: Arc<Emulator>,
    /// Where it is reached from this machine.
    pub(super) address: SocketAddr,
    settings: Settings,
    handle: ServerHandle,
    server: JoinHandle<io::Result<()>>,
}

impl Listening {
    pub(super) fn start(arguments: &StandInArguments) -> Result<Self, Failure> {
        let listener = TcpListener::bind(arguments.listen)
            .with_context(|| format!("cannot listen on {}", arguments.listen))?;
        let address = listener.local_addr().context("cannot read the listening address")?;
        let mut settings = Settings {
            token_lifetime: arguments.token_lifetime,
            per_second: arguments.per_second,
            per_minute: arguments.per_minute,
            missing_scopes: arguments.without_scope.clone(),
            callback_timeout: arguments.callback_timeout,
            clock_ahead: arguments.clock_ahead,
            hosts: arguments.host.clone(),
            ..Settings::default()
        };
        if !arguments.user.is_empty() {
            settings.users = arguments.user.clone();
        }
        if !address.ip().is_loopback() {
            say("anybody who reaches this address can have callbacks sent to any URL; use it for tests only");
        }
        let emulator = Emulator::new(settings.clone()).context("cannot make the client for callbacks")?;
        let server = serve(emulator.clone(), listener).context("cannot serve")?;
        let handle = server.handle();
        Ok(Self { emulator, address: reachable(address), settings, handle, server: tokio::spawn(server) })
    }

    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.handle.stop(false).await;
        self.server.await.context("the server panicked")?.context("the server failed")?;
        Ok(())
    }
}

/// Resolves when the user wants it to end.
pub(super) struct Signals([Signal; 2]);

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let of = |kind, name| signal(kind).with_context(|| format!("cannot wait for {name}"));
        Ok(Self([of(SignalKind::terminate(), "SIGTERM")?, of(SignalKind::interrupt(), "SIGINT")?]))
    }

    pub(super) async fn any(&mut self) {
        let Self([terminate, interrupt]) = self;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

async fn stand_in(arguments: &StandInArguments, followed: Option<amqp::Settings>) -> Result<Exit, Failure> {
    let _log = log::init(&log::Settings::default()).context("cannot start logging")?;
    let mut signals = Signals::new()?;
    let listening = Listening::start(arguments)?;
    let settings = &listening.settings;
    say("Configuration of its clients:");
    say_lines(&format!(
        "  [approval_center]\n  base_url = \"http://{}\"\n  app_id = \"{}\"\n  app_secret = \"{}\"",
        listening.address, settings.app_id, settings.app_secret
    ));
    say(format_args!("users: {}", settings.users.join(", ")));
    say(format_args!("ready at http://{}", listening.address));
    match followed {
        Some(broker) => {
            let connected = watch::Sender::new(false);
            listening.emulator.follow(connected.subscribe());
            tokio::select! {
                never = follow::follow(listening.emulator.clone(), broker, connected) => match never {},
                () = signals.any() => {}
            }
        }
        None => signals.any().await,
    }
    listening.stop().await?;
    Ok(Exit::Done)
}

async fn press(arguments: &PressArguments) -> Result<Exit, Failure> {
    let body = json!({
        "instance_id": arguments.instance, "task_id": arguments.task, "message_id": arguments.message,
        "action_type": arguments.action, "reason": arguments.reason, "user_id": arguments.user,
        "search": arguments.origin == Origin::Search,
    });
    let (status, told) = ask(&arguments.url, "/emulator/press", Some(body)).await?;
    if status != 200 {
        let problem = told["problem"].as_str().unwrap_or("it cannot be pressed");
        return Err(anyhow!("{problem}").into());
    }
    let accepted = told["accepted"] == true;
    if arguments.json {
        json(&told)?;
    } else {
        let text = |member: &str| match &told[member] {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        for (name, member) in [
            ("approver", "user_id"),
            ("pressed", "action_type"),
            ("in", "origin"),
            ("sent to", "url"),
            ("encrypted", "encrypted"),
            ("answered", "http_status"),
            ("after ms", "elapsed_ms"),
            ("answer", "answer"),
            ("approver sees", "shown"),
            ("card shows", "card"),
        ] {
            line(format_args!("{name:<14} {}", text(member)))?;
        }
    }
    Ok(if accepted { Exit::Done } else { Exit::Failed })
}

async fn scenario(arguments: &ScenarioArguments) -> Result<Exit, Failure> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let Some(name) = &arguments.name else {
        let (_, told) = ask(&arguments.url, "/emulator/scenarios", None).await?;
        let all = told["scenarios"].as_array().map(Vec::as_slice).unwrap_or_default();
        let rows: Vec<_> = all.iter().map(|one| [text(&one["name"]), text(&one["title"])]).collect();
        lines(&table(["SCENARIO", "TITLE"], &rows))?;
        return Ok(Exit::Done);
    };
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        return Err(Failure::Usage(format!("{name} is not the name of a scenario")));
    }
    let (status, told) = ask(&arguments.url, &format!("/emulator/scenarios/{name}"), Some(json!({}))).await?;
    if status != 200 {
        let problem = told["problem"].as_str().unwrap_or("it cannot be played");
        return Err(anyhow!("{problem}").into());
    }
    let played = &told["played"];
    let checks = played["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<_> = checks
        .iter()
        .map(|check| {
            let word = if check["as_expected"] == true { "ok" } else { "DIFFERS" };
            [word.to_owned(), text(&check["what"]), text(&check["expected"]), text(&check["seen"])]
        })
        .collect();
    lines(&table(["", "CHECK", "EXPECTED", "SEEN"], &rows))?;
    if let Some(problem) = played["problem"].as_str() {
        say(problem);
    }
    Ok(if played["as_expected"] == true { Exit::Done } else { Exit::Failed })
}

async fn ask(base: &str, path: &str, body: Option<Value>) -> Result<(u16, Value), Failure> {
    let url = url(base, path)?;
    let client = client(&url, Trust::System, PATIENCE)?;
    let request = match &body {
        Some(body) => client.post(url.clone()).json(body),
        None => client.get(url.clone()),
    };
    let away = || format!("the emulator at {url} does not answer");
    let answer = request
        .send()
        .await
        .map_err(reqwest::Error::without_url)
        .with_context(away)
        .map_err(Failure::Unavailable)?;
    let status = answer.status().as_u16();
    let told = answer
        .json()
        .await
        .map_err(reqwest::Error::without_url)
        .with_context(|| format!("{url} is not the emulator"))?;
    Ok((status, told))
}
