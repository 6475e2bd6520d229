//! Third-party instances (platform.md#third-party-instances): synchronises them to the approval center and checks that
//! they are there.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use serde_with::skip_serializing_none;

use super::{
    api::Api,
    call::Center,
    error::Error,
    lenient::{self, I18n, Millis, reveal},
    transport::Call,
    words::{InstanceStatus, TaskStatus},
};
use crate::secret::Secret;

/// An instance to synchronise (platform.md#third-party-instances). Absent times mean "not yet".
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct ExternalInstance {
    /// The definition's real code.
    pub approval_code: String,
    /// The status.
    pub status: InstanceStatus,
    /// JSON text.
    pub extra: Option<String>,
    /// Our id.
    #[serde(deserialize_with = "lenient::text")]
    pub instance_id: String,
    /// Links to the instance.
    pub links: Links,
    /// Key of the title.
    pub title: Option<String>,
    /// Rows for lists; three are shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub form: Vec<FormRow>,
    /// The initiator.
    #[serde(deserialize_with = "lenient::maybe")]
    pub user_id: Option<String>,
    /// Key of the name of an initiator who is not a user.
    pub user_name: Option<String>,
    /// The initiator.
    #[serde(deserialize_with = "lenient::maybe")]
    pub open_id: Option<String>,
    /// `""` shows the company's name.
    pub department_id: Option<String>,
    /// Key of the department's name.
    pub department_name: Option<String>,
    /// Start time.
    pub start_time: Millis,
    /// End time.
    pub end_time: Millis,
    /// The version. With `UPDATE`, the platform silently ignores a version that is not larger than the last
    /// (platform.md#versions-and-update-modes).
    pub update_time: Millis,
    /// `BROWSER`, `SIDEBAR`, `NORMAL` or `TRUSTEESHIP`
    pub display_method: Option<String>,
    /// `UPDATE`, or `REPLACE`, which is the platform's default, compares no versions and deletes missing items.
    pub update_mode: Option<String>,
    /// At most 300 (200 at Lark).
    pub task_list: Vec<ExternalTask>,
    /// At most 200.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cc_list: Vec<Carbon>,
    /// The texts.
    pub i18n_resources: Vec<I18n>,
    /// For trusteeship, which has a different callback (platform.md#trusteeship).
    #[serde(deserialize_with = "lenient::secret", serialize_with = "lenient::redacted")]
    pub trusteeship_url_token: Option<Secret>,
    /// For trusteeship: `user_id`.
    pub trusteeship_user_id_type: Option<String>,
    /// For trusteeship.
    pub trusteeship_urls: Option<Value>,
    /// For trusteeship.
    pub trusteeship_cache_config: Option<Value>,
    /// Members unknown to this version. Not sent: the platform would ignore them.
    #[serde(flatten, skip_serializing)]
    pub unknown: Map<String, Value>,
}

/// Links to an object; at least one is required.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Links {
    /// On PC.
    #[serde(deserialize_with = "lenient::maybe")]
    pub pc_link: Option<String>,
    /// On mobile.
    #[serde(deserialize_with = "lenient::maybe")]
    pub mobile_link: Option<String>,
}

/// A row of the form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct FormRow {
    /// Key of the name.
    pub name: String,
    /// Key of the value.
    pub value: String,
}

/// A task of an instance.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct ExternalTask {
    /// Our id; no other task, carbon copy or instance may have it (platform.md#unique-ids).
    #[serde(deserialize_with = "lenient::text")]
    pub task_id: String,
    /// The approver.
    #[serde(deserialize_with = "lenient::maybe")]
    pub user_id: Option<String>,
    /// The approver.
    #[serde(deserialize_with = "lenient::maybe")]
    pub open_id: Option<String>,
    /// Key of the title.
    pub title: Option<String>,
    /// Links to the task.
    pub links: Links,
    /// The status.
    pub status: TaskStatus,
    /// JSON text, such as `{"complete_reason":"approved"}`.
    pub extra: Option<String>,
    /// Creation time.
    pub create_time: Millis,
    /// End time.
    pub end_time: Millis,
    /// The version. Documented as optional, but required (platform.md#third-party-instances).
    pub update_time: Millis,
    /// The context that the callback returns.
    #[serde(deserialize_with = "lenient::maybe")]
    pub action_context: Option<String>,
    /// Quick approval buttons, at most two.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub action_configs: Vec<ActionConfig>,
    /// `BROWSER`, `SIDEBAR`, `NORMAL` or `TRUSTEESHIP`
    pub display_method: Option<String>,
    /// Excluded from statistics.
    pub exclude_statistics: Option<bool>,
    /// Node id, the same in every instance of the definition.
    #[serde(deserialize_with = "lenient::maybe")]
    pub node_id: Option<String>,
    /// Key of the node's name.
    pub node_name: Option<String>,
    /// `EXTERNAL_CONSIGN` or `DEFAULT`
    #[serde(deserialize_with = "lenient::maybe")]
    pub generate_type: Option<String>,
    /// See [`ExternalInstance::unknown`].
    #[serde(flatten, skip_serializing)]
    pub unknown: Map<String, Value>,
}

