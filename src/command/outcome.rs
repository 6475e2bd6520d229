//! A worker's report about a command, as `approval.outcome/1`: how to parse it, which card status it means, and when
//! two reports are equal.
//!
//! # Rules
//! 1. A report equal to the previous one for its command is a **repeat** and changes nothing. RabbitMQ delivers at
//!    least once, and so do workers.
//! 2. Any other report **supersedes** the previous one, whatever they say: `failed` becomes `applied` when the worker
//!    finally succeeds. The worker has the last word; countersign does not judge it.
//! 3. Absent parts stay: after a report without an `instance`, the previous instance is still shown.
//!
//! After a crash, messages are redelivered in order. A superseded report may briefly be the last one, until the
//! report that superseded it is redelivered too.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::{Action, CommandId, is_unset};

/// The member `schema` of every report.
pub const SCHEMA: &str = "approval.outcome/1";

/// Larger messages are rejected. An instance with the platform's maximum of 300 tasks is about a third of this.
pub const MAX_BYTES: usize = 1 << 20;

/// Longer messages are truncated to this many characters; the rest is usually a stack trace.
pub const MAX_MESSAGE_CHARS: usize = 2000;

/// A worker's report.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command.
    pub command_id: CommandId,
    /// The outcome.
    pub kind: Kind,
    /// The status for the card, if the worker chooses one.
    pub status: Option<CardStatus>,
    /// The worker's message, up to [`MAX_MESSAGE_CHARS`].
    pub message: Option<String>,
    /// The current instance.
    pub instance: Option<Instance>,
}

/// An instance that the worker wants synchronised.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its id.
    pub instance_id: String,
    /// A JSON object in the form of `POST external_instances`, byte for byte as received.
    pub json: Box<RawValue>,
}

/// The outcome of a command.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, VariantArray, EnumString,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The third party did what the approver decided.
    Applied,
    /// The third party refuses: the task is gone, or somebody else was faster.
    Refused,
    /// The third party could not do it. If the worker succeeds later, it reports again.
    Failed,
}

impl Kind {
    /// All kinds.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word in the message, the ledger, metrics and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The statuses that a card can show (platform.md#updating-a-card), in the platform's spelling: here `CANCELLED` has
/// two L.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, VariantArray, EnumString,
)]
#[strum(serialize_all = "UPPERCASE")]
#[serde(rename_all = "UPPERCASE")]
pub enum CardStatus {
    /// 已同意
    Approved,
    /// 已拒绝
    Rejected,
    /// 已撤回
    Cancelled,
    /// 已转交
    Forwarded,
    /// 已退回
    Rollback,
    /// 已加签
    Add,
    /// 已删除
    Deleted,
    /// 已处理
    Processed,
    /// A custom text.
    Custom,
}

impl CardStatus {
    /// All statuses.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The platform's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The status that a card shows if the worker chooses none.
    ///
    /// If the decision was applied, the card shows it. Otherwise it must not look applied: `next_status` may already
    /// have changed the card, so it gets a custom text.
    #[must_use]
    pub fn of(kind: Kind, action: Action) -> Self {
        match (kind, action) {
            (Kind::Applied, Action::Approve) => Self::Approved,
            (Kind::Applied, Action::Reject) => Self::Rejected,
            (Kind::Applied, Action::Custom) => Self::Processed,
            (Kind::Refused | Kind::Failed, _) => Self::Custom,
        }
    }
}

/// Why a message is not a report. The texts quote only member names and our own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnOutcome {
    /// It is larger than [`MAX_BYTES`].
    #[error("has {0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
    /// It is not JSON, or a member is missing or has the wrong type.
    #[error("is not an {SCHEMA}: {0}")]
    Shape(String),
    /// It has another schema, or a later version of this one.
    #[error("its schema is not {SCHEMA}")]
    Schema,
    /// Its `command_id` is not a UUID.
    #[error("its command_id is not a UUID")]
    CommandId,
    /// Its `instance` has no id.
    #[error("its instance has no instance_id")]
    InstanceId,
}

/// The message on the wire. Unknown members may appear at any time.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Wire {
    schema: String,
    command_id: String,
    outcome: Kind,
    #[serde(default, deserialize_with = "set")]
    status: Option<CardStatus>,
    #[serde(default, deserialize_with = "set")]
    message: Option<String>,
    #[serde(default, deserialize_with = "set")]
    instance: Option<Box<RawValue>>,
}

/// Deserializes a value; `None` if it is one that client libraries write for unset.
fn set<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let value = Box::<RawValue>::deserialize(deserializer)?;
    if is_unset(&value) {
        return Ok(None);
    }
    serde_json::from_str(value.get()).map(Some).map_err(serde::de::Error::custom)
}

/// Ids are texts, or numbers if a library converted them.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct WireInstance {
    instance_id: Option<serde_json::Value>,
}

