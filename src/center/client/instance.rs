//! One instance in full (platform.md#instance-details): v4 and the historic v2, which differ in the format of times.

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

/// Options for reading an instance.
#[derive(Debug, Clone, Default)]
pub struct InstanceOptions {
    /// `zh-CN`, `en-US` or `ja-JP`
    pub locale: Option<String>,
    /// The initiator, where the platform requires it.
    pub user_id: Option<String>,
    /// The initiator; historic API only.
    pub open_id: Option<String>,
    /// Kind of ids in the response; v4 only.
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
    /// Start time.
    pub start_time: Millis,
    /// End time.
    pub end_time: Millis,
    /// The initiator.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// The initiator.
    pub open_id: String,
    /// The number shown to people.
    #[serde(deserialize_with = "lenient::text")]
    pub serial_number: String,
    /// The initiator's department.
    pub department_id: String,
    /// The status.
    pub status: InstanceStatus,
    /// The uuid given on creation; it identifies the instance too.
    #[serde(deserialize_with = "lenient::text")]
    pub uuid: String,
    /// The form as JSON text; [`Instance::widgets`] parses it.
    pub form: String,
    /// The tasks.
    pub task_list: Vec<InstanceTask>,
    /// The comments.
    pub comment_list: Vec<Comment>,
    /// The events, in order.
    pub timeline: Vec<Moment>,
    /// The instance that this one changes.
    #[serde(deserialize_with = "lenient::maybe")]
    pub modified_instance_code: Option<String>,
    /// The instance that this one revokes.
    #[serde(deserialize_with = "lenient::maybe")]
    pub reverted_instance_code: Option<String>,
    /// True if it was revoked; v4 only.
    pub reverted: Option<bool>,
    /// The instance's own code; v4 only.
    #[serde(deserialize_with = "lenient::maybe")]
    pub instance_code: Option<String>,
}

impl Instance {
    /// Parses the form's widgets.
    ///
    /// # Errors
    /// The text is not a JSON list of objects. The platform's own example is not.
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
    /// The approver; empty if the task passes or fails automatically.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// The approver.
    pub open_id: String,
    /// The status.
    pub status: TaskStatus,
    /// Node id.
    pub node_id: String,
    /// Node name.
    pub node_name: String,
    /// Custom node id.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::maybe")]
    pub custom_node_id: Option<String>,
    /// `AND`, `OR`, `AUTO_PASS`, `AUTO_REJECT` or `SEQUENTIAL`
    #[serde(rename = "type")]
    pub kind: String,
    /// Start time.
    pub start_time: Millis,
    /// End time.
    pub end_time: Millis,
}

/// A comment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Comment {
    /// The platform's id.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// The author.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// The author.
    pub open_id: String,
    /// The text.
    pub comment: String,
    /// Creation time.
    pub create_time: Millis,
    /// Attachments; v4 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
}

/// A file of a comment or an event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct File {
    /// URL, valid for 12 hours.
    #[serde(deserialize_with = "unescaped")]
    pub url: String,
    /// Size in bytes.
    pub file_size: u64,
    /// The name.
    pub title: String,
    /// `image` or `attachment`
    #[serde(rename = "type")]
    pub kind: String,
}

/// The platform escapes `&` once too often in some URLs (platform.md#instance-details).
fn unescaped<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    lenient::text(deserializer).map(|text| text.replace("\\u0026", "&"))
}

/// An event.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Moment {
    /// The type.
    #[serde(rename = "type")]
    pub kind: MomentType,
    /// The time.
    pub create_time: Millis,
    /// The user who caused it.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// The user who caused it.
    pub open_id: String,
    /// Recipients of a copy.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::texts")]
    pub user_id_list: Vec<String>,
    /// Recipients of a copy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub open_id_list: Vec<String>,
    /// The task.
    #[serde(deserialize_with = "lenient::maybe")]
    pub task_id: Option<String>,
    /// The reason.
    #[serde(deserialize_with = "lenient::maybe")]
    pub comment: Option<String>,
    /// Recipients of a copy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cc_user_list: Vec<CarbonUser>,
    /// Details as JSON text; [`Moment::ext`] parses it.
    #[serde(deserialize_with = "lenient::text")]
    pub ext: String,
    /// Node key.
    #[serde(deserialize_with = "lenient::maybe")]
    pub node_key: Option<String>,
    /// Attachments; v4 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
}

/// A recipient of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct CarbonUser {
    /// The recipient.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// The copy's id.
    #[serde(deserialize_with = "lenient::text")]
    pub cc_id: String,
    /// The recipient.
    pub open_id: String,
}

/// The content of [`Moment::ext`]. A list has the users who got a transferred task, or who were added or removed,
/// depending on the type. For a `CC` the single id counts.
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
    /// Parses the member `ext`; `None` if it is absent or not an object.
    #[must_use]
    pub fn ext(&self) -> Option<MomentExt> {
        let mut value = serde_json::from_str(&self.ext).ok()?;
        lenient::prune(&mut value);
        serde_json::from_value(value).ok()
    }
}

impl Center {
    /// Reads the instance with this code or uuid (v4). For native instances; use [`Center::instance_pages`] to find
    /// third-party ones.
    ///
    /// # Errors
    /// [`super::Fault::InstanceUnknown`] if it does not exist.
    pub async fn instance(&self, code: &str, options: &InstanceOptions) -> Result<Instance, Error> {
        let call = Call::new(Api::GetInstance)
            .segment(code)
            .query("locale", options.locale.as_deref())
            .query("user_id", options.user_id.as_deref())
            .query("user_id_type", options.user_id_type.as_ref());
        self.call(call).await
    }

    /// Like [`Center::instance`], with the historic API (v2).
    ///
    /// # Errors
    /// See [`Center::instance`].
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

    /// The platform's example (platform.md#instance-details), with times as numbers and its broken form.
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