/// A quick approval button.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct ActionConfig {
    /// `APPROVE`, `REJECT` or a custom word.
    pub action_type: String,
    /// Key of the label; required for a custom word.
    pub action_name: Option<String>,
    /// Asks for a comment.
    pub is_need_reason: Option<bool>,
    /// Requires a comment.
    pub is_reason_required: Option<bool>,
    /// Allows attachments.
    pub is_need_attachment: Option<bool>,
    /// See [`ExternalInstance::unknown`].
    #[serde(flatten, skip_serializing)]
    pub unknown: Map<String, Value>,
}

/// A carbon copy (抄送).
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Carbon {
    /// Our id; must be unique (platform.md#unique-ids).
    #[serde(deserialize_with = "lenient::text")]
    pub cc_id: String,
    /// The recipient.
    #[serde(deserialize_with = "lenient::maybe")]
    pub user_id: Option<String>,
    /// The recipient.
    #[serde(deserialize_with = "lenient::maybe")]
    pub open_id: Option<String>,
    /// Links to the copy.
    pub links: Links,
    /// `READ` or `UNREAD`; empty if unknown.
    pub read_status: String,
    /// JSON text.
    pub extra: Option<String>,
    /// The title.
    pub title: Option<String>,
    /// Creation time.
    pub create_time: Millis,
    /// The version.
    pub update_time: Millis,
    /// `BROWSER`, `SIDEBAR`, `NORMAL` or `TRUSTEESHIP`
    pub display_method: Option<String>,
    /// See [`ExternalInstance::unknown`].
    #[serde(flatten, skip_serializing)]
    pub unknown: Map<String, Value>,
}

/// The platform's response to a synchronisation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Synced {
    /// The instance as the platform understood it.
    pub data: ExternalInstance,
    /// The changes, if the platform reports them: undocumented, only in its newer SDKs
    /// (platform.md#sync-answers-and-errors).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_record: Option<ProcessRecord>,
}

/// The changes of a synchronisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct ProcessRecord {
    /// Instances.
    pub instance: ProcessCount,
    /// Tasks.
    pub task: ProcessCount,
    /// Carbon copies.
    pub cc: ProcessCount,
}

/// Numbers of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct ProcessCount {
    /// Created.
    pub insert_num: u64,
    /// Updated.
    pub update_num: u64,
    /// Deleted.
    pub delete_num: u64,
}

impl ProcessRecord {
    /// True if nothing changed, because no version was larger than the last.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The versions of an instance and its tasks. A check sends them, and the platform returns those that differ
/// (platform.md#checking-instances).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct InstanceVersion {
    /// Our id.
    #[serde(deserialize_with = "lenient::text")]
    pub instance_id: String,
    /// The version; the platform returns 0 for an unknown instance.
    pub update_time: Millis,
    /// The tasks; required even if empty.
    pub tasks: Vec<TaskVersion>,
}

/// The version of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct TaskVersion {
    /// Our id.
    #[serde(deserialize_with = "lenient::text")]
    pub task_id: String,
    /// The version; the platform returns 0 for an unknown task.
    pub update_time: Millis,
}

impl ExternalInstance {
    /// The versions that the platform should have.
    #[must_use]
    pub fn version(&self) -> InstanceVersion {
        InstanceVersion {
            instance_id: self.instance_id.clone(),
            update_time: self.update_time,
            tasks: self
                .task_list
                .iter()
                .map(|task| TaskVersion { task_id: task.task_id.clone(), update_time: task.update_time })
                .collect(),
        }
    }

    /// True if the call is idempotent: versions are compared, so an old one overwrites nothing.
    fn is_repeatable(&self) -> bool {
        self.update_mode.as_deref() == Some("UPDATE")
    }

    fn body(&self) -> Value {
        let mut body = serde_json::to_value(self).expect("texts, numbers and truth values are JSON");
        reveal(&mut body, "/trusteeship_url_token", self.trusteeship_url_token.as_ref());
        body
    }
}

#[derive(Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Diff {
    diff_instances: Vec<InstanceVersion>,
}

