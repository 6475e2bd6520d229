//! The API for registering contexts.

use serde_json::{Value, json};

use super::*;
use double::Fault;

const PATH: &str = "/api/v1/contexts/k";
const BATCH: &str = "/api/v1/contexts:batch";
const JSON: &str = "Content-Type: application/json\r\n";

impl Service {
    async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let host = if headers.contains("Host:") { "" } else { "Host: localhost:9090\r\n" };
        let mut connection = Connection::open(self.internal).await;
        connection
            .send(&format!(
                "{method} {path} HTTP/1.1\r\n{host}{headers}Content-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        connection.answer().await
    }

    async fn put(&self, path: &str, body: &str) -> Answer {
        self.ask("PUT", path, JSON, body).await
    }

    async fn batch(&self, body: &str) -> Answer {
        self.ask("POST", BATCH, JSON, body).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, "", "").await
    }
}

fn whole() -> Value {
    json!({
        "instance_id": "i1", "task_id": "t1", "round": "2", "business_key": "PO-77",
        "operators": ["zhang3"], "actions": ["APPROVE"], "approval_code": "CODE", "endpoint": "plain",
        "message_id": u64::MAX, "expires_at": "2999-01-01T08:00:00.1239+08:00", "data": {"a": [null]},
    })
}

fn error(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_context_is_registered_shown_replaced_and_removed() {
    let service = Service::start();
    assert_eq!(error(&service.get(PATH).await), (404, "no_such_context".to_owned()));
    let created = service.put(PATH, &whole().to_string()).await;
    assert_eq!((created.status, created.header("content-type")), (201, Some("application/json")));
    let mut expected = whole();
    expected["key"] = "k".into();
    expected["message_id"] = u64::MAX.to_string().into();
    expected["expires_at"] = "2999-01-01T00:00:00.123Z".into();
    let mut shown = created.json();
    assert!(shown.as_object_mut().unwrap().remove("registered_at").is_some());
    assert_eq!(shown, expected);
    assert_eq!(service.get(PATH).await.body, created.body);

    let replaced = service.put(PATH, r#"{"instance_id":"i2","task_id":null,"data":null}"#).await;
    assert_eq!(replaced.status, 200);
    let shown = service.get(PATH).await.json();
    for (member, value) in shown.as_object().unwrap() {
        match &**member {
            "key" => assert_eq!(value, "k"),
            "instance_id" => assert_eq!(value, "i2"),
            "registered_at" => assert!(value.is_string()),
            _ => assert!(value.is_null(), "{member} was replaced by nothing: {value}"),
        }
    }
    let removed = service.delete(PATH).await;
    assert_eq!((removed.status, &*removed.body), (204, ""));
    assert_eq!(error(&service.delete(PATH).await), (404, "no_such_context".to_owned()));
    assert_eq!(service.get(PATH).await.status, 404);
    service.stop().await;
}

#[tokio::test]
async fn a_key_may_be_any_text_of_some_length() {
    let service = Service::start();
    let long = "x".repeat(1024);
    for (encoded, key) in [
        ("a%2Fb", "a/b"),
        ("a%2fb%3F%23%25", "a/b?#%"),
        ("%7B%22t%22%3A%22%E5%AE%A1%22%7D", r#"{"t":"审"}"#),
        ("a+b%20c", "a+b c"),
        ("%252F", "%2F"),
        (&long, &long),
    ] {
        let path = format!("/api/v1/contexts/{encoded}");
        let answer = service.put(&path, r#"{"task_id":"t"}"#).await;
        assert_eq!((answer.status, &answer.json()["key"]), (201, &key.into()), "{encoded}");
        assert_eq!(service.get(&path).await.json()["key"], key);
        assert_eq!(service.delete(&path).await.status, 204);
    }
    let too_long = "x".repeat(1025);
    for encoded in ["%ff", "%E5%AE", "%zz", "%4", &too_long] {
        for method in ["PUT", "GET", "DELETE"] {
            let path = format!("/api/v1/contexts/{encoded}");
            let answer = service.ask(method, &path, JSON, r#"{"task_id":"t"}"#).await;
            assert_eq!(error(&answer), (400, "bad_parameter".to_owned()), "{method} {encoded}");
            assert_eq!(answer.json()["parameter"], "key");
        }
    }
    for path in ["/api/v1/contexts", "/api/v1/contexts/", "/api/v1/contexts/a/b"] {
        assert_eq!(error(&service.put(path, "{}").await), (404, "not_found".to_owned()), "{path}");
    }
    let query = service.put("/api/v1/contexts/k?task_id=t", r#"{"task_id":"t"}"#).await;
    assert_eq!((query.status, &query.json()["parameter"]), (400, &"task_id".into()));
    service.stop().await;
}

/// `task_id` and these members.
fn with(members: &str) -> String {
    format!(r#"{{"task_id":"t",{members}}}"#)
}

#[tokio::test]
async fn members_are_read_strictly_and_the_wrong_one_is_named() {
    let service = Service::start();
    let (id, too_long) = ("x".repeat(512), "x".repeat(513));
    let many: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
    let deep = |depth: usize| format!(r#""data":{}{}"#, "[".repeat(depth), "]".repeat(depth));
    for members in [
        format!(r#""instance_id":"{id}","round":"{id}","approval_code":"{id}","operators":["{id}"]"#),
        format!(r#""operators":{}"#, json!(many)),
        r#""message_id":0"#.to_owned(),
        r#""message_id":"18446744073709551615""#.to_owned(),
        r#""message_id":null,"operators":null,"actions":null,"expires_at":null,"endpoint":null"#.to_owned(),
        r#""expires_at":"2026-11-20t08:15:30z""#.to_owned(),
        r#""expires_at":"2026-11-20T08:15:60.123456789012-11:30""#.to_owned(),
        r#""expires_at":"9999-12-31T23:59:59Z""#.to_owned(),
        r#""endpoint":"a_-9""#.to_owned(),
        format!(r#""data":"[\"\\{}""#, "[".repeat(40)),
        format!(r#""data":"{}""#, "x".repeat(16382)),
        r#""data":1e999"#.to_owned(),
        deep(32),
    ] {
        let answer = service.put(PATH, &with(&members)).await;
        assert!(matches!(answer.status, 200 | 201), "{members}: {}", answer.body);
    }
    let wrong = [
        ("task_id", r#"{}"#.to_owned()),
        ("task_id", r#"{"task_id":null,"instance_id":null}"#.to_owned()),
        ("task_id", r#"{"task_id":7}"#.to_owned()),
        ("task_id", r#"{"task_id":""}"#.to_owned()),
        ("task_id", r#"{"task_id":["t"]}"#.to_owned()),
        ("task_id", r#"{"task_id":"\ud800"}"#.to_owned()),
        ("task_id", format!(r#"{{"task_id":"{too_long}"}}"#)),
        ("task_id", r#"{"task_id":"a","task\u005fid":"b"}"#.to_owned()),
        ("instance_id", with(&format!(r#""instance_id":"{too_long}""#))),
        ("round", with(r#""round":2"#)),
        ("business_key", with(r#""business_key":{}"#)),
        ("approval_code", with(r#""approval_code":true"#)),
        ("operators", with(r#""operators":"zhang3""#)),
        ("operators", with(r#""operators":[]"#)),
        ("operators", with(r#""operators":[null]"#)),
        ("operators", with(r#""operators":[1]"#)),
        ("operators", with(&format!(r#""operators":["{too_long}"]"#))),
        ("operators", with(&format!(r#""operators":{}"#, json!([many.clone(), many].concat())))),
        ("actions", with(r#""actions":{}"#)),
        ("actions", with(r#""actions":[""]"#)),
        ("endpoint", with(r#""endpoint":"Plain""#)),
        ("endpoint", with(r#""endpoint":"-a""#)),
        ("message_id", with(r#""message_id":-1"#)),
        ("message_id", with(r#""message_id":1.0"#)),
        ("message_id", with(r#""message_id":1e3"#)),
        ("message_id", with(r#""message_id":18446744073709551616"#)),
        ("message_id", with(r#""message_id":"+1""#)),
        ("message_id", with(r#""message_id":"""#)),
        ("message_id", with(r#""message_id":[]"#)),
        ("expires_at", with(r#""expires_at":1795161600"#)),
        ("expires_at", with(r#""expires_at":1795161600000"#)),
        ("expires_at", with(r#""expires_at":"9999-12-31T23:59:59-00:01""#)),
        ("expires_at", with(r#""expires_at":"10000-01-01T00:00:00Z""#)),
        ("expires_at", with(r#""expires_at":"2 h ago""#)),
        ("expires_at", with(r#""expires_at":"tomorrow""#)),
        ("expires_at", with(r#""expires_at":"2026-11-20""#)),
        ("expires_at", with(r#""expires_at":"2026-11-20T08:15:30""#)),
        ("expires_at", with(r#""expires_at":"2026-11-20 08:15:30Z""#)),
        ("expires_at", with(r#""expires_at":"2026-11-20T08:15:30+08""#)),
        ("expires_at", with(r#""expires_at":"2026-11-20T08:15:30.Z""#)),
        ("expires_at", with(r#""expires_at":"2026-02-30T08:15:30Z""#)),
        ("expires_at", with(r#""expires_at":"2026-11-20T08:15:30+08:00[Asia/Shanghai]""#)),
        ("data", with(&format!(r#""data":"{}""#, "x".repeat(16383)))),
        ("data", with(&deep(33))),
        ("data", with(&deep(8000))),
        ("taskid", with(r#""taskid":"t""#)),
        ("key", with(r#""key":"k""#)),
    ];
    for (member, body) in &wrong {
        let answer = service.put(PATH, body).await;
        assert_eq!(error(&answer), (400, "bad_member".to_owned()), "{body}");
        assert_eq!(
            (&answer.json()["member"], answer.json().get("item")),
            (&(*member).into(), None),
            "{body}"
        );
    }
    for body in ["", "[]", "null", "\"x\"", "{", "{}{}", "{\"task_id\":\"t\",}", "\u{feff}{}"] {
        assert_eq!(error(&service.put(PATH, body).await), (400, "bad_body".to_owned()), "{body}");
        assert_eq!(error(&service.batch(body).await), (400, "bad_body".to_owned()), "{body}");
    }
    // The same items in a batch, after a valid one.
    for (member, body) in wrong.iter().filter(|(member, _)| *member != "key") {
        let item = body.replacen('{', r#"{"key":"k","#, 1).replace(",}", "}");
        let answer = service.batch(&format!(r#"{{"contexts":[{{"key":"a","task_id":"t"}},{item}]}}"#)).await;
        assert_eq!(error(&answer), (400, "bad_member".to_owned()), "{item}");
        assert_eq!(
            (&answer.json()["member"], &answer.json()["item"]),
            (&(*member).into(), &1.into()),
            "{item}"
        );
    }
    assert_eq!(service.get("/api/v1/contexts/a").await.status, 404, "all or nothing");
    service.stop().await;
}

#[tokio::test]
async fn a_batch_is_registered_whole_or_not_at_all() {
    let service = Service::start();
    let contexts = |range: std::ops::Range<u64>| -> Vec<_> {
        range.map(|n| json!({"key": format!("k{n}"), "task_id": "t", "message_id": n})).collect()
    };
    let batch = |contexts: Vec<Value>| json!({ "contexts": contexts }).to_string();
    let answer = service.batch(&batch(contexts(0..600))).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"created": 600, "replaced": 0})));
    let answer = service.batch(&batch(contexts(500..1500))).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"created": 900, "replaced": 100})));
    assert_eq!(service.get("/api/v1/contexts/k1499").await.json()["message_id"], "1499");

    let twice = |key: &str, message_id: u64| {
        let mut contexts = contexts(2000..2003);
        contexts[2] = json!({"key": key, "task_id": "t", "message_id": message_id});
        batch(contexts)
    };
    for (member, body) in [("key", twice("k2000", 9999)), ("message_id", twice("other", 2001))] {
        let answer = service.batch(&body).await;
        assert_eq!(error(&answer), (400, "bad_member".to_owned()));
        assert_eq!((&answer.json()["member"], &answer.json()["item"]), (&member.into(), &2.into()));
    }
    let taken = service.batch(&twice("other", 7)).await;
    assert_eq!(error(&taken), (409, "message_taken".to_owned()));
    assert_eq!((&taken.json()["member"], &taken.json()["item"]), (&"message_id".into(), &2.into()));
    let taken = service.put(PATH, r#"{"task_id":"t","message_id":7}"#).await;
    assert_eq!(error(&taken), (409, "message_taken".to_owned()));
    assert_eq!(taken.json().get("item"), None);
    assert_eq!(service.get("/api/v1/contexts/k2000").await.status, 404);

    for (member, body) in [
        ("contexts", "{}".to_owned()),
        ("contexts", r#"{"contexts":null}"#.to_owned()),
        ("contexts", r#"{"contexts":{}}"#.to_owned()),
        ("contexts", r#"{"contexts":[]}"#.to_owned()),
        ("contexts", r#"{"contexts":[],"contexts":[]}"#.to_owned()),
        ("contexts", batch(contexts(0..1001))),
        ("context", r#"{"context":[]}"#.to_owned()),
        ("key", r#"{"contexts":[{"task_id":"t"}]}"#.to_owned()),
        ("key", r#"{"contexts":[{"key":null,"task_id":"t"}]}"#.to_owned()),
        ("key", r#"{"contexts":[{"key":"","task_id":"t"}]}"#.to_owned()),
        ("key", batch(vec![json!({"key": "x".repeat(1025), "task_id": "t"})])),
    ] {
        let answer = service.batch(&body).await;
        assert_eq!(error(&answer), (400, "bad_member".to_owned()), "{member}");
        assert_eq!(answer.json()["member"], member);
    }
    let answer = service.batch(r#"{"contexts":[{"key":"a","task_id":"t"},7]}"#).await;
    assert_eq!((error(&answer).1, &answer.json()["item"]), ("bad_body".to_owned(), &1.into()));
    service.stop().await;
}

#[tokio::test]
async fn without_a_token_a_page_in_a_browser_can_change_nothing() {
    let service = Service::start();
    let context = r#"{"task_id":"t"}"#;
    let batch = r#"{"contexts":[{"key":"k","task_id":"t"}]}"#;
    let requests = [("PUT", PATH, context), ("DELETE", PATH, ""), ("POST", BATCH, batch)];
    for headers in [
        "Host: localhost:9090\r\nOrigin: http://evil.example\r\n",
        "Host: localhost:9090\r\nOrigin: null\r\n",
        "Host: localhost:9090\r\nOrigin: http://localhost:8000\r\n",
        "Host: localhost:9090\r\nOrigin: http://localhost:9090\r\nOrigin: http://evil.example\r\n",
        // A name rebound to this address.
        "Host: evil.example:9090\r\nOrigin: http://evil.example:9090\r\n",
        "Host: evil.example\r\n",
        "Host: localhost.evil.example\r\n",
        "Host: \r\n",
        // A browser that omits Origin still sends Sec-Fetch-Site.
        "Host: localhost:9090\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: localhost:9090\r\nSec-Fetch-Site: same-site\r\n",
        "Host: localhost:9090\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        for (method, path, body) in requests {
            let answer = service.ask(method, path, &format!("{headers}{JSON}"), body).await;
            assert_eq!(error(&answer), (403, "foreign_page".to_owned()), "{method} {headers}");
        }
    }
    // Content types that a form can send without a preflight.
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        for (method, path, body) in requests.into_iter().filter(|(method, ..)| *method != "DELETE") {
            let answer = service.ask(method, path, kind, body).await;
            assert_eq!(error(&answer), (415, "not_json".to_owned()), "{method} {kind}");
        }
    }
    assert_eq!(service.get(PATH).await.status, 404);

    for headers in [
        "Host: localhost\r\n",
        "Host: 127.0.0.1:9090\r\n",
        "Host: [::1]:9090\r\n",
        "Host: localhost:9090\r\nOrigin: http://localhost:9090\r\nSec-Fetch-Site: same-origin\r\n",
        "Host: localhost:9090\r\nSec-Fetch-Site: none\r\n",
    ] {
        let json = "Content-Type: Application/JSON; charset=utf-8\r\n";
        let answer = service.ask("PUT", PATH, &format!("{headers}{json}"), context).await;
        assert!(matches!(answer.status, 200 | 201), "{headers}: {}", answer.body);
    }
    service.stop().await;
}

#[tokio::test]
async fn with_a_token_it_is_asked_for_and_any_host_will_do() {
    let mut settings = settings();
    settings.console.token = Some(Secret::new("fake-admin-token"));
    let service = Service::with(settings, idle_relay());
    let batch = r#"{"contexts":[{"key":"k","task_id":"t"}]}"#;
    let requests = [
        ("PUT", PATH, r#"{"task_id":"t"}"#, 201),
        ("GET", PATH, "", 200),
        ("POST", BATCH, batch, 200),
        ("DELETE", PATH, "", 204),
    ];
    for (method, path, body, _) in requests {
        for token in ["", "Authorization: Bearer other\r\n", "Authorization: Basic fake-admin-token\r\n"] {
            let answer = service.ask(method, path, &format!("{token}{JSON}"), body).await;
            assert_eq!(error(&answer), (401, "unauthorized".to_owned()), "{method} {token}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"countersign\""));
        }
    }
    let token = "Authorization: Bearer fake-admin-token\r\n";
    for (method, path, body, status) in requests {
        let headers = format!("Host: countersign.internal:9090\r\n{token}{JSON}");
        assert_eq!(service.ask(method, path, &headers, body).await.status, status, "{method}");
    }
    let foreign = format!("Origin: http://evil.example\r\n{token}{JSON}");
    assert_eq!(service.ask("PUT", PATH, &foreign, r#"{"task_id":"t"}"#).await.status, 403);
    service.stop().await;
}

#[tokio::test]
async fn bodies_have_a_limit_and_the_connection_is_closed_behind_it() {
    let service = Service::start();
    for (method, path, limit) in [("PUT", PATH, 64 << 10), ("POST", BATCH, 4 << 20)] {
        let at_limit = service.ask(method, path, JSON, &" ".repeat(limit)).await;
        assert_eq!(error(&at_limit), (400, "bad_body".to_owned()));
        let mut connection = Connection::open(service.internal).await;
        let length = limit + 1;
        let body = " ".repeat(length);
        connection
            .send(&format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        let answer = connection.answer().await;
        assert_eq!(error(&answer), (413, "body_too_large".to_owned()), "{path}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    let mut connection = Connection::open(service.internal).await;
    connection
        .send(&format!("PUT {PATH} HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 100\r\n\r\n{{"))
        .await;
    connection.stream.shutdown().await.unwrap();
    assert_eq!(error(&connection.answer().await), (408, "too_slow".to_owned()));
    service.stop().await;
}

#[tokio::test]
async fn a_ledger_that_keeps_nothing_is_503_and_the_callback_too() {
    let mut settings = settings();
    settings.intake.endpoints[0].context.formats = vec![context::Format::Registry];
    let service = Service::with(settings, idle_relay());
    for fault in [Fault::Broken, Fault::Full] {
        service.ledger.fail(fault);
        for (method, path, body) in [
            ("PUT", PATH, r#"{"task_id":"t"}"#),
            ("DELETE", PATH, ""),
            ("POST", BATCH, r#"{"contexts":[{"key":"k","task_id":"t"}]}"#),
        ] {
            let answer = service.ask(method, path, JSON, body).await;
            assert_eq!(error(&answer), (503, "ledger_unavailable".to_owned()), "{method}");
        }
    }
    service.ledger.fail(Fault::Broken);
    assert_eq!(error(&service.get(PATH).await), (503, "ledger_unavailable".to_owned()));
    let with_context = callback("t1").replacen('{', r#"{"action_context":"k","#, 1);
    let answer = service.post("plain", &with_context).await;
    assert_eq!((answer.status, &answer.json()["msg"]), (503, &"ledger_unavailable".into()));
    service.ledger.fail(Fault::None);
    assert_eq!(service.put(PATH, r#"{"task_id":"t1","operators":["u2"]}"#).await.status, 201);
    let answer = service.post("plain", &with_context).await;
    assert_eq!((answer.status, &answer.json()["msg"]), (403, &"operator_not_allowed".into()));
    assert_eq!(service.put(PATH, r#"{"task_id":"t1","operators":["u1"]}"#).await.status, 200);
    assert_eq!(service.post("plain", &with_context).await.status, 200);
    service.stop().await;
}
