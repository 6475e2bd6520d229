//! What the benchmarks with a ledger share.

pub(crate) mod decision;

use std::time::{Duration, Instant};

use countersign::ledger::{Acceptance, Limits, OnConflict, Sizing};
use countersign::time::Timestamp;

use decision::{decision, fingerprint};

/// As `serve` has them by default.
pub(crate) fn sizing() -> Sizing {
    Sizing { queue_capacity: 4096, max_batch: 256, limits: Limits::default() }
}

/// A decision on its way to the ledger.
pub(crate) fn acceptance(number: u64, at: Timestamp) -> Acceptance {
    let command = decision(number, at);
    let fingerprint = fingerprint(&command);
    Acceptance {
        since: Instant::now(),
        command,
        fingerprint,
        window: Duration::from_secs(60),
        repeats_window: Duration::from_secs(24 * 3600),
        on_conflict: OnConflict::Publish,
    }
}

/// A runtime like that of `serve`, with one thread for the tasks.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be started")
}
