//! The tokens and keys of one endpoint, hashed once at start.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{CredentialSettings, cipher::Key};

/// Credentials of an endpoint while they are being rotated, at the most. A refusal takes the work of so many, however
/// many there are.
pub const MAX_CREDENTIALS: usize = 4;

/// All credentials that an endpoint accepts while they are being rotated.
#[derive(Debug)]
pub struct Credentials {
    /// Those that are configured.
    pub(super) list: Vec<Credential>,
    /// Those that nobody has, up to [`MAX_CREDENTIALS`]; see [`super::open`].
    pub(super) decoys: Vec<Credential>,
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
        let list: Vec<Credential> = settings
            .iter()
            .map(|credential| Credential {
                token: TokenHash(Sha256::digest(credential.action_callback_token.expose().as_bytes()).into()),
                key: credential.action_callback_key.as_ref().map(Key::derive),
            })
            .collect();
        // A credential without a key is no trial at a cipher: there, all of the trials are at decoys.
        let with_keys = list.iter().filter(|credential| credential.key.is_some()).count();
        Self { list, decoys: decoys(MAX_CREDENTIALS.saturating_sub(with_keys)) }
    }

    /// Credentials that nobody has: the work is done, and nobody gets in.
    #[must_use]
    pub fn decoy() -> Self {
        Self { list: decoys(1), decoys: decoys(MAX_CREDENTIALS - 1) }
    }

    /// True if callbacks are to be encrypted. The configuration sees to it that all credentials have a key or none has.
    #[must_use]
    pub fn encrypted(&self) -> bool {
        self.list.iter().any(|credential| credential.key.is_some())
    }

    /// Which of the configured credentials have this token: a bit each. Compares with all of them in any case.
    pub(super) fn with_token(&self, token: Option<&str>) -> impl Iterator<Item = Choice> {
        let hash: [u8; 32] = Sha256::digest(token.unwrap_or_default().as_bytes()).into();
        // The empty token is nobody's: the configuration refuses it, and absent is the same as empty.
        let there = Choice::from(u8::from(token.is_some()));
        self.list.iter().map(move |credential| credential.token.0.ct_eq(&hash) & there)
    }
}

fn decoys(count: usize) -> Vec<Credential> {
    // No text has such a hash, as far as anybody knows: it is drawn, not computed.
    let mut hash = [0; 32];
    let decoy = |_| {
        getrandom::fill(&mut hash).expect("the operating system has random bytes");
        Credential { token: TokenHash(hash), key: Some(Key::decoy()) }
    };
    (0..count).map(decoy).collect()
}
