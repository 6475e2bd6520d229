//! TLS at the edge: handshakes that stall, plain words on the TLS port, certificates exchanged under load.

use crate::oracle::{Decision, Oracle};
use crate::support::{App, Authority, Config, Line, Pair, PairFiles, Vhost, Worker, eventually};
use std::time::Duration;

/// The program with TLS by a fresh pair of this authority, which looks after its files each second.
async fn start(vhost: &Vhost, authority: &Authority) -> (App, PairFiles) {
    let config = Config::new(vhost).set("http.tls", "check_interval", "\"1s\"");
    let files = authority.issue(&["127.0.0.1"]).write(config.dir(), "server");
    (App::with(config.https(authority, &files)).await, files)
}

/// The certificate that a new connection is shown, in DER.
async fn shown(app: &App) -> Vec<u8> {
    let answer = app.client().get(app.callback_url("purchase")).send().await.expect("an answer over TLS");
    assert_eq!(answer.status(), 405);
    let tls = answer.extensions().get::<reqwest::tls::TlsInfo>().expect("asked for");
    tls.peer_certificate().expect("a certificate").to_vec()
}

fn der(pair: &Pair) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("PEM").to_vec()
}

async fn until_shown(app: &App, pair: &Pair) {
    let wanted = der(pair);
    eventually("the other certificate", async || match shown(app).await {
        now if now == wanted => Ok(()),
        other => Err(other.len()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_exchanged_under_load_and_no_request_is_lost() {
    let vhost = Vhost::new().await;
    let authority = Authority::new();
    let (app, files) = start(&vhost, &authority).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    // A handshake for each request.
    let load = oracle.load(&app, 4);
    load.until_answered(50).await;
    let mut last = None;
    for _ in 0..3 {
        let fresh = authority.issue(&["127.0.0.1"]);
        std::fs::write(&files.cert, &fresh.cert).expect("the directory is ours");
        // In between, certificate and key do not belong together.
        load.until_answered(20).await;
        std::fs::write(&files.key, &fresh.key).expect("the directory is ours");
        until_shown(&app, &fresh).await;
        load.until_answered(20).await;
        last = Some(fresh);
    }
    // A bad pair is told, and the previous one stays in use.
    std::fs::write(&files.key, "no key at all").expect("the directory is ours");
    eventually("the bad key to be told", async || {
        let log = app.stderr();
        let told = "not replaced; the previous one stays in use: ";
        let last = log.lines().rfind(|line| line.contains(told)).unwrap_or_default();
        if last.contains("holds no private key") { Ok(()) } else { Err(last.to_owned()) }
    })
    .await;
    until_shown(&app, &last.expect("three were written")).await;
    load.until_answered(20).await;
    load.stop().await;
    let figures = oracle.account(&app, &worker).await.check("certificates exchanged under load");
    assert_eq!(figures.unknown, 0, "a request was lost");
    assert!(figures.refused.is_empty(), "{:?}", figures.refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_handshakes_hold_up_nobody_and_are_cut_off() {
    // More than the server lets begin at a time unless it is told otherwise.
    const STALLED: usize = 600;
    let vhost = Vhost::new().await;
    let authority = Authority::new();
    let (app, _files) = start(&vhost, &authority).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let mut stalled = Vec::with_capacity(STALLED);
    for number in 0..STALLED {
        let mut line = Line::to(app.public()).await;
        // Some say nothing; others begin a hello of 512 bytes and stop.
        if number % 2 == 0 {
            line.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.expect("an open connection");
        }
        stalled.push(line);
    }
    oracle.keep(&app, 50).await;
    for line in stalled {
        let said = line.until_closed().await;
        assert!(!said.starts_with(b"HTTP"), "{said:?}");
    }
    let figures = oracle.account(&app, &worker).await.check("stalled handshakes");
    assert_eq!(figures.unknown, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_words_on_the_tls_port_and_tls_on_the_plain_port_decide_nothing() {
    let vhost = Vhost::new().await;
    let authority = Authority::new();
    let (app, _files) = start(&vhost, &authority).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    oracle.keep(&app, 3).await;
    for number in 0..5 {
        let decision = Decision::new(&format!("plain-{number}"), number);
        let mut line = Line::to(app.public()).await;
        line.post("/callbacks/purchase", &decision.body()).await.expect("an open connection");
        let said = line.until_closed().await;
        assert!(!said.windows(4).any(|window| window == b"HTTP"), "{:?}", String::from_utf8_lossy(&said));
        oracle.note_refused(decision);
    }
    // Neither by a version, nor by a name of the protocol, that is not served.
    let client = || {
        let authority = reqwest::Certificate::from_pem(authority.pem().as_bytes()).expect("PEM");
        reqwest::Client::builder().no_proxy().tls_certs_only([authority])
    };
    let old = client().tls_version_max(reqwest::tls::Version::TLS_1_2).build().expect("a client");
    assert_eq!(old.get(app.callback_url("purchase")).send().await.expect("TLS 1.2").status(), 405);
    let h2 = client().http2_prior_knowledge().build().expect("a client");
    assert!(h2.get(app.callback_url("purchase")).send().await.is_err());
    let figures = oracle.account(&app, &worker).await.check("plain words on the TLS port");
    assert_eq!(figures.unknown, 0);

    let plain = App::start(&vhost).await;
    let url = plain.callback_url("purchase").replace("http:", "https:");
    assert!(app.client().get(url).timeout(Duration::from_secs(20)).send().await.is_err());
}
