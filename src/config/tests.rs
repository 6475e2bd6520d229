//! What a configuration is read into, and every fault with its key and origin.

use std::fs;

use super::*;
use crate::{
    context::{Format, JsonFields, OnUnresolved},
    intake::Locale,
    ledger::OnConflict,
};

/// The smallest configuration that is sound.
const SMALL: &str = r#"
[[endpoints]]
name = "purchase"
credentials = [ { action_callback_token = "fake-token", action_callback_key = "fake-key" } ]
"#;

struct Case {
    dir: tempfile::TempDir,
    sources: Sources,
}

impl Case {
    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
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

    /// Every fault as its line, without the directory of the test.
    fn faults(&self) -> Vec<String> {
        let loaded = self.load();
        assert_eq!(loaded.config().is_err(), !loaded.faults().is_empty());
        let directory = format!("{}/", self.dir.path().display());
        lines(loaded.faults()).iter().map(|line| line.replace(&directory, "")).collect()
    }

    fn warnings(&self) -> Vec<String> {
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
    assert_eq!(config.shutdown_grace, Duration::from_secs(10));
    let http = &config.http;
    assert_eq!(http.listen, "0.0.0.0:8080".parse().unwrap());
    assert_eq!((http.max_body_bytes, http.workers), (65_536, 0));
    assert_eq!(http.body_read_timeout, Duration::from_secs(2));
    assert_eq!(http.unauthenticated_floor, Duration::from_millis(25));
    assert_eq!(config.admin.listen, "127.0.0.1:9090".parse().unwrap());
    assert!(config.admin.token.is_none());
    assert_eq!(config.ledger.path, Path::new("countersign.db"));
    assert_eq!(
        (config.ledger.queue_capacity, config.ledger.max_batch, config.ledger.refusals_kept),
        (4096, 256, 10_000)
    );
    assert_eq!(config.ledger.longest_window, Duration::from_secs(60));
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
    assert!(endpoint.credentials[0].action_callback_token.equals("fake-token"));
}

#[test]
fn every_key_of_an_endpoint_is_read() {
    let config = Case::file(
        r#"
        [http]
        locale = "en"
        [[endpoints]]
        name = "first"
        credentials = [ { action_callback_token = "fake-1" }, { action_callback_token = "fake-2" } ]
        [[endpoints]]
        name = "second"
        approval_codes = ["A", "采购"]
        actions = ["APPROVE", "HOLD"]
        locale = "ja"
        dedupe_window = "5m"
        on_conflict = "refuse"
        credentials = [ { action_callback_token = "fake-3", action_callback_key = "fake-4" } ]
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
    assert_eq!(config.ledger.longest_window, Duration::from_secs(300));
    let fields =
        JsonFields { task_id: Some("/t".to_owned()), data: Some(String::new()), ..JsonFields::default() };
    let [Format::Json(found), Format::Opaque] = &*second.context.formats else { panic!("{second:?}") };
    assert_eq!(*found, fields);
    assert_eq!(second.context.on_unresolved, OnUnresolved::Refuse);
    assert!(second.credentials[0].action_callback_key.as_ref().unwrap().equals("fake-4"));
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let case = Case::file(&format!("[http]\nlisten = '127.0.0.1:1'\nworkers = 1\n{SMALL}"))
        .env("COUNTERSIGN__HTTP__LISTEN", "127.0.0.1:2")
        .env("COUNTERSIGN__HTTP__WORKERS", "2")
        .env("COUNTERSIGN__HTTP__MAX_BODY_BYTES", "2048")
        .env("COUNTERSIGN__ENDPOINTS__0__CREDENTIALS__0__ACTION_CALLBACK_TOKEN", "fake-other")
        .env("COUNTERSIGN__ENDPOINTS__0__ACTIONS", "['APPROVE']")
        .env("COUNTERSIGN__ENDPOINTS__0__DEDUPE_WINDOW", "90")
        .env("COUNTERSIGN_SOMETHING_ELSE", "does not concern us")
        .set("http.workers=3")
        .set("endpoints.0.on_conflict=refuse");
    let config = case.config();
    assert_eq!(config.http.listen, "127.0.0.1:2".parse().unwrap());
    assert_eq!((config.http.workers, config.http.max_body_bytes), (3, 2048));
    let endpoint = &config.intake.endpoints[0];
    assert!(endpoint.credentials[0].action_callback_token.equals("fake-other"));
    assert!(endpoint.credentials[0].action_callback_key.as_ref().unwrap().equals("fake-key"));
    assert_eq!(endpoint.actions, ["APPROVE"]);
    assert_eq!(endpoint.dedupe_window, Duration::from_secs(90));
    assert_eq!(endpoint.on_conflict, OnConflict::Refuse);
}

#[test]
fn it_starts_from_the_environment_alone() {
    let case = Case::empty()
        .env("COUNTERSIGN_ACTION_CALLBACK_TOKEN", "fake-token")
        .env("COUNTERSIGN_ACTION_CALLBACK_KEY", "fake-key")
        .env("COUNTERSIGN_AMQP_URL", "amqp://broker")
        .env("COUNTERSIGN__ENDPOINTS__0__CONTEXT__ON_UNRESOLVED", "refuse");
    let config = case.config();
    assert_eq!(case.load().file, None);
    let [endpoint] = config.intake.endpoints.as_slice() else { panic!("one endpoint") };
    assert_eq!(endpoint.name, "default");
    assert_eq!(endpoint.actions, ["APPROVE", "REJECT"]);
    assert!(endpoint.credentials[0].action_callback_token.equals("fake-token"));
    assert!(endpoint.credentials[0].action_callback_key.as_ref().unwrap().equals("fake-key"));
    assert_eq!(endpoint.context.on_unresolved, OnUnresolved::Refuse);
    assert!(config.amqp.broker.urls[0].equals("amqp://broker"));

    let case = Case::empty();
    let path = case.dir.path().join("token");
    fs::write(&path, "fake-token\n").unwrap();
    let config = case.env("COUNTERSIGN_ACTION_CALLBACK_TOKEN_FILE", path.to_str().unwrap()).config();
    assert!(config.intake.endpoints[0].credentials[0].action_callback_token.equals("fake-token"));
    assert!(config.intake.endpoints[0].credentials[0].action_callback_key.is_none());
}

#[test]
fn without_an_endpoint_nothing_starts() {
    has(&Case::empty().faults(), "endpoints: there is none; expected an [[endpoints]] in the file, or ");
    has(&Case::file("endpoints = []").faults(), "countersign.toml:1: endpoints: there is none");
    let faults = Case::empty().env("COUNTERSIGN_ACTION_CALLBACK_KEY", "fake-key").faults();
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
    assert!(case.config().intake.endpoints[0].credentials[0].action_callback_token.equals("fake-token"));
    has(
        &case.warnings(),
        "environment COUNTERSIGN_ACTION_CALLBACK_TOKEN: endpoints: the file configures endpoints",
    );
}

#[test]
fn a_named_file_that_is_missing_is_a_fault_and_the_usual_one_is_not() {
    let mut case = Case::empty().env("COUNTERSIGN_ACTION_CALLBACK_TOKEN", "fake-token");
    assert!(case.faults().is_empty());
    case.sources.file = Some(case.dir.path().join("other.toml"));
    has(&case.faults(), "other.toml: cannot be read: ");
}

#[test]
fn all_faults_come_at_once_with_key_and_origin() {
    let faults = Case::file(
        r#"shutdown_grace_ms = -1
[http]
listen = "localhost:8080"
max_body_bytes = "many"
workers = 1.5
locale = "de"
[admin]
listen = ":9090"
[ledger]
url = "postgres://db/countersign"
max_batch = 0
[amqp]
exchange = ""
queue = "amq.gen"
topology = "make"
[log]
filter = "countersign=loud"
[[endpoints]]
name = "Purchase"
actions = []
approval_codes = ["A", "", "A"]
dedupe_window = "soon"
on_conflict = true
[endpoints.context]
format = "xml"
[other]
"#,
    )
    .env("COUNTERSIGN__HTTP__BODY_READ_TIMEOUT_MS", "soon")
    .env("COUNTERSIGN__HTTPS__LISTEN", "127.0.0.1:1")
    .env("COUNTERSIGN____X", "1")
    .set("amqp.max_in_flight=65536")
    .set("amqp")
    .faults();
    for expected in [
        "countersign.toml:1: shutdown_grace_ms: -1 is out of range; expected a whole number from 0 to 600000",
        "countersign.toml:3: http.listen: \"localhost:8080\" has a name in place of an IP address; expected IP:port",
        "countersign.toml:4: http.max_body_bytes: is a text; expected a whole number from 1024 to 16777216",
        "countersign.toml:5: http.workers: is a number with a fraction; expected a whole number",
        "countersign.toml:6: http.locale: \"de\" is not one of its values; expected zh, en or ja",
        "countersign.toml:8: admin.listen: \":9090\" has no IP address",
        "countersign.toml:10: ledger.url: \"postgres://db/countersign\" is PostgreSQL, which is not in this version",
        "countersign.toml:11: ledger.max_batch: 0 is out of range",
        "countersign.toml:13: amqp.exchange: \"\" is the nameless exchange",
        "countersign.toml:14: amqp.queue: \"amq.gen\" begins with amq.",
        "countersign.toml:15: amqp.topology: \"make\" is not one of its values; expected declare, check or none",
        "countersign.toml:17: log.filter: \"countersign=loud\" is not understood",
        "countersign.toml:19: endpoints[0].name: \"Purchase\" cannot be part of the URL as it is",
        "countersign.toml:20: endpoints[0].actions: is empty",
        "countersign.toml:21: endpoints[0].approval_codes[1]: \"\" is empty",
        "countersign.toml:21: endpoints[0].approval_codes[2]: \"A\" stands in the list twice",
        "countersign.toml:22: endpoints[0].dedupe_window: \"soon\" is not a duration",
        "countersign.toml:23: endpoints[0].on_conflict: is true or false; expected publish or refuse",
        "countersign.toml:18: endpoints[0].credentials: there is none",
        "countersign.toml:25: endpoints[0].context.format: \"xml\" is not a format of contexts",
        "countersign.toml:26: other: is not a key of this version; expected one of ",
        "environment COUNTERSIGN__HTTP__BODY_READ_TIMEOUT_MS: http.body_read_timeout_ms: \"soon\" is not a whole number",
        "environment COUNTERSIGN__HTTPS__LISTEN: https: is not a key of this version; expected http perhaps",
        "environment COUNTERSIGN____X: names no key",
        "flag --set amqp.max_in_flight: amqp.max_in_flight: \"65536\" is out of range",
        "flag --set amqp: sets nothing; expected --set SECTION.KEY=VALUE",
    ] {
        has(&faults, expected);
    }
    assert_eq!(faults.len(), 26, "{faults:#?}");
}

#[test]
fn an_unknown_key_is_told_with_what_was_probably_meant() {
    let faults = Case::file(&format!("[http]\nlistn = '127.0.0.1:1'\n{SMALL}token = 'x'\n")).faults();
    has(
        &faults,
        "countersign.toml:2: http.listn: is not a key of this version; expected http.listen perhaps",
    );
    has(
        &faults,
        "countersign.toml:7: endpoints[0].token: is not a key of this version; expected one of name, ",
    );
    assert_eq!(faults.len(), 2, "{faults:#?}");
}

#[test]
fn a_reference_is_the_value_of_its_variable() {
    let text = "[http]\nworkers = '${THREADS}'\n[[endpoints]]\nname = 'a'\nactions = ['${ACTION}']\n\
                credentials = [ { action_callback_token = '${TOKEN}' } ]\n";
    let case = Case::file(text).env("THREADS", "3").env("TOKEN", "fake-token").env("ACTION", "HOLD");
    let config = case.config();
    assert_eq!(config.http.workers, 3);
    assert_eq!(config.intake.endpoints[0].actions, ["HOLD"]);
    assert!(config.intake.endpoints[0].credentials[0].action_callback_token.equals("fake-token"));

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
    assert!(case.env("COUNTERSIGN__ADMIN__TOKEN", "fake-b").config().admin.token.unwrap().equals("fake-b"));
    let case = Case::empty();
    let empty = case.dir.path().join("empty");
    fs::write(&empty, "\n").unwrap();
    let faults = Case::file(SMALL).env("COUNTERSIGN__ADMIN__TOKEN_FILE", empty.to_str().unwrap()).faults();
    has(&faults, "environment COUNTERSIGN__ADMIN__TOKEN_FILE: admin.token_file: names a file that is empty");
}

#[test]
fn the_internal_listener_needs_a_token_where_others_can_reach_it() {
    let case = Case::file(&format!("[admin]\nlisten = '0.0.0.0:9090'\n{SMALL}"));
    has(&case.faults(), "countersign.toml:1: admin.token: is missing, and 0.0.0.0:9090 can be reached");
    assert!(case.set("admin.token=fake").faults().is_empty());
    assert!(Case::file(&format!("[admin]\nlisten = '[::1]:9090'\n{SMALL}")).faults().is_empty());
    has(
        &Case::file(&format!("[admin]\nlisten = '127.0.0.1:8080'\n{SMALL}")).faults(),
        "countersign.toml:2: admin.listen: 127.0.0.1:8080 and http.listen 0.0.0.0:8080 are the same port",
    );
    let both_free = "[http]\nlisten = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'\n";
    assert!(Case::file(&format!("{both_free}{SMALL}")).faults().is_empty());
}

#[test]
fn credentials_are_one_to_four_alike_and_different() {
    let with = |credentials: &str| {
        Case::file(&format!("[[endpoints]]\nname = 'a'\ncredentials = [{credentials}]\n")).faults()
    };
    let one = |number: u8| format!("{{ action_callback_token = 't{number}', action_callback_key = 'k' }}, ");
    let some = |count: u8| (0..count).map(one).collect::<String>();
    assert!(with(&some(4)).is_empty());
    has(&with(&some(5)), "countersign.toml:3: endpoints[0].credentials: there are 5; expected 1 to 4");
    has(&with(""), "countersign.toml:3: endpoints[0].credentials: there is none");
    has(
        &with(&format!("{}{{ action_callback_token = 'x' }}", one(1))),
        "countersign.toml:3: endpoints[0].credentials: 1 of 2 have an action_callback_key; expected all or none",
    );
    has(
        &with(&format!("{}{}", one(1), one(1))),
        "countersign.toml:3: endpoints[0].credentials: [1] is the same as [0]",
    );
    has(
        &with("{ action_callback_token = 't', action_callback_key = '' }"),
        "countersign.toml:3: endpoints[0].credentials[0].action_callback_key: is empty",
    );
    has(
        &with("{ action_callback_key = 'k' }"),
        "countersign.toml:3: endpoints[0].credentials[0].action_callback_token: is missing",
    );
    has(
        &with("{ action_callback_token = '' }"),
        "countersign.toml:3: endpoints[0].credentials[0].action_callback_t",
    );
    has(&with("'t'"), "countersign.toml:3: endpoints[0].credentials[0]: is a text; expected a table");
}

#[test]
fn two_endpoints_do_not_share_a_name() {
    let faults = Case::file(&format!("{SMALL}{SMALL}")).faults();
    assert_eq!(
        faults,
        ["countersign.toml:7: endpoints[1].name: \"purchase\" is already the name of the endpoint at \
          countersign.toml:3; expected a name of its own"]
    );
}

#[test]
fn the_formats_of_contexts_are_checked() {
    let with = |context: &str| Case::file(&format!("{SMALL}[endpoints.context]\n{context}\n")).faults();
    assert!(with("format = 'json'\nfields = { instance_id = '/i' }").is_empty());
    has(&with("format = 'json'"), "countersign.toml:5: endpoints[0].context.fields: json needs to know");
    has(
        &with("format = 'json'\nfields = { data = '/d' }"),
        "countersign.toml:7: endpoints[0].context.fields: json",
    );
    has(
        &with("format = 'json'\nfields = { task_id = 't' }"),
        "countersign.toml:7: endpoints[0].context.fields.task_id: \"t\" does not begin with /",
    );
    has(
        &with("format = ['opaque', 'jwt']"),
        "countersign.toml:6: endpoints[0].context.format: \"jwt\" is not in this version; expected opaque, json",
    );
    has(&with("format = []"), "countersign.toml:6: endpoints[0].context.format: is empty");
    has(
        &with("format = ['opaque', 'opaque']"),
        "countersign.toml:6: endpoints[0].context.format[1]: \"opaque\" stands in the list twice",
    );
    has(
        &with("format = 'json'\nfields = { task = '/t' }"),
        "countersign.toml:7: endpoints[0].context.fields.task: is not a key of this version",
    );
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
        credentials = [ { action_callback_token = "fake" } ]
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
        "countersign.toml:11: endpoints[0].credentials: no action_callback_key",
        "countersign.toml:13: endpoints[0].context.fields: has no effect",
    ] {
        has(&warnings, expected);
    }
    assert_eq!(warnings.len(), 6, "{warnings:#?}");
    assert!(Case::file(SMALL).warnings().is_empty());
}

#[test]
fn no_secret_is_ever_shown() {
    let case = Case::file(
        r#"
        [admin]
        listen = "127.0.0.1"
        token = "hush-1"
        [amqp]
        url = "amqp://user:hush-2@broker:port"
        [[endpoints]]
        name = "${NAME}"
        credentials = [ { action_callback_token = "hush-3", action_callback_key = ["hush-4"] } ]
        "#,
    )
    .env("NAME", "hush-5")
    .env("COUNTERSIGN__ENDPOINTS__0__CREDENTIALS__1__ACTION_CALLBACK_TOKEN", "hush-6")
    .set("endpoints.0.credentials.1.action_callback_key=hush-7");
    let loaded = case.load();
    assert!(loaded.faults().len() >= 3, "{:#?}", case.faults());
    let shown = format!(
        "{:?}{:#?}{}{}{:?}",
        lines(loaded.faults()),
        loaded.endpoints().map(drop),
        loaded.effective.to_toml(true),
        loaded.effective.to_json(),
        loaded.config(),
    );
    for number in [1, 2, 3, 4, 6, 7] {
        assert!(!shown.contains(&format!("hush-{number}")), "{shown}");
    }
    let faulty = Case::file(&SMALL.replace("purchase", "${NAME}")).env("NAME", "Hush!").faults();
    has(&faulty, "countersign.toml:3: endpoints[0].name: the value of ${NAME} cannot be part of the URL");
    assert!(!format!("{:?}", Case::file(SMALL).config()).contains("fake"));
}

#[test]
fn what_is_shown_reads_as_the_same_configuration() {
    let text = r#"
        shutdown_grace_ms = 500
        [amqp]
        urls = ["amqp://u:fake@a/v", "amqps://b"]
        [[endpoints]]
        name = "first"
        credentials = [ { action_callback_token = "fake" } ]
        [[endpoints]]
        name = "second"
        dedupe_window = "1500ms"
        credentials = [ { action_callback_token = "fake", action_callback_key = "fake" },
                        { action_callback_token = "old", action_callback_key = "fake" } ]
        [endpoints.context]
        format = ["json"]
        fields = { task_id = "/t" }
    "#;
    let shown = Case::file(text).load().effective.to_toml(true);
    assert!(shown.starts_with("shutdown_grace_ms = 500  # "), "{shown}");
    assert!(
        shown.contains("countersign.toml:2\n\n[http]\nlisten = \"0.0.0.0:8080\"  # default\n"),
        "{shown}"
    );
    assert!(shown.contains("urls = [\"amqp://u:[redacted]@a/v\", \"amqps://b\"]"), "{shown}");
    // Both credentials are "[redacted]" now, which would be the same one twice.
    let again = Case::file(&shown.replacen("[redacted]\"  #", "other\"  #", 3));
    assert_eq!(again.faults(), Vec::<String>::new(), "{shown}");
    let json = |case: &Case| case.load().effective.to_json().to_string();
    assert_eq!(json(&again), json(&Case::file(text)));
    let json = Case::file(text).load().effective.to_json();
    assert_eq!(json["endpoints"][1]["credentials"][1]["action_callback_key"], "[redacted]");
    assert_eq!(json["endpoints"][1]["context"]["fields"]["task_id"], "/t");
}

#[test]
fn a_command_gets_its_section_whatever_is_wrong_elsewhere() {
    let loaded = Case::file(&format!("[amqp]\nqueue = 1\n[http]\nlistn = 'x'\n{SMALL}")).load();
    assert!(loaded.ledger().is_ok() && loaded.admin().is_ok() && loaded.endpoints().is_ok());
    let keys = |faults: Faults| faults.0.into_iter().map(|fault| fault.key).collect::<Vec<_>>();
    assert_eq!(keys(loaded.amqp().unwrap_err()), ["amqp.queue"]);
    assert_eq!(keys(loaded.http().unwrap_err()), ["http.listn"]);
    assert!(Case::empty().load().endpoints().unwrap().is_empty());
    let broken = Case::file("[http\n").load();
    assert!(broken.ledger().is_err() && broken.endpoints().is_err());
}

/// Every key that is read, by section, as the fault about an unknown key lists them.
fn known_keys() -> Vec<(String, String)> {
    let text = format!(
        "zzzzzzzz = 1\n[http]\nzzzzzzzz = 1\n[admin]\nzzzzzzzz = 1\n[ledger]\nzzzzzzzz = 1\n[amqp]\nzzzzzzzz = 1\n\
         [log]\nzzzzzzzz = 1\n{SMALL}zzzzzzzz = 1\n[endpoints.context]\nzzzzzzzz = 1\nfields = {{ zzzzzzzz = 1 }}\n"
    )
    .replace("fake-key\" }", "fake-key\", zzzzzzzz = 1 }");
    let loaded = Case::file(&text).load();
    let faults: Vec<_> = loaded.faults().iter().filter(|fault| fault.key.ends_with("zzzzzzzz")).collect();
    assert_eq!(faults.len(), 10, "every table of the configuration is here: {faults:#?}");
    faults
        .iter()
        .flat_map(|fault| {
            let section = fault.key.trim_end_matches("zzzzzzzz").to_owned();
            let keys = fault.expected.trim_start_matches("one of ").replace(" or ", ", ");
            keys.split(", ").map(|key| (section.clone(), key.to_owned())).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_reference_names_every_key_and_no_other() {
    let keys = known_keys();
    for (section, key) in &keys {
        let named = REFERENCE.lines().any(|line| {
            let line = line.trim_start_matches("# ");
            line.starts_with(&format!("{key} = ")) || line.trim_matches(['[', ']']).ends_with(key.as_str())
        });
        let by_file = key
            .strip_suffix("_file")
            .is_some_and(|plain| keys.iter().any(|(other, name)| other == section && name == plain));
        assert!(named || by_file, "{section}{key} is not in the reference");
    }
    // The other way round: with every comment that is a line of TOML made one, no key is unknown.
    let uncommented: String = REFERENCE
        .lines()
        .map(|line| {
            let bare = line.trim_start_matches("# ");
            let is_key = bare.split_once(" = ").is_some_and(|(key, _)| {
                !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            });
            let is_table = bare.starts_with('[') && bare.ends_with(']') && !bare.starts_with("[]");
            format!("{}\n", if is_key || is_table { bare } else { line })
        })
        .collect();
    let faults = Case::file(&uncommented).faults();
    assert!(!faults.iter().any(|fault| fault.contains("is not a key")), "{faults:#?}");
    assert!(!faults.iter().any(|fault| fault.contains("is not TOML")), "{faults:#?}");
}

#[test]
fn the_reference_as_a_file_lacks_only_what_has_no_default() {
    let faults = Case::file(REFERENCE).faults();
    let keys: Vec<_> = faults.iter().map(|line| line.split(": ").nth(1).unwrap_or_default()).collect();
    assert_eq!(keys, ["endpoints[0].name", "endpoints[0].credentials"], "{faults:#?}");
}
