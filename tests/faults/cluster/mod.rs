//! What can happen to a RabbitMQ cluster of three nodes under load: a node is killed, frozen, cut off, and all of them
//! are restarted in turn. Nothing is lost, each time, and the program goes on through the nodes that are left.
//!
//! Nobody consumes until the fault is over: what is compared is the queue itself, in its order.

mod names;
/// The nodes, shared with the tests of replicas.
pub(crate) mod nodes;

use self::nodes::{Cluster, Number, Partitions, Queue};
use crate::broker::account;
use crate::oracle::{Load, Oracle};
use crate::support::{App, Config, Worker, eventually, quoted};
use std::time::{Duration, Instant};

const COMMANDS: &str = "countersign.commands";
const CONFIRMED: &str = r#"countersign_publishes_total{result="confirmed"}"#;

/// The program before a cluster.
struct Scene {
    cluster: Cluster,
    urls: Vec<String>,
    queue: Queue,
    app: App,
    oracle: Oracle,
}

impl Scene {
    /// The program is connected to this node, and `leads` leads the queue. The settings are the program's own defaults.
    async fn new(connected: Number, leads: Number) -> Self {
        let cluster = Cluster::whole().await;
        let urls = cluster.vhost(connected).await;
        let list: Vec<String> = urls.iter().map(|url| quoted(url)).collect();
        // The environment stands above the file, which has `url`.
        let config =
            Config::with_url(&urls[0]).env("COUNTERSIGN__AMQP__URLS", &format!("[{}]", list.join(", ")));
        let app = App::with(config).await;
        app.until_metric("countersign_amqp_connected", 1.0).await;
        let vhost = urls[0].rsplit_once('/').expect("a URL with a virtual host").1.to_owned();
        let queue = Queue { vhost, queue: COMMANDS };
        cluster.make_leader(leads, &queue).await;
        let scene = Self { cluster, urls, queue, app, oracle: Oracle::new() };
        eventually("the program to be connected to the first node", async || match scene.connected() {
            Some(node) if node == connected => Ok(()),
            other => Err(other),
        })
        .await;
        scene
    }

    /// The node that the program was last connected to.
    fn connected(&self) -> Option<Number> {
        let log = self.app.stderr();
        let line = log.lines().rfind(|line| line.contains("connected to the broker"))?;
        let (_, rest) = line.split_once("127.0.0.1:")?;
        self.cluster.at_port(rest.split('/').next()?.parse().ok()?)
    }

    async fn leader(&self, asked: Number) -> Number {
        self.cluster.leader(asked, &self.queue).await
    }

    async fn confirmed(&self) -> usize {
        // A count of commands, far below what an f64 holds.
        self.app.metric(CONFIRMED).await.map_or(0, |confirmed| confirmed as usize)
    }

