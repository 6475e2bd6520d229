//! Watches exchanges and queues while commands are published. A deleted or unbound queue is no error to the publisher,
//! whose commands go elsewhere; neither is a queue without consumers, or one with dead letters.
//!
//! It uses a separate connection, open only while the relay has one: an error closes a channel or the whole connection
//! and must not end a publishing session; and where the broker limits connections, the relay's has priority.
//!
//! AMQP cannot query a binding. With `topology = "declare"` each check redeclares it, which is idempotent. With
//! `"check"` a missing one shows as messages in the queue of unrouted commands.

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    sync::Arc,
    time::Duration,
};

use lapin::Channel;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    Broker, Error, Listening, Settings, Topology,
    declare::{look_for_exchange, look_for_queue},
    topology::{self, Plan},
    words::problem,
};
use crate::{
    stop::{Stop, requested},
    telemetry::{
        log::chain,
        metrics::{
            Metrics,
            topology::{CheckResult, Counts, Fault, Problem, Role, View},
        },
    },
    time::Timestamp,
};

/// The connection's name on the broker.
const CONNECTION: &str = "countersign watch";

/// A session that lasts this long is stable. Sessions that come and go each second do not each trigger a check.
const SETTLED: Duration = Duration::from_secs(1);

/// A missing optional queue is queried again after this: the broker logs each query as an error.
const ABSENT_FOR: Duration = Duration::from_secs(3600);

/// Watches exchanges and queues.
#[derive(Debug)]
pub struct Watch {
    settings: Settings,
    connected: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
struct Seen {
    queues: [Option<Counts>; Role::ALL.len()],
    faults: Vec<(Fault, String)>,
    /// Objects that exist again.
    repaired: Vec<String>,
}

impl Watch {
    pub(super) fn new(settings: Settings, connected: watch::Receiver<bool>) -> Self {
        Self { settings, connected }
    }

    /// Checks as soon as there is a session, then every [`Settings::check_interval`], until `stop` is requested.
    /// Reports its findings in `metrics` and logs changes.
    ///
    /// Does nothing with [`Topology::None`], or without an interval. May be dropped at any time.
    pub async fn run(mut self, metrics: Arc<Metrics>, mut stop: Stop) {
        let Some(every) = self.settings.check_interval.filter(|_| self.settings.topology != Topology::None)
        else {
            return requested(&mut stop).await;
        };
        let mut teller = Teller::default();
        loop {
            tokio::select! {
                () = until(&mut self.connected, true) => {}
                () = requested(&mut stop) => return,
            }
            let mut looks = Looks::default();
            let mut connected = self.connected.clone();
            tokio::select! {
                never = self.keep_looking(&mut looks, every, &metrics, &mut teller) => match never {},
                () = until(&mut connected, false) => {}
                () = requested(&mut stop) => {}
            }
            metrics.topology.set(None);
            looks.end().await;
        }
    }

    async fn keep_looking(
        &self,
        looks: &mut Looks,
        every: Duration,
        metrics: &Metrics,
        teller: &mut Teller,
    ) -> std::convert::Infallible {
        sleep(every.min(SETTLED)).await;
        loop {
            let looked = match self.connect(looks).await {
                Ok(()) => timeout(self.settings.connect_timeout, self.look(looks)).await,
                Err(error) => Ok(Err(error)),
            };
            let result = match looked {
                Ok(Ok(seen)) => {
                    let result = seen.result();
                    teller.seen(&seen);
                    metrics.topology.set(Some(seen.into()));
                    result
                }
                Ok(Err(error)) => {
                    teller.failed(&chain(&error));
                    CheckResult::Failed
                }
                Err(_elapsed) => {
                    teller.failed("the broker does not answer in time");
                    CheckResult::Failed
                }
            };
            metrics.topology.checked(result);
            if result == CheckResult::Failed {
                metrics.topology.set(None);
                looks.soiled = true;
            }
            if looks.soiled {
                looks.end().await;
            }
            sleep(every).await;
        }
    }

    /// Connects unless connected. Each broker has its own time limit: the first may be the one that does not answer.
    async fn connect(&self, looks: &mut Looks) -> Result<(), Error> {
        if looks.connection.is_none() {
            let brokers = Broker::parse_all(&self.settings.urls)?;
            looks.connection = Some(Listening::open(&brokers, &self.settings, CONNECTION).await?);
        }
        Ok(())
    }

