//! An approver presses a button: sends the real callback (platform.md#callback-transport) and computes what the
//! approver sees (platform.md#callback-answers).

use std::time::{Duration, Instant};

use actix_web::web;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Emulator,
    fields::{is_absent, items},
    tenant::{Tenant, now_ms, random},
};
use crate::{
    callback::cipher::{self, Key},
    secret::Secret,
};

/// The default message for a failure.
const FAILED: &str = "提交失败";

/// Bytes of a response kept for inspection.
const KEPT_BYTES: usize = 4096;

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct Press {
    /// For a task in the list, with `task_id`.
    #[serde(default)]
    instance_id: Option<String>,
    #[serde(default)]
    task_id: Option<String>,
    /// For a card, instead of the two ids above.
    #[serde(default)]
    message_id: Option<String>,
    action_type: String,
    /// The `user_id` of a user other than the approver.
    #[serde(default)]
    user_id: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    /// The task was found by search, not in the list.
    #[serde(default)]
    search: bool,
}

struct Prepared {
    origin: &'static str,
    url: String,
    key: Option<Secret>,
    /// Members in the platform's order, without unset ones (platform.md#types-on-the-wire).
    body: Vec<u8>,
    user: String,
    card: Option<(u64, Option<String>)>,
}

/// Sends the callback; returns the request and what the approver sees. The error says why there is nothing to press.
pub(super) async fn press(emulator: web::Data<Emulator>, press: Press) -> Result<Value, String> {
    let prepared = prepare(&emulator.tenant(), &press)?;
    let encrypted = prepared.key.is_some();
    let wire = match &prepared.key {
        Some(key) => cipher::envelope(&Key::derive(key), random(), &prepared.body).into_bytes(),
        None => prepared.body.clone(),
    };
    let began = Instant::now();
    let sent = emulator
        .client
        .post(&prepared.url)
        .header("content-type", "application/json")
        .body(wire)
        .send()
        .await;
    let answer = match sent {
        Ok(response) => {
            let status = response.status().as_u16();
            response.bytes().await.map(|bytes| (status, bytes))
        }
        Err(error) => Err(error),
    };
    let elapsed = began.elapsed();
    let (status, text, seen) = match &answer {
        Ok((status, bytes)) => {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(KEPT_BYTES)]).into_owned();
            let seen = seen(*status, &text);
            (Some(*status), Some(text), seen)
        }
        Err(error) if error.is_timeout() => (None, None, Err(format!("{FAILED} (no answer in time)"))),
        Err(_) => (None, None, Err(format!("{FAILED} (not reached)"))),
    };
    let mut tenant = emulator.tenant();
    let card =
        prepared.card.as_ref().and_then(|(id, next)| turn_card(&mut tenant, *id, next.as_deref(), &seen));
    let told = json!({
        "at": now_ms(), "origin": prepared.origin, "url": prepared.url, "encrypted": encrypted,
        "user_id": prepared.user, "action_type": press.action_type, "http_status": status,
        "elapsed_ms": u64::try_from(elapsed.min(Duration::from_secs(3600)).as_millis()).unwrap_or(u64::MAX),
        "answer": text, "accepted": seen.is_ok(), "shown": seen.unwrap_or_else(|text| text), "card": card,
    });
    tenant.callbacks.push(told.clone());
    Ok(told)
}

/// The message for the approver; `Err` for a failure.
fn seen(status: u16, text: &str) -> Result<String, String> {
    if status == 200 {
        return Ok("提交成功".to_owned());
    }
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    // Above 400, not 400 itself; the member is a string, not a boolean (platform.md#callback-answers).
    match body["message"].as_str() {
        Some(message) if status > 400 && body["without_prefix"] == "true" => Err(message.to_owned()),
        _ => Err(FAILED.to_owned()),
    }
}

/// Updates what the card shows (platform.md#cards-after-a-click).
fn turn_card(
    tenant: &mut Tenant,
    id: u64,
    next_status: Option<&str>,
    seen: &Result<String, String>,
) -> Option<String> {
    let card = tenant.cards.iter_mut().find(|card| card.message_id == id)?;
    match (seen, next_status) {
        (Ok(_), Some(next)) => card.shown = next.to_owned(),
        // The card is unchanged until the sender calls message/update.
        (Ok(_), None) => {}
        (Err(_), _) => card.shown = "DETAIL".to_owned(),
    }
    Some(card.shown.clone())
}

fn prepare(tenant: &Tenant, press: &Press) -> Result<Prepared, String> {
    match (&press.message_id, &press.instance_id, &press.task_id) {
        (Some(id), None, None) => of_card(tenant, press, id),
        (None, Some(instance), Some(task)) => of_task(tenant, press, instance, task),
        _ => Err("give instance_id and task_id, or message_id".to_owned()),
    }
}

