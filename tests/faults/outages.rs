//! What can happen on the way to a real RabbitMQ: cuts, black holes, trickles, halves.

use crate::broker::{account, recovered};
use crate::oracle::{Figures, Oracle, trickle};
use crate::rogue::Held;
use crate::support::{App, Config, Vhost, Worker, eventually, quoted};
use crate::wire::{Cut, Flow, Side, Wire};

/// The program behind a wire, with deadlines that let a test see them pass.
struct Scene {
    wire: Wire,
    app: App,
    worker: Worker,
    oracle: Oracle,
    _vhost: Vhost,
}

impl Scene {
    async fn new(settings: &[(&str, &str)]) -> Self {
        Self::with_heartbeat(1, settings).await
    }

    /// Whoever hears nothing for two heartbeats gives the connection up.
    async fn with_heartbeat(seconds: u32, settings: &[(&str, &str)]) -> Self {
        let vhost = Vhost::new().await;
        let wire = Wire::to(vhost.address()).await;
        let url = format!("{}?heartbeat={seconds}", vhost.url_through(wire.port()));
        let config = Config::with_url(&url).only_publishing();
        let app =
            App::with(settings.iter().fold(config, |config, (key, value)| config.set("amqp", key, value)))
                .await;
        // Not through the wire: it is the program that suffers.
        let worker = Worker::on(&vhost);
        Self { wire, app, worker, oracle: Oracle::new(), _vhost: vhost }
    }

    /// Waits until so many more messages came.
    async fn until_came(&self, more: usize) {
        self.worker.messages(self.worker.count() + more).await;
    }

    /// Waits until the program has connected again so many times since the fault that begins here.
    async fn until_connected_anew(&self, times: usize, fault: impl FnOnce(&Wire)) {
        let wanted = self.wire.accepted() + times;
        fault(&self.wire);
        eventually(&format!("{wanted} connections"), async || {
            if self.wire.accepted() >= wanted { Ok(()) } else { Err(self.wire.accepted()) }
        })
        .await;
    }

    /// Waits until messages come again after a fault has ended, and tells how long that took.
    async fn recovered(&self, fault: &str) {
        recovered(&self.worker, 20, fault).await;
    }

    async fn figures(&self, fault: &str) -> Figures {
        account(&self.oracle, &self.app, &self.worker, fault).await
    }
}

