//! The tokens and keys of one endpoint, hashed once at start.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{CredentialSettings, cipher::Key};

/// All credentials that an endpoint accepts while they are being rotated.
#[derive(Debug)]
pub struct Credentials {
    pub(super) list: Vec<Credential>,
}

/// One credential. A token counts only together with the key it was configured with.
#[derive(Debug)]
pub(super) struct Credential {
    token: TokenHash,
    pub(super) key: Option<Key>,
}

/// Tokens are compared by hash: neither length nor common prefix of a guess shows in the time a comparison takes.
struct TokenHash([u8; 32]);

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Credentials {
    /// Hashes tokens and keys.
    #[must_use]
    pub fn new(settings: &[CredentialSettings]) -> Self {
        let list = settings.iter().map(|credential| Credential {
            token: TokenHash(Sha256::digest(credential.action_callback_token.expose().as_bytes()).into()),
            key: credential.action_callback_key.as_ref().map(Key::derive),
        });
        Self { list: list.collect() }
    }

    /// Credentials that nobody has: the work is done, and nobody gets in.
    #[must_use]
    pub fn decoy() -> Self {
        // No text has this hash, as far as anybody knows: it is drawn, not computed.
        let mut hash = [0; 32];
        getrandom::fill(&mut hash).expect("the operating system has random bytes");
        Self { list: vec![Credential { token: TokenHash(hash), key: Some(Key::decoy()) }] }
    }

    /// True if callbacks are to be encrypted. The configuration sees to it that all credentials have a key or none has.
    #[must_use]
    pub fn encrypted(&self) -> bool {
        self.list.iter().any(|credential| credential.key.is_some())
    }
}

impl Credential {
    /// Compares in constant time.
    pub(super) fn has_token(&self, token: &[u8; 32]) -> Choice {
        self.token.0.ct_eq(token)
    }
}

/// The hash of a presented token.
pub(super) fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
