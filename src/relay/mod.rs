//! The relay: outbox to broker. It publishes the ledger's pending commands and records their outcome there.
//!
//! # Structure
//! `protocol` makes the decisions: a state machine without I/O, fed with events and asked for effects. Its doc has its
//! own entities and invariants. `driver` carries the effects out, between the ledger, a session and the clock; [`run`]
//! builds session after session. The tests explore the same machine: every state within small bounds, random walks,
//! and whole lives in virtual time.
//!
//! # Entities
//! - **Session.** One connection with one channel, from its first publish to its first failure. Sessions are not
//!   repaired: on any error, or when the broker does not answer in time, everything is rebuilt, and the commands above
//!   the cursor are published again in order of [`Seq`](crate::command::Seq).
//! - **Window.** The commands handed to the session whose outcome is not known, at most
//!   [`max_in_flight`](Settings::max_in_flight). Outcomes are reported in publish order, whatever order the broker
//!   answers in. So the confirmed part of the log is always a prefix, and a thousand confirms are one row in the
//!   ledger.
//! - **Exception.** A command that the broker refused (nack, returned as unroutable, or by ending the session over
//!   it), or that waits for such a command. It leaves the log's order: the cursor moves past it, and it is retried
//!   separately. It *rests* in the ledger until it is due; then it is *tried*, or *held* behind an earlier one of its
//!   task.
//!
//! # The order of a task
//! Commands of one task are published in the order of their acceptance. When one is refused, the later ones become
//! exceptions with 0 attempts as their turn comes. They are published in order, one at a time, after the refused one
//! was published or parked. An exception also waits while an earlier command may still be in the log's order, until
//! the cursor could pass that command. Other tasks go on. After [`max_attempts`](Settings::max_attempts) refusals a
//! command is parked for an operator and its task goes on without it. If an operator requeues it later, it is
//! published out of order.
//!
//! One case can break the order and cannot be fixed here: a later command of the same task was already in the window
//! when the earlier one was refused. It has been sent and may be in the queue.
//!
//! # Enrichment
//! If configured for its endpoint, a command is enriched with data from the approval center ([`Enrich`]) before it is
//! published. This is a state of the machine, `protocol::stragglers`, not a stage before it: only the machine knows
//! which commands may overtake which, and where the cursor has to stay. Commands of other tasks go on; later ones of
//! the same task wait and are enriched concurrently. A time limit counts from the command's first turn. When it
//! expires, or when too many commands are being enriched, the command is published without enrichment, so a backlog is
//! not held up.
//!
//! When [`max_exceptions`](Settings::max_exceptions) commands wait (a full queue that rejects everything), new ones
//! stay in the log until some of them are through.
//!
//! # Commands that end the session
//! A broker closes the channel or the connection over some commands. Such a command is found by publishing one at a
//! time. It becomes an exception with the broker's message and is retried alone; everything else goes on. A broker
//! that is unreachable, flaps or is silent causes no exceptions. See `protocol::suspicion` for the rules.
//!
//! # Who may write
//! Only the relay calls [`Outbox::settle`], with at most one settlement under way. Until a settlement is committed,
//! the ledger's list of due exceptions may be out of date, so the relay never reads it during a settlement. A failed
//! settlement is kept and retried about once a second: until stop is requested, and then until the stop deadline.
//! Unsettled commands are published again at the next start.
//!
//! # Invariants
//! 3. A command leaves `pending` only by a confirmed, routed publish (or an operator's act): the cursor passes a
//!    command only after [`BrokerAnswer::Confirmed`], or with its exception in the same settlement or an earlier one.

mod driver;
mod notices;
mod preparing;
mod protocol;
#[cfg(test)]
mod tests;

use std::{error::Error, sync::Arc, task::Poll, time::Duration};

use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::{
    backoff,
    command::CommandId,
    ledger::{Entry, Outbox},
    stop::{Stop, overdue, requested},
    telemetry::{
        log::chain,
        metrics::{Metrics, PublishResult},
    },
};

use driver::{End, Relay};
pub use preparing::Enrich;

