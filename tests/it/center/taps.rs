//! What the emulator keeps of each tap, and how pages and programs get it.

use super::{Center, FAILED, messages};
use crate::support::{App, Config, Endpoint, NOWHERE, client};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const TOKEN: &str = "fake-token-number-1";

/// The service with the endpoint `purchase` as in the emulator's cards; accepting needs no broker.
async fn service() -> App {
    let endpoint = Endpoint::encrypted("purchase").credentials(&[(TOKEN, Some("fake-key-number-1"))]);
    App::with(Config::bare(NOWHERE).endpoint(endpoint)).await
}

async fn get(center: &Center, path: &str) -> (u16, Value) {
    let answer = client().get(format!("{}{path}", center.url)).send().await.expect("it runs");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn post(center: &Center, path: &str, body: Value) -> (u16, Value) {
    let answer = client().post(format!("{}{path}", center.url)).json(&body).send().await.expect("it runs");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_is_kept_with_its_bytes_and_can_be_sent_again_or_edited() {
    let app = service().await;
    let center = Center::start().await;
    let card = messages::send(&center, &messages::card(&app.callback_url("purchase"), false)).await;
    let told = center.press(&["--message", &card]).await.ended_with(0).json();
    assert_eq!(told["tap"], 1, "{told}");
    let (status, tap) = get(&center, "/emulator/taps/1").await;
    assert_eq!((status, &tap["target"]["message_id"]), (200, &json!(card)), "{tap}");
    assert_eq!((&tap["answer"]["word"], &tap["answer"]["shown"]), (&json!("accepted"), &json!("提交成功")));
    let decrypted = tap["request"]["decrypted"].as_str().unwrap();
    assert!(decrypted.contains("\"action_type\":\"APPROVE\""), "{decrypted}");
    assert!(tap["request"]["as_sent"].as_str().unwrap().starts_with("{\"encrypt\":\""), "{tap}");

    // The same bytes are the same command.
    let (_, again) = post(&center, "/emulator/taps/1/replay", Value::Null).await;
    assert_eq!(
        (&again["source"], &again["answer"]["word"]),
        (&json!({ "kind": "replay", "of": 1 }), &json!("duplicate"))
    );
    assert_eq!(again["request"]["as_sent"], tap["request"]["as_sent"]);
    assert_eq!(again["answer"]["command_id"], tap["answer"]["command_id"]);

    // Another body is encrypted again, with the token in its place.
    let body = decrypted.replace("APPROVE", "HOLD");
    let (_, edited) = post(&center, "/emulator/taps/1/edit", json!({ "body": body })).await;
    assert_eq!(
        (&edited["answer"]["status"], &edited["answer"]["word"]),
        (&json!(422), &json!("action_not_allowed")),
        "{edited}"
    );
    let (_, edited) = post(&center, "/emulator/taps/1/edit", json!({ "body": "{}" })).await;
    assert_eq!(edited["answer"]["status"], 403, "{edited}");

    let (_, listed) = get(&center, "/emulator/taps").await;
    let numbers: Vec<_> =
        listed["taps"].as_array().unwrap().iter().map(|tap| tap["id"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    assert!(!listed.to_string().contains(TOKEN), "{listed}");
    assert!(!center.state().await.to_string().contains(TOKEN));
    assert_eq!(get(&center, "/emulator/taps/5").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_center_is_told_stands_with_the_tap() {
    let app = service().await;
    let center = Center::start().await;
    let card = messages::send(&center, &messages::card(&app.callback_url("purchase"), false)).await;
    center.press(&["--message", &card]).await.ended_with(0);
    center.run(&["message", "update", &card, "--status", "APPROVED"]).await.ended_with(0);
    let (_, tap) = get(&center, "/emulator/taps/1").await;
    let turn = &tap["turns"][0];
    assert_eq!(
        (&turn["what"], &turn["from"], &turn["to"], &turn["by_itself"]),
        (&json!("card"), &json!("BUTTONS"), &json!("APPROVED"), &json!(false)),
        "{tap}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_that_something_changed_and_nothing_else() {
    let center = Center::start().await;
    let open =
        async || client().get(format!("{}/emulator/events", center.url)).send().await.expect("it runs");
    let mut stream = open().await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let plan = json!({ "path": "/nothing", "code": 1 });
    assert_eq!(stream.chunk().await.expect("a chunk").expect("the first"), "data: 0\n\n");
    // However much happens, events come apart.
    let began = Instant::now();
    let busy = async {
        for _ in 0..200 {
            client().post(format!("{}/open-apis/x", center.url)).json(&plan).send().await.expect("it runs");
        }
    };
    let mut events = Vec::new();
    let watch = async {
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(Duration::from_millis(600), stream.chunk()).await
        {
            events.push(String::from_utf8(chunk.to_vec()).expect("UTF-8"));
        }
    };
    tokio::join!(busy, watch);
    let most = began.elapsed().as_millis() / 250 + 1;
    assert!(!events.is_empty() && events.len() as u128 <= most, "{} of {most}: {events:?}", events.len());
    for event in &events {
        let count =
            event.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).expect("one counter");
        assert!(count.parse::<u64>().is_ok(), "{event}");
    }
    assert!(events.last().unwrap().contains("200"), "the last change is told: {events:?}");

    let mut streams = vec![stream];
    loop {
        let next = open().await;
        if next.status() == 503 {
            break;
        }
        assert_eq!(next.status(), 200);
        streams.push(next);
        assert!(streams.len() <= 32, "there is no bound");
    }
    assert_eq!(streams.len(), 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_foreign_texts_as_texts() {
    let center = Center::start().await;
    let hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u{202e}\u{1b}[2J{{7*7}}";
    let mut card = messages::card("http://127.0.0.1:1/callbacks/purchase", false);
    for pointer in ["/i18n_resources/0/texts/@i18n@n", "/i18n_resources/0/texts/@i18n@s", "/content/user_id"]
    {
        *card.pointer_mut(pointer).unwrap() = json!(hostile);
    }
    card["action_callback"]["action_context"] = json!(hostile);
    card["action_configs"][0] = json!({ "action_type": hostile, "action_name": hostile });
    let card = messages::send(&center, &card).await;
    center.press(&["--message", &card, "--action", hostile, "--reason", hostile]).await.ended_with(FAILED);
    for path in ["/", "/taps/1?view=sent", "/taps/1?view=hex", "/taps/1?view=curl", "/taps", "/taps/1/edit"] {
        let asked = client().get(format!("{}{path}", center.url)).header("accept", "text/html").send().await;
        let answer = asked.expect("it runs");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
        let page = answer.text().await.expect("a text");
        assert!(page.starts_with("<!doctype html>"), "{path}: {page}");
        for raw in ["<script>alert", "<img", "\"'>", "\u{1b}", "\u{202e}"] {
            // A text field of a form is read back as it is; there it is only escaped.
            if raw != "\u{202e}" || path != "/taps/1/edit" {
                assert!(!page.contains(raw), "{path} has {raw:?}:\n{page}");
            }
        }
        assert!(!page.contains(TOKEN), "{path}");
    }
}
