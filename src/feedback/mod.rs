//! What comes back from the broker: workers' reports on commands, and commands that nobody took. Both are kept in the
//! ledger, whether or not the approval center is configured.
//!
//! # Entities
//! - **Report.** A message `approval.outcome/1` in our queue. [`crate::command::outcome`] has its format and the rules
//!   by which one repeats or supersedes another. The last one of a command is its **outcome**.
//! - **Dead letter.** A message in the queue of dead letters or of unrouted commands. One that is a command of this ledger
//!   changes its state; see [`crate::ledger::DeadLetter`].
//!
//! # Structure
//! One session for each queue, on a connection of its own, so that they and the relay do not block each other
//! (`session`). It takes messages in batches, has its inbox keep them, and acknowledges each after the commit that keeps
//! it. `reports` is the inbox of reports. It dead-letters, with the reason (`burial`), those that are malformed, that
//! name an unknown command, or that are not about their own command (`permit`, also recorded in the command's history).
//! `dead` is the inbox of dead letters.
//!
//! # Guarantees
//! A message that is acknowledged is in the ledger, or repeats what is there. A crash at any point loses nothing.

mod burial;
mod dead;
mod permit;
mod reports;
mod session;

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Notify;

pub use permit::{Pattern, Rules};

use crate::{
    amqp::{
        self,
        topology::{DEAD, UNROUTED},
    },
    ledger::{Ledger, Why},
    stop::{Stop, overdue},
    telemetry::metrics::Metrics,
};
use dead::DeadInbox;
use reports::ReportInbox;

/// What is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The queue that workers report to. Empty: no reports are taken.
    pub queue: String,
    /// Whether somebody asked for reports: then it is an error if there is no such queue.
    pub needed: bool,
    /// Maximum reports in transit from the broker to the ledger. At least 1.
    pub prefetch: u16,
    /// Whether outcomes are to be shown at the approval center.
    pub shows: bool,
    /// What workers may report, by endpoint name. Without an entry, only what the command names.
    pub rules: HashMap<String, Rules>,
}

impl Settings {
    /// The queue of reports, if configured.
    #[must_use]
    pub fn queue(&self) -> Option<&str> {
        Some(&*self.queue).filter(|queue| !queue.is_empty())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue: "countersign.outcomes".to_owned(),
            needed: false,
            prefetch: 64,
            shows: false,
            rules: HashMap::new(),
        }
    }
}

/// Shared resources of the sessions.
#[derive(Clone)]
pub struct Resources {
    /// Keeps what comes back.
    pub ledger: Arc<dyn Ledger>,
    /// Counts it.
    pub metrics: Arc<Metrics>,
    /// Notified when there is something to show.
    pub bell: Arc<Notify>,
    /// Requests the stop.
    pub stop: Stop,
}

/// Takes back what comes until a stop is requested. Then it keeps what it has taken, and returns when the time is over at
/// the latest. If dropped, nothing is lost.
pub async fn run(resources: Resources, broker: &amqp::Settings, settings: &Settings) {
    let reports = async {
        if settings.queue().is_some() {
            let inbox = ReportInbox { resources: resources.clone(), settings: settings.clone() };
            session::run(&inbox, broker, resources.stop.clone()).await;
        }
    };
    // With `amqp.queue = ""` the relay declares neither of the two; dead letters of reports exist all the same.
    let commands = !broker.queue.is_empty();
    let dead = async {
        if broker.collects && (commands || settings.queue().is_some()) {
            let reports = settings.queue.clone();
            let inbox = DeadInbox { resources: resources.clone(), queue: DEAD, why: None, reports };
            session::run(&inbox, broker, resources.stop.clone()).await;
        }
    };
    let unrouted = async {
        if broker.collects && commands {
            let why = Some(Why::Unrouted);
            let inbox =
                DeadInbox { resources: resources.clone(), queue: UNROUTED, why, reports: String::new() };
            session::run(&inbox, broker, resources.stop.clone()).await;
        }
    };
    let mut stop = resources.stop.clone();
    tokio::select! {
        ((), (), ()) = async { tokio::join!(reports, dead, unrouted) } => {}
        () = overdue(&mut stop) => {
            tracing::warn!("shutdown grace period expired; what came back and is not kept stays with the broker");
        }
    }
}
