//! A worker for countersign's commands, with lapin. See ../README.md.
//!
//! `cargo run --example consumer -- --count 10`, with the broker in `AMQP_URL`.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        BasicRejectOptions, ConfirmSelectOptions,
    },
    types::{AMQPValue, FieldTable},
};
use ring::signature::{ED25519, UnparsedPublicKey};
use rusqlite::Transaction;
use serde::Deserialize;
use standardwebhooks::Webhook;
use subtle::ConstantTimeEq;
use tokio::signal::unix::{SignalKind, signal};

/// What this worker needs of a command. Members that it does not know may come at any time, and are ignored.
#[derive(Debug, Deserialize)]
struct Command {
    schema: String,
    command_id: String,
    action: Action,
    task: Task,
    repeats: Option<String>,
    conflicts_with: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Approve,
    Reject,
    Custom,
}

#[derive(Debug, Deserialize)]
struct Task {
    task_id: Option<String>,
}

/// What messages are verified with.
enum Key {
    /// `whsec_…`
    Secret(Webhook),
    /// `whpk_…`
    Public(Vec<u8>),
}

/// If there are any, only what one of them has signed is taken: `whsec_…` or `whpk_…`, separated by blanks. Two while rotating.
fn keys() -> anyhow::Result<Vec<Key>> {
    let texts = std::env::var("VERIFY_KEYS").unwrap_or_default();
    let keys = texts.split_whitespace().map(|text| match text.strip_prefix("whpk_") {
        Some(public) => Ok(Key::Public(STANDARD.decode(public).context("VERIFY_KEYS")?)),
        None => Ok(Key::Secret(Webhook::new(text).context("VERIFY_KEYS")?)),
    });
    keys.collect()
}

/// Fails unless one of the keys has signed the message. Headers other than these three are not signed.
fn verify(keys: &[Key], delivery: &Delivery) -> anyhow::Result<()> {
    let header = |name: &str| match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        _ => None,
    };
    let id = header("webhook-id").context("not signed")?;
    let time: i64 = header("webhook-timestamp").and_then(|text| text.parse().ok()).context("not signed")?;
    let signatures = header("webhook-signature").context("not signed")?;
    let content = [format!("{id}.{time}.").as_bytes(), &delivery.data].concat();
    let is_by = |key: &Key, signature: &str| match key {
        // Not `Webhook::verify`, which refuses what is older than five minutes: a command may wait in a queue for days, and
        // the table `handled` tells what comes again.
        Key::Secret(webhook) => webhook
            .sign(id, time, &delivery.data)
            .is_ok_and(|wanted| wanted.as_bytes().ct_eq(signature.as_bytes()).into()),
        Key::Public(public) => {
            let signature = signature.strip_prefix("v1a,").and_then(|text| STANDARD.decode(text).ok());
            let public = UnparsedPublicKey::new(&ED25519, public);
            signature.is_some_and(|signature| public.verify(&content, &signature).is_ok())
        }
    };
    let valid = signatures.split(' ').any(|signature| keys.iter().any(|key| is_by(key, signature)));
    ensure!(valid, "not signed by a key that is known here");
    Ok(())
}

fn read(keys: &[Key], message_id: &str, delivery: &Delivery) -> anyhow::Result<Command> {
    if !keys.is_empty() {
        verify(keys, delivery)?;
    }
    let command: Command = serde_json::from_slice(&delivery.data)?;
    ensure!(command.schema == "approval.command/1", "not an approval.command/1");
    ensure!(command.command_id == message_id, "not a whole command");
    Ok(command)
}

/// Tell your approval system. What is written to the database here is kept together with the message id or not at all.
///
/// If `repeats` is set, the same decision came before, as the command of that id: act only if your task has been opened again
/// since; if not, it is a replay: change nothing, and report `refused`. `conflicts_with` names an opposite decision of the same
/// operator: the later one counts, unless it repeats one that is older still.
fn act(_transaction: &Transaction<'_>, _command: &Command) -> anyhow::Result<()> {
    Ok(())
}

/// True if it is the first time.
fn handle(database: &mut rusqlite::Connection, command: &Command) -> anyhow::Result<bool> {
    let transaction = database.transaction()?;
    let fresh = transaction.execute("INSERT OR IGNORE INTO handled VALUES (?)", [&command.command_id])? == 1;
    if fresh {
        act(&transaction, command)?;
    }
    transaction.commit()?;
    Ok(fresh)
}

/// Where reports go.
struct Reports {
    channel: Channel,
    queue: String,
}

