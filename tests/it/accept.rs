//! Accepted callbacks: every origin and encoding, and the resulting command.

use crate::support::{
    App, Callback, Config, Endpoint, KEY, Line, NOWHERE, TOKEN, Vhost, Worker, envelope, seal,
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn every_origin_is_accepted_plain_and_encrypted() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let origins = [
        ("list", Callback::list("po-1", "po-1-t1"), json!(["po-1", "po-1-t1", null, null])),
        (
            "card",
            Callback::card("ctx", 7_690_275_278_685_244_603),
            json!([null, null, "7690275278685244603", null]),
        ),
        ("search", Callback::search("po-3-t1"), json!([null, "po-3-t1", null, "po-3-t1"])),
    ];
    for (origin, callback, names) in &origins {
        for (endpoint, body) in [("leave", callback.plain()), ("purchase", callback.encrypted(KEY))] {
            let answer = app.post(endpoint, body).await;
            assert_eq!(answer.status_word(), "accepted", "{origin} at {endpoint}: {}", answer.text());
            let command = worker.command(&answer.command_id()).await.json();
            assert_eq!(command["origin"], *origin, "at {endpoint}");
            assert_eq!(command["endpoint"], endpoint);
            let task = &command["task"];
            let named =
                json!([task["instance_id"], task["task_id"], command["message_id"], command["search_id"]]);
            assert_eq!(named, *names, "{origin} at {endpoint}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn success_is_200_with_the_documented_body_and_nothing_more() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let answer = app.post("leave", Callback::list("i", "t").plain()).await;
    let id = answer.command_id();
    let expected = json!({"code": 0, "msg": "success", "data": {"command_id": id, "status": "accepted"}});
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert!(answer.header("content-type").unwrap().starts_with("application/json"));
    let bytes = id.as_bytes();
    assert!(
        bytes.len() == 36 && bytes[14] == b'7' && id == id.to_lowercase(),
        "not a lower-case UUIDv7: {id}"
    );
}

/// The five members of platform.md#callback-origins, byte for byte as in the reference: no `approval_code`, the
/// `message_id` an unquoted number above 2^53.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_card_callback_ever_captured_becomes_a_command() {
    const CAPTURED: &str = r#"{"action_type":"APPROVE","action_context":"{\"t\":\"PO-77/n2\"}","user_id":"zhang3","message_id":7123456789012345678,"token":"s3cr3t-demo"}"#;
    let vhost = Vhost::new().await;
    let plain = Endpoint::plain("plain").credentials(&[("s3cr3t-demo", None)]);
    let sealed = Endpoint::encrypted("sealed").credentials(&[("s3cr3t-demo", Some(KEY))]);
    let app = App::with(Config::bare(vhost.url()).endpoint(plain).endpoint(sealed)).await;
    let worker = Worker::on(&vhost);
    let bodies =
        [("plain", CAPTURED.as_bytes().to_vec()), ("sealed", envelope(&seal(KEY, CAPTURED.as_bytes())))];
    for (endpoint, body) in bodies {
        let message = worker.command(&app.post(endpoint, body).await.command_id()).await;
        let command = message.json();
        assert_eq!(command["action_context"], r#"{"t":"PO-77/n2"}"#);
        assert_eq!(command["message_id"], "7123456789012345678");
        assert_eq!(command["operator"]["user_id"], "zhang3");
        assert_eq!((&command["action"], &command["origin"]), (&json!("approve"), &json!("card")));
        assert_eq!(command["task"]["approval_code"], Value::Null);
        assert_eq!(message.routing_key, format!("approval.{endpoint}.-.approve"));
    }
}

/// The vectors of platform.md#test-vectors that contain a callback: both keys, the Java encoder's zero IV, Chinese
/// key and text.
#[tokio::test(flavor = "multi_thread")]
async fn the_vectors_with_a_whole_callback_become_commands() {
    const A1: &str = "AAECAwQFBgcICQoLDA0OD1LsbEzxUyZkMMzVw3oejp8sriSLpUb/2oKUtBKM5fB503XyNhyhsoLp7rDKs3Q2NPWDJQJVdh4K6mVk36WDz/ve7+9xwLOQg7Qs0A+vcg+Wrtb2IxySbRO+sK8+rxMk/CXRclhIkoz7V+03pmrkMXKTUFeR63d05v9VswBvO3EuGcmel10ogqaOL7wYw/nprzR/NF0Ip+kDXQwjO2E1o45oZV8PhZ4gi3dAhGqrTPbh";
    const A2: &str = "oKGio6SlpqeoqaqrrK2ur/KJ4chj4pemRxo8otSQ5aA2AYu3kHQ2F6HRdexdkoywEvagLLMrKcCaO6npkccL46Uzq5Kk+HDEh0lKkZgkUeRqx+qUh+mltT4gg5/5iJ3dML6uJyp2TkFItkO6ywToWR3uB4bUZy3b/y1E4a90JRIkNVS1i7TANNPJrwajXEPQrHDBSWnW4q8Rw3q90qS4lQ==";
    const J1: &str = "c+9EABbkMQCauVNlAYJo6Krq3vFIg8HdHV0d0rU7Q6SAG4olhHur4bCVkY3x82KwYz+fk5v3jXH1EtjEx5JHWm99Knr+Wgk52+o4NgLS3bA=";
    let vhost = Vhost::new().await;
    let endpoint = Endpoint::encrypted("vectors")
        .credentials(&[("tok-1", Some("quick-approve-key-01")), ("tok-2", Some("审批密钥-demo"))]);
    let config = Config::bare(vhost.url()).set("", "allow_weak_secrets", "true");
    let app = App::with(config.endpoint(endpoint)).await;
    let worker = Worker::on(&vhost);
    let command = async |vector: &str| {
        let id = app.post("vectors", envelope(vector)).await.command_id();
        worker.command(&id).await.json()
    };
    let a1 = command(A1).await;
    assert_eq!(a1["task"]["approval_code"], "PO_APPROVAL");
    assert_eq!(
        (&a1["task"]["instance_id"], &a1["task"]["task_id"]),
        (&json!("po-2026-0001"), &json!("po-2026-0001-t1"))
    );
    assert_eq!((&a1["action_context"], &a1["operator"]["user_id"]), (&json!("ctx-1"), &json!("u-demo-7")));
    let a2 = command(A2).await;
    assert_eq!((&a2["action"], &a2["reason"]), (&json!("reject"), &json!("金额不符，请重新提交")));
    assert_eq!(
        (&a2["message_id"], &a2["operator"]["user_id"]),
        (&json!("7123456789012345678"), &json!("18500000001"))
    );
    let j1 = command(J1).await;
    assert_eq!((&j1["action"], &j1["operator"]["user_id"]), (&json!("approve"), &json!("u-demo-7")));
    assert_eq!(j1["origin"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_id_keeps_every_digit_whatever_its_type() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let forms = [
        ("a number above 2^53", Some("7690275278685244603"), json!("7690275278685244603")),
        ("the largest u64", Some("18446744073709551615"), json!("18446744073709551615")),
        ("a string of digits", Some("\"7690275278685244604\""), json!("7690275278685244604")),
        ("null", Some("null"), Value::Null),
        ("an empty string", Some("\"\""), Value::Null),
        ("absent", None, Value::Null),
    ];
    for (number, (form, json, expected)) in forms.into_iter().enumerate() {
        let callback = Callback::card(&format!("context {number}"), 1).without("message_id");
        let callback = if let Some(json) = json { callback.raw("message_id", json) } else { callback };
        let command = worker.command(&app.accept(&callback).await).await.json();
        assert_eq!(command["message_id"], expected, "message_id {form}");
        let origin = if expected.is_null() { Value::Null } else { json!("card") };
        assert_eq!(command["origin"], origin, "message_id {form}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_numbers_are_taken_by_their_digits() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let callback = Callback::list("", "")
        .raw("instance_id", "90071992547409931")
        .raw("task_id", "18446744073709551616")
        .raw("user_id", "18500000001")
        .raw("approval_code", "42");
    let command = Worker::on(&vhost).command(&app.accept(&callback).await).await.json();
    assert_eq!(command["task"]["instance_id"], "90071992547409931");
    assert_eq!(command["task"]["task_id"], "18446744073709551616");
    assert_eq!(command["operator"]["user_id"], "18500000001");
    assert_eq!(command["task"]["approval_code"], "42");
}

#[tokio::test(flavor = "multi_thread")]
async fn null_and_empty_are_as_good_as_absent() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    for (number, nothing) in ["null", "\"\""].into_iter().enumerate() {
        let callback = Callback::card(&format!("context {number}"), 7)
            .raw("approval_code", nothing)
            .raw("instance_id", nothing)
            .raw("task_id", nothing)
            .raw("id", nothing)
            .raw("reason", nothing)
            .raw("attachments", if nothing == "null" { "null" } else { "[]" });
        let command = worker.command(&app.accept(&callback).await).await.json();
        assert_eq!(command["origin"], "card");
        assert_eq!(command["task"]["approval_code"], Value::Null);
        assert_eq!(command["task"]["instance_id"], Value::Null);
        assert_eq!(command["task"]["task_id"], Value::Null);
        assert_eq!(command["search_id"], Value::Null);
        assert_eq!(command["reason"], Value::Null);
        assert_eq!(command["attachments"], json!([]));
        assert_eq!(command["extra"], json!({}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_order_mark_and_a_trailing_newline_cost_nothing() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let dressed = |body: Vec<u8>| [b"\xef\xbb\xbf".as_slice(), &body, b"\r\n"].concat();
    let callback = Callback::list("i", "plain");
    assert_eq!(app.post("leave", dressed(callback.plain())).await.status, 200);
    assert_eq!(app.post("purchase", dressed(callback.encrypted(KEY))).await.status, 200);
    let inside = envelope(&seal(KEY, &dressed(Callback::list("i", "inside").plain())));
    assert_eq!(app.post("purchase", inside).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_type_is_not_asked() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let types = ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"];
    for (number, header) in types.into_iter().enumerate() {
        let body = Callback::list("i", &format!("t{number}")).plain();
        let mut line = Line::to(app.public()).await;
        let head = format!(
            "POST /callbacks/leave HTTP/1.1\r\nHost: x\r\n{header}Content-Length: {}\r\n\r\n",
            body.len()
        );
        line.write(&[head.as_bytes(), &body].concat()).await.unwrap();
        let answer = line.answer().await.expect("an answer");
        assert_eq!(answer.status, 200, "{header:?}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_sent_in_chunks_is_read_whole() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let body = Callback::list("i", "t").plain();
    let (one, two) = body.split_at(50);
    let mut line = Line::to(app.public()).await;
    line.write(b"POST /callbacks/leave HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    for part in [one, two, b""] {
        line.write(format!("{:x}\r\n", part.len()).as_bytes()).await.unwrap();
        line.write(&[part, b"\r\n"].concat()).await.unwrap();
    }
    assert_eq!(line.answer().await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_action_type_is_published_as_custom() {
    let vhost = Vhost::new().await;
    let endpoint = Endpoint::encrypted("hr").set("actions", r#"["APPROVE", "REJECT", "HandOver"]"#);
    let app = App::with(Config::bare(vhost.url()).endpoint(endpoint)).await;
    let callback = Callback::list("i", "t").action("HandOver").encrypted(KEY);
    let message = Worker::on(&vhost).command(&app.post("hr", callback).await.command_id()).await;
    let command = message.json();
    assert_eq!((&command["action"], &command["action_type"]), (&json!("custom"), &json!("HandOver")));
    assert_eq!(message.routing_key, "approval.hr.po_approval.custom");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_this_version_does_not_know_are_passed_on_as_they_came() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let callback = Callback::list("i", "t")
        .raw("open_id", "\"ou_1\"")
        .raw("amount", "12345678901234567890.10")
        .raw("nested", r#"{"a":[1,null,{"b":true}]}"#);
    let message = Worker::on(&vhost).command(&app.accept(&callback).await).await;
    let text = String::from_utf8(message.body.clone()).unwrap();
    assert!(text.contains(r#""amount":12345678901234567890.10"#), "through a float: {text}");
    let extra = &message.json()["extra"];
    assert_eq!(
        (&extra["open_id"], &extra["nested"]),
        (&json!("ou_1"), &json!({"a": [1, null, {"b": true}]}))
    );
    assert_eq!(extra.as_object().unwrap().len(), 3, "{extra}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reason_and_attachments_are_passed_on() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let callback = Callback::list("i", "t").with("reason", "金额不符\n\"重\"").raw(
        "attachments",
        r#"[{"file_type":"IMAGE","file_size":12345,"file_name":"1.png","url":"https://cdn.example.invalid/1"},
            {"file_type":"ATTACHMENTS","file_size":"2048","file_name":"报价.pdf","url":"https://cdn.example.invalid/2"}]"#,
    );
    let command = Worker::on(&vhost).command(&app.accept(&callback).await).await.json();
    assert_eq!(command["reason"], "金额不符\n\"重\"");
    assert_eq!(
        command["attachments"],
        json!([
            {"file_type": "IMAGE", "file_name": "1.png", "file_size": 12345, "url": "https://cdn.example.invalid/1"},
            {"file_type": "ATTACHMENTS", "file_name": "报价.pdf", "file_size": 2048, "url": "https://cdn.example.invalid/2"},
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_encrypt_nothing_counts() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let inside = Callback::list("inside", "inside");
    let outer: Value = serde_json::from_slice(&inside.encrypted(KEY)).unwrap();
    let body = Callback::list("outside", "outside")
        .operator("mallory")
        .action("REJECT")
        .with("encrypt", outer["encrypt"].clone());
    let command =
        Worker::on(&vhost).command(&app.post("purchase", body.plain()).await.command_id()).await.json();
    assert_eq!((&command["task"]["task_id"], &command["action"]), (&json!("inside"), &json!("approve")));
    assert_eq!((&command["operator"]["user_id"], &command["extra"]), (&json!("zhang3"), &json!({})));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_rotating_every_configured_credential_is_taken() {
    let pairs = [("token-old", Some("fake-key-old")), ("token-new", Some("fake-key-new"))];
    let config = Config::bare(NOWHERE)
        .endpoint(Endpoint::encrypted("sealed").credentials(&pairs))
        .endpoint(Endpoint::plain("plain").credentials(&[("token-old", None), ("token-new", None)]));
    let app = App::with(config).await;
    for (token, key) in pairs {
        let callback = Callback::list("i", token).token(token);
        assert_eq!(app.post("sealed", callback.encrypted(key.unwrap())).await.status, 200, "{token}");
        assert_eq!(app.post("plain", callback.plain()).await.status, 200, "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allow_list_of_definitions_passes_its_codes_and_callbacks_without_one() {
    let endpoint = Endpoint::plain("strict").set("approval_codes", r#"["PO_APPROVAL", "0F0E0D0C-1111"]"#);
    let app = App::with(Config::bare(NOWHERE).endpoint(endpoint)).await;
    let callbacks = [
        Callback::list("i", "custom code"),
        Callback::list("i", "real code").with("approval_code", "0F0E0D0C-1111"),
        Callback::list("i", "no code").without("approval_code"),
        Callback::list("i", "null code").raw("approval_code", "null"),
    ];
    for callback in callbacks {
        let answer = app.post("strict", callback.plain()).await;
        assert_eq!(answer.status, 200, "{callback:?}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_are_accepted_while_the_broker_is_away() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    for number in 0..20 {
        let task = format!("t{number}");
        assert_eq!(
            app.post("leave", Callback::list("i", &task).token(TOKEN).plain()).await.status_word(),
            "accepted"
        );
    }
    app.until_metric("countersign_ledger_rows{state=\"pending\"}", 20.0).await;
    app.until_metric("countersign_amqp_connected", 0.0).await;
}
