//! Bot messages (platform.md#sending-a-card). Failures come with HTTP 200 and a code.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    api::{Answered, ApiError, Ask},
    fields::{is_absent, items},
    tenant::{Card, Tenant},
    values::json_bytes,
};

/// Templates that allow quick approval buttons (platform.md#card-templates).
const QUICK: [&str; 8] = ["1008", "1028", "1009", "1010", "1011", "1012", "1013", "1020"];

const STATUSES: [&str; 9] =
    ["APPROVED", "REJECTED", "CANCELLED", "FORWARDED", "ROLLBACK", "ADD", "DELETED", "PROCESSED", "CUSTOM"];

/// A uuid is sent only once within this time.
const UUID_COUNTS_FOR: Duration = Duration::from_secs(3600);

fn refused(msg: &str) -> ApiError {
    ApiError::new(60_001, msg)
}

pub(super) fn send(tenant: &mut Tenant, ask: &Ask) -> Answered {
    let body = &ask.body;
    if is_absent(&body["template_id"]) {
        return Err(refused("no TemplateId error"));
    }
    let Some(user) = tenant.user_of(body) else { return Err(ApiError::new(60_004, "user not found")) };
    if items(&body["actions"]).is_empty() || items(&body["actions"]).len() > 2 {
        return Err(refused("actions error"));
    }
    let urls = ["url", "android_url", "ios_url", "pc_url"];
    let complete =
        |action: &Value| urls.iter().all(|url| action[*url].as_str().is_some_and(|url| url.contains("://")));
    if !items(&body["actions"]).iter().all(complete) {
        return Err(refused("actionUrls incomplete error"));
    }
    // A map, only in this API (platform.md#sending-a-card).
    if items(&body["i18n_resources"]).iter().any(|resource| !resource["texts"].is_object()) {
        return Err(refused("i18n_resources texts error"));
    }
    let uuid = body["uuid"].as_str().unwrap_or_default();
    let again = tenant.cards.iter().find(|card| {
        !uuid.is_empty() && card.body["uuid"] == uuid && card.sent_at.elapsed() < UUID_COUNTS_FOR
    });
    if let Some(card) = again {
        return Ok(json!({ "message_id": card.message_id.to_string() }));
    }
    let quick = body["template_id"].as_str().is_some_and(|template| QUICK.contains(&template));
    let has_buttons = quick && !items(&body["action_configs"]).is_empty();
    let message_id = tenant.number();
    let mut body = body.clone();
    body["user_id"] = user.into();
    let bytes = json_bytes(&body);
    tenant.cards.push(Card {
        message_id,
        body,
        shown: if has_buttons { "BUTTONS" } else { "DETAIL" }.to_owned(),
        status_words: Value::Null,
        bytes,
        sent_at: Instant::now(),
    });
    Ok(json!({ "message_id": message_id.to_string() }))
}

/// What a card shows, with the words of a custom status in place of their key.
fn worded(shown: &str, words: &Value) -> String {
    let key = shown.strip_prefix("CUSTOM ");
    let text = key.and_then(|key| items(words).iter().find_map(|resource| resource["texts"][key].as_str()));
    text.map_or_else(|| shown.to_owned(), |text| format!("CUSTOM {text}"))
}

pub(super) fn update(tenant: &mut Tenant, ask: &Ask) -> Answered {
    let body = &ask.body;
    // A string, although the callback carries it as a number (platform.md#callback-fields).
    let Some(id) = body["message_id"].as_str().and_then(|id| id.parse::<u64>().ok()) else {
        return Err(refused("message_id error"));
    };
    let status = body["status"].as_str().unwrap_or_default();
    if status.is_empty() {
        return Err(refused("no Status error"));
    }
    if !STATUSES.contains(&status) {
        return Err(refused("Status error"));
    }
    let Some(card) = tenant.cards.iter_mut().find(|card| card.message_id == id) else {
        return Err(refused("message not found"));
    };
    if card.body["template_id"] != "1008" {
        return Err(refused("only template 1008 can be updated"));
    }
    let shown = match status {
        "CUSTOM" => format!("CUSTOM {}", body["status_name"].as_str().unwrap_or_default()),
        status => status.to_owned(),
    };
    let before = worded(&card.shown, &card.status_words);
    card.shown = shown;
    card.bytes += json_bytes(&body["i18n_resources"]).saturating_sub(json_bytes(&card.status_words));
    card.status_words = body["i18n_resources"].clone();
    let after = worded(&card.shown, &card.status_words);
    tenant.taps.card_turned(id, &before, &after);
    Ok(json!({ "message_id": id.to_string() }))
}
