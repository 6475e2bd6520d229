//! SIGHUP in mid-traffic: validated whole, then swapped; a bad file changes nothing.

use super::{configuration, edit_file, reload_with, reloads, signal};
use crate::oracle::{Decision, Oracle};
use crate::support::{
    Answer, App, Authority, Callback, Config, Endpoint, KEY, Line, NOWHERE, Proxy, TOKEN, Vhost, Worker,
    eventually, free_port, post, quoted,
};
use std::net::SocketAddr;

const NEXT: &str = "fake-token-next";

/// Answers for an endpoint that is there and refuses this: nothing of it is kept or published.
async fn knock(app: &App, endpoint: &str) -> Answer {
    app.post(endpoint, Callback::list("i", "t").without("user_id").plain()).await
}

/// Sends a decision with this token, and has the oracle note it if it was kept.
async fn send_with(oracle: &Oracle, app: &App, token: &str, decision: Decision) -> Answer {
    let answer = app.post("purchase", decision.callback().token(token).encrypted(KEY)).await;
    oracle.note(decision, Some(&answer), true);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_rotated_under_load_refuses_nobody_while_both_are_known() {
    let vhost = Vhost::new().await;
    let config = Config::bare(vhost.url());
    let secret = config.dir().join("next-token");
    std::fs::write(&secret, NEXT).unwrap();
    let credential = |token: &str| format!("{{ {token}, action_callback_key = {} }}", quoted(KEY));
    let old = credential(&format!("action_callback_token = {}", quoted(TOKEN)));
    let new = credential(&format!("action_callback_token_file = {}", quoted(secret.to_str().unwrap())));
    let app =
        App::with(config.endpoint(Endpoint::encrypted("purchase").credentials_toml(&format!("[{old}]"))))
            .await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 6);
    load.until_answered(50).await;
    assert_eq!(send_with(&oracle, &app, NEXT, Decision::new("early", 0)).await.reason(), "unauthenticated");

    reload_with(&app, "applied", |text| text.replace(&old, &format!("{old}, {new}"))).await;
    load.until_answered(100).await;
    assert_eq!(send_with(&oracle, &app, NEXT, Decision::new("next", 0)).await.status, 200);
    load.stop().await;
    assert_eq!(oracle.refused(), 1, "nobody who had the old token was refused");

    // Senders who were not told yet are refused, and their decisions are nowhere.
    let load = oracle.load(&app, 6);
    load.until_answered(50).await;
    reload_with(&app, "applied", |text| text.replace(&format!("{old}, {new}"), &new)).await;
    eventually("the old token to be refused", async || match oracle.refused() {
        count if count > 10 => Ok(()),
        count => Err(count),
    })
    .await;
    load.stop().await;
    assert_eq!(send_with(&oracle, &app, TOKEN, Decision::new("late", 0)).await.reason(), "unauthenticated");
    assert_eq!(send_with(&oracle, &app, NEXT, Decision::new("next", 1)).await.status, 200);

    // The secret's own file is read anew as well, although the configuration names the same path.
    std::fs::write(&secret, TOKEN).unwrap();
    reload_with(&app, "applied", |text| text).await;
    assert_eq!(send_with(&oracle, &app, TOKEN, Decision::new("again", 0)).await.status, 200);
    assert_eq!(send_with(&oracle, &app, NEXT, Decision::new("again", 1)).await.reason(), "unauthenticated");
    for secret in [NEXT, TOKEN] {
        assert!(!app.stderr().contains(secret), "a secret is in the log");
    }
    let figures = oracle.account(&app, &worker).await.check("token rotated by reloads");
    assert_eq!(figures.unknown, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_come_and_go_under_load_and_what_has_begun_ends_as_it_began() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 6);
    load.until_answered(50).await;
    let series = r#"countersign_callbacks_total{endpoint="travel",outcome="malformed"}"#;
    assert_eq!(knock(&app, "travel").await.reason(), "unauthenticated");
    assert_eq!(app.metric(series).await, None);

    let travel = "\n[[endpoints]]\nname = \"travel\"\nplain = true\ncredentials = [ { action_callback_token = \"fake-token-0f3a-9d\" } ]\n";
    reload_with(&app, "applied", |text| text + travel).await;
    assert_eq!(app.metric(series).await, Some(0.0), "there from the start, at zero");
    assert_eq!(knock(&app, "travel").await.reason(), "malformed");
    assert_eq!(app.metric(series).await, Some(1.0));

    let body = Callback::list("i", "t").without("user_id").plain();
    let head =
        format!("POST /callbacks/travel HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    let (start, rest) = body.split_at(40);
    let mut line = Line::to(app.public()).await;
    line.write(&[head.as_bytes(), start].concat()).await.unwrap();
    // Only the server knows that it has begun; that it answers another shows that it had the time.
    knock(&app, "travel").await;
    reload_with(&app, "applied", |text| text.replace(travel, "")).await;
    assert_eq!(knock(&app, "travel").await.reason(), "unauthenticated");
    assert_eq!(app.metric(series).await, None, "its series ended");
    line.write(rest).await.unwrap();
    let answer = line.answer().await.expect("what was begun is finished");
    assert_eq!(answer.reason(), "malformed", "by the settings it began with");

    load.until_answered(50).await;
    load.stop().await;
    let figures = oracle.account(&app, &worker).await.check("endpoints added and removed by reloads");
    assert_eq!((figures.unknown, figures.refused.values().sum::<usize>()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_keeps_the_old_one_and_says_all_that_is_wrong() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 6);
    load.until_answered(50).await;
    let good = std::fs::read_to_string(app.file()).unwrap();

    let endpoint = "[[endpoints]]\nname = \"Travel!\"\nplain = true\ncredentials = [ { action_callback_token = \"fake-hush\" } ]\n";
    reload_with(&app, "rejected", |text| {
        format!(
            "{endpoint}{}\n[log]\nfilter = \"loud=hush\"\n",
            text.replace("[ledger]", "[ledger]\nmax_batch = 0")
        )
    })
    .await;
    let said = eventually("the log to say so", async || {
        let lines = app.log_lines();
        let last = lines.iter().any(|line| line["faults"].is_number());
        if last { Ok(lines) } else { Err(()) }
    })
    .await;
    let errors = said.iter().filter(|line| line["level"] == "ERROR");
    let keys: Vec<_> = errors.filter_map(|line| line["key"].as_str()).collect();
    assert_eq!(keys, ["ledger.max_batch", "log.filter", "endpoints[0].name"], "every fault, by its key");
    assert!(!app.stderr().contains("fake-hush"), "a secret is in the log");
    let told = configuration(&app).await;
    assert_eq!(told["last_reload"]["result"], "rejected", "{told}");

    reload_with(&app, "rejected", |_| "[http\nlisten = ".to_owned()).await;
    std::fs::remove_file(app.file()).unwrap();
    signal(app.pid(), "HUP");
    eventually("a file that is gone to be rejected", async || match reloads(&app, "rejected").await {
        3.0 => Ok(()),
        count => Err(count),
    })
    .await;
    load.until_answered(50).await;
    assert_eq!(reloads(&app, "applied").await, 0.0);

    std::fs::write(app.file(), "").unwrap();
    reload_with(&app, "applied", |_| good).await;
    let told = configuration(&app).await;
    assert_eq!(told["last_reload"]["result"], "applied", "{told}");
    load.until_answered(50).await;
    load.stop().await;
    let figures = oracle.account(&app, &worker).await.check("bad files at reload");
    assert_eq!((figures.unknown, figures.refused.values().sum::<usize>()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_another_address_is_found_by_a_reload() {
    let vhost = Vhost::new().await;
    let app = App::with(Config::with_url(NOWHERE)).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 6);
    load.until_answered(100).await;
    let proxies = [Proxy::shut_before(vhost.address()), Proxy::shut_before(vhost.address())];
    let [mut first, mut second] = proxies;
    first.open().await;
    second.open().await;

    let first_url = vhost.url_through(first.port());
    reload_with(&app, "applied", |text| text.replace(NOWHERE, &first_url)).await;
    app.until_metric("countersign_amqp_connected", 1.0).await;
    load.until_answered(100).await;

    // And to the next one while messages are in flight to the first, which then goes away for good.
    let second_url = vhost.url_through(second.port());
    reload_with(&app, "applied", |text| text.replace(&first_url, &second_url)).await;
    first.shut().await;
    app.until_metric("countersign_amqp_connected", 1.0).await;
    load.until_answered(100).await;
    load.stop().await;
    let figures = oracle.account(&app, &worker).await.check("the broker's URL changed by reloads");
    assert_eq!((figures.unknown, figures.refused.values().sum::<usize>()), (0, 0));
    assert!(!app.stderr().contains("background work ended; restarting it"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_reloads_in_quick_succession_the_last_file_is_in_force() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    for round in 0..5 {
        let named = |n: u32| {
            format!(
                "\n[[endpoints]]\nname = \"e{n}\"\nplain = true\ncredentials = [ {{ action_callback_token = \"fake-token-of-e\" }} ]\n"
            )
        };
        let base = std::fs::read_to_string(app.file()).unwrap();
        for n in 0..3 {
            edit_file(&app, |_| format!("{base}{}", named(10 * round + n)));
            signal(app.pid(), "HUP");
        }
        let last = 10 * round + 2;
        eventually("the last file to be in force", async || {
            match app
                .metric(&format!("countersign_callbacks_total{{endpoint=\"e{last}\",outcome=\"accepted\"}}"))
                .await
            {
                Some(_) => Ok(()),
                None => Err(reloads(&app, "applied").await),
            }
        })
        .await;
        for gone in [10 * round, 10 * round + 1] {
            let series = format!("countersign_callbacks_total{{endpoint=\"e{gone}\",outcome=\"accepted\"}}");
            assert_eq!(app.metric(&series).await, None, "an earlier file is not in force after a later one");
        }
        edit_file(&app, |_| base);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_left_as_it_is_and_named() {
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let app = App::with(
        Config::with_url(NOWHERE)
            .set("admin", "token", "\"fake-admin-token-1\"")
            .set("log", "filter", "\"warn\""),
    )
    .await;
    let public = app.public().to_string();
    assert_eq!(app.get_as("fake-admin-token-1", "/api/v1/commands").await.status, 200);
    let large = Callback::list("i", "t").with("reason", "x".repeat(3000)).without("user_id").plain();
    assert_eq!(app.post("leave", large.clone()).await.reason(), "malformed");

    reload_with(&app, "applied", |text| {
        text.replace(&public, &elsewhere.to_string())
            .replace("[http]", "[http]\nmax_body_bytes = 1024\nworkers = 3")
            .replace("fake-admin-token-1", "fake-admin-token-2")
            .replace("\"warn\"", "\"info\"")
    })
    .await;
    let told = configuration(&app).await;
    assert_eq!(told["restart_needed"], serde_json::json!(["http.listen", "http.workers"]), "{told}");
    assert_eq!(app.post("leave", large).await.reason(), "body_too_large", "what can be changed was");
    assert_eq!(app.get_as("fake-admin-token-1", "/api/v1/commands").await.status, 401);
    assert_eq!(app.get_as("fake-admin-token-2", "/api/v1/commands").await.status, 200);
    assert!(tokio::net::TcpStream::connect(elsewhere).await.is_err(), "the listener stays where it was");
    let filtered = eventually("the log to follow its filter", async || {
        app.post("leave", Callback::list("i", "t").token("guess").plain()).await;
        app.log_lines().into_iter().find(|line| line["level"] == "INFO").ok_or(())
    })
    .await;
    assert_eq!(filtered["level"], "INFO");

    // Named again until it is done, and no more when it is taken back.
    reload_with(&app, "applied", |text| text.replace("workers = 3", "")).await;
    assert_eq!(configuration(&app).await["restart_needed"], serde_json::json!(["http.listen"]));
    reload_with(&app, "applied", |text| text.replace(&elsewhere.to_string(), &public)).await;
    assert_eq!(configuration(&app).await["restart_needed"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_grows_by_a_reload_covers_what_was_kept_before() {
    let zero = Endpoint::encrypted("purchase").set("dedupe_window", "\"0s\"");
    let app = App::with(Config::bare(NOWHERE).endpoint(zero)).await;
    let tap = Callback::list("i", "t");
    let first = app.accept(&tap).await;
    let second = app.accept(&tap).await;
    assert_ne!(first, second, "without a window every repeat is a decision of its own");
    // What is older than the longest window leaves the memory as time goes on.
    for other in ["u", "v", "w"] {
        app.accept(&Callback::list("i", other)).await;
    }
    reload_with(&app, "applied", |text| text.replace("\"0s\"", "\"10m\"")).await;
    let answer = app.post("purchase", tap.encrypted(KEY)).await;
    assert_eq!((answer.status_word().as_str(), answer.command_id()), ("duplicate", second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_at_another_place_is_shown_after_a_reload_and_a_bad_one_is_not() {
    let (first, second) = (Authority::new(), Authority::new());
    let config = Config::with_url(NOWHERE);
    // So long that nobody looks at the files but by a reload.
    let config = config.set("http.tls", "check_interval", "\"24h\"");
    let files = first.issue(&["127.0.0.1"]).write(config.dir(), "first");
    let next = second.issue(&["127.0.0.1"]).write(config.dir(), "second");
    let app = App::with(config.https(&first, &files)).await;
    let tap = |task: &str| Callback::list("i", task).encrypted(KEY);
    let trusting = |authority: &Authority| {
        let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap()
    };
    let url = app.callback_url("purchase");
    assert_eq!(app.post("purchase", tap("t1")).await.status, 200);
    assert!(post(&trusting(&second), &url, tap("t2")).await.is_err(), "not shown yet");

    let text = |path: &std::path::Path| path.display().to_string();
    reload_with(&app, "applied", |file| {
        file.replace(&text(&files.cert), &text(&next.cert)).replace(&text(&files.key), &text(&next.key))
    })
    .await;
    assert_eq!(post(&trusting(&second), &url, tap("t2")).await.unwrap().status, 200);
    assert!(post(&trusting(&first), &url, tap("t3")).await.is_err(), "not shown any more");

    // A key that belongs to another certificate.
    reload_with(&app, "rejected", |file| file.replace(&text(&next.key), &text(&files.key))).await;
    assert_eq!(post(&trusting(&second), &url, tap("t3")).await.unwrap().status, 200);

    let without = |file: String| {
        let lines =
            file.lines().filter(|line| !line.starts_with("cert_file") && !line.starts_with("key_file"));
        lines.flat_map(|line| [line, "\n"]).collect::<String>()
    };
    reload_with(&app, "applied", without).await;
    assert_eq!(configuration(&app).await["restart_needed"], serde_json::json!(["http.tls"]));
    assert_eq!(post(&trusting(&second), &url, tap("t4")).await.unwrap().status, 200, "TLS stays");
}
