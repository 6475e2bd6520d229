//! When credentials were last used.

use crate::time::Timestamp;

/// The use of one credential of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialUse {
    /// The endpoint's name.
    pub endpoint: String,
    /// Distinguishes it from the endpoint's other credentials without revealing it.
    pub tag: u16,
    /// Since when it has been configured.
    pub known_since: Timestamp,
    /// When a callback last used it; `None` if none did.
    pub last_used_at: Option<Timestamp>,
}