    async fn look(&self, looks: &mut Looks) -> Result<Seen, Error> {
        // In its place, so that a cancelled check closes it.
        let connection = looks.connection.as_ref().expect("connected before");
        let plan = topology::whole_plan(&self.settings);
        let mut looking = Looking {
            connection,
            plan: &plan,
            declares: self.settings.topology == Topology::Declare,
            absent: &mut looks.absent,
            soiled: &mut looks.soiled,
        };
        let mut seen = looking.look_around().await?;
        if looking.declares {
            match connection.prepare(plan.clone(), &self.settings).await {
                Ok(_) => {
                    let missing = seen.faults.drain(..).map(|(fault, _)| fault.object);
                    // An object that was never there is not lost: a starting service declares at its own pace.
                    seen.repaired = missing.filter(|object| looks.known.contains(object)).collect();
                }
                Err(Error::Topology { object, source, .. }) => {
                    *looking.soiled = true;
                    // Objects declared in the meantime now exist.
                    seen = looking.look_around().await?;
                    let (problem, words) = (problem(&source), chain(&source));
                    seen.faults.retain(|(fault, _)| fault.object != object);
                    seen.faults.push((Fault { object, problem }, words));
                }
                Err(error) => return Err(error),
            }
        }
        let faulty = |object: &String| seen.faults.iter().any(|(fault, _)| fault.object == *object);
        looks.known = plan.objects().filter(|object| !faulty(object)).collect();
        Ok(seen)
    }
}

/// State kept between checks.
#[derive(Debug, Default)]
struct Looks {
    connection: Option<Listening>,
    /// Whether the broker has closed channels of the connection. They are released with it.
    soiled: bool,
    /// Missing optional queues, with the time of the last query.
    absent: HashMap<String, Instant>,
    /// Objects that were in order at the last check.
    known: HashSet<String>,
}

impl Looks {
    async fn end(&mut self) {
        self.soiled = false;
        if let Some(connection) = self.connection.take() {
            connection.close("the look has ended").await;
        }
    }
}

/// One check, which changes nothing on the broker.
struct Looking<'a> {
    connection: &'a Listening,
    plan: &'a Plan,
    declares: bool,
    absent: &'a mut HashMap<String, Instant>,
    soiled: &'a mut bool,
}

impl Looking<'_> {
    async fn look_around(&mut self) -> Result<Seen, Error> {
        let mut seen = Seen::default();
        let mut channel = None;
        let (plan, declares) = (self.plan, self.declares);
        for exchange in plan.exchanges.iter().filter(|exchange| declares || exchange.needed) {
            let open = self.open(&mut channel).await?;
            if let Err(error) = look_for_exchange(&open, exchange).await {
                channel = None;
                self.closed(&error)?;
                seen.refuse(format!("exchange {}", exchange.name), &error);
            }
        }
        for queue in &plan.queues {
            let wanted = declares || queue.needed;
            let asked = self.absent.get(&queue.name);
            if !wanted && asked.is_some_and(|at| at.elapsed() < ABSENT_FOR) {
                continue;
            }
            let open = self.open(&mut channel).await?;
            match look_for_queue(&open, &queue.name).await {
                Ok(found) => {
                    let (messages, consumers) = (found.message_count(), found.consumer_count());
                    seen.queues[queue.role as usize] = Some(Counts { messages, consumers });
                }
                Err(error) => {
                    channel = None;
                    self.closed(&error)?;
                    if wanted {
                        seen.refuse(format!("queue {}", queue.name), &error);
                    } else {
                        self.absent.insert(queue.name.clone(), Instant::now());
                    }
                }
            }
        }
        Ok(seen)
    }

    async fn open(&self, channel: &mut Option<Channel>) -> Result<Channel, Error> {
        if let Some(channel) = channel {
            return Ok(channel.clone());
        }
        let broker = self.connection.broker().clone();
        let opened = self.connection.channel().await;
        let opened = opened.map_err(|source| Error::Channel { broker, source: source.into() })?;
        Ok(channel.insert(opened).clone())
    }

    /// Fails if more than the channel ended.
    fn closed(&mut self, error: &lapin::Error) -> Result<(), Error> {
        *self.soiled = true;
        if super::code(error).is_some() && self.connection.is_open() {
            return Ok(());
        }
        let broker = self.connection.broker().clone();
        Err(Error::Ended { broker, source: Some(error.clone().into()) })
    }
}

