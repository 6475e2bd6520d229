//! TLS to the broker, with certificates on both sides: each way in which it fails is told, and none loses a decision.

use crate::oracle::Oracle;
use crate::support::{App, Authority, Broker, Config, Encrypted, Pair, Vhost, Worker, eventually, quoted};

/// The program's files: an authority to believe and a certificate to show, which a test may exchange.
struct Files<'a> {
    config: &'a Config,
}

impl Files<'_> {
    fn believe(&self, authority: &Authority) {
        std::fs::write(self.config.dir().join("ca.pem"), authority.pem()).expect("the directory is ours");
    }

    fn show(&self, pair: &Pair) {
        pair.write(self.config.dir(), "client");
    }
}

/// The file that a key of `[amqp.tls]` names, as a TOML value.
fn file_of(config: &Config, key: &str) -> String {
    let name = match key {
        "ca_file" => "ca.pem",
        "cert_file" => "client.pem",
        _ => "client.key",
    };
    quoted(&config.dir().join(name).display().to_string())
}

fn config(broker: &Encrypted, vhost: &Vhost, host: &str) -> Config {
    let mut config = Config::with_url(&broker.tls_url(vhost, host));
    for key in ["ca_file", "cert_file", "key_file"] {
        let file = file_of(&config, key);
        config = config.set("amqp.tls", key, &file);
    }
    config
}

async fn until_told(app: &App, words: &str) {
    eventually(&format!("{words:?} in the log"), async || {
        let log = app.stderr();
        let last = log.lines().rfind(|line| line.contains("no TLS with")).unwrap_or_default();
        if last.contains(words) { Ok(()) } else { Err(last.to_owned()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_certificates_on_both_sides_all_arrives_and_each_wrong_one_is_told_and_loses_nothing() {
    let broker = Broker::encrypted(Authority::new()).await;
    let stranger = Authority::new();
    let (ours, theirs) = (broker.authority.issue(&["countersign"]), stranger.issue(&["countersign"]));
    let expired = broker.authority.issue_until(&["countersign"], 2001);

    // What is wrong, how it comes about, and what the operator reads.
    let cases: [(&str, &Authority, &Pair, &str); 4] = [
        ("nothing", &broker.authority, &ours, ""),
        ("an authority that is not the broker's", &stranger, &ours, "is not signed by a trusted authority"),
        ("a certificate of a stranger", &broker.authority, &theirs, "certificate (amqp.tls.cert_file)"),
        (
            "a certificate that has expired",
            &broker.authority,
            &expired,
            "our certificate (amqp.tls.cert_file)",
        ),
    ];
    for (fault, believed, shown, told) in cases {
        let vhost = broker.vhost();
        let config = config(&broker, &vhost, "localhost");
        let files = Files { config: &config };
        files.believe(believed);
        files.show(shown);
        let app = App::with(config.clone()).await;
        let worker = Worker::on(&vhost);
        let oracle = Oracle::new();
        oracle.keep(&app, 20).await;
        if !told.is_empty() {
            until_told(&app, told).await;
            assert_eq!(app.metric("countersign_amqp_connected").await, Some(0.0), "{fault}");
            oracle.keep(&app, 20).await;
            // Files are read again at each attempt.
            files.believe(&broker.authority);
            files.show(&ours);
        }
        let figures = oracle.account(&app, &worker).await.check(fault);
        assert_eq!((figures.unknown, figures.parked), (0, 0), "{fault}");
        assert_eq!(app.metric("countersign_amqp_connected").await, Some(1.0), "{fault}");
    }

    for (fault, host, with_identity, told) in [
        (
            "another name than the certificate's",
            "127.0.0.1",
            true,
            "is for another name than the host in amqp.url",
        ),
        ("no client certificate", "localhost", false, "set amqp.tls.cert_file and amqp.tls.key_file"),
    ] {
        let vhost = broker.vhost();
        let whole = config(&broker, &vhost, "localhost");
        let files = Files { config: &whole };
        files.believe(&broker.authority);
        files.show(&ours);
        let mut faulty = Config::with_url(&broker.tls_url(&vhost, host));
        for key in ["ca_file", "cert_file", "key_file"].into_iter().take(if with_identity { 3 } else { 1 }) {
            faulty = faulty.set("amqp.tls", key, &file_of(&whole, key));
        }
        let mut app = App::with(faulty).await;
        let worker = Worker::on(&vhost);
        let oracle = Oracle::new();
        oracle.keep(&app, 20).await;
        until_told(&app, told).await;
        app.terminate();
        assert!(app.ended().await.success());
        app.reconfigure(|mut config| {
            for key in ["ca_file", "cert_file", "key_file"] {
                config = config.set("amqp.tls", key, &file_of(&whole, key));
            }
            config.set("amqp", "url", &quoted(&broker.tls_url(&vhost, "localhost")))
        });
        app.restart().await;
        let figures = oracle.account(&app, &worker).await.check(fault);
        assert_eq!((figures.unknown, figures.parked), (0, 0), "{fault}");
    }
}
