//! From `action_context` to the task.

use crate::refuse::assert_refused;
use crate::support::{App, Callback, Config, Endpoint, NOWHERE, Vhost, Worker};
use serde_json::{Value, json};

const FIELDS: &str =
    r#"{ task_id = "/task/id", instance_id = "/i", round = "/r", business_key = "/no", data = "/data" }"#;

/// A context in which every pointer of [`FIELDS`] to an id finds one.
const WHOLE: &str = r#"{"task":{"id":"t"},"i":"i","r":"1"}"#;

fn json_endpoint(name: &str) -> Endpoint {
    Endpoint::plain(name).context("format", "\"json\"").context("fields", FIELDS)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_context_is_passed_on_and_the_callbacks_own_fields_name_the_task() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let context = "{\"looks\":\"like JSON\"}\n 审批 ";
    let id = app.accept(&Callback::list("inst", "task").context(context)).await;
    let command = Worker::on(&vhost).command(&id).await.json();
    assert_eq!(command["action_context"], context);
    assert_eq!(
        command["task"],
        json!({"approval_code": "PO_APPROVAL", "instance_id": "inst", "task_id": "task", "round": null,
               "business_key": null, "resolved_by": "opaque", "data": {}})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn json_pointers_name_the_task_of_a_card_that_names_none() {
    let vhost = Vhost::new().await;
    let app = App::with(Config::bare(vhost.url()).endpoint(json_endpoint("j"))).await;
    let context =
        r#"{"task":{"id":"t-1"},"i":42,"r":"2","no":"PO-77","data":{"amount":12345678901234567890.10}}"#;
    let id = app.post("j", Callback::card(context, 7).plain()).await.command_id();
    let message = Worker::on(&vhost).command(&id).await;
    let command = message.json();
    let task = &command["task"];
    assert_eq!((&task["task_id"], &task["instance_id"]), (&json!("t-1"), &json!("42")));
    assert_eq!((&task["round"], &task["business_key"]), (&json!("2"), &json!("PO-77")));
    assert_eq!(task["resolved_by"], "json");
    assert!(
        String::from_utf8_lossy(&message.body).contains("12345678901234567890.10"),
        "data is passed untouched"
    );
    assert_eq!(command["action_context"], context);
    let headers = message.headers();
    assert_eq!((headers["task_id"].as_str(), headers["instance_id"].as_str()), ("t-1", "42"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pointers_with_escapes_and_indexes_are_followed() {
    let vhost = Vhost::new().await;
    let endpoint = Endpoint::plain("j")
        .context("format", "\"json\"")
        .context("fields", r#"{ task_id = "/a~1b/1", instance_id = "/m~0n" }"#);
    let app = App::with(Config::bare(vhost.url()).endpoint(endpoint)).await;
    let context = r#"{"a/b":["zero","one"],"m~n":"inst"}"#;
    let id = app.post("j", Callback::card(context, 7).plain()).await.command_id();
    let command = Worker::on(&vhost).command(&id).await.json();
    assert_eq!(
        (&command["task"]["task_id"], &command["task"]["instance_id"]),
        (&json!("one"), &json!("inst"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_contradicts_the_callback_is_invalid() {
    let app = App::with(Config::bare(NOWHERE).endpoint(json_endpoint("j"))).await;
    let context = r#"{"task":{"id":"t-1"},"i":"i-1","r":1}"#;
    let agreeing = Callback::list("i-1", "t-1").context(context);
    assert_eq!(app.post("j", agreeing.plain()).await.status, 200);
    let contradicting = [
        Callback::list("i-1", "t-2").context(context),
        Callback::list("i-2", "t-1").context(context),
        Callback::search("t-2").context(context),
    ];
    for callback in contradicting {
        assert_refused(&app.post("j", callback.plain()).await, "context_invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_no_format_fits_is_published_as_unresolved() {
    let vhost = Vhost::new().await;
    let app = App::with(Config::bare(vhost.url()).endpoint(json_endpoint("j"))).await;
    let worker = Worker::on(&vhost);
    for (number, context) in
        ["not JSON", "[]", r#"{"task":{"id":null}}"#, r#"{"other":1}"#].into_iter().enumerate()
    {
        let id = app.post("j", Callback::card(context, 7 + number as u64).plain()).await.command_id();
        let command = worker.command(&id).await.json();
        assert_eq!(command["task"]["resolved_by"], Value::Null, "{context}");
        assert_eq!(command["action_context"], context);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_must_be_resolved_a_context_that_does_not_fit_is_invalid() {
    let config = Config::bare(NOWHERE).endpoint(json_endpoint("j").context("on_unresolved", "\"refuse\""));
    let app = App::with(config).await;
    for context in ["not JSON", "[]", "", r#"{"other":1}"#] {
        assert_refused(&app.post("j", Callback::card(context, 7).plain()).await, "context_invalid");
    }
    assert_eq!(app.post("j", Callback::card(WHOLE, 7).plain()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_are_tried_in_their_order() {
    let vhost = Vhost::new().await;
    let endpoint =
        Endpoint::plain("both").context("format", r#"["json", "opaque"]"#).context("fields", FIELDS);
    let app = App::with(Config::bare(vhost.url()).endpoint(endpoint)).await;
    let worker = Worker::on(&vhost);
    for (context, resolved_by) in [(WHOLE, "json"), ("no JSON at all", "opaque")] {
        let id = app.post("both", Callback::list("i", "t").context(context).plain()).await.command_id();
        assert_eq!(worker.command(&id).await.json()["task"]["resolved_by"], resolved_by, "{context}");
    }
}
