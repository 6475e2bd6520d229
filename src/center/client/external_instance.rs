//! Third-party instances (platform.md#third-party-instances): what is synchronised to the approval center, and
//! checking that it is there.

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

/// An instance as it is synchronised (platform.md#third-party-instances). Times that are not given are "not yet".
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct ExternalInstance {
    /// The definition's real code.
    pub approval_code: String,
    /// The instance's status.
    pub status: InstanceStatus,
    /// JSON in a text.
    pub extra: Option<String>,
    /// Ours.
    #[serde(deserialize_with = "lenient::text")]
    pub instance_id: String,
    /// Where it is looked at.
    pub links: Links,
    /// A key.
    pub title: Option<String>,
    /// Rows for lists, of which three are shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub form: Vec<FormRow>,
    /// Who started it.
    #[serde(deserialize_with = "lenient::maybe")]
    pub user_id: Option<String>,
    /// A key, for somebody who is no user.
    pub user_name: Option<String>,
    /// Who started it.
    #[serde(deserialize_with = "lenient::maybe")]
    pub open_id: Option<String>,
    /// `""` shows the company's name.
    pub department_id: Option<String>,
    /// A key.
    pub department_name: Option<String>,
    /// When it was started.
    pub start_time: Millis,
    /// When it ended.
    pub end_time: Millis,
    /// Its version: with `UPDATE`, one that is not larger than the last is ignored without a word
    /// (platform.md#versions-and-update-modes).
    pub update_time: Millis,
    /// `BROWSER`, `SIDEBAR`, `NORMAL` or `TRUSTEESHIP`
    pub display_method: Option<String>,
    /// `UPDATE`, or `REPLACE`, which is the platform's default, compares no versions and deletes what is missing.
    pub update_mode: Option<String>,
    /// At most 300 (200 at Lark).
    pub task_list: Vec<ExternalTask>,
    /// At most 200.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cc_list: Vec<Carbon>,
    /// The texts.
    pub i18n_resources: Vec<I18n>,
    /// For trusteeship, whose callback is another one (platform.md#trusteeship).
    #[serde(deserialize_with = "lenient::secret", serialize_with = "lenient::redacted")]
    pub trusteeship_url_token: Option<Secret>,
    /// For trusteeship: `user_id`.
    pub trusteeship_user_id_type: Option<String>,
    /// For trusteeship.
    pub trusteeship_urls: Option<Value>,
    /// For trusteeship.
    pub trusteeship_cache_config: Option<Value>,
    /// Members that this version does not know. The platform ignores what it does not know; not sent.
    #[serde(flatten, skip_serializing)]
    pub unknown: Map<String, Value>,
}

/// Where something is looked at; at least one.
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

/// A row of the form, both keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct FormRow {
    /// A key.
    pub name: String,
    /// A key.
    pub value: String,
}

/// A task of an instance.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct ExternalTask {
    /// Ours; no other task, carbon copy or instance may have it (platform.md#unique-ids).
    #[serde(deserialize_with = "lenient::text")]
    pub task_id: String,
    /// Who is to decide.
    #[serde(deserialize_with = "lenient::maybe")]
    pub user_id: Option<String>,
    /// Who is to decide.
    #[serde(deserialize_with = "lenient::maybe")]
    pub open_id: Option<String>,
    /// A key.
    pub title: Option<String>,
    /// Where it is looked at.
    pub links: Links,
    /// The task's status.
    pub status: TaskStatus,
    /// JSON in a text, such as `{"complete_reason":"approved"}`.
    pub extra: Option<String>,
    /// When it was made.
    pub create_time: Millis,
    /// When it ended.
    pub end_time: Millis,
    /// Its version. Documented as optional, refused without (platform.md#third-party-instances).
    pub update_time: Millis,
    /// What the callback carries back.
    #[serde(deserialize_with = "lenient::maybe")]
    pub action_context: Option<String>,
    /// The quick approval buttons: at most two, and none without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub action_configs: Vec<ActionConfig>,
    /// `BROWSER`, `SIDEBAR`, `NORMAL` or `TRUSTEESHIP`
    pub display_method: Option<String>,
    /// Not counted.
    pub exclude_statistics: Option<bool>,
    /// The same in every instance of the definition.
    #[serde(deserialize_with = "lenient::maybe")]
    pub node_id: Option<String>,
    /// A key.
    pub node_name: Option<String>,
    /// `EXTERNAL_CONSIGN` or `DEFAULT`
    #[serde(deserialize_with = "lenient::maybe")]
    pub generate_type: Option<String>,
    /// As in [`ExternalInstance::unknown`].
    #[serde(flatten, skip_serializing)]
    pub unknown: Map<String, Value>,
}

