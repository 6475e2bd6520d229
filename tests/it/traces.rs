//! The trace of a request goes with its command, and spans go to a collector that the test plays.

use crate::support::{
    App, Callback, Collector, Config, NOWHERE, Vhost, Worker, eventually, free_port, postgres::Postgres,
    quoted,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const CALLBACK: &str = "POST /callbacks/{endpoint}";
const PUBLISH: &str = "publish countersign.commands";

fn traceparent() -> String {
    format!("00-{TRACE}-{SPAN}-01")
}

/// Sends a callback with these headers, which must be accepted; returns the command.
async fn accepted(app: &App, task: &str, traceparents: &[&str]) -> String {
    let mut request = app.client().post(app.callback_url("leave")).header("content-type", "application/json");
    for value in traceparents {
        request = request.header("traceparent", *value);
    }
    let answer = request.body(Callback::list("i", task).plain()).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let answer: serde_json::Value = answer.json().await.expect("JSON");
    answer["data"]["command_id"].as_str().expect("a command").to_owned()
}

/// The trace that starts at a command, and the span of its callback.
fn own(command_id: &str) -> (String, String) {
    let trace = command_id.replace('-', "");
    let span = trace[16..].to_owned();
    (trace, span)
}

fn traced(config: Config, collector: &Collector) -> Config {
    config.set("traces", "endpoint", &quoted(&collector.url))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_request_goes_with_its_command_and_a_broken_one_is_none() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let good = traceparent();
    let message = worker.command(&accepted(&app, "good", &[&good]).await).await;
    assert_eq!(
        (message.header("traceparent"), message.json()["traceparent"].as_str()),
        (good.clone(), Some(&*good))
    );
    let broken = good.replace("-01", "-0g");
    for (number, sent) in
        [&[][..], &[&*broken], &[&*good, &*good], &["00-forged-event"]].into_iter().enumerate()
    {
        let id = accepted(&app, &format!("t{number}"), sent).await;
        let message = worker.command(&id).await;
        let (trace, span) = own(&id);
        assert_eq!(message.header("traceparent"), format!("00-{trace}-{span}-00"), "{sent:?}");
        assert_eq!(message.json().get("traceparent"), None, "{sent:?}");
    }
    assert_eq!(app.metric("countersign_spans_total{result=\"sent\"}").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_after_a_crash_whatever_the_ledger() {
    let vhost = Vhost::new().await;
    let collector = Collector::start().await;
    let server = tokio::task::block_in_place(Postgres::shared).database().await;
    let worker = Worker::on(&vhost);
    for ledger in [None, Some(server)] {
        let config = traced(Config::with_url(NOWHERE), &collector);
        let mut app = App::with(match &ledger {
            Some(url) => config.set("ledger", "url", &quoted(url)),
            None => config,
        })
        .await;
        let continued = accepted(&app, "continued", &[&traceparent()]).await;
        let begun = accepted(&app, "begun", &[]).await;
        let unwanted = accepted(&app, "unwanted", &[&traceparent().replace("-01", "-00")]).await;
        let of = |id: &str| ("countersign.command_id", id.to_owned());
        let (key, id) = of(&continued);
        let callback = collector.one(CALLBACK, (key, &id)).await;
        assert_eq!((&*callback.trace, &*callback.parent), (TRACE, SPAN));
        let (key, id) = of(&begun);
        let root = collector.one(CALLBACK, (key, &id)).await;
        assert_eq!((root.trace, root.id.clone()), own(&begun));
        assert_eq!(root.parent, "");
        app.kill();
        app.reconfigure(|config| config.set("amqp", "url", &quoted(vhost.url())));
        app.restart().await;
        for (id, trace, parent) in [(&continued, TRACE, &callback.id), (&begun, &*own(&begun).0, &root.id)] {
            let message = worker.command(id).await;
            let publish = collector.one(PUBLISH, ("messaging.message.id", id)).await;
            assert_eq!((&*publish.trace, &publish.parent), (trace, parent), "{ledger:?}");
            assert_eq!(message.header("traceparent"), format!("00-{trace}-{}-01", publish.id));
        }
        // The sender does not want it recorded.
        let message = worker.command(&unwanted).await;
        assert_eq!(message.header("traceparent"), traceparent().replace("-01", "-00"));
        let about = |id: &String| {
            collector.spans().iter().any(|span| span.attributes.values().any(|value| value == id))
        };
        assert!(about(&begun) && !about(&unwanted));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_repeated_and_unpublished_callbacks_have_spans_that_say_so() {
    let collector = Collector::start().await;
    let config = traced(Config::with_url(NOWHERE), &collector).set(
        "traces",
        "headers",
        &quoted("authorization=Bearer%20fake-hush,x-tenant=blue"),
    );
    let mut app = App::with(config).await;
    let callback = Callback::list("i", "t");
    let id = app.post("leave", callback.plain()).await.command_id();
    assert_eq!(app.post("leave", callback.plain()).await.command_id(), id);
    let refused = app.post("leave", callback.clone().action("HOLD").plain()).await;
    assert_eq!(refused.reason(), "action_not_allowed");
    // A stranger does not choose the trace, nor whether it is recorded.
    let stranger = app.client().post(app.callback_url("hush-elsewhere")).header("traceparent", traceparent());
    stranger.body(callback.plain()).send().await.expect("an answer");
    let by_outcome = async |word| collector.one(CALLBACK, ("countersign.outcome", word)).await;
    let first = by_outcome("accepted").await;
    let repeat = by_outcome("duplicate").await;
    assert_eq!((&first.trace, &first.id), (&own(&id).0, &own(&id).1));
    assert_ne!(first.trace, repeat.trace);
    assert_eq!(first.attributes["countersign.command_id"], repeat.attributes["countersign.command_id"]);
    let refused = by_outcome("action_not_allowed").await;
    assert_eq!((&*refused.attributes["http.response.status_code"], refused.failed), ("422", false));
    let stranger = by_outcome("unauthenticated").await;
    assert_eq!(stranger.attributes["countersign.endpoint"], "-");
    assert_ne!(stranger.trace, TRACE);
    assert_eq!(collector.resource()["service.name"], "countersign");
    for head in collector.heads() {
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        assert!(
            head.contains("authorization: bearer fake-hush") && head.contains("x-tenant: blue"),
            "{head}"
        );
    }
    // The last ones are sent as it stops.
    let last = accepted(&app, "last", &[]).await;
    app.terminate();
    assert_eq!(app.ended().await.code(), Some(0));
    collector.one(CALLBACK, ("countersign.command_id", &last)).await;
    let log = app.stderr();
    assert!(!log.contains("fake-hush") && !collector.everything().contains("hush-elsewhere"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_a_line_of_the_log() {
    let endpoint = quoted(&format!("http://127.0.0.1:{}", free_port()));
    let mut app = App::with(Config::with_url(NOWHERE).set("traces", "endpoint", &endpoint)).await;
    let failed = "countersign_spans_total{result=\"failed\"}";
    for round in 1..=2 {
        accepted(&app, &format!("t{round}"), &[]).await;
        app.until_metric(failed, 2.0 * f64::from(round)).await;
    }
    app.terminate();
    assert_eq!(app.ended().await.code(), Some(0));
    let told = app.stderr().matches("cannot send spans to the collector; they are dropped").count();
    assert_eq!(told, 1, "{}", app.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_holds_up_neither_callbacks_nor_the_stop() {
    let collector = Collector::silent().await;
    let config = traced(Config::with_url(NOWHERE), &collector).set("traces", "timeout_ms", "600000");
    let mut app = App::with(config).await;
    let dropped = "countersign_spans_total{result=\"dropped\"}";
    // More than the queue has room for.
    for task in 0..1500 {
        accepted(&app, &format!("t{task}"), &[]).await;
    }
    eventually("dropped spans", async || match app.metric(dropped).await {
        Some(dropped) if dropped > 0.0 => Ok(()),
        other => Err(other),
    })
    .await;
    app.terminate();
    assert_eq!(app.ended().await.code(), Some(0));
    let log = app.stderr();
    assert!(log.contains("the collector does not answer; the last spans are lost"), "{log}");
    assert!(log.contains("\"stopped\"") || log.contains(" stopped"), "{log}");
}
