//! One instance in full (platform.md#instance-details): v4, and the historic v2 (platform.md#instance-details), which
//! differ in the spelling of times.

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_with::skip_serializing_none;

use super::{
    api::Api,
    call::Center,
    error::Error,
    lenient::{self, Millis},
    transport::Call,
    widget::{self, Widget},
    words::{InstanceStatus, MomentType, TaskStatus, UserIdType},
};

/// What may be said when an instance is asked for.
#[derive(Debug, Clone, Default)]
pub struct InstanceOptions {
    /// `zh-CN`, `en-US` or `ja-JP`
    pub locale: Option<String>,
    /// Who started it, where the platform requires that.
    pub user_id: Option<String>,
    /// Who started it; of the historic API only.
    pub open_id: Option<String>,
    /// Which kind of ids to answer with; of v4 only.
    pub user_id_type: Option<UserIdType>,
}

/// An instance.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Instance {
    /// The definition's code.
    pub approval_code: String,
    /// The definition's name.
    pub approval_name: String,
    /// When it was started.
    pub start_time: Millis,
    /// When it ended.
    pub end_time: Millis,
    /// Who started it.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// Who started it.
    pub open_id: String,
    /// Its number for people.
    #[serde(deserialize_with = "lenient::text")]
    pub serial_number: String,
    /// The department of who started it.
    pub department_id: String,
    /// Its status.
    pub status: InstanceStatus,
    /// What it was created with, by which it is found too.
    #[serde(deserialize_with = "lenient::text")]
    pub uuid: String,
    /// The form, as JSON in a text; [`Instance::widgets`] reads it.
    pub form: String,
    /// Its tasks.
    pub task_list: Vec<InstanceTask>,
    /// Its comments.
    pub comment_list: Vec<Comment>,
    /// What happened, in order.
    pub timeline: Vec<Moment>,
    /// The instance that this one changes.
    #[serde(deserialize_with = "lenient::maybe")]
    pub modified_instance_code: Option<String>,
    /// The instance that this one revokes.
    #[serde(deserialize_with = "lenient::maybe")]
    pub reverted_instance_code: Option<String>,
    /// True if it was revoked. Of v4 only.
    pub reverted: Option<bool>,
    /// Its own code. Of v4 only.
    #[serde(deserialize_with = "lenient::maybe")]
    pub instance_code: Option<String>,
}

impl Instance {
    /// The form's widgets.
    ///
    /// # Errors
    /// The text is not a JSON list of objects. That of the platform's own example is not.
    pub fn widgets(&self) -> Result<Vec<Widget>, serde_json::Error> {
        widget::parse(&self.form)
    }
}

/// A task of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct InstanceTask {
    /// The platform's id.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// Who decides; empty for one that passes or fails by itself.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// Who decides.
    pub open_id: String,
    /// Its status.
    pub status: TaskStatus,
    /// The id of its node.
    pub node_id: String,
    /// The name of its node.
    pub node_name: String,
    /// One's own id of its node.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::maybe")]
    pub custom_node_id: Option<String>,
    /// `AND`, `OR`, `AUTO_PASS`, `AUTO_REJECT` or `SEQUENTIAL`
    #[serde(rename = "type")]
    pub kind: String,
    /// When it began.
    pub start_time: Millis,
    /// When it ended.
    pub end_time: Millis,
}

/// A comment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Comment {
    /// The platform's id.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// Whose it is.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// Whose it is.
    pub open_id: String,
    /// The words.
    pub comment: String,
    /// When it was written.
    pub create_time: Millis,
    /// Of v4 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
}

/// A file of a comment or a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct File {
    /// Where it is, for 12 hours.
    #[serde(deserialize_with = "unescaped")]
    pub url: String,
    /// In bytes.
    pub file_size: u64,
    /// Its name.
    pub title: String,
    /// `image` or `attachment`
    #[serde(rename = "type")]
    pub kind: String,
}

/// The platform escapes `&` once too often in some URLs (platform.md#instance-details).
fn unescaped<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    lenient::text(deserializer).map(|text| text.replace("\\u0026", "&"))
}

