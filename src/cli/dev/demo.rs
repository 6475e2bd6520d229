//! The third party of `dev`: the service on a temporary ledger, and a worker, in the emulator's process.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::worker::{self, DemoWorker, Names};
use crate::{
    app::{Controls, Start},
    cli::{
        credentials::random,
        serve::{assemble, relay, settings, workers},
    },
    config::{Config, Sources, load},
    emulator::{Demo, Emulator, Manner},
    stop::requested,
};

/// How often the relay is asked whether it is connected.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A running demo.
pub(super) struct Running {
    /// Where callbacks go.
    pub(super) callbacks: SocketAddr,
    pub(super) console: SocketAddr,
    pub(super) names: Names,
    /// The configuration, for commands in another terminal.
    pub(super) file: PathBuf,
    stop: watch::Sender<bool>,
    service: JoinHandle<anyhow::Result<()>>,
    worker: JoinHandle<()>,
    attendant: JoinHandle<()>,
}

impl Running {
    /// Starts the service and the worker of an emulator that listens here. The ledger and all else is in the directory.
    pub(super) async fn start(
        emulator: &Arc<Emulator>,
        address: SocketAddr,
        broker: &str,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let names = Names::of(&random_hex::<6>());
        let secrets =
            Secrets { token: random_hex::<16>(), key: random_hex::<16>(), signing: random_hex::<32>() };
        let code = emulator.define_demo();
        let file = directory.join("countersign.toml");
        let parts =
            Parts { directory, names: &names, code: &code, emulator: address, broker, secrets: &secrets };
        parts.write(&file, ANY, ANY)?;
        let config = configuration(&file)?;

        let center = workers::center(&config)?;
        let relay = relay(&config, center.as_ref());
        let app = assemble(&config, center.as_ref(), idle()).await?;
        let (callbacks, console) = (app.callbacks_address(), app.console_address());
        // Commands in another terminal have to find what runs here.
        parts.write(&file, callbacks, console)?;
        let controls = app.controls();

        let (manner, manners) = watch::channel(Manner::Applied);
        let (orders, ordered) = mpsc::unbounded_channel();
        let (valve, open) = watch::channel(true);
        let (connected, is_connected) = watch::channel(false);
        let (declared, is_declared) = watch::channel(false);
        let (stop, stopping) = watch::channel(false);
        emulator.begin_demo(Demo {
            callbacks: format!("http://{callbacks}"),
            console: format!("http://{console}"),
            manner,
            orders,
            valve,
            connected: is_connected,
            token: secrets.token,
            key: secrets.key,
            signing_secret: secrets.signing,
        });
        let worker = DemoWorker {
            emulator: emulator.clone(),
            names: names.clone(),
            broker: config.amqp.broker.clone(),
            manner: manners,
            declared,
        };
        // The worker has to outlive the service, whose last commands it takes.
        let (leave, leaving) = watch::channel(false);
        let attendant =
            tokio::spawn(attend(emulator.clone(), controls, config, relay, open, is_declared, connected));
        let worker = tokio::spawn(worker::run(worker, ordered, leaving));
        let mut asked = stopping;
        let service = tokio::spawn(async move {
            #[expect(
                clippy::async_yields_async,
                reason = "no balancer needs to hear of it first: there is no delay"
            )]
            let serving = app.run(async move {
                asked.wait_for(|stop| *stop).await.map(drop).unwrap_or_default();
                std::future::ready(())
            });
            let served = serving.await;
            leave.send_replace(true);
            served
        });
        Ok(Self { callbacks, console, names, file, stop, service, worker, attendant })
    }

    /// Resolves if the service ends by itself.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match (&mut self.service).await {
            Ok(Ok(())) => anyhow::anyhow!("the demo's service ended"),
            Ok(Err(error)) => error,
            Err(panicked) => panicked.into(),
        }
    }

    /// Stops the service, then the worker, which removes exchange and queues.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let served = self.service.await.context("the demo's service panicked")?;
        self.worker.await.context("the demo's worker panicked")?;
        self.attendant.abort();
        served
    }
}

struct Secrets {
    token: String,
    key: String,
    signing: String,
}

