//! Whole programs as docs/replicas.md has them: two replicas behind HAProxy, on a PostgreSQL with a synchronous standby, and
//! on RabbitMQ. Each of them is killed, frozen and cut off under load.
//!
//! They are beside the other faults because they ask the same oracle, and have the same wires and nodes of RabbitMQ.

mod balancer;
mod matrix;
mod scene;
mod starting;
mod traffic;
mod upgrade;

use self::scene::Scene;
use self::traffic::Traffic;
use crate::say;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_is_followed_and_nothing_is_lost() {
    let scene = Scene::begin().await;
    let kill = async |scene: &mut Scene, traffic: &Traffic| {
        let leader = scene.leader().await;
        scene.replicas[leader].kill();
        let killed = Instant::now();
        scene.goes_on(traffic, killed, "the leader killed").await;
        scene.until_leads(1 - leader).await;
        scene.replicas[leader].restart().await;
        scene.goes_on(traffic, Instant::now(), "the leader started again").await;
    };
    drop(scene.survives("replicas: the leader killed", kill).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_frozen_is_followed_and_does_no_harm_when_it_goes_on() {
    let scene = Scene::begin().await;
    let freeze = async |scene: &mut Scene, traffic: &Traffic| {
        let leader = scene.leader().await;
        scene.replicas[leader].signal("STOP");
        let frozen = Instant::now();
        scene.goes_on(traffic, frozen, "the leader frozen").await;
        scene.until_leads(1 - leader).await;
        scene.replicas[leader].signal("CONT");
        scene.goes_on(traffic, Instant::now(), "the leader goes on").await;
    };
    drop(scene.survives("replicas: the leader frozen", freeze).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_killed_and_its_standby_promoted_lose_nothing() {
    let scene = Scene::begin().await;
    let kill = async |scene: &mut Scene, traffic: &Traffic| {
        scene.pair.kill_primary();
        let killed = Instant::now();
        scene.pair.promote().await;
        say(&format!("promoted {:.1?} after the kill", killed.elapsed()));
        // With durability = "standby" it keeps nothing before it has a standby of its own.
        scene.pair.rebuild().await;
        let rebuilt = Instant::now();
        scene.goes_on(traffic, rebuilt, "the primary has a standby again").await;
    };
    drop(scene.survives("replicas: the primary killed", kill).await);
}
