//! The displayed configuration, and the key reference.

use super::*;

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
        credentials = [ { action_callback_token = "hush-3-of-so-many-bytes", action_callback_key = ["hush-4"] } ]
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
        shutdown_delay_ms = 500
        [amqp]
        urls = ["amqp://u:fake@a/v", "amqps://b"]
        [[endpoints]]
        name = "first"
        plain = true
        credentials = [ { action_callback_token = "fake-of-so-many-bytes" } ]
        [[endpoints]]
        name = "second"
        dedupe_window = "1500ms"
        credentials = [ { action_callback_token = "fake-of-so-many-bytes", action_callback_key = "fake-of-so-many-bytes" },
                        { action_callback_token = "old-of-so-many-bytes", action_callback_key = "fake-of-so-many-bytes" } ]
        [endpoints.context]
        format = ["json"]
        fields = { task_id = "/t" }
    "#;
    let shown = Case::file(text).load().effective.to_toml(true);
    assert!(shown.starts_with("shutdown_delay_ms = 500  # "), "{shown}");
    assert!(
        shown.contains(
            "\nallow_weak_secrets = false  # default\n\n[http]\nlisten = \"0.0.0.0:8080\"  # default\n"
        ),
        "{shown}"
    );
    assert!(shown.contains("urls = [\"amqp://u:[redacted]@a/v\", \"amqps://b\"]"), "{shown}");
    // Both credentials are "[redacted]" now, which would make them duplicates.
    let again = Case::file(&shown.replacen("[redacted]\"  #", "other-of-so-many-bytes\"  #", 3));
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

/// Every key that is read, by section, as listed by the unknown-key fault.
fn known_keys() -> Vec<(String, String)> {
    let text = format!(
        "zzzzzzzz = 1\n[http]\nzzzzzzzz = 1\n[admin]\nzzzzzzzz = 1\n[ledger]\nzzzzzzzz = 1\n[amqp]\nzzzzzzzz = 1\n[[amqp.signing.keys]]\nzzzzzzzz = 1\n\
         [log]\nzzzzzzzz = 1\n[approval_center]\nzzzzzzzz = 1\n{SMALL}zzzzzzzz = 1\n[endpoints.context]\nzzzzzzzz = 1\nfields = {{ zzzzzzzz = 1 }}\n"
    )
    .replace("many-bytes\" }", "many-bytes\", zzzzzzzz = 1 }");
    let loaded = Case::file(&text).load();
    let faults: Vec<_> = loaded.faults().iter().filter(|fault| fault.key.ends_with("zzzzzzzz")).collect();
    assert_eq!(faults.len(), 12, "every table of the configuration is here: {faults:#?}");
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
    // The reverse: if every comment that is a line of TOML is uncommented, no key is unknown.
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
