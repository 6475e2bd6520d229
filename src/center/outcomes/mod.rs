//! Shows outcomes to the approver, on the card of the approval bot and in the instance at the approval center.
//!
//! # Entities
//! - **Outcome.** The last report of a worker on a command, in the ledger, where [`crate::feedback`] keeps it.
//! - **Showing.** An outcome on its way to one place: the card that the command came from, or the instance that the
//!   worker gave. It waits, is shown, or is parked for an operator. Only the ledger holds this state.
//!
//! # Structure
//! `shower` reads due showings from the ledger, makes the calls (`showing`), classifies the results (`retry`), and
//! records them.
//!
//! # Guarantees
//! - An outcome that is kept is shown, parked, or superseded by a later one. A crash at any point loses nothing, and at
//!   most repeats an idempotent call.
//! - Each place shows outcomes in the order of the reports. A slow place delays no other, as long as fewer than
//!   [`Settings::max_calls`] places are slow.
//! - If the center is unreachable, limits, or denies access to the app, the call is retried at growing intervals until
//!   it works. If the center rejects the outcome, or the call fails too often, the showing is parked with the center's
//!   message.

mod retry;
mod shower;
mod showing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::Notify;

use crate::{
    center::client::Center,
    ledger::Ledger,
    stop::{Stop, overdue},
    telemetry::metrics::Metrics,
};

/// How outcomes are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Maximum concurrent calls to the approval center. At least 1.
    pub max_calls: usize,
    /// Transient failures after which a showing is parked. At least 1.
    pub max_attempts: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_calls: 8, max_attempts: 20 }
    }
}

/// Shared resources of the outcome tasks.
#[derive(Clone)]
pub struct Resources {
    /// Has the showings.
    pub ledger: Arc<dyn Ledger>,
    /// Counts results.
    pub metrics: Arc<Metrics>,
    /// Notified when there is something to show.
    pub bell: Arc<Notify>,
    /// Requests the stop.
    pub stop: Stop,
}

/// Shows outcomes until a stop is requested. Then it gives pending calls the remaining time. Returns when that is over, at
/// the latest. If dropped, nothing is lost.
pub async fn run(resources: Resources, settings: &Settings, center: &Center) {
    let showing = shower::run(&resources, settings, center);
    let mut stop = resources.stop.clone();
    tokio::select! {
        () = showing => tracing::info!("outcomes are no longer shown"),
        () = overdue(&mut stop) => {
            tracing::warn!("shutdown grace period expired; calls under way are made again after the next start");
        }
    }
}
