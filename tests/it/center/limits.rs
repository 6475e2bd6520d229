//! Obstacles for callers of the platform: expired tokens, limits, misleading errors.

use super::{AWAY, Center, FAILED, HOOK, instance};
use crate::support::{Config, NOWHERE, Program, eventually, quoted};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    time::Instant,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_waited_out_whichever_way_it_is_told() {
    let center = Center::start().await;
    let code = center.definition(HOOK).await;
    center.sync(&instance(&code, "PO-77", 1_790_000_000_001)).await;
    for status in [429, 400] {
        center
            .fail(json!({ "path": "external_tasks", "status": status, "code": 99991400, "reset_seconds": 1 }))
            .await;
        let began = Instant::now();
        assert_eq!(center.json(&["tasks", "--instance", "PO-77"]).await.len(), 1);
        assert!(began.elapsed().as_millis() >= 1000, "it waited as long as it was told to");
    }
    // A wait longer than the call's deadline is reported at once.
    center.configure("cli_emulator", "emulator-secret", "call_deadline_ms = 2000");
    center
        .fail(json!({ "path": "external_tasks", "status": 429, "code": 99991400, "reset_seconds": 60 }))
        .await;
    let began = Instant::now();
    let ran = center.run(&["tasks", "--instance", "PO-77"]).await.ended_with(FAILED);
    assert!(ran.stderr.contains("code 99991400 (HTTP 429)"), "{}", ran.stderr);
    assert!(began.elapsed().as_secs() < 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_own_count_keeps_it_below_the_platforms_limit() {
    // The emulator allows the documented 50 a second; 70 checks of one instance each exceed that by far.
    let center = Center::start().await;
    let versions: Vec<_> = (0..1400)
        .map(|number| json!({ "instance_id": format!("I-{number}"), "update_time": "1", "tasks": [] }))
        .collect();
    let file = center.write("versions.json", &json!(versions).to_string());
    let began = Instant::now();
    let ran = center.run(&["check-instances", file.to_str().unwrap(), "--json"]).await.ended_with(FAILED);
    assert_eq!(ran.stdout.lines().count(), 1400, "{}", ran.stderr);
    assert!(began.elapsed().as_millis() >= 1000, "70 calls take more than a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_says_that_it_may_pass_is_tried_again_only_where_twice_is_as_good_as_once() {
    let center = Center::start().await;
    let code = center.definition(HOOK).await;
    let update = instance(&code, "PO-77", 1_790_000_000_001);
    let later = |path: &str| json!({ "path": path, "code": 1395001, "msg": "try again later" });
    center.fail(later("external_instances")).await;
    center.sync(&update).await;
    let mut replace = instance(&code, "PO-78", 1_790_000_000_001);
    replace["update_mode"] = json!("REPLACE");
    let file = center.write("replace.json", &replace.to_string());
    center.fail(later("external_instances")).await;
    let ran = center.run(&["sync", file.to_str().unwrap()]).await.ended_with(FAILED);
    assert!(ran.stderr.contains("code 1395001"), "{}", ran.stderr);
    // A lock conflict means that nothing was done.
    center.fail(json!({ "path": "external_instances", "code": 60014 })).await;
    center.run(&["sync", file.to_str().unwrap()]).await.ended_with(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_does_not_exist_is_no_reason_to_get_tokens_without_end() {
    let center = Center::start().await;
    // With another prefix every path is unknown, except the token's.
    center.fail(json!({ "path": "external_approvals", "times": 100, "code": 99991663, "msg": "Invalid access token" })).await;
    let ran = center.run(&["definition", "get", "X"]).await.ended_with(FAILED);
    assert!(
        ran.stderr.contains("code 99991663") && ran.stderr.contains("the token is fresh"),
        "{}",
        ran.stderr
    );
    let planned = center.state().await;
    assert_eq!(planned["tokens_given"], 1, "the platform gives the same one again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_in_the_middle_of_a_call_is_replaced() {
    let center = Center::start().await;
    let code = center.definition(HOOK).await;
    center.sync(&instance(&code, "PO-77", 1_790_000_000_001)).await;
    // The call has a token and waits for its turn; meanwhile the app's secret is reset.
    center
        .fail(json!({ "path": "external_tasks", "status": 429, "code": 99991400, "reset_seconds": 2 }))
        .await;
    let mut running = center.begin(&["tasks", "--instance", "PO-77", "--json"]);
    eventually("the call to be told to wait", async || {
        match center.state().await["failures_left"].as_u64() {
            Some(0) => Ok(()),
            left => Err(left),
        }
    })
    .await;
    center.forget_tokens().await;
    let code = eventually("the call to end", async || running.exit_code().ok_or("it runs")).await;
    assert_eq!(code, Some(0), "{:?}", running.lines());
    assert_eq!(center.state().await["tokens_given"], 1, "one fresh token");
}

/// Serves this answer to every request until the test ends; returns its URL.
fn stranger(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                // Reads the head and the start of the body; the bodies of these calls are small.
                drop(stream.read(&mut [0; 65_536]));
                drop(stream.write_all(answer.as_bytes()));
            });
        }
    });
    url
}

/// A configuration for this approval center. The returned `Config` keeps its directory alive.
fn towards(base_url: &str) -> (Config, PathBuf) {
    let config = Config::with_url(NOWHERE)
        .set("approval_center", "base_url", &quoted(base_url))
        .set("approval_center", "app_id", &quoted("cli_emulator"))
        .set("approval_center", "app_secret", &quoted("emulator-secret"))
        .set("approval_center", "call_deadline_ms", "3000");
    let file = config.write();
    (config, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_in_the_centers_place_is_named() {
    let http = |head: &str, body: &str| {
        format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    for (answer, words) in [
        (http("200 OK\r\ncontent-type: text/html", "<html>hush</html>"), "it is an HTML page; is it a proxy"),
        (
            http("302 Found\r\nlocation: https://login.example/?t=hush", ""),
            "a redirect to https://login.example;",
        ),
        (
            http("200 OK", r#"{"code":0,"msg":"success"}"#),
            "POST /open-apis/auth/v3/tenant_access_token/internal",
        ),
        (
            // A gateway that issues tokens and answers success to everything.
            http("200 OK", r#"{"code":0,"tenant_access_token":"t-fake","expire":7200,"data":{}}"#),
            "it reports success but has no data.approval_name",
        ),
    ] {
        let (_config, file) = towards(&stranger(answer));
        let ran =
            Program::new(["center", "definition", "get", "X"]).config(&file).run().await.ended_with(FAILED);
        assert!(ran.stderr.contains(words), "{words:?} is not in {}", ran.stderr);
        assert!(!ran.stderr.contains("hush"), "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_on_the_way_is_named_and_its_password_is_not() {
    let proxy =
        stranger("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned());
    let address = proxy.strip_prefix("http://").expect("http").to_owned();
    let proxy = format!("http://fake-user:fake-password@{address}");
    let (_config, file) = towards("https://open.example");
    let program = Program::new(["center", "whoami"]).config(&file).env("HTTPS_PROXY", proxy.as_str());
    let told = program.run().await.ended_with(AWAY).stderr;
    assert!(
        told.contains(&format!("cannot be reached through the proxy {address}, which the environment")),
        "{told}"
    );
    assert!(!told.contains("fake-"), "{told}");
    let told = Program::new(["send", "--endpoint", "purchase", "--url", "https://hook.example"])
        .config(&file)
        .env("https_proxy", proxy.as_str())
        .run()
        .await
        .ended_with(AWAY)
        .stdout;
    assert!(told.contains(&format!("not reached through the proxy {address}")), "{told}");
}
