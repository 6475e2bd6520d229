//! How long-running work is told to stop.

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// `None` while the work is wanted, then the moment by which it must have ended. A sender that is gone means at once.
pub type Stop = watch::Receiver<Option<Instant>>;

/// Resolves when the work is to stop.
pub async fn requested(stop: &mut Stop) {
    stop.wait_for(Option::is_some).await.map(drop).unwrap_or_default();
}

/// Resolves when the work must have ended.
pub async fn overdue(stop: &mut Stop) {
    let deadline = stop.wait_for(Option::is_some).await.map(|deadline| *deadline).unwrap_or_default();
    if let Some(deadline) = deadline {
        sleep_until(deadline).await;
    }
}
