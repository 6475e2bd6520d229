//! A replica that starts while others work, and the first start of all, which makes the tables.

use super::scene::{BOUND, Scene, configuration};
use super::traffic::Traffic;
use crate::say;
use crate::support::postgres::PostgresPair;
use crate::support::{
    App, Callback, Config, KEY, NOWHERE, Program, Running, eventually_within, free_port, quoted,
};
use std::time::{Duration, Instant};

const MADE: &str = "the ledger's tables are ready";

fn start(config: &Config) -> Running {
    let listen = || quoted(&format!("127.0.0.1:{}", free_port()));
    let file = config.clone().set("http", "listen", &listen()).set("admin", "listen", &listen()).write();
    Program::new(["serve"]).config(&file).start()
}

async fn time_to_make_tables(config: &Config) -> Duration {
    let (running, since) = (start(config), Instant::now());
    eventually_within(BOUND, "the tables to be made", async || {
        let said = running.lines();
        if said.iter().any(|line| line.contains(MADE)) { Ok(()) } else { Err(said) }
    })
    .await;
    since.elapsed()
}

/// Starts a replica and kills it so long afterwards; tells what it had said by then.
async fn start_and_kill(config: &Config, after: Duration) -> Vec<String> {
    let running = start(config);
    // Not waits for anything: the moment of the kill is meant to be any.
    tokio::time::sleep(after).await;
    running.lines()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a minute"]
async fn a_third_replica_that_dies_at_its_start_or_starts_in_a_failover_disturbs_nobody() {
    const KILLS: u32 = 12;
    let scene = Scene::begin().await;
    let start = async |scene: &mut Scene, traffic: &Traffic| {
        let (leader, since) = (scene.leader().await, Instant::now());
        let config = configuration(&scene.ledger, std::slice::from_ref(&scene.read_at));
        let mut served = 0;
        for kill in 0..KILLS {
            let said = start_and_kill(&config, Duration::from_millis(25) * kill).await;
            served += usize::from(said.iter().any(|line| line.contains("serving")));
        }
        say(&format!("of {KILLS} that were killed at their start {served} had begun to serve"));
        scene.goes_on(traffic, since, "a third replica killed at its start").await;
        assert_eq!(scene.leader().await, leader, "it was not touched");

        let refused = scene.oracle.refused();
        assert_eq!(refused, 0, "nobody noticed");
        scene.pair.kill_primary();
        let fail_over = async {
            scene.pair.promote().await;
            scene.pair.rebuild().await;
        };
        // Ready is what it is only when it has kept something.
        let (third, ()) = tokio::join!(App::with(config), fail_over);
        scene.goes_on(traffic, Instant::now(), "a third replica started in a failover").await;
        assert_eq!(
            third.post("purchase", Callback::list("i", "probe").token("wrong").encrypted(KEY)).await.status,
            403
        );
    };
    drop(scene.survives("replicas: a third one starts", start).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a minute"]
async fn a_first_start_that_is_killed_in_its_migration_is_finished_by_the_others() {
    const KILLS: u32 = 12;
    let mut pair = PostgresPair::boot(true).await;
    let takes = time_to_make_tables(&configuration(&pair.database().await, &[NOWHERE.to_owned()])).await;
    let mut made = 0;
    for kill in 0..KILLS {
        let ledger = pair.database().await;
        let config = || configuration(&ledger, &[NOWHERE.to_owned()]);
        let dying = config();
        // It begins a moment before the others, which wait for it.
        let kill = start_and_kill(&dying, takes * kill / (KILLS - 3));
        let (said, first, second) = tokio::join!(kill, App::with(config()), App::with(config()));
        made += usize::from(said.iter().any(|line| line.contains(MADE)));
        works(&[first, second]).await;
    }
    say(&format!(
        "of {KILLS} that were killed in their first start, of {takes:.1?}, {made} had made the tables"
    ));
    for round in 0..4 {
        let ledger = pair.database().await;
        let config = || configuration(&ledger, &[NOWHERE.to_owned()]);
        let fail_over = async {
            tokio::time::sleep(Duration::from_millis(20) * round).await;
            pair.kill_primary();
            pair.promote().await;
            pair.rebuild().await;
        };
        let (first, second, ()) = tokio::join!(App::with(config()), App::with(config()), fail_over);
        works(&[first, second]).await;
    }
}

/// Both keep callbacks, and know each other's.
async fn works(replicas: &[App; 2]) {
    let callback = Callback::list("i", "t");
    let id = replicas[0].accept(&callback).await;
    let repeated = replicas[1].post("purchase", callback.encrypted(KEY)).await;
    assert_eq!((repeated.status_word().as_str(), repeated.command_id()), ("duplicate", id));
    let leads = async || {
        let mut leaders = Vec::new();
        for replica in replicas {
            leaders.push(replica.get("/readyz").await.json()["leader"]["here"].clone());
        }
        leaders.sort_by_key(ToString::to_string);
        if leaders == [false, true] { Ok(()) } else { Err(leaders) }
    };
    eventually_within(BOUND, "one of them to lead", leads).await;
}
