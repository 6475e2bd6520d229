//! Parsed, signed and bound contexts: each format from both sides.

use countersign::{
    context::jwt::{SigningKey, sign},
    secret::Secret,
};
use serde_json::json;

use crate::{
    refuse::assert_refused,
    support::{App, Callback, Config, Endpoint, NOWHERE, Program, Vhost, Worker},
};

const SECRET: &str = "fake-fake-fake-fake-fake-fake-32";

fn signed(name: &str) -> Endpoint {
    Endpoint::plain(name)
        .context("format", "\"jwt\"")
        .context("on_unresolved", "\"refuse\"")
        .context("jwt", &format!("{{ keys = [ {{ kid = \"a\", secret = \"{SECRET}\" }} ] }}"))
}

/// A token as the third party would issue it, made with the program itself.
async fn token(app: &App, claims: &serde_json::Value, more: &[&str]) -> String {
    let args = [&["context", "sign", "--endpoint", "signed"][..], more].concat();
    let signed = Program::new(args).config(app.file()).stdin(claims.to_string()).run().await;
    signed.ended_with(0).stdout.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_names_the_task_of_a_card_or_the_card_is_refused() {
    let vhost = Vhost::new().await;
    let endpoint = Endpoint::plain("p")
        .context("format", "\"pattern\"")
        .context("pattern", r"'(?P<instance_id>[^:]+):(?P<task_id>[^/]+)/(?P<round>\d+)'")
        .context("on_unresolved", "\"refuse\"");
    let app = App::with(Config::bare(vhost.url()).endpoint(endpoint)).await;
    let id = app.post("p", Callback::card("PO-77:n2/3", 7).plain()).await.command_id();
    let task = &Worker::on(&vhost).command(&id).await.json()["task"];
    assert_eq!((&task["instance_id"], &task["task_id"]), (&json!("PO-77"), &json!("n2")));
    assert_eq!((&task["round"], &task["resolved_by"]), (&json!("3"), &json!("pattern")));
    assert_refused(&app.post("p", Callback::card("PO-77:n2", 7).plain()).await, "context_invalid");
    let contradicting = Callback::list("PO-77", "n3").context("PO-77:n2/3").plain();
    assert_refused(&app.post("p", contradicting).await, "context_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_context_is_taken_and_a_forged_stale_or_foreign_one_is_not() {
    let vhost = Vhost::new().await;
    let app = App::with(Config::bare(vhost.url()).endpoint(signed("signed"))).await;
    let send = async |token: &str| app.post("signed", Callback::card(token, 7).plain()).await;
    let claims = json!({"instance_id": "PO-77", "task_id": "n2", "round": 1, "operators": ["zhang3"], "exp": 4_000_000_000_u64,
                        "data": {"amount": 1}});
    let good = token(&app, &claims, &["--expires-in", "1h"]).await;
    let id = send(&good).await.command_id();
    let command = Worker::on(&vhost).command(&id).await.json();
    assert_eq!(
        command["task"],
        json!({"approval_code": null, "instance_id": "PO-77", "task_id": "n2", "round": "1",
               "business_key": null, "resolved_by": "jwt", "data": {"amount": 1}})
    );
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let swapped: String = signature.chars().rev().collect();
    assert_refused(&send(&format!("{message}.{swapped}")).await, "context_invalid");
    assert_refused(&send("PO-77/n2").await, "context_invalid");
    let with = async |name: &str, value: serde_json::Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        send(&token(&app, &claims, &[]).await).await
    };
    assert_refused(&with("exp", json!(1_600_000_000)).await, "context_expired");
    assert_refused(&with("operators", json!(["somebody-else"])).await, "operator_not_allowed");
    assert_refused(&with("actions", json!(["REJECT"])).await, "action_not_allowed");
    assert_refused(&with("endpoint", json!("leave")).await, "context_invalid");
    assert_eq!(with("nbf", json!(1_600_000_000)).await.json()["data"]["status"], "accepted");
    assert_eq!(send(&good).await.json()["data"]["status"], "duplicate");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_has_its_own_words_for_its_own_approvers_only() {
    let endpoint = signed("signed").set("sentences", "{ operator_not_allowed = \"这不是您的任务。\" }");
    let app = App::with(Config::bare(NOWHERE).endpoint(endpoint)).await;
    let claims = json!({"task_id": "n2", "operators": ["somebody-else"], "exp": 4_000_000_000_u64});
    let refused = app.post("signed", Callback::card(&token(&app, &claims, &[]).await, 7).plain()).await;
    assert_refused(&refused, "operator_not_allowed");
    assert_eq!(refused.json()["message"], "这不是您的任务。");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_checked_by_hand_as_they_are_by_the_endpoint() {
    let config = Config::bare(NOWHERE).endpoint(signed("signed"));
    let file = config.write();
    let run =
        async |args: &[&str], input: &str| Program::new(args.to_vec()).config(&file).stdin(input).run().await;
    let claims = r#"{"task_id":"n2","exp":4000000000,"round":"1","operators":["zhang3"],"sub":"ours"}"#;
    let token = run(&["context", "sign"], claims).await.ended_with(0).stdout;
    let verified = run(&["context", "verify", "--utc-offset", "+08:00"], &token).await.ended_with(0);
    assert_eq!(verified.stderr.trim(), "valid until 2096-10-02T15:06:40.000+08:00");
    let mut claims = verified.json();
    let jti = claims.as_object_mut().and_then(|claims| claims.remove("jti")).expect("it is made up");
    assert_eq!(jti.as_str().map(str::len), Some(36), "{jti}");
    assert_eq!(
        claims,
        json!({"task_id": "n2", "exp": 4_000_000_000_u64, "round": "1", "operators": ["zhang3"], "sub": "ours"})
    );
    let refused = run(&["context", "verify"], &token.replace("ey", "ez")).await.ended_with(1);
    assert!(refused.stderr.contains("refused") && !refused.stderr.contains(SECRET), "{}", refused.stderr);
    run(&["context", "verify", "--endpoint", "nowhere"], &token).await.ended_with(64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_lacks_is_told_when_it_is_signed_and_when_it_is_verified_and_it_is_refused() {
    let relaxed = Endpoint::plain("relaxed")
        .context("format", "\"jwt\"")
        .context("jwt", &format!("{{ require = [], keys = [ {{ kid = \"a\", secret = \"{SECRET}\" }} ] }}"));
    let app = App::with(Config::bare(NOWHERE).endpoint(signed("signed")).endpoint(relaxed)).await;
    let run = async |args: &[&str], input: &str| {
        Program::new(args.to_vec()).config(app.file()).stdin(input).run().await
    };
    let signed = run(&["context", "sign", "--endpoint", "signed"], r#"{"task_id":"n2"}"#).await.ended_with(0);
    assert!(
        signed.stderr.contains("warning: the token has no exp, so it stays valid forever"),
        "{}",
        signed.stderr
    );
    let lacks = "it has no exp, no operators (endpoints.context.jwt.require)";
    assert!(signed.stderr.contains(lacks), "{}", signed.stderr);
    let token = signed.stdout.trim();
    let verified = run(&["context", "verify", "--endpoint", "signed"], token).await.ended_with(1);
    let lacks = "refused: the token has no exp, no operators (endpoints.context.jwt.require)";
    assert!(verified.stderr.contains(lacks), "{}", verified.stderr);
    assert_eq!(verified.json()["task_id"], "n2", "what it says is told all the same");
    assert_refused(&app.post("signed", Callback::card(token, 7).plain()).await, "context_invalid");

    let verified = run(&["context", "verify", "--endpoint", "relaxed"], token).await.ended_with(0);
    assert_eq!(verified.stderr.trim(), "valid forever: it has no exp");
    assert_eq!(app.post("relaxed", Callback::card(token, 7).plain()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn milliseconds_in_a_token_are_told_as_such_and_never_taken_for_the_year_58000() {
    let app = App::with(Config::bare(NOWHERE).endpoint(signed("signed"))).await;
    let run = async |args: &[&str], input: &str| {
        Program::new(args.to_vec()).config(app.file()).stdin(input).run().await
    };
    let claims = |exp: &str| format!(r#"{{"task_id":"n2","round":1,"operators":["zhang3"],"exp":{exp}}}"#);
    // Yesterday, in JavaScript's milliseconds.
    let yesterday = countersign::time::Timestamp::now() - std::time::Duration::from_secs(86_400);
    let millis = claims(&yesterday.as_millisecond().to_string());
    let refused = run(&["context", "sign"], &millis).await.ended_with(1);
    assert!(
        refused.stderr.contains("not signed: the token's exp looks like milliseconds"),
        "{}",
        refused.stderr
    );
    // So another program signs it.
    let keys = [SigningKey::Hs256(Secret::new(SECRET))];
    let claims_of = |text: &str| serde_json::value::RawValue::from_string(text.to_owned()).expect("JSON");
    let foreign = |text: &str| sign(&keys[0], Some("a"), &claims_of(text)).expect("it can be signed");
    let token = foreign(&millis);
    let verified = run(&["context", "verify"], &token).await.ended_with(1);
    assert!(
        verified.stderr.contains("refused: the token's exp looks like milliseconds"),
        "{}",
        verified.stderr
    );
    assert_refused(&app.post("signed", Callback::card(&token, 7).plain()).await, "context_invalid");
    for (exp, status) in [("4000000000.5", 200), ("4e9", 200), ("-1", 410), ("1e308", 422), ("1e999", 422)] {
        let token = foreign(&claims(exp));
        assert_eq!(app.post("signed", Callback::card(&token, 7).plain()).await.status, status, "{exp}");
    }
}
