//! Which RabbitMQ `dev` uses: the one that is named, the one on this machine, or one of its own.

use std::{path::Path, time::Duration};

use anyhow::anyhow;

use super::node::Node;
use crate::{
    amqp::{self, listen_in},
    cli::{USUAL_BROKER, exit::Failure, output::say},
    config::{Sources, load},
    telemetry::log::chain,
};

/// How long one try to connect may take. A port that is open and says nothing is no broker.
const STEP: Duration = Duration::from_secs(3);

/// How often a node that starts is tried.
const AGAIN: Duration = Duration::from_millis(250);

/// A node needs some seconds, and a minute on a machine that is busy.
const START: Duration = Duration::from_secs(120);

/// The broker, and the node if it is ours.
pub(super) struct Broker {
    pub(super) url: String,
    node: Option<Node>,
}

impl Broker {
    /// Finds or starts one. Without any, the usual address stands: the service waits for it.
    pub(super) async fn find(private: bool, directory: &Path) -> Result<Self, Failure> {
        let named = std::env::var("COUNTERSIGN_AMQP_URL").ok().filter(|url| !url.is_empty());
        if let Some(url) = named.filter(|_| !private) {
            say("using the RabbitMQ of COUNTERSIGN_AMQP_URL");
            return Ok(Self { url, node: None });
        }
        // What listens there gets nothing but what the emulator has made up.
        if !private && answers(USUAL_BROKER).await.is_ok() {
            say("using the RabbitMQ on port 5672 of this machine");
            return Ok(Self { url: USUAL_BROKER.to_owned(), node: None });
        }
        match Node::server() {
            Some(server) => Self::start(&server, directory).await,
            None if private => Err(Failure::Unavailable(anyhow!(
                "rabbitmq-server is not installed; on Debian and Ubuntu: apt install rabbitmq-server"
            ))),
            None => {
                say(
                    "no RabbitMQ: none is named by COUNTERSIGN_AMQP_URL, none answers on port 5672, and rabbitmq-server is not installed",
                );
                Ok(Self { url: USUAL_BROKER.to_owned(), node: None })
            }
        }
    }

    async fn start(server: &Path, directory: &Path) -> Result<Self, Failure> {
        say("starting a RabbitMQ of its own, which takes some seconds");
        let mut node = Node::start(server, directory)?;
        let url = node.url();
        let begun = tokio::time::Instant::now();
        loop {
            let Err(problem) = answers(&url).await else {
                return Ok(Self { url, node: Some(node) });
            };
            let gone = node.has_ended();
            if gone || begun.elapsed() > START {
                let what = if gone { "ended".to_owned() } else { format!("does not answer: {problem}") };
                let log = node.log();
                return Err(Failure::Unavailable(anyhow!("the RabbitMQ that was started {what}\n{log}")));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The URL for people: without its password.
    pub(super) fn shown(&self) -> String {
        let own = if self.node.is_some() { " (its own)" } else { "" };
        let unshown = || "that of COUNTERSIGN_AMQP_URL".to_owned();
        let Ok(mut url) = self.url.parse::<reqwest::Url>() else { return unshown() };
        if url.password().is_some() && url.set_password(None).is_err() {
            return unshown();
        }
        format!("{url}{own}")
    }

    pub(super) async fn stop(self) {
        if let Some(node) = self.node {
            node.stop().await;
        }
    }
}

/// Whether a client would get in.
async fn answers(url: &str) -> Result<(), String> {
    let environment = vec![("COUNTERSIGN_AMQP_URL".into(), url.into())];
    let loaded = load(&Sources { environment, ..Sources::default() });
    let settings: amqp::Settings = match loaded.amqp() {
        Ok(settings) => settings.broker.clone(),
        Err(faults) => return Err(faults.to_string()),
    };
    match tokio::time::timeout(STEP, listen_in(&settings, "countersign dev")).await {
        Ok(Ok(listening)) => {
            listening.close("it was only a look").await;
            Ok(())
        }
        Ok(Err(error)) => Err(chain(&error)),
        Err(elapsed) => Err(chain(&elapsed)),
    }
}
