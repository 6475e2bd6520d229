//! Signs commands as Standard Webhooks 1.0 says, so that a worker can tell them from forged ones with an existing library.
//!
//! What is signed is `id.timestamp.body`, with the body exactly as it is published. Every key signs every command, and
//! the signatures are separated by a space: so old and new keys are valid side by side while they are rotated.
//!
//! A command is signed when it is published and not when it is accepted. So keys may change at any time, the profile
//! does not matter, and no callback waits for it.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    hmac,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use zeroize::Zeroizing;

use crate::{command::CommandId, secret::Secret, time::Timestamp};

/// The header with the command's id, the same at every publish.
pub const ID: &str = "webhook-id";
/// The header with the time of the publish, in seconds since 1970.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signatures.
pub const SIGNATURE: &str = "webhook-signature";

/// More keys would make a header that is left out because it is too long.
pub const MAX_KEYS: usize = 4;

const HMAC_PREFIX: &str = "whsec_";
const ED25519_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";

/// By the specification.
const HMAC_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Of an Ed25519 seed, and of its public key.
const HALF: usize = 32;

/// A key that signs commands. `Debug` shows only its kind.
#[derive(Clone)]
pub struct SigningKey {
    text: Secret,
    signer: Arc<Signer>,
}

enum Signer {
    Hmac(hmac::Key),
    Ed25519(Ed25519KeyPair),
}

/// Why a text is no signing key: the end of a sentence that does not quote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It has no prefix of the specification.
    #[error("does not begin with {HMAC_PREFIX} (HMAC-SHA256) or {ED25519_PREFIX} (Ed25519)")]
    Prefix,
    /// It is what workers verify with.
    #[error("is a public key; commands are signed with the secret one, which begins with {ED25519_PREFIX}")]
    Public,
    /// Libraries of workers decode strictly, so padding must be right as well.
    #[error("is not base64, with its padding, after the prefix")]
    Base64,
    /// A shorter one could be guessed; a longer one is refused by libraries.
    #[error("has {0} bytes after the prefix, not 24 to 64")]
    HmacLength(usize),
    /// Neither a seed nor a pair.
    #[error("has {0} bytes after the prefix, not 64 (seed and public key) or 32 (seed)")]
    Ed25519Length(usize),
    /// It was put together by hand, or damaged.
    #[error("holds a public key that is not that of its seed")]
    Pair,
}

impl SigningKey {
    /// Reads a key in the serialization of the specification: `whsec_` or `whsk_`, and base64.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn parse(text: &Secret) -> Result<Self, Unusable> {
        let decoded =
            |base64: &str| STANDARD.decode(base64).map(Zeroizing::new).map_err(|_| Unusable::Base64);
        let signer = if let Some(base64) = text.expose().strip_prefix(HMAC_PREFIX) {
            let key = decoded(base64)?;
            if !HMAC_BYTES.contains(&key.len()) {
                return Err(Unusable::HmacLength(key.len()));
            }
            Signer::Hmac(hmac::Key::new(hmac::HMAC_SHA256, &key))
        } else if let Some(base64) = text.expose().strip_prefix(ED25519_PREFIX) {
            let key = decoded(base64)?;
            Signer::Ed25519(match key.split_at_checked(HALF) {
                Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Unusable::Pair)?,
                Some((seed, public)) if public.len() == HALF => {
                    Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| Unusable::Pair)?
                }
                _ => return Err(Unusable::Ed25519Length(key.len())),
            })
        } else if text.expose().starts_with(PUBLIC_PREFIX) {
            return Err(Unusable::Public);
        } else {
            return Err(Unusable::Prefix);
        };
        Ok(Self { text: text.clone(), signer: Arc::new(signer) })
    }

    /// The text of an HMAC-SHA256 key.
    #[must_use]
    pub fn hmac_text(key: &[u8; 32]) -> Secret {
        Secret::new(format!("{HMAC_PREFIX}{}", STANDARD.encode(key)))
    }

    /// The text of an Ed25519 key: the seed and its public key, as other programs write it.
    #[must_use]
    pub fn ed25519_text(seed: &[u8; HALF]) -> Secret {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed has 32 bytes");
        let both = Zeroizing::new([seed, pair.public_key().as_ref()].concat());
        Secret::new(format!("{ED25519_PREFIX}{}", STANDARD.encode(&*both)))
    }

    /// What workers verify with, if that may be known to everybody: `whpk_` and base64.
    #[must_use]
    pub fn public_key(&self) -> Option<String> {
        match &*self.signer {
            Signer::Hmac(_) => None,
            Signer::Ed25519(pair) => Some(format!("{PUBLIC_PREFIX}{}", STANDARD.encode(pair.public_key()))),
        }
    }

    /// True if both sign the same way.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self.public_key(), other.public_key()) {
            // A seed with its public key is the same as the seed alone.
            (Some(one), Some(other)) => one == other,
            _ => self.text.equals(other.text.expose()),
        }
    }

    fn sign(&self, content: &[u8]) -> String {
        match &*self.signer {
            Signer::Hmac(key) => format!("v1,{}", STANDARD.encode(hmac::sign(key, content))),
            Signer::Ed25519(pair) => format!("v1a,{}", STANDARD.encode(pair.sign(content))),
        }
    }

    fn verifies(&self, content: &[u8], signature: &str) -> bool {
        let decoded = |base64: &str| STANDARD.decode(base64).unwrap_or_default();
        match (&*self.signer, signature.split_once(',')) {
            (Signer::Hmac(key), Some(("v1", tag))) => hmac::verify(key, content, &decoded(tag)).is_ok(),
            (Signer::Ed25519(pair), Some(("v1a", signature))) => {
                UnparsedPublicKey::new(&ED25519, pair.public_key())
                    .verify(content, &decoded(signature))
                    .is_ok()
            }
            _ => false,
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.signer {
            Signer::Hmac(_) => "whsec_[redacted]",
            Signer::Ed25519(_) => "whsk_[redacted]",
        })
    }
}

