//! Third-party approval definitions (platform.md#definitions).
//!
//! A definition has two codes (platform.md#two-codes-of-a-definition): the *custom* one, by which it is created and
//! updated, and the *real* one, which creating returns and every other API wants. Creating with a real code makes a
//! second definition, which nobody can delete.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_with::skip_serializing_none;

use super::{
    api::Api,
    call::Center,
    error::Error,
    lenient::{self, I18n, reveal},
    transport::Call,
    words::UserIdType,
};
use crate::secret::Secret;

/// A definition. Serializes with its secrets redacted.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Definition {
    /// The key of its name.
    pub approval_name: String,
    /// The custom code.
    pub approval_code: String,
    /// The group's code; required when a definition is created, whatever the documentation says
    /// (platform.md#definitions).
    #[serde(deserialize_with = "lenient::maybe")]
    pub group_code: Option<String>,
    /// The key of the group's name; required for a new group.
    pub group_name: Option<String>,
    /// The key of its description.
    pub description: Option<String>,
    /// Where it leads, and where its callbacks go.
    pub external: External,
    /// Who sees it on the start page; nobody if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub viewers: Vec<Viewer>,
    /// The texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub i18n_resources: Vec<I18n>,
    /// User ids of those who manage its flow.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::texts")]
    pub managers: Vec<String>,
}

/// The block `external` (platform.md#the-external-block). Always sent whole: what an update leaves out falls back to
/// false.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct External {
    /// The key of the name of the system it comes from.
    pub biz_name: Option<String>,
    /// A category of one's own.
    pub biz_type: Option<String>,
    /// Where it is started on mobile; hidden there without.
    pub create_link_mobile: Option<String>,
    /// Where it is started on PC; hidden there without.
    pub create_link_pc: Option<String>,
    /// Shown on PC.
    pub support_pc: bool,
    /// Shown on mobile, the only place where there are quick approval buttons in lists.
    pub support_mobile: bool,
    /// Many may be marked as read at once.
    pub support_batch_read: bool,
    /// Documented as without effect.
    pub enable_mark_readed: Option<bool>,
    /// Documented as without effect.
    pub enable_quick_operate: Option<bool>,
    /// Where quick approval callbacks go.
    #[serde(deserialize_with = "lenient::maybe")]
    pub action_callback_url: Option<String>,
    /// What the callbacks carry as `token`.
    #[serde(deserialize_with = "lenient::secret", serialize_with = "lenient::redacted")]
    pub action_callback_token: Option<Secret>,
    /// What the callbacks are encrypted with; plain without.
    #[serde(deserialize_with = "lenient::secret", serialize_with = "lenient::redacted")]
    pub action_callback_key: Option<Secret>,
    /// Approvers may decide many at once.
    pub allow_batch_operate: bool,
    /// Not counted in the statistics of efficiency.
    pub exclude_efficiency_statistics: bool,
}

/// Who sees a definition on the start page.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Viewer {
    /// `TENANT`, `DEPARTMENT`, `USER` or `NONE`
    pub viewer_type: String,
    /// For `USER`.
    #[serde(deserialize_with = "lenient::maybe")]
    pub viewer_user_id: Option<String>,
    /// For `DEPARTMENT`.
    #[serde(deserialize_with = "lenient::maybe")]
    pub viewer_department_id: Option<String>,
}

impl Definition {
    /// The text behind one of its keys.
    #[must_use]
    pub fn text<'a>(&'a self, key: &'a str, locale: &str) -> &'a str {
        lenient::translate(key, &self.i18n_resources, locale)
    }

    /// As it is sent, secrets and all.
    fn body(&self) -> Value {
        let mut body = serde_json::to_value(self).expect("texts, numbers and truth values are JSON");
        reveal(&mut body, "/external/action_callback_token", self.external.action_callback_token.as_ref());
        reveal(&mut body, "/external/action_callback_key", self.external.action_callback_key.as_ref());
        body
    }
}

#[derive(Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Saved {
    approval_code: String,
}

impl Center {
    /// The definition with this real code. It comes with its secrets.
    ///
    /// # Errors
    /// [`super::Fault::DefinitionUnknown`] if no definition has it as its real code; the custom code cannot be used here.
    pub async fn definition(&self, real_code: &str, ids: &UserIdType) -> Result<Definition, Error> {
        self.call(Call::new(Api::GetDefinition).segment(real_code).query("user_id_type", Some(ids))).await
    }

    /// Creates the definition, or updates the one that has its custom code, and returns the real code.
    ///
    /// # Errors
    /// Whatever the platform refuses. See the module's doc for what it does not.
    pub async fn save_definition(&self, definition: &Definition, ids: &UserIdType) -> Result<String, Error> {
        // Repeating it updates what it has just created.
        let call = Call::new(Api::SaveDefinition).query("user_id_type", Some(ids)).body(definition.body());
        self.call(call).await.map(|saved: Saved| saved.approval_code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The example of the platform's page (platform.md#reading-a-definition), its secrets replaced.
    fn example() -> Value {
        json!({
            "approval_name": "@i18n@1", "approval_code": "permission_test", "group_code": "work_group",
            "group_name": "@i18n@2", "description": "@i18n@2",
            "external": {
                "biz_name": "@i18n@3", "biz_type": "permission",
                "create_link_mobile": "https://m.example.com/new", "create_link_pc": "https://example.com/new",
                "support_pc": true, "support_mobile": true, "support_batch_read": true,
                "enable_mark_readed": true, "enable_quick_operate": true,
                "action_callback_url": "http://hook.example.com/callbacks/purchase",
                "action_callback_token": "fake-hush-token", "action_callback_key": "fake-hush-key",
                "allow_batch_operate": true, "exclude_efficiency_statistics": true
            },
            "viewers": [{ "viewer_type": "USER", "viewer_user_id": "19a294c2", "viewer_department_id": "od-ac9d" }],
            "i18n_resources": [{
                "locale": "zh-CN", "texts": [{ "key": "@i18n@1", "value": "审批定义" }], "is_default": true
            }],
            "managers": ["19a294c2"]
        })
    }

    #[test]
    fn the_example_is_read_field_by_field_and_sent_as_it_was() {
        let definition: Definition = serde_json::from_value(example()).unwrap();
        assert_eq!(definition.text(&definition.approval_name, "en-US"), "审批定义");
        assert_eq!(definition.viewers[0].viewer_user_id.as_deref(), Some("19a294c2"));
        assert!(definition.external.support_mobile && definition.external.allow_batch_operate);
        assert!(definition.external.action_callback_key.as_ref().unwrap().equals("fake-hush-key"));
        // Whatever was not read could not be sent again.
        assert_eq!(definition.body(), example());
    }

    #[test]
    fn its_secrets_are_in_nothing_but_the_body() {
        let definition: Definition = serde_json::from_value(example()).unwrap();
        let shown = format!("{definition:?}{}", serde_json::to_string(&definition).unwrap());
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("\"action_callback_token\":\"[redacted]\""), "{shown}");
    }

    #[test]
    fn the_whole_external_block_is_sent_whatever_was_left_out() {
        let definition: Definition = serde_json::from_value(json!({ "approval_code": "A" })).unwrap();
        let external = &definition.body()["external"];
        for switch in [
            "support_pc",
            "support_mobile",
            "support_batch_read",
            "allow_batch_operate",
            "exclude_efficiency_statistics",
        ] {
            assert_eq!(external[switch], json!(false), "{switch}");
        }
        assert_eq!(external.get("action_callback_token"), None);
    }
}
