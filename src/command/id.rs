//! Identities: of a command, of a decision (when two callbacks are the same), of a task.

use std::{fmt, time::Duration};

use crate::time::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The position of a command in the ledger's log: 1, 2, 3 … without gaps.
pub type Seq = u64;

/// The identity of a command: a UUIDv7, so that an index over it grows only at its right edge.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(Uuid);

impl CommandId {
    /// Creates an id for a command received at `at`. Ids of one process increase even within a millisecond.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        static CONTEXT: std::sync::Mutex<uuid::timestamp::context::ContextV7> =
            std::sync::Mutex::new(uuid::timestamp::context::ContextV7::new());
        let seconds = u64::try_from(at.as_second()).unwrap_or(0);
        let nanos = u32::try_from(at.as_millisecond().rem_euclid(1000)).unwrap_or(0) * 1_000_000;
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(&CONTEXT, seconds, nanos)))
    }

    /// Parses the hyphenated or simple text form. `None` if it is not a UUID.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// When the command was received, to the millisecond. Later than that if this process had already made ids of a
    /// later time, because ids only increase. `None` for a UUID of another version.
    #[must_use]
    pub fn received_at(&self) -> Option<Timestamp> {
        let (seconds, nanos) = self.0.get_timestamp().filter(|_| self.0.get_version_num() == 7)?.to_unix();
        Some(Timestamp::UNIX_EPOCH + Duration::new(seconds, nanos))
    }

    /// The embedded time, in milliseconds since 1970. Never before the command was received.
    #[must_use]
    pub fn millis(&self) -> i64 {
        let [a, b, c, d, e, f, ..] = *self.as_bytes();
        i64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// A lower bound for all ids of this time or later, above every earlier id.
    #[must_use]
    pub fn floor(millis: i64) -> Self {
        const LAST: i64 = (1 << 48) - 1;
        let [_, _, a, b, c, d, e, f] = millis.clamp(0, LAST).to_be_bytes();
        Self::from_bytes([a, b, c, d, e, f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// The 16 bytes that the ledger stores.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id with these 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for CommandId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A user's reference to a command: its id or its position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandRef {
    /// The id.
    Id(CommandId),
    /// The position in the log.
    Seq(Seq),
}

impl CommandRef {
    /// Parses a UUID, or a number from 1. `None` if it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(id) = CommandId::parse(text) {
            return Some(Self::Id(id));
        }
        // `parse` alone would also accept a sign. The ledger uses signed 64-bit numbers.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let seq = text.parse().ok().filter(|seq| (1..=i64::MAX as Seq).contains(seq));
        seq.filter(|_| digits).map(Self::Seq)
    }
}

impl fmt::Display for CommandRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Seq(seq) => seq.fmt(f),
        }
    }
}

/// The parts of a callback that identify its decision.
///
/// The platform sends no event id, no timestamp and no nonce (platform.md#callback-transport), so identity must be
/// derived from the content.
#[derive(Debug, Clone, Copy, Default)]
pub struct FingerprintParts<'a> {
    /// Two endpoints may use the same ids for two systems.
    pub endpoint: &'a str,
    /// For a card, possibly the only member that identifies the task (platform.md#callback-origins).
    pub action_context: Option<&'a str>,
    /// With `task_id`, identifies the task of a list operation.
    pub instance_id: Option<&'a str>,
    /// See `instance_id`.
    pub task_id: Option<&'a str>,
    /// Identifies the task of a search operation.
    pub id: Option<&'a str>,
    /// Two cards about one task are two questions, and may be answered twice.
    pub message_id: Option<&'a str>,
    /// A task that was rolled back and reopened is a new question.
    pub round: Option<&'a str>,
    /// Two approvers of one task decide independently.
    pub user_id: &'a str,
    /// Approve and reject are two decisions.
    pub action_type: &'a str,
}

/// SHA-256 over the length-prefixed [`FingerprintParts`].
///
/// *Not* included: `reason`, `attachments` and unknown members. A repeat that differs only there is still the same
/// decision. The token and the definition's code do not change the decision either.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of these parts. Absent equals empty, as on the wire (platform.md#types-on-the-wire).
    #[must_use]
    pub fn of(parts: &FingerprintParts<'_>) -> Self {
        Self(digest([
            parts.endpoint,
            parts.action_context.unwrap_or_default(),
            parts.instance_id.unwrap_or_default(),
            parts.task_id.unwrap_or_default(),
            parts.id.unwrap_or_default(),
            parts.message_id.unwrap_or_default(),
            parts.round.unwrap_or_default(),
            parts.user_id,
            parts.action_type,
        ]))
    }

    /// The 32 bytes that the ledger stores.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The fingerprint with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The first eight bytes, for in-memory tables that verify a hit against the whole value.
    #[must_use]
    pub fn short(&self) -> u64 {
        first_eight(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}…", self.short())
    }
}

/// A 64-bit key of a task: commands with the same key are published in order of acceptance.
///
/// If two tasks collide, one only waits for the other, so 64 bits are enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey(u64);

impl TaskKey {
    /// The key of the resolved task. Without ids, it is derived from the context, card or search.
    #[must_use]
    pub fn of(command: &super::Command) -> Self {
        Self(first_eight(&task_digest(command)))
    }

    /// The key as the ledger stores it.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The key with this value.
    #[must_use]
    pub fn from_value(value: u64) -> Self {
        Self(value)
    }
}

/// Identifies "the same operator on the same task", the unit within which decisions can contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecisionKey([u8; 16]);

