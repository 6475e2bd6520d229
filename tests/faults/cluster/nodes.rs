//! Three private RabbitMQ nodes that are one cluster, with a wire from each to each.

use super::names;
use crate::support::{Broker, PATIENCE, Vhost, eventually, free_port};
use crate::wire::{Flow, Wire};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::OwnedMutexGuard;

/// One of the nodes, from 0.
pub(crate) type Number = usize;

const SIZE: usize = 3;

/// A node that hears nothing of another for this long, and a quarter, takes it for dead. A minute unless configured.
const NET_TICKTIME_S: u32 = 8;

/// How a node treats a minority that it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Partitions {
    /// It stops serving clients until it meets the others again.
    PauseMinority,
    /// It goes on as if nothing was. RabbitMQ's default.
    Ignore,
}

struct Nodes {
    nodes: Vec<Broker>,
    /// From the first to the second.
    wires: BTreeMap<(Number, Number), Wire>,
    /// The processes that are frozen, 0 for none.
    frozen: [AtomicU32; SIZE],
    /// Of wires and names, which outlive the tests.
    _runtime: Runtime,
}

/// The cluster, for one test at a time, until dropped.
pub(crate) struct Cluster {
    nodes: &'static Nodes,
    _turn: OwnedMutexGuard<()>,
}

impl Nodes {
    fn boot() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let short: Vec<String> =
            ["one", "two", "three"].map(|name| format!("countersign-{}-{name}", std::process::id())).into();
        let mut config = format!(
            "cluster_partition_handling = pause_minority\nnet_ticktime = {NET_TICKTIME_S}\n\
             cluster_formation.peer_discovery_backend = classic_config\n"
        );
        for (number, name) in short.iter().enumerate() {
            let number = number + 1;
            writeln!(config, "cluster_formation.classic_config.nodes.{number} = {name}@localhost")
                .expect("a String takes all text");
        }
        let nodes: Vec<Broker> = short
            .iter()
            .map(|name| Broker::member(format!("{name}@localhost"), free_port(), &config))
            .collect();
        let wires = runtime.block_on(async {
            let mut wires = BTreeMap::new();
            for from in 0..SIZE {
                for to in (0..SIZE).filter(|to| *to != from) {
                    wires.insert((from, to), Wire::to(nodes[to].dist_address()).await);
                }
            }
            wires
        });
        for (from, node) in nodes.iter().enumerate() {
            let others = (0..SIZE).filter(|to| *to != from);
            let others = others.map(|to| (short[to].clone(), wires[&(from, to)].port())).collect();
            let port = node.epmd_port();
            runtime.block_on(async {
                let bind = async || TcpListener::bind(("127.0.0.1", port)).await;
                tokio::spawn(names::serve(eventually("the port is free", bind).await, others));
            });
        }
        let cluster = Self { nodes, wires, frozen: Default::default(), _runtime: runtime };
        cluster.start();
        cluster
    }

    /// Starts all nodes that do not run, side by side: each waits for the others.
    fn start(&self) {
        std::thread::scope(|scope| {
            for node in &self.nodes {
                scope.spawn(|| node.start());
            }
        });
    }

    fn flow(&self, node: Number, flow: Flow) {
        for ((from, to), wire) in &self.wires {
            if *from == node || *to == node {
                wire.flow(flow, flow);
            }
        }
    }

    /// Continues the node's process, if it was frozen.
    fn thaw(&self, node: Number) {
        match self.frozen[node].swap(0, Ordering::Relaxed) {
            0 => {}
            pid => signal(pid, "CONT"),
        }
    }

    /// Whether every node runs and sees all others.
    fn is_whole(&self) -> Result<(), String> {
        for node in &self.nodes {
            // 3.10 calls it `all_running`; 4.3 has no Mnesia any more, and so no partitions of it.
            let sees = format!(
                "rabbit:is_running() andalso length(case erlang:function_exported(rabbit_nodes, list_running, 0) of \
                 true -> rabbit_nodes:list_running(); false -> rabbit_nodes:all_running() end) =:= {SIZE} andalso \
                 (not erlang:function_exported(rabbit_node_monitor, partitions, 0) \
                 orelse rabbit_node_monitor:partitions() =:= [])."
            );
            let sees = node.try_eval(&sees).map_err(|error| format!("{}: {error}", node.node_name()))?;
            if sees != "+true" {
                return Err(format!("{} is whole: {sees}", node.node_name()));
            }
        }
        Ok(())
    }
}

impl Cluster {
    /// Waits for the cluster of this test process, and until it is whole.
    pub(crate) async fn whole() -> Self {
        static TURN: OnceLock<Arc<tokio::sync::Mutex<()>>> = OnceLock::new();
        static NODES: OnceLock<Nodes> = OnceLock::new();
        let turn = Arc::clone(TURN.get_or_init(Arc::default)).lock_owned().await;
        let nodes = off_the_runtime(|| NODES.get_or_init(Nodes::boot)).await;
        let cluster = Self { nodes, _turn: turn };
        // A failed test may have left it in pieces.
        for node in 0..SIZE {
            nodes.flow(node, Flow::Free);
            nodes.thaw(node);
        }
        off_the_runtime(|| nodes.start()).await;
        if cluster.becomes_whole(Duration::from_secs(20)).await.is_err() {
            off_the_runtime(|| {
                nodes.nodes.iter().for_each(Broker::kill);
                nodes.start();
            })
            .await;
        }
        cluster.handle_partitions(Partitions::PauseMinority).await;
        cluster.until_whole().await;
        cluster
    }