/// The three headers of a command that is published now, with one signature by each key.
#[must_use]
pub fn headers(
    keys: &[SigningKey],
    id: CommandId,
    now: Timestamp,
    body: &[u8],
) -> [(&'static str, String); 3] {
    let (id, timestamp) = (id.to_string(), now.as_second().to_string());
    let content = content(&id, &timestamp, body);
    let signatures: Vec<_> = keys.iter().map(|key| key.sign(&content)).collect();
    [(ID, id), (TIMESTAMP, timestamp), (SIGNATURE, signatures.join(" "))]
}

fn content(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

/// What the headers of a message say about its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Signed {
    /// One of the keys has signed it.
    Valid,
    /// None of the keys has signed it as it is.
    Invalid,
    /// One of the three headers is missing.
    None,
}

/// Checks a message by the keys that commands are signed with. At any age: commands may wait in a queue for days.
#[must_use]
pub fn check<'a>(keys: &[SigningKey], header: impl Fn(&str) -> Option<&'a str>, body: &[u8]) -> Signed {
    let (Some(id), Some(timestamp), Some(signatures)) = (header(ID), header(TIMESTAMP), header(SIGNATURE))
    else {
        return Signed::None;
    };
    let content = content(id, timestamp, body);
    let is_valid = |signature: &str| keys.iter().any(|key| key.verifies(&content, signature));
    if signatures.split(' ').any(is_valid) { Signed::Valid } else { Signed::Invalid }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Of the specification's own libraries.
    const HMAC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    /// Of the program that the specification comes from, which is the one that signs with Ed25519.
    const ED25519: &str =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const ED25519_PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    const SEED: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=";

    fn key(text: &str) -> SigningKey {
        SigningKey::parse(&Secret::new(text)).unwrap()
    }

    fn fault(text: &str) -> Unusable {
        SigningKey::parse(&Secret::new(text)).unwrap_err()
    }

    #[test]
    fn signatures_are_those_of_the_known_vectors() {
        let content = content(
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            "1649367553",
            br#"{"email":"test@example.com","username":"test_user"}"#,
        );
        assert_eq!(key(HMAC).sign(&content), "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
        let content =
            super::content("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        let wanted =
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
        assert_eq!(
            (key(ED25519).sign(&content), key(SEED).sign(&content)),
            (wanted.to_owned(), wanted.to_owned())
        );
        assert_eq!(key(SEED).public_key().as_deref(), Some(ED25519_PUBLIC));
        assert!(key(SEED).is_same(&key(ED25519)) && !key(SEED).is_same(&key(HMAC)));
    }

    fn signed(keys: &[SigningKey]) -> [(&'static str, String); 3] {
        let id = CommandId::parse("019a0000-0000-7000-8000-000000000001").unwrap();
        headers(keys, id, "2026-11-20T08:15:30.999Z".parse().unwrap(), b"{}")
    }

    #[test]
    fn every_key_signs_and_one_of_them_is_enough() {
        let keys = [key(HMAC), key(ED25519)];
        let headers = signed(&keys);
        assert_eq!(headers[0], (ID, "019a0000-0000-7000-8000-000000000001".to_owned()));
        assert_eq!(headers[1], (TIMESTAMP, "1795162530".to_owned()));
        let (one, other) = headers[2].1.split_once(' ').unwrap();
        assert!(one.starts_with("v1,") && other.starts_with("v1a,"), "{headers:?}");
        let look = |keys: &[SigningKey], body: &[u8]| {
            let find = |name: &str| headers.iter().find(|(known, _)| *known == name);
            check(keys, |name| find(name).map(|(_, value)| &**value), body)
        };
        let stranger = key(SigningKey::hmac_text(&[1; 32]).expose());
        for known in keys {
            assert_eq!(look(&[stranger.clone(), known.clone()], b"{}"), Signed::Valid);
            assert_eq!(look(&[known], b"{ }"), Signed::Invalid);
        }
        assert_eq!(look(&[stranger], b"{}"), Signed::Invalid);
    }

    #[test]
    fn what_is_not_signed_with_all_of_it_is_not_valid() {
        let keys = [key(ED25519)];
        let headers: HashMap<_, _> = signed(&keys).into();
        let with = |name: &str, value: Option<&str>| {
            let mut headers: HashMap<&str, &str> =
                headers.iter().map(|(name, value)| (*name, &**value)).collect();
            headers.remove(name);
            headers.extend(value.map(|value| (name, value)));
            check(&keys, |wanted| headers.get(wanted).copied(), b"{}")
        };
        assert_eq!(with("", None), Signed::Valid);
        for name in [ID, TIMESTAMP, SIGNATURE] {
            assert_eq!(with(name, None), Signed::None, "{name}");
            for other in ["", " ", "1795162531", "v1a,", "v1a", "v1,AAAA", "v1a,AAAA v1a,%"] {
                assert_eq!(with(name, Some(other)), Signed::Invalid, "{name}: {other}");
            }
        }
    }

    #[test]
    fn what_is_no_key_is_told_without_the_text() {
        let of = |prefix: &str, bytes: usize| format!("{prefix}{}", STANDARD.encode(vec![7; bytes]));
        for (text, wanted) in [
            (String::new(), Unusable::Prefix),
            (HMAC.replace("whsec_", ""), Unusable::Prefix),
            (HMAC.replace("whsec_", "WHSEC_"), Unusable::Prefix),
            (ED25519_PUBLIC.to_owned(), Unusable::Public),
            (format!("{HMAC}="), Unusable::Base64),
            (ED25519.replace("==", ""), Unusable::Base64),
            (HMAC.replace('+', "-"), Unusable::Base64),
            (of(HMAC_PREFIX, 23), Unusable::HmacLength(23)),
            (of(HMAC_PREFIX, 65), Unusable::HmacLength(65)),
            (of(ED25519_PREFIX, 0), Unusable::Ed25519Length(0)),
            (of(ED25519_PREFIX, 31), Unusable::Ed25519Length(31)),
            (of(ED25519_PREFIX, 48), Unusable::Ed25519Length(48)),
            (of(ED25519_PREFIX, 65), Unusable::Ed25519Length(65)),
            (of(ED25519_PREFIX, 64), Unusable::Pair),
        ] {
            let fault = fault(&text);
            assert_eq!(fault, wanted, "{text}");
            let shown = fault.to_string();
            assert!(
                text.split('_').next_back().is_none_or(|rest| rest.is_empty() || !shown.contains(rest)),
                "{shown}"
            );
        }
        for bytes in [24, 64] {
            key(&of(HMAC_PREFIX, bytes));
        }
    }

    #[test]
    fn what_is_made_can_be_read_and_debug_shows_nothing_of_it() {
        let made = [SigningKey::hmac_text(&[3; 32]), SigningKey::ed25519_text(&[3; 32])];
        let keys = made.each_ref().map(|text| SigningKey::parse(text).unwrap());
        assert_eq!(format!("{keys:?}"), "[whsec_[redacted], whsk_[redacted]]");
        assert_eq!(made[1].expose().len(), ED25519.len());
        assert!(keys[0].public_key().is_none() && keys[1].public_key().unwrap().starts_with(PUBLIC_PREFIX));
    }

    #[test]
    fn the_signatures_of_the_most_keys_fit_into_a_header() {
        let keys: Vec<_> = (0..MAX_KEYS)
            .map(|number| key(SigningKey::ed25519_text(&[u8::try_from(number).unwrap(); 32]).expose()))
            .collect();
        assert!(signed(&keys)[2].1.len() <= super::super::publisher::MAX_HEADER_BYTES);
    }
}
