//! What a real RabbitMQ can do to the program: be away, be full, be changed under it, refuse it.

use crate::oracle::{Figures, Oracle, trickle};
use crate::support::{App, Broker, Config, Proxy, Vhost, Worker, eventually, quoted};
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use std::time::{Duration, Instant};

const COMMANDS: &str = "countersign.commands";
const PENDING: &str = r#"countersign_ledger_rows{state="pending"}"#;
const CONNECTED: &str = "countersign_amqp_connected";

/// Waits until the program has said something.
async fn until_said(app: &App, words: &str) {
    eventually(&format!("the log to say {words:?}"), async || {
        let log = app.stderr();
        if log.contains(words) { Ok(()) } else { Err(log.lines().next_back().map(str::to_owned)) }
    })
    .await;
}

/// Waits until so many more messages came.
async fn until_came(worker: &Worker, more: usize) {
    worker.messages(worker.count() + more).await;
}

/// The same after a fault has ended; tells how long it took until the first of them came.
pub(crate) async fn recovered(worker: &Worker, more: usize, fault: &str) {
    let (began, before) = (Instant::now(), worker.count());
    worker.messages(before + 1).await;
    crate::say(&format!("{fault}: the first message came {:.1?} after its end", began.elapsed()));
    worker.messages(before + more).await;
}

/// Compares, where nothing may be parked.
pub(crate) async fn account(oracle: &Oracle, app: &App, worker: &Worker, fault: &str) -> Figures {
    let figures = oracle.account(app, worker).await.check(fault);
    assert_eq!(figures.parked, 0, "{fault}");
    figures
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_at_the_start_and_restarted_under_load_loses_nothing() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    broker.stop().await;
    let app = App::start(&vhost).await;
    let oracle = Oracle::new();
    oracle.keep(&app, 100).await;
    assert_eq!(app.metric(PENDING).await, Some(100.0));
    broker.start().await;
    let worker = Worker::on(&vhost);
    let figures = account(&oracle, &app, &worker, "broker away at the start").await;
    assert_eq!((figures.arrived, figures.published_again), (100, 0));

    trickle(&oracle, &app, async {
        until_came(&worker, 20).await;
        broker.stop().await;
        app.until_metric(CONNECTED, 0.0).await;
        broker.start().await;
        recovered(&worker, 20, "broker restarted under load").await;
    })
    .await;
    let _figures = account(&oracle, &app, &worker, "broker restarted under load").await;
}

