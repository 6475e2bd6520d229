//! The format `jwt`: a token that the third party minted, bound to a task, its operators and its actions.
//!
//! CBC without a MAC lets whoever can write ciphertext change what a callback says (§3.1). A signed context is the one
//! thing in a callback that only the third party can have made.
//!
//! A context that does not even look like a JWT does not fit. One that does, and whose signature is wrong, is refused and
//! never handed to the next format: somebody made it up.

use std::sync::OnceLock;

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result as JwtResult},
};
use ring::{hmac, signature as ring_signature};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{ContextError, is_id, json};
use crate::{
    callback,
    command::{Grant, ResolvedBy, TaskRef},
    secret::Secret,
    time::Timestamp,
};

/// The shortest HS256 secret that is taken: RFC 7518 §3.2 asks for at least the size of the hash.
pub const MIN_SECRET_BYTES: usize = 32;

/// The keys that contexts of an endpoint may be signed with, while they are being rotated.
#[derive(Clone)]
pub struct Keys {
    list: Vec<Key>,
    /// Seconds that clocks may differ.
    leeway_seconds: u64,
}

/// One key.
#[derive(Clone)]
struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// What can sign as well as check.
    shared: Option<Secret>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kids: Vec<_> = self.list.iter().map(|key| (key.kid.as_deref(), key.algorithm)).collect();
        f.debug_struct("Keys").field("keys", &kids).field("leeway_seconds", &self.leeway_seconds).finish()
    }
}

/// A key as configured.
#[derive(Debug, Clone)]
pub enum KeySettings {
    /// HS256 with a secret shared with the third party.
    Hs256 {
        /// The header `kid` of tokens signed with it; `None` only for a single key.
        kid: Option<String>,
        /// At least [`MIN_SECRET_BYTES`].
        secret: Secret,
    },
    /// EdDSA (Ed25519) with the third party's public key.
    EdDsa {
        /// The header `kid` of tokens signed with it; `None` only for a single key.
        kid: Option<String>,
        /// A PEM `PUBLIC KEY`.
        public_key: String,
    },
}

impl KeySettings {
    /// The header `kid` of tokens signed with it.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        match self {
            Self::Hs256 { kid, .. } | Self::EdDsa { kid, .. } => kid.as_deref(),
        }
    }
}

/// A key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Too short to sign with.
    #[error("is shorter than {MIN_SECRET_BYTES} bytes")]
    ShortSecret,
    /// Not an Ed25519 public key in PEM.
    #[error("is no Ed25519 key in PEM")]
    Pem,
}

