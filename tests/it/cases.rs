//! Bodies as other systems send them, each with its expected result and, if refused, the cause for the operator. Most
//! are from bug reports against other programs.

use crate::refuse::assert_refused;
use crate::support::{App, Config, Endpoint, NOWHERE, Program, eventually};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const KEY: &str = "quick-approve-key-01";
const TOKEN: &str = "tok-1";

fn config() -> Config {
    Config::bare(NOWHERE)
        // The bodies were made with tokens and keys of a few letters.
        .set("", "allow_weak_secrets", "true")
        .endpoint(Endpoint::plain("plain").credentials(&[(TOKEN, None)]))
        .endpoint(Endpoint::encrypted("enc").credentials(&[(TOKEN, Some(KEY)), ("tok-2", Some("key-2"))]))
        .endpoint(
            Endpoint::plain("reg")
                .credentials(&[(TOKEN, None)])
                .context("format", r#"["registry", "opaque"]"#),
        )
}

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cases").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Waits for this many refusals, and returns them in the order in which they were recorded. That is after the answer:
/// two that follow each other may be recorded the other way round unless the first is waited for.
async fn refusals(app: &App, count: usize) -> Vec<Value> {
    let newest_first = eventually("the refusals in the ledger", async || {
        let listed = app.get("/api/v1/refusals?limit=500").await.json();
        let rows = listed["refusals"].as_array().expect("a list").clone();
        if rows.len() == count { Ok(rows) } else { Err(rows.len()) }
    })
    .await;
    newest_first.into_iter().rev().collect()
}

/// The expected cause for each body at the endpoint with keys; `None` if it is kept.
const SEALED: [(&str, Option<&str>); 28] = [
    ("05-doc-placeholder.json", Some("encrypt is not standard base64")),
    ("05-openssl-salted.json", Some("an action_callback_key decrypts it, but the plaintext is not UTF-8")),
    (
        "05-pad32a.json",
        Some("an action_callback_key decrypts it, but the padding is not PKCS#7 of 16-byte blocks"),
    ),
    (
        "05-pad32ab.json",
        Some("an action_callback_key decrypts it, but the padding is not PKCS#7 of 16-byte blocks"),
    ),
    ("05-pad32abcdefghij.json", None),
    ("05-wecom-layout.json", Some("an action_callback_key decrypts it, but the plaintext is not UTF-8")),
    ("09-all-escaped.json", None),
    ("09-array-of-one.json", Some("the body is not one JSON object")),
    ("09-bom-inner.json", None),
    ("09-bom-outer.json", None),
    ("09-case.json", Some("the body is not encrypted, but the endpoint has an action_callback_key")),
    (
        "09-double-encoded.json",
        Some("an action_callback_key decrypts it, but the plaintext is not one JSON object"),
    ),
    (
        "09-encrypt-nested.json",
        Some("the body is not encrypted, but the endpoint has an action_callback_key"),
    ),
    ("09-encrypt-null.json", Some("the body is not encrypted, but the endpoint has an action_callback_key")),
    ("09-form.txt", Some("the body is not one JSON object")),
    (
        "09-gzip-inner.json",
        Some("an action_callback_key decrypts it, but the plaintext is compressed (gzip)"),
    ),
    ("09-mime76-crlf.json", None),
    ("09-net-escaped-plus.json", None),
    ("09-newline-after-inner.json", None),
    ("09-nopad.json", Some("encrypt is not standard base64")),
    (
        "09-nul-after-inner.json",
        Some("an action_callback_key decrypts it, but the plaintext is not one JSON object"),
    ),
    ("09-openssl64-lf.json", None),
    ("09-outer-extra.json", None),
    ("09-plus-to-space.json", Some("encrypt is not standard base64")),
    ("09-pretty.json", None),
    ("09-trailing-lf.json", None),
    ("09-urlsafe.json", Some("encrypt is not standard base64")),
    ("09-utf16-outer.json", Some("the body is not UTF-8")),
];

#[tokio::test(flavor = "multi_thread")]
async fn ciphertexts_of_other_languages_open_or_are_refused_with_their_cause() {
    let app = App::with(config()).await;
    let mut causes = Vec::new();
    for (file, cause) in SEALED {
        let answer = app.post("enc", fixture(file)).await;
        match cause {
            None => assert_eq!(answer.status, 200, "{file}: {}", answer.text()),
            Some(cause) => {
                assert_refused(&answer, "unauthenticated");
                causes.push((file, cause));
                refusals(&app, causes.len()).await;
            }
        }
    }
    for ((file, cause), row) in causes.iter().zip(refusals(&app, causes.len()).await) {
        assert_eq!((&row["detail"], &row["stranger"]), (&json!(cause), &json!(true)), "{file}: {row}");
    }
}

/// The command line opens exactly the bodies that the service accepts, and reports the same cause for the others.
#[tokio::test(flavor = "multi_thread")]
async fn decrypt_and_the_service_agree_on_every_body() {
    let config = config();
    let file: PathBuf = config.write();
    let decrypt = async |name: &str| {
        let args = ["decrypt", "--endpoint", "enc"];
        Program::new(args).config(&file).stdin(fixture(name)).run().await
    };
    for (name, cause) in SEALED {
        let ran = decrypt(name).await;
        match cause {
            None => {
                let ran = ran.ended_with(0);
                assert!(ran.stdout.contains("zhang3") && ran.stderr.is_empty(), "{name}: {ran:?}");
            }
            Some(cause) => {
                let ran = ran.ended_with(1);
                let inside = cause.contains("decrypts it") && !cause.contains("padding");
                assert_eq!(ran.stdout.is_empty(), !inside, "{name}: what is inside is shown: {ran:?}");
                let told =
                    if cause.starts_with("the body is not encrypted") { "a plain callback" } else { cause };
                assert!(ran.stderr.contains(told), "{name}: {ran:?}");
            }
        }
    }
}

/// A sender with the right key and a wrong token gets the usual answer, while the refusal records who wanted what.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_key_with_a_wrong_token_leaves_who_and_what() {
    let app = App::with(config()).await;
    let sealed = |token: &str| {
        let token = if token.is_empty() { String::new() } else { format!(r#","token":"{token}""#) };
        let plain = format!(
            r#"{{"action_type":"APPROVE","action_context":"c","user_id":"zhang3","approval_code":"PO","instance_id":"i-1","task_id":"t-1","id":"s-1","message_id":7690275278685244603{token}}}"#
        );
        crate::support::envelope(&crate::support::seal(KEY, plain.as_bytes()))
    };
    for (before, token) in ["tok-3", "", "tok-2"].into_iter().enumerate() {
        assert_refused(&app.post("enc", sealed(token)).await, "unauthenticated");
        refusals(&app, before + 1).await;
    }
    let rows = refusals(&app, 3).await;
    for (row, detail) in rows.iter().zip(["wrong", "missing", "that of another credential"]) {
        assert_eq!(row["detail"], format!("an action_callback_key decrypts it, but the token is {detail}"));
        for (name, value) in [
            ("stranger", json!(false)),
            ("action_type", json!("APPROVE")),
            ("user_id", json!("zhang3")),
            ("approval_code", json!("PO")),
            ("instance_id", json!("i-1")),
            ("task_id", json!("t-1")),
            ("search_id", json!("s-1")),
            ("message_id", json!("7690275278685244603")),
        ] {
            assert_eq!(row[name], value, "{name} of {row}");
        }
    }
}

/// A refusal keeps the task named by the context, even if the context is the cause of the refusal.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_keeps_what_the_context_named() {
    let secret = "fake-secret-of-at-least-32-bytes-x";
    let jwt = Endpoint::plain("jwt")
        .credentials(&[(TOKEN, None)])
        .context("format", "\"jwt\"")
        .context("jwt", &format!("{{ keys = [ {{ secret = \"{secret}\" }} ] }}"));
    let fields = Endpoint::plain("json")
        .credentials(&[(TOKEN, None)])
        .set("actions", r#"["REJECT"]"#)
        .context("format", "\"json\"")
        .context("fields", r#"{ task_id = "/t", instance_id = "/i", round = "/r" }"#);
    let app =
        App::with(Config::bare(NOWHERE).set("", "allow_weak_secrets", "true").endpoint(jwt).endpoint(fields))
            .await;
    let claims = r#"{"instance_id":"PO-77","task_id":"PO-77/n2","jti":"r-9","exp":1}"#;
    let part = |text: &str| {
        use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
        BASE64_URL_SAFE_NO_PAD.encode(text)
    };
    let token = format!("{}.{}.{}", part(r#"{"alg":"HS256"}"#), part(claims), part("not a signature"));
    let callback = |context: &str| {
        json!({ "action_type": "APPROVE", "user_id": "zhang3", "message_id": 5, "token": TOKEN, "action_context": context })
            .to_string()
    };
    assert_refused(&app.post("jwt", callback(&token)).await, "context_invalid");
    refusals(&app, 1).await;
    assert_refused(
        &app.post("json", callback(r#"{"t":"n2","i":"PO-78","r":3}"#)).await,
        "action_not_allowed",
    );
    refusals(&app, 2).await;
    assert_refused(&app.post("json", callback("none")).await, "action_not_allowed");
    let rows = refusals(&app, 3).await;
    let named = |instance: &str, task: &str, round: &str| json!({ "instance_id": instance, "task_id": task, "round": round, "business_key": null });
    assert_eq!(rows[0]["detail"], "the token's signature is wrong");
    assert_eq!(rows[0]["context_task"], named("PO-77", "PO-77/n2", "r-9"));
    assert_eq!(rows[1]["context_task"], named("PO-78", "n2", "3"));
    assert_eq!(rows[2]["context_task"], Value::Null);
    assert!(!rows[0].to_string().contains(&token), "{}", rows[0]);
}

/// The expected value of a member, or what is wrong with it.
enum Want {
    /// Kept, with this value at the pointer in the command.
    Kept(&'static str, Value),
    /// Refused for this reason, with a detail that contains this text.
    Refused(&'static str, &'static str),
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_every_shape_are_taken_exactly_or_refused() {
    use Want::{Kept, Refused};
    let app = App::with(config()).await;
    let no_number = "message_id is not a 64-bit integer";
    let nobody = "user_id is missing: no approver is named";
    let cases: Vec<(&str, Want)> = vec![
        // An unset number is absent.
        (r#""message_id":0"#, Kept("/message_id", Value::Null)),
        (r#""message_id":"0""#, Kept("/message_id", Value::Null)),
        (r#""message_id":0"#, Kept("/origin", json!("list"))),
        (r#""message_id":null"#, Kept("/message_id", Value::Null)),
        (r#""message_id":"""#, Kept("/message_id", Value::Null)),
        (r#""message_id":false"#, Kept("/message_id", Value::Null)),
        (r#""message_id":18446744073709551615"#, Kept("/message_id", json!("18446744073709551615"))),
        (r#""message_id":9223372036854775807"#, Kept("/message_id", json!("9223372036854775807"))),
        (r#""message_id":"007690275278685244603""#, Kept("/message_id", json!("7690275278685244603"))),
        (r#""message_id":18446744073709551616"#, Refused("malformed", no_number)),
        (r#""message_id":1e3"#, Refused("malformed", no_number)),
        (r#""message_id":7.690275278685244603e18"#, Refused("malformed", no_number)),
        (r#""message_id":7690275278685244603.0"#, Refused("malformed", no_number)),
        (r#""message_id":1.5"#, Refused("malformed", no_number)),
        (r#""message_id":-0"#, Refused("malformed", no_number)),
        (r#""message_id":-1"#, Refused("malformed", no_number)),
        (r#""message_id":[1]"#, Refused("malformed", no_number)),
        (r#""message_id":true"#, Refused("malformed", no_number)),
        (r#""message_id":"0x1F""#, Refused("malformed", no_number)),
        (r#""message_id":"+7690""#, Refused("malformed", no_number)),
        (r#""message_id":" 7690275278685244603 ""#, Refused("malformed", no_number)),
        (r#""message_id":"om_a1b2c3d4""#, Refused("malformed", no_number)),
        ("\"message_id\":\"７６９０\"", Refused("malformed", no_number)),
        (r#""id":0"#, Kept("/search_id", Value::Null)),
        (r#""id":"0""#, Kept("/search_id", json!("0"))),
        (r#""approval_code":0"#, Kept("/task/approval_code", Value::Null)),
        (r#""approval_code":{}"#, Kept("/task/approval_code", Value::Null)),
        (r#""action_context":{}"#, Kept("/action_context", Value::Null)),
        (r#""action_context":12345"#, Refused("malformed", "action_context is not a text")),
        (r#""action_context":{"task":"n2"}"#, Refused("malformed", "action_context is not a text")),
        (r#""action_context":"PO-77\nn2\r\n\t""#, Kept("/action_context", json!("PO-77\nn2\r\n\t"))),
        (r#""user_id":0"#, Refused("malformed", nobody)),
        (r#""user_id":"""#, Refused("malformed", nobody)),
        (r#""user_id":null"#, Refused("malformed", nobody)),
        (r#""user_id":"  ""#, Refused("malformed", nobody)),
        (r#""user_id":18446744073709551616"#, Kept("/operator/user_id", json!("18446744073709551616"))),
        (r#""user_id":1e3"#, Refused("malformed", "user_id is not a string or an integer")),
        (r#""user_id":1.0"#, Refused("malformed", "user_id is not a string or an integer")),
        // Free text is lenient, identifiers are exact.
        (r#""reason":"好\ud83d""#, Kept("/reason", json!("好\u{fffd}"))),
        (r#""reason":"\u0000\u001b[31m""#, Kept("/reason", json!("\u{0}\u{1b}[31m"))),
        (r#""reason":[]"#, Kept("/reason", Value::Null)),
        (r#""reason":false"#, Kept("/reason", Value::Null)),
        (r#""mood":{"x":["\ud83d"]}"#, Kept("/extra/mood/x/0", json!("\u{fffd}"))),
        (r#""user_id":"zh\u001b[31mang\u0007""#, Refused("malformed", "user_id holds a control character")),
        (r#""user_id":"a\ud83d""#, Refused("malformed", "user_id is not a text of characters")),
        (r#""approval_code":"a\u0000""#, Refused("malformed", "approval_code holds a control character")),
        (r#""action_context":"a\ud83d""#, Refused("malformed", "action_context is not a text of characters")),
        ("\"user_id\":\"zhang3\u{200b}\"", Kept("/operator/user_id", json!("zhang3\u{200b}"))),
        (r#""attachments":"""#, Kept("/attachments", json!([]))),
        (r#""attachments":{}"#, Kept("/attachments", json!([]))),
        (r#""attachments":null"#, Kept("/attachments", json!([]))),
        (r#""attachments":[]"#, Kept("/attachments", json!([]))),
        (r#""attachments":[{}]"#, Kept("/attachments/0/url", Value::Null)),
        (r#""attachments":[{"file_size":"2048"}]"#, Kept("/attachments/0/file_size", json!(2048))),
        (r#""attachments":[{"file_size":0}]"#, Kept("/attachments/0/file_size", Value::Null)),
        (
            r#""attachments":[{"file_name":"a\udc00.pdf"}]"#,
            Kept("/attachments/0/file_name", json!("a\u{fffd}.pdf")),
        ),
        (r#""attachments":[{"dims":{"w":1}}]"#, Kept("/attachments/0/dims/w", json!(1))),
        (r#""attachments":"[]""#, Refused("malformed", "attachments is not a list")),
        (r#""attachments":{"url":"u"}"#, Refused("malformed", "attachments is not a list")),
        (r#""attachments":["https://x/a.png"]"#, Refused("malformed", "an attachment is not an object")),
        (
            r#""attachments":[{"file_size":2048.0}]"#,
            Refused("malformed", "attachments[].file_size is not a 64-bit integer"),
        ),
        (
            r#""attachments":[{"file_size":-1}]"#,
            Refused("malformed", "attachments[].file_size is not a 64-bit integer"),
        ),
        (r#""action_type":"approve""#, Refused("action_not_allowed", "not among the actions")),
        (r#""action_type":"APPROVAL""#, Refused("action_not_allowed", "not among the actions")),
        (r#""action_type":false"#, Refused("action_not_allowed", "action_type is missing")),
        (r#""token":"tok-1 ""#, Refused("unauthenticated", "the token is wrong")),
        (r#""token":0"#, Refused("unauthenticated", "the token is missing")),
        // Not JSON at all.
        (r#""message_id":0123"#, Refused("unauthenticated", "the body is not one JSON object")),
    ];
    let mut refused = Vec::new();
    for (number, (member, want)) in cases.iter().enumerate() {
        let usual = [
            ("\"action_type\":", "\"APPROVE\"".to_owned()),
            ("\"user_id\":", "\"zhang3\"".to_owned()),
            ("\"instance_id\":", format!("\"i-{number}\"")),
            ("\"task_id\":", "\"t\"".to_owned()),
            ("\"token\":", format!("\"{TOKEN}\"")),
        ];
        let rest: String = usual
            .iter()
            .filter(|(name, _)| !member.starts_with(name))
            .map(|(name, value)| format!(",{name}{value}"))
            .collect();
        let answer = app.post("plain", format!("{{{member}{rest}}}")).await;
        match want {
            Kept(pointer, value) => {
                assert_eq!(answer.status, 200, "{member}: {}", answer.text());
                let record = app.get(&format!("/api/v1/commands/{}", answer.command_id())).await.json();
                assert_eq!(record["command"].pointer(pointer), Some(value), "{member}: {record}");
            }
            Refused(reason, detail) => {
                assert_eq!(answer.reason(), *reason, "{member}: {}", answer.text());
                refused.push((member, reason, detail));
                refusals(&app, refused.len()).await;
            }
        }
    }
    for ((member, reason, detail), row) in refused.iter().zip(refusals(&app, refused.len()).await) {
        assert_eq!(row["reason"], **reason, "{member}: {row}");
        assert!(row["detail"].as_str().is_some_and(|told| told.contains(**detail)), "{member}: {row}");
    }
}

/// Regression: a callback with only message 0 used to match a registration for message 0.
#[tokio::test(flavor = "multi_thread")]
async fn message_0_is_nobodys_in_registrations_either() {
    let app = App::with(config()).await;
    let put = async |key: &str, message_id: Value| {
        let url = format!("http://{}/api/v1/contexts/{key}", app.admin());
        let body = json!({ "task_id": format!("task-of-{key}"), "message_id": message_id });
        let sent = app.client().put(url).json(&body).send().await.expect("an answer");
        (sent.status().as_u16(), sent.json::<Value>().await.expect("JSON"))
    };
    // Neither replaces the other: both are unset.
    for (key, unset) in [("k1", json!(0)), ("k2", json!("0")), ("k3", Value::Null)] {
        let (status, shown) = put(key, unset).await;
        assert!(status < 300 && shown["message_id"].is_null(), "{key}: {status} {shown}");
    }
    for (task, message_id) in [("mine-1", "0"), ("mine-2", "\"0\""), ("mine-3", "null")] {
        let body = format!(
            r#"{{"action_type":"APPROVE","user_id":"zhang3","message_id":{message_id},"task_id":"{task}","token":"{TOKEN}"}}"#
        );
        let answer = app.post("reg", body.clone()).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        let record = app.get(&format!("/api/v1/commands/{}", answer.command_id())).await.json();
        assert_eq!(record["command"]["task"]["task_id"], task, "{record}");
    }
    for (member, problem) in
        [("task_id", "Contains a control character."), ("operators", "Contains a control character.")]
    {
        let value = if member == "operators" { json!(["a\u{0}"]) } else { json!("a\u{0}") };
        let url = format!("http://{}/api/v1/contexts/k9", app.admin());
        let sent = app
            .client()
            .put(url)
            .json(&json!({ "instance_id": "i", member: value }))
            .send()
            .await
            .expect("an answer");
        let status = sent.status().as_u16();
        let text = sent.text().await.expect("text");
        assert!(status == 422 || status == 400, "{status}");
        assert!(text.contains(problem), "{text}");
    }
}

/// Requests that the open platform sends to other URLs, and compressed bodies.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_callback_is_told_by_name() {
    let app = App::with(config()).await;
    let mut details = Vec::new();
    for (file, endpoint, reason, detail) in [
        ("13-challenge-plain.json", "plain", "action_not_allowed", "a url_verification challenge"),
        ("13-challenge-plain.json", "enc", "unauthenticated", "a url_verification challenge"),
        ("13-challenge-plain.json", "nowhere", "unauthenticated", "a url_verification challenge"),
        ("13-card-action.json", "plain", "unauthenticated", "a card callback of the open platform"),
        ("13-card-action.json", "enc", "unauthenticated", "a card callback of the open platform"),
        ("13-approval-event.json", "plain", "action_not_allowed", "an event of the open platform"),
        ("13-approval-event.json", "enc", "unauthenticated", "an event of the open platform"),
    ] {
        assert_refused(&app.post(endpoint, fixture(file)).await, reason);
        details.push((file, endpoint, detail));
        refusals(&app, details.len()).await;
    }
    let url = app.callback_url("plain");
    for (coding, detail) in [
        (Some("gzip"), "the body is compressed (Content-Encoding: gzip); callbacks must be uncompressed"),
        (Some("x-odd"), "the body is compressed (Content-Encoding: another); callbacks must be uncompressed"),
        (Some("identity"), "the body is compressed (gzip); callbacks must be uncompressed"),
        (None, "the body is compressed (gzip); callbacks must be uncompressed"),
    ] {
        let mut request = app.client().post(&url).body(fixture("07-body.json.gz"));
        if let Some(coding) = coding {
            request = request.header("content-encoding", coding);
        }
        assert_eq!(request.send().await.expect("an answer").status().as_u16(), 403);
        details.push(("07-body.json.gz", "plain", detail));
        refusals(&app, details.len()).await;
    }
    for ((file, endpoint, detail), row) in details.iter().zip(refusals(&app, details.len()).await) {
        let told = row["detail"].as_str().expect("a detail");
        assert!(told.starts_with(detail), "{file} at {endpoint}: {told}");
        assert!(!file.starts_with("13") || told.contains("belongs in action_callback_url"), "{told}");
    }
}