/// Connections refused and cut for so many seconds in turn.
async fn flaps(seconds: usize, fault: &str) {
    let vhost = Vhost::new().await;
    let mut proxy = Proxy::shut_before(vhost.address());
    let app = App::with(Config::with_url(&vhost.url_through(proxy.port()))).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    trickle(&oracle, &app, async {
        let mut seconds_passed = tokio::time::interval(Duration::from_secs(1));
        for second in 0..seconds {
            seconds_passed.tick().await;
            if second % 2 == 0 { proxy.open().await } else { proxy.shut().await }
        }
        proxy.open().await;
        recovered(&worker, 10, fault).await;
    })
    .await;
    let _figures = account(&oracle, &app, &worker, fault).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_and_goes_each_second_loses_nothing() {
    flaps(8, "flapping each second, 8 times").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: two minutes of coming and going"]
async fn a_broker_that_comes_and_goes_each_second_for_two_minutes_loses_nothing() {
    flaps(120, "flapping each second, 120 times").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_under_load_costs_time_and_nothing_else() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    let app = App::with(Config::new(&vhost).set("amqp", "confirm_timeout_ms", "500")).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    trickle(&oracle, &app, async {
        until_came(&worker, 20).await;
        for _ in 0..2 {
            broker.memory_alarm(true).await;
            app.until_metric("countersign_amqp_blocked", 1.0).await;
            // Longer than the deadline of a confirm, by what is accepted in that time.
            let pending = app.metric(PENDING).await.unwrap_or_default();
            eventually("a hundred more pending", async || match app.metric(PENDING).await {
                Some(now) if now >= pending + 100.0 => Ok(()),
                other => Err(other),
            })
            .await;
            broker.memory_alarm(false).await;
            recovered(&worker, 20, "memory alarm").await;
        }
    })
    .await;
    let figures = account(&oracle, &app, &worker, "memory alarm set and cleared, twice").await;
    assert_eq!(figures.published_again, 0, "being blocked is no reason to give a session up");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_deleted_under_load_is_made_again_and_nothing_is_lost() {
    let vhost = Vhost::new().await;
    let app = App::with(Config::new(&vhost).leaving_dead_letters()).await;
    let worker = Worker::on(&vhost);
    let unrouted = Worker::on_queue(&vhost, "countersign.unrouted");
    let oracle = Oracle::new();
    trickle(&oracle, &app, async {
        for _ in 0..3 {
            until_came(&worker, 20).await;
            vhost.delete_exchange(COMMANDS).await;
            recovered(&worker, 20, "exchange deleted").await;
        }
    })
    .await;
    // The broker takes the bindings of an exchange away before the exchange: what comes in between finds no queue but the
    // one that catches it.
    let came = async || [worker.seen(), unrouted.seen()].concat();
    let figures = oracle.account_of(&app, came).await.check("exchange deleted under load, 3 times");
    assert_eq!(figures.parked, 0);
    crate::say(&format!("exchange deleted: caught by the alternate exchange: {}", unrouted.seen().len()));
    assert!(vhost.has_exchange(COMMANDS).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_unbound_under_load_leaves_the_rest_to_the_alternate_exchange() {
    let vhost = Vhost::new().await;
    // Nobody who binds it again.
    let config = Config::new(&vhost).leaving_dead_letters().set("amqp", "check_interval", "\"off\"");
    let app = App::with(config).await;
    let worker = Worker::on(&vhost);
    let unrouted = Worker::on_queue(&vhost, "countersign.unrouted");
    let oracle = Oracle::new();
    trickle(&oracle, &app, async {
        until_came(&worker, 20).await;
        vhost.unbind(COMMANDS, COMMANDS, "#").await;
        until_came(&unrouted, 20).await;
    })
    .await;
    // Confirmed and routed: to the queue that catches what nobody bound for.
    let came = async || [worker.seen(), unrouted.seen()].concat();
    let figures = oracle.account_of(&app, came).await.check("queue unbound, alternate exchange catches");
    assert_eq!((figures.published_again, figures.parked), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_queue_rejects_waits_in_the_ledger_until_there_is_room() {
    let vhost = Vhost::new().await;
    let (_connection, channel) = vhost.channel().await;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default;
    channel.exchange_declare("full".into(), ExchangeKind::Topic, durable, none()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(50));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    channel.queue_declare("full".into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    let bind = QueueBindOptions::default();
    channel.queue_bind("full".into(), "full".into(), "#".into(), bind, none()).await.unwrap();
    let config = Config::new(&vhost)
        .set("amqp", "topology", &quoted("none"))
        .set("amqp", "exchange", &quoted("full"))
        .set("amqp", "queue", &quoted("full"));
    let app = App::with(config).await;
    let oracle = Oracle::new();
    oracle.keep(&app, 150).await;
    eventually("a hundred refusals", async || {
        match app.metric(r#"countersign_publishes_total{result="nacked"}"#).await {
            Some(nacked) if nacked >= 100.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let worker = Worker::on_queue(&vhost, "full");
    let figures = account(&oracle, &app, &worker, "queue full with reject-publish, then drained").await;
    assert_eq!(figures.published_again, 0);
    drop((worker, app));
    vhost.delete_queue("full").await;
    vhost.delete_exchange("full").await;
}

/// Administers a virtual host of a node as `rabbitmqctl` does.
struct Admin<E> {
    node: E,
    name: String,
}

const USER: &str = "fake-user";

impl<E: AsyncFn(String) -> String> Admin<E> {
    /// Makes a user who may do everything in this virtual host; also returns the URL for that user. `node` evaluates an
    /// expression on it.
    async fn of(node: E, vhost: &Vhost) -> (Self, String) {
        let name = vhost.url().rsplit_once('/').expect("a path").1.to_owned();
        let admin = Self { node, name };
        // A failed run on this node may have left it.
        admin.eval("catch rabbit_auth_backend_internal:delete_user(<<\"@USER@\">>, <<\"tests\">>)").await;
        admin
            .eval("ok = rabbit_auth_backend_internal:add_user(<<\"@USER@\">>, <<\"fake-1\">>, <<\"tests\">>)")
            .await;
        admin.permit(".*").await;
        let url = format!("amqp://{}:fake-1@{}/{}", USER, vhost.address(), admin.name);
        (admin, url)
    }

    async fn eval(&self, expression: &str) -> String {
        let expression = expression.replace("@USER@", USER).replace("@VHOST@", &self.name);
        (self.node)(format!("{expression}.")).await
    }

    /// Sets what may be written to; everything may be configured and read.
    async fn permit(&self, write: &str) {
        let set = "ok = rabbit_auth_backend_internal:set_permissions(<<\"@USER@\">>, <<\"@VHOST@\">>, <<\".*\">>, \
                   <<\"@WRITE@\">>, <<\".*\">>, <<\"tests\">>)";
        self.eval(&set.replace("@WRITE@", write)).await;
    }

    async fn forbid(&self) {
        self.eval(
            "ok = rabbit_auth_backend_internal:clear_permissions(<<\"@USER@\">>, <<\"@VHOST@\">>, <<\"tests\">>)",
        )
        .await;
    }

    async fn password(&self, password: &str) {
        let change = "ok = rabbit_auth_backend_internal:change_password(<<\"@USER@\">>, <<\"@WORD@\">>, <<\"tests\">>)";
        self.eval(&change.replace("@WORD@", password)).await;
    }

    /// Closes the program's connections: what a session was once allowed it may go on to do.
    async fn disconnect(&self) {
        self.eval(
            "[rabbit_networking:close_connection(Pid, \"tests\") || Pid <- rabbit_networking:connections(), \
             [{user, <<\"@USER@\">>}] =:= rabbit_networking:connection_info(Pid, [user])]",
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_or_password_that_is_taken_away_is_waited_for_and_nothing_is_lost() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    let (admin, url) = Admin::of(async |text| broker.eval(text).await, &vhost).await;
    let app = App::with(Config::with_url(&url)).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    trickle(&oracle, &app, async {
        until_came(&worker, 20).await;
        admin.permit("^nothing$").await;
        admin.disconnect().await;
        until_said(&app, "cannot publish; operator action required").await;
        admin.permit(".*").await;
        recovered(&worker, 20, "permission given back").await;

        admin.forbid().await;
        admin.disconnect().await;
        until_said(&app, "access to vhost").await;
        admin.permit(".*").await;
        recovered(&worker, 20, "permission given back").await;
    })
    .await;
    let _figures = account(&oracle, &app, &worker, "permission revoked and given back").await;

    trickle(&oracle, &app, async {
        admin.password("fake-2").await;
        admin.disconnect().await;
        until_said(&app, "ACCESS_REFUSED").await;
        admin.password("fake-1").await;
        recovered(&worker, 20, "password mended").await;
    })
    .await;
    let _figures = account(&oracle, &app, &worker, "password changed and mended").await;
    assert!(!app.stderr().contains("fake-1"), "the password is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vhost_that_is_deleted_and_made_again_gets_all_that_was_not_in_the_old_one() {
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    let (admin, url) = Admin::of(async |text| broker.eval(text).await, &vhost).await;
    let app = App::with(Config::with_url(&url)).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    oracle.keep(&app, 20).await;
    // What was in the old one and not consumed would be gone with it, as its administrator wished.
    let _figures = account(&oracle, &app, &worker, "before the vhost is deleted").await;
    admin.eval("rabbit_vhost:delete(<<\"@VHOST@\">>, <<\"tests\">>)").await;
    app.until_metric(CONNECTED, 0.0).await;
    oracle.keep(&app, 50).await;
    until_said(&app, "cannot publish; operator action required").await;
    admin.eval("ok = rabbit_vhost:add(<<\"@VHOST@\">>, <<\"tests\">>)").await;
    admin.eval(
        "ok = rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, <<\"@VHOST@\">>, <<\".*\">>, <<\".*\">>, \
         <<\".*\">>, <<\"tests\">>)",
    )
    .await;
    admin.permit(".*").await;
    let figures = account(&oracle, &app, &worker, "vhost deleted and made again").await;
    assert_eq!((figures.arrived, figures.published_again), (70, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_brokers_the_one_that_lives_is_used() {
    let vhost = Vhost::new().await;
    let mut first = Proxy::shut_before(vhost.address());
    let mut second = Proxy::shut_before(vhost.address());
    second.open().await;
    let urls: Vec<String> = [&first, &second].map(|proxy| quoted(&vhost.url_through(proxy.port()))).into();
    // The environment stands above the file, which has `url`.
    let config = Config::new(&vhost).env("COUNTERSIGN__AMQP__URLS", &format!("[{}]", urls.join(", ")));
    let app = App::with(config).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    trickle(&oracle, &app, async {
        until_came(&worker, 20).await;
        second.shut().await;
        first.open().await;
        recovered(&worker, 20, "the other broker").await;
        first.shut().await;
        second.open().await;
        until_came(&worker, 20).await;
    })
    .await;
    let _figures = account(&oracle, &app, &worker, "several URLs, one of which lives").await;
}
