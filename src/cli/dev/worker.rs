//! The demo's worker: takes commands from a queue of its own, tells the page, and reports what it is told to.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Consumer, ExchangeKind,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ExchangeDeclareOptions,
        ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::{
    amqp::{self, Listening, listen_in},
    cli::{emulator::arrived, output::say},
    emulator::{Arrived, Emulator, Manner, Reported},
    telemetry::log::chain,
    time::Timestamp,
};

/// How long to wait before the broker is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// lapin may never answer if the connection ends at this moment.
const STEP: Duration = Duration::from_secs(5);

/// Queues that nobody uses are removed by the broker after this: those of a demo that was killed.
const EXPIRES_MS: i32 = 60_000;

/// The demo's own exchange and queues.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) exchange: String,
    pub(super) commands: String,
    pub(super) outcomes: String,
}

impl Names {
    pub(super) fn of(mark: &str) -> Self {
        let name = format!("countersign.demo.{mark}");
        Self { outcomes: format!("{name}.outcomes"), commands: format!("{name}.commands"), exchange: name }
    }
}

pub(super) struct DemoWorker {
    pub(super) emulator: Arc<Emulator>,
    pub(super) names: Names,
    pub(super) broker: amqp::Settings,
    pub(super) manner: watch::Receiver<Manner>,
    /// Whether exchange and queues are there.
    pub(super) declared: watch::Sender<bool>,
}

type Orders = mpsc::UnboundedReceiver<(Arrived, Manner)>;

/// Works until it is to leave; then removes exchange and queues.
pub(super) async fn run(worker: DemoWorker, mut orders: Orders, mut leave: watch::Receiver<bool>) {
    let mut told = false;
    loop {
        let connected = tokio::select! {
            connected = listen_in(&worker.broker, "countersign demo worker") => connected,
            () = left(&mut leave) => return,
        };
        let ended = match connected {
            Ok(listening) => {
                let ended = worker.session(&listening, &mut orders, &mut leave).await;
                worker.declared.send_replace(false);
                listening.close("the demo's worker leaves").await;
                ended
            }
            Err(error) => Err(error.into()),
        };
        match ended {
            Ok(()) => return,
            Err(error) if !std::mem::replace(&mut told, true) => {
                say(format_args!("no RabbitMQ: {}", chain(error.as_ref())));
                say("callbacks are accepted all the same; commands wait in the ledger until it is there");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = left(&mut leave) => return,
        }
    }
}

async fn left(leave: &mut watch::Receiver<bool>) {
    leave.wait_for(|leave| *leave).await.map(drop).unwrap_or_default();
}

impl DemoWorker {
    /// `Ok` once it is to leave.
    async fn session(
        &self,
        listening: &Listening,
        orders: &mut Orders,
        leave: &mut watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let channel = listening.channel().await.context("cannot open a channel")?;
        let mut commands = self.declare(&channel).await.context("cannot declare the demo's queues")?;
        say(format_args!("RabbitMQ is connected; the demo's exchange is {}", self.names.exchange));
        self.declared.send_replace(true);
        loop {
            tokio::select! {
                delivery = commands.next() => {
                    let delivery = delivery.context("the broker ended the subscription")?;
                    self.take(&channel, delivery.context("the broker closed the connection")?).await?;
                }
                Some((command, manner)) = orders.recv() => self.report(&channel, &command, manner).await?,
                () = left(leave) => break,
            }
        }
        self.remove(&channel).await;
        Ok(())
    }

    async fn declare(&self, channel: &Channel) -> lapin::Result<Consumer> {
        let Names { exchange, commands, outcomes } = &self.names;
        let options =
            ExchangeDeclareOptions { durable: true, auto_delete: true, ..ExchangeDeclareOptions::default() };
        channel
            .exchange_declare(exchange.as_str().into(), ExchangeKind::Topic, options, FieldTable::default())
            .await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-expires".into(), AMQPValue::LongInt(EXPIRES_MS));
        for queue in [commands, outcomes] {
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(queue.as_str().into(), options, arguments.clone()).await?;
        }
        let (queue, exchange) = (commands.as_str(), exchange.as_str());
        channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                "#".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
        channel.basic_qos(16, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await
    }

    /// Without the broker's help they expire.
    async fn remove(&self, channel: &Channel) {
        let Names { exchange, commands, outcomes } = &self.names;
        let removed = async {
            for queue in [commands, outcomes] {
                channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
            }
            // It is gone with its last binding; to delete what is gone is no error.
            channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await
        };
        let problem = match tokio::time::timeout(STEP, removed).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(elapsed) => chain(&elapsed),
        };
        say(format_args!("cannot remove the demo's exchange and queues; they expire in a minute: {problem}"));
    }

    async fn take(&self, channel: &Channel, delivery: Delivery) -> anyhow::Result<()> {
        let command = arrived(&delivery);
        self.emulator.arrived(command.clone());
        let manner = *self.manner.borrow();
        self.report(channel, &command, manner).await?;
        let acked = tokio::time::timeout(STEP, delivery.acker.ack(BasicAckOptions::default())).await;
        acked.context("the broker does not answer")?.context("the broker closed the connection")?;
        Ok(())
    }

    async fn report(&self, channel: &Channel, command: &Arrived, manner: Manner) -> anyhow::Result<()> {
        let body: Value = serde_json::from_str(&command.body).unwrap_or_default();
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let approved = text("/action") == "approve";
        let message = match manner {
            Manner::Applied | Manner::Silent => None,
            Manner::Refused if approved => Some("预算不足，没有执行"),
            Manner::Refused => Some("单据已关闭，没有执行"),
            Manner::Failed => Some("ERP 维护中，执行失败"),
        };
        let report = Reported {
            word: manner.as_str().to_owned(),
            message: message.map(str::to_owned),
            at: Timestamp::now().as_millisecond(),
        };
        // Before it is sent: what countersign then shows belongs to this report.
        self.emulator.reported(&command.command_id, report);
        if manner == Manner::Silent {
            return Ok(());
        }
        let instance = (manner == Manner::Applied)
            .then(|| {
                let (instance, task) = (text("/task/instance_id"), text("/task/task_id"));
                self.emulator.decided(instance, task, approved)
            })
            .flatten();
        let outcome = json!({
            "schema": "approval.outcome/1", "command_id": command.command_id, "outcome": manner.as_str(),
            "status": null, "message": message, "instance": instance,
        });
        let properties =
            BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
        let outcome = outcome.to_string();
        let published = channel.basic_publish(
            // The demo's own queue, so that the exchange for reports of real workers is left alone.
            "".into(),
            self.names.outcomes.as_str().into(),
            BasicPublishOptions::default(),
            outcome.as_bytes(),
            properties,
        );
        let published = tokio::time::timeout(STEP, published).await;
        published.context("the broker does not answer")?.context("cannot report an outcome")?;
        Ok(())
    }
}
