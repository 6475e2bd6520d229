//! `--verify`: reads the commands back from the broker and accounts for every id.

use std::{
    cell::RefCell,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde::Serialize;

use super::template::find;
use crate::{
    amqp::{self, Settings, listen_in},
    cli::{
        exit::Failure,
        output::counted,
        tail::{Listening, subscribe_soon},
    },
    telemetry::taming::Tamed,
};

/// Number of missing ids listed.
const NAMED: usize = 10;

/// Where commands are read back from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Source {
    /// An exclusive queue bound to the exchange before the first callback: takes nothing away from the consumers
    Own,
    /// The configured queue itself, which must be empty and without consumers: empties it of this run's commands
    Queue,
}

/// The result by id. Ids are counted, not messages.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Account {
    /// Answered 200 as accepted.
    pub(super) answered: u64,
    /// Arrived at least once.
    pub(super) arrived: u64,
    /// Answered but not arrived.
    pub(super) missing: u64,
    /// Arrived more than once. Delivery is at least once.
    pub(super) duplicated: u64,
    /// Arrived but never answered: the answer was lost, the command was not.
    pub(super) unanswered: u64,
    /// The first missing ids.
    pub(super) missing_ids: Vec<String>,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "verified: {} answered, {} arrived, {} missing, {} duplicated, {} arrived without an answer",
            self.answered, self.arrived, self.missing, self.duplicated, self.unanswered
        )?;
        if !self.missing_ids.is_empty() {
            // The ids come from an answer.
            write!(f, "\nmissing: {}", Tamed(self.missing_ids.join(", ")))?;
        }
        Ok(())
    }
}

/// The state of each number, and how to find a message's number.
pub(super) struct Arrivals {
    /// Prefix of this run's task ids, before the number.
    prefix: String,
    /// Whether the prefix is unique enough to search a whole body for it.
    unique: bool,
    first_message_id: u64,
    /// One byte per number: the lowest bit means answered, the others count arrivals, up to 2.
    numbers: RefCell<Numbers>,
}

#[derive(Default)]
struct Numbers {
    seen: Vec<u8>,
    open: u64,
}

const ANSWERED: u8 = 1;
const ARRIVED: u8 = 2;
const AGAIN: u8 = 4;

impl Numbers {
    fn mark(&mut self, number: u64, with: impl FnOnce(u8) -> u8) {
        let index = usize::try_from(number).expect("numbers of one run fit into memory");
        if self.seen.len() <= index {
            self.seen.resize(index + 1, 0);
        }
        let before = self.seen[index];
        let after = with(before);
        self.seen[index] = after;
        let open = |state: u8| u64::from(state & (ANSWERED | ARRIVED) == ANSWERED);
        self.open = self.open + open(after) - open(before);
    }
}

impl Arrivals {
    pub(super) fn new(prefix: String, unique: bool, first_message_id: u64) -> Self {
        Self { prefix, unique, first_message_id, numbers: RefCell::default() }
    }

    pub(super) fn answered(&self, number: u64) {
        self.numbers.borrow_mut().mark(number, |state| state | ANSWERED);
    }

    fn arrived(&self, number: u64) {
        let again = |state| state | if state & ARRIVED == 0 { ARRIVED } else { AGAIN };
        self.numbers.borrow_mut().mark(number, again);
    }

    /// How many were answered but have not arrived.
    fn open(&self) -> u64 {
        self.numbers.borrow().open
    }

    fn account(&self) -> Account {
        let numbers = self.numbers.borrow();
        let mut account = Account::default();
        for (number, state) in numbers.seen.iter().enumerate() {
            let (answered, arrived) = (state & ANSWERED != 0, state & ARRIVED != 0);
            account.answered += u64::from(answered);
            account.arrived += u64::from(arrived);
            account.missing += u64::from(answered && !arrived);
            account.unanswered += u64::from(arrived && !answered);
            account.duplicated += u64::from(state & AGAIN != 0);
            if answered && !arrived && account.missing_ids.len() < NAMED {
                account.missing_ids.push(format!("{}{}", self.prefix, number + 1));
            }
        }
        account
    }

    /// The number of this run's command; `None` for other commands.
    fn number(&self, delivery: &Delivery) -> Option<u64> {
        let header =
            delivery.properties.headers().as_ref().and_then(|headers| headers.inner().get("task_id"));
        if let Some(AMQPValue::LongString(task_id)) = header {
            return number_after(task_id.as_bytes(), self.prefix.as_bytes());
        }
        // A context that no format reads names the task only within the body; a card may not name one at all.
        let body = &*delivery.data;
        if self.unique
            && let Some(at) = find(body, self.prefix.as_bytes())
        {
            return number_after(&body[at..], self.prefix.as_bytes());
        }
        let mark = b"\"message_id\":\"";
        let digits = &body[find(body, mark)? + mark.len()..];
        leading_number(digits)?.checked_sub(self.first_message_id)
    }
}

