//! File lookup and mistakes in the environment.

use std::{collections::HashSet, path::Path};

use super::{
    read::{Report, Section},
    *,
};

#[test]
fn the_file_of_an_installed_service_is_read_where_there_is_no_other() {
    let installed = Case::file(&SMALL.replace("purchase", "installed"));
    let mut case = Case::file(SMALL);
    case.sources.installed = Some(installed.dir.path().join("countersign.toml"));
    let name = |case: &Case| case.config().intake.endpoints[0].name.clone();
    assert_eq!(name(&case), "purchase");
    fs::remove_file(case.dir.path().join("countersign.toml")).unwrap();
    assert_eq!(name(&case), "installed");
    assert_eq!(case.load().file, case.sources.installed);
    case.sources.file = Some("none.toml".into());
    let absolute = std::env::current_dir().unwrap().join("none.toml");
    has(&case.faults(), &format!("{}: cannot be read: ", absolute.display()));
    assert!(
        case.faults()[0].ends_with("expected a TOML file; --config FILE or COUNTERSIGN_CONFIG names another")
    );
    case.sources.file = None;
    case.sources.installed = Some("/none/countersign.toml".into());
    has(
        &case.faults(),
        "endpoints: is missing; expected an [[endpoints]] in a file (neither countersign.toml nor /none/countersign.toml \
         exists; --config FILE names one), or COUNTERSIGN_ACTION_CALLBACK_TOKEN in the environment",
    );
}

#[test]
fn a_variable_that_fills_a_reference_and_sets_the_same_key_is_told() {
    let text = format!("[amqp]\nurl = '${{COUNTERSIGN_AMQP_URL}}'\n{SMALL}");
    let case = Case::file(&text).env("COUNTERSIGN_AMQP_URL", "amqps://h");
    has(
        &case.warnings(),
        "countersign.toml:2: amqp.url: the variable COUNTERSIGN_AMQP_URL sets this key whatever the file says",
    );
    assert_eq!(case.warnings().len(), 1);
    let nested = SMALL.replace(
        "fake-token-of-so-many-bytes",
        "${COUNTERSIGN__ENDPOINTS__0__CREDENTIALS__0__ACTION_CALLBACK_TOKEN}",
    );
    let case = Case::file(&nested).env(
        "COUNTERSIGN__ENDPOINTS__0__CREDENTIALS__0__ACTION_CALLBACK_TOKEN",
        "fake-other-of-so-many-bytes",
    );
    has(
        &case.warnings(),
        "countersign.toml:4: endpoints[0].credentials[0].action_callback_token: the variable ",
    );
    let other = Case::file(&text.replace("COUNTERSIGN_AMQP_URL", "BROKER")).env("BROKER", "amqps://h");
    assert!(other.warnings().is_empty(), "{:#?}", other.warnings());
}

#[test]
fn one_underscore_sets_nothing_and_is_told_unless_it_is_referred_to() {
    let case = Case::file(SMALL).env("COUNTERSIGN_HTTP_LISTEN", "127.0.0.1:1");
    assert_eq!(
        case.warnings(),
        [
            "environment COUNTERSIGN_HTTP_LISTEN: sets nothing; is COUNTERSIGN__HTTP__LISTEN meant, with two underscores?"
        ]
    );
    let case = Case::file(&format!("[http]\nlisten = '${{COUNTERSIGN_HTTP_LISTEN}}'\n{SMALL}"))
        .env("COUNTERSIGN_HTTP_LISTEN", "127.0.0.1:1");
    assert!(case.warnings().is_empty(), "{:#?}", case.warnings());
}

#[test]
fn a_filter_that_lets_nothing_through_is_a_fault() {
    let filter = |filter: &str| Case::file(&format!("[log]\nfilter = '{filter}'\n{SMALL}")).faults();
    has(
        &filter("warning"),
        "countersign.toml:2: log.filter: \"warning\" has the level \"warning\"; did you mean \"warn\"?",
    );
    assert!(filter("warn").is_empty() && filter("off").is_empty());
}

#[test]
fn a_ledger_without_an_absolute_path_is_told_where_the_service_is_installed() {
    // Tests must not write to /etc, so only the directory of the file is given.
    let told = |beside: &str, text: &str| {
        let tree = layers::parse_file(text, Path::new("c.toml")).unwrap_or_default();
        let environment = HashMap::new();
        let mut report = Report {
            environment: &environment,
            referenced: HashSet::new(),
            allow_weak_secrets: false,
            secrets_in_file: false,
            beside: Some(beside.into()),
            faults: Vec::new(),
            lapsed: Vec::new(),
            warnings: Vec::new(),
            effective: Effective::default(),
        };
        ledger::ledger(&mut Section::root(&tree, &mut report));
        report.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let relative = "url = 'sqlite:countersign.db'";
    assert!(
        told("/etc/countersign", relative)
            .starts_with("c.toml:1: url: is relative, so each command looks for the")
    );
    assert_eq!(told("/srv/countersign", relative), "");
    assert_eq!(told("/etc/countersign", "url = 'sqlite:/tmp/countersign.db'"), "");
}
