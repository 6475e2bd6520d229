//! Cards of the approval bot (platform.md#sending-a-card): sends and updates them.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};
use serde_with::skip_serializing_none;

use super::{
    api::Api,
    call::Center,
    error::Error,
    lenient::{self, I18n, reveal},
    transport::Call,
    words::MessageStatus,
};
use crate::secret::Secret;

/// The texts of one language, with `texts` as the map that messages require, unlike definitions and instances.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct I18nMap(pub I18n);

impl Serialize for I18nMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Map<String, Value> =
            self.0.texts.iter().map(|text| (text.key.clone(), text.value.clone().into())).collect();
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("locale", &self.0.locale)?;
        map.serialize_entry("is_default", &self.0.is_default)?;
        map.serialize_entry("texts", &texts)?;
        map.end()
    }
}

/// A card to send. Secrets are redacted when serialized.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Message {
    /// The template (platform.md#card-templates). `1008` is the pending task, the only one that can be updated later.
    #[serde(deserialize_with = "lenient::text")]
    pub template_id: String,
    /// The recipient.
    #[serde(deserialize_with = "lenient::maybe")]
    pub user_id: Option<String>,
    /// The recipient.
    #[serde(deserialize_with = "lenient::maybe")]
    pub open_id: Option<String>,
    /// A uuid is sent only once within an hour. At most 64 characters.
    #[serde(deserialize_with = "lenient::maybe")]
    pub uuid: Option<String>,
    /// Key of the approval's name.
    pub approval_name: Option<String>,
    /// The user named in the title.
    #[serde(deserialize_with = "lenient::maybe")]
    pub title_user_id: Option<String>,
    /// The kind of that id; `user_id` by default, unlike elsewhere.
    #[serde(deserialize_with = "lenient::maybe")]
    pub title_user_id_type: Option<String>,
    /// Key of the comment.
    pub comment: Option<String>,
    /// The content.
    pub content: Option<CardContent>,
    /// Key of the note.
    pub note: Option<String>,
    /// The forwarding user.
    #[serde(deserialize_with = "lenient::maybe")]
    pub sender_user_id: Option<String>,
    /// The forwarding user's text.
    pub text: Option<String>,
    /// Template 1021 only.
    pub custom_title: Option<String>,
    /// Template 1021 only.
    pub custom_content: Option<String>,
    /// At most two; the first is named `DETAIL`.
    pub actions: Vec<CardAction>,
    /// The buttons' callback, independent of the definition's.
    pub action_callback: Option<CardCallback>,
    /// The buttons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub action_configs: Vec<CardConfig>,
    /// The texts.
    pub i18n_resources: Vec<I18nMap>,
    /// Members unknown to this version; not sent.
    #[serde(flatten, skip_serializing)]
    pub unknown: Map<String, Value>,
}

/// The content of a card.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct CardContent {
    /// The initiator.
    #[serde(deserialize_with = "lenient::maybe")]
    pub user_id: Option<String>,
    /// The kind of that id; `user_id` by default.
    #[serde(deserialize_with = "lenient::maybe")]
    pub user_id_type: Option<String>,
    /// Required if the user has several.
    #[serde(deserialize_with = "lenient::maybe")]
    pub department_id: Option<String>,
    /// Key of the user's name.
    pub user_name: Option<String>,
    /// Key of the department's name.
    pub department_name: Option<String>,
    /// At most five.
    pub summaries: Vec<Summary>,
}

/// A line of a card.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Summary {
    /// Key of the text.
    pub summary: String,
}

/// A link on a card. All four URLs are required, each with a scheme.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct CardAction {
    /// `DETAIL` for the first, else a key.
    pub action_name: String,
    /// For all other clients.
    pub url: String,
    /// On Android.
    pub android_url: String,
    /// On iOS.
    pub ios_url: String,
    /// On PC.
    pub pc_url: String,
}

/// A button on a card.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct CardConfig {
    /// `APPROVE`, `REJECT` or a custom English word.
    pub action_type: String,
    /// Key of the label.
    pub action_name: Option<String>,
    /// Asks for a comment.
    pub is_need_reason: Option<bool>,
    /// Requires a comment.
    pub is_reason_required: Option<bool>,
    /// Allows attachments.
    pub is_need_attachment: Option<bool>,
    /// Status to show after success; without it the card keeps its buttons (platform.md#cards-after-a-click).
    pub next_status: Option<MessageStatus>,
}