impl Center {
    /// Synchronises an instance, without notifications (platform.md#versions-and-update-modes). An old version is
    /// ignored but reports success; only [`Synced::process_record`] shows it.
    ///
    /// # Errors
    /// The platform refuses the instance, one layer at a time. [`ExternalInstance::faults`] reports all at once.
    pub async fn sync_instance(&self, instance: &ExternalInstance) -> Result<Synced, Error> {
        let mut call = Call::new(Api::SyncInstance).body(instance.body());
        call.repeatable = instance.is_repeatable();
        self.call(call).await
    }

    /// Returns the instances whose versions differ on the platform, with its versions. Empty if all match.
    ///
    /// # Errors
    /// The platform refuses the call. The maximum per call is undocumented; 20 works.
    pub async fn check_instances(&self, versions: &[InstanceVersion]) -> Result<Vec<InstanceVersion>, Error> {
        let call = Call::new(Api::CheckInstances).body(json!({ "instances": versions }));
        self.call(call).await.map(|diff: Diff| diff.diff_instances)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The platform's example (platform.md#third-party-instances). Among others, it has a number as `end_time`.
    fn example() -> Value {
        json!({
            "approval_code": "84C18825-A3D2-41D0-891F-E7A2424C5D48", "instance_id": "3162634", "status": "PENDING",
            "extra": "", "links": { "pc_link": "http://e.example/pc", "mobile_link": "http://e.example/m" },
            "title": "@i18n@1", "form": [{ "name": "@i18n@2", "value": "@i18n@3" }],
            "user_id": "16fb9ff3", "user_name": "张三", "open_id": "123", "department_id": "",
            "department_name": "hr", "start_time": "1657093395000", "update_time": "1657093395000",
            "end_time": 0, "update_mode": "REPLACE",
            "task_list": [{
                "task_id": "112253", "user_id": "16fb9ff3",
                "links": { "pc_link": "http://", "mobile_link": "http://" }, "status": "PENDING", "extra": "",
                "title": "同意", "create_time": "1638468921000", "end_time": 0, "update_time": "1638468921000",
                "action_context": "123456",
                "action_configs": [{ "action_type": "APPROVE", "action_name": "@i18n@1", "is_need_reason": true,
                    "is_reason_required": true, "is_need_attachment": true }]
            }],
            "cc_list": [{
                "cc_id": "1231243", "user_id": "16fb9ff3", "open_id": "",
                "links": { "pc_link": "http://", "mobile_link": "http://" }, "read_status": "READ", "extra": "",
                "title": "XXX", "create_time": "1657093395000", "update_time": "1657093395000"
            }],
            "i18n_resources": [{ "locale": "zh-CN", "is_default": true, "texts": [
                { "key": "@i18n@1", "value": "测试" }, { "key": "@i18n@2", "value": "天" },
                { "key": "@i18n@3", "value": "2022-07-06" }] }]
        })
    }

    #[test]
    fn the_example_is_read_field_by_field_and_sent_in_the_documented_types() {
        let instance: ExternalInstance = serde_json::from_value(example()).unwrap();
        assert!(instance.unknown.is_empty() && instance.task_list[0].unknown.is_empty());
        assert_eq!(instance.task_list[0].action_configs[0].is_reason_required, Some(true));
        assert_eq!(instance.end_time, Millis::NEVER);
        let mut expected = example();
        // The documented type is a string, although the example has a number. An empty open_id is absent.
        expected["end_time"] = json!("0");
        expected["task_list"][0]["end_time"] = json!("0");
        expected["cc_list"][0].as_object_mut().unwrap().remove("open_id");
        assert_eq!(instance.body(), expected);
    }

    #[test]
    fn what_is_not_known_is_seen_and_not_sent() {
        let mut text = example();
        text["task_list"][0]["assignees"] = json!(["zhang3"]);
        let instance: ExternalInstance = serde_json::from_value(text).unwrap();
        assert_eq!(instance.task_list[0].unknown.keys().collect::<Vec<_>>(), ["assignees"]);
        assert!(!instance.body().to_string().contains("assignees"));
    }

    #[test]
    fn only_an_update_is_repeated() {
        let mode = |mode: Option<&str>| {
            ExternalInstance { update_mode: mode.map(str::to_owned), ..ExternalInstance::default() }
                .is_repeatable()
        };
        assert!(mode(Some("UPDATE")) && !mode(Some("REPLACE")) && !mode(None));
    }

    #[test]
    fn an_answer_is_read_with_and_without_what_was_changed() {
        let answer = json!({ "data": example(), "process_record": { "task": { "update_num": 1 } } });
        let synced: Synced = serde_json::from_value(answer).unwrap();
        assert_eq!(synced.data.instance_id, "3162634");
        assert!(!synced.process_record.unwrap().is_empty());
        let synced: Synced = serde_json::from_value(json!({ "data": example() })).unwrap();
        assert_eq!(synced.process_record, None);
    }
}
