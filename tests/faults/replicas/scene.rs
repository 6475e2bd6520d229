//! Two replicas behind a balancer, on a pair of PostgreSQLs and a broker, with a wire on each way that leads from a replica.

use super::balancer::Balancer;
use super::traffic::{Pace, Traffic};
use crate::oracle::{Figures, Oracle};
use crate::say;
use crate::support::postgres::PostgresPair;
use crate::support::{App, Config, Endpoint, Vhost, Worker, eventually, eventually_within, quoted};
use crate::wire::{Flow, Wire};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Enough to be in the middle of things.
pub(super) const SOME: usize = 150;

/// By then callbacks are answered and commands published again, after any fault: what docs/faults.md and docs/replicas.md tell
/// are figures far below, and this machine may be busy.
pub(super) const BOUND: Duration = Duration::from_secs(30);

const COMMANDS: &str = "countersign.commands";
const CONFIRMED: &str = r#"countersign_publishes_total{result="confirmed"}"#;

/// See the module.
pub(super) struct Scene {
    pub(super) pair: PostgresPair,
    pub(super) replicas: [App; 2],
    pub(super) oracle: Oracle,
    pub(super) balancer: Balancer,
    /// Without it the queue is read only at the end.
    worker: Option<Worker>,
    /// Where the queue is read at the end.
    pub(super) read_at: String,
    ways: [Ways; 2],
    /// Of the ledger, past all wires.
    pub(super) ledger: String,
}

/// The ways of one replica.
pub(super) struct Ways {
    postgres: Vec<Wire>,
    broker: Vec<Wire>,
}

impl Ways {
    async fn to(pair: &PostgresPair, brokers: &[String]) -> Self {
        let mut ways = Self { postgres: Vec::new(), broker: Vec::new() };
        for address in pair.addresses() {
            ways.postgres.push(Wire::to(address).await);
        }
        for url in brokers {
            ways.broker.push(Wire::to(SocketAddr::from(([127, 0, 0, 1], port(url)))).await);
        }
        ways
    }

    /// Loses all that goes to and from this PostgreSQL, or lets it pass again.
    pub(super) fn postgres(&self, number: usize, flow: Flow) {
        self.postgres[number].flow(flow, flow);
    }

    /// Loses all that goes to and from this node of the broker, or lets it pass again.
    pub(super) fn broker(&self, node: usize, flow: Flow) {
        self.broker[node].flow(flow, flow);
    }
}

fn port(url: &str) -> u16 {
    let after = url.split("127.0.0.1:").nth(1).expect("all servers of the tests are there");
    after.split('/').next().and_then(|port| port.parse().ok()).expect("a port")
}

/// The configuration of a replica, as docs/replicas.md shows it.
pub(super) fn configuration(ledger: &str, brokers: &[String]) -> Config {
    // An approver who is refused for a whole failover taps again, and that is known as the same decision.
    let purchase = Endpoint::encrypted("purchase").set("dedupe_window", "\"10m\"");
    let list: Vec<String> = brokers.iter().map(|url| quoted(url)).collect();
    Config::bare(&brokers[0])
        .endpoint(purchase)
        .set("http", "trusted_proxies", "[\"127.0.0.1\"]")
        .set("ledger", "url", &quoted(ledger))
        .set("ledger", "durability", "\"standby\"")
        // The environment stands above the file, which has `url`.
        .env("COUNTERSIGN__AMQP__URLS", &format!("[{}]", list.join(", ")))
}

impl Scene {
    /// With one node of RabbitMQ, from which a worker takes the commands all the time.
    pub(super) async fn begin() -> Self {
        let vhost = Vhost::new().await;
        let worker = Some(Worker::on(&vhost));
        Self::before(&[vhost.url().to_owned()], worker, |config| config).await
    }

    /// [`Scene::begin`] with replicas that are configured otherwise.
    pub(super) async fn configured(configure: impl Fn(Config) -> Config) -> Self {
        let vhost = Vhost::new().await;
        let worker = Some(Worker::on(&vhost));
        Self::before(&[vhost.url().to_owned()], worker, configure).await
    }

    /// With a cluster of RabbitMQ: its queue is read when all is over, through its last node.
    pub(super) async fn before_cluster(brokers: &[String]) -> Self {
        Self::before(brokers, None, |config| config).await
    }

    async fn before(
        brokers: &[String],
        worker: Option<Worker>,
        configure: impl Fn(Config) -> Config,
    ) -> Self {
        let pair = PostgresPair::boot(true).await;
        let ledger = pair.database().await;
        let ways = [Ways::to(&pair, brokers).await, Ways::to(&pair, brokers).await];
        let start = async |ways: &Ways| {
            let mut url = ledger.clone();
            for (address, wire) in pair.addresses().iter().zip(&ways.postgres) {
                url = url.replace(&format!(":{}", address.port()), &format!(":{}", wire.port()));
            }
            let through = |(url, wire): (&String, &Wire)| {
                url.replace(&format!(":{}", port(url)), &format!(":{}", wire.port()))
            };
            let brokers: Vec<String> = brokers.iter().zip(&ways.broker).map(through).collect();
            App::with(configure(configuration(&url, &brokers))).await
        };
        let replicas = [start(&ways[0]).await, start(&ways[1]).await];
        let balancer = tokio::task::block_in_place(|| Balancer::before(&replicas));
        let read_at = brokers.last().expect("at least one").clone();
        Self { pair, replicas, oracle: Oracle::new(), balancer, worker, read_at, ways, ledger }
    }

