//! The keys that sign commands.

use super::*;

const HMAC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const ED25519: &str =
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
/// The same key as its seed alone.
const SEED: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=";
const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

fn keys(list: &str) -> Case {
    Case::file(&format!("[amqp.signing]\nkeys = [ {list} ]\n{SMALL}"))
}

fn kinds(case: &Case) -> String {
    format!("{:?}", case.config().amqp.broker.signing)
}

#[test]
fn keys_come_from_the_file_a_variable_a_file_of_their_own_or_the_environment_and_are_not_shown() {
    assert_eq!(kinds(&Case::file(SMALL)), "[]");
    assert_eq!(kinds(&keys("")), "[]");
    let case = keys("{ secret = '${SIGNING}' }, { secret_file = 'DIR/key' }").env("SIGNING", HMAC);
    let path = case.dir.path().join("countersign.toml");
    let text = fs::read_to_string(&path).unwrap().replace("DIR", &case.dir.path().display().to_string());
    fs::write(&path, text).unwrap();
    fs::write(case.dir.path().join("key"), format!("{ED25519}\n")).unwrap();
    fs::set_permissions(case.dir.path().join("key"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(kinds(&case), "[whsec_[redacted], whsk_[redacted]]");
    assert_eq!(case.warnings(), [""; 0]);
    let shown = format!("{}{:?}", case.load().effective.to_toml(true), case.load().effective);
    assert!(shown.contains("[[amqp.signing.keys]]\nsecret = \"whsec_[redacted]\""), "{shown}");
    assert!(shown.contains("DIR/key") || shown.contains("/key\""), "{shown}");
    for secret in [HMAC, ED25519] {
        assert!(!shown.contains(secret.split_once('_').unwrap().1), "{shown}");
    }
    let by_environment = Case::file(SMALL).env("COUNTERSIGN__AMQP__SIGNING__KEYS__0__SECRET", ED25519);
    assert_eq!(kinds(&by_environment), "[whsk_[redacted]]");
}

#[test]
fn every_faulty_key_is_told_at_once_with_its_place_and_without_its_text() {
    let case = keys(&format!(
        "{{ secret = 'hush' }},\n{{ secret = 'whsec_aHVzaA==' }},\n{{ secret = '{PUBLIC}' }},\n{{}},\n\
         {{ secret = '{HMAC}', secret_file = 'key' }},\n{{ secret_file = 'hush.d/none' }},\n{{ private_key_file = 'k' }}"
    ));
    let faults = case.faults();
    for expected in [
        "countersign.toml:2: amqp.signing.keys[0].secret: does not begin with whsec_ (HMAC-SHA256) or whsk_ (Ed25519); \
         `countersign keygen --signing ed25519` makes a good one",
        "countersign.toml:3: amqp.signing.keys[1].secret: has 4 bytes after the prefix, not 24 to 64",
        "countersign.toml:4: amqp.signing.keys[2].secret: is a public key",
        "countersign.toml:5: amqp.signing.keys[3].secret: is missing; expected whsec_… (HMAC-SHA256) or whsk_… (Ed25519)",
        "countersign.toml:6: amqp.signing.keys[4].secret: is given twice",
        "countersign.toml:7: amqp.signing.keys[5].secret_file: \"hush.d/none\": cannot be read",
        "countersign.toml:8: amqp.signing.keys[6].private_key_file: is not a key of this version",
    ] {
        has(&faults, expected);
    }
    let without_path = faults.iter().filter(|line| !line.contains("hush.d")).cloned().collect::<String>();
    for secret in ["hush", "aHVzaA", HMAC, PUBLIC] {
        assert!(!without_path.contains(secret), "{faults:#?}");
    }
}

#[test]
fn a_key_that_is_there_twice_or_one_too_many_is_a_fault() {
    let twice =
        keys(&format!("{{ secret = '{ED25519}' }}, {{ secret = '{HMAC}' }}, {{ secret = '{SEED}' }}"));
    has(&twice.faults(), "countersign.toml:2: amqp.signing.keys: [2] is the same as an earlier one");
    let many: Vec<_> = (0..5)
        .map(|byte| amqp::signing::SigningKey::hmac_text(&[byte; 32]))
        .map(|secret| format!("{{ secret = '{}' }}", secret.expose()))
        .collect();
    has(
        &keys(&many.join(", ")).faults(),
        "countersign.toml:2: amqp.signing.keys: has 5 keys; expected up to 4",
    );
    assert_eq!(kinds(&keys(&many[..4].join(", "))).matches("whsec").count(), 4);
}
