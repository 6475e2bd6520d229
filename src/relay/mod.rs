//! The relay: outbox to broker. It publishes what the ledger holds as pending, and tells the ledger what became of it.
//!
//! # How it is made
//! What is decided stands in `protocol`, a machine without I/O that is told what happened and asked what to do; its doc
//! has the machine's own entities and invariants. `driver` carries out what it wants, between the ledger, a session and
//! the clock; [`run`] builds session after session. The machine that runs here is the one that the tests explore: every
//! state within small bounds, random walks, and lives in virtual time with everything round it.
//!
//! # Entities
//! - **Session.** One connection, one channel, from the first publish on it to the first thing that goes wrong with it.
//!   Sessions are not repaired: on any error, or when the broker does not answer in time, everything is rebuilt and
//!   what lies above the cursor is published again, in order of [`Seq`](crate::command::Seq).
//! - **Window.** The commands handed to the session whose outcome is not known, at most
//!   [`max_in_flight`](Settings::max_in_flight). Outcomes come in the order of publishing, whatever order the broker
//!   answers in, so the confirmed part of the log is always a prefix, and a thousand confirms are one row in the ledger.
//! - **Exception.** A command that the broker refused (nack, returned as unroutable, or by ending the session over it),
//!   or that waits for such a one. It leaves the log's order: the cursor moves past it, and it is tried again by itself.
//!   It *rests* in the ledger until it is due; then it is *tried*, or *held* behind an earlier one of its task.
//!
//! # The order of a task
//! Commands of one task are published in the order of their acceptance. When one is refused, the later ones wait: each
//! becomes an exception with 0 attempts as its turn comes, and is published after the earlier one was published or
//! parked, in order, one at a time. An exception also waits as long as an earlier command may stand in the log's order:
//! until the cursor could pass it. Commands of other tasks go on. After [`max_attempts`](Settings::max_attempts)
//! refusals a command is parked for an operator, and its task goes on without it: an operator who requeues it later
//! publishes it out of order.
//!
//! One thing can break the order, and cannot be fixed from here: a later command of the same task that was already in
//! the window when the earlier one was refused. It has been sent and may be in the queue.
//!
//! # Completing commands
//! On endpoints that are configured so, a command is completed by what the approval center knows ([`Enrich`]) before it is
//! published. That is a state of the machine, `protocol::stragglers`, and not a stage before it: the machine alone knows
//! which commands may overtake which, and where the cursor has to stay. Commands of other tasks go on; later ones of the same
//! task wait, and are completed at the same time. Each has a bounded time, counted from its first turn, and is published
//! without when that is over, or when too many are being completed: then at once, so that a backlog is not held up.
//!
//! When [`max_exceptions`](Settings::max_exceptions) commands wait (a full queue that rejects everything), new ones stay
//! in the log until some of them are through.
//!
//! # Commands that end the session
//! Over some commands a broker closes the channel or the connection. Such a one is found by publishing one at a time,
//! becomes an exception with the broker's words, and is tried again alone; everything else goes on. A broker that is
//! away, flaps or is silent makes no exceptions. See `protocol::suspicion` for the rules.
//!
//! # Who may write
//! Only the relay calls [`Outbox::settle`]; at most one settlement is under way. Between the settlement that moves an
//! exception and its commit the ledger's list of due exceptions would be out of date, so the relay never reads that
//! list while a settlement is being written. When the ledger takes no settlement, what was learned is kept and tried
//! again about once a second, until the relay is to stop, and then until the moment by which it must have stopped. What
//! is not settled is published again at the next start.
//!
//! # Invariants
//! 3. A command leaves `pending` only by a confirmed, routed publish (or an operator's act): the cursor passes a command
//!    only after [`BrokerAnswer::Confirmed`], or with its exception in the same settlement or an earlier one.

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

/// How the relay works, whatever broker it publishes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The exchange that the publisher publishes to, as the history of a command names it.
    pub exchange: Arc<str>,
    /// Commands published and not yet confirmed, at the most. At least 1.
    pub max_in_flight: usize,
    /// Refusals after which a command is parked. At least 1.
    pub max_attempts: u32,
    /// How long the oldest publish may be without an answer before the session is given up. Time during which the
    /// broker blocks publishing does not count.
    pub confirm_timeout: Duration,
    /// Exceptions that may wait before new commands are held back in the log.
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

/// A broker that can be connected to.
pub trait Publisher: Send {
    /// What a connection is.
    type Session: Session<Error = Self::Error>;
    /// Why there is none, or none any longer.
    type Error: Failure;

