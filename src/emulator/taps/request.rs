//! The request of a tap: what is sent, and what of it may be shown.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::KEPT_REQUEST_BYTES;
use crate::{
    callback::cipher::{self, Key},
    secret::Secret,
};

/// A request as it was sent. `Debug` is not implemented: it holds the token.
#[derive(Clone)]
pub(in crate::emulator) struct Request {
    pub(in crate::emulator) url: String,
    /// The body before encryption; empty if it was too large to keep.
    plain: Vec<u8>,
    /// The body as sent; empty if it was too large to keep.
    wire: Vec<u8>,
    token: Option<Secret>,
    key: Option<Secret>,
    /// What was changed before it was sent, if anything.
    pub(in crate::emulator) spoiled: bool,
}

impl Request {
    pub(in crate::emulator) fn new(
        url: String,
        key: Option<Secret>,
        token: Option<Secret>,
        plain: Vec<u8>,
    ) -> Self {
        let wire = match &key {
            Some(key) => {
                cipher::envelope(&Key::derive(key), crate::emulator::values::random(), &plain).into_bytes()
            }
            None => plain.clone(),
        };
        Self { url, plain, wire, token, key, spoiled: false }
    }

    /// The same body under another key, as a sender with a wrong one would send it.
    pub(in crate::emulator) fn under_wrong_key(&self) -> Self {
        let mut other =
            Self::new(self.url.clone(), Some(Secret::new("not-the-key")), None, self.plain.clone());
        (other.token, other.key, other.spoiled) = (self.token.clone(), self.key.clone(), true);
        other
    }

    /// The same request with its last encrypted byte flipped, which breaks the padding.
    pub(in crate::emulator) fn with_flipped_byte(&self) -> Self {
        let mut other = self.clone();
        other.spoiled = true;
        if let Some(mut bytes) = self.sealed() {
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
            other.wire = envelope_of(&bytes);
        }
        other
    }

    /// The same request with this body.
    pub(in crate::emulator) fn with_plain(&self, shown: &str) -> Self {
        // What was shown has the mask in place of the token.
        let text = match &self.token {
            Some(token) => shown.replace(&mask(token.expose().len()), &as_in_json(token.expose())),
            None => shown.to_owned(),
        };
        Self::new(self.url.clone(), self.key.clone(), self.token.clone(), text.into_bytes())
    }

    pub(in crate::emulator) fn with_token(&self, token: &str) -> Self {
        let mut body: Value = serde_json::from_slice(&self.plain).unwrap_or_default();
        body["token"] = token.into();
        let plain = body.to_string().into_bytes();
        let mut other = Self::new(self.url.clone(), self.key.clone(), Some(Secret::new(token)), plain);
        other.spoiled = true;
        other
    }

    pub(in crate::emulator) fn is_encrypted(&self) -> bool {
        self.key.is_some()
    }

    pub(in crate::emulator) fn is_kept(&self) -> bool {
        !self.wire.is_empty()
    }

    /// The bytes to send. Never to be shown.
    pub(in crate::emulator) fn bytes(&self) -> Vec<u8> {
        self.wire.clone()
    }

    /// Bytes that it takes.
    pub(super) fn len(&self) -> usize {
        self.url.len() + self.plain.len() + self.wire.len()
    }

    pub(super) fn trim(&mut self) {
        if self.wire.len() > KEPT_REQUEST_BYTES {
            self.wire = Vec::new();
            self.plain = Vec::new();
        }
    }

    /// The body before encryption, with the token masked.
    pub(in crate::emulator) fn shown_plain(&self) -> String {
        self.masked(&String::from_utf8_lossy(&self.plain)).into_owned()
    }

    /// The body as sent, with the token masked where it is readable.
    pub(in crate::emulator) fn shown_wire(&self) -> String {
        self.masked(&String::from_utf8_lossy(&self.wire)).into_owned()
    }

    /// Whether a text has the mask in place of the token.
    pub(in crate::emulator) fn is_masked_in(&self, text: &str) -> bool {
        self.token
            .as_ref()
            .is_some_and(|token| !token.is_empty() && text.contains(&mask(token.expose().len())))
    }

    /// IV and ciphertext, if the body is encrypted.
    pub(in crate::emulator) fn sealed(&self) -> Option<Vec<u8>> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        self.key.as_ref()?;
        let envelope: Value = serde_json::from_slice(&self.wire).ok()?;
        STANDARD.decode(envelope["encrypt"].as_str()?).ok()
    }

    /// A text with the token masked.
    pub(super) fn masked<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(token) = self.token.as_ref().filter(|token| !token.is_empty()) else { return text.into() };
        let token = token.expose();
        let escaped = as_in_json(token);
        if !text.contains(token) && !text.contains(&escaped) {
            return text.into();
        }
        // The mask has the token's length, so that blocks and padding stay where they are.
        text.replace(&escaped, &mask(token.len())).replace(token, &mask(token.len())).into()
    }
}

fn envelope_of(bytes: &[u8]) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    json!({ "encrypt": STANDARD.encode(bytes) }).to_string().into_bytes()
}

fn mask(bytes: usize) -> String {
    "*".repeat(bytes)
}

/// A text as it stands within the quotes of JSON.
fn as_in_json(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
