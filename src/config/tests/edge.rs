//! TLS on both sides, and who may send callbacks.

use std::path::Path;

use super::*;
use crate::time::Timestamp;

fn write_pair(dir: &Path, name: &str) {
    let made = rcgen::generate_simple_self_signed(["countersign.test".to_owned()]).unwrap();
    fs::write(dir.join(format!("{name}.pem")), made.cert.pem()).unwrap();
    fs::write(dir.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
}

/// A section with these files; `keys` may omit some.
fn files(section: &str, dir: &Path, keys: &[(&str, &str)]) -> Case {
    let keys: String =
        keys.iter().map(|(key, name)| format!("{key} = '{}'\n", dir.join(name).display())).collect();
    Case::file(&format!("[{section}]\n{keys}{SMALL}"))
}

#[test]
fn certificates_are_checked_with_the_configuration_and_each_fault_is_told_in_words() {
    let dir = private_directory();
    let dir = dir.path();
    write_pair(dir, "a");
    write_pair(dir, "b");
    fs::write(dir.join("empty.pem"), "").unwrap();
    let key = fs::read_to_string(dir.join("a.key")).unwrap();
    fs::write(dir.join("sealed.key"), key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")).unwrap();
    for section in ["http.tls", "amqp.tls"] {
        let told = |keys: &[(&str, &str)]| files(section, dir, keys).faults();
        assert!(told(&[("cert_file", "a.pem"), ("key_file", "a.key")]).is_empty());
        for (cert, key, at, words) in [
            ("a.pem", "b.key", "key_file", "does not belong to the first certificate in"),
            ("a.pem", "sealed.key", "key_file", "holds an encrypted private key"),
            ("a.pem", "none.key", "key_file", "cannot be read: No such file"),
            ("a.pem", "a.pem", "key_file", "holds no private key"),
            ("none.pem", "a.key", "cert_file", "cannot be read: No such file"),
            ("empty.pem", "a.key", "cert_file", "holds no certificate"),
            ("b.key", "a.key", "cert_file", "holds no certificate"),
        ] {
            let faults = told(&[("cert_file", cert), ("key_file", key)]);
            assert_eq!(faults.len(), 1, "{faults:#?}");
            assert!(faults[0].contains(&format!("{section}.{at}: ")), "{faults:#?}");
            assert!(faults[0].contains(words), "{faults:#?}");
        }
        has(&told(&[("cert_file", "a.pem")]), &format!("countersign.toml:1: {section}.key_file: is missing"));
        has(&told(&[("key_file", "a.key")]), &format!("countersign.toml:1: {section}.cert_file: is missing"));
    }
    let told = |name| files("amqp.tls", dir, &[("ca_file", name)]).faults();
    assert!(told("a.pem").is_empty());
    assert!(told("none.pem")[0].contains("amqp.tls.ca_file: "), "{:#?}", told("none.pem"));
    assert!(told("a.key")[0].contains("holds no certificate"), "{:#?}", told("a.key"));
}

#[test]
fn without_its_files_a_listener_has_no_tls() {
    assert_eq!(Case::file(SMALL).config().http.tls, None);
    assert_eq!(Case::file(SMALL).config().amqp.broker.tls, amqp::tls::Settings::default());
    let zero = Case::file(&format!("[http.tls]\ncheck_interval = 0\n{SMALL}"));
    has(&zero.faults(), "countersign.toml:2: http.tls.check_interval: is 0");
}

#[test]
fn peers_are_read_and_slips_are_told() {
    let case = Case::file(&format!(
        "[http]\ntrusted_proxies = ['10.0.0.5', '192.0.2.0/24']\nallowed_peers = ['2001:db8::/32']\n\
         allowed_peers_mode = 'warn'\nrate_limit_per_peer = 50\nrate_limit_burst = 200\n\
         failure_budget_per_peer = 20\n{SMALL}"
    ));
    let peers = case.config().http.peers;
    assert_eq!((peers.rate, peers.burst, peers.failure_budget), (50, 200, 20));
    assert_eq!(peers.allowed_mode, crate::http::peers::Mode::Warn);
    let shown: Vec<_> = peers.trusted_proxies.iter().chain(&peers.allowed).map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.5", "192.0.2.0/24", "2001:db8::/32"]);
    assert!(case.warnings().is_empty(), "{:#?}", case.warnings());

    let peers = Case::file(SMALL).config().http.peers;
    assert_eq!((peers.rate, peers.burst, peers.failure_budget), (0, 0, 0));
    assert!(peers.trusted_proxies.is_empty() && peers.allowed.is_empty());

    let case = Case::file(&format!(
        "[http]\ntrusted_proxies = ['proxy.example']\nallowed_peers = ['10.0.0.1/8']\n\
         allowed_peers_mode = 'maybe'\nrate_limit_per_peer = -1\n{SMALL}"
    ));
    let faults = case.faults();
    has(
        &faults,
        "countersign.toml:2: http.trusted_proxies[0]: \"proxy.example\" is neither an IP address nor a CIDR range",
    );
    has(&faults, "countersign.toml:3: http.allowed_peers[0]: \"10.0.0.1/8\" has host bits set");
    has(&faults, "countersign.toml:4: http.allowed_peers_mode: \"maybe\" is not one of its values");
    has(&faults, "countersign.toml:5: http.rate_limit_per_peer: -1 is out of range");
}

#[test]
fn keep_alive_is_read_and_one_that_balancers_outlive_is_told() {
    let case = |value: &str| Case::file(&format!("[http]\nkeep_alive = {value}\n{SMALL}"));
    assert_eq!(Case::file(SMALL).config().http.keep_alive.as_secs(), 75);
    assert_eq!(case("'620s'").config().http.keep_alive.as_secs(), 620);
    assert!(case("'620s'").warnings().is_empty());
    has(&case("60").warnings(), "countersign.toml:2: http.keep_alive: is not longer than the 60 s");
    has(&case("'500ms'").faults(), "countersign.toml:2: http.keep_alive: is less than a second");
    has(&case("'25h'").faults(), "countersign.toml:2: http.keep_alive: \"25h\" is too long");
}

#[test]
fn what_goes_to_another_machine_without_encryption_is_told_and_secrets_are_not() {
    let amqp = |toml: &str| Case::file(&format!("[amqp]\n{toml}\n{SMALL}")).warnings();
    let told = amqp("url = 'amqp://fake-user:fake-password@mq.example:5672/%2f'");
    has(
        &told,
        "countersign.toml:2: amqp.url: mq.example:5672/%2f is another machine, and amqp:// is not encrypted",
    );
    assert!(!told.concat().contains("fake"), "{told:?}");
    let urls = "urls = ['amqps://a', 'amqp://localhost.example.com', 'amqp://127.0.0.1', 'amqp://[::2]']";
    let told = amqp(urls);
    has(&told, "countersign.toml:2: amqp.urls: localhost.example.com:5672/%2f is another machine");
    has(&told, "countersign.toml:2: amqp.urls: [::2]:5672/%2f is another machine");
    assert_eq!(told.len(), 2, "{told:?}");
    for url in ["amqp://fake:fake@localhost", "amqp://127.0.0.1/x", "amqp://[::1]", "amqps://mq.example"] {
        assert_eq!(amqp(&format!("url = '{url}'")), Vec::<String>::new(), "{url}");
    }
    let admin = |listen: &str| {
        let token = "token = 'fake-token-of-many-bytes'";
        Case::file(&format!("[admin]\nlisten = '{listen}'\n{token}\n{SMALL}")).warnings()
    };
    for listen in ["0.0.0.0:9090", "10.0.0.1:9090", "[::]:9090"] {
        let told = admin(listen);
        has(
            &told,
            &format!("countersign.toml:2: admin.listen: {listen} can be reached from other machines without"),
        );
        assert!(!told.concat().contains("fake"), "{told:?}");
    }
    for listen in ["127.0.0.1:9090", "[::1]:9090"] {
        assert_eq!(admin(listen), Vec::<String>::new(), "{listen}");
    }
}

#[test]
fn what_a_crowd_may_hold_is_read_and_has_room_for_more_than_one() {
    let http = Case::file(SMALL).config().http;
    assert_eq!((http.max_unread_bytes, http.peers.max_connections), (64 << 20, 1024));
    let case = |keys: &str| Case::file(&format!("[http]\n{keys}\n{SMALL}"));
    let http = case("max_unread_bytes = 1048576\nmax_connections_per_peer = 0").config().http;
    assert_eq!((http.max_unread_bytes, http.peers.max_connections), (1 << 20, 0));
    has(
        &case("max_body_bytes = 1048576\nmax_unread_bytes = 2097152").faults(),
        "countersign.toml:3: http.max_unread_bytes: has no room for four bodies of http.max_body_bytes",
    );
    has(
        &case("max_unread_bytes = 1024").faults(),
        "countersign.toml:2: http.max_unread_bytes: 1024 is out of range",
    );
    has(
        &case("max_connections_per_peer = 20000").faults(),
        "countersign.toml:2: http.max_connections_per_peer: 20000 is",
    );
}

#[test]
fn pairs_that_would_shut_out_the_wrong_ones_are_told() {
    let warnings = |http: &str| Case::file(&format!("[http]\n{http}\n{SMALL}")).warnings();
    let own = "listen = '127.0.0.1:8080'";
    for limit in ["failure_budget_per_peer = 5", "rate_limit_per_peer = 5", "allowed_peers = ['192.0.2.1']"] {
        let told = warnings(&format!("{own}\n{limit}"));
        has(&told, "default: http.trusted_proxies: is empty although callbacks come from this machine");
        assert!(warnings(&format!("{own}\n{limit}\ntrusted_proxies = ['127.0.0.1']")).is_empty());
        assert!(warnings(limit).is_empty());
    }
    assert!(warnings(own).is_empty());
    has(
        &warnings("trusted_proxies = ['0.0.0.0/0']"),
        "countersign.toml:2: http.trusted_proxies: holds every address",
    );
    has(&warnings("rate_limit_burst = 5"), "countersign.toml:2: http.rate_limit_burst: has no effect");

    let dir = private_directory();
    write_pair(dir.path(), "ca");
    let tls = files("amqp.tls", dir.path(), &[("ca_file", "ca.pem")]);
    has(&tls.warnings(), "countersign.toml:1: amqp.tls: has no effect, since no URL begins with amqps://");
    assert!(tls.set("amqp.url=amqps://broker").warnings().is_empty());
}

/// Like [`write_pair`], with a BOM in each file, valid from 2000 until `days` from now.
fn write_dated(dir: &Path, days: i64, is_authority: bool) {
    let mut params = rcgen::CertificateParams::new(vec!["countersign.test".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    let day = 24 * 3600 * 1000;
    let end =
        Timestamp::from_millisecond(Timestamp::now().as_millisecond() + day * days).unwrap().to_string();
    let part = |from: usize, to: usize| end[from..to].parse::<u16>().unwrap();
    let (month, day) = (u8::try_from(part(5, 7)).unwrap(), u8::try_from(part(8, 10)).unwrap());
    params.not_after = rcgen::date_time_ymd(part(0, 4).into(), month, day);
    if is_authority {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    fs::write(dir.join("dated.pem"), format!("\u{feff}{}", cert.pem())).unwrap();
    fs::write(dir.join("dated.key"), format!("\u{feff}{}", key.serialize_pem())).unwrap();
}

#[test]
fn the_end_of_a_certificate_is_told_before_and_after() {
    let dir = private_directory();
    for section in ["http.tls", "amqp.tls"] {
        let load = |days, is_authority| {
            write_dated(dir.path(), days, is_authority);
            let keys = [("cert_file", "dated.pem"), ("key_file", "dated.key")];
            files(section, dir.path(), &keys).set("amqp.url=amqps://broker").load()
        };
        let told = |loaded: &Loaded| {
            assert_eq!(loaded.faults(), []);
            assert!(loaded.config().is_ok(), "time alone keeps nothing from starting");
            let warnings = loaded.warnings.iter().map(ToString::to_string);
            let warnings: Vec<_> = warnings.filter(|warning| !warning.contains(REPLAYABLE)).collect();
            (lines(loaded.lapsed()).join("\n"), warnings.join("\n"))
        };
        assert_eq!(told(&load(25, false)), (String::new(), String::new()));
        let (lapsed, warnings) = told(&load(20, false));
        assert!(lapsed.is_empty() && warnings.contains(&format!("{section}.cert_file: ")), "{warnings}");
        assert!(
            warnings.contains("dated.pem expires at ") && warnings.contains("(days left: 19)"),
            "{warnings}"
        );
        let (lapsed, warnings) = told(&load(-1, false));
        assert!(lapsed.contains(&format!("{section}.cert_file: ")), "{lapsed}");
        assert!(lapsed.contains("dated.pem expired at ") && warnings.is_empty(), "{lapsed} {warnings}");
        let (_, warnings) = told(&load(25, true));
        assert_eq!(warnings.contains("is an authority's certificate"), section == "http.tls", "{warnings}");
    }
}
