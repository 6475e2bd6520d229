//! What a session that could not be opened, or was given up, leaves behind: nothing. A broker may be away for days, and
//! is asked for twice a minute all that time.

use std::time::Duration;

use countersign::{
    amqp,
    relay::{Publisher as _, Session as _},
    secret::Secret,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Handle,
};

use crate::support::{Vhost, eventually};

fn publisher(url: String) -> amqp::Publisher {
    let limit = Duration::from_millis(100);
    let urls = vec![Secret::new(url)];
    amqp::Publisher::new(amqp::Settings { urls, connect_timeout: limit, ..amqp::Settings::default() })
        .expect("an URL of ours")
}

/// Tasks of this test's runtime, and threads of lapin's in this process.
fn held() -> (usize, usize) {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread may end between the listing and the look.
        task.ok().and_then(|task| std::fs::read_to_string(task.path().join("comm")).ok()).unwrap_or_default()
    };
    let threads = tasks.map(name).filter(|name| name.starts_with("lapin")).count();
    (Handle::current().metrics().num_alive_tasks(), threads)
}

/// Waits until this runtime has no more tasks than `before`. Threads belong to all tests of this process, so only
/// those of a test that runs alone could be counted; a thread that stays keeps its task.
async fn nothing_is_left(before: usize) {
    eventually(&format!("no more than {before} tasks"), async || {
        let (tasks, threads) = held();
        if tasks <= before { Ok(()) } else { Err(format!("{tasks} tasks, {threads} threads of lapin's")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_connections_leaves_nothing_behind_however_often_it_is_asked() {
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut publisher = publisher(format!("amqp://fake-user:fake-password@{away}/%2f"));
    let (before, _) = held();
    for _ in 0..20 {
        let error = publisher.connect().await.expect_err("nobody listens");
        assert!(matches!(error, amqp::Error::Connect { .. }), "{error:?}");
    }
    nothing_is_left(before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_silent_closes_or_talks_nonsense_leaves_nothing_behind() {
    for answer in
        [None, Some(&b""[..]), Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Some(b"AMQP\x00\x01\x00\x00")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqp://fake-user:fake-password@{}/%2f", listener.local_addr().unwrap());
        let peer = tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(answer) = answer else {
                    silent.push(stream);
                    continue;
                };
                let mut header = [0; 8];
                // The client may be gone by then; that is no concern of the peer's.
                drop(stream.read_exact(&mut header).await);
                drop(stream.write_all(answer).await);
            }
        });
        let mut publisher = publisher(url);
        let (before, _) = held();
        for _ in 0..10 {
            publisher.connect().await.expect_err("this is no broker");
        }
        nothing_is_left(before).await;
        peer.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_closed_or_dropped_leaves_nothing_behind() {
    let vhost = Vhost::new().await;
    let settings = amqp::Settings { urls: vec![Secret::new(vhost.url())], ..amqp::Settings::default() };
    let mut publisher = amqp::Publisher::new(settings).unwrap();
    let (before, _) = held();
    for number in 0..10 {
        let session = publisher.connect().await.expect("a broker");
        if number % 2 == 0 {
            session.close().await;
        } else {
            drop(session);
        }
    }
    nothing_is_left(before).await;
}
