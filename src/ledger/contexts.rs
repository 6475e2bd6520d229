//! Contexts that the third party registers in advance.

use futures_util::future::BoxFuture;

use super::{AcceptError, LookError, acts::By};
use crate::{command::Registered, time::Timestamp};

/// Longest key in bytes. A longer `action_context` matches no key.
pub const MAX_KEY_BYTES: usize = 1024;

/// A context for future callbacks.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The `action_context` that it matches, byte for byte; at most [`MAX_KEY_BYTES`].
    pub key: String,
    /// A bot message that it matches too, whatever the `action_context`. No two contexts share one.
    pub message_id: Option<u64>,
    /// What it permits and until when, in whole milliseconds.
    pub registered: Registered,
    /// When it was registered, in whole milliseconds.
    pub registered_at: Timestamp,
}

/// The answer of [`Contexts::register`].
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registering {
    /// All were committed and synced.
    Kept {
        /// For each, in order: true if it replaced a context with the same key.
        replaced: Vec<bool>,
    },
    /// Nothing was written: a bot message belongs to another context that has not expired.
    MessageTaken {
        /// The first registration with such a message, counted from 0.
        item: usize,
    },
}

/// The registered contexts.
pub trait Contexts: Send + Sync {
    /// Registers all contexts or none, in one act. A context with a known key is replaced as a whole.
    ///
    /// Resolves after commit and sync: callbacks received from then on find them. Keys within one call must be
    /// distinct.
    fn register(
        &self,
        registrations: Vec<Registration>,
        by: By,
    ) -> BoxFuture<'static, Result<Registering, AcceptError>>;

    /// Removes the context with this key; false if there is none. Resolves after commit and sync.
    fn unregister(&self, key: String, by: By) -> BoxFuture<'static, Result<bool, AcceptError>>;

    /// The context with this key as registered, even if expired. For people.
    fn registration(&self, key: String) -> BoxFuture<'static, Result<Option<Registration>, LookError>>;
}