/// Something that happened.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Moment {
    /// What.
    #[serde(rename = "type")]
    pub kind: MomentType,
    /// When.
    pub create_time: Millis,
    /// By whom.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// By whom.
    pub open_id: String,
    /// Who got a copy.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::texts")]
    pub user_id_list: Vec<String>,
    /// Who got a copy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub open_id_list: Vec<String>,
    /// At which task.
    #[serde(deserialize_with = "lenient::maybe")]
    pub task_id: Option<String>,
    /// The reason.
    #[serde(deserialize_with = "lenient::maybe")]
    pub comment: Option<String>,
    /// Who got a copy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cc_user_list: Vec<CarbonUser>,
    /// More, as JSON in a text; [`Moment::ext`] reads it.
    #[serde(deserialize_with = "lenient::text")]
    pub ext: String,
    /// The key of the node.
    #[serde(deserialize_with = "lenient::maybe")]
    pub node_key: Option<String>,
    /// Of v4 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
}

/// Who got a copy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct CarbonUser {
    /// Who.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// The copy's id.
    #[serde(deserialize_with = "lenient::text")]
    pub cc_id: String,
    /// Who.
    pub open_id: String,
}

/// What [`Moment::ext`] says. What a list means depends on the type: those to whom it was transferred, or who were added or
/// removed; of a `CC` the single id counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct MomentExt {
    /// As `user_id`.
    #[serde(deserialize_with = "lenient::texts")]
    pub user_id_list: Vec<String>,
    /// As `user_id`.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// As `open_id`.
    pub open_id_list: Vec<String>,
    /// As `open_id`.
    pub open_id: String,
}

impl Moment {
    /// The member `ext`, read; `None` if there is none or it is not an object.
    #[must_use]
    pub fn ext(&self) -> Option<MomentExt> {
        let mut value = serde_json::from_str(&self.ext).ok()?;
        lenient::prune(&mut value);
        serde_json::from_value(value).ok()
    }
}

impl Center {
    /// The instance with this code, or with this uuid (v4). For native instances; those of third parties are looked for
    /// by [`Center::instance_pages`].
    ///
    /// # Errors
    /// [`super::Fault::InstanceUnknown`] if there is none.
    pub async fn instance(&self, code: &str, options: &InstanceOptions) -> Result<Instance, Error> {
        let call = Call::new(Api::GetInstance)
            .segment(code)
            .query("locale", options.locale.as_deref())
            .query("user_id", options.user_id.as_deref())
            .query("user_id_type", options.user_id_type.as_ref());
        self.call(call).await
    }

