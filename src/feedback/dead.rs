//! The inbox of messages that nobody took: dead letters, and commands that no queue was bound for.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use lapin::{
    Channel,
    message::Delivery,
    options::BasicAckOptions,
    types::{AMQPValue, FieldTable},
};
use tracing::{debug, error, info, warn};

use super::{
    Resources,
    burial::REASON,
    session::{End, Inbox, Taken, given_up, tell, until_it_works},
};
use crate::{
    amqp::{self, Error, Listening, topology::UNROUTED},
    command::{CommandId, outcome::Outcome},
    ledger::{Collected, DeadLetter, MAX_STRAYS, Why},
    stop::Stop,
    telemetry::{
        failpoint::reach,
        metrics::{LetterResult, Metrics},
    },
    time::Timestamp,
};

/// Messages in one commit. There are few, unless something is wrong. On PostgreSQL, settlements wait for the commit.
const PREFETCH: u16 = 16;

/// What is kept of a body: more than any command has.
const BODY_BYTES: usize = 256 << 10;

pub(super) struct DeadInbox {
    pub(super) resources: Resources,
    pub(super) queue: &'static str,
    /// Why all messages of this queue are there; `None` if the broker says so of each.
    pub(super) why: Option<Why>,
    /// The queue of reports, whose dead letters are no commands. May be empty.
    pub(super) reports: String,
}

impl Inbox for DeadInbox {
    /// Whether it has said that there is no room.
    type Session = bool;

    fn metrics(&self) -> &Metrics {
        &self.resources.metrics
    }

    fn connection(&self) -> &'static str {
        if self.queue == UNROUTED { "countersign unrouted" } else { "countersign dead letters" }
    }

    fn queue(&self) -> &str {
        self.queue
    }

    fn prefetch(&self) -> u16 {
        PREFETCH
    }

    fn without(&self) -> Option<&'static str> {
        Some("amqp.dead_letters = \"leave\"")
    }

    fn prepare<'a>(
        &'a self,
        listening: &'a Listening,
        broker: &'a amqp::Settings,
    ) -> BoxFuture<'a, Result<Channel, Error>> {
        Box::pin(listening.prepare_dead_letters(self.queue, broker))
    }

    fn begin(&self, _: &Arc<Listening>) -> bool {
        false
    }

    fn take<'a>(
        &'a self,
        has_said: &'a mut bool,
        batch: Vec<Delivery>,
        stop: &'a mut Stop,
    ) -> BoxFuture<'a, Result<Taken, End>> {
        Box::pin(self.keep_and_tell(has_said, batch, stop))
    }
}

impl DeadInbox {
    async fn keep_and_tell(
        &self,
        has_said: &mut bool,
        batch: Vec<Delivery>,
        stop: &mut Stop,
    ) -> Result<Taken, End> {
        let letters: Vec<_> = batch.iter().map(|delivery| read(delivery, self.why, &self.reports)).collect();
        let collected = tokio::select! {
            collected = until_it_works(|| self.resources.ledger.collect(letters.clone())) => collected,
            () = given_up(stop) => return Err(End::Stopped),
        };
        reach("dead:kept");
        let mut is_full = false;
        for ((delivery, letter), collected) in batch.iter().zip(&letters).zip(collected) {
            if collected == Collected::Full {
                is_full = true;
                continue;
            }
            log(letter, collected);
            self.count(collected);
            tell(async { delivery.acker.ack(BasicAckOptions::default()).await.map(drop) }).await?;
        }
        reach("dead:acknowledged");
        if !is_full {
            return Ok(Taken::Whole);
        }
        if !std::mem::replace(has_said, true) {
            error!(
                strays = MAX_STRAYS,
                queue = self.queue,
                "too many strays; dead letters stay with the broker until some are removed (`countersign ledger strays`)"
            );
        }
        Ok(Taken::Partly)
    }

    fn count(&self, collected: Collected) {
        let result = match collected {
            Collected::Open => LetterResult::Open,
            Collected::Closed => LetterResult::Closed,
            Collected::Stray => LetterResult::Stray,
            Collected::Full => return,
        };
        self.resources.metrics.dead_letters.collected(result);
    }
}

