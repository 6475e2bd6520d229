//! Cards of the approval bot (platform.md#sending-a-card): sending one, and changing what it shows.

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

/// The texts of one language, with `texts` as the map that messages want: the opposite of definitions and instances.
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

/// A card to be sent. Serializes with its secrets redacted.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Message {
    /// Which template (platform.md#card-templates): `1008` is the pending task, the only one that can be changed
    /// later.
    #[serde(deserialize_with = "lenient::text")]
    pub template_id: String,
    /// Who gets it.
    #[serde(deserialize_with = "lenient::maybe")]
    pub user_id: Option<String>,
    /// Who gets it.
    #[serde(deserialize_with = "lenient::maybe")]
    pub open_id: Option<String>,
    /// The same uuid is sent once within an hour. At most 64 characters.
    #[serde(deserialize_with = "lenient::maybe")]
    pub uuid: Option<String>,
    /// A key.
    pub approval_name: Option<String>,
    /// Whose name stands in the title.
    #[serde(deserialize_with = "lenient::maybe")]
    pub title_user_id: Option<String>,
    /// The kind of that id; `user_id` if not said, unlike elsewhere.
    #[serde(deserialize_with = "lenient::maybe")]
    pub title_user_id_type: Option<String>,
    /// A key.
    pub comment: Option<String>,
    /// What it says.
    pub content: Option<CardContent>,
    /// A key.
    pub note: Option<String>,
    /// Who forwards it.
    #[serde(deserialize_with = "lenient::maybe")]
    pub sender_user_id: Option<String>,
    /// What they say.
    pub text: Option<String>,
    /// Of template 1021.
    pub custom_title: Option<String>,
    /// Of template 1021.
    pub custom_content: Option<String>,
    /// At most two; the first is named `DETAIL`.
    pub actions: Vec<CardAction>,
    /// Where the buttons lead: independent of the definition's.
    pub action_callback: Option<CardCallback>,
    /// The buttons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub action_configs: Vec<CardConfig>,
    /// The texts.
    pub i18n_resources: Vec<I18nMap>,
    /// Members that this version does not know; not sent.
    #[serde(flatten, skip_serializing)]
    pub unknown: Map<String, Value>,
}

/// What a card says.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct CardContent {
    /// Who started it.
    #[serde(deserialize_with = "lenient::maybe")]
    pub user_id: Option<String>,
    /// The kind of that id; `user_id` if not said.
    #[serde(deserialize_with = "lenient::maybe")]
    pub user_id_type: Option<String>,
    /// Needed if the user has several.
    #[serde(deserialize_with = "lenient::maybe")]
    pub department_id: Option<String>,
    /// A key.
    pub user_name: Option<String>,
    /// A key.
    pub department_name: Option<String>,
    /// At most five.
    pub summaries: Vec<Summary>,
}

/// A line of a card.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct Summary {
    /// A key.
    pub summary: String,
}

/// A link of a card. All four URLs are needed, each with a scheme.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct CardAction {
    /// `DETAIL` for the first, else a key.
    pub action_name: String,
    /// For every other client.
    pub url: String,
    /// On Android.
    pub android_url: String,
    /// On iOS.
    pub ios_url: String,
    /// On PC.
    pub pc_url: String,
}

/// A button of a card.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct CardConfig {
    /// `APPROVE`, `REJECT` or an English word of one's own.
    pub action_type: String,
    /// A key.
    pub action_name: Option<String>,
    /// A comment is asked for.
    pub is_need_reason: Option<bool>,
    /// A comment must be given.
    pub is_reason_required: Option<bool>,
    /// Files may be added.
    pub is_need_attachment: Option<bool>,
    /// What the card shows after success; without it, it goes on showing the buttons
    /// (platform.md#cards-after-a-click).
    pub next_status: Option<MessageStatus>,
}

/// A card's own callback.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct CardCallback {
    /// Where it goes.
    #[serde(deserialize_with = "lenient::maybe")]
    pub action_callback_url: Option<String>,
    /// What it carries as `token`.
    #[serde(deserialize_with = "lenient::secret", serialize_with = "lenient::redacted")]
    pub action_callback_token: Option<Secret>,
    /// What it is encrypted with.
    #[serde(deserialize_with = "lenient::secret", serialize_with = "lenient::redacted")]
    pub action_callback_key: Option<Secret>,
    /// What it carries back.
    #[serde(deserialize_with = "lenient::maybe")]
    pub action_context: Option<String>,
}

/// What a card is to show from now on. Only of template 1008, and only within 30 days.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct MessageUpdate {
    /// The message_id that sending it returned: a text of digits, beyond what a double holds exactly.
    #[serde(deserialize_with = "lenient::text")]
    pub message_id: String,
    /// What it shows.
    pub status: MessageStatus,
    /// With `CUSTOM`: a key.
    pub status_name: Option<String>,
    /// With `CUSTOM`: a key.
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
    /// Sends a card and returns its `message_id`. One with a [`Message::uuid`] is sent again after a doubt, since the
    /// platform sends it once.
    ///
    /// # Errors
    /// Whatever the platform refuses: by HTTP 200 and a code (platform.md#sending-a-card).
    pub async fn send_message(&self, message: &Message) -> Result<String, Error> {
        let mut call = Call::new(Api::SendMessage).body(message.body());
        call.repeatable = message.uuid.is_some();
        self.call(call).await.map(|sent: Sent| sent.message_id)
    }

    /// Changes what a card shows, and returns its `message_id`. Doing it twice is as good as once.
    ///
    /// # Errors
    /// Whatever the platform refuses: by HTTP 200 and a code (platform.md#updating-a-card).
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