    pub(crate) fn all() -> std::ops::Range<Number> {
        0..SIZE
    }

    /// Waits until every node runs and sees all others.
    pub(crate) async fn until_whole(&self) {
        let whole = self.becomes_whole(PATIENCE).await;
        whole.expect("the cluster becomes whole");
    }

    async fn becomes_whole(&self, within: Duration) -> Result<(), String> {
        let (nodes, deadline) = (self.nodes, Instant::now() + within);
        loop {
            match off_the_runtime(|| nodes.is_whole()).await {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
                result => return result,
            }
        }
    }

    /// A new virtual host; its URLs, the one of this node first.
    pub(crate) async fn vhost(&self, first: Number) -> Vec<String> {
        let nodes = self.nodes;
        let vhost: Vhost = off_the_runtime(move || nodes.nodes[first].vhost()).await;
        let in_turn = Self::all().map(|number| (first + number) % SIZE);
        in_turn.map(|number| vhost.url_through(nodes.nodes[number].amqp_port())).collect()
    }

    /// The node at this AMQP port.
    pub(crate) fn at_port(&self, port: u16) -> Option<Number> {
        self.nodes.nodes.iter().position(|node| node.amqp_port() == port)
    }

    async fn on(&self, node: Number, work: impl FnOnce(&Broker) + Send + 'static) {
        let node = &self.nodes.nodes[node];
        off_the_runtime(move || work(node)).await;
    }

    async fn eval(&self, node: Number, expressions: String) -> String {
        let node = &self.nodes.nodes[node];
        off_the_runtime(move || node.eval(&expressions)).await
    }

    /// Kills a node with SIGKILL.
    pub(crate) async fn kill(&self, node: Number) {
        self.on(node, Broker::kill).await;
    }

    /// Stops a node as a service manager does.
    pub(crate) async fn stop(&self, node: Number) {
        self.on(node, Broker::stop).await;
    }

    /// Starts a node that was killed or stopped.
    pub(crate) async fn start(&self, node: Number) {
        self.on(node, Broker::start).await;
    }

    /// Stops the node's process in its tracks. Its sockets stay open, and the kernel takes connections for it.
    pub(crate) async fn freeze(&self, node: Number) {
        let pid = self.eval(node, "list_to_integer(os:getpid()).".to_owned()).await;
        let pid = pid.parse().expect("a process id");
        self.nodes.frozen[node].store(pid, Ordering::Relaxed);
        signal(pid, "STOP");
    }

    /// Ends [`Cluster::freeze`].
    pub(crate) fn thaw(&self, node: Number) {
        self.nodes.thaw(node);
    }

    /// Cuts a node off from the others, without a word to any of them. Clients still reach it.
    pub(crate) fn cut_off(&self, node: Number) {
        self.nodes.flow(node, Flow::Stalled);
    }

    /// Ends [`Cluster::cut_off`]. What was held up arrives.
    pub(crate) fn reconnect(&self, node: Number) {
        self.nodes.flow(node, Flow::Free);
    }

    /// Sets what all nodes do in a partition.
    pub(crate) async fn handle_partitions(&self, how: Partitions) {
        let how = match how {
            Partitions::PauseMinority => "pause_minority",
            Partitions::Ignore => "ignore",
        };
        for node in Self::all() {
            let set = format!("application:set_env(rabbit, cluster_partition_handling, {how}).");
            self.eval(node, set).await;
        }
    }

    /// The node that leads a quorum queue of three members; waits until there is one.
    pub(crate) async fn leader(&self, asked: Number, queue: &Queue) -> Number {
        eventually("a queue of three members to have a leader", async || {
            let told =
                self.try_eval(asked, format!("{}, ra:members({{Name, node()}}).", queue.name())).await?;
            let (members, leader) = told.rsplit_once(']').ok_or_else(|| told.clone())?;
            let has = |text: &str, node: &Broker| text.contains(&format!("'{}'", node.node_name()));
            let complete = self.nodes.nodes.iter().all(|node| has(members, node));
            let leader = self.nodes.nodes.iter().position(|node| has(leader, node));
            leader.filter(|_| complete).ok_or(told)
        })
        .await
    }

    /// Makes a node the leader of a quorum queue.
    pub(crate) async fn make_leader(&self, node: Number, queue: &Queue) {
        let (name, target) = (queue.name(), self.nodes.nodes[node].node_name());
        let transfer = format!(
            "{name}, {{ok, _, Leader}} = ra:members({{Name, node()}}), ra:transfer_leadership(Leader, {{Name, '{target}'}})."
        );
        eventually("another node to lead the queue", async || {
            if self.leader(node, queue).await == node {
                return Ok(());
            }
            Err(self.try_eval(node, transfer.clone()).await)
        })
        .await;
    }

    async fn try_eval(&self, node: Number, expressions: String) -> Result<String, String> {
        let node = &self.nodes.nodes[node];
        off_the_runtime(move || node.try_eval(&expressions)).await.map_err(|error| error.to_string())
    }
}

/// A quorum queue.
pub(crate) struct Queue {
    pub(crate) vhost: String,
    pub(crate) queue: &'static str,
}

impl Queue {
    /// An expression that binds `Name` to the name of its members.
    fn name(&self) -> String {
        format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"{}\">>)), \
             {{Name, _}} = amqqueue:get_pid(Q)",
            self.vhost, self.queue
        )
    }
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.expect("kill can be started").success(), "SIG{name} to our own node");
}

/// Runs blocking work without blocking the test's tasks.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(stopped) => std::panic::resume_unwind(stopped.into_panic()),
    }
}
