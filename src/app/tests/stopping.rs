//! Starting, stopping, and the effect of the relay's end on the rest.

use std::sync::atomic::AtomicUsize;

use futures_util::future::pending;

use super::*;

#[tokio::test]
async fn a_request_in_progress_is_finished_before_the_relay_stops_and_the_writer_is_flushed() {
    let relay: Start = Arc::new(|mut resources: Resources| {
        async move {
            resources.stop.wait_for(Option::is_some).await.unwrap();
            resources.outbox.settle(crate::ledger::Settlement::default()).await.unwrap();
        }
        .boxed()
    });
    let service = Service::with(settings(), relay);
    let (callbacks, internal, ledger) = (service.callbacks, service.internal, service.ledger.clone());

    let body = callback("t1");
    let request = post("plain", &body);
    let (early, late) = request.split_at(request.len() - 10);
    let mut connection = Connection::open(callbacks).await;
    connection.send(early).await;
    // Only the server knows that it is waiting for the rest. This request went to the same worker later, and the
    // worker could answer it only once it was waiting.
    assert_eq!(service.post("nowhere", "").await.status, 403);

    let stopping = tokio::spawn(service.stop());
    eventually("unready while it stops", async || {
        let mut probe = Connection::open(internal).await;
        probe.send("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        probe.answer().await.status == 503
    })
    .await;
    eventually("no longer listening", async || TcpStream::connect(callbacks).await.is_err()).await;
    assert!(!ledger.story.lock().unwrap().contains(&"settle"), "the relay is wanted until requests are done");

    connection.send(late).await;
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    stopping.await.unwrap();
    assert_eq!(*ledger.story.lock().unwrap(), ["accept", "settle", "flush"]);
    assert!(TcpStream::connect(internal).await.is_err(), "the internal listener has stopped too");
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_stopping() {
    let mut settings = settings();
    // A stop that waited for it would not finish in time.
    settings.shutdown_grace = 2 * PATIENCE;
    let service = Service::with(settings, idle_relay());
    let mut connection = Connection::open(service.callbacks).await;
    connection.send(&post("plain", &callback("t1"))).await;
    assert_eq!(connection.answer().await.status, 200);
    service.stop().await;
    connection.closed().await;
}

#[tokio::test]
async fn a_relay_that_does_not_end_is_left_behind_when_the_grace_runs_out() {
    let mut settings = settings();
    settings.shutdown_grace = Duration::from_millis(100);
    let service = Service::with(settings, Arc::new(|_| pending().boxed()));
    assert_eq!(service.post("plain", &callback("t1")).await.status, 200);
    let ledger = service.ledger.clone();
    service.stop().await;
    assert_eq!(*ledger.story.lock().unwrap(), ["accept", "flush"], "the writer is flushed all the same");
}

#[tokio::test]
async fn a_relay_that_panics_is_started_again_and_callbacks_are_kept_meanwhile() {
    let starts = Arc::new(AtomicUsize::new(0));
    let relay: Start = {
        let starts = starts.clone();
        Arc::new(move |mut resources: Resources| {
            let start = starts.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(start > 0, "the first relay panics, as it was asked to by a test");
                resources.stop.wait_for(Option::is_some).await.unwrap();
            }
            .boxed()
        })
    };
    let service = Service::with(settings(), relay);
    assert_eq!(service.post("plain", &callback("t1")).await.status, 200);
    eventually("started again", async || starts.load(Ordering::Relaxed) == 2).await;
    assert_eq!(service.post("plain", &callback("t2")).await.status, 200);
    service.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_before_the_ledger_is_opened() {
    let taken = std::net::TcpListener::bind(loopback()).unwrap();
    for key in ["http.listen", "admin.listen"] {
        let mut settings = settings();
        match key {
            "http.listen" => settings.http.listen = taken.local_addr().unwrap(),
            _ => settings.console.listen = taken.local_addr().unwrap(),
        }
        let built = App::build(&settings, async { panic!("the ledger is not to be touched") }, idle_relay());
        let error = built.await.err().unwrap().to_string();
        assert!(error.contains(key) && error.contains(&taken.local_addr().unwrap().to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_ledger_that_cannot_be_opened_is_the_error_of_build() {
    let failing = async { anyhow::bail!("a newer program wrote it") };
    let built = App::build(&settings(), failing, idle_relay()).await;
    assert_eq!(built.err().unwrap().to_string(), "a newer program wrote it");
}

#[tokio::test]
async fn an_app_that_is_dropped_while_it_serves_takes_the_relay_with_it() {
    let (ending, ended) = oneshot::channel::<()>();
    let ending = Arc::new(std::sync::Mutex::new(Some(ending)));
    let relay: Start = Arc::new(move |mut resources: Resources| {
        let ending = ending.lock().unwrap().take();
        async move {
            resources.stop.wait_for(Option::is_some).await.unwrap();
            drop(ending);
        }
        .boxed()
    });
    let service = Service::with(settings(), relay);
    assert_eq!(service.post("plain", &callback("t1")).await.status, 200);
    service.running.abort();
    assert!(tokio::time::timeout(PATIENCE, ended).await.is_ok());
}
