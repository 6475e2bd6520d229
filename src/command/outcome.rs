//! What a worker reports of a command, as `approval.outcome/1`: how the message is read, which card status it stands for,
//! and when two reports say the same.
//!
//! # Rules
//! 1. A report that says what the last one of its command said is a **repeat**: nothing changes by it. RabbitMQ delivers at
//!    least once, and so do workers.
//! 2. Any other report **supersedes** the last one, whatever the two say: `failed` becomes `applied` when the worker
//!    succeeds at last. The last word is the worker's; countersign does not judge it.
//! 3. What a report does not bring stays: one without an `instance` leaves the instance of the one before to be shown.
//!
//! After a crash messages come again in their order, so what was superseded may be the last word for a moment, until the
//! message that superseded it comes again as well.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::{Action, CommandId, is_unset};

/// The member `schema` of every report.
pub const SCHEMA: &str = "approval.outcome/1";

/// A larger message is no report. An instance with the 300 tasks that the platform takes is about a third of it.
pub const MAX_BYTES: usize = 1 << 20;

/// Characters of a message that are kept; what is beyond, mostly the depths of a stack trace, is cut off.
pub const MAX_MESSAGE_CHARS: usize = 2000;

/// A report of a worker.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command.
    pub command_id: CommandId,
    /// What became of it.
    pub kind: Kind,
    /// What the card is to show, if the worker says so.
    pub status: Option<CardStatus>,
    /// The worker's words, up to [`MAX_MESSAGE_CHARS`].
    pub message: Option<String>,
    /// The instance as it is now.
    pub instance: Option<Instance>,
}

/// An instance that a worker wants synchronised.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its id.
    pub instance_id: String,
    /// A JSON object as `POST external_instances` takes it, byte for byte as it came.
    pub json: Box<RawValue>,
}

/// What became of a command.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, VariantArray, EnumString,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The third party did what the approver decided.
    Applied,
    /// The third party will not do it: the task is gone, somebody else was faster.
    Refused,
    /// The third party could not do it. The worker may still succeed, and says so then.
    Failed,
}

impl Kind {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word in the message, the ledger, metrics and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What a card can be made to show (platform.md#updating-a-card), in the platform's spelling: here `CANCELLED` has
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
    /// Words of one's own.
    Custom,
}

impl CardStatus {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The platform's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// What the card shows if the worker does not say.
    ///
    /// What was applied is what the approver decided. What was not must not look as if it was: by its `next_status` the card
    /// may say so already, so it gets words of its own.
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

/// Why a message is no report. The texts quote nothing of it but member names and our own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnOutcome {
    /// It is larger than [`MAX_BYTES`].
    #[error("has {0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
    /// It is not JSON, or not of these members with these types.
    #[error("is not an {SCHEMA}: {0}")]
    Shape(String),
    /// It is of another schema, or of a later version of this one.
    #[error("its schema is not {SCHEMA}")]
    Schema,
    /// Its `command_id` is not a UUID.
    #[error("its command_id is not a UUID")]
    CommandId,
    /// Its `instance` has no id.
    #[error("its instance has no instance_id")]
    InstanceId,
}

/// As it comes. Members that are not known may come at any time.
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

/// A value, unless it is one that a client library writes where nothing was set.
fn set<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let value = Box::<RawValue>::deserialize(deserializer)?;
    if is_unset(&value) {
        return Ok(None);
    }
    serde_json::from_str(value.get()).map(Some).map_err(serde::de::Error::custom)
}

/// An id is a text, or a number where somebody's library made one of it.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct WireInstance {
    instance_id: Option<serde_json::Value>,
}

impl Outcome {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is no report. Whether its command is known, and whether the platform would take its instance, is another
    /// question.
    pub fn parse(body: &[u8]) -> Result<Self, NotAnOutcome> {
        if body.len() > MAX_BYTES {
            return Err(NotAnOutcome::TooLarge(body.len()));
        }
        if body.trim_ascii_start().first() == Some(&b'[') {
            // serde would take the members by their place.
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

    /// True if nothing changes by this report, after `last` of the same command (rules 1 and 3).
    #[must_use]
    pub fn repeats(&self, last: &Self) -> bool {
        let instance =
            |outcome: &Self| outcome.instance.as_ref().map(|instance| instance.json.get().to_owned());
        (self.kind, self.status, &self.message) == (last.kind, last.status, &last.message)
            && (self.instance.is_none() || instance(self) == instance(last))
    }
}

impl Instance {
    /// An instance with its id.
    ///
    /// # Errors
    /// It is no JSON object, or has no `instance_id`.
    pub fn of(json: Box<RawValue>) -> Result<Self, NotAnOutcome> {
        if json.get().starts_with('[') {
            return Err(NotAnOutcome::Shape("a list in place of an instance".to_owned()));
        }
        let read: WireInstance = serde_json::from_str(json.get()).map_err(|error| shape(&error))?;
        // Half a surrogate pair in a member that was passed over so far: the platform's client could not read it later.
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

/// True for an object of which nothing is set: what a client library writes of an instance that nobody made.
fn is_blank(json: &RawValue) -> bool {
    let members = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(json.get());
    members.is_ok_and(|members| members.values().all(|value| is_unset(value)))
}

/// serde quotes unknown words and wrong values: what came is the worker's, and may be anything. Its place tells enough.
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

    /// Client libraries fill in what nobody set; none of it is worth losing a report for.
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
