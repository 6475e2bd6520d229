//! Published commands that came back from the broker: rejected by a worker, dropped by a queue, or never routed to one.

use futures_util::future::BoxFuture;
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::AcceptError;
use crate::{command::CommandId, time::Timestamp};

/// Why a message is where nobody took it. The broker's words are in
/// <https://www.rabbitmq.com/docs/dlx#effects>.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, IntoStaticStr, VariantArray, EnumString,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A worker rejected it.
    Rejected,
    /// It was delivered too often: workers failed at it.
    DeliveryLimit,
    /// It was in the queue for longer than a policy allows.
    Expired,
    /// The queue was full.
    Overflowed,
    /// No queue was bound for it.
    Unrouted,
}

impl Why {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word in the ledger, answers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A message that nobody took, as it came from its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The command that it is, as far as it says; `None` if it cannot be one.
    pub command_id: Option<CommandId>,
    /// Why nobody took it; `None` if the broker does not say. A command then counts as [`Why::Rejected`].
    pub why: Option<Why>,
    /// The queue that it was in before; `None` for [`Why::Unrouted`], and where the broker does not say.
    pub queue: Option<String>,
    /// When it left that queue, by the broker's clock, to the second.
    pub died_at: Option<Timestamp>,
    /// Why countersign itself refused it, if it is a worker's report, and how much of its body is kept, if not all.
    pub reason: Option<String>,
    /// AMQP property `message_id`.
    pub message_id: Option<String>,
    /// AMQP property `type`.
    pub message_type: Option<String>,
    /// Its routing key.
    pub routing_key: String,
    /// Its body, or the beginning of it.
    pub body: Vec<u8>,
}

/// What became of a dead letter.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// Its command now counts as rejected or unrouted, as soon as it counts as published.
    Open,
    /// It is recorded in the history of its command. The state stays: the command was requeued after that, or a worker
    /// has reported its outcome.
    Closed,
    /// It is no command of this ledger. It is kept among the strays.
    Stray,
    /// It is no command of this ledger, and there are too many strays. It was not kept.
    Full,
}

/// How many strays are kept. One more is left with the broker.
pub const MAX_STRAYS: u64 = 10_000;

/// How long before a requeue a letter may have died, by the broker's clock, and still count as one that died after it:
/// the two clocks differ. A letter that is open by mistake is seen; one that is closed by mistake is lost.
pub(super) const CLOCKS_MS: i64 = 60_000;

/// Letters kept of each command: a worker that rejects it does so again.
pub(super) const LETTERS: i64 = 10;

/// A dead letter that is no command of this ledger, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Stray {
    /// Grows with each.
    pub id: u64,
    /// When it was taken from the queue.
    pub came_at: Timestamp,
    /// Why nobody took it, if the broker said so.
    pub why: Option<Why>,
    /// The queue that it was in before.
    pub queue: Option<String>,
    /// Why countersign refused it, if it is a worker's report, and how much of its body is kept, if not all.
    pub reason: Option<String>,
    /// AMQP property `message_id`.
    pub message_id: Option<String>,
    /// AMQP property `type`.
    #[serde(rename = "type")]
    pub message_type: Option<String>,
    /// Its routing key.
    pub routing_key: String,
    /// Its body, or the beginning of it. What is not UTF-8 is replaced.
    pub body: String,
}

/// Keeps what came back.
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps dead letters, in this order; one answer for each. A letter that comes twice is kept twice.
    ///
    /// Resolves after commit and sync. Cancel safe: it is kept, or not.
    fn collect(&self, letters: Vec<DeadLetter>) -> BoxFuture<'static, Result<Vec<Collected>, AcceptError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_a_contract_and_read_back() {
        let words = ["rejected", "delivery_limit", "expired", "overflowed", "unrouted"];
        assert!(Why::ALL.iter().copied().map(Why::as_str).eq(words));
        assert!(words.iter().zip(Why::ALL).all(|(word, why)| word.parse() == Ok(*why)));
        assert_eq!(serde_json::to_value(Why::ALL).unwrap(), serde_json::json!(words));
    }
}
