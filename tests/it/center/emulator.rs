//! The emulator alone, called by a plain client: behaviour that tests against it depend on.

use super::{Center, instance};
use crate::support::client;
use serde_json::{Value, json};

/// A client of the emulator that uses only HTTP.
struct Platform {
    url: String,
    token: String,
}

const DEFINITIONS: &str = "/open-apis/approval/v4/external_approvals";
const INSTANCES: &str = "/open-apis/approval/v4/external_instances";
const TASKS: &str = "/open-apis/approval/v4/external_tasks";
const SEND: &str = "/open-apis/approval/v1/message/send";

impl Platform {
    async fn of(center: &Center) -> Self {
        let mut platform = Self { url: center.url.clone(), token: String::new() };
        let app = json!({ "app_id": "cli_emulator", "app_secret": "emulator-secret" });
        let (_, answer) =
            platform.ask("POST", "/open-apis/auth/v3/tenant_access_token/internal", Some(app)).await;
        assert_eq!(answer.get("data"), None, "a token's answer has no data: {answer}");
        platform.token = answer["tenant_access_token"].as_str().expect("a token").to_owned();
        platform
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = client().request(method, format!("{}{path}", self.url));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("it runs");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn code(&self, method: &str, path: &str, body: Option<Value>) -> (u16, i64) {
        let (status, answer) = self.ask(method, path, body).await;
        (status, answer["code"].as_i64().expect("a code"))
    }

    /// Synchronises an instance, which must succeed.
    async fn sync(&self, instance: &Value) -> Value {
        let (status, answer) = self.ask("POST", INSTANCES, Some(instance.clone())).await;
        assert_eq!((status, &answer["code"]), (200, &json!(0)), "{answer}");
        answer["data"].clone()
    }

    async fn tasks(&self, instance: &str) -> Value {
        let body = json!({ "instance_ids": [instance] });
        self.ask("GET", TASKS, Some(body)).await.1["data"]["data"].clone()
    }
}

fn definition() -> Value {
    json!({
        "approval_name": "@i18n@n", "approval_code": "PO", "group_code": "g", "group_name": "@i18n@g",
        "external": { "support_mobile": true, "allow_batch_operate": true },
        "i18n_resources": [{ "locale": "zh-CN", "is_default": true, "texts": [{ "key": "@i18n@n", "value": "x" }] }]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_misleads_as_the_platform_does() {
    let center = Center::start().await;
    let platform = Platform::of(&center).await;
    let stranger = Platform { url: center.url.clone(), token: String::new() };
    assert_eq!(stranger.code("GET", TASKS, None).await, (400, 99_991_661));
    let wrong = Platform { url: center.url.clone(), token: "x-1".to_owned() };
    assert_eq!(wrong.code("GET", TASKS, None).await, (400, 99_991_671));
    // Definitions cannot be listed or deleted, and the answer is that the token is invalid
    // (platform.md#reading-a-definition).
    assert_eq!(platform.code("GET", DEFINITIONS, None).await, (400, 99_991_663));
    assert_eq!(platform.code("DELETE", &format!("{DEFINITIONS}/X"), None).await, (400, 99_991_663));
    // Without its body a task list has no filter (platform.md#task-status).
    assert_eq!(platform.code("GET", TASKS, None).await, (400, 1_390_001));
    // A member of the wrong type, in the form that the documentation itself shows (platform.md#definitions).
    let mut map = definition();
    map["i18n_resources"][0]["texts"] = json!({ "@i18n@n": "x" });
    assert_eq!(platform.code("POST", DEFINITIONS, Some(map)).await, (400, 9_499));
    let mut no_group = definition();
    no_group["group_code"] = Value::Null;
    assert_eq!(platform.code("POST", DEFINITIONS, Some(no_group)).await, (400, 1_390_001));
    assert_eq!(
        platform.code("POST", SEND, Some(json!({ "template_id": "1008", "user_id": "li4" }))).await,
        (200, 60_001)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn its_definitions_have_two_codes_and_forget_what_an_update_leaves_out() {
    let center = Center::start().await;
    let platform = Platform::of(&center).await;
    let save = async |body: Value| {
        platform.ask("POST", DEFINITIONS, Some(body)).await.1["data"]["approval_code"].clone()
    };
    let real = save(definition()).await;
    let real = real.as_str().unwrap();
    let mut update = definition();
    update["external"] = json!({ "support_pc": true });
    assert_eq!(save(update.clone()).await, real, "by the custom code it is an update");
    let got = platform.ask("GET", &format!("{DEFINITIONS}/{real}"), None).await.1["data"].clone();
    assert_eq!(
        (&got["approval_code"], &got["external"]["allow_batch_operate"]),
        (&json!("PO"), &json!(false))
    );
    assert_eq!(platform.code("GET", &format!("{DEFINITIONS}/PO"), None).await, (400, 1_390_002));
    update["approval_code"] = json!(real);
    assert_ne!(save(update).await, real, "by the real code it is a twin");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_faults_are_told_in_five_turns() {
    let center = Center::start().await;
    let platform = Platform::of(&center).await;
    let real = platform.ask("POST", DEFINITIONS, Some(definition())).await.1["data"]["approval_code"].clone();
    let sound = instance(real.as_str().unwrap(), "I", 2);
    let mut body = sound.clone();
    body["task_list"][0]["node_name"] = json!("plain words");
    body["task_list"][0]["update_time"] = Value::Null;
    body["links"] = Value::Null;
    body["i18n_resources"][0]["texts"] = json!({});
    body["status"] = json!("PENDNG");
    let mut told = Vec::new();
    for member in
        ["/task_list/0/node_name", "/task_list/0/update_time", "/links", "/i18n_resources/0/texts", "/status"]
    {
        let (_, answer) = platform.ask("POST", INSTANCES, Some(body.clone())).await;
        let field = answer["error"]["field_violations"][0]["field"].as_str().unwrap_or_default().to_owned();
        told.push((answer["code"].as_i64().unwrap(), field));
        *body.pointer_mut(member).unwrap() = sound.pointer(member).unwrap().clone();
    }
    let field = |name: &str| (99_992_402, name.to_owned());
    assert_eq!(
        told,
        [
            field("task_list[0].node_name"),
            field("task_list[0].update_time"),
            field("links"),
            (9_499, String::new()),
            (1_390_001, String::new()),
        ]
    );
    let data = platform.sync(&body).await;
    assert_eq!(data["data"]["instance_id"], "I", "the instance is in data.data");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_versions_work_as_documented() {
    let center = Center::start().await;
    let platform = Platform::of(&center).await;
    let real = platform.ask("POST", DEFINITIONS, Some(definition())).await.1["data"]["approval_code"].clone();
    let real = real.as_str().unwrap();
    let two_tasks = |time: i64| {
        let mut body = instance(real, "I", time);
        let mut second = body["task_list"][0].clone();
        second["task_id"] = json!("I:n2");
        body["task_list"].as_array_mut().unwrap().push(second);
        body
    };
    platform.sync(&two_tasks(5)).await;
    // UPDATE: an equal version is ignored, with code 0.
    let mut same = two_tasks(5);
    same["status"] = json!("APPROVED");
    assert_eq!(platform.sync(&same).await["process_record"]["instance"]["update_num"], 0);
    assert_eq!(platform.tasks("I").await[0]["status"], "PENDING");
    // A larger outer version updates only tasks whose own version is larger. Omitted tasks stay.
    let mut later = instance(real, "I", 6);
    later["task_list"][0]["update_time"] = json!("5");
    later["task_list"][0]["status"] = json!("DONE");
    platform.sync(&later).await;
    let tasks = platform.tasks("I").await[0]["tasks"].clone();
    assert_eq!((tasks.as_array().unwrap().len(), &tasks[0]["status"]), (2, &json!("PENDING")));
    // REPLACE: an old version overwrites, and omitted tasks are deleted.
    let mut replace = instance(real, "I", 1);
    replace["update_mode"] = json!("REPLACE");
    assert_eq!(platform.sync(&replace).await["process_record"]["task"]["delete_num"], 1);
    let found = platform.tasks("I").await;
    assert_eq!((&found[0]["update_time"], found[0]["tasks"].as_array().unwrap().len()), (&json!("1"), 1));
    // An ambiguous id hides all its matches, with code 0.
    let mut twice = two_tasks(9);
    twice["instance_id"] = json!("J");
    twice["task_list"][1]["task_id"] = json!("J");
    platform.sync(&twice).await;
    assert_eq!(platform.tasks("J").await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_limits_new_apis_by_429_and_old_ones_by_400() {
    let center = Center::with(&["--per-second", "1000", "--per-minute", "3"], "").await;
    let platform = Platform::of(&center).await;
    for (method, path, limited) in [("GET", TASKS, 429), ("POST", SEND, 400)] {
        for _ in 0..3 {
            assert_ne!(platform.code(method, path, Some(json!({}))).await.1, 99_991_400);
        }
        assert_eq!(platform.code(method, path, Some(json!({}))).await, (limited, 99_991_400));
    }
    let request = client().get(format!("{}{TASKS}", center.url)).bearer_auth(&platform.token);
    let answer = request.send().await.unwrap();
    let reset: u64 = answer.headers()["x-ogw-ratelimit-reset"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&reset), "{reset}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_cannot_ask_it_for_anything() {
    let center = Center::with(&["--host", "emulator.test"], "").await;
    let authority = center.url.strip_prefix("http://").expect("http").to_owned();
    let (_, port) = authority.rsplit_once(':').expect("a port");
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = client().request(method, format!("{}{path}", center.url)).body("{}");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.header("content-type", "application/json").send().await.expect("it runs");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    };
    let own = format!("http://{authority}");
    let (named, addressed) = (format!("emulator.test:{port}"), format!("10.0.0.7:{port}"));
    let foreign: [&[(&str, &str)]; 6] = [
        &[("host", "evil.example")],
        &[("host", "localhost.evil.example")],
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
    ];
    let ours: [&[(&str, &str)]; 5] = [
        &[],
        &[("host", &named)],
        &[("host", &addressed)],
        &[("origin", &own), ("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "none")],
    ];
    for (method, path) in [
        ("GET", "/emulator/state"),
        ("POST", "/emulator/press"),
        ("GET", "/emulator/taps"),
        ("GET", "/emulator/taps/1"),
        ("POST", "/emulator/taps/1/replay"),
        ("POST", "/emulator/taps/1/edit"),
        ("GET", "/emulator/events"),
        ("POST", "/emulator/failures"),
        ("DELETE", "/emulator/tokens"),
        ("PUT", "/emulator/native_instances/X"),
        ("POST", "/open-apis/auth/v3/tenant_access_token/internal"),
        ("GET", TASKS),
        ("GET", "/"),
    ] {
        for headers in foreign {
            let (status, body) = ask(method, path, headers).await;
            assert_eq!(status, 403, "{method} {path} {headers:?}: {body}");
            assert!(body.starts_with("{\"problem\":"), "{body}");
        }
        // The stream has no end, so only who may not open it is tried.
        for headers in ours.into_iter().filter(|_| path != "/emulator/events") {
            let (status, body) = ask(method, path, headers).await;
            assert_ne!(status, 403, "{method} {path} {headers:?}: {body}");
        }
    }
}
