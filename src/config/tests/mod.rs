//! What a configuration is read into, and from which sources.

mod center;
mod contexts;
mod edge;
mod environment;
mod faults;
mod outcomes;
mod secrets;
mod shown;
mod signing;
mod traces;

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::{
    command::profile::Profile,
    context::{
        Format, JsonFields, OnUnresolved,
        jwt::{Demands, Requirement},
    },
    intake::Locale,
    ledger::OnConflict,
};

/// The smallest valid configuration.
const SMALL: &str = r#"
[[endpoints]]
name = "purchase"
credentials = [ { action_callback_token = "fake-token-of-so-many-bytes", action_callback_key = "fake-key-of-so-many-bytes" } ]
"#;

/// A directory that only its owner can read, as configuration directories should be.
fn private_directory() -> tempfile::TempDir {
    let private = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(private).tempdir().unwrap()
}
const REPLAYABLE: &str = "contexts have neither a round nor an end";

struct Case {
    dir: tempfile::TempDir,
    sources: Sources,
}

impl Case {
    fn empty() -> Self {
        let dir = private_directory();
        let sources = Sources { directory: dir.path().to_owned(), ..Sources::default() };
        Self { dir, sources }
    }

    fn file(text: &str) -> Self {
        let case = Self::empty();
        fs::write(case.dir.path().join("countersign.toml"), text).unwrap();
        case
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.push((name.into(), value.into()));
        self
    }

    fn set(mut self, assignment: &str) -> Self {
        self.sources.set.push(assignment.to_owned());
        self
    }

    fn load(&self) -> Loaded {
        load(&self.sources)
    }

    fn config(&self) -> Config {
        self.load().config().unwrap_or_else(|faults| panic!("{:#?}", lines(&faults.0)))
    }

    /// Every fault as one line, with the test's directory removed.
    fn faults(&self) -> Vec<String> {
        let loaded = self.load();
        assert_eq!(loaded.config().is_err(), !loaded.faults().is_empty());
        let directory = format!("{}/", self.dir.path().display());
        lines(loaded.faults()).iter().map(|line| line.replace(&directory, "")).collect()
    }

    /// Like [`Self::all_warnings`], without the replay warning that the smallest endpoints cause.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.all_warnings();
        warnings.retain(|warning| !warning.contains(REPLAYABLE));
        warnings
    }

    fn all_warnings(&self) -> Vec<String> {
        let directory = format!("{}/", self.dir.path().display());
        self.load().warnings.iter().map(|warning| warning.to_string().replace(&directory, "")).collect()
    }
}

