//! SIGTERM and SIGINT under load, with the broker there, away, or silent.

use super::signal;
use crate::oracle::{Decision, Oracle};
use crate::support::{App, Config, KEY, Line, NOWHERE, Vhost, Worker, eventually, quoted};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Keeps senders going, has `stop` end the program, and asks for what was answered after the next start.
async fn stopped_under_load(name: &str, app: &mut App, worker: &Worker, stop: impl AsyncFnOnce(&App)) {
    let oracle = Oracle::new();
    let load = oracle.load(app, 8);
    load.until_answered(100).await;
    stop(app).await;
    let status = app.ended().await;
    load.stop().await;
    assert_eq!(status.code(), Some(0), "{}", app.stderr());
    app.restart().await;
    let figures = oracle.account(app, worker).await.check(name);
    assert!(figures.refused.keys().all(|reason| reason == "shutting_down"), "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_keeps_all_that_was_answered_and_exits_0() {
    let vhost = Vhost::new().await;
    let mut app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    stopped_under_load("SIGTERM under load", &mut app, &worker, async |app: &App| app.terminate()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_is_the_same_stop() {
    let vhost = Vhost::new().await;
    let mut app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    stopped_under_load("SIGINT under load", &mut app, &worker, async |app: &App| signal(app.pid(), "INT"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_to_stop_twice_stops_in_order_all_the_same() {
    let vhost = Vhost::new().await;
    let mut app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    stopped_under_load(
        "SIGTERM twice, SIGINT and SIGHUP under load",
        &mut app,
        &worker,
        async |app: &App| {
            // The last may find it gone.
            app.terminate();
            let pid = app.pid().to_string();
            for name in ["-TERM", "-HUP", "-INT"] {
                drop(std::process::Command::new("kill").args([name, &pid]).output());
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_with_the_broker_away_ends_long_before_the_grace() {
    let vhost = Vhost::new().await;
    let config = Config::with_url(NOWHERE).set("", "shutdown_grace_ms", "60000");
    let mut app = App::with(config).await;
    let worker = Worker::on(&vhost);
    let began = Instant::now();
    stopped_under_load("SIGTERM under load, broker away", &mut app, &worker, async |app: &App| {
        // What is pending stays, and the next start finds another broker.
        let text = std::fs::read_to_string(app.file()).expect("our own file");
        std::fs::write(app.file(), text.replace(NOWHERE, vhost.url())).expect("our own file");
        app.terminate();
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(60), "nobody waits for a broker that is not there");
}

/// Forwards to the broker until it is told to swallow everything, without a word.
async fn black_hole(broker: SocketAddr) -> (u16, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (swallow, swallowing) = watch::channel(false);
    tokio::spawn(async move {
        let mut pairs = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let mut swallowing = swallowing.clone();
            pairs.spawn(async move {
                let Ok(server) = TcpStream::connect(broker).await else { return };
                let ((mut from, mut to), (mut back, mut answers)) =
                    (client.into_split(), server.into_split());
                tokio::select! {
                    _ = tokio::io::copy(&mut from, &mut answers) => return,
                    _ = tokio::io::copy(&mut back, &mut to) => return,
                    _ = swallowing.wait_for(|swallow| *swallow) => {}
                }
                // Both sockets stay open.
                drop(tokio::io::copy(&mut from, &mut tokio::io::sink()).await);
                std::future::pending::<()>().await;
            });
        }
    });
    (port, swallow)
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_with_a_silent_broker_ends_when_the_grace_has_run_out() {
    let vhost = Vhost::new().await;
    let (port, swallow) = black_hole(vhost.address()).await;
    let through = vhost.url_through(port);
    let config = Config::with_url(&through).set("", "shutdown_grace_ms", "1500");
    let mut app = App::with(config).await;
    let worker = Worker::on(&vhost);
    app.until_metric("countersign_amqp_connected", 1.0).await;
    let mut took = Duration::ZERO;
    stopped_under_load("SIGTERM under load, broker silent", &mut app, &worker, async |app: &App| {
        swallow.send_replace(true);
        eventually("commands to wait for confirms", async || {
            match app.metric(r#"countersign_ledger_rows{state="pending"}"#).await {
                Some(pending) if pending > 50.0 => Ok(()),
                other => Err(other),
            }
        })
        .await;
        let text = std::fs::read_to_string(app.file()).expect("our own file");
        let direct = vhost.url_through(vhost.address().port());
        std::fs::write(app.file(), text.replace(&quoted(&through), &quoted(&direct))).expect("our own file");
        app.terminate();
        let began = Instant::now();
        until_gone(app.pid()).await;
        took = began.elapsed();
    })
    .await;
    // The grace, the writer's second, and a busy machine.
    assert!(took > Duration::from_millis(1400) && took < Duration::from_secs(10), "it took {took:?}");
}

async fn until_gone(pid: u32) {
    let status = format!("/proc/{pid}/status");
    eventually("the process to be gone", async || match std::fs::read_to_string(&status) {
        // Dead, and not yet asked about.
        Ok(text) if text.contains("State:\tZ") => Ok(()),
        Ok(_) => Err("it is there"),
        Err(_) => Ok(()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_while_it_drains_changes_nothing_and_ends_nothing() {
    let vhost = Vhost::new().await;
    let config = Config::new(&vhost).set("http", "body_read_timeout_ms", "30000").set(
        "",
        "shutdown_grace_ms",
        "30000",
    );
    let mut app = App::with(config).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let decision = Decision::new("under way", 0);
    let body = decision.callback().encrypted(KEY);
    let head =
        format!("POST /callbacks/purchase HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    let (start, rest) = body.split_at(40);
    let mut line = Line::to(app.public()).await;
    line.write(&[head.as_bytes(), start].concat()).await.unwrap();
    oracle.keep(&app, 1).await;
    app.terminate();
    eventually("/readyz to say 503", async || match app.try_admin("/readyz").await {
        Ok(answer) if answer.status == 503 => Ok(()),
        other => Err(other),
    })
    .await;
    let good = std::fs::read_to_string(app.file()).unwrap();
    std::fs::write(app.file(), "[http\n").unwrap();
    for _ in 0..3 {
        signal(app.pid(), "HUP");
    }
    eventually("it to say that it does not", async || {
        if app.stderr().contains("reload ignored") { Ok(()) } else { Err(()) }
    })
    .await;
    assert!(app.runs(), "a request is under way");
    line.write(rest).await.unwrap();
    oracle.note(decision, line.answer().await.as_ref(), true);
    assert_eq!(app.ended().await.code(), Some(0), "{}", app.stderr());
    std::fs::write(app.file(), good).unwrap();
    app.restart().await;
    let figures = oracle.account(&app, &worker).await.check("SIGHUP while draining");
    assert_eq!((figures.answered, figures.unknown), (2, 0));
}
