//! The section `[outcomes]`.

use super::*;
use crate::outcome::Settings;

const CENTER: &str = "[approval_center]\napp_id = \"cli_1\"\napp_secret = \"fake\"\n";

fn case(section: &str) -> Case {
    Case::file(&format!("{CENTER}[outcomes]\n{section}\n{SMALL}"))
}

#[test]
fn its_defaults_are_those_of_the_module() {
    assert_eq!(Case::file(SMALL).config().outcomes, Settings::default());
    let settings =
        case("queue = \"erp.outcomes\"\nprefetch = 7\nmax_calls = 2\nmax_attempts = 3").config().outcomes;
    let expected = Settings { queue: "erp.outcomes".to_owned(), prefetch: 7, max_calls: 2, max_attempts: 3 };
    assert_eq!(settings, expected);
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
