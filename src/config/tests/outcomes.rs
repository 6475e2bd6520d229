//! The section `[outcomes]`.

use super::*;
use crate::{center::outcomes, feedback};

const CENTER: &str = "[approval_center]\napp_id = \"cli_1\"\napp_secret = \"fake\"\n";

fn case(section: &str) -> Case {
    Case::file(&format!("{CENTER}[outcomes]\n{section}\n{SMALL}"))
}

#[test]
fn its_defaults_are_those_of_the_module() {
    let config = Case::file(SMALL).config();
    assert_eq!(config.outcomes, outcomes::Settings::default());
    assert_eq!(config.feedback, feedback::Settings::default());
    let config = case("queue = \"erp.outcomes\"\nprefetch = 7\nmax_calls = 2\nmax_attempts = 3").config();
    assert_eq!(config.outcomes, outcomes::Settings { max_calls: 2, max_attempts: 3 });
    let queue = "erp.outcomes".to_owned();
    let expected =
        feedback::Settings { queue, needed: true, prefetch: 7, shows: true, rules: HashMap::new() };
    assert_eq!(config.feedback, expected);
}

#[test]
fn what_workers_may_report_is_said_by_the_endpoint() {
    let read = |rules: &str| Case::file(&format!("{CENTER}{SMALL}\n[endpoints.outcomes]\n{rules}"));
    let config =
        read("approval_codes = [\"REAL\"]\ninstance_pattern = 'PO-[0-9]+'\nlink_hosts = [\"*.example.com\"]")
            .config();
    let rules = config.feedback.rules.values().next().unwrap();
    assert_eq!(
        (&*rules.approval_codes, &*rules.link_hosts),
        (&["REAL".to_owned()][..], &["*.example.com".to_owned()][..])
    );
    assert_eq!(rules.instances, Some(feedback::Pattern::parse("PO-[0-9]+").unwrap()));

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
fn an_answer_waits_only_for_reports_that_somebody_takes() {
    let wait = |outcomes: &str, wait: &str| {
        Case::file(&format!("{outcomes}\n{SMALL}\n[endpoints.answer]\nwait = \"{wait}\"\n"))
    };
    let of = |case: Case| case.config().intake.endpoints[0].answer_wait;
    assert_eq!(of(Case::file(SMALL)), None);
    assert_eq!(of(wait("", "off")), None);
    assert_eq!(of(wait("", "1500ms")), Some(Duration::from_millis(1500)));
    for short_or_long in ["99ms", "4001ms", "soon"] {
        let found = wait("", short_or_long).faults();
        assert!(found.iter().any(|fault| fault.contains("answer.wait: ")), "{found:?}");
    }
    let deaf = wait("[outcomes]\nqueue = \"\"", "1s").faults();
    let words = "answer.wait: waits for workers' reports, and outcomes.queue is empty";
    assert!(deaf.iter().any(|fault| fault.contains(words)), "{deaf:?}");
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
fn reports_are_taken_without_an_approval_center_and_not_shown() {
    let same = format!("[amqp]\nqueue = \"countersign.outcomes\"\n{SMALL}");
    has(&Case::file(&same).faults(), "default: outcomes.queue: \"countersign.outcomes\" is a queue");
    assert_eq!(case("queue = \"\"").config().feedback.queue(), None);
    let alone = Case::file(&format!("[outcomes]\nqueue = \"q\"\n{SMALL}")).config();
    assert_eq!((alone.feedback.queue(), alone.feedback.shows), (Some("q"), false));
    assert_eq!(alone.amqp.broker.outcomes.as_deref(), Some("q"));
    assert!(Case::file(SMALL).warnings().iter().all(|warning| !warning.contains("outcomes")));
}