    /// The same by the historic API (v2).
    ///
    /// # Errors
    /// As [`Center::instance`].
    pub async fn historic_instance(&self, code: &str, options: &InstanceOptions) -> Result<Instance, Error> {
        let mut body = json!({
            "instance_code": code, "locale": options.locale, "user_id": options.user_id, "open_id": options.open_id,
        });
        lenient::prune(&mut body);
        self.call(Call::new(Api::GetInstanceHistoric).body(body)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// The example of the platform's page (platform.md#instance-details), with times as numbers and the broken form
    /// that stands there.
    fn example() -> Value {
        json!({
            "approval_code": "7C468A54", "approval_name": "Payment", "start_time": 1564590532967_i64, "end_time": 0,
            "user_id": "f3ta757q", "open_id": "ou_123456", "serial_number": "202102060002",
            "department_id": "od-8ec3", "status": "PENDING", "uuid": "xxxxx",
            "form": "[{\"id\": \"widget1\",\"custom_id\": \"user_info\",\"name\": \"Item application\",\"type\": \"textarea\"},\"value\":\"aaaa\"]",
            "task_list": [{ "id": "1234", "node_id": "46e6d96c", "node_name": "开始", "custom_node_id": "manager",
                "user_id": "f7cb567e", "open_id": "ou_123457", "type": "AND", "status": "PENDING",
                "start_time": 1564590532967_i64, "end_time": 0 }],
            "comment_list": [{ "id": "1234", "user_id": "f7cb567e", "open_id": "ou_123456", "comment": "ok",
                "create_time": 1564590532967_i64 }],
            "timeline": [
                { "type": "START", "user_id": "f8ca557e", "open_id": "ou_123456", "create_time": 1564590532967_i64,
                  "comment": "ok", "task_id": "1234", "cc_user_list": [],
                  "ext": "{\"user_id_list\":[\"f7cb567e\"],\"open_id_list\":[\"ou_123456\"]}" },
                { "type": "CC", "user_id_list": ["eea5gefe"], "open_id_list": ["ou_12345"],
                  "create_time": 1571913568556_i64, "comment": "ccc",
                  "ext": "{\"user_id\":\"62d4a44c\",\"open_id\":\"ou_123456\"}" },
                { "comment": "防守打法", "create_time": 1636616275751_i64, "node_key": "APPROVAL_240330_4058663",
                  "open_id": "ou_456", "task_id": "789", "type": "PASS", "user_id": "f6bac64a" }
            ]
        })
    }

    /// The same with times as texts, as v4 spells them.
    fn times_as_texts(value: &mut Value) {
        match value {
            Value::Object(members) => members.iter_mut().for_each(|(key, value)| {
                if key.ends_with("_time") {
                    *value = value.as_i64().unwrap_or_default().to_string().into();
                } else {
                    times_as_texts(value);
                }
            }),
            Value::Array(list) => list.iter_mut().for_each(times_as_texts),
            _ => {}
        }
    }

    #[test]
    fn the_example_is_read_field_by_field() {
        let read: Instance = serde_json::from_value(example()).unwrap();
        assert_eq!((read.approval_code.as_str(), read.approval_name.as_str()), ("7C468A54", "Payment"));
        assert_eq!((read.start_time, read.end_time), (Millis(1_564_590_532_967), Millis::NEVER));
        assert_eq!((read.user_id.as_str(), read.open_id.as_str()), ("f3ta757q", "ou_123456"));
        assert_eq!((read.serial_number.as_str(), read.uuid.as_str()), ("202102060002", "xxxxx"));
        assert_eq!((read.department_id.as_str(), &read.status), ("od-8ec3", &InstanceStatus::Pending));
        let task = &read.task_list[0];
        assert_eq!((task.node_name.as_str(), task.kind.as_str()), ("开始", "AND"));
        assert_eq!((task.custom_node_id.as_deref(), &task.status), (Some("manager"), &TaskStatus::Pending));
        assert_eq!(read.comment_list[0].comment, "ok");
        let [start, copy, pass] = read.timeline.as_slice() else { panic!("{:?}", read.timeline) };
        assert_eq!(
            (&start.kind, start.ext().unwrap().user_id_list),
            (&MomentType::Start, vec!["f7cb567e".to_owned()])
        );
        assert_eq!((&copy.kind, copy.ext().unwrap().user_id.as_str()), (&MomentType::Cc, "62d4a44c"));
        assert_eq!(copy.open_id_list, ["ou_12345"]);
        assert_eq!((&pass.kind, pass.ext()), (&MomentType::Pass, None));
        assert_eq!(pass.node_key.as_deref(), Some("APPROVAL_240330_4058663"));
        assert!(
            read.widgets().is_err(),
            "the example's own form is broken, and is not an error of the whole"
        );
    }

    #[test]
    fn both_spellings_of_times_are_the_same_instance() {
        let mut v4 = example();
        times_as_texts(&mut v4);
        let read = |value| serde_json::from_value::<Instance>(value).unwrap();
        assert_eq!(read(v4), read(example()));
    }

    #[test]
    fn an_ampersand_that_was_escaped_twice_is_one() {
        let file: File = serde_json::from_value(
            json!({ "url": "https://e.example/f?a=1\\u0026b=2", "file_size": 3, "type": "image" }),
        )
        .unwrap();
        assert_eq!(file.url, "https://e.example/f?a=1&b=2");
    }
}
