//! Real messages, taken from the queue.

use super::asyncapi::{document, faults_of_message};
use super::{faults, schema, validator};
use crate::support::{App, Callback, Config, Endpoint, KEY, Message, Vhost, Worker};
use serde_json::{Value, json};

const FIELDS: &str = r#"{ task_id = "/t", instance_id = "/i", round = "/r", data = "/data" }"#;

fn content_type(message: &Message) -> String {
    message.properties.content_type().as_ref().map(ToString::to_string).unwrap_or_default()
}

fn config(vhost: &Vhost) -> Config {
    let key = "[ { secret = \"whsec_c2lnbmluZy1mYWtlLWZha2UtZmFrZS1mYWtlLWZha2U=\" } ]";
    Config::bare(vhost.url())
        .set("amqp.signing", "keys", key)
        .endpoint(Endpoint::encrypted("purchase").set("actions", r#"["APPROVE", "REJECT", "HOLD"]"#))
        .endpoint(Endpoint::plain("j").context("format", "\"json\"").context("fields", FIELDS))
        .endpoint(Endpoint::plain("events").set("profile", "\"cloudevents\""))
        .endpoint(Endpoint::plain("binary").set("profile", "\"cloudevents-binary\""))
        .endpoint(Endpoint::plain("tasks").set("profile", "\"celery\"").set("celery_task", "\"erp.approve\""))
        .endpoint(Endpoint::plain("transit").set("profile", "\"masstransit\""))
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_every_origin_and_action_are_valid() {
    let vhost = Vhost::new().await;
    let app = App::with(config(&vhost)).await;
    let worker = Worker::on(&vhost);
    let (schema, document) = (validator(&schema().await), document().await);
    let everything = Callback::list("i-1", "t-1")
        .action("REJECT")
        .context("ctx 审批")
        .with("reason", "金额不符")
        .raw(
            "attachments",
            r#"[{"file_type":"IMAGE","file_size":12345,"url":"https://cdn.example.invalid/1","n":1.50}]"#,
        )
        .raw("unknown", r#"{"a":[1,null,12345678901234567890]}"#);
    let callbacks = [
        ("list", everything),
        ("card", Callback::card("ctx", 7_690_275_278_685_244_603)),
        ("search", Callback::search("t-2").action("HOLD")),
        ("", Callback::card("only a context", 1).without("message_id")),
        // Contradicts the first within the window.
        ("list", Callback::list("i-1", "t-1")),
    ];
    let mut bodies = Vec::new();
    for (origin, callback) in callbacks {
        let id = app.post("purchase", callback.encrypted(KEY)).await.command_id();
        let message = worker.command(&id).await;
        let body = message.json();
        assert_eq!(body["origin"].as_str().unwrap_or(""), origin);
        assert_eq!(faults(&schema, &body), [""; 0], "{body}");
        let headers = json!(message.headers());
        assert_eq!(faults_of_message(&document, &content_type(&message), &headers, &body), [""; 0], "{body}");
        bodies.push(body);
    }
    assert_eq!(bodies[4]["conflicts_with"], bodies[0]["command_id"]);
    let resolved = Callback::card(r#"{"t":"t-3","i":3,"r":2,"data":{"amount":1.10}}"#, 8);
    let id = app.post("j", resolved.plain()).await.command_id();
    let body = worker.command(&id).await.json();
    assert_eq!(body["task"]["resolved_by"], "json");
    assert_eq!(faults(&schema, &body), [""; 0], "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_profile_is_published_as_documented_with_the_same_command_inside() {
    let vhost = Vhost::new().await;
    let app = App::with(config(&vhost)).await;
    let worker = Worker::on(&vhost);
    let (schema, document) = (validator(&schema().await), document().await);
    let profiles = [
        ("j", "application/json", ""),
        ("events", "application/cloudevents+json", "/data"),
        ("binary", "application/json", ""),
        ("tasks", "application/json", "/0/0"),
        ("transit", "application/vnd.masstransit+json", "/message"),
    ];
    for (endpoint, expected, inside) in profiles {
        for (number, callback) in
            [Callback::list("i-1", "t-1"), Callback::card("ctx", 7), Callback::search("t-2")]
                .into_iter()
                .enumerate()
        {
            let id = app.post(endpoint, callback.plain()).await.command_id();
            let message = worker.command(&id).await;
            let (body, headers) = (message.json(), json!(message.headers()));
            assert_eq!(content_type(&message), expected, "{endpoint} {number}");
            assert_eq!(
                faults_of_message(&document, expected, &headers, &body),
                [""; 0],
                "{endpoint}: {body}"
            );
            let command = body.pointer(inside).expect(endpoint);
            assert_eq!(faults(&schema, command), [""; 0], "{endpoint}: {command}");
            assert_eq!((&command["command_id"], &command["endpoint"]), (&json!(id), &json!(endpoint)));
            let properties = &message.properties;
            let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
            assert_eq!(message.message_id(), id, "{endpoint}");
            assert_eq!(text(properties.kind()).as_deref(), Some("approval.command.v1"), "{endpoint}");
            assert_eq!(text(properties.content_encoding()).as_deref(), Some("utf-8"), "{endpoint}");
            assert_eq!(text(properties.reply_to()), None, "{endpoint}");
            let correlation = text(properties.correlation_id());
            let instance = command["task"]["instance_id"].as_str().map(str::to_owned);
            if endpoint == "tasks" {
                assert_eq!((correlation, &headers["task"]), (Some(id.clone()), &json!("erp.approve")));
            } else {
                assert_eq!(correlation, instance, "{endpoint}");
            }
            let event = (endpoint == "binary").then(|| Value::from(id));
            assert_eq!(headers.get("cloudEvents_id"), event.as_ref(), "{endpoint}");
        }
    }
}
