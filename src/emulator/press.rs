//! An approver presses a button: sends the real callback (platform.md#callback-transport) and computes what the
//! approver sees (platform.md#callback-answers).

use std::time::{Duration, Instant};

use actix_web::{rt, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Emulator,
    fields::{is_absent, items},
    taps::{Answer, Request, Source, Tap, Target},
    tenant::Tenant,
    values::now_ms,
};
use crate::secret::Secret;

/// The default message for a failure.
pub(super) const FAILED: &str = "提交失败";

/// What the emulator says when no answer came in time.
pub(super) const TOO_LATE: &str = "提交失败 (no answer in time)";

/// What it says when there was nobody to send to.
pub(super) const NOT_REACHED: &str = "提交失败 (not reached)";

/// The message for a success.
pub(super) const DONE: &str = "提交成功";

/// Bytes of an answer that are read.
const KEPT_BYTES: usize = 4096;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct Press {
    /// For a task in the list, with `task_id`.
    #[serde(default)]
    pub(super) instance_id: Option<String>,
    #[serde(default)]
    pub(super) task_id: Option<String>,
    /// For a card, instead of the two ids above.
    #[serde(default)]
    pub(super) message_id: Option<String>,
    pub(super) action_type: String,
    /// The `user_id` of a user other than the approver.
    #[serde(default)]
    pub(super) user_id: Option<String>,
    #[serde(default)]
    pub(super) reason: Option<String>,
    /// The task was found by search, not in the list.
    #[serde(default)]
    pub(super) search: bool,
}

/// Sends the callback; returns the number of its tap. The error says why there is nothing to press.
pub(super) async fn press(emulator: &web::Data<Emulator>, press: &Press) -> Result<u64, String> {
    let tap = prepare(&emulator.tenant(), press)?;
    Ok(send(emulator, tap).await)
}

/// A tap as `/emulator/press` and `/emulator/state` tell it.
pub(super) fn told(tap: &Tap) -> Value {
    let answer = tap.answer.as_ref();
    let seen = answer.map(|answer| &answer.seen);
    let card = match (&tap.target, tap.turns.iter().rev().find(|turn| turn.by_itself)) {
        (Target::Card(_), Some(turn)) => Some(turn.to.as_str()),
        (Target::Card(_), None) => Some("BUTTONS"),
        (Target::Task { .. }, _) => None,
    };
    json!({
        "tap": tap.id, "at": tap.at, "origin": tap.origin, "url": tap.request.url,
        "encrypted": tap.request.is_encrypted(), "user_id": tap.user, "action_type": tap.action,
        "http_status": answer.and_then(|answer| answer.status),
        "elapsed_ms": answer.map(|answer| answer.elapsed_ms), "answer": answer.and_then(|answer| answer.text.as_ref()),
        "accepted": seen.is_some_and(Result::is_ok),
        "shown": seen.map(|seen| seen.as_ref().unwrap_or_else(|text| text)), "card": card,
    })
}

/// Sends the bytes of a tap, and keeps what is answered. Returns its number once the answer is there.
pub(super) async fn send(emulator: &web::Data<Emulator>, tap: Tap) -> u64 {
    let emulator = emulator.clone();
    // A task of its own: the one who asked may go away, the answer is wanted all the same.
    let sending = rt::spawn(async move {
        let (url, wire) = (tap.request.url.clone(), tap.request.bytes());
        let (patience, turns) = (Duration::from_millis(tap.patience_ms), tap.source == Source::Button);
        let (target, next) = (tap.target.clone(), tap.next_status.clone());
        let id = emulator.tenant().taps.begin(tap);
        emulator.changed();
        let began = Instant::now();
        let answer = post(&emulator, &url, wire, patience).await;
        let elapsed = began.elapsed().min(Duration::from_secs(3600));
        let (status, text, seen) = match answer {
            Ok((status, text)) => {
                let seen = seen(status, &text);
                (Some(status), Some(text), seen)
            }
            Err(error) if error.is_timeout() => (None, None, Err(TOO_LATE.to_owned())),
            Err(_) => (None, None, Err(NOT_REACHED.to_owned())),
        };
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        {
            let mut tenant = emulator.tenant();
            if let (true, Target::Card(card)) = (turns, target) {
                turn_card(&mut tenant, id, card, next.as_deref(), &seen);
            }
            tenant.taps.answered(id, Answer::new(status, elapsed_ms, text, seen));
        }
        emulator.changed();
        id
    });
    sending.await.unwrap_or_default()
}

