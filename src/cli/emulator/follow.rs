//! Follows a real service for the emulator's page: its commands and the workers' reports, from queues of its own.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::{
    StreamExt,
    stream::{pending, select},
};
use lapin::message::Delivery;
use serde_json::Value;
use tokio::{sync::watch, time::sleep};

use crate::{
    amqp::{Settings, listen_in, topology},
    cli::{
        exit::Failure,
        output::say,
        tail::{Listening, headers_of, subscribe_soon},
    },
    emulator::{Arrived, Emulator, Reported},
    telemetry::log::chain,
    time::Timestamp,
};

/// How long to wait before the broker is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Connects again for as long as it is polled. `connected` says whether it sees what comes.
pub(super) async fn follow(
    emulator: Arc<Emulator>,
    amqp: Settings,
    connected: watch::Sender<bool>,
) -> Infallible {
    let mut told = false;
    loop {
        let Err(error) = session(&emulator, &amqp, &connected).await;
        let was_connected = connected.send_replace(false);
        emulator.broker_changed();
        if !std::mem::replace(&mut told, true) || was_connected {
            say(format_args!("cannot follow commands; retrying: {}", chain(error.as_ref())));
        }
        sleep(PAUSE).await;
    }
}

async fn session(
    emulator: &Emulator,
    amqp: &Settings,
    connected: &watch::Sender<bool>,
) -> anyhow::Result<Infallible> {
    let connection = listen_in(amqp, "countersign emulator").await?;
    let all = ["#".to_owned()];
    let commands = Listening { exchange: &amqp.exchange, bindings: &all, acks: false };
    let commands = subscribe_soon(&commands, &connection).await.map_err(Failure::cause)?;
    // Reports are routed by the name of the queue for them. Without one there is no exchange for reports.
    let reports = match &amqp.outcomes {
        Some(queue) => {
            let queues = [queue.clone()];
            let reports = Listening { exchange: topology::OUTCOMES, bindings: &queues, acks: false };
            subscribe_soon(&reports, &connection).await.map_err(Failure::cause)?.left_stream()
        }
        None => pending().right_stream(),
    };
    say(format_args!("following the commands in the exchange {:?}", amqp.exchange));
    connected.send_replace(true);
    emulator.broker_changed();
    let mut both =
        select(commands.map(|delivery| (delivery, true)), reports.map(|delivery| (delivery, false)));
    loop {
        let (delivery, is_command) = both.next().await.context("the broker ended the subscription")?;
        let delivery = delivery.context("the broker closed the connection")?;
        if is_command { emulator.arrived(arrived(&delivery)) } else { reported(emulator, &delivery) }
    }
}

/// A command as a worker gets it.
pub(in crate::cli) fn arrived(delivery: &Delivery) -> Arrived {
    let message_id = delivery.properties.message_id();
    Arrived {
        command_id: message_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        routing_key: delivery.routing_key.to_string(),
        headers: Value::Object(headers_of(delivery)).to_string(),
        body: String::from_utf8_lossy(&delivery.data).into_owned(),
        at: Timestamp::now().as_millisecond(),
    }
}

fn reported(emulator: &Emulator, delivery: &Delivery) {
    let report: Value = serde_json::from_slice(&delivery.data).unwrap_or_default();
    let (Some(command_id), Some(word)) = (report["command_id"].as_str(), report["outcome"].as_str()) else {
        return;
    };
    let report = Reported {
        word: word.to_owned(),
        message: report["message"].as_str().map(str::to_owned),
        at: Timestamp::now().as_millisecond(),
    };
    emulator.reported(command_id, report);
}