/// A quick approval button.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct ActionConfig {
    /// `APPROVE`, `REJECT` or a word of one's own.
    pub action_type: String,
    /// A key; required for a word of one's own.
    pub action_name: Option<String>,
    /// A comment is asked for.
    pub is_need_reason: Option<bool>,
    /// A comment must be given.
    pub is_reason_required: Option<bool>,
    /// Files may be added.
    pub is_need_attachment: Option<bool>,
    /// As in [`ExternalInstance::unknown`].
    #[serde(flatten, skip_serializing)]
    pub unknown: Map<String, Value>,
}

/// A carbon copy (抄送).
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Carbon {
    /// Ours; no other may have it (platform.md#unique-ids).
    #[serde(deserialize_with = "lenient::text")]
    pub cc_id: String,
    /// Who gets it.
    #[serde(deserialize_with = "lenient::maybe")]
    pub user_id: Option<String>,
    /// Who gets it.
    #[serde(deserialize_with = "lenient::maybe")]
    pub open_id: Option<String>,
    /// Where it is looked at.
    pub links: Links,
    /// `READ` or `UNREAD`; empty: not known.
    pub read_status: String,
    /// JSON in a text.
    pub extra: Option<String>,
    /// Its name.
    pub title: Option<String>,
    /// When it was sent.
    pub create_time: Millis,
    /// Its version.
    pub update_time: Millis,
    /// `BROWSER`, `SIDEBAR`, `NORMAL` or `TRUSTEESHIP`
    pub display_method: Option<String>,
    /// As in [`ExternalInstance::unknown`].
    #[serde(flatten, skip_serializing)]
    pub unknown: Map<String, Value>,
}

/// What the platform says to a synchronised instance.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Synced {
    /// The instance, as the platform has understood it.
    pub data: ExternalInstance,
    /// What was changed by it, if the platform says so: not on its page, only in its newer SDKs
    /// (platform.md#sync-answers-and-errors).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_record: Option<ProcessRecord>,
}

/// What a synchronisation has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct ProcessRecord {
    /// Of the instance.
    pub instance: ProcessCount,
    /// Of its tasks.
    pub task: ProcessCount,
    /// Of its carbon copies.
    pub cc: ProcessCount,
}

/// How many were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct ProcessCount {
    /// New ones.
    pub insert_num: u64,
    /// Changed ones.
    pub update_num: u64,
    /// Removed ones.
    pub delete_num: u64,
}

impl ProcessRecord {
    /// True if nothing was changed: every version was not larger than the last.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The versions of an instance and its tasks: sent to be checked, and told back where they differ
/// (platform.md#checking-instances).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct InstanceVersion {
    /// Ours.
    #[serde(deserialize_with = "lenient::text")]
    pub instance_id: String,
    /// Its version; 0 from the platform: it does not know the instance.
    pub update_time: Millis,
    /// The tasks; must be there, if empty.
    pub tasks: Vec<TaskVersion>,
}

/// The version of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct TaskVersion {
    /// Ours.
    #[serde(deserialize_with = "lenient::text")]
    pub task_id: String,
    /// Its version; 0 from the platform: it does not know the task.
    pub update_time: Millis,
}

impl ExternalInstance {
    /// What the platform should have of it.
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

    /// True if sending it twice is as good as once: versions are compared, so an old one overwrites nothing.
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
    /// Synchronises an instance. Notifies nobody (platform.md#versions-and-update-modes). An old version is ignored
    /// and looks like a success, but for
    /// [`Synced::process_record`].
    ///
    /// # Errors
    /// Whatever the platform refuses, one layer of it at a time; [`ExternalInstance::faults`] tells all at once.
    pub async fn sync_instance(&self, instance: &ExternalInstance) -> Result<Synced, Error> {
        let mut call = Call::new(Api::SyncInstance).body(instance.body());
        call.repeatable = instance.is_repeatable();
        self.call(call).await
    }

    /// Those of the instances that the platform has otherwise, with its versions. Empty: all is in step.
    ///
    /// # Errors
    /// Whatever the platform refuses. How many it takes at once is not documented; 20 has done.
    pub async fn check_instances(&self, versions: &[InstanceVersion]) -> Result<Vec<InstanceVersion>, Error> {
        let call = Call::new(Api::CheckInstances).body(json!({ "instances": versions }));
        self.call(call).await.map(|diff: Diff| diff.diff_instances)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the platform's page (platform.md#third-party-instances): among others a number for `end_time`.
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
        // The documented type is a text, although the example has a number; and an empty open_id is none.
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
