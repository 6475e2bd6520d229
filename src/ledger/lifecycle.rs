//! Running a ledger: what the composition root and health checks need.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{AcceptError, CredentialUse};
use crate::time::Timestamp;

/// What the ledger keeps, and how much space it leaves. Can change while it is open ([`Lifecycle::limit`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Refused callbacks kept of each kind. The oldest are dropped first.
    pub refusals_kept: u64,
    /// The longest `dedupe_window` of any endpoint: how far back the in-memory window reaches.
    pub longest_window: Duration,
    /// The longest `repeats_window` of any endpoint: how far back the window reaches while there is room. If lengthened
    /// while the ledger is open, it fills as time passes.
    pub longest_repeats_window: Duration,
    /// Published commands older than this are pruned; `None` keeps them permanently. Commands within the longest window
    /// and unpublished commands are never pruned.
    pub retention: Option<Duration>,
    /// Nothing is accepted while the disk has less free space than this.
    pub min_free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            refusals_kept: 10_000,
            longest_window: Duration::from_secs(60),
            longest_repeats_window: Duration::from_secs(24 * 3600),
            retention: Some(Duration::from_secs(90 * 86_400)),
            min_free_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// Published commands received before this are pruned.
    #[must_use]
    pub fn horizon(&self, now: Timestamp) -> Option<Timestamp> {
        /// The window counts from the commit; a command is received slightly earlier.
        const MARGIN: Duration = Duration::from_secs(60);
        let kept = self.retention?.max(self.longest_window.saturating_add(MARGIN));
        Some(now - kept)
    }
}

/// Operations on the whole ledger.
pub trait Lifecycle: Send + Sync {
    /// Changes the limits from the next commit on. A longer window reaches back as far as the log does.
    fn limit(&self, limits: Limits);

    /// Whether the writer still responds, even if only with refusals: false when it has ended, pending while it hangs.
    /// For a watchdog.
    fn answers(&self) -> BoxFuture<'static, bool>;

    /// Checks that commits work, by making one, and that there is room for more.
    fn probe(&self) -> BoxFuture<'static, Result<(), AcceptError>>;

    /// Merges these uses with the stored ones, and forgets other credentials. Resolves after commit.
    fn keep_credential_uses(&self, uses: Vec<CredentialUse>) -> BoxFuture<'static, Result<(), AcceptError>>;

    /// For how long this process may be unable to accept before it should get no more callbacks. Another process can take
    /// them only if the cause is this process's own: all replicas that lose one server would go at the same time.
    fn tolerance(&self) -> Duration;

    /// Counts changes, to watch them: callbacks, what the broker answered, reports of workers, acts, refusals. What another
    /// process has changed is noticed within a second or two, some of it within ten.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Commits what is queued and closes the writer. Later accepts are refused as unavailable.
    fn flush(&self) -> BoxFuture<'static, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_window_needs_is_never_pruned() {
        let limits = Limits { retention: Some(Duration::from_secs(60)), ..Limits::default() };
        let hour = Limits { longest_window: Duration::from_secs(3600), ..limits };
        let now = Timestamp::now();
        assert_eq!(now.since(hour.horizon(now).unwrap()).as_secs(), 3660);
        assert_eq!(Limits { retention: None, ..hour }.horizon(now), None, "for ever");
    }
}
