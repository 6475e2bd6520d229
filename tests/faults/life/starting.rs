//! Starts that must not succeed, and signals that come before one has.

use super::{configuration, reloads, signal};
use crate::oracle::Oracle;
use crate::support::{App, Config, NOWHERE, Program, Vhost, Worker, eventually, free_port, quoted};
use std::process::{Child, Command, Stdio};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_ledgers_directory_it_does_not_start_and_makes_none() {
    let config = Config::with_url(NOWHERE);
    let missing = config.dir().join("not-mounted");
    let ledger = missing.join("ledger.db");
    let config = config
        .set("ledger", "url", &quoted(&format!("sqlite:{}", ledger.display())))
        .set("http", "listen", "\"127.0.0.1:0\"")
        .set("admin", "listen", "\"127.0.0.1:0\"");
    let ran = Program::new(["serve"]).config(&config.write()).run().await.ended_with(1);
    assert!(ran.stderr.contains(&missing.display().to_string()), "it says which: {}", ran.stderr);
    assert!(!missing.exists(), "a disk that is not mounted is not to be made up for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_serve_on_one_ledger_does_not_start_and_the_first_goes_on() {
    let vhost = Vhost::new().await;
    let config = Config::new(&vhost);
    let app = App::with(config.clone()).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let load = oracle.load(&app, 4);
    load.until_answered(50).await;
    let second = config.set("http", "listen", "\"127.0.0.1:0\"").set("admin", "listen", "\"127.0.0.1:0\"");
    let file = second.dir().join("second.toml");
    std::fs::write(&file, second.toml()).unwrap();
    let ran = Program::new(["serve"]).config(&file).run().await.ended_with(1);
    assert!(ran.stderr.contains("ledger.db"), "it says which: {}", ran.stderr);
    load.until_answered(50).await;
    load.stop().await;
    let figures = oracle.account(&app, &worker).await.check("a second serve on one ledger");
    assert_eq!((figures.unknown, figures.published_again), (0, 0));
}

/// A program of which nobody waits until it is ready.
struct Starting(Child);

impl Drop for Starting {
    fn drop(&mut self) {
        // It may have ended by itself; then both only say so.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_during_the_start_is_obeyed_when_it_has_started() {
    let admin = free_port();
    let config = Config::with_url(NOWHERE).set("http", "listen", "\"127.0.0.1:0\"").set(
        "admin",
        "listen",
        &quoted(&format!("127.0.0.1:{admin}")),
    );
    let child = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .arg("serve")
        .env("COUNTERSIGN_CONFIG", config.write())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program was built with these tests");
    let child = Starting(child);
    let pid = child.0.id();
    // The system's own default for SIGHUP is death; until the program says otherwise nobody can send it one.
    eventually("the program to catch SIGHUP", async || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        match caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) {
            Some(mask) if mask & 1 != 0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    signal(pid, "HUP");
    let client = crate::support::client();
    eventually("the reload to be counted", async || {
        let asked = client.get(format!("http://127.0.0.1:{admin}/metrics")).send().await;
        let text = match asked {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(error) => return Err(error.to_string()),
        };
        if text.contains("countersign_config_reloads_total{result=\"applied\"} 1") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_start_has_read_its_configuration_once() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    assert_eq!((reloads(&app, "applied").await, reloads(&app, "rejected").await), (0.0, 0.0));
    assert_eq!(configuration(&app).await["last_reload"], serde_json::Value::Null);
}
