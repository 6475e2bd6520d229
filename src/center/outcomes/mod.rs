//! Outcomes: stores workers' reports on commands in the ledger and shows them to the approver, on the card of the
//! approval bot and in the instance at the approval center.
//!
//! # Entities
//! - **Report.** A message `approval.outcome/1` in our queue. [`crate::command::outcome`] has its format and the rules
//!   by which one repeats or supersedes another.
//! - **Outcome.** The last report of a command, in the ledger.
//! - **Showing.** An outcome on its way to one place: the card that the command came from, or the instance that the
//!   worker gave. It waits, is shown, or is parked for an operator. Only the ledger holds this state.
//!
//! # Structure
//! Two tasks share only the ledger and one notification. `consumer` takes reports on its own connection, so that it and
//! the relay do not block each other. It acknowledges a report after the commit that stores it. It dead-letters, with
//! the reason (`burial`), reports that are malformed, that name an unknown command, or that are not about their own
//! command (`permit`, also recorded in the command's history). `shower` reads due showings from the ledger, makes the
//! calls (`showing`), classifies the results (`retry`), and records them.
//!
//! # Guarantees
//! - An acknowledged report is shown, parked, or superseded by a later one. A crash at any point loses nothing, and at
//!   most repeats an idempotent call.
//! - Each place shows outcomes in the order of the reports. A slow place delays no other, as long as fewer than
//!   [`Settings::max_calls`] places are slow.
//! - If the center is unreachable, limits, or denies access to the app, the call is retried at growing intervals until
//!   it works. If the center rejects the outcome, or the call fails too often, the showing is parked with the center's
//!   message.

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
    /// The queue that workers report to. Empty: outcomes are off.
    pub queue: String,
    /// Maximum reports in transit from the broker to the ledger. At least 1.
    pub prefetch: u16,
    /// Maximum concurrent calls to the approval center. At least 1.
    pub max_calls: usize,
    /// Transient failures after which a showing is parked. At least 1.
    pub max_attempts: u32,
    /// What workers may report, by endpoint name. Without an entry, only what the command names.
    pub rules: HashMap<String, Rules>,
}

impl Settings {
    /// The queue, if configured.
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

/// Shared resources of the outcome tasks.
#[derive(Clone)]
pub struct Resources {
    /// Stores reports.
    pub ledger: Arc<dyn Ledger>,
    /// Counts results.
    pub metrics: Arc<Metrics>,
    /// Requests the stop.
    pub stop: Stop,
}

/// Consumes and shows reports until a stop is requested. Then it takes no more, stores those already taken, and gives
/// pending calls the remaining time. Returns when that is over, at the latest. If dropped, nothing is lost.
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
