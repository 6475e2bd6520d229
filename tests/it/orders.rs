//! Requeue, park and show again by the API.

use crate::support::{App, Callback, Config, NOWHERE, quoted};
use serde_json::{Value, json};

const TOKEN: &str = "fake-token-of-an-operator-0001";

async fn app() -> App {
    let tokens = format!(r#"[{{ name = "ops", role = "operate", token = {} }}]"#, quoted(TOKEN));
    App::with(Config::with_url(NOWHERE).set("admin", "tokens", &tokens)).await
}

async fn post(app: &App, path: &str, body: Option<Value>) -> (u16, Value) {
    let request = app.client().post(format!("http://{}{path}", app.admin())).bearer_auth(TOKEN);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    answered(request).await
}

async fn get(app: &App, path: &str) -> Value {
    let request = app.client().get(format!("http://{}{path}", app.admin())).bearer_auth(TOKEN);
    let (status, answer) = answered(request).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn answered(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_is_parked_and_requeued_by_its_id_or_place_with_a_reason_in_the_record() {
    let app = app().await;
    let id = app.accept(&Callback::list("i", "t")).await;
    let (status, answer) = post(&app, &format!("/api/v1/commands/{id}/requeue"), None).await;
    assert_eq!((status, &answer["error"]), (409, &json!("other_state")), "{answer}");
    assert!(answer["message"].as_str().is_some_and(|words| words.contains("pending")), "{answer}");

    let body = json!({ "reason": "wait for li4", "if_state": "pending" });
    let (status, answer) = post(&app, "/api/v1/commands/1/park", Some(body.clone())).await;
    assert_eq!((status, &answer), (202, &json!({ "command_id": id, "act_id": 1, "state": "parked" })));
    let (status, answer) = post(&app, "/api/v1/commands/1/park", Some(body)).await;
    assert_eq!((status, &answer["error"]), (409, &json!("other_state")), "{answer}");
    assert_eq!(get(&app, &format!("/api/v1/commands/{id}")).await["state"], "parked");

    let (status, answer) = post(&app, &format!("/api/v1/commands/{id}/requeue"), None).await;
    assert_eq!((status, &answer["state"]), (202, &json!("pending")), "{answer}");
    let acts = get(&app, &format!("/api/v1/acts?command_id={id}")).await;
    let told: Vec<_> =
        acts["acts"].as_array().expect("acts").iter().map(|act| json!([act["act"], act["reason"]])).collect();
    assert_eq!(told, [json!(["requeue", null]), json!(["park", "wait for li4"])]);
    assert_eq!(acts["acts"][0]["actor"], json!({ "via": "api", "name": "ops", "peer": "127.0.0.1" }));

    let (status, answer) = post(&app, &format!("/api/v1/commands/{id}/show-again"), None).await;
    assert_eq!((status, &answer["error"]), (409, &json!("no_outcome")), "{answer}");
    let (status, answer) = post(&app, "/api/v1/commands/9/park", None).await;
    assert_eq!((status, &answer["error"]), (404, &json!("no_such_command")), "{answer}");
    let (status, answer) = post(&app, "/api/v1/commands/1/park", Some(json!({ "reson": "misspelt" }))).await;
    assert_eq!((status, &answer["member"]), (400, &json!("reson")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_are_one_act_and_each_has_its_result() {
    let app = app().await;
    let mut ids = Vec::new();
    for task in ["a", "b", "c"] {
        ids.push(app.accept(&Callback::list("i", task)).await);
    }
    let (status, _) = post(&app, &format!("/api/v1/commands/{}/park", ids[0]), None).await;
    assert_eq!(status, 202);
    let unknown = "019a0000-0000-7000-8000-000000000001";
    let body = json!({ "command_ids": [ids[0], ids[1], unknown, ids[2]], "reason": "all of it" });
    let (status, answer) = post(&app, "/api/v1/commands:park", Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    let expected = json!({ "act_id": 2, "done": 2, "results": [
        { "command_id": ids[0], "result": "other_state", "state": "parked" },
        { "command_id": ids[1], "result": "done" },
        { "command_id": unknown, "result": "no_such_command" },
        { "command_id": ids[2], "result": "done" },
    ]});
    assert_eq!(answer, expected);
    assert_eq!(get(&app, "/api/v1/acts").await["acts"][0]["count"], 2);

    let body = json!({ "command_ids": ids, "if_state": "published" });
    let (status, answer) = post(&app, "/api/v1/commands:requeue", Some(body)).await;
    assert_eq!((status, &answer["act_id"], &answer["done"]), (200, &Value::Null, &json!(0)), "{answer}");
    let (_, answer) = post(&app, "/api/v1/commands:requeue", Some(json!({ "command_ids": ids }))).await;
    assert_eq!(answer["done"], 3, "{answer}");
    let (_, answer) = post(&app, "/api/v1/commands:show-again", Some(json!({ "command_ids": ids }))).await;
    assert_eq!(answer["results"][2], json!({ "command_id": ids[2], "result": "no_outcome" }));
    let (status, answer) = post(&app, "/api/v1/commands:requeue", None).await;
    assert_eq!((status, &answer["error"]), (415, &json!("not_json")), "{answer}");
}