fn button<'v>(buttons: &'v Value, press: &Press) -> Result<&'v Value, String> {
    let all = items(buttons);
    if all.is_empty() {
        return Err("there are no buttons: it was made without action_configs".to_owned());
    }
    let button = all.iter().find(|button| button["action_type"] == press.action_type.as_str());
    let button = button.ok_or_else(|| {
        let names: Vec<_> = all.iter().filter_map(|button| button["action_type"].as_str()).collect();
        format!("there is no button {}; there are: {}", press.action_type, names.join(", "))
    })?;
    if button["is_reason_required"] == true && press.reason.as_deref().is_none_or(str::is_empty) {
        return Err("this button requires a reason".to_owned());
    }
    Ok(button)
}

fn of_task(tenant: &Tenant, press: &Press, instance_id: &str, task_id: &str) -> Result<Prepared, String> {
    let instance = tenant
        .instance(instance_id)
        .filter(|instance| instance.is_visible())
        .ok_or_else(|| format!("the center shows no instance {instance_id}"))?;
    let task = instance
        .tasks
        .iter()
        .find(|task| task["task_id"] == task_id)
        .ok_or_else(|| format!("the instance has no task {task_id}"))?;
    if task["status"] != "PENDING" {
        return Err(format!(
            "the task is {}, so it has no buttons",
            task["status"].as_str().unwrap_or("gone")
        ));
    }
    button(&task["action_configs"], press)?;
    let code = instance.text("approval_code");
    let definition = tenant.by_real_code(code).ok_or("the definition is gone")?;
    let external = &definition.body["external"];
    let user = user(tenant, press, task)?;
    let mut body = Map::new();
    let mut put = |key: &str, value: &Value| {
        if !is_absent(value) {
            body.insert(key.to_owned(), value.clone());
        }
    };
    put("action_type", &json!(press.action_type));
    put("action_context", &task["action_context"]);
    put("user_id", &json!(user));
    // OPEN: which of the two codes; the reference considers the real one more likely (Q6).
    put("approval_code", &json!(code));
    if press.search {
        put("id", &json!(task_id));
    } else {
        put("instance_id", &json!(instance_id));
        put("task_id", &json!(task_id));
    }
    put("reason", &json!(press.reason));
    put("token", &external["action_callback_token"]);
    let origin = if press.search { "search" } else { "list" };
    prepared(origin, external, body, user, None)
}

fn of_card(tenant: &Tenant, press: &Press, message_id: &str) -> Result<Prepared, String> {
    let id: u64 = message_id.parse().map_err(|_| "message_id is a number".to_owned())?;
    let card = tenant
        .cards
        .iter()
        .find(|card| card.message_id == id)
        .ok_or_else(|| format!("no card {message_id} was sent"))?;
    if card.shown != "BUTTONS" {
        return Err(format!("the card shows {} and no buttons", card.shown));
    }
    let button = button(&card.body["action_configs"], press)?;
    let callback = &card.body["action_callback"];
    let user = user(tenant, press, &card.body)?;
    // Exactly the captured members: no approval_code, and the id as a number (platform.md#callback-origins).
    let mut body = Map::new();
    let mut put = |key: &str, value: &Value| {
        if !is_absent(value) {
            body.insert(key.to_owned(), value.clone());
        }
    };
    put("action_type", &json!(press.action_type));
    put("action_context", &callback["action_context"]);
    put("user_id", &json!(user));
    put("message_id", &json!(id));
    put("reason", &json!(press.reason));
    put("token", &callback["action_callback_token"]);
    let next = button["next_status"].as_str().map(str::to_owned);
    prepared("card", callback, body, user, Some((id, next)))
}

fn user(tenant: &Tenant, press: &Press, body: &Value) -> Result<String, String> {
    press
        .user_id
        .clone()
        .or_else(|| tenant.user_of(body))
        .ok_or_else(|| "the tenant has no user with the approver's id".to_owned())
}

fn prepared(
    origin: &'static str,
    callback: &Value,
    body: Map<String, Value>,
    user: String,
    card: Option<(u64, Option<String>)>,
) -> Result<Prepared, String> {
    let text = |member: &str| callback[member].as_str().filter(|text| !text.is_empty());
    let url = text("action_callback_url").ok_or("no action_callback_url is configured; nothing is sent")?;
    Ok(Prepared {
        origin,
        url: url.to_owned(),
        key: text("action_callback_key").map(Secret::new),
        body: serde_json::to_vec(&body).expect("texts and numbers are JSON"),
        user,
        card,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_approver_reads_the_sentence_only_as_the_platform_lets_them() {
        let sentence = r#"{"message":"Li was faster.","without_prefix":"true"}"#;
        assert!(seen(200, "{}").is_ok());
        assert_eq!(seen(409, sentence), Err("Li was faster.".to_owned()));
        for (status, text) in [
            (400, sentence),
            (409, r#"{"message":"Li was faster.","without_prefix":true}"#),
            (409, r#"{"message":"Li was faster.","without_prefix":"false"}"#),
            (409, "gateway"),
            (302, sentence),
            (201, "{}"),
        ] {
            assert_eq!(seen(status, text), Err(FAILED.to_owned()), "{status} {text}");
        }
    }
}
