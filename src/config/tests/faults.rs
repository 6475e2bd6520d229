//! Every fault, with key and origin.

use super::*;

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
        "countersign.toml:3: http.listen: \"localhost:8080\" has a name instead of an IP address; expected IP:port",
        "countersign.toml:4: http.max_body_bytes: is a text; expected a whole number from 1024 to 16777216",
        "countersign.toml:5: http.workers: is a number with a fraction; expected a whole number",
        "countersign.toml:6: http.locale: \"de\" is not one of its values; expected zh, en or ja",
        "countersign.toml:8: admin.listen: \":9090\" has no IP address",
        "countersign.toml:10: ledger.url: names no user; expected postgres://user:password@host:port,host:port/database",
        "countersign.toml:11: ledger.max_batch: 0 is out of range",
        "countersign.toml:13: amqp.exchange: \"\" is the default exchange",
        "countersign.toml:14: amqp.queue: \"amq.gen\" begins with amq.",
        "countersign.toml:15: amqp.topology: \"make\" is not one of its values; expected declare, check or none",
        "countersign.toml:17: log.filter: \"countersign=loud\" is not understood",
        "countersign.toml:19: endpoints[0].name: \"Purchase\" cannot be part of the URL as it is",
        "countersign.toml:20: endpoints[0].actions: is empty",
        "countersign.toml:21: endpoints[0].approval_codes[1]: \"\" is empty",
        "countersign.toml:21: endpoints[0].approval_codes[2]: \"A\" is in the list twice",
        "countersign.toml:22: endpoints[0].dedupe_window: \"soon\" is not a duration",
        "countersign.toml:23: endpoints[0].on_conflict: is true or false; expected publish or refuse",
        "countersign.toml:18: endpoints[0].credentials: is missing",
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
fn the_internal_listener_needs_a_token_where_others_can_reach_it() {
    let case = Case::file(&format!("[admin]\nlisten = '0.0.0.0:9090'\n{SMALL}"));
    has(&case.faults(), "countersign.toml:1: admin.token: is missing, and 0.0.0.0:9090 can be reached");
    assert!(case.set("admin.token=fake-of-so-many-bytes").faults().is_empty());
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
    let one = |number: u8| {
        format!(
            "{{ action_callback_token = 't{number}-of-so-many-bytes', action_callback_key = 'k-of-so-many-bytes' }}, "
        )
    };
    let some = |count: u8| (0..count).map(one).collect::<String>();
    assert!(with(&some(4)).is_empty());
    has(&with(&some(5)), "countersign.toml:3: endpoints[0].credentials: there are 5; expected 1 to 4");
    has(&with(""), "countersign.toml:3: endpoints[0].credentials: is missing");
    has(
        &with(&format!("{}{{ action_callback_token = 'x-of-so-many-bytes' }}", one(1))),
        "countersign.toml:3: endpoints[0].credentials: 1 of 2 have an action_callback_key; expected all or none",
    );
    has(
        &with(&format!("{}{}", one(1), one(1))),
        "countersign.toml:3: endpoints[0].credentials: [1] is the same as [0]",
    );
    has(
        &with("{ action_callback_token = 't-of-so-many-bytes', action_callback_key = '' }"),
        "countersign.toml:3: endpoints[0].credentials[0].action_callback_key: is empty",
    );
    has(
        &with("{ action_callback_key = 'k-of-so-many-bytes' }"),
        "countersign.toml:3: endpoints[0].credentials[0].action_callback_token: is missing",
    );
    has(
        &with("{ action_callback_token = '' }"),
        "countersign.toml:3: endpoints[0].credentials[0].action_callback_t",
    );
    has(&with("'t'"), "countersign.toml:3: endpoints[0].credentials[0]: is a text; expected a table");
}

#[test]
fn an_endpoint_without_a_key_has_to_say_so_and_one_with_a_key_may_not() {
    let with = |rest: &str| Case::file(&format!("[[endpoints]]\nname = 'a'\n{rest}\n"));
    let without = "credentials = [{ action_callback_token = 'fake-token' }]";
    let key = "credentials = [{ action_callback_token = 'fake-token', action_callback_key = 'fake-key' }]";
    let missing =
        "endpoints[0].credentials: none has an action_callback_key, so callbacks would be taken unencrypted";
    has(&with(without).faults(), &format!("countersign.toml:3: {missing}"));
    has(&with(&format!("plain = false\n{without}")).faults(), &format!("countersign.toml:4: {missing}"));
    let plain = with(&format!("plain = true\n{without}"));
    assert!(plain.config().intake.endpoints[0].credentials[0].action_callback_key.is_none());
    has(&plain.warnings(), "countersign.toml:3: endpoints[0].plain: true: callbacks come unencrypted");
    assert!(with(key).faults().is_empty() && with(&format!("plain = false\n{key}")).faults().is_empty());
    has(
        &with(&format!("plain = true\n{key}")).faults(),
        "countersign.toml:3: endpoints[0].plain: true, and there is an action_callback_key; expected one of the two",
    );
    for odd in ["'true'", "1", "[]"] {
        has(&with(&format!("plain = {odd}\n{key}")).faults(), "countersign.toml:3: endpoints[0].plain: is ");
    }
    let word = |word: &str| with(without).env("COUNTERSIGN__ENDPOINTS__0__PLAIN", word).faults();
    assert!(word("true").is_empty());
    has(
        &word("yes"),
        "environment COUNTERSIGN__ENDPOINTS__0__PLAIN: endpoints[0].plain: \"yes\" is neither true nor false",
    );
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
    has(&with("format = []"), "countersign.toml:6: endpoints[0].context.format: is empty");
    has(
        &with("format = ['opaque', 'opaque']"),
        "countersign.toml:6: endpoints[0].context.format[1]: \"opaque\" is in the list twice",
    );
    has(
        &with("format = 'json'\nfields = { task = '/t' }"),
        "countersign.toml:7: endpoints[0].context.fields.task: is not a key of this version",
    );
}