/// Settings of the relay that do not depend on the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The exchange to publish to, as recorded in the history of a command.
    pub exchange: Arc<str>,
    /// Maximum number of published, unconfirmed commands. At least 1.
    pub max_in_flight: usize,
    /// Refusals after which a command is parked. At least 1.
    pub max_attempts: u32,
    /// How long the oldest publish may stay unanswered before the session is given up. Time during which the broker
    /// blocks publishing does not count.
    pub confirm_timeout: Duration,
    /// Number of waiting exceptions at which new commands are held back in the log.
    pub max_exceptions: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            exchange: "countersign.commands".into(),
            max_in_flight: 1024,
            max_attempts: 20,
            confirm_timeout: Duration::from_secs(30),
            max_exceptions: 10_000,
        }
    }
}

/// Connects to a broker.
pub trait Publisher: Send {
    /// A connection.
    type Session: Session<Error = Self::Error>;
    /// Why connecting or a session failed.
    type Error: Failure;

    /// Opens a session that is ready to publish. Takes a bounded time. Cancel safe: a dropped call leaves nothing
    /// behind.
    fn connect(&mut self) -> impl Future<Output = Result<Self::Session, Self::Error>> + Send;

    /// The number of brokers that [`connect`](Publisher::connect) chooses from.
    fn brokers(&self) -> usize;

    /// Makes the next [`connect`](Publisher::connect) try the broker of the last session after all others.
    fn pass_over(&mut self);
}

/// A connection to a broker. After an error only [`close`](Session::close) may be called.
pub trait Session: Send {
    /// Why the session ended.
    type Error: Failure;

    /// Takes one command, for the next [`flush`](Session::flush). Exactly one [`BrokerAnswer`] follows after that, after those of
    /// all earlier commands, unless the session ends.
    fn publish(&mut self, entry: Entry);

    /// Hands what was taken to the broker, together; returns immediately.
    fn flush(&mut self) -> Result<(), Self::Error>;

    /// Adds what the broker sent since the last call to `news`; pending if that is nothing.
    ///
    /// May batch: one wake-up for many outcomes.
    fn poll_news(
        &mut self,
        cx: &mut std::task::Context<'_>,
        news: &mut News,
    ) -> Poll<Result<(), Self::Error>>;

    /// Called about once a second. Fails if the session is over; makes the next [`poll_news`](Session::poll_news)
    /// report everything that is known.
    fn look(&mut self) -> Result<(), Self::Error>;

    /// Closes the connection cleanly, within a bounded time. Dropping the session cuts the connection.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// An error of a [`Publisher`] or [`Session`].
pub trait Failure: Error + Send + Sync + 'static {
    /// True if retrying will not help: the broker or the configuration has to be changed.
    fn needs_operator(&self) -> bool;

    /// True if the broker has fallen silent: connecting to it again may take as long as it can.
    fn is_silence(&self) -> bool;

    /// The broker's message, if it ended the session over a published command: that command would end the next session
    /// as well.
    ///
    /// `None` for every other end, in particular if the broker is unreachable, silent or shut down, and for a refusal
    /// that affects every command alike. The message is shown to operators: it contains nothing of a message's body.
    fn blames_publish(&self) -> Option<String>;
}

/// Events from the broker.
#[derive(Debug, Default)]
pub struct News {
    /// One for each command, in the order of [`Session::publish`].
    pub outcomes: Vec<BrokerAnswer>,
    /// Commands that were returned after they were reported as confirmed.
    pub late: Vec<LateReturn>,
    /// The broker has started (`true`) or stopped (`false`) blocking publishing.
    pub blocked: Option<bool>,
}

/// The outcome of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerAnswer {
    /// Confirmed by the broker and routed to a queue.
    Confirmed,
    /// Refused by the broker.
    Nacked,
    /// Returned by the broker, with its message: no queue was bound for it.
    Returned(String),
}

/// A command that was returned after it was reported as confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LateReturn {
    /// The command.
    pub command_id: CommandId,
    /// The broker's message.
    pub reason: String,
}

/// What was left undone when the relay stopped. All of it is published again at the next start.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// Commands confirmed in this run.
    pub confirmed: u64,
    /// Commands without an answer when the grace period ended.
    pub unanswered: usize,
    /// Whether everything the broker answered is in the ledger.
    pub settled: bool,
}

