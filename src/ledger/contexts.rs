//! What the third party registers beforehand.

use futures_util::future::BoxFuture;

use super::{AcceptError, LookError};
use crate::{command::Registered, time::Timestamp};

/// Bytes of a key. An `action_context` that is longer is the key of nothing.
pub const MAX_KEY_BYTES: usize = 1024;

/// A context to be kept for callbacks to come.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The `action_context` that it stands for, byte for byte; at most [`MAX_KEY_BYTES`].
    pub key: String,
    /// The bot message that it stands for as well, whatever the context of its callbacks. No two contexts share one.
    pub message_id: Option<u64>,
    /// What it permits, and until when, in whole milliseconds.
    pub registered: Registered,
    /// When it was registered, in whole milliseconds.
    pub registered_at: Timestamp,
}

/// The answer of [`Contexts::register`].
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registering {
    /// All of them were committed and synced.
    Kept {
        /// For each, in order: true if it replaced the one with its key.
        replaced: Vec<bool>,
    },
    /// Nothing was written, for a message of theirs is that of another context that has not expired.
    MessageTaken {
        /// The first whose message it is, counted from 0.
        item: usize,
    },
}

/// The registered contexts.
pub trait Contexts: Send + Sync {
    /// Registers contexts, all of them or none; one whose key is known is replaced, whole.
    ///
    /// Resolves after commit and sync: a callback that is received from then on finds them. No two of one call may have
    /// the same key.
    fn register(
        &self,
        registrations: Vec<Registration>,
    ) -> BoxFuture<'static, Result<Registering, AcceptError>>;

    /// Removes the context with this key; false if there is none. Resolves after commit and sync.
    fn unregister(&self, key: String) -> BoxFuture<'static, Result<bool, AcceptError>>;

    /// The context with this key as it was registered, even if it has expired. For people.
    fn registration(&self, key: String) -> BoxFuture<'static, Result<Option<Registration>, LookError>>;
}
