//! Bytes to [`Verified`]: authentication, decryption and strict reading of a callback. [`open`] is the only way in.
//!
//! An encrypted body is taken through *every* configured credential, whatever the first ones say: base64, decryption,
//! padding, JSON and token are worked off in one go, each leaves a bit, and one decision is made at the end. The time
//! that is left to measure (how far a JSON parser got) is covered by the floor that the listener puts under refusals.

pub mod cipher;
mod credentials;
mod wire;

use std::borrow::Cow;

use serde_json::value::RawValue;
use subtle::{Choice, ConditionallySelectable};

pub use credentials::Credentials;
pub use wire::Fault;

use crate::{
    command::{Attachment, Origin},
    secret::Secret,
};
use wire::Members;

/// One credential of an endpoint, as configured at the platform.
#[derive(Debug, Clone)]
pub struct CredentialSettings {
    /// `action_callback_token`: echoed in the member `token`.
    pub action_callback_token: Secret,
    /// `action_callback_key`: if present, callbacks are encrypted (§1.3). Never empty.
    pub action_callback_key: Option<Secret>,
}

/// A callback whose sender has proved to know a configured token (and key). [`open`] is its only constructor.
///
/// Null, absent and "" are all `None` (§1.5).
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
    /// `message_id`, all 64 bits of it.
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
    /// Where the approver acted, told by the member that each origin must carry (§1.4).
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
}

/// Why a body was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The sender is nobody we know. The cause is for the log alone.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The sender may write to us, but not this.
    #[error("{0}")]
    Malformed(Fault),
}

/// Holds a JSON value to the limits of a callback: depth, width, unique names, texts of characters.
///
/// # Errors
/// What is beyond them.
pub fn check(value: &RawValue) -> Result<(), Fault> {
    wire::check_value(value, 1)
}

/// Authenticates a body and reads it.
///
/// # Errors
/// [`OpenError::Unauthenticated`] for everything that could be tried to learn a token or a key;
/// [`OpenError::Malformed`] for a plain body that is no JSON object, and for an authenticated one with a member of the
/// wrong type, a repeated name, or more than the limits allow.
pub fn open(credentials: &Credentials, body: &[u8]) -> Result<Verified, OpenError> {
    let outer = Members::parse(body);
    // "" and null are as good as absent (§1.5); any other `encrypt` makes the rest of the body void.
    let sealed =
        outer.as_ref().and_then(|members| members.get("encrypt")).map(|value| wire::text("encrypt", value));
    match (credentials.encrypted(), outer, sealed) {
        (true, Some(_), Some(Ok(Some(text)))) => open_sealed(credentials, &text),
        (true, outer, sealed) => {
            // The same work as for a real one.
            drop(open_sealed(credentials, ""));
            Err(OpenError::Unauthenticated(match (outer, sealed) {
                (None, _) => "the body is no JSON object",
                (_, Some(Err(_))) => "encrypt is no text",
                _ => "a plain body, but a key is configured",
            }))
        }
        (false, None, _) => Err(OpenError::Malformed(Fault("the body is no JSON object".to_owned()))),
        (false, Some(_), Some(Ok(Some(_)) | Err(_))) => {
            Err(OpenError::Unauthenticated("an encrypted body, but no key is configured"))
        }
        (false, Some(members), _) => match authenticate(credentials, &members) {
            Some(credential) => read(members, credential).map_err(OpenError::Malformed),
            None => Err(OpenError::Unauthenticated("the token is wrong or missing")),
        },
    }
}