/// Publishes until stop is requested.
///
/// Then publishes nothing new, settles the commands in flight and closes the session, all before the deadline in
/// `stop`. The ledger is needed until this returns: call its [`flush`](crate::ledger::Lifecycle::flush) after it.
///
/// Runs on the caller's task and spawns none. May be dropped at any time; unsettled commands are published again at
/// the next start.
///
/// `enrich` enriches commands before they are published; see `preparing`.
pub async fn run<P: Publisher>(
    ledger: Arc<dyn Outbox>,
    mut publisher: P,
    settings: Settings,
    enrich: Option<Arc<dyn Enrich>>,
    metrics: Arc<Metrics>,
    mut stop: Stop,
) -> Shutdown {
    let _until_dropped = Connection(metrics.clone());
    let mut relay = Relay::new(ledger, &settings, enrich, metrics);
    let mut deadline = stop.clone();
    tokio::select! {
        biased;
        () = supervise(&mut relay, &mut publisher, &mut stop) => {}
        () = overdue(&mut deadline) => warn!("the grace period ended before the relay was done"),
    }
    relay.end()
}

/// Resets the connection metrics when the relay ends, whatever ended it.
struct Connection(Arc<Metrics>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.relay.set_connected(false);
        self.0.relay.set_blocked(false);
    }
}

/// Builds session after session.
async fn supervise<P: Publisher>(relay: &mut Relay, publisher: &mut P, stop: &mut Stop) {
    /// The first delay. Most sessions end because a broker restarts or an exchange was deleted; both are quickly
    /// fixed.
    const FIRST_DELAY: Duration = Duration::from_millis(250);
    let mut failures = 0;
    loop {
        let connected = tokio::select! {
            biased;
            connected = publisher.connect() => connected,
            () = requested(stop) => return relay.settle_all().await,
        };
        let (lost, problem) = match connected {
            Ok(mut session) => {
                relay.metrics.relay.set_connected(true);
                let confirmed = relay.confirmed;
                let end = relay.serve(&mut session, publisher.brokers(), stop).await;
                let blame = match &end {
                    End::Failed(failure) => failure.blames_publish(),
                    End::Stopped | End::Unanswered => None,
                };
                let over = relay.session_over(blame);
                if relay.confirmed > confirmed || over.expected {
                    failures = 0;
                }
                session.close().await;
                relay.settle_all().await;
                match end {
                    End::Stopped => return info!("the relay has stopped"),
                    End::Failed(failure) => {
                        if failure.is_silence() {
                            publisher.pass_over();
                        }
                        (true, Some(failure))
                    }
                    End::Unanswered => {
                        publisher.pass_over();
                        (true, None)
                    }
                }
            }
            Err(failure) => (false, Some(failure)),
        };
        failures += 1;
        let delay = backoff::delay(FIRST_DELAY, failures, backoff::random());
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        match problem {
            // The log line of the command that is set aside says what to do about it.
            Some(failure) if failure.blames_publish().is_some() => {
                warn!(delay_ms, failures, error = %chain(&failure), "broker closed the session; reconnecting");
            }
            Some(failure) if failure.needs_operator() => {
                error!(delay_ms, failures, error = %chain(&failure), "cannot publish; operator action required");
            }
            Some(failure) if lost => {
                warn!(delay_ms, failures, error = %chain(&failure), "lost the broker; reconnecting");
            }
            Some(failure) => {
                warn!(delay_ms, failures, error = %chain(&failure), "cannot connect to the broker; retrying");
            }
            None => {
                warn!(delay_ms, failures, "no confirm from the broker in time; reconnecting");
            }
        }
        tokio::select! {
            biased;
            () = sleep(delay) => {}
            () = requested(stop) => return,
        }
    }
}

impl BrokerAnswer {
    /// The outcome's label in the metrics.
    fn result(&self) -> PublishResult {
        match self {
            Self::Confirmed => PublishResult::Confirmed,
            Self::Nacked => PublishResult::Nacked,
            Self::Returned(_) => PublishResult::Returned,
        }
    }
}
