//! Brokers' certificates as people make them with openssl: what is told, and that what it says to do makes a good one.

use super::support::free_port;
use countersign::{amqp, relay::Failure, secret::Secret, telemetry::log::chain};
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Runs a line of a shell in a directory.
fn run(directory: &Path, line: &str) {
    let ran =
        Command::new("sh").args(["-ec", line]).current_dir(directory).output().expect("there is a shell");
    assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// A server of openssl, which takes any certificate, until this is dropped.
struct Server {
    child: Child,
    /// Open, or the next word of the server would end it.
    _lines: Lines<BufReader<ChildStdout>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().unwrap_or_default();
        self.child.wait().expect("it is our child");
    }
}

impl Server {
    /// Starts one and waits until it listens.
    fn start(directory: &Path, port: u16, certificate: &str, key: &str) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-cert", certificate, "-key", key])
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is there");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let listens = lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("ACCEPT"));
        let server = Self { child, _lines: lines };
        assert!(listens, "openssl s_server does not listen");
        server
    }
}

/// What a relay is told of a broker with this certificate, by one that believes the authority. The broker speaks TLS and
/// nothing else: with a good certificate it is waited for in vain.
async fn told(directory: &Path, certificate: &str, key: &str, authority: &str, host: &str) -> String {
    let port = free_port();
    let _server = Server::start(directory, port, certificate, key);
    let settings = amqp::Settings {
        urls: vec![Secret::new(format!("amqps://guest:guest@{host}:{port}/%2f"))],
        tls: amqp::tls::Settings { ca_file: Some(directory.join(authority)), identity: None },
        connect_timeout: Duration::from_secs(2),
        ..amqp::Settings::default()
    };
    let error = amqp::listen_in(&settings, "test").await.expect_err("nobody speaks AMQP");
    if error.to_string().contains("its certificate") {
        assert!(error.needs_operator());
    }
    chain(&error)
}

/// The line of openssl that ends a text.
fn line(text: &str, begins: &str) -> String {
    let (_, rest) = text.split_once(begins).unwrap_or_else(|| panic!("no {begins:?} in {text}"));
    format!("{begins}{rest}")
}

/// No word of the library's own.
fn assert_plain(text: &str) {
    for word in ["Other", "CaUsed", "UnsupportedCert", "invalid peer certificate", "Context"] {
        assert!(!text.contains(word), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_authority_is_told_in_words_and_the_line_of_openssl_makes_a_good_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let dir = directory.path();
    run(
        dir,
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
         -keyout k.pem -out c.pem",
    );
    let text = told(dir, "c.pem", "k.pem", "c.pem", "localhost").await;
    assert!(text.contains("its certificate is that of an authority (CA:TRUE)"), "{text}");
    assert_plain(&text);
    run(dir, &line(&text, "openssl req -x509 -newkey"));
    let text = told(dir, "server.pem", "server-key.pem", "server.pem", "localhost").await;
    assert!(text.contains("within 2s"), "it is accepted: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_version_1_or_without_a_name_is_told_in_words_and_the_line_of_openssl_makes_a_good_one()
 {
    let directory = tempfile::tempdir().expect("a directory");
    let dir = directory.path();
    run(
        dir,
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca-key.pem -out ca.pem
         openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout k.pem -out server.csr
         openssl x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out v1.pem
         echo basicConstraints=CA:FALSE > unnamed.ext
         openssl x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile unnamed.ext \
            -out unnamed.pem
         echo extendedKeyUsage=clientAuth > client.ext
         echo subjectAltName=DNS:localhost >> client.ext
         openssl x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile client.ext \
            -out client.pem",
    );
    let version =
        Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(dir.join("v1.pem")).output();
    let first = String::from_utf8_lossy(&version.expect("openssl is there").stdout).contains("Version: 1");
    // From 3.2 on openssl makes no others than those of version 3.
    let cases = [
        ("v1.pem", if first { "is of X.509 version 1" } else { "has no host in subjectAltName" }),
        ("unnamed.pem", "has no host in subjectAltName"),
        ("client.pem", "is not for servers"),
    ];
    for (certificate, words) in cases {
        let text = told(dir, certificate, "k.pem", "ca.pem", "localhost").await;
        assert!(text.contains(words), "{certificate}: {text}");
        assert_plain(&text);
        run(dir, &line(&text, "printf "));
        let text = told(dir, "server.pem", "k.pem", "ca.pem", "localhost").await;
        assert!(text.contains("within 2s"), "{certificate}, made anew: {text}");
    }
    // An address in place of a name.
    let text = told(dir, "unnamed.pem", "k.pem", "ca.pem", "127.0.0.1").await;
    run(dir, &line(&text, "printf "));
    let text = told(dir, "server.pem", "k.pem", "ca.pem", "127.0.0.1").await;
    assert!(text.contains("within 2s"), "by its address: {text}");
}
