//! The failure budget per peer against a guesser: how many guesses he has, and what he can do about it.

use crate::support::{Answer, App, Callback, Config, Endpoint, KEY, Line, NOWHERE};

const BUDGET: usize = 10;

async fn guarded() -> App {
    let config = Config::with_url(NOWHERE)
        .set("http", "failure_budget_per_peer", &BUDGET.to_string())
        .set("http", "trusted_proxies", "[\"127.0.0.1\"]")
        .endpoint(Endpoint::encrypted("other"));
    App::with(config).await
}

/// Sends through the trusted proxy, with these forwarded addresses.
async fn from(app: &App, forwarded: &str, path: &str, body: &[u8]) -> Answer {
    let mut line = Line::to(app.public()).await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {forwarded}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    line.write(&[head.as_bytes(), body].concat()).await.expect("an open connection");
    line.answer().await.expect("an answer").without_date()
}

/// Removes the waiting time, which changes by a second now and then.
fn without_wait(mut answer: Answer) -> Answer {
    answer.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("retry-after"));
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_spent_the_budget_is_not_told_whether_the_next_guess_is_right() {
    let app = guarded().await;
    let right = Callback::list("i", "t");
    let wrong = right.clone().token("guessed");
    for guess in 0..BUDGET {
        let answer = from(&app, "192.0.2.1", "/callbacks/purchase", &wrong.encrypted(KEY)).await;
        assert_eq!(answer.reason(), "unauthenticated", "guess {guess}");
    }
    let spent = from(&app, "192.0.2.1", "/callbacks/purchase", &wrong.encrypted(KEY)).await;
    assert_eq!((spent.status, spent.reason().as_str()), (429, "rate_limited"));
    let wait: u64 = spent.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    let spent = without_wait(spent);
    for (path, body) in [
        ("/callbacks/purchase", right.encrypted(KEY)),
        ("/callbacks/leave", right.plain()),
        ("/callbacks/leave", b"no JSON".to_vec()),
        ("/callbacks/nowhere", right.encrypted(KEY)),
    ] {
        assert_eq!(without_wait(from(&app, "192.0.2.1", path, &body).await), spent, "{path}");
    }
    // The platform's own address has a separate budget at the same endpoint.
    assert_eq!(from(&app, "192.0.2.2", "/callbacks/purchase", &right.encrypted(KEY)).await.status, 200);
}

/// Across all endpoints, existing or not, and however he writes his address.
#[tokio::test(flavor = "multi_thread")]
async fn a_guesser_has_one_budget_whatever_he_asks_and_whoever_he_says_to_be() {
    let app = guarded().await;
    let wrong = Callback::list("i", "t").token("guessed");
    type Address = fn(usize) -> String;
    let guises: [(&str, Address); 6] = [
        ("with other addresses before his", |n| format!("198.51.100.{n}, 192.0.2.10")),
        ("with the proxy's address before his", |n| format!("127.0.0.1, 198.51.100.{n}, 192.0.2.11")),
        ("with a port", |n| format!("192.0.2.12:{}", 1000 + n)),
        ("as IPv6 that holds IPv4", |n| {
            if n % 2 == 0 { "192.0.2.13".to_owned() } else { "::ffff:192.0.2.13".to_owned() }
        }),
        ("from all over his network of IPv6", |n| format!("2001:db8:1:2:{n:x}::{n:x}")),
        ("with words before his", |n| format!("unknown-{n}, 192.0.2.14")),
    ];
    for (guise, address) in guises {
        let mut heard = 0;
        for guess in 0..BUDGET * 3 {
            let path = ["/callbacks/purchase", "/callbacks/other", "/callbacks/leave", "/callbacks/nowhere"]
                [guess % 4];
            let body = if path.ends_with("leave") { wrong.plain() } else { wrong.encrypted(KEY) };
            let answer = from(&app, &address(guess + 1), path, &body).await;
            heard += usize::from(answer.status == 403);
            assert!([403, 429].contains(&answer.status), "{}", answer.text());
        }
        // On a slow machine, a minute may end during the test.
        assert!((BUDGET..=2 * BUDGET).contains(&heard), "{guise}: {heard} of {} were heard", BUDGET * 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_proxy_is_trusted_nobody_says_who_he_is() {
    let config = Config::with_url(NOWHERE).set("http", "failure_budget_per_peer", &BUDGET.to_string());
    let app = App::with(config).await;
    let wrong = Callback::list("i", "t").token("guessed");
    let mut heard = 0;
    for guess in 0..BUDGET * 3 {
        let answer =
            from(&app, &format!("192.0.2.{guess}"), "/callbacks/purchase", &wrong.encrypted(KEY)).await;
        heard += usize::from(answer.status == 403);
    }
    assert!((BUDGET..=2 * BUDGET).contains(&heard), "{heard}");
}

/// At most this many requests a minute, while one byte of a padding-oracle attack takes 128 on average: the value of
/// the budget against an unknown attack.
#[tokio::test(flavor = "multi_thread")]
async fn the_budget_counts_forged_ciphertexts_as_it_counts_wrong_tokens() {
    let app = guarded().await;
    let forged = [
        crate::wire::Blocks(vec![crate::wire::random_block(), crate::wire::random_block()]).body(),
        br#"{"encrypt":"AAAA"}"#.to_vec(),
        br#"{"encrypt":"?"}"#.to_vec(),
        b"{}".to_vec(),
        b"hello".to_vec(),
    ];
    let mut heard = 0;
    for guess in 0..BUDGET * 3 {
        let body = &forged[guess % forged.len()];
        heard += usize::from(from(&app, "192.0.2.30", "/callbacks/purchase", body).await.status == 403);
    }
    assert!((BUDGET..=2 * BUDGET).contains(&heard), "{heard}");
}
