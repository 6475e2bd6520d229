//! Bytes to [`Verified`]: the only way in.

use crate::secret::Secret;

/// One credential of an endpoint, as configured at the platform.
#[derive(Debug, Clone)]
pub struct CredentialSettings {
    /// `action_callback_token`: echoed in the member `token`.
    pub action_callback_token: Secret,
    /// `action_callback_key`: if present, callbacks are encrypted (§1.3). Never empty.
    pub action_callback_key: Option<Secret>,
}
