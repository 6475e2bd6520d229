//! The format `jwt`: a token issued by the third party, bound to a task, its operators and its actions.
//!
//! CBC without a MAC lets anybody who can write ciphertext change the content of a callback (platform.md#encryption).
//! A signed context is the only part of a callback that only the third party can have made.
//!
//! A context that does not look like a JWT does not match. One that looks like a JWT but has an invalid signature is
//! refused and never passed to the next format: it is forged. The same applies to a JWT with extra characters around
//! it.

mod claims;
mod crypto;

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, crypto::verify};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{ContextError, is_id, json};
pub use claims::{Audience, Claims, Demands, Requirement, Times};
use crypto::install;

use crate::{
    callback,
    command::{Grant, ResolvedBy, TaskRef},
    secret::Secret,
    time::Timestamp,
};

/// Minimum length of an HS256 secret: RFC 7518 §3.2 requires at least the size of the hash.
pub const MIN_SECRET_BYTES: usize = 32;

/// The keys of an endpoint's signed contexts; several during a rotation.
#[derive(Clone)]
pub struct Keys {
    list: Vec<Key>,
    demands: Demands,
}

#[derive(Clone)]
struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// The secret that can both sign and verify.
    shared: Option<Secret>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kids: Vec<_> = self.list.iter().map(|key| (key.kid.as_deref(), key.algorithm)).collect();
        f.debug_struct("Keys").field("keys", &kids).field("demands", &self.demands).finish()
    }
}

/// A configured key.
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

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The secret is too short.
    #[error("is shorter than {MIN_SECRET_BYTES} bytes")]
    ShortSecret,
    /// Not an Ed25519 public key in PEM.
    #[error("is no Ed25519 key in PEM")]
    Pem,
}

impl Keys {
    /// Prepares the keys.
    ///
    /// # Errors
    /// The index of the invalid key, and the reason.
    pub fn new(settings: &[KeySettings], demands: Demands) -> Result<Self, (usize, KeyError)> {
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
        Ok(Self { list: list.collect::<Result<_, _>>()?, demands })
    }

    /// The first key that can also sign, an HS256 secret, with its `kid`.
    #[must_use]
    pub fn signing_key(&self) -> Option<(Option<&str>, SigningKey)> {
        let (kid, secret) =
            self.list.iter().find_map(|key| Some((key.kid.as_deref(), key.shared.clone()?)))?;
        Some((kid, SigningKey::Hs256(secret)))
    }

    /// Requirements for a token, in addition to a valid signature.
    #[must_use]
    pub fn demands(&self) -> &Demands {
        &self.demands
    }

