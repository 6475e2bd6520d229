//! Outcomes: what workers report of commands is kept in the ledger and shown to the approver, on the card of the
//! approval bot and in the instance at the approval center.
//!
//! # Entities
//! - **Report.** A message `approval.outcome/1` in a queue of ours; [`crate::command::outcome`] has its form and the rules
//!   by which one repeats or supersedes another.
//! - **Outcome.** The last report of a command, in the ledger.
//! - **Showing.** An outcome on its way to one place: the card that the command came from, or the instance that the worker
//!   gave. It waits, is shown, or is parked for an operator; that stands in the ledger alone.
//!
//! # How it is made
//! Two tasks that know of each other only by the ledger and one bell. `consumer` takes reports, on a connection of its own:
//! neither the relay nor it holds up the other. A report is acknowledged after the commit that holds it. It goes to the dead
//! letters, with the reason (`burial`), if it is none, if its command is not known, or if it speaks of what is not its
//! command's (`permit`); the last is in the history of the command as well. `shower` asks the ledger what is to be shown, makes the
//! calls (`showing`), judges how they ended (`retry`), and writes that down.
//!
//! # What is promised
//! - A report that was acknowledged is shown, parked, or superseded by a later one; a crash at any point loses nothing, and at
//!   most repeats a call that may be repeated.
//! - What is shown in one place is shown in the order of the reports. A place that is slow holds up no other one, as long as
//!   fewer than [`Settings::max_calls`] places are.
//! - Nothing is given up because the center is away, limits, or does not let the app in: that is tried again, at longer and
//!   longer intervals, until it works. What the center rejects, or fails at too often, is parked with its words.

mod burial;
mod consumer;
mod permit;
mod retry;
mod shower;
mod showing;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Notify;

pub use permit::{Pattern, Rules};

use crate::{
    amqp,
    center::client::Center,
    ledger::Ledger,
    stop::{Stop, overdue},
    telemetry::metrics::Metrics,
};

/// The section `[outcomes]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The queue that workers report to. Empty: no outcomes are taken.
    pub queue: String,
    /// Reports that may be on their way from the broker to the ledger. At least 1.
    pub prefetch: u16,
    /// Calls to the approval center under way at the same time. At least 1.
    pub max_calls: usize,
    /// Failures that may pass after which a showing is parked. At least 1.
    pub max_attempts: u32,
    /// What workers may report, by the name of the endpoint. Of an endpoint that is not in it, what their command names.
    pub rules: HashMap<String, Rules>,
}

impl Settings {
    /// The queue, if there is one.
    #[must_use]
    pub fn queue(&self) -> Option<&str> {
        Some(&*self.queue).filter(|queue| !queue.is_empty())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue: "countersign.outcomes".to_owned(),
            prefetch: 64,
            max_calls: 8,
            max_attempts: 20,
            rules: HashMap::new(),
        }
    }
}

/// What the outcomes work with.
#[derive(Clone)]
pub struct Resources {
    /// Where reports are kept.
    pub ledger: Arc<dyn Ledger>,
    /// Where it is counted what came of them.
    pub metrics: Arc<Metrics>,
    /// When to stop.
    pub stop: Stop,
}

/// Takes reports and shows them until it is to stop; then takes no more, keeps what it has taken, and gives calls under way
/// the time that is left. Returns at the latest when that is over. If dropped, nothing is lost.
pub async fn run(resources: Resources, broker: &amqp::Settings, settings: &Settings, center: &Center) {
    let bell = Notify::new();
    let consuming = consumer::run(&resources, broker, settings, &bell);
    let showing = shower::run(&resources, settings, center, &bell);
    let mut stop = resources.stop.clone();
    tokio::select! {
        ((), ()) = async { tokio::join!(consuming, showing) } => tracing::info!("outcomes stopped"),
        () = overdue(&mut stop) => {
            tracing::warn!("shutdown grace period expired; calls under way are made again after the next start");
        }
    }
}
