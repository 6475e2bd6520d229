//! Where settings come from, and what happens if they are wrong.

use crate::support::{
    App, Callback, Config, Endpoint, KEY, NOWHERE, Program, TOKEN, eventually, free_port, post, quoted,
};

const USAGE: i32 = 64;

#[tokio::test(flavor = "multi_thread")]
async fn all_faults_are_told_at_once_with_key_and_origin_and_the_exit_code_is_64() {
    let config = Config::bare(NOWHERE)
        .set("http", "listen", "\"nowhere\"")
        .set("http", "max_bodybytes", "1")
        .set("ledger", "url", "\"mysql://x\"")
        .set("amqp", "topology", "\"perhaps\"")
        .endpoint(Endpoint::plain("twice"))
        .endpoint(Endpoint::plain("twice"))
        .endpoint(Endpoint::plain("Bad Name"))
        .endpoint(Endpoint::plain("empty").credentials(&[("", None)]))
        .endpoint(Endpoint::plain("unset").credentials(&[("${COUNTERSIGN_TEST_NOT_SET}", None)]))
        .endpoint(
            Endpoint::plain("mixed")
                .credentials(&[("a-fake-token", Some("a-fake-key")), ("b-fake-token", None)]),
        )
        .endpoint(Endpoint::plain("later").context("format", "\"jwt\""));
    let file = config.write();
    for command in [&["config", "check"][..], &["serve"]] {
        let ran = Program::new(command)
            .config(&file)
            .env("COUNTERSIGN__AMQP__MAX_IN_FLIGHT", "many")
            .dir(config.dir());
        let ran = ran.run().await.ended_with(USAGE);
        for word in [
            "countersign.toml",
            "http.listen",
            "max_bodybytes",
            "ledger.url",
            "amqp.topology",
            "twice",
            "endpoints[2].name",
            "endpoints[3].credentials[0].action_callback_token",
            "COUNTERSIGN_TEST_NOT_SET",
            "endpoints[5].credentials",
            "endpoints[6].context.jwt",
            "COUNTERSIGN__AMQP__MAX_IN_FLIGHT",
        ] {
            assert!(ran.stderr.contains(word), "{word} is not in\n{}", ran.stderr);
        }
        assert_eq!(ran.stdout, "", "faults are words, not data");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_configuration_passes_the_check() {
    let config = Config::with_url(NOWHERE);
    Program::new(["config", "check"]).config(&config.write()).dir(config.dir()).run().await.ended_with(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_endpoint_or_with_a_missing_file_it_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let ran = Program::new(["serve"]).dir(dir.path()).run().await.ended_with(USAGE);
    assert!(ran.stderr.contains("COUNTERSIGN_ACTION_CALLBACK_TOKEN"), "says what to set: {}", ran.stderr);
    // Every command names the paths it looked at.
    let usual = dir.path().join("countersign.toml");
    let looked = format!("neither {} nor /etc/countersign/countersign.toml exists", usual.display());
    for command in [
        &["serve"][..],
        &["config", "check"],
        &["ledger", "stats"],
        &["ledger", "park", "1"],
        &["refusals"],
        &["reconcile"],
    ] {
        let ran = Program::new(command).dir(dir.path()).run().await;
        assert!(ran.code != Some(0) && ran.stderr.contains(&looked), "{command:?}: {}", ran.stderr);
    }
    let missing = dir.path().join("missing.toml");
    let ran = Program::new(["serve"]).config(&missing).dir(dir.path()).run().await.ended_with(USAGE);
    assert!(ran.stderr.contains("missing.toml"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_nobody_named_is_told() {
    let config = Config::with_url(NOWHERE);
    let file = config.write();
    assert_eq!(file.file_name().unwrap(), "countersign.toml");
    let told = format!("configuration: {}\n", file.display());
    for command in [&["ledger", "list"][..], &["ledger", "stats"], &["refusals"]] {
        let found = Program::new(command).dir(config.dir()).run().await;
        assert!(found.stderr.starts_with(&told), "{command:?}: {}", found.stderr);
        let named = Program::new(command).config(&file).dir(config.dir()).run().await;
        assert!(!named.stderr.contains(&told), "{command:?}: {}", named.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_of_the_file_as_a_whole_names_no_key() {
    use std::os::unix::fs::PermissionsExt;
    let config = Config::with_url(NOWHERE).set("http", "listen", "\"127.0.0.1:0\"").set(
        "admin",
        "listen",
        "\"127.0.0.1:0\"",
    );
    let file = config.write();
    for (path, mode) in [(config.dir(), 0o755), (file.as_path(), 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let program = Program::new(["serve"]).config(&file).dir(config.dir()).start();
    let line = eventually("the warning", async || {
        let lines = program.lines();
        lines.iter().find(|line| line.contains("holds secrets")).cloned().ok_or(lines)
    })
    .await;
    assert!(!line.contains("key"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_file_the_environment_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let (public, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let mut program = Program::new(["serve"])
        .dir(dir.path())
        .env("COUNTERSIGN_ACTION_CALLBACK_TOKEN", TOKEN)
        .env("COUNTERSIGN_ACTION_CALLBACK_KEY", KEY)
        .env("COUNTERSIGN_AMQP_URL", NOWHERE)
        .env("COUNTERSIGN__HTTP__LISTEN", &public)
        .env("COUNTERSIGN__ADMIN__LISTEN", &admin)
        .start();
    let client = crate::support::client();
    let url = format!("http://{public}/callbacks/default");
    let answer = eventually("an answer at the endpoint `default`", async || {
        assert_eq!(program.exit_code(), None, "{:?}", program.lines());
        post(&client, &url, Callback::list("i", "t").encrypted(KEY)).await
    })
    .await;
    assert_eq!(answer.status_word(), "accepted", "{}", answer.text());
    assert!(dir.path().join("countersign.db").exists(), "the ledger is where the defaults say");
    let plain = post(&client, &url, Callback::list("i", "t").plain()).await.unwrap();
    assert_eq!(plain.status, 403, "a key was given, so a plain body is refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_from_files_too_without_the_newline_at_their_end() {
    let config = Config::bare(NOWHERE);
    for (name, text) in [("token", TOKEN), ("key", KEY), ("admin", "fake-admin-token")] {
        std::fs::write(config.dir().join(name), format!("{text}\n")).unwrap();
    }
    let path = |name: &str| quoted(config.dir().join(name).to_str().unwrap());
    let credentials = format!(
        "[{{ action_callback_token_file = {}, action_callback_key_file = {} }}]",
        path("token"),
        path("key")
    );
    let admin = path("admin");
    let endpoint = Endpoint::plain("purchase").credentials_toml(&credentials);
    let app = App::with(config.set("admin", "token_file", &admin).endpoint(endpoint)).await;
    assert_eq!(app.post("purchase", Callback::list("i", "t").encrypted(KEY)).await.status, 200);
    assert_eq!(app.get("/api/v1/commands").await.status, 401);
    assert_eq!(app.get_as("fake-admin-token", "/api/v1/commands").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_may_refer_to_an_environment_variable() {
    let endpoint = Endpoint::plain("leave").credentials(&[("${TEST_LEAVE_TOKEN}", None)]);
    let app =
        App::with(Config::bare(NOWHERE).endpoint(endpoint).env("TEST_LEAVE_TOKEN", "fake-referred")).await;
    assert_eq!(app.post("leave", Callback::list("i", "t").token("fake-referred").plain()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_wins_over_the_file_and_flags_over_both() {
    let config =
        Config::with_url(NOWHERE).set("amqp", "max_in_flight", "11").set("amqp", "max_attempts", "12");
    let config = config.set("ledger", "max_batch", "13");
    let ran = Program::new(["config", "show", "--set", "ledger.max_batch=33"])
        .config(&config.write())
        .env("COUNTERSIGN__AMQP__MAX_ATTEMPTS", "22")
        .env("COUNTERSIGN__LEDGER__MAX_BATCH", "23")
        .dir(config.dir())
        .run()
        .await
        .ended_with(0);
    let shown: toml::Table = ran.stdout.parse().unwrap();
    assert_eq!(shown["amqp"]["max_in_flight"].as_integer(), Some(11));
    assert_eq!(shown["amqp"]["max_attempts"].as_integer(), Some(22));
    assert_eq!(shown["ledger"]["max_batch"].as_integer(), Some(33));
    assert_eq!(shown["http"]["max_body_bytes"].as_integer(), Some(65536), "the default");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_shown_without_its_secrets() {
    let config = Config::with_url("amqp://fake-user:fake-amqp-password@broker.invalid:5672/%2f").set(
        "admin",
        "token",
        "\"fake-admin-token\"",
    );
    let file = config.write();
    for args in [&["config", "show"][..], &["config", "show", "--json"], &["config", "check"]] {
        let ran = Program::new(args).config(&file).dir(config.dir()).run().await.ended_with(0);
        for secret in [TOKEN, KEY, "fake-admin-token", "fake-amqp-password"] {
            assert!(
                !ran.stdout.contains(secret) && !ran.stderr.contains(secret),
                "{args:?}: {secret} in {ran:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_internal_listener_that_others_can_reach_needs_a_token() {
    let config = Config::with_url(NOWHERE).set("admin", "listen", "\"0.0.0.0:9090\"");
    let ran = Program::new(["config", "check"])
        .config(&config.write())
        .dir(config.dir())
        .run()
        .await
        .ended_with(USAGE);
    assert!(ran.stderr.contains("admin.token"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_not_there_is_named_in_full_with_what_names_another() {
    let dir = tempfile::tempdir().unwrap();
    let ran = Program::new(["ledger", "list"]).dir(dir.path()).run().await.ended_with(1);
    let path = dir.path().canonicalize().unwrap().join("countersign.db");
    assert!(
        ran.stderr.contains(&format!("cannot open the ledger file {}", path.display())),
        "{}",
        ran.stderr
    );
    let advice = "; --config FILE or --set ledger.url=URL names another";
    assert!(
        ran.stderr.contains("(ledger.url from default; ") && ran.stderr.contains(advice),
        "{}",
        ran.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_by_which_serve_would_be_silent_keeps_it_from_starting() {
    let config = Config::with_url(NOWHERE).set("log", "filter", "\"warning\"");
    let ran = Program::new(["serve"]).config(&config.write()).dir(config.dir()).run().await.ended_with(USAGE);
    assert!(
        ran.stderr.contains("log.filter: \"warning\" has the level \"warning\"; did you mean \"warn\"?"),
        "{}",
        ran.stderr
    );
}