/// Nothing, in place of a relay that may not reach the broker.
fn idle() -> Start {
    Arc::new(|mut resources| Box::pin(async move { requested(&mut resources.stop).await }))
}

/// Lets the relay run while there is an exchange to publish to and the valve is open, and tells the page whether it is
/// connected.
async fn attend(
    emulator: Arc<Emulator>,
    controls: Controls,
    config: Config,
    relay: Start,
    mut open: watch::Receiver<bool>,
    mut declared: watch::Receiver<bool>,
    connected: watch::Sender<bool>,
) {
    let mut runs = false;
    loop {
        let may_run = *open.borrow_and_update() && *declared.borrow_and_update();
        if may_run != runs {
            runs = may_run;
            let start = if runs { relay.clone() } else { idle() };
            let limits = config.ledger.sizing.limits.clone();
            if let Err(error) = controls.replace(&settings(&config), limits, Some(start)) {
                tracing::error!("the demo's relay cannot be exchanged: {error}");
            }
        }
        let is_connected = runs && controls.condition().await.connected;
        let changed = connected.send_if_modified(|was| std::mem::replace(was, is_connected) != is_connected);
        if changed {
            emulator.broker_changed();
        }
        tokio::select! {
            changed = open.changed() => if changed.is_err() { return },
            changed = declared.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Any free port.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn random_hex<const N: usize>() -> String {
    random::<N>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the demo's configuration is made of.
struct Parts<'a> {
    directory: &'a Path,
    names: &'a Names,
    code: &'a str,
    emulator: SocketAddr,
    broker: &'a str,
    secrets: &'a Secrets,
}

impl Parts<'_> {
    fn write(&self, file: &Path, callbacks: SocketAddr, console: SocketAddr) -> anyhow::Result<()> {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let credentials = format!(
            "credentials = [ {{ action_callback_token = {}, action_callback_key = {} }} ]\napproval_codes = [{}]",
            quoted(&self.secrets.token),
            quoted(&self.secrets.key),
            quoted(self.code)
        );
        let context = "[endpoints.context]\nformat = \"json\"\non_unresolved = \"refuse\"\n\
                       fields = { instance_id = \"/instance\", task_id = \"/task\", round = \"/round\" }";
        let text = format!(
            r#"shutdown_grace_ms = 3000
[http]
listen = "{callbacks}"
[admin]
listen = "{console}"
[ledger]
url = {ledger}
[amqp]
url = {url}
exchange = {exchange}
queue = {commands}
topology = "none"
dead_letters = "leave"
[outcomes]
queue = {outcomes}
max_attempts = 3
[approval_center]
base_url = "http://{emulator}"
app_id = "cli_emulator"
app_secret = "emulator-secret"
[reconcile]
every = "off"

[[endpoints]]
name = "purchase"
dedupe_window = "2s"
{credentials}
{context}

[[endpoints]]
name = "leave"
{credentials}
dedupe_window = "2s"
[endpoints.context]
format = "json"
on_unresolved = "refuse"
fields = {{ instance_id = "/instance", task_id = "/task" }}

[[endpoints]]
name = "waiting"
on_conflict = "refuse"
{credentials}
{context}
[endpoints.answer]
wait = "4s"

[[endpoints]]
name = "signed"
{credentials}
[endpoints.context]
format = "jwt"
on_unresolved = "refuse"
[endpoints.context.jwt]
keys = [ {{ secret = {signing} }} ]
"#,
            emulator = self.emulator,
            ledger = quoted(&format!("sqlite:{}", self.directory.join("demo.db").display())),
            url = quoted(self.broker),
            exchange = quoted(&self.names.exchange),
            commands = quoted(&self.names.commands),
            outcomes = quoted(&self.names.outcomes),
            signing = quoted(&self.secrets.signing),
        );
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The demo's configuration, read like any other. The environment does not count: a demo is the same everywhere.
fn configuration(file: &Path) -> anyhow::Result<Config> {
    let sources = Sources { file: Some(file.to_owned()), ..Sources::default() };
    load(&sources).config().map_err(|faults| {
        let told: Vec<_> = faults.0.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(
            "the demo's configuration is wrong, perhaps by COUNTERSIGN_AMQP_URL: {}",
            told.join("; ")
        )
    })
}
