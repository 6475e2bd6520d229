//! Third-party approval definitions (platform.md#definitions).
//!
//! A definition has two codes (platform.md#two-codes-of-a-definition): the *custom* code, which creates and updates it,
//! and the *real* code, which creation returns and every other API requires. Creating with a real code makes a second
//! definition, which nobody can delete.

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

/// A definition. Secrets are redacted when serialized.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Definition {
    /// Key of the name.
    pub approval_name: String,
    /// The custom code.
    pub approval_code: String,
    /// The group's code; required on creation, contrary to the documentation (platform.md#definitions).
    #[serde(deserialize_with = "lenient::maybe")]
    pub group_code: Option<String>,
    /// Key of the group's name; required for a new group.
    pub group_name: Option<String>,
    /// Key of the description.
    pub description: Option<String>,
    /// Links and callbacks.
    pub external: External,
    /// Who sees it on the start page; nobody if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub viewers: Vec<Viewer>,
    /// The texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub i18n_resources: Vec<I18n>,
    /// User ids of the flow's managers.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::texts")]
    pub managers: Vec<String>,
}

/// The block `external` (platform.md#the-external-block). Always sent in full: switches that an update omits revert to
/// false.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct External {
    /// Key of the source system's name.
    pub biz_name: Option<String>,
    /// A custom category.
    pub biz_type: Option<String>,
    /// Start link on mobile; hidden there if absent.
    pub create_link_mobile: Option<String>,
    /// Start link on PC; hidden there if absent.
    pub create_link_pc: Option<String>,
    /// Shown on PC.
    pub support_pc: bool,
    /// Shown on mobile, the only place with quick approval buttons in lists.
    pub support_mobile: bool,
    /// Allows marking many as read at once.
    pub support_batch_read: bool,
    /// Documented as having no effect.
    pub enable_mark_readed: Option<bool>,
    /// Documented as having no effect.
    pub enable_quick_operate: Option<bool>,
    /// URL of the quick approval callbacks.
    #[serde(deserialize_with = "lenient::maybe")]
    pub action_callback_url: Option<String>,
    /// The callbacks' `token`.
    #[serde(deserialize_with = "lenient::secret", serialize_with = "lenient::redacted")]
    pub action_callback_token: Option<Secret>,
    /// Encryption key of the callbacks; plain if absent.
    #[serde(deserialize_with = "lenient::secret", serialize_with = "lenient::redacted")]
    pub action_callback_key: Option<Secret>,
    /// Allows deciding many at once.
    pub allow_batch_operate: bool,
    /// Excluded from the efficiency statistics.
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
    /// The text of one of its keys.
    #[must_use]
    pub fn text<'a>(&'a self, key: &'a str, locale: &str) -> &'a str {
        lenient::translate(key, &self.i18n_resources, locale)
    }

    /// The request body, with secrets.
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
    /// Reads the definition with this real code, including its secrets.
    ///
    /// # Errors
    /// [`super::Fault::DefinitionUnknown`] if no definition has this real code; custom codes are not accepted.
    pub async fn definition(&self, real_code: &str, ids: &UserIdType) -> Result<Definition, Error> {
        self.call(Call::new(Api::GetDefinition).segment(real_code).query("user_id_type", Some(ids))).await
    }

    /// Creates the definition, or updates the one with its custom code. Returns the real code.
    ///
    /// # Errors
    /// The platform refuses the definition. See the module documentation for mistakes that it accepts.
    pub async fn save_definition(&self, definition: &Definition, ids: &UserIdType) -> Result<String, Error> {
        // A repetition updates the definition just created.
        let call = Call::new(Api::SaveDefinition).query("user_id_type", Some(ids)).body(definition.body());
        self.call(call).await.map(|saved: Saved| saved.approval_code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The platform's example (platform.md#reading-a-definition), with replaced secrets.
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
        // Members that were not read could not be sent again.
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
