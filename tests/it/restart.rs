//! Recovery after a crash.

use crate::support::{App, Callback, Config, Proxy, Vhost, Worker};
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pending_when_the_program_was_killed_is_published_under_the_same_id() {
    let vhost = Vhost::new().await;
    let mut proxy = Proxy::shut_before(vhost.address());
    let mut app = App::with(Config::with_url(&vhost.url_through(proxy.port()))).await;
    let mut accepted = BTreeSet::new();
    for number in 0..20 {
        accepted.insert(app.accept(&Callback::list("i", &format!("t{number}"))).await);
    }
    app.kill();
    app.restart().await;
    for number in 20..25 {
        accepted.insert(app.accept(&Callback::list("i", &format!("t{number}"))).await);
    }
    proxy.open().await;
    let worker = Worker::on(&vhost);
    let came = worker.commands(&accepted).await;
    assert_eq!(came.keys().collect::<BTreeSet<_>>(), accepted.iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_is_not_published_again_after_an_orderly_stop() {
    let vhost = Vhost::new().await;
    let mut app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    for number in 0..10 {
        app.accept(&Callback::list("i", &format!("t{number}"))).await;
    }
    worker.messages(10).await;
    app.terminate();
    assert_eq!(app.ended().await.code(), Some(0));
    app.restart().await;
    let last = app.accept(&Callback::list("i", "last")).await;
    worker.command(&last).await;
    assert_eq!(worker.seen().len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_program_on_the_same_ledger_does_not_start() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let second = crate::support::Program::new(["serve", "--set", "http.listen=127.0.0.1:0"])
        .config(app.file())
        .env("COUNTERSIGN__ADMIN__LISTEN", "127.0.0.1:0")
        .dir(app.dir())
        .run()
        .await;
    assert!(second.code.is_some_and(|code| code != 0), "{second:?}");
    assert!(second.stderr.contains("ledger.db"), "it says which ledger: {}", second.stderr);
    assert_eq!(app.post("leave", Callback::list("i", "t").plain()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_ledger_is_refused_and_left_as_it_is() {
    let vhost = Vhost::new().await;
    let mut app = App::start(&vhost).await;
    app.kill();
    let ledger = app.dir().join("foreign.db");
    std::fs::write(&ledger, b"these are somebody's notes, not a database\n".repeat(100)).unwrap();
    let before = std::fs::read(&ledger).unwrap();
    let ran = crate::support::Program::new(["serve"])
        .config(app.file())
        .env("COUNTERSIGN__LEDGER__URL", format!("sqlite:{}", ledger.display()))
        .run()
        .await;
    assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
    assert!(ran.stderr.contains("foreign.db"), "{}", ran.stderr);
    assert_eq!(std::fs::read(&ledger).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_program_is_refused() {
    let vhost = Vhost::new().await;
    let mut app = App::start(&vhost).await;
    app.kill();
    let ledger = app.dir().join("foreign.db");
    let other = rusqlite::Connection::open(&ledger).unwrap();
    other.execute_batch("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1);").unwrap();
    drop(other);
    let ran = crate::support::Program::new(["serve"])
        .config(app.file())
        .env("COUNTERSIGN__LEDGER__URL", format!("sqlite:{}", ledger.display()))
        .run()
        .await;
    assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
    assert!(ran.stderr.contains("foreign.db"), "{}", ran.stderr);
}
