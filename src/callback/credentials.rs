//! The tokens and keys of one endpoint, hashed once at start.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{CredentialSettings, cipher::Key};

/// Maximum credentials per endpoint, as needed during a rotation. A refusal always does the work of this many,
/// however many are configured.
pub const MAX_CREDENTIALS: usize = 4;

/// All credentials that an endpoint accepts; more than one during a rotation.
#[derive(Debug)]
pub struct Credentials {
    pub(super) list: Vec<Credential>,
    /// Random credentials that fill up to [`MAX_CREDENTIALS`]; see [`super::open`].
    pub(super) decoys: Vec<Credential>,
}

/// One credential. A token counts only together with the key it was configured with.
#[derive(Debug)]
pub(super) struct Credential {
    token: TokenHash,
    pub(super) key: Option<Key>,
}

/// Tokens are compared by hash: the time of a comparison reveals neither length nor common prefix of a guess.
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
        let list: Vec<Credential> = settings
            .iter()
            .map(|credential| Credential {
                token: TokenHash(Sha256::digest(credential.action_callback_token.expose().as_bytes()).into()),
                key: credential.action_callback_key.as_ref().map(Key::derive),
            })
            .collect();
        // Credentials without a key need no decryption, so their trials are all done with decoys.
        let with_keys = list.iter().filter(|credential| credential.key.is_some()).count();
        Self { list, decoys: decoys(MAX_CREDENTIALS.saturating_sub(with_keys)) }
    }

    /// Random credentials: they cause the same work but authenticate nobody.
    #[must_use]
    pub fn decoy() -> Self {
        Self { list: decoys(1), decoys: decoys(MAX_CREDENTIALS - 1) }
    }

    /// True if callbacks must be encrypted. The configuration ensures that either all credentials have a key or none.
    #[must_use]
    pub fn encrypted(&self) -> bool {
        self.list.iter().any(|credential| credential.key.is_some())
    }

    /// Which configured credentials have this token, as one bit each. Always compares with all of them.
    pub(super) fn with_token(&self, token: Option<&str>) -> impl Iterator<Item = Choice> {
        let hash: [u8; 32] = Sha256::digest(token.unwrap_or_default().as_bytes()).into();
        // The empty token never matches: the configuration refuses it, and an absent token hashes the same.
        let there = Choice::from(u8::from(token.is_some()));
        self.list.iter().map(move |credential| credential.token.0.ct_eq(&hash) & there)
    }
}

fn decoys(count: usize) -> Vec<Credential> {
    // No known text has this hash: it is random, not computed.
    let mut hash = [0; 32];
    let decoy = |_| {
        getrandom::fill(&mut hash).expect("the operating system has random bytes");
        Credential { token: TokenHash(hash), key: Some(Key::decoy()) }
    };
    (0..count).map(decoy).collect()
}