/// Tells countersign, which shows it to the approver; see `../python-pika/worker.py` for all that can be told. To tell it
/// again changes nothing. Fails if it is not in the queue then: the worker ends, and the command comes again.
async fn report(reports: &Reports, command: &Command) -> anyhow::Result<()> {
    let outcome = serde_json::json!({
        "schema": "approval.outcome/1", "command_id": command.command_id, "outcome": "applied",
        "status": null, "message": null, "instance": null,
    });
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_type("approval.outcome.v1".into())
        .with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let body = outcome.to_string();
    let queue = reports.queue.as_str().into();
    let confirm = reports
        .channel
        .basic_publish("countersign.outcomes".into(), queue, options, body.as_bytes(), properties)
        .await?
        .await?;
    let taken = confirm.is_ack() && confirm.take_message().is_none();
    ensure!(taken, "the queue {} does not take it", reports.queue);
    Ok(())
}

fn message_id(delivery: &Delivery) -> String {
    delivery.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "a line for each message is what this program is for")]
async fn settle(
    database: &mut rusqlite::Connection,
    reports: Option<&Reports>,
    keys: &[Key],
    delivery: Delivery,
) -> anyhow::Result<()> {
    let id = message_id(&delivery);
    match read(keys, &id, &delivery) {
        Ok(command) => {
            // SQLite blocks this thread, which has nothing else to do.
            let word = if handle(database, &command)? { "handled" } else { "duplicate" };
            if let Some(reports) = reports {
                report(reports, &command).await?;
            }
            let mut line = format!(
                "{word} {id} {:?} {}",
                command.action,
                command.task.task_id.as_deref().unwrap_or("-")
            );
            for (name, earlier) in
                [("repeats", &command.repeats), ("conflicts_with", &command.conflicts_with)]
            {
                if let Some(earlier) = earlier {
                    line += &format!(" {name} {earlier}");
                }
            }
            println!("{line}");
            delivery.acker.ack(BasicAckOptions::default()).await?;
        }
        Err(problem) => {
            // Not to be had again, but not lost either: it goes to countersign.dead.
            println!("rejected {id}: {problem}");
            delivery.acker.reject(BasicRejectOptions { requeue: false }).await?;
        }
    }
    Ok(())
}

/// `--name value`, as often as there are any.
fn options() -> anyhow::Result<HashMap<String, String>> {
    let mut options = HashMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match (name.strip_prefix("--"), arguments.next()) {
            (Some(known @ ("queue" | "store" | "count" | "idle" | "report")), Some(value)) => {
                options.insert(known.to_owned(), value);
            }
            _ => bail!(
                "usage: consumer [--queue NAME] [--store FILE] [--count N] [--idle SECONDS] [--report QUEUE]"
            ),
        }
    }
    Ok(options)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = options()?;
    let option = |name: &str, default: &str| options.get(name).cloned().unwrap_or_else(|| default.to_owned());
    let count: u64 = option("count", "0").parse().context("--count")?;
    let idle = match option("idle", "0").parse().context("--idle")? {
        0 => Duration::MAX,
        seconds => Duration::from_secs(seconds),
    };

    let keys = keys()?;
    let mut database = rusqlite::Connection::open(option("store", "handled.db"))?;
    database.execute("CREATE TABLE IF NOT EXISTS handled (message_id TEXT PRIMARY KEY)", [])?;

    let url =
        std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    // Without it the broker would hand over the whole queue.
    channel.basic_qos(20, BasicQosOptions::default()).await?;
    // On a channel of its own: a queue that is not there must not end the one that acknowledges.
    let reports = match options.get("report") {
        None => None,
        Some(queue) => {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Some(Reports { channel, queue: queue.clone() })
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let queue = option("queue", "countersign.commands");
    let mut deliveries = channel
        .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await?;

    let mut seen = 0;
    while count == 0 || seen < count {
        tokio::select! {
            // First, so that a full queue cannot keep a worker from stopping.
            biased;
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            delivery = tokio::time::timeout(idle, deliveries.next()) => match delivery {
                Err(_idle) => break,
                Ok(Some(delivery)) => settle(&mut database, reports.as_ref(), &keys, delivery?).await?,
                Ok(None) => bail!("the broker has ended the consumer"),
            },
        }
        seen += 1;
    }
    // Gives back what was fetched and not begun.
    channel.basic_cancel(deliveries.tag(), BasicCancelOptions::default()).await?;
    connection.close(200, "done".into()).await?;
    Ok(())
}