impl Outcome {
    /// Parses a message.
    ///
    /// # Errors
    /// The message is not a report. Whether its command is known, and whether the platform accepts its instance, is
    /// not checked here.
    pub fn parse(body: &[u8]) -> Result<Self, NotAnOutcome> {
        if body.len() > MAX_BYTES {
            return Err(NotAnOutcome::TooLarge(body.len()));
        }
        if body.trim_ascii_start().first() == Some(&b'[') {
            // serde would accept a list of the members by position.
            return Err(NotAnOutcome::Shape("a list in place of an object".to_owned()));
        }
        let wire: Wire = serde_json::from_slice(body).map_err(|error| shape(&error))?;
        if wire.schema != SCHEMA {
            return Err(NotAnOutcome::Schema);
        }
        let command_id = CommandId::parse(&wire.command_id).ok_or(NotAnOutcome::CommandId)?;
        let message = wire.message.map(|message| message.chars().take(MAX_MESSAGE_CHARS).collect::<String>());
        Ok(Self {
            command_id,
            kind: wire.outcome,
            status: wire.status,
            message: message.filter(|message| !message.is_empty()),
            instance: wire.instance.filter(|json| !is_blank(json)).map(Instance::of).transpose()?,
        })
    }

    /// True if this report changes nothing after `last` of the same command (rules 1 and 3).
    #[must_use]
    pub fn repeats(&self, last: &Self) -> bool {
        let instance =
            |outcome: &Self| outcome.instance.as_ref().map(|instance| instance.json.get().to_owned());
        (self.kind, self.status, &self.message) == (last.kind, last.status, &last.message)
            && (self.instance.is_none() || instance(self) == instance(last))
    }
}

impl Instance {
    /// Parses an instance and its id.
    ///
    /// # Errors
    /// It is not a JSON object, or has no `instance_id`.
    pub fn of(json: Box<RawValue>) -> Result<Self, NotAnOutcome> {
        if json.get().starts_with('[') {
            return Err(NotAnOutcome::Shape("a list in place of an instance".to_owned()));
        }
        let read: WireInstance = serde_json::from_str(json.get()).map_err(|error| shape(&error))?;
        // Finds half a surrogate pair in a member skipped so far: the platform client could not parse it later.
        serde_json::from_str::<serde_json::Value>(json.get()).map_err(|error| shape(&error))?;
        let instance_id = match read.instance_id {
            Some(serde_json::Value::String(id)) => id,
            Some(serde_json::Value::Number(id)) if id.as_u64() != Some(0) => id.to_string(),
            _ => String::new(),
        };
        if instance_id.trim().is_empty() {
            return Err(NotAnOutcome::InstanceId);
        }
        Ok(Self { instance_id, json })
    }
}

/// True for an object with only unset members, which a client library writes for an absent instance.
fn is_blank(json: &RawValue) -> bool {
    let members = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(json.get());
    members.is_ok_and(|members| members.values().all(|value| is_unset(value)))
}

