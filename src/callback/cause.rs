//! Why a sender was not authenticated, for the operator. The answer never reveals it.

use std::fmt;

use serde_json::value::RawValue;

use super::wire::{self, Unreadable};

/// Why a body did not authenticate its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The body is empty.
    Empty,
    /// The body is compressed.
    Gzip,
    /// The body is not text.
    NotUtf8,
    /// The body is text, but not one JSON object.
    NotJson,
    /// The body is meant for something else.
    Foreign(Foreign),
    /// There are several `encrypt` members, so the intended one is unknown.
    EncryptTwice,
    /// `encrypt` is not a text.
    EncryptNotText,
    /// The body is plain, but a key is configured.
    NotEncrypted,
    /// The body is encrypted, but no key is configured.
    Encrypted,
    /// `encrypt` is not standard base64.
    NotBase64,
    /// `encrypt` does not decode to an IV and whole blocks.
    Length,
    /// No configured key opens it.
    Key,
    /// Decrypted with a key, it begins like JSON but its padding is invalid.
    Padding,
    /// A key opens it, but the content is compressed.
    GzipInside,
    /// A key opens it, but the content is not text.
    NotUtf8Inside,
    /// A key opens it, but the content is not one JSON object.
    NotJsonInside,
    /// The body is plain and has no token.
    TokenMissing,
    /// The body is plain and its token is not configured.
    TokenWrong,
    /// A key opens it, but the content has no token.
    TokenMissingInside,
    /// A key opens it, but the token inside is not configured.
    TokenWrongInside,
    /// A key opens it, but the token inside is configured with another key.
    TokenOfAnother,
}

impl Cause {
    /// The stable sentence.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "the body is empty",
            Self::Gzip => "the body is compressed (gzip); callbacks must be uncompressed",
            Self::NotUtf8 => "the body is not UTF-8",
            Self::NotJson => "the body is not one JSON object",
            Self::Foreign(foreign) => foreign.as_str(),
            Self::EncryptTwice => "encrypt is given more than once",
            Self::EncryptNotText => "encrypt is not a string",
            Self::NotEncrypted => "the body is not encrypted, but the endpoint has an action_callback_key",
            Self::Encrypted => "the body is encrypted, but the endpoint has no action_callback_key",
            Self::NotBase64 => "encrypt is not standard base64",
            Self::Length => "encrypt is not an IV and whole blocks: its length is wrong",
            Self::Key => "no configured action_callback_key decrypts it",
            Self::Padding => {
                "an action_callback_key decrypts it, but the padding is not PKCS#7 of 16-byte blocks"
            }
            Self::GzipInside => "an action_callback_key decrypts it, but the plaintext is compressed (gzip)",
            Self::NotUtf8Inside => "an action_callback_key decrypts it, but the plaintext is not UTF-8",
            Self::NotJsonInside => {
                "an action_callback_key decrypts it, but the plaintext is not one JSON object"
            }
            Self::TokenMissing => "the token is missing",
            Self::TokenWrong => "the token is wrong",
            Self::TokenMissingInside => "an action_callback_key decrypts it, but the token is missing",
            Self::TokenWrongInside => "an action_callback_key decrypts it, but the token is wrong",
            Self::TokenOfAnother => {
                "an action_callback_key decrypts it, but the token is that of another credential"
            }
        }
    }

    /// The cause for a body that is not text or not one object.
    pub(super) fn of_unreadable(body: &[u8], why: Unreadable) -> Self {
        match why {
            _ if body.is_empty() => Self::Empty,
            _ if is_gzip(body) => Self::Gzip,
            Unreadable::NotUtf8 => Self::NotUtf8,
            Unreadable::NotJson => Self::NotJson,
        }
    }

    /// The same for decrypted content.
    pub(super) fn of_unreadable_inside(plain: &[u8], why: Unreadable) -> Self {
        match why {
            _ if is_gzip(plain) => Self::GzipInside,
            Unreadable::NotUtf8 => Self::NotUtf8Inside,
            Unreadable::NotJson => Self::NotJsonInside,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// RFC 1952 §2.3.1: the magic number and the only compression method.
pub(super) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b, 8])
}

/// Requests that the open platform sends to other URLs, for which people enter ours by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// The challenge with which the platform verifies an app's URL for events and callbacks.
    UrlVerification,
    /// A click on an app's message card.
    CardAction,
    /// An event that an app subscribed to.
    Event,
}

impl Foreign {
    /// The stable sentence, with advice.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UrlVerification => {
                "a url_verification challenge of the open platform, not an approval callback: \
                 this URL belongs in action_callback_url, not in the app's settings of events and callbacks"
            }
            Self::CardAction => {
                "a card callback of the open platform, not an approval callback: \
                 this URL belongs in action_callback_url, not in the app's settings of events and callbacks"
            }
            Self::Event => {
                "an event of the open platform, not an approval callback: \
                 this URL belongs in action_callback_url, not in the app's settings of events and callbacks"
            }
        }
    }

    /// Classifies a body by its members. A body with an `action_type` is always a callback.
    pub(super) fn of<'a>(members: impl Iterator<Item = (&'a str, &'a RawValue)>) -> Option<Self> {
        let (mut kind, mut challenge, mut header, mut event, mut card) = (None, false, None, false, false);
        for (name, value) in members {
            match name {
                "action_type" => return None,
                "type" => kind = wire::text(name, value).ok().flatten(),
                "challenge" => challenge = true,
                "header" => header = wire::object(name, value).ok(),
                "event" => event = value.get().starts_with('{'),
                "open_message_id" => card = true,
                _ => {}
            }
        }
        let event_type = header.as_ref().and_then(|header| header.get("event_type"));
        if challenge || kind.as_deref() == Some("url_verification") {
            Some(Self::UrlVerification)
        } else if card || event_type.is_some_and(|value| value.get().starts_with("\"card.")) {
            Some(Self::CardAction)
        } else {
            (event || event_type.is_some() || kind.as_deref() == Some("event_callback"))
                .then_some(Self::Event)
        }
    }
}