/// The claims that mean something here; others are ignored.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Claims {
    /// The third party's instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<Box<RawValue>>,
    /// The third party's task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Box<RawValue>>,
    /// Which round of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<Box<RawValue>>,
    /// Stands for the round if there is none: a token is for one decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The document number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business_key: Option<Box<RawValue>>,
    /// The `user_id`s that may decide; absent: anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operators: Option<Vec<String>>,
    /// The `action_type`s that may be taken; absent: any that the endpoint allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<String>>,
    /// The definition the token is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_code: Option<String>,
    /// The endpoint the token is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Seconds since 1970 from which the token counts no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// Seconds since 1970 before which it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Free data for the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl Keys {
    /// Prepares the keys.
    ///
    /// # Errors
    /// The index of the key that cannot be used, and why.
    pub fn new(settings: &[KeySettings], leeway_seconds: u64) -> Result<Self, (usize, KeyError)> {
        install();
        let list = settings.iter().enumerate().map(|(at, key)| {
            Ok(match key {
                KeySettings::Hs256 { secret, .. } if secret.expose().len() < MIN_SECRET_BYTES => {
                    return Err((at, KeyError::ShortSecret));
                }
                KeySettings::Hs256 { kid, secret } => Key {
                    kid: kid.clone(),
                    algorithm: Algorithm::HS256,
                    key: DecodingKey::from_secret(secret.expose().as_bytes()),
                    shared: Some(secret.clone()),
                },
                KeySettings::EdDsa { kid, public_key } => Key {
                    kid: kid.clone(),
                    algorithm: Algorithm::EdDSA,
                    key: DecodingKey::from_ed_pem(public_key.as_bytes()).map_err(|_| (at, KeyError::Pem))?,
                    shared: None,
                },
            })
        });
        Ok(Self { list: list.collect::<Result<_, _>>()?, leeway_seconds })
    }

    /// The first key that can sign as well, with its `kid`: an HS256 secret.
    #[must_use]
    pub fn signing_key(&self) -> Option<(Option<&str>, SigningKey)> {
        let (kid, secret) =
            self.list.iter().find_map(|key| Some((key.kid.as_deref(), key.shared.clone()?)))?;
        Some((kid, SigningKey::Hs256(secret)))
    }

    /// `Ok(None)` if the context is no JWT at all.
    pub(super) fn fit(&self, context: &str, now: Timestamp) -> Result<Option<Grant>, ContextError> {
        if !looks_like_one(context) {
            return Ok(None);
        }
        let claims = self.verify(context, now)?;
        let id = |claim: &Option<Box<RawValue>>| match claim {
            None => Ok(None),
            Some(value) if value.get() != "0" && callback::is_unset(value) => Ok(None),
            Some(value) => json::id(value).map(Some).ok_or(ContextError::Forged("a claim is no identifier")),
        };
        let round = match id(&claims.round)? {
            Some(round) => Some(round),
            None => match claims.jti.filter(|jti| !jti.is_empty()) {
                // It becomes the round of the command, for which consumers have a limit in writing.
                Some(jti) if !is_id(&jti) => {
                    return Err(ContextError::Forged("a claim is no identifier"));
                }
                jti => jti,
            },
        };
        if claims.data.as_deref().is_some_and(|data| callback::check(data).is_err()) {
            return Err(ContextError::Forged("the token's data is beyond the limits of a callback"));
        }
        let task = TaskRef {
            instance_id: id(&claims.instance_id)?,
            task_id: id(&claims.task_id)?,
            round,
            business_key: id(&claims.business_key)?,
            resolved_by: Some(ResolvedBy::Jwt),
            data: claims.data,
        };
        if task.instance_id.is_none() && task.task_id.is_none() {
            return Err(ContextError::Forged("the token names no task"));
        }
        Ok(Some(Grant {
            task,
            operators: claims.operators,
            actions: claims.actions,
            approval_code: claims.approval_code,
            endpoint: claims.endpoint,
        }))
    }

    /// The claims of a token that one of the keys signed and that counts at `now`.
    ///
    /// # Errors
    /// [`ContextError::Forged`] or [`ContextError::Expired`].
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, ContextError> {
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| ContextError::Forged("the token has no header"))?;
        // A key belongs to one algorithm: a public key is never tried as an HMAC secret, and `none` has no key.
        let key = match (&header.kid, &*self.list) {
            (None, [only]) => only,
            (None, _) => {
                return Err(ContextError::Forged("the token has no kid, and there are several keys"));
            }
            (Some(kid), [only]) if only.kid.is_none() || only.kid.as_ref() == Some(kid) => only,
            (Some(kid), list) => list
                .iter()
                .find(|key| key.kid.as_ref() == Some(kid))
                .ok_or(ContextError::Forged("the token's kid is not configured"))?,
        };
        let mut validation = Validation::new(key.algorithm);
        // The claims about time are looked at below, against the one `now` of the callback.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims: Claims = jsonwebtoken::decode(token, &key.key, &validation)
            .map_err(|error| {
                ContextError::Forged(match error.kind() {
                    ErrorKind::InvalidSignature => "the token's signature is wrong",
                    ErrorKind::InvalidAlgorithm => "the token's algorithm is not that of its key",
                    _ => "the token cannot be read",
                })
            })?
            .claims;
        let now = u64::try_from(now.as_second()).unwrap_or(0);
        if claims.exp.is_some_and(|exp| exp.saturating_add(self.leeway_seconds) <= now) {
            return Err(ContextError::Expired);
        }
        if claims.nbf.is_some_and(|nbf| nbf > now.saturating_add(self.leeway_seconds)) {
            return Err(ContextError::Forged("the token does not count yet"));
        }
        Ok(claims)
    }
}

