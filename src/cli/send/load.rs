//! The load generator: many connections, at a rate or as fast as the answers arrive.
//!
//! At a rate, callbacks are due at fixed times, and latency is measured from the due time. A service that stalls for
//! a second is charged that second by every callback due in it, not only by those in flight ("coordinated omission").
//! Without a rate, each connection sends as soon as it is answered, and latency is measured from the send. That shows
//! the maximum throughput, but says little about latency at lower rates.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::Args;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::{
    Arguments, PATIENCE,
    answer::outcome_of,
    connection::Connection,
    plan::Plan,
    tally::{Ending, Given, Progress, Summary, Tally},
    template::Template,
    verify::{Arrivals, Source, Verifier},
};
use crate::{
    amqp::Settings,
    cli::{exit::Failure, values::duration},
    telemetry::log::chain,
};

/// Default number of connections: enough to keep a group commit full.
const CONNECTIONS: u16 = 64;
/// Pause between connection attempts.
const RECONNECT: Duration = Duration::from_millis(50);
/// Number of errors printed individually.
const TOLD: usize = 5;

#[derive(Debug, Args)]
pub(super) struct LoadArguments {
    /// Send this many callbacks per second, whether or not earlier ones are answered; latencies count from the
    /// time a callback was due
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, help_heading = "Load")]
    rate: Option<f64>,
    /// Send for this long, such as 30s or 5m
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Load")]
    duration: Option<Duration>,
    /// Print only the summary, not a line for each answer; --rate, --duration and --verify imply it
    #[arg(long, help_heading = "Load")]
    summary: bool,
    /// Read the commands back from the broker and account for every id: answered, arrived, missing, duplicated. Exits
    /// with 1 if one is missing
    #[arg(long, value_enum, value_name = "SOURCE", num_args = 0..=1, default_missing_value = "own", help_heading = "Load")]
    verify: Option<Source>,
    /// With --verify: how long to wait for missing commands while none arrives
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s", help_heading = "Load")]
    verify_wait: Duration,
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.001..=1e6).contains(rate))
        .ok_or_else(|| "is not a rate such as 500 or 0.5".to_owned())
}

impl LoadArguments {
    /// True if an option requests the load generator instead of printing answers one by one.
    pub(super) fn wanted(&self) -> bool {
        self.rate.is_some() || self.duration.is_some() || self.verify.is_some() || self.summary
    }

    pub(super) fn verifies(&self) -> bool {
        self.verify.is_some()
    }
}

/// When callbacks are due, and when to stop.
struct Schedule {
    rate: Option<f64>,
    /// Upper limit.
    count: u64,
    /// Without a rate, no callback starts later than this after the start.
    duration: Option<Duration>,
}

impl Schedule {
    fn new(arguments: &Arguments) -> Self {
        let LoadArguments { rate, duration, .. } = arguments.load;
        // With only a rate: until Ctrl-C.
        let endless = duration.is_some() || rate.is_some();
        let wanted = arguments.count.unwrap_or(if endless { u64::MAX } else { 1 });
        let count = match (rate, duration) {
            (Some(rate), Some(duration)) => wanted.min((rate * duration.as_secs_f64()).ceil() as u64),
            _ => wanted,
        };
        Self { rate, count, duration: duration.filter(|_| rate.is_none()) }
    }

    /// When callback `number` is due, relative to the start.
    fn due(rate: f64, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / rate)
    }
}

/// State shared by the connections of one run.
struct Run<'a> {
    schedule: Schedule,
    addresses: Vec<SocketAddr>,
    head: String,
    template: RefCell<Template>,
    tally: RefCell<Tally>,
    began: Instant,
    next: Cell<u64>,
    /// One permit per due callback; unused without a rate.
    due: Arc<Semaphore>,
    ledger: &'a Arrivals,
    told: Cell<usize>,
    progress: RefCell<Progress>,
}

