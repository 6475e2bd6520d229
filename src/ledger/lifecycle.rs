//! Keeping a ledger open: what the composition and health need.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{AcceptError, CredentialUse};
use crate::time::Timestamp;

/// What the ledger keeps and leaves; may change while it is open ([`Lifecycle::limit`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Refused callbacks kept of each kind; the oldest go first.
    pub refusals_kept: u64,
    /// The longest `dedupe_window` of any endpoint: how far back the window in memory reaches.
    pub longest_window: Duration,
    /// The longest `repeats_window` of any endpoint: how far back the window reaches as long as there is room. One that is made
    /// longer while the ledger is open fills as time passes.
    pub longest_repeats_window: Duration,
    /// Published commands older than this are pruned; `None` keeps them for ever. Nothing within the longest window is
    /// pruned, whatever this says, and nothing that is not published.
    pub retention: Option<Duration>,
    /// With less room than this on its disk nothing is accepted.
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
    /// Published commands that were received before this are pruned.
    #[must_use]
    pub fn horizon(&self, now: Timestamp) -> Option<Timestamp> {
        /// The window counts from the moment of the commit; a command is received a little before.
        const MARGIN: Duration = Duration::from_secs(60);
        let kept = self.retention?.max(self.longest_window.saturating_add(MARGIN));
        Some(now - kept)
    }
}

/// What is done to a ledger as a whole.
pub trait Lifecycle: Send + Sync {
    /// Changes what is kept and left, from the next commit on. A longer window than before reaches back as far as the log does.
    fn limit(&self, limits: Limits);

    /// Whether the writer still does anything at all, if only refuse: false when it has ended, pending for as long as it
    /// hangs. For a watchdog.
    fn answers(&self) -> BoxFuture<'static, bool>;

    /// Checks that a commit can be made now, by making one, and that there is room for more.
    fn probe(&self) -> BoxFuture<'static, Result<(), AcceptError>>;

    /// Merges this with what is known of credentials, and forgets those that are not in it. Resolves after commit.
    fn keep_credential_uses(&self, uses: Vec<CredentialUse>) -> BoxFuture<'static, Result<(), AcceptError>>;

    /// For how long this process may be unable to accept before it should get no more callbacks. Another process can take
    /// them only if the cause is this process's own: all replicas that lose one server would go at the same time.
    fn tolerance(&self) -> Duration;

    /// Commits what is queued and closes the writer. Accepts that come later are refused as unavailable.
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