    /// Opens a session that is ready to publish. Takes a bounded time; may be dropped while it waits, and leaves nothing
    /// behind then.
    fn connect(&mut self) -> impl Future<Output = Result<Self::Session, Self::Error>> + Send;
}

/// A connection to a broker. After an error nothing but [`close`](Session::close) may be called.
pub trait Session: Send {
    /// Why the session is over.
    type Error: Failure;

    /// Hands one command to the broker; returns at once.
    ///
    /// On `Ok` exactly one [`BrokerAnswer`] will come, after those of all commands handed over before, unless the session
    /// ends.
    fn publish(&mut self, entry: Entry) -> Result<(), Self::Error>;

    /// Adds to `news` what the broker said since; pending when that is nothing.
    ///
    /// May come in lots: one wake-up for many outcomes.
    fn poll_news(
        &mut self,
        cx: &mut std::task::Context<'_>,
        news: &mut News,
    ) -> Poll<Result<(), Self::Error>>;

    /// Called about once a second: fails if the session is over, and makes the next
    /// [`poll_news`](Session::poll_news) tell everything that is known.
    fn look(&mut self) -> Result<(), Self::Error>;

    /// Takes leave of the broker, within a bounded time. A session that is only dropped is cut off.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// An error of a [`Publisher`] or [`Session`].
pub trait Failure: Error + Send + Sync + 'static {
    /// True if waiting will not help: somebody has to change the broker or the configuration.
    fn needs_operator(&self) -> bool;

    /// The broker's words, if it ended the session over something that was published on it: that command would end the
    /// next session as well.
    ///
    /// `None` for every other end, above all of a broker that is away, silent or shut down, and for a refusal that meets
    /// every command alike. What is told is shown to operators: it holds nothing of a message's body.
    fn blames_publish(&self) -> Option<String>;
}

/// What a broker said.
#[derive(Debug, Default)]
pub struct News {
    /// One for each command, in the order of [`Session::publish`].
    pub outcomes: Vec<BrokerAnswer>,
    /// Commands that were returned after their outcome was told as confirmed.
    pub late: Vec<LateReturn>,
    /// The broker has begun, or ceased, to block publishing.
    pub blocked: Option<bool>,
}

/// How a publish ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerAnswer {
    /// Confirmed by the broker and routed to a queue.
    Confirmed,
    /// Refused by the broker.
    Nacked,
    /// Returned by the broker, with its words: no queue was bound for it.
    Returned(String),
}

/// A command that was returned after it had been told as confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LateReturn {
    /// The command.
    pub command_id: CommandId,
    /// The broker's words.
    pub reason: String,
}

/// What was left undone when the relay stopped. All of it is published again at the next start.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// Commands confirmed in this run.
    pub confirmed: u64,
    /// Commands published and without an answer when the grace period ended.
    pub unanswered: usize,
    /// Whether all that the broker said is in the ledger.
    pub settled: bool,
}

/// Publishes until it is told to stop.
///
/// From the moment that `stop` says so nothing new is published; what is in flight is waited for and settled, and the session
/// closed, by the moment that it says. The ledger is needed until this returns: its
/// [`flush`](crate::ledger::Lifecycle::flush) comes after it.
///
/// Runs on the caller's task and spawns none. May be dropped at any time; what was not settled is published again at
/// the next start.
///
/// `enrich` completes commands before they are published; see `preparing`.
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

/// Has the metrics tell that there is no connection when the relay is gone, whatever ended it.
struct Connection(Arc<Metrics>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.relay.set_connected(false);
        self.0.relay.set_blocked(false);
    }
}

/// Builds session after session.
async fn supervise<P: Publisher>(relay: &mut Relay, publisher: &mut P, stop: &mut Stop) {
    /// The first wait. Most sessions end because a broker restarts or an exchange was deleted; both are quickly fixed.
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
                let end = relay.serve(&mut session, stop).await;
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
                    End::Failed(failure) => (true, Some(failure)),
                    End::Unanswered => (true, None),
                }
            }
            Err(failure) => (false, Some(failure)),
        };
        failures += 1;
        let delay = backoff::delay(FIRST_DELAY, failures, backoff::random());
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        match problem {
            // What to do about it is said with the command that is set aside.
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
    /// The result as it is counted.
    fn result(&self) -> PublishResult {
        match self {
            Self::Confirmed => PublishResult::Confirmed,
            Self::Nacked => PublishResult::Nacked,
            Self::Returned(_) => PublishResult::Returned,
        }
    }
}