fn number_after(text: &[u8], prefix: &[u8]) -> Option<u64> {
    leading_number(text.strip_prefix(prefix)?)?.checked_sub(1)
}

fn leading_number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

/// A subscription made before the first callback.
pub(super) struct Verifier {
    source: Source,
    consumer: Consumer,
    session: amqp::Listening,
}

impl Verifier {
    pub(super) async fn subscribe(source: Source, amqp: &Settings) -> Result<Self, Failure> {
        let session =
            listen_in(amqp, "countersign send").await.map_err(|error| Failure::Unavailable(error.into()))?;
        let consumer = match source {
            Source::Own => {
                let listening =
                    Listening { exchange: &amqp.exchange, bindings: &["#".to_owned()], acks: false };
                subscribe_soon(&listening, &session).await?
            }
            Source::Queue => {
                let channel =
                    session.channel().await.context("cannot open a channel").map_err(Failure::Unavailable)?;
                consume_configured(amqp, &channel).await?
            }
        };
        Ok(Self { source, consumer, session })
    }

    /// Marks arrivals forever; returns only if the broker goes away.
    pub(super) async fn follow(&mut self, ledger: &Arrivals) -> Failure {
        loop {
            let delivery = match self.consumer.next().await {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => {
                    return Failure::Unavailable(
                        anyhow::Error::new(error).context("the broker closed the connection"),
                    );
                }
                None => return Failure::Unavailable(anyhow!("the broker ended the subscription")),
            };
            let Some(number) = ledger.number(&delivery) else {
                // Not acknowledged: other commands return to the queue when the run ends.
                continue;
            };
            ledger.arrived(number);
            if self.source == Source::Queue
                && let Err(error) = delivery.acker.ack(BasicAckOptions::default()).await
            {
                return Failure::Unavailable(
                    anyhow::Error::new(error).context("the broker closed the connection"),
                );
            }
        }
    }

    /// Waits until all answered commands have arrived, or nothing has arrived for `patience`, and returns the
    /// account.
    pub(super) async fn finish(mut self, ledger: &Arrivals, patience: Duration) -> Result<Account, Failure> {
        let settled = async {
            let mut last = (ledger.open(), Instant::now());
            while ledger.open() > 0 && last.1.elapsed() < patience {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if ledger.open() != last.0 {
                    last = (ledger.open(), Instant::now());
                }
            }
            // A duplicate arrives right behind the first copy, if at all.
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let ended = tokio::select! {
            () = settled => Ok(()),
            failure = self.follow(ledger) => Err(failure),
        };
        drop(self.consumer);
        self.session.close("all is accounted for").await;
        ended.map(|()| ledger.account())
    }
}

async fn consume_configured(amqp: &Settings, channel: &Channel) -> Result<Consumer, Failure> {
    let failed = |error| Failure::Unavailable(anyhow::Error::new(error));
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel
        .queue_declare(amqp.queue.as_str().into(), passive, FieldTable::default())
        .await
        .with_context(|| format!("cannot inspect the queue {:?}", amqp.queue))?;
    if queue.message_count() > 0 || queue.consumer_count() > 0 {
        return Err(anyhow!(
            "the queue {:?} is in use: {}, {}; --verify own takes nothing away from anybody",
            amqp.queue,
            counted(queue.message_count().into(), "message"),
            counted(queue.consumer_count().into(), "consumer")
        )
        .into());
    }
    channel.basic_qos(4096, BasicQosOptions::default()).await.map_err(failed)?;
    channel
        .basic_consume(
            amqp.queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_accounted_for() {
        let ledger = Arrivals::new("demo-1-task-".to_owned(), true, 0);
        for number in [0, 1, 2, 3] {
            ledger.answered(number);
        }
        for number in [0, 2, 2, 2, 9] {
            ledger.arrived(number);
        }
        assert_eq!(ledger.open(), 2);
        let account = ledger.account();
        let wanted = Account {
            answered: 4,
            arrived: 3,
            missing: 2,
            duplicated: 1,
            unanswered: 1,
            missing_ids: vec!["demo-1-task-2".to_owned(), "demo-1-task-4".to_owned()],
        };
        assert_eq!(account, wanted);
        // Arrival before the answer gives the same result.
        ledger.arrived(5);
        ledger.answered(5);
        assert_eq!(ledger.open(), 2);
    }

    #[test]
    fn a_number_is_read_behind_its_prefix() {
        assert_eq!(number_after(b"t-42\",", b"t-"), Some(41));
        assert_eq!(number_after(b"u-42", b"t-"), None);
        assert_eq!(number_after(b"t-0", b"t-"), None);
        assert_eq!(number_after(b"t-", b"t-"), None);
    }
}