impl Seen {
    fn refuse(&mut self, object: String, error: &lapin::Error) {
        self.faults.push((Fault { object, problem: problem(error) }, chain(error)));
    }

    fn result(&self) -> CheckResult {
        if !self.faults.is_empty() {
            CheckResult::Faulty
        } else if !self.repaired.is_empty() {
            CheckResult::Repaired
        } else {
            CheckResult::Ok
        }
    }

    fn queue(&self, role: Role) -> Option<Counts> {
        self.queues[role as usize]
    }
}

impl From<Seen> for View {
    fn from(seen: Seen) -> Self {
        let faults = seen.faults.into_iter().map(|(fault, _)| fault).collect();
        Self { checked_at: Timestamp::now(), queues: seen.queues, faults }
    }
}

/// Logs each change once.
#[derive(Debug, Default)]
struct Teller {
    failed: bool,
    faults: Vec<Fault>,
    /// Last logged message counts of the queues that need attention.
    lying: HashMap<Role, u32>,
    idle: HashMap<Role, u32>,
}

/// Consecutive checks without a consumer before that is logged: workers being replaced are away for a moment.
const IDLE_LOOKS: u32 = 2;

impl Teller {
    fn failed(&mut self, cause: &str) {
        if !std::mem::replace(&mut self.failed, true) {
            warn!(error = cause, "cannot inspect the queues; commands are still published");
        }
    }

    fn seen(&mut self, seen: &Seen) {
        if std::mem::replace(&mut self.failed, false) {
            info!("queues can be inspected again");
        }
        for object in &seen.repaired {
            warn!(object, "missing at the broker; declared again");
        }
        let faults: Vec<_> = seen.faults.iter().map(|(fault, _)| fault.clone()).collect();
        if faults != self.faults {
            for (Fault { object, problem }, words) in &seen.faults {
                let problem = word(*problem);
                error!(object, problem, error = words, "topology mismatch at the broker");
            }
            if faults.is_empty() {
                info!("exchanges and queues match the topology again");
            }
            self.faults = faults;
        }
        self.tell_lying(Role::Unrouted, seen);
        self.tell_lying(Role::Dead, seen);
        self.tell_idle(Role::Commands, seen);
        self.tell_idle(Role::Outcomes, seen);
        for &role in Role::ALL {
            if let Some(Counts { messages, consumers }) = seen.queue(role) {
                debug!(queue = role.as_str(), messages, consumers, "queue inspected");
            }
        }
    }

    fn tell_lying(&mut self, role: Role, seen: &Seen) {
        let Some(Counts { messages, consumers }) = seen.queue(role) else { return };
        // What somebody takes, like ourselves, is on its way.
        let messages = if consumers > 0 { 0 } else { messages };
        let before = self.lying.insert(role, messages).unwrap_or_default();
        let queue = role.as_str();
        if messages > before {
            match role {
                Role::Unrouted => warn!(
                    messages,
                    before, "unroutable commands in countersign.unrouted; bind the queue, then move them"
                ),
                Role::Dead | Role::Commands | Role::Outcomes => warn!(
                    messages,
                    before,
                    "messages in countersign.dead; the headers x-death and countersign-refused say why"
                ),
            }
        } else if messages == 0 && before > 0 {
            info!(queue, before, "queue is empty again");
        }
    }

    fn tell_idle(&mut self, role: Role, seen: &Seen) {
        let Some(Counts { messages, consumers }) = seen.queue(role) else { return };
        let queue = role.as_str();
        let looks = self.idle.entry(role).or_default();
        if consumers > 0 {
            if *looks >= IDLE_LOOKS {
                info!(queue, consumers, "queue has consumers again");
            }
            *looks = 0;
        } else {
            *looks = looks.saturating_add(1);
            if *looks == IDLE_LOOKS {
                warn!(queue, messages, "queue has no consumers");
            }
        }
    }
}

fn word(problem: Problem) -> &'static str {
    match problem {
        Problem::Missing => "missing",
        Problem::DeclaredOtherwise => "declared otherwise",
        Problem::NotPermitted => "not permitted",
        Problem::Refused => "refused",
    }
}

/// Resolves when there is a session, or none; never if the publisher is gone.
async fn until(connected: &mut watch::Receiver<bool>, wanted: bool) {
    if connected.wait_for(|connected| *connected == wanted).await.is_err() {
        pending().await
    }
}