impl DecisionKey {
    /// The key of this command's operator and task.
    #[must_use]
    pub fn of(command: &super::Command) -> Self {
        let mut hash = Sha256::new();
        hash.update(task_digest(command));
        absorb(&mut hash, command.task.round.as_deref().unwrap_or_default());
        absorb(&mut hash, &command.user_id);
        let digest: [u8; 32] = hash.finalize().into();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }

    /// The 16 bytes that the ledger stores.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first eight bytes, for in-memory tables that verify a hit against the whole value.
    #[must_use]
    pub fn short(&self) -> u64 {
        first_eight(&self.0)
    }
}

fn task_digest(command: &super::Command) -> [u8; 32] {
    let task = &command.task;
    // With known ids, the task is the same for every card, list or search. Without them, the context, the card or the
    // search hit is its only name.
    let names = match (&task.instance_id, &task.task_id) {
        (None, None) => [
            "unresolved",
            command.action_context.as_deref().unwrap_or_default(),
            command.message_id.as_deref().unwrap_or_default(),
            command.search_id.as_deref().unwrap_or_default(),
        ],
        (instance_id, task_id) => [
            "task",
            instance_id.as_deref().unwrap_or_default(),
            task_id.as_deref().unwrap_or_default(),
            // Without a task id, only the context distinguishes the steps of one instance.
            if task_id.is_none() { command.action_context.as_deref().unwrap_or_default() } else { "" },
        ],
    };
    digest([&*command.endpoint, names[0], names[1], names[2], names[3]])
}

/// SHA-256 over parts, each preceded by its length in bytes (64 bits, big endian), so that different lists of parts
/// never give the same input.
fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        absorb(&mut hash, part);
    }
    hash.finalize().into()
}

fn absorb(hash: &mut Sha256, part: &str) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part.as_bytes());
}

fn first_eight(bytes: &[u8]) -> u64 {
    let mut head = [0; 8];
    head.copy_from_slice(&bytes[..8]);
    u64::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, samples};

    #[test]
    fn ids_made_within_one_millisecond_grow() {
        let at = Timestamp::from_millisecond(1_790_000_000_000).unwrap();
        let ids: Vec<_> = (0..1000).map(|_| CommandId::new(at)).collect();
        assert!(ids.is_sorted() && ids[0] != ids[1]);
        assert_eq!(ids[0].to_string().as_bytes()[14], b'7');
        assert_eq!(CommandId::parse(&ids[0].to_string()), Some(ids[0]));
        // Possibly later, because other tests may have made ids of a later time.
        assert!(ids[0].received_at() >= Some(at));
        let random = CommandId::parse("6ba7b810-9dad-41d1-80b4-00c04fd430c8").unwrap();
        assert_eq!(random.received_at(), None);
    }

    #[test]
    fn every_part_changes_the_fingerprint() {
        let base =
            FingerprintParts { endpoint: "e", user_id: "u", action_type: "APPROVE", ..Default::default() };
        let changed = [
            FingerprintParts { endpoint: "f", ..base },
            FingerprintParts { action_context: Some("x"), ..base },
            FingerprintParts { instance_id: Some("x"), ..base },
            FingerprintParts { task_id: Some("x"), ..base },
            FingerprintParts { id: Some("x"), ..base },
            FingerprintParts { message_id: Some("x"), ..base },
            FingerprintParts { round: Some("x"), ..base },
            FingerprintParts { user_id: "v", ..base },
            FingerprintParts { action_type: "REJECT", ..base },
        ];
        let mut seen = std::collections::HashSet::from([Fingerprint::of(&base)]);
        for parts in &changed {
            assert!(seen.insert(Fingerprint::of(parts)), "{parts:?} must differ from all others");
        }
    }

    #[test]
    fn a_part_cannot_leak_into_its_neighbour() {
        let one = FingerprintParts { instance_id: Some("ab"), task_id: Some("c"), ..Default::default() };
        let two = FingerprintParts { instance_id: Some("a"), task_id: Some("bc"), ..Default::default() };
        assert_ne!(Fingerprint::of(&one), Fingerprint::of(&two));
    }

    #[test]
    fn absent_and_empty_are_the_same_callback() {
        let absent = FingerprintParts { endpoint: "e", ..Default::default() };
        let empty = FingerprintParts { action_context: Some(""), round: Some(""), ..absent };
        assert_eq!(Fingerprint::of(&absent), Fingerprint::of(&empty));
    }

    /// The stored bytes contain the complete identity.
    #[test]
    fn identities_come_back_from_their_bytes_and_differ_in_them() {
        let of = |user_id| Fingerprint::of(&FingerprintParts { user_id, ..Default::default() });
        let (one, other) = (of("u"), of("v"));
        assert!(Fingerprint::from_bytes(*one.as_bytes()) == one && one.as_bytes() != other.as_bytes());
        assert_eq!(one.as_bytes()[..8], one.short().to_be_bytes());
        assert_eq!(format!("{one:?}"), format!("{:016x}…", one.short()));

        let mut command = samples::list();
        let keys = |command: &Command| (TaskKey::of(command), DecisionKey::of(command));
        let (task, decision) = keys(&command);
        assert_eq!(TaskKey::from_value(task.get()), task);
        assert_eq!(decision.as_bytes()[..8], decision.short().to_be_bytes());
        command.user_id.push('x');
        let (same_task, other_decision) = keys(&command);
        assert!(same_task == task && other_decision.as_bytes() != decision.as_bytes());
        assert_ne!(other_decision.short(), decision.short());
        command.task.task_id = Some("another".to_owned());
        assert_ne!(keys(&command).0.get(), task.get());

        let id = CommandId::new(Timestamp::UNIX_EPOCH);
        assert_eq!(format!("{id:?}"), id.to_string());
        assert_eq!(CommandId::from_bytes(*id.as_bytes()), id);
    }
}
