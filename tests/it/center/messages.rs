//! Cards: sent, changed, and failing with HTTP 200.

use super::{Center, FAILED, USAGE};
use serde_json::{Value, json};

/// A card with two buttons; `next_status` decides whether pressing changes it.
pub(crate) fn card(callback_url: &str, next_status: bool) -> Value {
    let mut card = json!({
        "template_id": "1008", "user_id": "zhang3", "approval_name": "@i18n@n",
        "content": { "user_id": "li4", "summaries": [{ "summary": "@i18n@s" }] },
        "actions": [{ "action_name": "DETAIL", "url": "https://e.example/1", "android_url": "https://e.example/2",
            "ios_url": "https://e.example/3", "pc_url": "https://e.example/4" }],
        "action_configs": [{ "action_type": "APPROVE" }, { "action_type": "REJECT", "is_reason_required": true }],
        "action_callback": { "action_callback_url": callback_url, "action_callback_token": "fake-token-number-1",
            "action_callback_key": "fake-key-number-1", "action_context": "{\"t\":\"PO-77/n1\"}" },
        "i18n_resources": [{ "locale": "zh-CN", "is_default": true,
            "texts": { "@i18n@n": "采购审批", "@i18n@s": "金额 10 元" } }]
    });
    if next_status {
        card["action_configs"][0]["next_status"] = json!("APPROVED");
    }
    card
}

/// Sends a card and returns its id.
pub(crate) async fn send(center: &Center, card: &Value) -> String {
    let file = center.write("card.json", &card.to_string());
    let sent = center.json(&["message", "send", file.to_str().expect("a plain path")]).await;
    sent[0]["message_id"].as_str().expect("a text of digits").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_sent_once_for_its_uuid_and_changed_by_its_id() {
    let center = Center::start().await;
    let mut body = card("http://127.0.0.1:1/callbacks/purchase", false);
    body["uuid"] = json!("po-77-n1-zhang3");
    let id = send(&center, &body).await;
    assert!(id.parse::<u64>().unwrap() > 1 << 53, "beyond what a double holds exactly: {id}");
    assert_eq!(send(&center, &body).await, id);
    let shown = async || center.state().await["cards"][0]["shown"].clone();
    assert_eq!(shown().await, "BUTTONS");
    let ran = center.run(&["message", "update", &id, "--status", "CANCELLED"]).await.ended_with(0);
    assert_eq!(ran.stdout.trim(), id);
    assert_eq!(shown().await, "CANCELLED");
    center
        .run(&["message", "update", &id, "--status", "CUSTOM", "--status-text", "已归档"])
        .await
        .ended_with(0);
    assert_eq!(shown().await, "CUSTOM @i18n@status");
    let ran = center.run(&["message", "update", &id, "--status", "CANCELED"]).await.ended_with(USAGE);
    assert!(ran.stderr.contains("CANCELLED"), "{}", ran.stderr);
    let ran = center.run(&["message", "update", "1", "--status", "APPROVED"]).await.ended_with(FAILED);
    assert!(ran.stderr.contains("code 60001 (HTTP 200)"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_without_all_its_urls_fails_although_http_says_200() {
    let center = Center::start().await;
    let mut body = card("http://127.0.0.1:1/callbacks/purchase", false);
    body["actions"][0]["ios_url"] = json!("");
    let file = center.write("card.json", &body.to_string());
    let ran = center.run(&["message", "send", file.to_str().unwrap()]).await.ended_with(FAILED);
    assert!(ran.stderr.contains("code 60001 (HTTP 200): actionUrls incomplete error"), "{}", ran.stderr);
    assert_eq!(center.state().await["cards"], json!([]));
}