pub(super) async fn run(
    plan: &Plan<'_>,
    url: &reqwest::Url,
    amqp: Option<&Settings>,
) -> Result<Summary, Failure> {
    let arguments = plan.arguments;
    let load = &arguments.load;
    let (addresses, head) = target(url).await?;
    let connections = arguments.connections.unwrap_or(CONNECTIONS);
    let ledger = Arrivals::new(plan.task_prefix(), arguments.task.is_none(), plan.first_message_id);
    let mut verifier = match (load.verify, amqp) {
        (Some(source), Some(amqp)) => Some(Verifier::subscribe(source, amqp).await?),
        _ => None,
    };
    let mut open = Vec::new();
    for _ in 0..connections {
        let connected = tokio::time::timeout(PATIENCE, Connection::open(&addresses)).await;
        let connected = connected.map_err(anyhow::Error::new).and_then(|connected| Ok(connected?));
        open.push(
            connected.with_context(|| format!("cannot connect to {url}")).map_err(Failure::Unavailable)?,
        );
    }
    let run = Run {
        schedule: Schedule::new(arguments),
        addresses,
        head,
        template: RefCell::new(plan.template()),
        tally: RefCell::new(Tally::start()),
        began: Instant::now(),
        next: Cell::new(0),
        due: Arc::new(Semaphore::new(0)),
        ledger: &ledger,
        told: Cell::new(0),
        progress: RefCell::new(Progress::new()),
    };
    let pacer = run
        .schedule
        .rate
        .map(|rate| Pacer::start(rate, run.schedule.count, run.began, run.due.clone(), connections));
    let interrupted = {
        let sending = join_all(open.into_iter().map(|connection| run.work(connection)));
        let following = async {
            match &mut verifier {
                Some(verifier) => verifier.follow(&ledger).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = sending => false,
            failure = following => return Err(failure),
            () = run.tell_progress() => unreachable!("it tells for as long as it is asked"),
            interrupted = tokio::signal::ctrl_c() => interrupted.is_ok(),
        }
    };
    drop(pacer);
    run.progress.borrow().end();
    let wanted = run.due_until_now();
    let account = match verifier {
        Some(verifier) => Some(verifier.finish(&ledger, load.verify_wait).await?),
        None => None,
    };
    let tally = run.tally.into_inner();
    let unsent = if interrupted { 0 } else { wanted.saturating_sub(tally.sent()) };
    let given =
        Given { run: plan.run.clone(), connections: u64::from(connections), rate_wanted: run.schedule.rate };
    Ok(tally.summary(given, unsent, account))
}

/// The addresses to connect to, and the start of each request.
async fn target(url: &reqwest::Url) -> Result<(Vec<SocketAddr>, String), Failure> {
    if url.scheme() != "http" {
        return Err(Failure::Usage("the load generator speaks plain HTTP; use an http:// URL".to_owned()));
    }
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(Failure::Usage(format!("--url {url} names no host")));
    };
    let addresses: Vec<_> = tokio::net::lookup_host((host.trim_matches(['[', ']']), port))
        .await
        .with_context(|| format!("cannot find {host}"))
        .map_err(Failure::Unavailable)?
        .collect();
    if addresses.is_empty() {
        return Err(Failure::Unavailable(anyhow!("{host} has no address")));
    }
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let head = format!(
        "POST {}{query} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\ncontent-length: ",
        url.path()
    );
    Ok((addresses, head))
}

