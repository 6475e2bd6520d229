//! Bytes to [`Verified`]: authentication, decryption and strict parsing of a callback. [`open`] is the only entry
//! point.
//!
//! # What a refusal gives away
//! An encrypted body is tried with *every* configured credential, even if an early one matches. Base64, decryption,
//! padding, JSON and token each yield a bit, and one decision is made at the end. If no credential matches, decoys
//! add work up to that of [`MAX_CREDENTIALS`]. So an endpoint during a rotation, a plain one and a nonexistent one
//! take the same time, and cannot be distinguished even under load. The cause for the operator's log ([`Cause`]) is
//! derived from the results afterwards. The floor that the listener puts under refusals hides the remaining
//! measurable time (how far a JSON parser got).

mod cause;
pub mod cipher;
mod credentials;
mod said;
mod wire;

use std::borrow::Cow;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable};

pub use cause::{Cause, Foreign};
pub use credentials::{Credentials, MAX_CREDENTIALS};
pub use said::Said;
pub use wire::Fault;

use crate::{
    command::{Attachment, Origin, is_unset},
    secret::Secret,
};
use cipher::{Key, Misshapen, Sealed, Unsealed};
use credentials::Credential;
use wire::{Members, Texts, Unreadable};

/// One credential of an endpoint, as configured at the platform.
#[derive(Debug, Clone)]
pub struct CredentialSettings {
    /// `action_callback_token`: echoed in the member `token`.
    pub action_callback_token: Secret,
    /// `action_callback_key`: if present, callbacks are encrypted (platform.md#encrypted-callbacks). Never empty.
    pub action_callback_key: Option<Secret>,
}

impl CredentialSettings {
    /// Distinguishes the credentials of an endpoint, independent of their order: 16 bits of a hash of token and key.
    /// Enough for four, and it reveals next to nothing about either to a reader of the ledger.
    #[must_use]
    pub fn tag(&self) -> u16 {
        let (token, key) = (&self.action_callback_token, self.action_callback_key.as_ref());
        let key = key.map_or("", Secret::expose);
        let hash = Sha256::new()
            .chain_update(b"countersign credential tag")
            .chain_update((token.expose().len() as u64).to_be_bytes())
            .chain_update(token.expose())
            .chain_update(key)
            .finalize();
        u16::from_be_bytes([hash[0], hash[1]])
    }
}

/// A callback whose sender has proved knowledge of a configured token (and key). [`open`] is its only constructor.
///
/// Unset members are `None`, however a client library writes them.
#[derive(Debug)]
pub struct Verified {
    /// Index of the credential that was used, from 0.
    pub credential: usize,
    /// `action_type`
    pub action_type: Option<String>,
    /// `action_context`, byte for byte.
    pub action_context: Option<String>,
    /// `user_id`
    pub user_id: Option<String>,
    /// `approval_code`
    pub approval_code: Option<String>,
    /// `instance_id`
    pub instance_id: Option<String>,
    /// `task_id`
    pub task_id: Option<String>,
    /// `message_id`, with all 64 bits; never 0.
    pub message_id: Option<u64>,
    /// `id`: the task of a search operation.
    pub id: Option<String>,
    /// `reason`
    pub reason: Option<String>,
    /// `attachments`
    pub attachments: Vec<Attachment>,
    /// Members unknown to this version, verbatim and in order.
    pub extra: Vec<(String, Box<RawValue>)>,
    #[expect(dead_code, reason = "it is there so that nobody else can fill it")]
    seal: Seal,
}

/// Prevents construction of [`Verified`] elsewhere.
#[derive(Debug)]
struct Seal;

impl Verified {
    /// Where the approver acted, derived from the member that each origin must carry (platform.md#callback-origins).
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        if self.message_id.is_some() {
            Some(Origin::Card)
        } else if self.instance_id.is_some() || self.task_id.is_some() {
            Some(Origin::List)
        } else {
            self.id.is_some().then_some(Origin::Search)
        }
    }

    /// The kind of request, if this is not a callback. A valid token does not rule that out: apps and callbacks may
    /// share one.
    #[must_use]
    pub fn foreign(&self) -> Option<Foreign> {
        let members = self.extra.iter().map(|(name, value)| (&**name, &**value));
        Foreign::of(members).filter(|_| self.action_type.is_none())
    }
}