const IMPATIENT: [(&str, &str); 2] = [("confirm_timeout_ms", "1000"), ("connect_timeout_ms", "1000")];

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_cut_by_a_reset_or_an_end_lose_nothing_and_leave_nothing_behind() {
    let scene = Scene::new(&[]).await;
    trickle(&scene.oracle, &scene.app, async {
        scene.until_came(10).await;
        let held = Held::by(&scene.app);
        for number in 0..20 {
            let cut = if number % 2 == 0 { Cut::Reset } else { Cut::Fin };
            scene.until_connected_anew(1, |wire| wire.cut(cut)).await;
            scene.until_came(5).await;
        }
        held.is_all_that_is_held(&scene.app).await;
    })
    .await;
    let _figures = scene.figures("cut 20 times").await;
    assert!(scene.wire.accepted() >= 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_is_noticed_without_a_reset_and_nothing_is_lost() {
    let scene = Scene::new(&IMPATIENT).await;
    trickle(&scene.oracle, &scene.app, async {
        scene.until_came(10).await;
        let held = Held::by(&scene.app);
        scene.until_connected_anew(2, |wire| wire.flow(Flow::Stalled, Flow::Stalled)).await;
        // What was sent into it may come out of it, after what was sent again.
        scene.wire.flow(Flow::Free, Flow::Free);
        scene.recovered("black hole without a reset").await;
        held.is_all_that_is_held(&scene.app).await;
    })
    .await;
    let _figures = scene.figures("black hole without a reset").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_in_a_black_hole_is_given_up_for_its_missing_heartbeats() {
    let scene = Scene::new(&[]).await;
    scene.oracle.keep(&scene.app, 5).await;
    let _before = scene.figures("before the black hole").await;
    scene.wire.flow(Flow::Stalled, Flow::Stalled);
    // Nothing is published, so no confirm is missed.
    scene.app.until_metric("countersign_amqp_connected", 0.0).await;
    scene.wire.flow(Flow::Free, Flow::Free);
    scene.oracle.keep(&scene.app, 5).await;
    let _figures = scene.figures("black hole while idle").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_is_stalled_in_one_direction_loses_nothing() {
    for (to_broker, to_program, fault) in [
        (Flow::Stalled, Flow::Free, "stalled towards the broker"),
        (Flow::Free, Flow::Stalled, "stalled towards the program"),
    ] {
        let scene = Scene::new(&IMPATIENT).await;
        trickle(&scene.oracle, &scene.app, async {
            scene.until_came(10).await;
            scene.until_connected_anew(1, |wire| wire.flow(to_broker, to_program)).await;
            scene.wire.flow(Flow::Free, Flow::Free);
            scene.recovered(fault).await;
        })
        .await;
        let _figures = scene.figures(fault).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_is_no_outage() {
    // Long enough that a machine that is busy with other things is not taken for one that is silent; the trickle lasts longer.
    // Without the regular look at the topology, which connects by itself.
    let scene = Scene::with_heartbeat(2, &[("check_interval", "\"off\"")]).await;
    trickle(&scene.oracle, &scene.app, async {
        scene.until_came(10).await;
        scene.wire.flow(Flow::Slow(20_000), Flow::Slow(2000));
        scene.until_came(80).await;
        scene.wire.flow(Flow::Free, Flow::Free);
    })
    .await;
    let figures = scene.figures("slowed to 20 kB/s").await;
    assert_eq!((figures.published_again, scene.wire.accepted()), (0, 1), "slow is not dead");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_gets_through_a_way_so_slow_that_no_window_is_confirmed_in_time() {
    let scene = Scene::new(&[("confirm_timeout_ms", "1000")]).await;
    scene.wire.flow(Flow::Stalled, Flow::Free);
    scene.oracle.keep(&scene.app, 150).await;
    // Some thirty of them in each second.
    scene.wire.flow(Flow::Slow(40_000), Flow::Free);
    scene.until_came(100).await;
    scene.wire.flow(Flow::Free, Flow::Free);
    let _figures = scene.figures("a backlog at 40 kB/s, deadline of a confirm 1 s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_closed_in_one_direction_is_given_up_and_nothing_is_lost() {
    let scene = Scene::new(&IMPATIENT).await;
    trickle(&scene.oracle, &scene.app, async {
        for side in [Side::Program, Side::Broker, Side::Program, Side::Broker] {
            scene.until_came(10).await;
            scene.until_connected_anew(1, |wire| wire.half_close(side)).await;
        }
        scene.until_came(10).await;
    })
    .await;
    let _figures = scene.figures("half-closed, twice on each side").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_brokers_the_one_that_falls_silent_is_left_for_the_other_with_the_ordinary_deadlines() {
    let vhost = Vhost::new().await;
    let (first, second) = (Wire::to(vhost.address()).await, Wire::to(vhost.address()).await);
    // Without heartbeats: nobody but the publisher can notice.
    let urls =
        [&first, &second].map(|wire| quoted(&format!("{}?heartbeat=0", vhost.url_through(wire.port()))));
    let config = Config::new(&vhost)
        .only_publishing()
        .set("amqp", "check_interval", "\"off\"")
        .env("COUNTERSIGN__AMQP__URLS", &format!("[{}]", urls.join(", ")));
    let app = App::with(config).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    trickle(&oracle, &app, async {
        worker.messages(10).await;
        first.flow(Flow::Stalled, Flow::Stalled);
        recovered(&worker, 20, "silent, with another broker to go to").await;
    })
    .await;
    let _figures = account(&oracle, &app, &worker, "silent, with another broker to go to").await;
    assert_eq!((first.accepted(), second.accepted()), (1, 1), "the silent one is not asked again first");
}