/// A card's own callback.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct CardCallback {
    /// The URL.
    #[serde(deserialize_with = "lenient::maybe")]
    pub action_callback_url: Option<String>,
    /// The callback's `token`.
    #[serde(deserialize_with = "lenient::secret", serialize_with = "lenient::redacted")]
    pub action_callback_token: Option<Secret>,
    /// The encryption key.
    #[serde(deserialize_with = "lenient::secret", serialize_with = "lenient::redacted")]
    pub action_callback_key: Option<Secret>,
    /// The context that the callback returns.
    #[serde(deserialize_with = "lenient::maybe")]
    pub action_context: Option<String>,
}

/// A new status for a card. Only for template 1008, and only within 30 days.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct MessageUpdate {
    /// The message_id of the card: a string of digits, more than a double can represent exactly.
    #[serde(deserialize_with = "lenient::text")]
    pub message_id: String,
    /// The status to show.
    pub status: MessageStatus,
    /// With `CUSTOM`: key of the status.
    pub status_name: Option<String>,
    /// With `CUSTOM`: key of the link's name.
    pub detail_action_name: Option<String>,
    /// The texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub i18n_resources: Vec<I18nMap>,
}

impl Message {
    fn body(&self) -> Value {
        let mut body = serde_json::to_value(self).expect("texts and truth values are JSON");
        if let Some(callback) = &self.action_callback {
            let (token, key) = (&callback.action_callback_token, &callback.action_callback_key);
            reveal(&mut body, "/action_callback/action_callback_token", token.as_ref());
            reveal(&mut body, "/action_callback/action_callback_key", key.as_ref());
        }
        body
    }
}

#[derive(Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Sent {
    #[serde(deserialize_with = "lenient::text")]
    message_id: String,
}

impl Center {
    /// Sends a card and returns its `message_id`. A card with a [`Message::uuid`] is retried if its fate is unknown,
    /// since the platform sends it only once.
    ///
    /// # Errors
    /// The platform refuses the card, with HTTP 200 and a code (platform.md#sending-a-card).
    pub async fn send_message(&self, message: &Message) -> Result<String, Error> {
        let mut call = Call::new(Api::SendMessage).body(message.body());
        call.repeatable = message.uuid.is_some();
        self.call(call).await.map(|sent: Sent| sent.message_id)
    }

    /// Updates a card and returns its `message_id`. Idempotent.
    ///
    /// # Errors
    /// The platform refuses the update, with HTTP 200 and a code (platform.md#updating-a-card).
    pub async fn update_message(&self, update: &MessageUpdate) -> Result<String, Error> {
        let body = serde_json::to_value(update).expect("texts are JSON");
        self.call(Call::new(Api::UpdateMessage).body(body)).await.map(|sent: Sent| sent.message_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn example() -> Value {
        json!({
            "template_id": "1008", "open_id": "ou_demo", "uuid": "po-77-n1", "approval_name": "@i18n@n",
            "title_user_id": "li4", "title_user_id_type": "user_id",
            "content": { "user_id": "li4", "summaries": [{ "summary": "@i18n@s" }] },
            "actions": [{ "action_name": "DETAIL", "url": "https://e/1", "android_url": "https://e/2",
                "ios_url": "https://e/3", "pc_url": "https://e/4" }],
            "action_configs": [{ "action_type": "APPROVE", "next_status": "APPROVED" },
                { "action_type": "REJECT", "is_need_reason": true, "next_status": "REJECTED" }],
            "action_callback": { "action_callback_url": "https://hook.example.com/callbacks/purchase",
                "action_callback_token": "fake-hush-1", "action_callback_key": "fake-hush-2",
                "action_context": "{\"t\":\"PO-77/n1\"}" },
            "i18n_resources": [{ "locale": "zh-CN", "is_default": true,
                "texts": { "@i18n@n": "采购审批", "@i18n@s": "金额 10 元" } }]
        })
    }

    #[test]
    fn a_card_is_sent_as_it_was_read_with_texts_as_a_map() {
        let message: Message = serde_json::from_value(example()).unwrap();
        assert!(message.unknown.is_empty());
        assert_eq!(message.body(), example());
        let shown = format!("{message:?}{}", serde_json::to_string(&message).unwrap());
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn an_update_needs_no_more_than_id_and_status() {
        let update = MessageUpdate {
            message_id: "7123456789012345678".to_owned(),
            status: MessageStatus::Cancelled,
            ..MessageUpdate::default()
        };
        let expected = json!({ "message_id": "7123456789012345678", "status": "CANCELLED" });
        assert_eq!(serde_json::to_value(&update).unwrap(), expected);
    }
}