/// Reports only the position: serde quotes unknown words and wrong values, but the worker's input may be anything.
fn shape(error: &serde_json::Error) -> NotAnOutcome {
    let what = match error.classify() {
        serde_json::error::Category::Data => "a member is missing, or has a wrong type or word",
        serde_json::error::Category::Syntax | serde_json::error::Category::Eof => "not JSON",
        serde_json::error::Category::Io => "cannot be read",
    };
    NotAnOutcome::Shape(format!("{what} (line {}, column {})", error.line(), error.column()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn golden() -> Vec<(String, Value)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/outcomes");
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let read = |path: &std::path::PathBuf| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        files.iter().map(|path| (path.file_stem().unwrap().to_string_lossy().into(), read(path))).collect()
    }

    fn parse(value: &Value) -> Result<Outcome, NotAnOutcome> {
        Outcome::parse(value.to_string().as_bytes())
    }

    #[test]
    fn every_golden_file_is_read() {
        let files = golden();
        assert!(files.len() >= 4);
        for (name, file) in files {
            let outcome = parse(&file).unwrap_or_else(|problem| panic!("{name}: {problem}"));
            assert_eq!(outcome.kind.as_str(), file["outcome"], "{name}");
            assert_eq!(outcome.status.map(|word| word.as_str()), file["status"].as_str(), "{name}");
            assert_eq!(outcome.message.as_deref(), file["message"].as_str(), "{name}");
            assert_eq!(outcome.instance.is_some(), file["instance"].is_object(), "{name}");
        }
    }

    fn applied() -> Value {
        json!({ "schema": SCHEMA, "command_id": "019a0000-0000-7000-8000-000000000001", "outcome": "applied" })
    }

    #[test]
    fn what_is_absent_is_null_and_what_is_not_known_is_ignored() {
        let mut whole = applied();
        whole["worker"] = json!({ "host": "w1" });
        for outcome in [parse(&applied()).unwrap(), parse(&whole).unwrap()] {
            assert!(outcome.status.is_none() && outcome.message.is_none() && outcome.instance.is_none());
        }
        whole["message"] = json!("x".repeat(3000));
        assert_eq!(parse(&whole).unwrap().message.unwrap().len(), MAX_MESSAGE_CHARS);
    }

    /// Client libraries fill in unset members; none of these values justifies losing a report.
    #[test]
    fn what_is_unset_is_absent_in_every_member() {
        for unset in [json!(null), json!(""), json!(0), json!(false), json!([]), json!({})] {
            let mut report = applied();
            for member in ["status", "message", "instance"] {
                report[member] = unset.clone();
            }
            let outcome = parse(&report).unwrap_or_else(|problem| panic!("{unset}: {problem}"));
            let Outcome { status, message, instance, .. } = outcome;
            assert!(status.is_none() && message.is_none() && instance.is_none(), "{unset}");
            report["instance"] =
                json!({ "instance_id": unset, "status": "", "update_time": 0, "task_list": [] });
            assert!(
                parse(&report).unwrap().instance.is_none(),
                "an instance of which nothing is set: {unset}"
            );
            report["instance"]["status"] = json!("APPROVED");
            assert_eq!(parse(&report).unwrap_err(), NotAnOutcome::InstanceId, "{unset}");
        }
        let mut report = applied();
        for (id, is) in [(json!("0"), "0"), (json!(77), "77")] {
            report["instance"] = json!({ "instance_id": id });
            assert_eq!(parse(&report).unwrap().instance.unwrap().instance_id, is);
        }
        report["instance"] = json!({ "instance_id": "  ", "status": "APPROVED" });
        assert_eq!(parse(&report).unwrap_err(), NotAnOutcome::InstanceId);
    }

    #[test]
    fn what_is_no_report_is_told_without_quoting_it() {
        for (member, value) in [
            ("schema", json!("approval.outcome/2")),
            ("schema", Value::Null),
            ("command_id", json!("hush")),
            ("command_id", json!(7)),
            ("outcome", json!("hush")),
            ("outcome", Value::Null),
            ("status", json!("CANCELED")),
            ("message", json!({ "hush": 1 })),
            ("instance", json!("hush")),
            ("instance", json!({ "hush": 1 })),
            ("instance", json!([1])),
            ("instance", json!([{ "instance_id": "hush" }])),
        ] {
            let mut broken = applied();
            broken[member] = value;
            let problem = parse(&broken).unwrap_err().to_string();
            assert!(!problem.contains("hush"), "{member}: {problem}");
        }
        let listed = json!([SCHEMA, "019a0000-0000-7000-8000-000000000001", "applied", null, null, null]);
        assert!(parse(&listed).is_err(), "members by their place");
        for body in [&b""[..], b"hush", b"[]", b"\xff", b"{\"schema\":\"approval.outcome/1\"}"] {
            assert!(!Outcome::parse(body).unwrap_err().to_string().contains("hush"));
        }
        let mut half = applied();
        half["instance"] = json!({ "instance_id": "I", "task_list": [{ "half": "x" }] });
        let half = half.to_string().replace("half", r"\udc00");
        assert!(Outcome::parse(half.as_bytes()).is_err(), "half a surrogate pair, however deep");
        let twice = applied().to_string().replacen('{', "{\"outcome\":\"failed\",", 1);
        assert!(Outcome::parse(twice.as_bytes()).is_err(), "a member twice");
        assert_eq!(
            Outcome::parse(&vec![b' '; MAX_BYTES + 1]).unwrap_err(),
            NotAnOutcome::TooLarge(MAX_BYTES + 1)
        );
    }

    #[test]
    fn only_a_report_that_says_something_else_supersedes() {
        let with = |member: &str, value: Value| {
            let mut one = applied();
            one[member] = value;
            parse(&one).unwrap()
        };
        let plain = parse(&applied()).unwrap();
        let instance = with("instance", json!({ "instance_id": "I", "update_time": "1" }));
        assert!(plain.repeats(&plain) && instance.repeats(&instance));
        assert!(plain.repeats(&instance), "what it does not bring stays");
        for (other, last) in [
            (with("outcome", json!("failed")), &plain),
            (with("status", json!("PROCESSED")), &plain),
            (with("message", json!("m")), &plain),
            (instance.clone(), &plain),
            (with("instance", json!({ "instance_id": "I", "update_time": "2" })), &instance),
        ] {
            assert!(!other.repeats(last), "{other:?}");
        }
    }

    #[test]
    fn a_card_shows_what_was_decided_only_if_it_was_applied() {
        let of = |kind, action| CardStatus::of(kind, action).as_str();
        assert_eq!(of(Kind::Applied, Action::Approve), "APPROVED");
        assert_eq!(of(Kind::Applied, Action::Reject), "REJECTED");
        assert_eq!(of(Kind::Applied, Action::Custom), "PROCESSED");
        for kind in [Kind::Refused, Kind::Failed] {
            for action in [Action::Approve, Action::Reject, Action::Custom] {
                assert_eq!(of(kind, action), "CUSTOM");
            }
        }
        for &status in CardStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }
}
