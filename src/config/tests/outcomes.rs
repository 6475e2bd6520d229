//! The section `[outcomes]`.

use super::*;
use crate::center::outcomes::{Pattern, Settings};

const CENTER: &str = "[approval_center]\napp_id = \"cli_1\"\napp_secret = \"fake\"\n";

fn case(section: &str) -> Case {
    Case::file(&format!("{CENTER}[outcomes]\n{section}\n{SMALL}"))
}

#[test]
fn its_defaults_are_those_of_the_module() {
    assert_eq!(Case::file(SMALL).config().outcomes, Settings::default());
    let settings =
        case("queue = \"erp.outcomes\"\nprefetch = 7\nmax_calls = 2\nmax_attempts = 3").config().outcomes;
    let queue = "erp.outcomes".to_owned();
    let expected = Settings { queue, prefetch: 7, max_calls: 2, max_attempts: 3, rules: HashMap::new() };
    assert_eq!(settings, expected);
}

#[test]
fn what_workers_may_report_is_said_by_the_endpoint() {
    let read = |rules: &str| Case::file(&format!("{CENTER}{SMALL}\n[endpoints.outcomes]\n{rules}"));
    let config =
        read("approval_codes = [\"REAL\"]\ninstance_pattern = 'PO-[0-9]+'\nlink_hosts = [\"*.example.com\"]")
            .config();
    let rules = config.outcomes.rules.values().next().unwrap();
    assert_eq!(
        (&*rules.approval_codes, &*rules.link_hosts),
        (&["REAL".to_owned()][..], &["*.example.com".to_owned()][..])
    );
    assert_eq!(rules.instances, Some(Pattern::parse("PO-[0-9]+").unwrap()));

    let broken = read(
        "approval_codes = [\"\"]\ninstance_pattern = 'a)|(b'\nlink_hosts = [\"https://erp.example.com\", \"h:80\", \"*\"]",
    );
    let found = broken.faults();
    for words in [
        "outcomes.approval_codes[0]: \"\" is empty",
        "outcomes.instance_pattern: ",
        "outcomes.link_hosts[0]: \"https://erp.example.com\" is not a host",
        "outcomes.link_hosts[1]: \"h:80\" is not a host",
        "outcomes.link_hosts[2]: \"*\" is not a host",
    ] {
        assert!(found.iter().any(|fault| fault.contains(words)), "{words}: {found:?}");
    }
    let open = read("instance_pattern = 'PO-[0-9]+'").faults();
    assert!(open.iter().any(|fault| fault.contains("without saying of which definitions")), "{open:?}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let found =
        case("queue = \"countersign.dead\"\nprefetch = 0\nmax_calls = 65\nmax_attempts = 0\nspeed = 1")
            .faults();
    has(&found, "countersign.toml:5: outcomes.queue: \"countersign.dead\" is a queue that commands go to");
    has(&found, "countersign.toml:6: outcomes.prefetch: 0 is out of range");
    has(&found, "countersign.toml:7: outcomes.max_calls: 65 is out of range");
    has(&found, "countersign.toml:8: outcomes.max_attempts: 0 is out of range");
    has(&found, "countersign.toml:9: outcomes.speed");
    for queue in ["countersign.commands", "amq.outcomes"] {
        has(&case(&format!("queue = \"{queue}\"")).faults(), "countersign.toml:5: outcomes.queue: ");
    }
}

#[test]
fn without_an_approval_center_it_stands_in_nobodys_way() {
    let same = format!("[amqp]\nqueue = \"countersign.outcomes\"\n{SMALL}");
    assert_eq!(Case::file(&same).faults(), [""; 0]);
    assert_eq!(case("queue = \"\"").config().outcomes.queue(), None);
    has(
        &Case::file(&format!("{CENTER}{same}")).faults(),
        "default: outcomes.queue: \"countersign.outcomes\" is a queue",
    );
    let alone = Case::file(&format!("[outcomes]\nqueue = \"q\"\n{SMALL}"));
    has(
        &alone.warnings(),
        "countersign.toml:2: outcomes.queue: has no effect, since [approval_center] has no app_id",
    );
    assert!(Case::file(SMALL).warnings().iter().all(|warning| !warning.contains("outcomes")));
}