    /// Lets something happen while some hundreds of decisions a second are sent, of as many tasks; tells the longest time
    /// without a confirm.
    async fn under_load(&self, happening: impl AsyncFnOnce(&Load)) -> Duration {
        let load = self.oracle.load_of(&self.app, 4, 200, Duration::from_millis(5));
        let mut longest = Duration::ZERO;
        let watching = async {
            let (mut confirmed, mut since) = (0, Instant::now());
            loop {
                let now = self.confirmed().await;
                if now > confirmed {
                    (confirmed, since) = (now, Instant::now());
                }
                longest = longest.max(since.elapsed());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let happened = async {
            self.through(&load, 500).await;
            happening(&load).await;
        };
        tokio::select! {
            () = happened => {}
            never = watching => match never {},
        }
        load.stop().await;
        longest
    }

    /// Waits until all that was accepted up to now, and so many more, are confirmed; tells how long that took.
    async fn through(&self, load: &Load, more: usize) -> Duration {
        let (wanted, began) = (load.answered() + more, Instant::now());
        eventually(&format!("{wanted} confirms"), async || match self.confirmed().await {
            confirmed if confirmed >= wanted => Ok(()),
            confirmed => Err(confirmed),
        })
        .await;
        began.elapsed()
    }

    /// Waits until commands are published through a fault, and says how long that took.
    async fn goes_on(&self, load: &Load) {
        crate::say(&format!("through again after {:.1?}", self.through(load, 500).await));
    }

    /// Waits until the cluster is whole, and commands are published again.
    async fn is_whole(&self, load: &Load) {
        self.cluster.until_whole().await;
        self.through(load, 500).await;
    }

    async fn start(&self, node: Number, load: &Load) {
        self.cluster.start(node).await;
        self.is_whole(load).await;
    }

    /// Starts a node anew that was away and can be reached again. Whether it finds the others by itself is left to chance, even
    /// with pause_minority.
    async fn starts_again(&self, node: Number, load: &Load) {
        self.through(load, 500).await;
        self.cluster.kill(node).await;
        self.start(node, load).await;
    }

    /// Lets a fault happen under load; then reads the queue, once the cluster is whole, and compares.
    async fn survives(&self, fault: &str, happening: impl AsyncFnOnce(&Load)) {
        crate::say(fault);
        let longest = self.under_load(happening).await;
        crate::say(&format!("{fault}: the longest time without a confirm was {longest:.1?}"));
        self.cluster.until_whole().await;
        let worker = Worker::at(&self.urls[0], COMMANDS);
        let _compared = account(&self.oracle, &self.app, &worker, fault).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_queue_loses_its_leader_by_sigkill_goes_on_and_nothing_is_lost() {
    let scene = Scene::new(0, 1).await;
    let kill = async |load: &Load| {
        scene.cluster.kill(1).await;
        scene.goes_on(load).await;
        assert_eq!(scene.connected(), Some(0), "its node was not touched");
        scene.start(1, load).await;
    };
    scene.survives("cluster: the leader killed", kill).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a minute"]
async fn a_cluster_whose_node_is_killed_under_the_program_is_used_through_another() {
    let scene = Scene::new(0, 1).await;
    let kill = async |load: &Load| {
        scene.cluster.kill(0).await;
        scene.goes_on(load).await;
        assert_ne!(scene.connected(), Some(0));
        scene.start(0, load).await;
    };
    scene.survives("cluster: the node of the connection killed", kill).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn a_node_that_is_frozen_with_connection_and_leader_is_left_for_another() {
    let scene = Scene::new(0, 0).await;
    let freeze = async |load: &Load| {
        scene.cluster.freeze(0).await;
        scene.goes_on(load).await;
        assert_ne!(scene.connected(), Some(0));
        // What it was sent before comes out of it now, after what was sent again.
        scene.cluster.thaw(0);
        scene.starts_again(0, load).await;
    };
    scene.survives("cluster: the node of connection and leader frozen", freeze).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn a_minority_that_is_cut_off_with_the_connection_pauses_and_is_left_for_the_majority() {
    let scene = Scene::new(0, 0).await;
    let cut = async |load: &Load| {
        scene.cluster.cut_off(0);
        scene.goes_on(load).await;
        assert_ne!(scene.connected(), Some(0));
        scene.cluster.reconnect(0);
        scene.starts_again(0, load).await;
    };
    scene.survives("cluster: the node of connection and leader cut off, pausing", cut).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn a_minority_that_is_cut_off_and_goes_on_is_left_for_the_majority() {
    let scene = Scene::new(0, 0).await;
    scene.cluster.handle_partitions(Partitions::Ignore).await;
    let cut = async |load: &Load| {
        scene.cluster.cut_off(0);
        scene.goes_on(load).await;
        assert_ne!(scene.connected(), Some(0));
        // Two halves that both went on do not become one by themselves.
        scene.cluster.stop(0).await;
        scene.cluster.reconnect(0);
        scene.start(0, load).await;
    };
    scene.survives("cluster: the node of connection and leader cut off, not pausing", cut).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a minute"]
async fn a_cluster_that_is_restarted_node_by_node_loses_nothing() {
    let scene = Scene::new(0, 0).await;
    let restart = async |load: &Load| {
        for node in Cluster::all() {
            scene.cluster.stop(node).await;
            scene.goes_on(load).await;
            scene.start(node, load).await;
            // The next one only when this one has its share of the queue again.
            scene.leader(node).await;
        }
    };
    scene.survives("cluster: restarted node by node", restart).await;
}