fn log(letter: &DeadLetter, collected: Collected) {
    let (why, queue) = (letter.why.map(Why::as_str), letter.queue.as_deref());
    match (collected, letter.command_id) {
        (Collected::Open, Some(command_id)) => {
            warn!(%command_id, why, queue, "command came back; fix the cause, then run `countersign ledger requeue`");
        }
        (Collected::Closed, Some(command_id)) => {
            info!(%command_id, why, queue, "command came back, but it was requeued or has an outcome");
        }
        (Collected::Open | Collected::Closed | Collected::Stray | Collected::Full, _) => {
            let (message_id, message_type) = (letter.message_id.as_deref(), letter.message_type.as_deref());
            warn!(
                message_id,
                message_type,
                why,
                queue,
                reason = letter.reason,
                "dead letter that is no command of this ledger; kept among the strays"
            );
        }
    }
    debug!(bytes = letter.body.len(), routing_key = letter.routing_key, "dead letter taken");
}

/// What a message says of itself, and what the broker adds.
fn read(delivery: &Delivery, why: Option<Why>, reports: &str) -> DeadLetter {
    let properties = &delivery.properties;
    let headers = properties.headers().as_ref();
    let death = headers.and_then(last_death).unwrap_or_default();
    let reason = headers.and_then(|headers| text(headers, REASON));
    let message_id = properties.message_id().as_ref().map(|id| id.as_str().to_owned());
    // A report may carry the id of its command.
    let is_report =
        reason.is_some() || death.queue.as_deref() == Some(reports) || Outcome::parse(&delivery.data).is_ok();
    let (kept, bytes) = (delivery.data.len().min(BODY_BYTES), delivery.data.len());
    let cut = (kept < bytes).then(|| format!("its body has {bytes} bytes, of which {kept} are kept"));
    let reason = match (reason, cut) {
        (Some(reason), Some(cut)) => Some(format!("{reason}; {cut}")),
        (reason, cut) => reason.or(cut),
    };
    DeadLetter {
        command_id: message_id.as_deref().filter(|_| !is_report).and_then(CommandId::parse),
        why: why.or(death.why),
        queue: death.queue,
        died_at: death.at,
        reason,
        message_id,
        message_type: properties.kind().as_ref().map(|kind| kind.as_str().to_owned()),
        routing_key: delivery.routing_key.to_string(),
        body: delivery.data[..kept].to_vec(),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Death {
    queue: Option<String>,
    why: Option<Why>,
    at: Option<Timestamp>,
}

/// The newest entry of `x-death`: <https://www.rabbitmq.com/docs/dlx#effects>.
fn last_death(headers: &FieldTable) -> Option<Death> {
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else { return None };
    let Some(AMQPValue::FieldTable(death)) = deaths.as_slice().first() else { return None };
    let why = text(death, "reason").and_then(|word| match &*word {
        "rejected" => Some(Why::Rejected),
        "delivery_limit" => Some(Why::DeliveryLimit),
        "expired" => Some(Why::Expired),
        "maxlen" => Some(Why::Overflowed),
        _ => None,
    });
    let at = match death.inner().get("time") {
        Some(AMQPValue::Timestamp(seconds)) => {
            let millis = i64::try_from(*seconds).ok().and_then(|seconds| seconds.checked_mul(1000));
            millis.and_then(|millis| Timestamp::from_millisecond(millis).ok())
        }
        _ => None,
    };
    Some(Death { queue: text(death, "queue"), why, at })
}

fn text(table: &FieldTable, name: &str) -> Option<String> {
    match table.inner().get(name)? {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldArray;

    use super::*;

    fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in entries {
            table.insert((*name).into(), value.clone());
        }
        table
    }

    fn long(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn the_newest_death_says_why_and_where_and_what_cannot_be_read_is_left_out() {
        let newest = table(&[
            ("queue", long("orders")),
            ("reason", long("delivery_limit")),
            ("time", AMQPValue::Timestamp(1_700_000_000)),
            ("count", AMQPValue::LongLongInt(1)),
        ]);
        let older = table(&[("queue", long("elsewhere")), ("reason", long("expired"))]);
        let deaths = FieldArray::from(vec![AMQPValue::FieldTable(newest), AMQPValue::FieldTable(older)]);
        let death = last_death(&table(&[("x-death", AMQPValue::FieldArray(deaths))])).unwrap();
        assert_eq!(death.queue.as_deref(), Some("orders"));
        assert_eq!(death.why, Some(Why::DeliveryLimit));
        assert_eq!(death.at.unwrap().as_millisecond(), 1_700_000_000_000);

        assert_eq!(last_death(&table(&[("x-death", long("forged"))])), None);
        let strange = table(&[("reason", long("?")), ("time", AMQPValue::Timestamp(u64::MAX))]);
        let deaths = FieldArray::from(vec![AMQPValue::FieldTable(strange)]);
        let death = last_death(&table(&[("x-death", AMQPValue::FieldArray(deaths))]));
        assert_eq!(death, Some(Death::default()));
    }
}
