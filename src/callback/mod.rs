//! Bytes to [`Verified`]: authentication, decryption and strict reading of a callback. [`open`] is the only way in.
//!
//! # What a refusal gives away
//! An encrypted body is taken through *every* configured credential, whatever the first ones say: base64, decryption,
//! padding, JSON and token are worked off in one go, each leaves a bit, and one decision is made at the end. If it is that
//! nobody is known, the work goes on with decoys until it is that of [`MAX_CREDENTIALS`]: an endpoint in the middle of a
//! rotation, a plain one and one that is not there take the same, so that under load too they cannot be told apart. The
//! cause for the operator's log ([`Cause`]) is read from what is there by then. The time that is left to measure (how far
//! a JSON parser got) is covered by the floor that the listener puts under refusals.

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
    /// Tells it from other credentials of its endpoint, wherever in the list it stands: 16 bits of a hash of token and key.
    /// Enough for four, and anyone who finds it in a ledger has learned next to nothing of either.
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

/// A callback whose sender has proved to know a configured token (and key). [`open`] is its only constructor.
///
/// What is unset is `None`, in whatever way a client library writes that.
#[derive(Debug)]
pub struct Verified {
    /// Which of the endpoint's credentials was used, counted from 0.
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
    /// `message_id`, all 64 bits of it; never 0.
    pub message_id: Option<u64>,
    /// `id`: the task of a search operation.
    pub id: Option<String>,
    /// `reason`
    pub reason: Option<String>,
    /// `attachments`
    pub attachments: Vec<Attachment>,
    /// Members this version does not know, verbatim, in their order.
    pub extra: Vec<(String, Box<RawValue>)>,
    #[expect(dead_code, reason = "it is there so that nobody else can fill it")]
    seal: Seal,
}

/// Keeps [`Verified`] from being made elsewhere.
#[derive(Debug)]
struct Seal;

impl Verified {
    /// Where the approver acted, told by the member that each origin must carry (platform.md#callback-origins).
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

    /// What it is if it is no callback at all. The token proves nothing there: apps and callbacks may share one.
    #[must_use]
    pub fn foreign(&self) -> Option<Foreign> {
        let members = self.extra.iter().map(|(name, value)| (&**name, &**value));
        Foreign::of(members).filter(|_| self.action_type.is_none())
    }
}

/// Why a body was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The sender is nobody we know.
    #[error("{cause}")]
    Unauthenticated {
        /// For the operator alone.
        cause: Cause,
        /// What the body says, if a configured key opened it: its sender knows the key, and that is worth a record.
        said: Option<Box<Said>>,
    },
    /// The sender may write to us, but not this.
    #[error("{fault}")]
    Malformed {
        /// What is wrong with it.
        fault: Fault,
        /// What it says all the same.
        said: Box<Said>,
    },
}

impl OpenError {
    fn stranger(cause: Cause) -> Self {
        Self::Unauthenticated { cause, said: None }
    }
}

/// Holds a JSON value to the limits of a callback: depth, width, unique names, texts of characters.
///
/// # Errors
/// What is beyond them.
pub fn check(value: &RawValue) -> Result<(), Fault> {
    wire::check_value(value, 1, Texts::Exact)
}

/// What a body is by itself, before any credential.
enum Form<'a> {
    /// An object without `encrypt`.
    Plain(Members<'a>),
    /// An object with `encrypt`, beside which nothing counts.
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
        // Which of two is meant readers may see differently, one before this service among them.
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

/// Authenticates a body and reads it.
///
/// # Errors
/// [`OpenError::Unauthenticated`] for whatever does not come from somebody who has a credential;
/// [`OpenError::Malformed`] for a body that does, with a member of the wrong type, a repeated name, or more than the
/// limits allow.
pub fn open(credentials: &Credentials, body: &[u8]) -> Result<Verified, OpenError> {
    let (text, cause) = match (Form::of(body), credentials.encrypted()) {
        (Form::Sealed(text), true) => return open_sealed(credentials, &text),
        (Form::Plain(members), encrypted) => {
            let token = token(&members);
            let mut found = None;
            for (at, has_token) in credentials.with_token(token.as_deref()).enumerate() {
                // All are looked at, whatever the first ones say.
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

/// Does the work of a trial with each of these credentials, and keeps nothing of it.
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
    // Parsed in any case: whether the padding was right must not decide whether a parser runs.
    let mut parsed: Vec<_> = opened.iter().map(|unsealed| Members::parse(unsealed.plain())).collect();
    let mut found = Choice::from(0);
    let mut found_at = 0_u8;
    // Whether a token is there that is configured, though not with the key that opened it.
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

/// Why nothing came of it: what the key says that got farthest. The decision is made; this is for the operator.
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

/// Of 256 wrong keys one yields a padding that is right, of a single byte, and of 65536 one of two. What comes out of the
/// right one is longer padded, or is text, or begins like something.
fn is_no_accident(unsealed: &Unsealed) -> bool {
    let plain = unsealed.plain();
    let begins_like_json =
        matches!(plain, [b'{', b'"' | b' ' | b'\t' | b'\r' | b'\n', ..] | [b'[' | b'"', b'{', ..]);
    unsealed.padding_bytes() > 2
        || begins_like_json
        || cause::is_gzip(plain)
        || std::str::from_utf8(plain).is_ok()
}

/// What a key makes of a body.
#[derive(Debug)]
pub struct Decrypted {
    /// What is inside.
    pub plain: Vec<u8>,
    /// Why it is refused all the same, if it is not one JSON object.
    pub unreadable: Option<Cause>,
}

/// Decrypts a body for its reader, by the same code and with the same exactness as [`open`]: whatever that finds no key
/// for is an error here, and the other way round. Tells by its time what was wrong; not for the accept path.
///
/// # Errors
/// What [`open`] would say of it with these keys.
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
    // A token may be as long as it likes; it goes nowhere.
    let value = members.get("token")?;
    wire::text("token", value).or_else(|_| wire::id("token", value)).ok()?
}

/// Reads the members of an authenticated body, strictly.
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
            // An `encrypt` that is unset in a plain body says nothing.
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
