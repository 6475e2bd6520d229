//! The stop signal of long-running work.

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// `None` while the work should run, then its deadline. A dropped sender means stop immediately.
pub type Stop = watch::Receiver<Option<Instant>>;

/// Resolves when stop is requested.
pub async fn requested(stop: &mut Stop) {
    stop.wait_for(Option::is_some).await.map(drop).unwrap_or_default();
}

/// Resolves at the deadline.
pub async fn overdue(stop: &mut Stop) {
    let deadline = stop.wait_for(Option::is_some).await.map(|deadline| *deadline).unwrap_or_default();
    if let Some(deadline) = deadline {
        sleep_until(deadline).await;
    }
}
