//! Attacks on the internal listener by somebody who can reach it: without a token, with a wrong one, from a page in a
//! browser, with paths that lead elsewhere.

use crate::support::{Answer, App, Callback, Config, KEY, Line, NOWHERE, eventually};

const ADMIN: &str = "fake-admin-token-4711";

async fn asked(
    app: &App,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    let mut line = Line::to(app.admin()).await;
    let mut request = format!("{method} {target} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(body);
    line.write(request.as_bytes()).await.expect("an open connection");
    line.answer().await
}

async fn with_token() -> App {
    App::with(Config::with_url(NOWHERE).set("admin", "token", &format!("\"{ADMIN}\""))).await
}

const CONTEXT: &str = r#"{"task_id":"t"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_or_with_one_like_it_nothing_of_the_api_is_told() {
    let app = with_token().await;
    let id = app.accept(&Callback::list("private-instance", "private-task")).await;
    let requests = [
        ("GET", "/api/v1/commands".to_owned(), ""),
        ("GET", format!("/api/v1/commands/{id}"), ""),
        ("GET", "/api/v1/commands/no-such-thing".to_owned(), ""),
        ("GET", "/api/v1/refusals".to_owned(), ""),
        ("GET", "/api/v1/contexts/key".to_owned(), ""),
        ("PUT", "/api/v1/contexts/key".to_owned(), CONTEXT),
        ("DELETE", "/api/v1/contexts/key".to_owned(), ""),
        ("POST", "/api/v1/contexts:batch".to_owned(), "{}"),
    ];
    let almost = &ADMIN[..ADMIN.len() - 1];
    let offers = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(format!("Bearer {almost}")),
        Some(format!("Bearer {ADMIN}x")),
        Some(format!("Bearer {}", ADMIN.to_uppercase())),
        Some(format!("Basic {ADMIN}")),
        Some(format!("Token {ADMIN}")),
        Some(ADMIN.to_owned()),
        Some(format!("Bearer \"{ADMIN}\"")),
        Some(format!("Bearer {ADMIN},Bearer x")),
    ];
    for (method, target, body) in &requests {
        let mut first: Option<Answer> = None;
        for offer in &offers {
            let headers: Vec<(&str, &str)> =
                offer.iter().map(|value| ("Authorization", value.as_str())).collect();
            let answer = asked(&app, method, target, &headers, body).await.expect("an answer").without_date();
            assert_eq!(answer.status, 401, "{method} {target} with {offer:?}: {}", answer.text());
            assert!(!answer.text().contains("private"), "{}", answer.text());
            assert_eq!(
                answer,
                *first.get_or_insert_with(|| answer.clone()),
                "{method} {target} with {offer:?}"
            );
        }
        // A repeated header is not trusted, even if one token is right. A token in the query is ignored.
        let twice = [("Authorization", "Bearer x"), ("Authorization", &*format!("Bearer {ADMIN}"))];
        assert_eq!(asked(&app, method, target, &twice, body).await.expect("an answer").status, 401);
        let in_query = format!("{target}?token={ADMIN}&access_token={ADMIN}");
        assert_eq!(asked(&app, method, &in_query, &[], body).await.expect("an answer").status, 401);
    }
    let right = format!("Bearer {ADMIN}");
    let answer =
        asked(&app, "GET", "/api/v1/commands", &[("Authorization", &right)], "").await.expect("an answer");
    assert!(answer.status == 200 && answer.text().contains("private-task"), "{}", answer.text());
    let log = app.stderr();
    assert!(!log.contains(ADMIN) && !log.contains(almost), "a guess is as good as a secret: {log}");
}

/// A web page in a browser can send simple requests with its own `Origin`, or with a name that resolves to this
/// address. They change nothing, with or without a token.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_changes_nothing() {
    let right = format!("Bearer {ADMIN}");
    for (app, token) in [(App::with(Config::with_url(NOWHERE)).await, false), (with_token().await, true)] {
        let own = app.admin().to_string();
        let foreign: [&[(&str, &str)]; 6] = [
            &[("Origin", "http://evil.example")],
            &[("Origin", "null")],
            &[("Origin", "http://evil.example"), ("Host", "evil.example")],
            &[("Origin", "https://127.0.0.1.evil.example")],
            &[("Origin", "http://localhost:1"), ("Content-Type", "text/plain")],
            &[("Origin", "http://evil.example"), ("Content-Type", "application/x-www-form-urlencoded")],
        ];
        for headers in foreign {
            let mut headers = headers.to_vec();
            if !headers.iter().any(|(name, _)| *name == "Host") {
                headers.push(("Host", &own));
            }
            if token {
                headers.push(("Authorization", &right));
            }
            for (method, target, body) in [
                ("PUT", "/api/v1/contexts/planted", CONTEXT),
                ("POST", "/api/v1/contexts:batch", r#"{"contexts":[{"key":"planted","task_id":"t"}]}"#),
                ("DELETE", "/api/v1/contexts/planted", ""),
            ] {
                let answer = asked(&app, method, target, &headers, body).await.expect("an answer");
                // A name that the page controls is its own origin. With a token, which no page knows, this does not
                // matter.
                let rebound = token && headers.contains(&("Host", "evil.example"));
                assert!(
                    rebound || answer.status == 403,
                    "{method} {headers:?}: {} {}",
                    answer.status,
                    answer.text()
                );
            }
            let preflight = [("Access-Control-Request-Method", "PUT"), headers[0]];
            let answer =
                asked(&app, "OPTIONS", "/api/v1/contexts/planted", &preflight, "").await.expect("an answer");
            assert!(answer.header("access-control-allow-origin").is_none(), "{:?}", answer.headers);
        }
        if !token {
            let answer = asked(&app, "GET", "/api/v1/contexts/planted", &[], "").await.expect("an answer");
            assert_eq!(answer.status, 404, "{}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_to_a_file_or_past_the_token() {
    let app = with_token().await;
    app.accept(&Callback::list("private-instance", "private-task")).await;
    for target in [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/countersign.toml",
        "/ledger.db",
        "/static/../ledger.db",
        "/livez/../api/v1/commands",
        "/livez/%2e%2e/api/v1/commands",
        "/metrics/..;/api/v1/commands",
        "//api/v1/commands",
        "/api//v1/commands",
        "/API/v1/commands",
        "/api/v1/commands/",
        "/api/v1/commands%00",
        "/api/v1/commands%2f",
        "/api/v1/contexts/..%2fcommands",
        "/api/v1/contexts/../commands",
        "/api/v1/commands/..%2f..%2f..%2fledger.db",
        "/\\..\\ledger.db",
        "http://127.0.0.1/api/v1/commands",
        "/livez?/../api/v1/commands",
    ] {
        let Some(answer) = asked(&app, "GET", target, &[], "").await else { continue };
        let text = answer.text();
        for told in ["private", "root:", "SQLite format", "[http]", KEY] {
            assert!(!text.contains(told), "{target}: {text}");
        }
        let open = target.starts_with("/livez?");
        assert!(open || [400, 401, 404].contains(&answer.status), "{target}: {} {text}", answer.status);
    }
    // This listener accepts no callbacks either, and the public one has no API.
    eventually("the program to be well", async || match app.get("/livez").await.status {
        200 => Ok(()),
        other => Err(other),
    })
    .await;
}