/// Three parts, the first of which is the base64url of an object.
pub(super) fn looks_like_one(context: &str) -> bool {
    let mut parts = context.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    header.starts_with("ey")
}

/// Signs claims, for the command line and for tests.
///
/// # Errors
/// The key is no key, or the claims cannot be written.
pub fn sign(key: &SigningKey, kid: Option<&str>, claims: &Claims) -> Result<String, SignError> {
    install();
    let (algorithm, key) = match key {
        SigningKey::Hs256(secret) if secret.expose().len() < MIN_SECRET_BYTES => {
            return Err(SignError::Key(KeyError::ShortSecret));
        }
        SigningKey::Hs256(secret) => (Algorithm::HS256, EncodingKey::from_secret(secret.expose().as_bytes())),
        SigningKey::EdDsa(pem) => {
            let key = EncodingKey::from_ed_pem(pem.expose().as_bytes());
            (Algorithm::EdDSA, key.map_err(|_| SignError::Key(KeyError::Pem))?)
        }
    };
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    Ok(jsonwebtoken::encode(&header, claims, &key)?)
}

/// What a token is signed with.
#[derive(Debug)]
pub enum SigningKey {
    /// The shared secret.
    Hs256(Secret),
    /// A PEM `PRIVATE KEY` (PKCS#8).
    EdDsa(Secret),
}

/// A token could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key.
    #[error("the key {0}")]
    Key(KeyError),
    /// Anything else.
    #[error("cannot sign")]
    Token(#[from] jsonwebtoken::errors::Error),
}

/// Has `jsonwebtoken` compute by ring, which rustls brings along anyway, and only what is allowed here: HS256 and
/// EdDSA. Another algorithm has no code that could be reached.
fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |algorithm, key| match algorithm {
            Algorithm::HS256 => Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())))),
            Algorithm::EdDSA => {
                let pair = ring_signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes())
                    .map_err(|_| ErrorKind::InvalidEddsaKey)?;
                Ok(Box::new(EdDsaSigner(pair)))
            }
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        },
        verifier_factory: |algorithm, key| -> JwtResult<Box<dyn JwtVerifier>> {
            let bytes = key.try_get_as_bytes()?;
            match algorithm {
                Algorithm::HS256 => Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, bytes)))),
                Algorithm::EdDSA => Ok(Box::new(EdDsaVerifier(bytes.to_vec()))),
                _ => Err(ErrorKind::InvalidAlgorithm.into()),
            }
        },
        key_utils: KeyUtils::new_unimplemented(),
    };
    // An error says that it is installed already, by the only code that does so.
    INSTALLED.get_or_init(|| PROVIDER.install_default().unwrap_or(()));
}

struct Hs256(hmac::Key);

impl signature::Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl signature::Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], tag: &Vec<u8>) -> Result<(), signature::Error> {
        hmac::verify(&self.0, message, tag).map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

struct EdDsaSigner(ring_signature::Ed25519KeyPair);

impl signature::Signer<Vec<u8>> for EdDsaSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl JwtSigner for EdDsaSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct EdDsaVerifier(Vec<u8>);

impl signature::Verifier<Vec<u8>> for EdDsaVerifier {
    fn verify(&self, message: &[u8], tag: &Vec<u8>) -> Result<(), signature::Error> {
        ring_signature::UnparsedPublicKey::new(&ring_signature::ED25519, &self.0)
            .verify(message, tag)
            .map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for EdDsaVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}
