//! What people and their programs changed, by whom and why.
//!
//! An act is written in the transaction of its change. One that changes many commands is one row, with a row for each
//! command. It is kept for the retention from its beginning, and for longer while the ledger has a command that it
//! changed, or a context that it was the last to register.

use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use serde_with::skip_serializing_none;
use sha2::{Digest, Sha256};
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::{command::CommandId, time::Timestamp};

/// Longest reason of an act, in characters.
pub const MAX_REASON_CHARS: usize = 500;

/// By which way an act came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, IntoStaticStr, VariantArray, EnumString)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The command line.
    Cli,
    /// The API.
    Api,
    /// The console in a browser.
    Console,
    /// A signal to the service.
    Signal,
}

impl Via {
    /// The word in the ledger and in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Who acted. What a command says of itself is a claim of somebody who can write the ledger.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Actor {
    /// By which way.
    pub via: Via,
    /// The user of a command, or the name of an API token.
    pub name: Option<String>,
    /// The user before `sudo`.
    pub sudo_user: Option<String>,
    /// The machine of a command, or of the service that got a signal.
    pub host: Option<String>,
    /// The address that sent a request.
    pub peer: Option<String>,
}

impl Actor {
    /// Nothing known but the way.
    #[must_use]
    pub fn unnamed(via: Via) -> Self {
        Self { via, name: None, sudo_user: None, host: None, peer: None }
    }
}

/// By whom, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// By whom.
    pub actor: Actor,
    /// Why, in the actor's words; at most [`MAX_REASON_CHARS`].
    pub reason: Option<String>,
}

impl From<Actor> for By {
    fn from(actor: Actor) -> Self {
        Self { actor, reason: None }
    }
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, IntoStaticStr, VariantArray, EnumString)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum ActKind {
    /// Commands were requeued.
    Requeue,
    /// Commands were parked.
    Park,
    /// Outcomes are shown again.
    ShowAgain,
    /// Contexts were registered.
    Register,
    /// A context was removed.
    Unregister,
    /// Strays were removed.
    RemoveStrays,
    /// Old commands were removed by hand.
    Prune,
    /// The configuration was read again.
    Reload,
    /// Somebody logged in to the console.
    Login,
    /// Decisions or refusals were exported as a file.
    Export,
}

impl ActKind {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word in the ledger, in answers and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// An act to write down.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAct {
    /// What.
    pub kind: ActKind,
    /// By whom, and why.
    pub by: By,
    /// What it changed, as a small JSON object without secrets.
    pub detail: Option<Value>,
    /// How many commands or contexts it changed.
    pub count: u64,
}

impl NewAct {
    pub(super) fn new(kind: ActKind, by: &By, count: usize) -> Self {
        Self { kind, by: by.clone(), detail: None, count: count as u64 }
    }

    /// Contexts were registered; each is true if it replaced another.
    pub(super) fn register(by: &By, keys: &[&str], replaced: &[bool]) -> Self {
        let again = replaced.iter().filter(|replaced| **replaced).count();
        let mut detail = json!({ "created": replaced.len() - again, "replaced": again });
        if let [key] = keys {
            detail["context"] = ContextTag::of(key).to_string().into();
        }
        Self { detail: Some(detail), ..Self::new(ActKind::Register, by, keys.len()) }
    }

    pub(super) fn unregister(by: &By, key: &str) -> Self {
        let detail = json!({ "context": ContextTag::of(key).to_string() });
        Self { detail: Some(detail), ..Self::new(ActKind::Unregister, by, 1) }
    }

    pub(super) fn remove_strays(by: &By, ids: &[u64]) -> Self {
        Self { detail: Some(json!({ "ids": ids })), ..Self::new(ActKind::RemoveStrays, by, ids.len()) }
    }

    /// Commands received before a time were removed; there were so many so far.
    pub(super) fn prune(by: &By, before: Timestamp, pruned: usize) -> Self {
        let detail = json!({ "received_before": before });
        Self { detail: Some(detail), ..Self::new(ActKind::Prune, by, pruned) }
    }

    pub(super) fn detail_text(&self) -> Option<String> {
        self.detail.as_ref().map(Value::to_string)
    }
}

/// Stands for the key of a context in acts. The key itself may be worth as much as a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContextTag(u64);

impl ContextTag {
    pub(super) fn of(key: &str) -> Self {
        let digest = Sha256::digest(key.as_bytes());
        Self(digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// As its column holds it.
    pub(super) fn number(self) -> i64 {
        self.0.cast_signed()
    }
}

impl std::fmt::Display for ContextTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// An act in the ledger.
#[derive(Debug, Clone, Serialize)]
pub struct ActRecord {
    /// Its number. Later ones have higher numbers.
    pub id: u64,
    /// When it began.
    pub at: Timestamp,
    /// When it changed something last.
    pub changed_at: Timestamp,
    /// What.
    pub act: ActKind,
    /// By whom.
    pub actor: Actor,
    /// Why, in the actor's words.
    pub reason: Option<String>,
    /// How many commands or contexts it changed.
    pub count: u64,
    /// What else is known of it, by kind.
    pub detail: Option<Box<RawValue>>,
}

/// Which acts to list; newest first.
#[derive(Debug, Clone, Default)]
pub struct ActFilter {
    /// Only this one.
    pub id: Option<u64>,
    /// Only those that changed this command.
    pub command_id: Option<CommandId>,
    /// Only those that changed the context with this key.
    pub context: Option<String>,
    /// Only of this kind.
    pub kind: Option<ActKind>,
    /// Only by this user, before `sudo` or after, or this API token.
    pub actor: Option<String>,
    /// Only at this time or later.
    pub since: Option<Timestamp>,
    /// Only before this time.
    pub until: Option<Timestamp>,
    /// Only with a lower number: where the previous page ended.
    pub before: Option<u64>,
    /// At most this many.
    pub limit: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_a_contract_and_read_back() {
        let words = [
            "requeue",
            "park",
            "show_again",
            "register",
            "unregister",
            "remove_strays",
            "prune",
            "reload",
            "login",
            "export",
        ];
        assert!(ActKind::ALL.iter().copied().map(ActKind::as_str).eq(words));
        assert!(ActKind::ALL.iter().all(|kind| kind.as_str().parse() == Ok(*kind)));
        assert_eq!(serde_json::to_value(ActKind::ALL).unwrap(), json!(words));
        let ways = ["cli", "api", "console", "signal"];
        assert!(Via::VARIANTS.iter().copied().map(Via::as_str).eq(ways));
        assert_eq!(serde_json::to_value(Via::VARIANTS).unwrap(), json!(ways));
    }

    #[test]
    fn a_key_is_named_by_the_start_of_its_hash() {
        // printf abc | sha256sum
        assert_eq!(ContextTag::of("abc").to_string(), "ba7816bf8f01cfea");
        assert_eq!(ContextTag::of("abc").number(), 0xba78_16bf_8f01_cfea_u64.cast_signed());
    }

    #[test]
    fn a_registration_tells_its_context_only_if_it_is_one() {
        let by = By::from(Actor::unnamed(Via::Api));
        let one = NewAct::register(&by, &["secret-key"], &[true]);
        let tag = ContextTag::of("secret-key").to_string();
        assert_eq!(one.detail, Some(json!({ "created": 0, "replaced": 1, "context": tag })));
        let two = NewAct::register(&by, &["a", "b"], &[true, false]);
        assert_eq!((two.detail, two.count), (Some(json!({ "created": 1, "replaced": 1 })), 2));
    }
}
