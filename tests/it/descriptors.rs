//! Open files: how many the process uses, and who gets the last ones.

use crate::support::{App, Callback, Config, NOWHERE, PATIENCE, eventually};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use tokio::time::timeout;

/// The soft and the hard limit of a process, from the kernel.
fn limits(pid: u32) -> (u64, u64) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("Linux tells");
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(u64::MAX));
    (numbers.next().expect("the soft one"), numbers.next().expect("the hard one"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_soft_limit_is_raised_as_far_as_it_is_of_use() {
    for (soft, hard, raised) in [(256, 4096, 4096), (700, 700, 700), (256, 100_000, 16_384 + 512)] {
        // Only root may raise a hard limit; if this one is lower, less can be observed.
        if u64::from(hard) > limits(std::process::id()).1 {
            continue;
        }
        let app = App::with(Config::with_url(NOWHERE).descriptors(soft, hard)).await;
        assert_eq!(limits(app.pid()).0, raised, "{soft} of {hard}");
        let warned =
            app.log_lines().iter().any(|line| line["message"].to_string().contains("may open few files"));
        assert_eq!(warned, raised < 16_384 + 512, "{soft} of {hard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_it_does_not_start_and_says_how_many_it_needs() {
    let config = Config::with_url(NOWHERE).set("http", "listen", "'127.0.0.1:0'").set(
        "admin",
        "listen",
        "'127.0.0.1:0'",
    );
    let script = format!("ulimit -n 300; exec {} serve", env!("CARGO_BIN_EXE_countersign"));
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("COUNTERSIGN_CONFIG", config.write()).stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || command.output().expect("there is a shell"));
    let ran = timeout(PATIENCE, ran).await.expect("it ends by itself").expect("no panic");
    assert_eq!(ran.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ran.stderr);
    for words in ["may have 300 files open, and needs 576 at the least", "LimitNOFILE=65536", "ulimit -n"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    assert!(!config.dir().join("ledger.db").exists(), "the ledger is not touched");
}

/// 700 descriptors allow 188 connections of the public listener. More have to wait, and the internal listener still
/// answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_the_public_listener_leaves_descriptors_to_the_internal_one() {
    let app = App::with(Config::with_url(NOWHERE).descriptors(700, 700)).await;
    let connect = |_| TcpStream::connect(app.public()).expect("the accept queue has room");
    let crowd: Vec<TcpStream> = (0..600).map(connect).collect();
    eventually("the listener to be full", async || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", app.pid())).expect("it runs").count();
        if open >= 180 { Ok(()) } else { Err(open) }
    })
    .await;
    // One connection each, all open at the same time.
    let asked = (0..100).map(|_| async {
        let client = crate::support::client();
        client
            .get(format!("http://{}/readyz", app.admin()))
            .send()
            .await
            .map(|answer| answer.status().as_u16())
    });
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.expect("the internal listener answers"), 200);
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", app.pid())).expect("it runs").count();
    assert!(open < 700 - 200, "{open} of 700");
    drop(crowd);
    let answer = app.post("leave", Callback::list("i", "t").plain()).await;
    assert_eq!(answer.status, 200);
}