/// Why a body was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The sender is unknown.
    #[error("{cause}")]
    Unauthenticated {
        /// For the operator only.
        cause: Cause,
        /// The content of the body, if a configured key opened it: a sender who knows the key is worth a record.
        said: Option<Box<Said>>,
    },
    /// The sender is authenticated, but the body is not valid.
    #[error("{fault}")]
    Malformed {
        /// What is wrong with it.
        fault: Fault,
        /// Its content, as far as readable.
        said: Box<Said>,
    },
}

impl OpenError {
    fn stranger(cause: Cause) -> Self {
        Self::Unauthenticated { cause, said: None }
    }
}

/// Checks a JSON value against the limits of a callback: depth, width, unique names, valid characters.
///
/// # Errors
/// The first violation.
pub fn check(value: &RawValue) -> Result<(), Fault> {
    wire::check_value(value, 1, Texts::Exact)
}

/// The form of a body, before any credential is tried.
enum Form<'a> {
    /// An object without `encrypt`.
    Plain(Members<'a>),
    /// An object with `encrypt`; its other members are ignored.
    Sealed(Cow<'a, str>),
    /// Neither.
    Neither(Cause),
}

impl<'a> Form<'a> {
    fn of(body: &'a [u8]) -> Self {
        let members = match Members::parse(body) {
            Ok(members) => members,
            Err(why) => return Self::Neither(Cause::of_unreadable(body, why)),
        };
        let mut sealed = members.all("encrypt");
        let first = sealed.next().map(|value| wire::text("encrypt", value));
        // Readers may differ on which of two they take, including a proxy in front of this service.
        let several = sealed.next().is_some();
        drop(sealed);
        match first {
            _ if several => Self::Neither(Cause::EncryptTwice),
            Some(Err(_)) => Self::Neither(Cause::EncryptNotText),
            Some(Ok(Some(text))) => Self::Sealed(text),
            Some(Ok(None)) | None => Self::Plain(members),
        }
    }
}

/// Authenticates a body and parses it.
///
/// # Errors
/// [`OpenError::Unauthenticated`] if the sender has no configured credential. [`OpenError::Malformed`] if the sender
/// has one, but the body has a member of the wrong type, a repeated name, or exceeds the limits.
pub fn open(credentials: &Credentials, body: &[u8]) -> Result<Verified, OpenError> {
    let (text, cause) = match (Form::of(body), credentials.encrypted()) {
        (Form::Sealed(text), true) => return open_sealed(credentials, &text),
        (Form::Plain(members), encrypted) => {
            let token = token(&members);
            let mut found = None;
            for (at, has_token) in credentials.with_token(token.as_deref()).enumerate() {
                // Look at all of them, even after a match.
                if bool::from(has_token) {
                    found = found.or(Some(at));
                }
            }
            if let Some(credential) = found.filter(|_| !encrypted) {
                return read(&members, credential);
            }
            let cause = match (Foreign::of(members.iter()), encrypted) {
                (Some(foreign), _) => Cause::Foreign(foreign),
                (None, true) => Cause::NotEncrypted,
                (None, false) if token.is_none() => Cause::TokenMissing,
                (None, false) => Cause::TokenWrong,
            };
            (Cow::Borrowed(""), cause)
        }
        (Form::Sealed(text), false) => (text, Cause::Encrypted),
        (Form::Neither(cause), _) => (Cow::Borrowed(""), cause),
    };
    let sealed = Sealed::decode(&text);
    let configured = credentials.list.iter().filter(|credential| credential.key.is_some());
    try_in_vain(credentials, configured.chain(&credentials.decoys), &sealed);
    Err(OpenError::stranger(cause))
}

/// Does the work of a trial with each of these credentials, and discards the results.
fn try_in_vain<'c>(credentials: &Credentials, with: impl Iterator<Item = &'c Credential>, sealed: &Sealed) {
    for key in with.filter_map(|credential| credential.key.as_ref()) {
        let unsealed = cipher::unseal(key, sealed);
        let members = Members::parse(unsealed.plain());
        let token = members.as_ref().ok().and_then(token);
        let matches = credentials.with_token(token.as_deref()).fold(unsealed.sound, |all, one| all | one);
        std::hint::black_box(bool::from(matches));
    }
}