fn open_sealed(credentials: &Credentials, text: &str) -> Result<Verified, OpenError> {
    let sealed = cipher::Sealed::decode(text);
    let mut any_sound = Choice::from(0);
    let mut found = Choice::from(0);
    let mut found_at = 0_u8;
    let mut opened = Vec::with_capacity(credentials.list.len());
    for (at, key) in credentials.list.iter().enumerate().filter_map(|(at, one)| Some((at, one.key.as_ref()?)))
    {
        let unsealed = cipher::unseal(key, &sealed);
        // Parsed in any case: whether the padding was right must not decide whether a parser runs.
        let members = Members::parse(unsealed.plain());
        let token = members.as_ref().and_then(token);
        let matches = unsealed.sound & matching(credentials, token.as_deref(), at);
        drop(members);
        any_sound |= unsealed.sound;
        found_at.conditional_assign(&(at as u8), matches & !found);
        found |= matches;
        opened.push((at, unsealed));
    }
    if !bool::from(found) {
        return Err(OpenError::Unauthenticated(if bool::from(any_sound) {
            "decrypts, but the token is wrong or missing"
        } else {
            "does not decrypt with any configured key"
        }));
    }
    let (at, unsealed) = opened
        .iter()
        .find(|(at, _)| *at == usize::from(found_at))
        .expect("the credential that was found is one that was tried");
    let members = Members::parse(unsealed.plain()).expect("it was parsed a moment ago");
    read(members, *at).map_err(OpenError::Malformed)
}

/// 1 if the token is that of the credential at `at`. Compares with every configured token in any case.
fn matching(credentials: &Credentials, token: Option<&str>, at: usize) -> Choice {
    let hash = credentials::hash(token.unwrap_or_default());
    let mut matches = Choice::from(0);
    for (other, credential) in credentials.list.iter().enumerate() {
        matches |= credential.has_token(&hash) & Choice::from(u8::from(other == at));
    }
    // The empty token is nobody's: the configuration refuses it, and absent is the same as empty.
    matches & Choice::from(u8::from(token.is_some()))
}

/// The credential whose token a plain body carries.
fn authenticate(credentials: &Credentials, members: &Members<'_>) -> Option<usize> {
    let token = token(members);
    let mut found = None;
    for at in 0..credentials.list.len() {
        if bool::from(matching(credentials, token.as_deref(), at)) {
            found = found.or(Some(at));
        }
    }
    found
}

fn token<'a>(members: &Members<'a>) -> Option<Cow<'a, str>> {
    // A token may be as long as it likes; it goes nowhere.
    let value = members.get("token")?;
    wire::text("token", value).or_else(|_| wire::id("token", value)).ok()?
}

/// Reads the members of an authenticated body, strictly.
fn read(members: Members<'_>, credential: usize) -> Result<Verified, Fault> {
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
    for (name, value) in members.into_inner() {
        match &*name {
            "action_type" => {
                verified.action_type = owned(wire::text(&name, value)?);
                if verified.action_type.as_ref().is_some_and(|text| text.len() > wire::MAX_ID_BYTES) {
                    return Err(Fault(format!("action_type is longer than {} bytes", wire::MAX_ID_BYTES)));
                }
            }
            "action_context" => verified.action_context = owned(wire::text(&name, value)?),
            "user_id" => verified.user_id = owned(wire::id(&name, value)?),
            "approval_code" => verified.approval_code = owned(wire::id(&name, value)?),
            "instance_id" => verified.instance_id = owned(wire::id(&name, value)?),
            "task_id" => verified.task_id = owned(wire::id(&name, value)?),
            "message_id" => verified.message_id = wire::number(&name, value)?,
            "id" => verified.id = owned(wire::id(&name, value)?),
            "reason" => verified.reason = owned(wire::text(&name, value)?),
            "attachments" => verified.attachments = attachments(value)?,
            "token" => {}
            // An `encrypt` that is null or "" in a plain body says nothing.
            "encrypt" if value.get() == "null" || value.get() == "\"\"" => {}
            _ => verified.extra.push((name.into_owned(), value.to_owned())),
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
            for (name, value) in wire::object("an attachment", item)?.into_inner() {
                let text = |what| Ok(wire::text(what, value)?.map(Cow::into_owned));
                match &*name {
                    "file_type" => file.file_type = text("attachments[].file_type")?,
                    "file_name" => file.file_name = text("attachments[].file_name")?,
                    "url" => file.url = text("attachments[].url")?,
                    "file_size" => file.file_size = wire::number("attachments[].file_size", value)?,
                    _ => file.extra.push((name.into_owned(), value.to_owned())),
                }
            }
            Ok(file)
        })
        .collect()
}

#[cfg(test)]
mod tests;
