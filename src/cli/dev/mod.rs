//! `dev`: broker, emulator, service and worker, started and ended by one command.

mod broker;
mod demo;
mod node;
mod worker;

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;

use super::{
    block_on,
    emulator::{Listening, Signals, StandInArguments},
    exit::{Exit, Failure},
    output::{say, say_lines},
};
use crate::telemetry::log;
use broker::Broker;

const EXAMPLES: &str = "\
Examples:
  countersign dev
  countersign dev --private-broker          its own RabbitMQ, whatever listens on port 5672
  countersign dev --listen 0.0.0.0:8900     so that a phone in the same network opens the page
  countersign dev --per-second 1            with an approval center that limits

Prints the addresses of page, callbacks, console and broker, the queue, and the configuration, by which
`countersign tail`, `send` and `ledger list` work in another terminal. Prints `ready` once all of it runs.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Start a RabbitMQ of its own, also if there is another; needs an installed rabbitmq-server
    #[arg(long)]
    private_broker: bool,
    #[command(flatten)]
    stand_in: StandInArguments,
}

/// A directory that only this user may read, removed when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let mark = u64::from_ne_bytes(super::credentials::random());
        let path = std::env::temp_dir().join(format!("countersign-dev-{mark:016x}"));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make the directory {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing more can be done about it than to leave it.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    start(&arguments.stand_in, arguments.private_broker)
}

/// Starts all of it, and ends it when it is asked to.
pub(super) fn start(stand_in: &StandInArguments, private_broker: bool) -> Result<Exit, Failure> {
    block_on(async {
        // The page tells what happens.
        let settings = log::Settings { filter: "warn".to_owned(), ..log::Settings::default() };
        let _log = log::init(&settings).context("cannot start logging")?;
        let mut signals = Signals::new()?;
        let scratch = Scratch::new()?;
        let broker = tokio::select! {
            found = Box::pin(Broker::find(private_broker, &scratch.0)) => found?,
            () = signals.any() => return Ok(Exit::Done),
        };
        let ran = Box::pin(with(&broker, stand_in, &scratch.0, &mut signals)).await;
        // Last of all: whatever still talks to it has ended.
        broker.stop().await;
        ran
    })
}

/// Everything but the broker, until it is to end.
async fn with(
    broker: &Broker,
    stand_in: &StandInArguments,
    directory: &Path,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let listening = Listening::start(stand_in)?;
    let started = demo::Running::start(&listening.emulator, listening.address, &broker.url, directory).await;
    let mut demo = started.context("cannot start the service")?;
    tell(&listening, &demo, broker);
    let failed = tokio::select! {
        () = signals.any() => None,
        error = demo.ended() => Some(error),
    };
    if let Some(error) = failed {
        return Err(error.into());
    }
    demo.stop().await.context("the service failed")?;
    listening.stop().await?;
    Ok(Exit::Done)
}

/// The addresses, and what can be done with them.
fn tell(listening: &Listening, demo: &demo::Running, broker: &Broker) {
    let (page, file) = (listening.address, demo.file.display());
    let (callbacks, console) = (demo.callbacks, demo.console);
    let (exchange, queue) = (&demo.names.exchange, &demo.names.commands);
    let context = r#"{"instance":"PO-80","task":"PO-80/1","round":1}"#;
    say_lines(&format!(
        "\n  page           http://{page}/\n  callbacks      http://{callbacks}/callbacks/purchase (or leave, waiting, signed)\n  \
         console        http://{console}/ (without a token, for this machine alone)\n  \
         broker         {}\n  exchange       {exchange}\n  queue          {queue}\n  configuration  {file}\n\n\
         In another terminal:\n  countersign tail --config {file}\n  \
         countersign send --config {file} --endpoint purchase --origin card --context '{context}'\n  \
         countersign ledger list --config {file}\n  countersign emulator scenario --url http://{page}\n\n\
         From the browser of another machine:\n  ssh -L {}:{page} -L {}:{console} THIS-MACHINE\n",
        broker.shown(),
        page.port(),
        console.port(),
    ));
    say(format_args!("ready at http://{page}"));
    say("Ctrl-C ends all of it");
}
