//! What is not tried in each run: each part, killed, frozen and cut off.
//!
//! The leader killed or frozen and the primary killed are in the module above.

use super::scene::Scene;
use super::traffic::Traffic;
use crate::cluster::nodes::{Cluster, Queue};
use crate::oracle::Figures;
use crate::say;
use crate::support::{Config, eventually};
use crate::wire::Flow;
use std::time::Instant;

/// Callbacks need no broker. On a machine that is too busy to answer within 4 s the balancer may give one up.
fn refuses_nobody(figures: &Figures) {
    assert!(figures.refused.keys().all(|reason| reason == "the balancer's 504"), "{figures}");
}

/// Lets something happen to a replica that does not lead.
async fn a_follower(
    fault: &str,
    begin: impl Fn(&mut Scene, usize),
    end: impl AsyncFnOnce(&mut Scene, usize),
) {
    let happening = async |scene: &mut Scene, traffic: &Traffic| {
        let leader = scene.leader().await;
        begin(scene, 1 - leader);
        scene.goes_on(traffic, Instant::now(), fault).await;
        scene.until_refused_no_more().await;
        assert_eq!(scene.leader().await, leader, "it was not touched");
        end(scene, 1 - leader).await;
        scene.goes_on(traffic, Instant::now(), "it is back").await;
    };
    drop(Scene::begin().await.survives(fault, happening).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn a_follower_that_is_killed_is_passed_over() {
    let kill = |scene: &mut Scene, follower: usize| scene.replicas[follower].kill();
    let start = async |scene: &mut Scene, follower: usize| scene.replicas[follower].restart().await;
    a_follower("replicas: a follower killed", kill, start).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn a_follower_that_is_frozen_is_passed_over() {
    let freeze = |scene: &mut Scene, follower: usize| scene.replicas[follower].signal("STOP");
    let thaw = async |scene: &mut Scene, follower: usize| scene.replicas[follower].signal("CONT");
    a_follower("replicas: a follower frozen", freeze, thaw).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn a_follower_that_is_cut_off_from_postgresql_is_passed_over() {
    let flow = |scene: &Scene, follower: usize, flow: Flow| {
        (0..2).for_each(|number| scene.ways(follower).postgres(number, flow));
    };
    let cut = |scene: &mut Scene, follower: usize| flow(scene, follower, Flow::Stalled);
    let reconnect = async |scene: &mut Scene, follower: usize| {
        let shown = scene.replicas[follower].get("/readyz").await;
        assert_eq!(shown.status, 200, "the balancer knew before it called itself unready: {}", shown.text());
        flow(scene, follower, Flow::Free);
    };
    a_follower("replicas: a follower cut off from PostgreSQL", cut, reconnect).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn a_leader_that_is_cut_off_from_postgresql_is_followed_though_it_reaches_the_broker() {
    let cut = async |scene: &mut Scene, traffic: &Traffic| {
        let leader = scene.leader().await;
        (0..2).for_each(|number| scene.ways(leader).postgres(number, Flow::Stalled));
        let since = Instant::now();
        scene.until_leads(1 - leader).await;
        say(&format!("the other leads after {:.1?}", since.elapsed()));
        scene.goes_on(traffic, since, "the leader cut off").await;
        (0..2).for_each(|number| scene.ways(leader).postgres(number, Flow::Free));
        scene.goes_on(traffic, Instant::now(), "it is back").await;
    };
    drop(Scene::begin().await.survives("replicas: the leader cut off from PostgreSQL", cut).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn a_leader_that_is_cut_off_from_the_broker_is_followed_by_one_that_is_not() {
    // Not to wait for half a minute until it knows.
    let configure = |config: Config| config.set("amqp", "confirm_timeout_ms", "3000");
    let scene = Scene::configured(configure).await;
    let cut = async |scene: &mut Scene, traffic: &Traffic| {
        let leader = scene.leader().await;
        scene.ways(leader).broker(0, Flow::Stalled);
        let since = Instant::now();
        let took = scene.until_leads(1 - leader).await;
        say(&format!("the other leads after {took:.1?}"));
        scene.goes_on(traffic, since, "the leader cut off").await;
        scene.ways(leader).broker(0, Flow::Free);
        scene.goes_on(traffic, Instant::now(), "it is back").await;
    };
    let (figures, _) = scene.survives("replicas: the leader cut off from the broker", cut).await;
    refuses_nobody(&figures);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn a_primary_that_freezes_and_its_standby_promoted_lose_nothing() {
    let freeze = async |scene: &mut Scene, traffic: &Traffic| {
        scene.pair.freeze_primary();
        scene.pair.promote().await;
        // It takes itself for the primary still, and waits for its standby.
        scene.pair.thaw();
        scene.pair.rebuild().await;
        scene.goes_on(traffic, Instant::now(), "the new primary has a standby").await;
    };
    drop(Scene::begin().await.survives("replicas: the primary frozen", freeze).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn a_primary_that_is_cut_off_and_its_standby_promoted_lose_nothing() {
    let cut = async |scene: &mut Scene, traffic: &Traffic| {
        let primary = scene.pair.primary_number();
        scene.all_to_postgres(primary, Flow::Stalled);
        scene.pair.cut_replication().await;
        scene.pair.promote().await;
        scene.pair.rebuild().await;
        scene.all_to_postgres(primary, Flow::Free);
        scene.goes_on(traffic, Instant::now(), "the new primary has a standby").await;
    };
    drop(Scene::begin().await.survives("replicas: the primary cut off", cut).await);
}

/// Lets something happen to the standby, without which nothing is answered 200.
async fn the_standby(fault: &str, begin: impl AsyncFnOnce(&mut Scene), end: impl AsyncFnOnce(&mut Scene)) {
    let happening = async |scene: &mut Scene, traffic: &Traffic| {
        begin(scene).await;
        eventually("callbacks to be refused", async || {
            if scene.oracle.refused() > 0 { Ok(()) } else { Err(traffic.answered()) }
        })
        .await;
        let before = traffic.answered();
        eventually("more callbacks to be refused", async || match scene.oracle.refused() {
            refused if refused > 50 => Ok(()),
            refused => Err(refused),
        })
        .await;
        assert_eq!(traffic.answered(), before, "nothing is promised without the standby");
        end(scene).await;
        scene.goes_on(traffic, Instant::now(), "the standby is back").await;
    };
    drop(Scene::begin().await.survives(fault, happening).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn without_a_standby_that_was_killed_nothing_is_promised() {
    let kill = async |scene: &mut Scene| scene.pair.kill_standby();
    let start = async |scene: &mut Scene| scene.pair.revive_standby().await;
    the_standby("replicas: the standby killed", kill, start).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn without_a_standby_that_is_frozen_nothing_is_promised() {
    let freeze = async |scene: &mut Scene| scene.pair.freeze_standby();
    let thaw = async |scene: &mut Scene| scene.pair.thaw();
    the_standby("replicas: the standby frozen", freeze, thaw).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn without_a_standby_that_is_cut_off_nothing_is_promised() {
    let cut = async |scene: &mut Scene| scene.pair.cut_replication().await;
    let reconnect = async |scene: &mut Scene| scene.pair.restore_replication().await;
    the_standby("replicas: the standby cut off", cut, reconnect).await;
}

/// Lets something happen to the node of RabbitMQ that leads the queue, and that the leader is connected to.
async fn a_node(fault: &str, begin: impl AsyncFnOnce(&Cluster), end: impl AsyncFnOnce(&Cluster)) {
    let cluster = Cluster::whole().await;
    let urls = cluster.vhost(0).await;
    let scene = Scene::before_cluster(&urls).await;
    let vhost = urls[0].rsplit_once('/').expect("a URL with a virtual host").1.to_owned();
    let queue = Queue { vhost, queue: "countersign.commands" };
    let leader = scene.leader().await;
    scene.replicas[leader].until_metric("countersign_amqp_connected", 1.0).await;
    cluster.make_leader(0, &queue).await;
    let happening = async |scene: &mut Scene, traffic: &Traffic| {
        begin(&cluster).await;
        scene.goes_on(traffic, Instant::now(), fault).await;
        end(&cluster).await;
        cluster.until_whole().await;
        scene.goes_on(traffic, Instant::now(), "the node is back").await;
    };
    let (figures, _) = scene.survives(fault, happening).await;
    refuses_nobody(&figures);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a minute"]
async fn a_node_of_the_broker_that_is_killed_is_left_for_another() {
    let kill = async |cluster: &Cluster| cluster.kill(0).await;
    let start = async |cluster: &Cluster| cluster.start(0).await;
    a_node("replicas: a node of the broker killed", kill, start).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a minute"]
async fn a_node_of_the_broker_that_is_frozen_is_left_for_another() {
    let freeze = async |cluster: &Cluster| cluster.freeze(0).await;
    let restart = async |cluster: &Cluster| {
        cluster.thaw(0);
        // Whether it finds the others again by itself is left to chance.
        cluster.kill(0).await;
        cluster.start(0).await;
    };
    a_node("replicas: a node of the broker frozen", freeze, restart).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a minute"]
async fn a_node_of_the_broker_that_is_cut_off_is_left_for_another() {
    let cut = async |cluster: &Cluster| cluster.cut_off(0);
    let reconnect = async |cluster: &Cluster| cluster.reconnect(0);
    a_node("replicas: a node of the broker cut off", cut, reconnect).await;
}
