//! Valid secrets from every source, and the permissions of their files.

use std::path::Path;

use super::*;

/// An endpoint's token given in each of the three ways: in the file, by a variable, in its own file.
fn by_each_way(token: &str) -> [(&'static str, Case); 3] {
    let endpoint = |credential: &str| {
        let key = "action_callback_key = 'fake-key-of-so-many-bytes'";
        format!("[[endpoints]]\nname = 'a'\ncredentials = [ {{ {credential}, {key} }} ]\n")
    };
    let literal = toml::Value::from(token).to_string();
    let direct = Case::file(&endpoint(&format!("action_callback_token = {literal}")));
    let by_variable = Case::file(&endpoint("action_callback_token = '${TOKEN}'")).env("TOKEN", token);
    let by_file = Case::empty();
    let path = by_file.dir.path().join("token");
    fs::write(&path, token).unwrap();
    let text = endpoint(&format!("action_callback_token_file = '{}'", path.display()));
    fs::write(by_file.dir.path().join("countersign.toml"), text).unwrap();
    [("TOML", direct), ("environment", by_variable), ("file", by_file)]
}

#[test]
fn a_text_that_cannot_be_a_secret_is_a_fault_from_wherever_it_comes() {
    for (token, words) in [
        ("fake-hush\rof-so-many-bytes", "has a carriage return in it"),
        ("fake-hush\r\nof-so-many-bytes", "has a carriage return in it"),
        ("fake-hush\nof-so-many-bytes", "has a line break in it"),
        ("\nfake-hush-of-so-many-bytes", "has a line break in it"),
        ("fake-hush-of-so-many-bytes\n\n", "has a line break in it"),
        ("fake-hush\u{2028}of-so-many-bytes", "has a line break in it"),
        ("fake-hush\u{1b}of-so-many-bytes", "has the control character U+001B in it"),
        ("hush", "has fewer than 8 bytes; `countersign keygen` makes a good one"),
        ("\u{feff}hush-1", "has fewer than 8 bytes"),
    ] {
        for (way, case) in by_each_way(token) {
            let faults = case.faults();
            assert_eq!(faults.len(), 1, "{token:?} by {way}: {faults:#?}");
            assert!(faults[0].contains(words), "{token:?} by {way}: {faults:#?}");
            assert!(faults[0].contains("endpoints[0].credentials[0].action_callback_token"), "{faults:#?}");
            assert!(!faults[0].contains("hush"), "{faults:#?}");
        }
    }
    // A variable cannot contain NUL.
    for (way, case) in
        by_each_way("fake-hush\0of-so-many-bytes").into_iter().filter(|(way, _)| *way != "environment")
    {
        assert!(case.faults()[0].contains("has a NUL in it; is it UTF-16?"), "{way}: {:#?}", case.faults());
    }
}

#[test]
fn a_bom_and_the_line_end_of_a_file_are_no_part_of_a_secret() {
    let token = "fake-token-of-so-many-bytes";
    for (way, case) in by_each_way(&format!("\u{feff}{token}")) {
        assert!(
            case.config().intake.endpoints[0].credentials[0].action_callback_token.equals(token),
            "{way}"
        );
        assert!(case.warnings().is_empty(), "{way}: {:#?}", case.warnings());
    }
    for end in ["\n", "\r\n"] {
        let [.., (_, by_file)] = by_each_way(&format!("\u{feff}{token}{end}"));
        assert!(by_file.config().intake.endpoints[0].credentials[0].action_callback_token.equals(token));
    }
}

#[test]
fn what_hardly_belongs_to_a_secret_is_a_warning_and_stays_part_of_it() {
    for (token, words) in [
        (" fake-hush-of-so-many-bytes", "begins with a blank, which is part of it"),
        ("fake-hush-of-so-many-bytes\t", "ends with a blank, which is part of it"),
        ("fake-hush-of-so-many-bytes\u{3000}", "ends with a blank"),
        ("\"fake-hush-of-so-many-bytes", "begins with a quotation mark, which is part of it"),
        ("fake-hush-of-so-many-bytes'", "ends with a quotation mark"),
        ("fake-hush-of-so-many-bytes”", "ends with a quotation mark"),
        ("fake-hush\u{200b}-of-so-many-bytes", "has the invisible character U+200B in it"),
        ("fake-hush-of-so-many-bytes\u{feff}", "has the invisible character U+FEFF in it"),
        ("fake-hush-15-so", "has fewer than 16 bytes, and could be guessed"),
    ] {
        for (way, case) in by_each_way(token) {
            assert!(
                case.config().intake.endpoints[0].credentials[0].action_callback_token.equals(token),
                "{token:?} by {way}"
            );
            let warnings = case.warnings();
            assert_eq!(warnings.len(), 1, "{token:?} by {way}: {warnings:#?}");
            assert!(warnings[0].contains(words) && !warnings[0].contains("hush"), "{way}: {warnings:#?}");
        }
    }
    let quoted = "\"fake-hush-of-so-many-bytes\"";
    assert!(by_each_way(quoted).iter().all(|(_, case)| case.warnings().len() == 2));
}

#[test]
fn weak_tokens_and_keys_are_taken_only_if_that_is_said() {
    let weak = "[admin]\ntoken = 'admin'\n[[endpoints]]\nname = 'a'\n\
                credentials = [ { action_callback_token = 'token', action_callback_key = 'key' } ]\n";
    let faults = Case::file(weak).faults();
    has(&faults, "countersign.toml:2: admin.token: has fewer than 8 bytes");
    for key in ["action_callback_token", "action_callback_key"] {
        has(
            &faults,
            &format!("countersign.toml:5: endpoints[0].credentials[0].{key}: has fewer than 8 bytes"),
        );
    }
    assert_eq!(faults.len(), 3, "{faults:#?}");
    let allowed = Case::file(&format!("allow_weak_secrets = true\n{weak}"));
    allowed.config();
    let warnings = allowed.warnings();
    assert_eq!(warnings.iter().filter(|line| line.contains("could be guessed")).count(), 3, "{warnings:#?}");
    let by_variable = Case::file(weak).env("COUNTERSIGN__ALLOW_WEAK_SECRETS", "true");
    assert!(by_variable.faults().is_empty());
    has(
        &Case::file(&format!("allow_weak_secrets = 'yes'\n{SMALL}")).faults(),
        "countersign.toml:1: allow_weak_secrets: is a text; expected true or false",
    );
    has(
        &Case::file(SMALL).set("allow_weak_secrets=1").faults(),
        "flag --set allow_weak_secrets: allow_weak_secrets: \"1\" is neither true nor false",
    );
    // Other secrets are issued by third parties, who know how long they must be.
    let center = format!("[approval_center]\napp_id = 'cli_1'\napp_secret = 'short'\n{SMALL}");
    assert!(Case::file(&center).faults().is_empty() && Case::file(&center).warnings().is_empty());
}

#[test]
fn the_urls_of_brokers_are_looked_at_one_by_one() {
    let case = Case::file(SMALL);
    let path = case.dir.path().join("urls");
    fs::write(&path, "\u{feff}amqp://u:fake@a/v\r\namqp://u:ha\x1bsh@b/v\r\n").unwrap();
    let case = case.env("COUNTERSIGN__AMQP__URLS_FILE", path.to_str().unwrap());
    assert!(
        case.faults()[0].contains("line 2 of the file has the control character U+001B in it"),
        "{:?}",
        case.faults()
    );
    fs::write(&path, "\u{feff}amqp://u:fake@a/v\r\n\namqp://u:fake@b/\r\n").unwrap();
    assert_eq!(case.config().amqp.broker.urls.len(), 2);
    assert!(
        case.warnings()[0].contains("[1] ends with a slash, and so names the virtual host \"\""),
        "{:?}",
        case.warnings()
    );

    let url = |url: &str| Case::file(SMALL).env("COUNTERSIGN_AMQP_URL", url);
    for (text, words) in [
        ("amqp://gu%est:fake@h/v", "has a % without two hexadecimal digits after it"),
        ("amqp://h/v?heartbeat=abc", "has a heartbeat that is not a number of seconds"),
    ] {
        assert!(url(text).faults()[0].contains(words), "{:?}", url(text).faults());
    }
    for (text, words) in [
        ("amqp://h:5672/", "ends with a slash, and so names the virtual host \"\""),
        ("amqp://h:5672/v?bogus=1", "has a parameter that has no effect"),
    ] {
        assert!(
            url(text).faults().is_empty() && url(text).warnings()[0].contains(words),
            "{:?}",
            url(text).warnings()
        );
    }
}

fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_of_secrets_that_everybody_can_read_are_told() {
    let case = Case::empty();
    let dir = case.dir.path();
    open_to_all(dir, 0o755);
    fs::write(dir.join("token"), "fake-token-of-so-many-bytes").unwrap();
    let made = rcgen::generate_simple_self_signed(["countersign.test".to_owned()]).unwrap();
    fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    let text = format!(
        "[http.tls]\ncert_file = '{}'\nkey_file = '{}'\n[admin]\ntoken_file = '{}'\n[ledger]\nurl = 'sqlite:{}'\n",
        at("cert.pem"),
        at("key.pem"),
        at("token"),
        at("ledger.db"),
    );
    let secret_free = "[[endpoints]]\nname = 'a'\n\
         credentials = [ { action_callback_token = '${TOKEN}', action_callback_key = '${TOKEN}' } ]\n";
    fs::write(dir.join("ledger.db"), "").unwrap();
    fs::write(dir.join("countersign.toml"), format!("{text}{secret_free}")).unwrap();
    let case = Case { dir: case.dir, sources: case.sources }.env("TOKEN", "fake-token-of-so-many-bytes");
    let dir = case.dir.path();
    let names = ["token", "key.pem", "ledger.db", "countersign.toml"];
    names.iter().for_each(|name| open_to_all(&dir.join(name), 0o644));
    let warnings = case.warnings();
    has(
        &warnings,
        "countersign.toml:3: http.tls.key_file: everybody on this machine can read key.pem; `chmod o-rwx ",
    );
    has(&warnings, "countersign.toml:5: admin.token_file: everybody on this machine can read token;");
    has(&warnings, "countersign.toml:7: ledger.url: everybody on this machine can read ledger.db;");
    assert_eq!(warnings.len(), 3, "the configuration itself holds no secret: {warnings:#?}");

    fs::write(dir.join("countersign.toml"), format!("{text}{SMALL}")).unwrap();
    has(
        &case.warnings(),
        "countersign.toml: holds secrets, and everybody on this machine can read countersign.toml;",
    );
    names.iter().for_each(|name| open_to_all(&dir.join(name), 0o640));
    assert!(case.warnings().is_empty(), "{:#?}", case.warnings());
}
