//! The broker and its topology, without changing either.

use std::time::Duration;

use lapin::{
    ExchangeKind, Queue,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::FieldTable,
};

use super::Report;
use crate::{
    cli::exit::Failure,
    config::Loaded,
    relay::amqp::{
        Listening, Settings, listen_in,
        topology::{DEAD, UNROUTED},
    },
    telemetry::log::chain,
};

/// For everything that should come at once.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn look(report: &mut Report, loaded: &Loaded) -> Result<(), Failure> {
    let Ok(amqp) = loaded.amqp() else {
        return report.skipped("broker", "its configuration is wrong");
    };
    let connected = tokio::time::timeout(
        amqp.broker.connect_timeout + Duration::from_secs(1),
        listen_in(&amqp.broker, "countersign doctor"),
    );
    let listening = match connected.await {
        Ok(Ok(listening)) => listening,
        Ok(Err(error)) => {
            let words =
                format!("{}; callbacks are kept all the same, and published when it is back", chain(&error));
            return report.wrong("broker", format!("{words}. Check amqp.url, and that the broker runs"));
        }
        Err(_) => return report.wrong("broker", "does not answer in time; check amqp.url and the firewall"),
    };
    report.ok("broker", "connected")?;
    // The queue that workers report to, if there is anybody to tell.
    let outcomes = match (loaded.approval_center(), loaded.outcomes()) {
        (Ok(Some(_)), Ok(outcomes)) => outcomes.queue(),
        _ => None,
    };
    let looked = tokio::time::timeout(PATIENCE, topology(report, &amqp.broker, outcomes, &listening)).await;
    listening.close("doctor has ended").await;
    match looked {
        Ok(looked) => looked,
        Err(_) => report.wrong("topology", "the broker does not answer in time"),
    }
}

/// Why something is not there, or cannot be seen.
fn problem(error: &lapin::Error) -> String {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) if error.get_id() == 404 => "is not there".to_owned(),
        lapin::ErrorKind::ProtocolError(error) if error.get_id() == 403 => {
            "may not be looked at by this user".to_owned()
        }
        _ => chain(error),
    }
}

async fn exchange(connection: &Listening, name: &str) -> lapin::Result<()> {
    // A channel of its own: the broker closes it if the name is not there.
    let channel = connection.channel().await?;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default()).await
}

async fn queue(connection: &Listening, name: &str) -> lapin::Result<Queue> {
    let channel = connection.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, FieldTable::default()).await
}

const MEND: &str =
    "serve makes it with topology = \"declare\"; or import what `countersign topology print` prints";

async fn topology(
    report: &mut Report,
    amqp: &Settings,
    outcomes: Option<&str>,
    connection: &Listening,
) -> Result<(), Failure> {
    match exchange(connection, &amqp.exchange).await {
        Ok(()) => report.ok("exchange", &amqp.exchange)?,
        Err(error) => report.wrong("exchange", format!("{} {}; {MEND}", amqp.exchange, problem(&error)))?,
    }
    if amqp.queue.is_empty() {
        report.skipped("queue", "amqp.queue is empty: consumers bind their own")?;
    } else {
        match queue(connection, &amqp.queue).await {
            Ok(found) if found.consumer_count() == 0 => {
                let words = format!(
                    "{} has {} commands and no worker that takes them",
                    amqp.queue,
                    found.message_count()
                );
                report.risky("queue", format!("{words}; start one"))?;
            }
            Ok(found) => {
                let words = format!(
                    "{}: {} consumers, {} commands",
                    amqp.queue,
                    found.consumer_count(),
                    found.message_count()
                );
                report.ok("queue", words)?;
            }
            Err(error) => report.wrong("queue", format!("{} {}; {MEND}", amqp.queue, problem(&error)))?,
        }
    }
    if let Some(name) = outcomes {
        self::outcomes(report, name, connection).await?;
    }
    // AMQP does not tell bindings. Where they are missing, commands end up here.
    match queue(connection, UNROUTED).await {
        Ok(found) if found.message_count() > 0 => {
            let words = format!("{} commands found no queue and lie in {UNROUTED}", found.message_count());
            let mend = format!("bind {} to {} with \"#\", then move them", amqp.queue, amqp.exchange);
            report.wrong("bindings", format!("{words}; {mend}"))?;
        }
        Ok(_) => report.ok("bindings", "no command was without a queue")?,
        Err(error) => report.risky("bindings", format!("{UNROUTED} {}", problem(&error)))?,
    }
    match queue(connection, DEAD).await {
        Ok(found) if found.message_count() > 0 => {
            let words =
                format!("{} commands were rejected by workers and lie in {DEAD}", found.message_count());
            report.risky("dead letters", format!("{words}; see what they say"))
        }
        Ok(_) => report.ok("dead letters", "none"),
        Err(error) => report.risky("dead letters", format!("{DEAD} {}", problem(&error))),
    }
}

/// The way back: serve has to be the one that takes outcomes.
async fn outcomes(report: &mut Report, name: &str, connection: &Listening) -> Result<(), Failure> {
    match queue(connection, name).await {
        Ok(found) if found.consumer_count() == 0 => {
            let words = format!("{name} has {} outcomes, and nobody takes them", found.message_count());
            report.risky("outcomes", format!("{words}; is serve running, with this [approval_center]?"))
        }
        Ok(found) => report.ok("outcomes", format!("{name}: {} waiting to be taken", found.message_count())),
        Err(error) => report.wrong("outcomes", format!("{name} {}; {MEND}", problem(&error))),
    }
}