fn open_sealed(credentials: &Credentials, text: &str) -> Result<Verified, OpenError> {
    let sealed = Sealed::decode(text);
    let opened: Vec<Unsealed> =
        unseal_with(credentials.list.iter().filter_map(|one| one.key.as_ref()), &sealed);
    // Parse in any case: whether a parser runs must not depend on the padding.
    let mut parsed: Vec<_> = opened.iter().map(|unsealed| Members::parse(unsealed.plain())).collect();
    let mut found = Choice::from(0);
    let mut found_at = 0_u8;
    // Whether the token is configured, but not with the key that opened it.
    let mut crossed = Choice::from(0);
    for (at, (unsealed, members)) in opened.iter().zip(&parsed).enumerate() {
        let token = members.as_ref().ok().and_then(token);
        for (other, has_token) in credentials.with_token(token.as_deref()).enumerate() {
            let own = Choice::from(u8::from(other == at));
            let matches = unsealed.sound & has_token & own;
            found_at.conditional_assign(&(at as u8), matches & !found);
            found |= matches;
            crossed |= unsealed.sound & has_token & !own;
        }
    }
    if bool::from(found) {
        let at = usize::from(found_at);
        let members = parsed.swap_remove(at).expect("the token stood in it");
        return read(&members, at);
    }
    try_in_vain(credentials, credentials.decoys.iter(), &sealed);
    Err(diagnose(&sealed, &opened, &parsed, bool::from(crossed)))
}

fn unseal_with<'k>(keys: impl Iterator<Item = &'k Key>, sealed: &Sealed) -> Vec<Unsealed> {
    keys.map(|key| cipher::unseal(key, sealed)).collect()
}

/// Why opening failed, for the key that got furthest. Runs after the decision, for the operator only.
fn diagnose(
    sealed: &Sealed,
    opened: &[Unsealed],
    parsed: &[Result<Members<'_>, Unreadable>],
    crossed: bool,
) -> OpenError {
    for (unsealed, members) in opened.iter().zip(parsed) {
        let Ok(members) = members else { continue };
        if !bool::from(unsealed.sound) {
            continue;
        }
        let cause = match Foreign::of(members.iter()) {
            Some(foreign) => Cause::Foreign(foreign),
            None if crossed => Cause::TokenOfAnother,
            None if token(members).is_none() => Cause::TokenMissingInside,
            None => Cause::TokenWrongInside,
        };
        return OpenError::Unauthenticated { cause, said: Some(Box::new(Said::by(members))) };
    }
    OpenError::stranger(why_closed(sealed, opened))
}

/// Why no key yields one JSON object.
fn why_closed(sealed: &Sealed, opened: &[Unsealed]) -> Cause {
    match sealed.fault {
        Some(Misshapen::NotBase64) => return Cause::NotBase64,
        Some(Misshapen::Length) => return Cause::Length,
        None => {}
    }
    let sound = opened.iter().find(|unsealed| bool::from(unsealed.sound) && is_no_accident(unsealed));
    if let Some(unsealed) = sound {
        let why = Members::parse(unsealed.plain()).err().unwrap_or(Unreadable::NotJson);
        return Cause::of_unreadable_inside(unsealed.plain(), why);
    }
    let begins_like_json = |unsealed: &Unsealed| unsealed.plain().starts_with(b"{\"");
    let unpadded = opened.iter().any(|unsealed| !bool::from(unsealed.sound) && begins_like_json(unsealed));
    if unpadded { Cause::Padding } else { Cause::Key }
}

/// One in 256 wrong keys yields valid padding of one byte, one in 65536 padding of two. With the right key, the
/// padding is longer, or the plaintext is text or has a known beginning.
fn is_no_accident(unsealed: &Unsealed) -> bool {
    let plain = unsealed.plain();
    let begins_like_json =
        matches!(plain, [b'{', b'"' | b' ' | b'\t' | b'\r' | b'\n', ..] | [b'[' | b'"', b'{', ..]);
    unsealed.padding_bytes() > 2
        || begins_like_json
        || cause::is_gzip(plain)
        || std::str::from_utf8(plain).is_ok()
}

/// A decrypted body.
#[derive(Debug)]
pub struct Decrypted {
    /// The plaintext.
    pub plain: Vec<u8>,
    /// Why it is refused anyway, if it is not one JSON object.
    pub unreadable: Option<Cause>,
}

/// Decrypts a body for a human reader, with the same code and strictness as [`open`]: it fails exactly if `open`
/// finds no matching key. Its timing reveals what was wrong, so it is not for the accept path.
///
/// # Errors
/// The cause that [`open`] reports with these keys.
pub fn decrypt(keys: &[Key], body: &[u8]) -> Result<Decrypted, Cause> {
    let text = match Form::of(body) {
        Form::Sealed(text) => text,
        Form::Plain(members) => {
            return Err(Foreign::of(members.iter()).map_or(Cause::NotEncrypted, Cause::Foreign));
        }
        Form::Neither(cause) => return Err(cause),
    };
    let sealed = Sealed::decode(&text);
    let opened = unseal_with(keys.iter(), &sealed);
    let sound = |unsealed: &&Unsealed| bool::from(unsealed.sound);
    let object = opened.iter().find(|one| sound(one) && Members::parse(one.plain()).is_ok());
    match object.or_else(|| opened.iter().find(|one| sound(one) && is_no_accident(one))) {
        Some(unsealed) => {
            let plain = unsealed.plain();
            let unreadable = Members::parse(plain).err().map(|why| Cause::of_unreadable_inside(plain, why));
            Ok(Decrypted { plain: plain.to_vec(), unreadable })
        }
        None => Err(why_closed(&sealed, &opened)),
    }
}

fn token<'a>(members: &Members<'a>) -> Option<Cow<'a, str>> {
    // No length limit: the token is not passed on.
    let value = members.get("token")?;
    wire::text("token", value).or_else(|_| wire::id("token", value)).ok()?
}