/// Status and the beginning of the body: an answer without an end is not read to its end.
async fn post(
    emulator: &Emulator,
    url: &str,
    wire: Vec<u8>,
    patience: Duration,
) -> reqwest::Result<(u16, String)> {
    let request = emulator.client.post(url).header("content-type", "application/json").timeout(patience);
    let mut response = request.body(wire).send().await?;
    let mut body = Vec::new();
    while body.len() < KEPT_BYTES
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk[..chunk.len().min(KEPT_BYTES - body.len())]);
    }
    Ok((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
}

/// The same request again, byte for byte.
pub(super) fn replayed(tap: &Tap) -> Result<Tap, String> {
    if !tap.request.is_kept() {
        return Err("the request was too large to keep".to_owned());
    }
    Ok(again(tap, Source::Replay(tap.id), tap.request.clone()))
}

/// The request with another body, encrypted again.
pub(super) fn edited(tap: &Tap, body: &str) -> Tap {
    let mut tap = again(tap, Source::Edit(tap.id), tap.request.with_plain(body));
    // Who does what is what the body now says.
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    for (member, of_tap) in [("user_id", &mut tap.user), ("action_type", &mut tap.action)] {
        if let Some(text) = body[member].as_str() {
            text.clone_into(of_tap);
        }
    }
    tap
}

pub(super) fn again(tap: &Tap, source: Source, request: Request) -> Tap {
    Tap {
        id: 0,
        at: now_ms(),
        source,
        origin: tap.origin,
        target: tap.target.clone(),
        user: tap.user.clone(),
        action: tap.action.clone(),
        next_status: None,
        request,
        patience_ms: tap.patience_ms,
        answer: None,
        command: None,
        report: None,
        turns: Vec::new(),
    }
}

/// The message for the approver; `Err` for a failure.
fn seen(status: u16, text: &str) -> Result<String, String> {
    if status == 200 {
        return Ok(DONE.to_owned());
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
    tap: u64,
    id: u64,
    next_status: Option<&str>,
    seen: &Result<String, String>,
) {
    let Some(card) = tenant.cards.iter_mut().find(|card| card.message_id == id) else { return };
    let to = match (seen, next_status) {
        (Ok(_), Some(next)) => next,
        // The card is unchanged until the sender calls message/update.
        (Ok(_), None) => return,
        (Err(_), _) => "DETAIL",
    };
    let from = std::mem::replace(&mut card.shown, to.to_owned());
    tenant.taps.turned_itself(tap, &from, to);
}

/// The tap that a press makes, not sent yet.
pub(super) fn prepare(tenant: &Tenant, press: &Press) -> Result<Tap, String> {
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

fn of_task(tenant: &Tenant, press: &Press, instance_id: &str, task_id: &str) -> Result<Tap, String> {
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
    let target = Target::Task { instance_id: instance_id.to_owned(), task_id: task_id.to_owned() };
    prepared(tenant, (origin, target), external, body, (user, press), None)
}

fn of_card(tenant: &Tenant, press: &Press, message_id: &str) -> Result<Tap, String> {
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
    prepared(tenant, ("card", Target::Card(id)), callback, body, (user, press), next)
}

fn user(tenant: &Tenant, press: &Press, body: &Value) -> Result<String, String> {
    press
        .user_id
        .clone()
        .or_else(|| tenant.user_of(body))
        .ok_or_else(|| "the tenant has no user with the approver's id".to_owned())
}

fn prepared(
    tenant: &Tenant,
    (origin, target): (&'static str, Target),
    callback: &Value,
    body: Map<String, Value>,
    (user, press): (String, &Press),
    next_status: Option<String>,
) -> Result<Tap, String> {
    let text = |member: &str| callback[member].as_str().filter(|text| !text.is_empty());
    let url = text("action_callback_url").ok_or("no action_callback_url is configured; nothing is sent")?;
    let secret = |member: &str| text(member).map(Secret::new);
    // Without unset members (platform.md#types-on-the-wire), and sorted by name.
    let plain = serde_json::to_vec(&body).expect("texts and numbers are JSON");
    let (key, token) = (secret("action_callback_key"), secret("action_callback_token"));
    let patience = tenant.settings.callback_timeout.min(Duration::from_secs(3600));
    Ok(Tap {
        id: 0,
        at: now_ms(),
        source: Source::Button,
        origin,
        target,
        user,
        action: press.action_type.clone(),
        next_status,
        request: Request::new(url.to_owned(), key, token, plain),
        patience_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        answer: None,
        command: None,
        report: None,
        turns: Vec::new(),
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