impl Run<'_> {
    /// Sends callbacks sequentially over one connection until the run ends.
    async fn work(&self, connection: Connection) {
        let mut connection = Some(connection);
        let mut request = Vec::with_capacity(4096);
        while let Some((number, from)) = self.next().await {
            request.clear();
            self.write_request(number, &mut request);
            if !connection.as_ref().is_some_and(Connection::is_open) {
                connection = match self.reconnect().await {
                    Ok(connection) => Some(connection),
                    Err(cause) => {
                        self.unanswered(&cause);
                        // The server is gone; the other connections will find out too.
                        return;
                    }
                };
            }
            let open = connection.as_mut().expect("it was made sure above");
            let from = from.unwrap_or_else(Instant::now);
            match tokio::time::timeout(PATIENCE, open.exchange(&request)).await {
                Ok(Ok(response)) => {
                    let latency = from.elapsed();
                    let outcome = outcome_of(response.status, response.body);
                    let ending = self.tally.borrow_mut().answered(response.status, &outcome, latency);
                    match ending {
                        Ending::Accepted => self.ledger.answered(number),
                        Ending::Duplicate => {}
                        Ending::Refused => self.tell_refusal(response.status, &outcome),
                    }
                }
                Ok(Err(error)) => {
                    connection = None;
                    self.unanswered(&chain(&error));
                }
                Err(_elapsed) => {
                    connection = None;
                    self.unanswered("no answer in time");
                }
            }
        }
    }

    /// The next callback, and the start of its latency if that is not the send; `None` at the end.
    async fn next(&self) -> Option<(u64, Option<Instant>)> {
        if let Some(rate) = self.schedule.rate {
            self.due.acquire().await.expect("it is never closed").forget();
            let number = self.take()?;
            let due = self.began + Schedule::due(rate, number);
            // A callback this overdue is reported as unsent.
            return (due.elapsed() < PATIENCE).then_some((number, Some(due)));
        }
        if self.schedule.duration.is_some_and(|duration| self.began.elapsed() >= duration) {
            return None;
        }
        Some((self.take()?, None))
    }

    fn take(&self) -> Option<u64> {
        let number = self.next.get();
        (number < self.schedule.count).then(|| {
            self.next.set(number + 1);
            number
        })
    }

    /// How many callbacks were due until now: all of them, unless the run ended early.
    fn due_until_now(&self) -> u64 {
        if self.schedule.duration.is_some() { self.next.get() } else { self.schedule.count }
    }

    fn write_request(&self, number: u64, into: &mut Vec<u8>) {
        into.extend_from_slice(self.head.as_bytes());
        // The length precedes the body: reserve space and fill it in afterwards.
        let at = into.len();
        into.extend_from_slice(b"        \r\n\r\n");
        let begin = into.len();
        self.template.borrow_mut().render(number, into);
        let length = (into.len() - begin).to_string();
        into[at..at + length.len()].copy_from_slice(length.as_bytes());
    }

    async fn reconnect(&self) -> Result<Connection, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, Connection::open(&self.addresses)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) if Instant::now() + RECONNECT >= deadline => {
                    return Err(format!("cannot connect: {}", chain(&error)));
                }
                Ok(Err(_)) => tokio::time::sleep(RECONNECT).await,
                Err(_elapsed) => return Err("cannot connect in time".to_owned()),
            }
        }
    }

    fn unanswered(&self, cause: &str) {
        if self.tally.borrow_mut().unanswered(cause) && self.may_tell() {
            self.progress.borrow().say(format_args!("countersign: no answer: {cause}"));
        }
    }

    fn tell_refusal(&self, status: u16, outcome: &str) {
        if self.tally.borrow().is_first(outcome) && self.may_tell() {
            self.progress.borrow().say(format_args!("countersign: refused with {status} {outcome}"));
        }
    }

    fn may_tell(&self) -> bool {
        let told = self.told.get() + 1;
        self.told.set(told);
        told <= TOLD
    }

    /// Updates the progress line, forever.
    async fn tell_progress(&self) {
        loop {
            let due = self.progress.borrow().next_at();
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
            let passed = self.began.elapsed().as_secs_f64();
            let done = match (self.schedule.duration, self.schedule.count) {
                (Some(duration), _) => passed / duration.as_secs_f64(),
                (None, count) => self.next.get() as f64 / count as f64,
            };
            self.progress.borrow_mut().tell(&self.tally.borrow(), done);
        }
    }
}

/// Issues a permit for each callback when it is due.
///
/// A thread, because async runtime timers have millisecond resolution, which would be most of the latency of a fast
/// service.
struct Pacer {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Pacer {
    fn start(rate: f64, count: u64, began: Instant, due: Arc<Semaphore>, connections: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = thread::spawn(move || {
            let mut given = 0;
            while given < count && !stopping.load(Ordering::Relaxed) {
                let passed = began.elapsed();
                let reached = ((passed.as_secs_f64() * rate) as u64 + 1).min(count);
                let more = usize::try_from(reached - given).unwrap_or(Semaphore::MAX_PERMITS);
                due.add_permits(more);
                given = reached;
                // At a low rate, wake up now and then to check for the end.
                let wait = Schedule::due(rate, given).saturating_sub(began.elapsed());
                thread::sleep(wait.min(Duration::from_millis(100)));
            }
            // One per connection, so that each wakes up and finds nothing left.
            due.add_permits(usize::from(connections));
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