fn lines(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn has(lines: &[String], expected: &str) {
    assert!(lines.iter().any(|line| line.starts_with(expected)), "{expected:?} is not in {lines:#?}");
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Case::file(SMALL).config();
    assert_eq!(config.shutdown_delay, Duration::ZERO);
    assert_eq!(config.shutdown_grace, Duration::from_secs(10));
    let http = &config.http;
    assert_eq!(http.listen, "0.0.0.0:8080".parse().unwrap());
    assert_eq!((http.max_body_bytes, http.workers), (65_536, 0));
    assert_eq!(http.body_read_timeout, Duration::from_secs(2));
    assert_eq!(http.unauthenticated_floor, Duration::from_millis(25));
    assert_eq!(config.admin.listen, "127.0.0.1:9090".parse().unwrap());
    assert!(config.admin.token.is_none());
    assert_eq!(
        config.ledger.location.to_string(),
        std::env::current_dir().unwrap().join("countersign.db").display().to_string()
    );
    assert_eq!(
        (
            config.ledger.sizing.queue_capacity,
            config.ledger.sizing.max_batch,
            config.ledger.sizing.limits.refusals_kept
        ),
        (4096, 256, 10_000)
    );
    assert_eq!(config.ledger.sizing.limits.longest_window, Duration::from_secs(60));
    let amqp = &config.amqp.broker;
    assert!(amqp.urls.len() == 1 && amqp.urls[0].equals("amqp://guest:guest@127.0.0.1:5672/%2f"));
    assert_eq!(
        (amqp.exchange.as_str(), amqp.queue.as_str()),
        ("countersign.commands", "countersign.commands")
    );
    assert_eq!((amqp.topology, amqp.message_type.as_str()), (amqp::Topology::Declare, "approval.command.v1"));
    assert_eq!(amqp.connect_timeout, Duration::from_secs(10));
    let relay = &config.amqp.relay;
    assert_eq!((relay.max_in_flight, relay.max_attempts), (1024, 20));
    assert_eq!(relay.confirm_timeout, Duration::from_secs(30));
    assert_eq!(config.log, log::Settings::default());
    assert_eq!(config.intake.locale, Locale::Zh);
    let [endpoint] = config.intake.endpoints.as_slice() else { panic!("one endpoint") };
    assert_eq!(endpoint.name, "purchase");
    assert!(endpoint.approval_codes.is_empty());
    assert_eq!(endpoint.actions, ["APPROVE", "REJECT"]);
    assert_eq!((endpoint.locale, endpoint.on_conflict), (Locale::Zh, OnConflict::Publish));
    assert_eq!(endpoint.dedupe_window, Duration::from_secs(60));
    assert!(matches!(*endpoint.context.formats, [Format::Opaque]));
    assert_eq!(endpoint.context.on_unresolved, OnUnresolved::Publish);
    assert!(endpoint.credentials[0].action_callback_token.equals("fake-token-of-so-many-bytes"));
}

#[test]
fn every_key_of_an_endpoint_is_read() {
    let config = Case::file(
        r#"
        [http]
        locale = "en"
        [[endpoints]]
        name = "first"
        plain = true
        credentials = [ { action_callback_token = "fake-1-of-so-many-bytes" }, { action_callback_token = "fake-2-of-so-many-bytes" } ]
        [[endpoints]]
        name = "second"
        approval_codes = ["A", "采购"]
        actions = ["APPROVE", "HOLD"]
        locale = "ja"
        dedupe_window = "5m"
        on_conflict = "refuse"
        credentials = [ { action_callback_token = "fake-3-of-so-many-bytes", action_callback_key = "fake-4-of-so-many-bytes" } ]
        [endpoints.context]
        format = ["json", "opaque"]
        fields = { task_id = "/t", data = "" }
        on_unresolved = "refuse"
        "#,
    )
    .config();
    let [first, second] = config.intake.endpoints.as_slice() else { panic!("two endpoints") };
    assert_eq!((config.intake.locale, first.locale, second.locale), (Locale::En, Locale::En, Locale::Ja));
    assert_eq!(first.credentials.len(), 2);
    assert_eq!(second.approval_codes, ["A", "采购"]);
    assert_eq!(second.actions, ["APPROVE", "HOLD"]);
    assert_eq!(second.on_conflict, OnConflict::Refuse);
    assert_eq!(config.ledger.sizing.limits.longest_window, Duration::from_secs(300));
    let fields =
        JsonFields { task_id: Some("/t".to_owned()), data: Some(String::new()), ..JsonFields::default() };
    let [Format::Json(found), Format::Opaque] = &*second.context.formats else { panic!("{second:?}") };
    assert_eq!(*found, fields);
    assert_eq!(second.context.on_unresolved, OnUnresolved::Refuse);
    assert!(second.credentials[0].action_callback_key.as_ref().unwrap().equals("fake-4-of-so-many-bytes"));
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let case = Case::file(&format!("[http]\nlisten = '127.0.0.1:1'\nworkers = 1\n{SMALL}"))
        .env("COUNTERSIGN__HTTP__LISTEN", "127.0.0.1:2")
        .env("COUNTERSIGN__HTTP__WORKERS", "2")
        .env("COUNTERSIGN__HTTP__MAX_BODY_BYTES", "2048")
        .env(
            "COUNTERSIGN__ENDPOINTS__0__CREDENTIALS__0__ACTION_CALLBACK_TOKEN",
            "fake-other-of-so-many-bytes",
        )
        .env("COUNTERSIGN__ENDPOINTS__0__ACTIONS", "['APPROVE']")
        .env("COUNTERSIGN__ENDPOINTS__0__DEDUPE_WINDOW", "90")
        .env("COUNTERSIGN_SOMETHING_ELSE", "does not concern us")
        .set("http.workers=3")
        .set("endpoints.0.on_conflict=refuse");
    let config = case.config();
    assert_eq!(config.http.listen, "127.0.0.1:2".parse().unwrap());
    assert_eq!((config.http.workers, config.http.max_body_bytes), (3, 2048));
    let endpoint = &config.intake.endpoints[0];
    assert!(endpoint.credentials[0].action_callback_token.equals("fake-other-of-so-many-bytes"));
    assert!(
        endpoint.credentials[0].action_callback_key.as_ref().unwrap().equals("fake-key-of-so-many-bytes")
    );
    assert_eq!(endpoint.actions, ["APPROVE"]);
    assert_eq!(endpoint.dedupe_window, Duration::from_secs(90));
    assert_eq!(endpoint.on_conflict, OnConflict::Refuse);
}

#[test]
fn it_starts_from_the_environment_alone() {
    let case = Case::empty()
        .env("COUNTERSIGN_ACTION_CALLBACK_TOKEN", "fake-token-of-so-many-bytes")
        .env("COUNTERSIGN_ACTION_CALLBACK_KEY", "fake-key-of-so-many-bytes")
        .env("COUNTERSIGN_AMQP_URL", "amqp://broker")
        .env("COUNTERSIGN__ENDPOINTS__0__CONTEXT__ON_UNRESOLVED", "refuse");
    let config = case.config();
    assert_eq!(case.load().file, None);
    let [endpoint] = config.intake.endpoints.as_slice() else { panic!("one endpoint") };
    assert_eq!(endpoint.name, "default");
    assert_eq!(endpoint.actions, ["APPROVE", "REJECT"]);
    assert!(endpoint.credentials[0].action_callback_token.equals("fake-token-of-so-many-bytes"));
    assert!(
        endpoint.credentials[0].action_callback_key.as_ref().unwrap().equals("fake-key-of-so-many-bytes")
    );
    assert_eq!(endpoint.context.on_unresolved, OnUnresolved::Refuse);
    assert!(config.amqp.broker.urls[0].equals("amqp://broker"));

    let case = Case::empty();
    let path = case.dir.path().join("token");
    fs::write(&path, "fake-token-of-so-many-bytes\n").unwrap();
    let case = case.env("COUNTERSIGN_ACTION_CALLBACK_TOKEN_FILE", path.to_str().unwrap());
    has(
        &case.faults(),
        "environment COUNTERSIGN_ACTION_CALLBACK_TOKEN_FILE: endpoints[0].credentials: none has an action_callback_key, so \
         callbacks would be taken unencrypted; expected action_callback_key (without a file COUNTERSIGN_ACTION_CALLBACK_KEY); or \
         plain = true (COUNTERSIGN__ENDPOINTS__0__PLAIN=true)",
    );
    // The misspelt key counts as missing.
    let misspelt = Case::empty()
        .env("COUNTERSIGN_ACTION_CALLBACK_TOKEN", "fake-token-of-so-many-bytes")
        .env("COUNTERSIGN_ACTION_CALLBACK_KYE", "fake-key-of-so-many-bytes");
    assert!(misspelt.load().config().is_err());
    let config = case.env("COUNTERSIGN__ENDPOINTS__0__PLAIN", "true").config();
    assert!(
        config.intake.endpoints[0].credentials[0].action_callback_token.equals("fake-token-of-so-many-bytes")
    );
    assert!(config.intake.endpoints[0].credentials[0].action_callback_key.is_none());
}

#[test]
fn each_endpoint_has_the_profile_that_it_names() {
    let endpoint = |name: &str, more: &str| {
        format!(
            "[[endpoints]]\nname = '{name}'\n{more}\nplain = true\ncredentials = [ {{ action_callback_token = 'fake-of-so-many-bytes' }} ]\n"
        )
    };
    let text = [
        endpoint("a", ""),
        endpoint("b", "profile = 'cloudevents'"),
        endpoint("c", "profile = 'celery'"),
        endpoint("d", "profile = 'celery'\ncelery_task = 'erp.approve'"),
        endpoint("e", "profile = 'masstransit'\ncelery_task = 'unused'"),
        endpoint("f", "profile = 'cloudevents-binary'"),
    ];
    let profiles = Case::file(&text.concat()).config().amqp.broker.profiles;
    let celery = |task: &str| Profile::Celery { task: task.to_owned() };
    let expected = [
        ("a", Profile::Plain),
        ("b", Profile::CloudEvents),
        ("c", celery("approval.command")),
        ("d", celery("erp.approve")),
        ("e", Profile::MassTransit),
        ("f", Profile::CloudEventsBinary),
    ];
    assert_eq!(profiles, expected.map(|(name, profile)| (name.to_owned(), profile)).into());
    let faults =
        Case::file(&(endpoint("a", "profile = 'kafka'") + &endpoint("b", "celery_task = ''"))).faults();
    has(&faults, "countersign.toml:3: endpoints[0].profile: \"kafka\" is not one of its values");
    has(&faults, "countersign.toml:8: endpoints[1].celery_task: \"\" is empty");
}

#[test]
fn without_an_endpoint_nothing_starts() {
    has(
        &Case::empty().faults(),
        "endpoints: is missing; expected an [[endpoints]] in a file (countersign.toml does not exist; --config FILE names one), or ",
    );
    has(&Case::file("endpoints = []").faults(), "countersign.toml:1: endpoints: is missing");
    let faults = Case::empty().env("COUNTERSIGN_ACTION_CALLBACK_KEY", "fake-key-of-so-many-bytes").faults();
    has(
        &faults,
        "environment COUNTERSIGN_ACTION_CALLBACK_KEY: endpoints[0].credentials[0].action_callback_token: is missing",
    );
    let faults = Case::empty().env("COUNTERSIGN_ACTION_CALLBACK_TOKEN", "").faults();
    has(
        &faults,
        "environment COUNTERSIGN_ACTION_CALLBACK_TOKEN: endpoints[0].credentials[0].action_callback_token: is empty",
    );
}

#[test]
fn the_short_names_give_way_to_a_file_that_has_endpoints() {
    let case = Case::file(SMALL).env("COUNTERSIGN_ACTION_CALLBACK_TOKEN", "fake-other");
    assert!(
        case.config().intake.endpoints[0].credentials[0]
            .action_callback_token
            .equals("fake-token-of-so-many-bytes")
    );
    has(
        &case.warnings(),
        "environment COUNTERSIGN_ACTION_CALLBACK_TOKEN: endpoints: the file configures endpoints",
    );
}

#[test]
fn a_named_file_that_is_missing_is_a_fault_and_the_usual_one_is_not() {
    let mut case = Case::empty()
        .env("COUNTERSIGN_ACTION_CALLBACK_TOKEN", "fake-token-of-so-many-bytes")
        .env("COUNTERSIGN_ACTION_CALLBACK_KEY", "fake-key-of-so-many-bytes");
    assert!(case.faults().is_empty());
    case.sources.file = Some(case.dir.path().join("other.toml"));
    has(&case.faults(), "other.toml: cannot be read: ");
}

#[test]
fn a_reference_is_the_value_of_its_variable() {
    let text = "[http]\nworkers = '${THREADS}'\n[[endpoints]]\nname = 'a'\nactions = ['${ACTION}']\n\
                credentials = [ { action_callback_token = '${TOKEN}' } ]\nplain = true\n";
    let case = Case::file(text)
        .env("THREADS", "3")
        .env("TOKEN", "fake-token-of-so-many-bytes")
        .env("ACTION", "HOLD");
    let config = case.config();
    assert_eq!(config.http.workers, 3);
    assert_eq!(config.intake.endpoints[0].actions, ["HOLD"]);
    assert!(
        config.intake.endpoints[0].credentials[0].action_callback_token.equals("fake-token-of-so-many-bytes")
    );

    let faults = Case::file(text).env("TOKEN", "").faults();
    has(
        &faults,
        "countersign.toml:2: http.workers: refers to the environment variable THREADS, which is not set",
    );
    has(&faults, "countersign.toml:5: endpoints[0].actions[0]: refers to the environment variable ACTION");
    has(
        &faults,
        "countersign.toml:6: endpoints[0].credentials[0].action_callback_token: is empty, because the environment \
         variable TOKEN is",
    );
    assert_eq!(faults.len(), 3, "{faults:#?}");
}

#[test]
fn a_secret_is_given_directly_or_by_a_file_and_the_higher_layer_wins() {
    let case = Case::file(&format!("[admin]\ntoken = 'fake-a'\ntoken_file = 'nowhere'\n{SMALL}"));
    has(
        &case.faults(),
        "countersign.toml:2: admin.token: is given twice, also by admin.token_file; expected one of the two",
    );
    let case = Case::file(&format!("[admin]\ntoken_file = 'nowhere'\n{SMALL}"));
    has(&case.faults(), "countersign.toml:2: admin.token_file: \"nowhere\": cannot be read: ");
    assert!(
        case.env("COUNTERSIGN__ADMIN__TOKEN", "fake-b-of-so-many-bytes")
            .config()
            .admin
            .token
            .unwrap()
            .equals("fake-b-of-so-many-bytes")
    );
    let case = Case::empty();
    let empty = case.dir.path().join("empty");
    fs::write(&empty, "\n").unwrap();
    let faults = Case::file(SMALL).env("COUNTERSIGN__ADMIN__TOKEN_FILE", empty.to_str().unwrap()).faults();
    has(&faults, "environment COUNTERSIGN__ADMIN__TOKEN_FILE: admin.token_file: names a file that is empty");
}

#[test]
fn the_broker_is_given_in_one_way() {
    let with = |amqp: &str| Case::file(&format!("[amqp]\n{amqp}\n{SMALL}"));
    let urls = with("urls = ['amqp://a', 'amqps://b']").config().amqp.broker.urls;
    assert!(urls.len() == 2 && urls[0].equals("amqp://a") && urls[1].equals("amqps://b"));
    has(
        &with("url = 'amqp://a'\nurls = ['amqp://b']").faults(),
        "countersign.toml:3: amqp.urls: the broker's address is given 2 times: amqp.url, amqp.urls",
    );
    has(&with("urls = []").faults(), "countersign.toml:2: amqp.urls: is empty");
    let case = with("urls = ['amqp://a', 'http://u:hush@b']");
    has(&case.faults(), "countersign.toml:2: amqp.urls[1]: is not an amqp:// or amqps:// URL");
    let case = with("url = 'amqp://a'").env("COUNTERSIGN__AMQP__URLS", "['amqp://b']");
    assert!(case.config().amqp.broker.urls[0].equals("amqp://b"), "the environment wins");
    let case = with("").env("COUNTERSIGN_AMQP_URL", "amqp://b");
    assert!(case.config().amqp.broker.urls[0].equals("amqp://b"));
    let case = Case::file(SMALL);
    let path = case.dir.path().join("urls");
    fs::write(&path, "amqp://a\n\namqp://b\n").unwrap();
    assert_eq!(
        case.env("COUNTERSIGN__AMQP__URLS_FILE", path.to_str().unwrap()).config().amqp.broker.urls.len(),
        2
    );
}

#[test]
fn risky_values_are_told_and_do_not_stop_anything() {
    let case = Case::file(
        r#"
        [http]
        max_body_bytes = 2000000
        [amqp]
        queue = ""
        topology = "none"
        [[endpoints]]
        name = "a"
        actions = ["approve"]
        dedupe_window = 0
        credentials = [ { action_callback_token = "fake-of-so-many-bytes" } ]
        plain = true
        [endpoints.context]
        fields = { task_id = "/t" }
        "#,
    );
    case.config();
    let warnings = case.warnings();
    for expected in [
        "countersign.toml:3: http.max_body_bytes: over 1 MiB",
        "countersign.toml:6: amqp.topology: none, with queue = \"\"",
        "countersign.toml:9: endpoints[0].actions: \"approve\" is not \"APPROVE\"",
        "countersign.toml:10: endpoints[0].dedupe_window: 0",
        "countersign.toml:12: endpoints[0].plain: true: callbacks come unencrypted",
        "countersign.toml:14: endpoints[0].context.fields: has no effect",
    ] {
        has(&warnings, expected);
    }
    assert_eq!(warnings.len(), 6, "{warnings:#?}");
    assert!(Case::file(SMALL).warnings().is_empty());
}
