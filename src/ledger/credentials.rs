//! When credentials were used last.

use crate::time::Timestamp;

/// What is known of one credential of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialUse {
    /// The endpoint's name.
    pub endpoint: String,
    /// Tells it from the other credentials of the endpoint, and tells nothing of it.
    pub tag: u16,
    /// Since when it has been configured.
    pub known_since: Timestamp,
    /// When a callback came in by it last; `None` if none did.
    pub last_used_at: Option<Timestamp>,
}