    /// `Ok(None)` if the context is not a JWT.
    pub(super) fn fit(&self, context: &str, now: Timestamp) -> Result<Option<Grant>, ContextError> {
        let bare = context.trim_matches(hides);
        if !looks_like_one(bare) {
            return Ok(None);
        }
        if bare.len() != context.len() {
            return Err(ContextError::Forged(
                "the token has blanks, quotes, a byte order mark or other characters that do not show before or behind it",
            ));
        }
        let claims = self.verify(context, now)?;
        if let Some(missing) = claims.missing(&self.demands.require).first() {
            return Err(ContextError::Forged(missing.missing()));
        }
        let id = |claim: &Option<Box<RawValue>>| match claim {
            None => Ok(None),
            Some(value) if value.get() != "0" && crate::command::is_unset(value) => Ok(None),
            Some(value) => json::id(value).map(Some).ok_or(ContextError::Forged("a claim is no identifier")),
        };
        let round = match id(&claims.round)? {
            Some(round) => Some(round),
            None => match claims.jti.filter(|jti| !jti.is_empty()) {
                // It becomes the round of the command, whose length is documented for consumers.
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

    /// Returns the claims of a token that is signed with one of the keys, is meant for us and is valid at `now`.
    /// Claims in [`Demands::require`] may be missing; see [`Claims::missing`].
    ///
    /// # Errors
    /// [`ContextError::Forged`] or [`ContextError::Expired`].
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, ContextError> {
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| ContextError::Forged("the token has no header"))?;
        // RFC 7515 §4.1.11: critical extensions must be understood. None is supported here.
        if header.crit.is_some() {
            return Err(ContextError::Forged("the token's crit asks for extensions that are not known here"));
        }
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
        if header.alg != key.algorithm {
            return Err(ContextError::Forged("the token's algorithm is not that of its key"));
        }
        let unreadable = || ContextError::Forged("the token cannot be read");
        let (message, signature) = token.rsplit_once('.').ok_or_else(unreadable)?;
        let good =
            verify(signature, message.as_bytes(), &key.key, key.algorithm).map_err(|_| unreadable())?;
        if !good {
            return Err(ContextError::Forged("the token's signature is wrong"));
        }
        // Parsed here, because the library accepts only 64-bit integers as dates.
        let claims = payload(token).ok_or_else(unreadable)?;
        let claims: Claims = serde_json::from_str(claims.get()).map_err(|_| unreadable())?;
        let Demands { aud, iss, typ, .. } = &self.demands;
        if typ.as_ref().is_some_and(|typ| !header.typ.as_ref().is_some_and(|theirs| same_type(typ, theirs))) {
            return Err(ContextError::Forged("the token's typ is not the one that is configured"));
        }
        if !iss.is_empty() && !claims.iss.as_ref().is_some_and(|theirs| iss.contains(theirs)) {
            return Err(ContextError::Forged("the token's iss is not among those that are configured"));
        }
        if !aud.is_empty() && !claims.aud.as_ref().is_some_and(|theirs| theirs.is_for(aud)) {
            return Err(ContextError::Forged("the token's aud names none of those that are configured"));
        }
        let (times, leeway) = (claims.times()?, Duration::from_secs(self.demands.leeway_seconds));
        if times.exp.is_some_and(|exp| exp + leeway <= now) {
            return Err(ContextError::Expired);
        }
        if times.nbf.is_some_and(|nbf| nbf > now + leeway) {
            return Err(ContextError::Forged("the token does not count yet"));
        }
        Ok(claims)
    }
}

/// Invisible characters, or characters that a template puts around a text. A token between them would not be
/// recognised, and would pass to a format that checks nothing.
fn hides(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '"' | '\'')
}

/// True for the three parts of a signed token or the five of an encrypted one, with a base64url object as the first.
pub(super) fn looks_like_one(context: &str) -> bool {
    let Some((header, rest)) = context.split_once('.') else { return false };
    if !matches!(rest.bytes().filter(|byte| *byte == b'.').count(), 1 | 3) {
        return false;
    }
    // `{"` in base64url, whatever follows.
    header.starts_with("ey")
        || BASE64_URL_SAFE_NO_PAD.decode(header).is_ok_and(|header| {
            header
                .trim_ascii_start()
                .strip_prefix(b"\xef\xbb\xbf")
                .unwrap_or(header.trim_ascii_start())
                .starts_with(b"{")
        })
}

/// RFC 7515 §4.1.9: media types are case-insensitive, and `application/` may be omitted.
fn same_type(one: &str, other: &str) -> bool {
    let whole = |text: &str| {
        let text = text.to_ascii_lowercase();
        if text.contains('/') { text } else { format!("application/{text}") }
    };
    whole(one) == whole(other)
}

/// The payload of a token, verbatim. Does not verify the token.
#[must_use]
pub fn payload(token: &str) -> Option<Box<RawValue>> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Signs claims, for the command line and for tests.
///
/// # Errors
/// The key is invalid, or the claims cannot be serialized.
pub fn sign(key: &SigningKey, kid: Option<&str>, claims: &impl Serialize) -> Result<String, SignError> {
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

/// A key for signing tokens.
#[derive(Debug)]
pub enum SigningKey {
    /// The shared secret.
    Hs256(Secret),
    /// A PEM `PRIVATE KEY` (PKCS#8).
    EdDsa(Secret),
}

/// Why a token could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key is invalid.
    #[error("the key {0}")]
    Key(KeyError),
    /// Any other error.
    #[error("cannot sign")]
    Token(#[from] jsonwebtoken::errors::Error),
}