#[test]
fn patterns_of_contexts_are_checked() {
    let with = |context: &str| Case::file(&format!("{SMALL}[endpoints.context]\n{context}\n")).faults();
    assert!(with("format = 'pattern'\npattern = '(?P<task_id>.+)'").is_empty());
    has(&with("format = 'pattern'"), "countersign.toml:5: endpoints[0].context.pattern: is missing");
    for (pattern, problem) in [
        ("(", "\"(\" is no regular expression"),
        ("(?P<task>.+)", "\"(?P<task>.+)\" has a group named `task`"),
        (".+", "\".+\" has no group named task_id or instance_id"),
    ] {
        has(
            &with(&format!("format = 'pattern'\npattern = '{pattern}'")),
            &format!("countersign.toml:7: endpoints[0].context.pattern: {problem}"),
        );
    }
    has(
        &with("format = 'pattern'\npattern = '(?P<task_id>.+)'\npattern_over = 'user_id'"),
        "countersign.toml:8: endpoints[0].context.pattern_over: \"user_id\" is not one of its values",
    );
}

#[test]
fn keys_of_tokens_are_checked() {
    let keys = |keys: &str| {
        let context = format!("format = 'jwt'\n[endpoints.context.jwt]\nleeway = '10s'\nkeys = [{keys}]\n");
        Case::file(&format!("{SMALL}[endpoints.context]\n{context}")).faults()
    };
    let long = "fake-fake-fake-fake-fake-fake-32";
    assert!(keys(&format!("{{ secret = '{long}' }}")).is_empty());
    let at = |rest: &str| format!("countersign.toml:9: endpoints[0].context.jwt.{rest}");
    has(&keys(""), "countersign.toml:7: endpoints[0].context.jwt: has no keys");
    has(&keys("{ secret = 'short' }"), &at("keys: [0] is shorter than 32 bytes"));
    has(&keys("{ public_key = 'x' }"), &at("keys: [0] is no Ed25519 key in PEM"));
    has(&keys("{ kid = 'a' }"), &at("keys[0].secret: is missing"));
    let both = format!("{{ secret = '{long}', public_key = 'x' }}");
    has(&keys(&both), &at("keys[0].secret: is given with public_key"));
    let no_kid = format!("{{ kid = 'a', secret = '{long}' }}, {{ secret = '{long}' }}");
    has(&keys(&no_kid), &at("keys: [1] has no kid"));
    let twins = format!("{{ kid = 'a', secret = '{long}' }}, {{ kid = 'a', secret = '{long}' }}");
    has(&keys(&twins), &at("keys: [1] has the kid of another"));
    assert!(!keys("{ secret = 'short-and-fake' }").concat().contains("short-and-fake"));
}

#[test]
fn signed_contexts_that_may_be_left_out_are_a_risk() {
    let case = Case::file(&format!("{SMALL}[endpoints.context]\nformat = 'registry'\n"));
    let warnings = case.load().warnings;
    assert!(
        warnings.iter().any(|warning| warning.key == "endpoints[0].context.on_unresolved"),
        "{warnings:?}"
    );
}

#[test]
fn own_sentences_are_for_refusals_of_authenticated_callbacks_only() {
    let with = |line: &str| Case::file(&format!("{SMALL}[endpoints.sentences]\n{line}\n")).faults();
    assert!(with("operator_not_allowed = '不是您的任务'").is_empty());
    let at = "countersign.toml:6: endpoints[0].sentences";
    has(&with("unauthenticated = 'x'"), &format!("{at}.unauthenticated: is not a key of this version"));
    has(&with("conflicting = ''"), &format!("{at}.conflicting: \"\" is empty"));
    has(&with(&format!("conflicting = '{}'", "长".repeat(121))), &format!("{at}.conflicting: \"长"));
}
