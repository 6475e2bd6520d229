//! A decision from its callback to the card is one trace.

use super::*;
use crate::support::Collector;
use lapin::types::{AMQPValue, FieldTable};

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_one_trace_from_the_callback_to_the_card_without_anything_that_was_said() {
    let collector = Collector::start().await;
    let endpoint = quoted(&collector.url);
    let all = Loop::with(|config| config.set("traces", "endpoint", &endpoint)).await;
    let card = all.card().await;
    let command = all.pressed(&["--message", &card, "--action", "REJECT", "--reason", "zu teuer"]).await;
    all.report(&with(outcome(&command, "applied"), "message", json!("ERP 已完成"))).await;
    all.until_cards_show(&["REJECTED"]).await;
    let of = ("countersign.command_id", &*command);
    let callback = collector.one("POST /callbacks/{endpoint}", of).await;
    let commit = collector.one("commit", of).await;
    let publish = collector.one("publish countersign.commands", of).await;
    let process = collector.one("process countersign.outcomes", of).await;
    let show = collector.one("show card", of).await;
    assert_eq!(callback.trace, command.replace('-', ""));
    assert_eq!(callback.parent, "");
    for (span, kind) in [(&callback, 2), (&commit, 1), (&publish, 4), (&process, 5), (&show, 3)] {
        assert_eq!((span.kind, &span.trace, span.failed), (kind, &callback.trace, false), "{span:?}");
    }
    for span in [&commit, &publish, &process, &show] {
        assert_eq!(span.parent, callback.id, "{span:?}");
    }
    for (span, key, value) in [
        (&callback, "http.request.method", "POST"),
        (&callback, "http.route", "/callbacks/{endpoint}"),
        (&callback, "url.path", "/callbacks/purchase"),
        (&callback, "url.scheme", "http"),
        (&callback, "http.response.status_code", "200"),
        (&callback, "countersign.outcome", "accepted"),
        (&publish, "messaging.system", "rabbitmq"),
        (&publish, "messaging.operation.type", "send"),
        (&publish, "messaging.destination.name", "countersign.commands"),
        (&publish, "messaging.rabbitmq.destination.routing_key", "approval.purchase.-.reject"),
        (&publish, "messaging.message.id", &command),
        (&process, "messaging.operation.type", "process"),
        (&process, "messaging.destination.name", QUEUE),
        (&process, "countersign.outcome", "applied"),
        (&show, "countersign.outcome", "shown"),
    ] {
        assert_eq!(span.attributes.get(key).map(String::as_str), Some(value), "{span:?}");
    }

    // A worker that traces too: its report comes below its own span.
    let below = "00f067aa0ba902b7";
    let mut headers = FieldTable::default();
    let text = format!("00-{}-{below}-01", callback.trace);
    headers.insert("traceparent".into(), AMQPValue::LongString(text.into()));
    let body = outcome(&command, "failed").to_string();
    let (_connection, channel) = all.vhost.channel().await;
    let properties = BasicProperties::default().with_headers(headers);
    let options = BasicPublishOptions::default();
    let published =
        channel.basic_publish(EXCHANGE.into(), QUEUE.into(), options, body.as_bytes(), properties);
    published.await.expect("published").await.expect("confirmed");
    let second = collector.one("process countersign.outcomes", ("countersign.reported", "failed")).await;
    assert_eq!((second.trace, &*second.parent), (callback.trace, below));

    let everything = collector.everything();
    for hidden in [
        "fake-token-number-1",
        "fake-key-number-1",
        "emulator-secret",
        "zhang3",
        "PO-77",
        "zu teuer",
        "ERP",
        "guest",
    ] {
        assert!(!everything.contains(hidden), "{hidden}");
    }
}