    /// The ways of a replica.
    pub(super) fn ways(&self, replica: usize) -> &Ways {
        &self.ways[replica]
    }

    /// Loses all that goes between the replicas and this PostgreSQL, or lets it pass again.
    pub(super) fn all_to_postgres(&self, number: usize, flow: Flow) {
        self.ways.iter().for_each(|ways| ways.postgres(number, flow));
    }

    /// The replica that leads; waits until one does.
    pub(super) async fn leader(&self) -> usize {
        eventually("a leader", async || {
            for (number, replica) in self.replicas.iter().enumerate() {
                if leads(replica).await {
                    return Ok(number);
                }
            }
            Err("none leads")
        })
        .await
    }

    /// Waits until this replica leads; tells how long that took.
    pub(super) async fn until_leads(&self, number: usize) -> Duration {
        let began = Instant::now();
        eventually_within(BOUND, "the other replica to lead", async || {
            if leads(&self.replicas[number]).await { Ok(()) } else { Err(()) }
        })
        .await;
        began.elapsed()
    }

    /// How many commands are known to have been published, repeats included.
    pub(super) async fn published(&self) -> usize {
        if let Some(worker) = &self.worker {
            return worker.count();
        }
        let mut sum = 0.0;
        for replica in &self.replicas {
            sum += replica.metric(CONFIRMED).await.unwrap_or_default();
        }
        // A count of commands, far below what an f64 holds.
        sum as usize
    }

    /// Waits until callbacks are answered and commands are published, and says when that was.
    pub(super) async fn goes_on(&self, traffic: &Traffic, since: Instant, fault: &str) {
        traffic.until_answered(SOME, BOUND).await;
        let answered = since.elapsed();
        let wanted = self.published().await + SOME;
        eventually_within(BOUND, "commands to be published again", async || match self.published().await {
            published if published >= wanted => Ok(()),
            published => Err((published, wanted)),
        })
        .await;
        say(&format!(
            "{fault}: {SOME} more are answered after {answered:.1?}, {SOME} more published after {:.1?}",
            since.elapsed()
        ));
    }

    /// Waits until nobody is refused any more.
    pub(super) async fn until_refused_no_more(&self) {
        /// Longer than a replica holds a callback, and than the balancer waits for it.
        const QUIET: Duration = Duration::from_secs(5);
        let (mut refused, mut since) = (self.oracle.refused(), Instant::now());
        eventually_within(BOUND, "the balancer to pass over the replica", async || {
            if self.oracle.refused() > refused {
                (refused, since) = (self.oracle.refused(), Instant::now());
            }
            if since.elapsed() > QUIET { Ok(()) } else { Err(refused) }
        })
        .await;
    }

    /// Lets something happen under load; then compares what was answered with what came.
    pub(super) async fn survives(
        mut self,
        fault: &str,
        happening: impl AsyncFnOnce(&mut Self, &Traffic),
    ) -> (Figures, Pace) {
        let traffic = Traffic::begin(&self.oracle, &self.balancer.url());
        self.goes_on(&traffic, Instant::now(), "before").await;
        let watch = self.worker.as_ref().map(Watch::over);
        happening(&mut self, &traffic).await;
        let pace = traffic.end().await;
        let silent = watch.map(|watch| watch.longest());
        let worker = self.worker.take().unwrap_or_else(|| Worker::at(&self.read_at, COMMANDS));
        let [replica, _] = &self.replicas;
        let figures = self.oracle.account(replica, &worker).await.check(fault);
        say(&format!(
            "{fault}: the longest time without a 200 was {:.1?}, without a command {silent:.1?}; the slowest answer took {:.1?}; \
             connections without an answer: {}",
            pace.gap, pace.slowest, pace.unanswered
        ));
        assert_eq!(figures.parked, 0, "{fault}");
        let known = |reason: &String| {
            reason.starts_with("the balancer's 50")
                || ["ledger_unavailable", "shutting_down"].contains(&&**reason)
        };
        assert!(
            figures.refused.keys().all(known),
            "{fault}: each refusal has a reason of its own: {figures}"
        );
        (figures, pace)
    }
}

async fn leads(replica: &App) -> bool {
    let asked = tokio::time::timeout(Duration::from_secs(2), replica.try_admin("/readyz")).await;
    matches!(asked, Ok(Ok(answer)) if answer.json()["leader"]["here"] == true)
}

/// Looks how long nothing comes from the queue.
struct Watch {
    longest: Arc<Mutex<Duration>>,
    over: Arc<AtomicBool>,
}

impl Watch {
    fn over(worker: &Worker) -> Self {
        let (longest, over) = (Arc::<Mutex<Duration>>::default(), Arc::new(AtomicBool::new(false)));
        let watch = Self { longest: Arc::clone(&longest), over: Arc::clone(&over) };
        let counter = worker.counter();
        tokio::spawn(async move {
            let (mut count, mut since) = (counter(), Instant::now());
            while !over.load(Ordering::Relaxed) {
                let now = counter();
                if now > count {
                    (count, since) = (now, Instant::now());
                }
                {
                    let mut longest = longest.lock().unwrap_or_else(PoisonError::into_inner);
                    *longest = longest.max(since.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        watch
    }

    fn longest(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        *self.longest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