/// Parses the members of an authenticated body, strictly.
fn read(members: &Members<'_>, credential: usize) -> Result<Verified, OpenError> {
    fill(members, credential)
        .map_err(|fault| OpenError::Malformed { fault, said: Box::new(Said::by(members)) })
}

fn fill(members: &Members<'_>, credential: usize) -> Result<Verified, Fault> {
    members.check()?;
    let mut verified = Verified {
        credential,
        action_type: None,
        action_context: None,
        user_id: None,
        approval_code: None,
        instance_id: None,
        task_id: None,
        message_id: None,
        id: None,
        reason: None,
        attachments: Vec::new(),
        extra: Vec::new(),
        seal: Seal,
    };
    let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
    for (name, value) in members.iter() {
        match name {
            "action_type" => verified.action_type = owned(wire::word(name, value)?),
            "action_context" => verified.action_context = owned(wire::text(name, value)?),
            "user_id" => verified.user_id = owned(wire::id(name, value)?),
            "approval_code" => verified.approval_code = owned(wire::id(name, value)?),
            "instance_id" => verified.instance_id = owned(wire::id(name, value)?),
            "task_id" => verified.task_id = owned(wire::id(name, value)?),
            "message_id" => verified.message_id = wire::number(name, value)?,
            "id" => verified.id = owned(wire::id(name, value)?),
            "reason" => verified.reason = owned(wire::free_text(name, value)?),
            "attachments" => verified.attachments = attachments(value)?,
            "token" => {}
            // An unset `encrypt` in a plain body has no meaning.
            "encrypt" if is_unset(value) => {}
            _ => verified.extra.push((name.to_owned(), wire::repaired(value))),
        }
    }
    Ok(verified)
}

fn attachments(value: &RawValue) -> Result<Vec<Attachment>, Fault> {
    let items = wire::list("attachments", value)?;
    if items.len() > wire::MAX_ATTACHMENTS {
        return Err(Fault(format!("more than {} attachments", wire::MAX_ATTACHMENTS)));
    }
    items
        .into_iter()
        .map(|item| {
            let mut file = Attachment::default();
            if is_unset(item) {
                return Ok(file);
            }
            for (name, value) in wire::object("an attachment", item)?.into_inner() {
                let text = |what| Ok(wire::free_text(what, value)?.map(Cow::into_owned));
                match &*name {
                    "file_type" => file.file_type = text("attachments[].file_type")?,
                    "file_name" => file.file_name = text("attachments[].file_name")?,
                    "url" => file.url = text("attachments[].url")?,
                    "file_size" => file.file_size = wire::number("attachments[].file_size", value)?,
                    _ => file.extra.push((name.into_owned(), wire::repaired(value))),
                }
            }
            Ok(file)
        })
        .collect()
}

#[cfg(test)]
mod tests;
