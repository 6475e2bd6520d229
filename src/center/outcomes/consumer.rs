//! Consumes reports, stores them in the ledger, and then acknowledges them.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, future::join_all};
use lapin::{
    Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use super::{
    Resources, Rules, Settings,
    burial::Burial,
    permit::{Named, check},
};
use crate::{
    amqp::{self, Error, Existing, Listening, listen_in},
    backoff,
    command::outcome::{Kind, Outcome},
    ledger::{RefusedReport, Reported},
    relay::Failure,
    stop::{Stop, requested},
    telemetry::{failpoint::reach, log::chain, metrics::ReportResult},
};

/// The connection name that the broker displays.
const CONNECTION: &str = "countersign outcomes";

/// First delay after a lost connection, as in the relay.
const FIRST_DELAY: Duration = Duration::from_millis(250);

const LEDGER_PAUSE: Duration = Duration::from_millis(500);

/// How often the log repeats that the ledger stores nothing.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// A session that lasted this long was good, with or without reports.
const GOOD: Duration = Duration::from_secs(10);

/// lapin may never answer if the connection ends at the wrong moment.
const STEP: Duration = Duration::from_secs(10);

/// Why a session ended.
enum End {
    /// A stop was requested.
    Stopped,
    /// The broker, through lapin.
    Lapin(lapin::Error),
    /// The broker, before the session began.
    Amqp(Error),
    /// The broker cancelled the subscription: the queue was deleted.
    Cancelled,
    /// The broker did not respond.
    Silent,
}

impl From<lapin::Error> for End {
    fn from(error: lapin::Error) -> Self {
        Self::Lapin(error)
    }
}

/// Consumes reports until a stop is requested, and reconnects as needed. Notifies `bell` when there is something to
/// show.
pub(super) async fn run(resources: &Resources, broker: &amqp::Settings, settings: &Settings, bell: &Notify) {
    let mut stop = resources.stop.clone();
    let existing = Existing::default();
    let mut failures = 0;
    loop {
        let connected = tokio::select! {
            connected = listen_in(broker, CONNECTION) => connected,
            () = requested(&mut stop) => return,
        };
        let end = match connected {
            Ok(listening) => {
                let began = Instant::now();
                let subscription = Subscription {
                    resources,
                    settings,
                    bell,
                    listening: &listening,
                    existing: &existing,
                    burial: Burial::new(&listening),
                    taken: 0,
                };
                let (end, taken) = subscription.serve(broker, &mut stop).await;
                listening.close("outcomes are no longer taken").await;
                if taken > 0 || began.elapsed() >= GOOD {
                    failures = 0;
                }
                end
            }
            Err(failure) => End::Amqp(failure),
        };
        failures += 1;
        let delay = backoff::delay(FIRST_DELAY, failures, backoff::random());
        let (delay_ms, queue) = (delay.as_millis(), &*settings.queue);
        match end {
            End::Stopped => return,
            End::Amqp(failure) if failure.needs_operator() => {
                error!(delay_ms, failures, queue, error = %chain(&failure), "cannot consume outcomes; operator action required");
            }
            End::Amqp(failure) => {
                warn!(delay_ms, failures, queue, error = %chain(&failure), "cannot consume outcomes; reconnecting");
            }
            End::Lapin(failure) => {
                warn!(delay_ms, failures, queue, error = %chain(&failure), "cannot consume outcomes; reconnecting");
            }
            End::Cancelled => {
                warn!(delay_ms, failures, queue, "outcomes queue was deleted; reconnecting");
            }
            End::Silent => {
                warn!(
                    delay_ms,
                    failures, queue, "broker does not respond on the outcomes connection; reconnecting"
                );
            }
        }
        tokio::select! {
            () = sleep(delay) => {}
            () = requested(&mut stop) => return,
        }
    }
}

struct Subscription<'a> {
    resources: &'a Resources,
    settings: &'a Settings,
    bell: &'a Notify,
    listening: &'a Listening,
    existing: &'a Existing,
    burial: Burial<'a>,
    taken: u64,
}

impl Subscription<'_> {
    /// Returns why the session ended, and how many reports it took.
    async fn serve(mut self, broker: &amqp::Settings, stop: &mut Stop) -> (End, u64) {
        let Err(end) = self.serve_until(broker, stop).await;
        (end, self.taken)
    }

    async fn serve_until(
        &mut self,
        broker: &amqp::Settings,
        stop: &mut Stop,
    ) -> Result<std::convert::Infallible, End> {
        let subscribing = async {
            match timeout(broker.connect_timeout, self.subscribe(broker)).await {
                Ok(subscribed) => subscribed,
                Err(_elapsed) => Err(End::Silent),
            }
        };
        let mut deliveries = tokio::select! {
            subscribed = subscribing => subscribed?,
            () = requested(stop) => return Err(End::Stopped),
        };
        info!(broker = %self.listening.broker(), queue = self.settings.queue, "consuming outcomes");
        loop {
            let first = tokio::select! {
                delivery = deliveries.next() => delivery.ok_or(End::Cancelled)??,
                () = requested(stop) => return Err(End::Stopped),
            };
            let mut batch = vec![first];
            while batch.len() < usize::from(self.settings.prefetch)
                && let Some(Some(delivery)) = deliveries.next().now_or_never()
            {
                batch.push(delivery?);
            }
            self.take(batch, stop).await?;
        }
    }

    async fn subscribe(&self, broker: &amqp::Settings) -> Result<Consumer, End> {
        let queue = &*self.settings.queue;
        let prepared = self.listening.prepare_outcomes(queue, broker, self.existing).await;
        let channel = prepared.map_err(End::Amqp)?;
        channel.basic_qos(self.settings.prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        Ok(channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?)
    }

    /// Stores a batch, then acknowledges it in the broker's order, so that redelivery after a crash keeps the order.
    async fn take(&mut self, batch: Vec<Delivery>, stop: &mut Stop) -> Result<(), End> {
        let read: Vec<_> = batch.iter().map(|delivery| read(&delivery.data)).collect();
        let told = tokio::select! {
            told = self.judge_and_keep(read) => told,
            // A failing ledger must not block the shutdown. Unacknowledged messages are redelivered.
            () = given_up(stop) => return Err(End::Stopped),
        };
        reach("outcome:kept");
        if told.iter().any(|told| told.is_kept()) {
            self.bell.notify_one();
        }
        for (delivery, Handled { result, dead }) in batch.iter().zip(told) {
            self.resources.metrics.outcomes.reported(result);
            let told = async {
                match dead {
                    Some(reason) => self.burial.bury(delivery, &reason).await,
                    None => delivery.acker.ack(BasicAckOptions::default()).await.map(drop),
                }
            };
            timeout(STEP, told).await.map_err(|_elapsed| End::Silent)??;
            self.taken += 1;
        }
        reach("outcome:acknowledged");
        Ok(())
    }

    /// Stores permitted reports, and records refused ones.
    async fn judge_and_keep(&self, read: Vec<Result<Outcome, String>>) -> Vec<Handled> {
        let mut refusals = Vec::with_capacity(read.len());
        for outcome in &read {
            refusals.push(match outcome {
                Ok(outcome) => self.refusal(outcome).await,
                Err(_) => None,
            });
        }
        let kept: Vec<&Outcome> = read
            .iter()
            .zip(&refusals)
            .filter_map(|(read, refusal)| read.as_ref().ok().filter(|_| refusal.is_none()))
            .collect();
        let mut reported = self.keep(&kept).await.into_iter();
        let mut told = Vec::with_capacity(read.len());
        for (outcome, refusal) in read.iter().zip(refusals) {
            told.push(match (outcome, refusal) {
                (Err(problem), _) => {
                    Handled { result: ReportResult::Malformed, dead: Some(format!("it {problem}")) }
                }
                (Ok(outcome), Some(reason)) => {
                    self.write_refusal(outcome, &reason).await;
                    Handled { result: ReportResult::NotPermitted, dead: Some(reason) }
                }
                (Ok(outcome), None) => {
                    log_report(outcome, reported.next().expect("there is an answer for each outcome"))
                }
            });
        }
        told
    }

    /// Why a report is not permitted, if its instance does not belong to its command.
    async fn refusal(&self, outcome: &Outcome) -> Option<String> {
        let instance = outcome.instance.as_ref()?;
        let record = self.until_it_works(|| self.resources.ledger.find(outcome.command_id)).await?;
        let strict = Rules::default();
        let rules = self.settings.rules.get(&record.endpoint).unwrap_or(&strict);
        let named = Named {
            instance_id: record.instance_id.as_deref(),
            approval_code: record.approval_code.as_deref(),
        };
        let refused = check(instance, named, rules).err()?;
        let (command_id, reason) = (outcome.command_id, refused.to_string());
        warn!(%command_id, outcome = outcome.kind.as_str(), reason,
            "report refused: not about its own command; dead-lettered");
        Some(reason)
    }

    async fn write_refusal(&self, outcome: &Outcome, reason: &str) {
        let (command_id, kind) = (outcome.command_id, outcome.kind);
        let refused = || RefusedReport { command_id, kind, reason: reason.to_owned() };
        self.until_it_works(|| self.resources.ledger.refuse_report(refused())).await;
    }

    /// Retries an idempotent ledger operation until it succeeds.
    async fn until_it_works<T, E, F>(&self, ask: impl Fn() -> F) -> T
    where
        E: std::error::Error + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let mut told: Option<Instant> = None;
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) => {
                    if told.is_none_or(|told| told.elapsed() >= REMIND_AFTER) {
                        told = Some(Instant::now());
                        warn!(error = %chain(&error), "ledger cannot store reports; retrying");
                    }
                    sleep(LEDGER_PAUSE).await;
                }
            }
        }
    }

    /// Stores reports, many per commit, with retries. From the first failure on, all are retried, so that the last
    /// report of a command stays the last.
    async fn keep(&self, outcomes: &[&Outcome]) -> Vec<Reported> {
        let mut reported = Vec::with_capacity(outcomes.len());
        let mut told: Option<Instant> = None;
        loop {
            let left = &outcomes[reported.len()..];
            let asked: Vec<_> =
                left.iter().map(|outcome| self.resources.ledger.report((*outcome).clone())).collect();
            let mut failure = None;
            for answer in join_all(asked).await {
                match answer {
                    Ok(answer) if failure.is_none() => reported.push(answer),
                    Ok(_) => {}
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            let Some(error) = failure else {
                if told.is_some() {
                    info!("ledger stores outcomes again");
                }
                return reported;
            };
            if told.is_none_or(|told| told.elapsed() >= REMIND_AFTER) {
                told = Some(Instant::now());
                let waiting = outcomes.len() - reported.len();
                warn!(waiting, error = %chain(&error), "ledger cannot store outcomes; retrying");
            }
            sleep(LEDGER_PAUSE).await;
        }
    }
}

struct Handled {
    result: ReportResult,
    /// Why it is dead-lettered, if it is: redelivery would not help.
    dead: Option<String>,
}

impl Handled {
    fn is_kept(&self) -> bool {
        matches!(self.result, ReportResult::Applied | ReportResult::Refused | ReportResult::Failed)
    }
}

fn read(body: &[u8]) -> Result<Outcome, String> {
    Outcome::parse(body).map_err(|problem| {
        let bytes = body.len();
        warn!(%problem, bytes, "invalid message in the outcomes queue; dead-lettered");
        problem.to_string()
    })
}

fn log_report(outcome: &Outcome, reported: Reported) -> Handled {
    let (command_id, word) = (outcome.command_id, outcome.kind.as_str());
    match reported {
        Reported::Kept => {
            info!(%command_id, outcome = word, "outcome kept");
            let result = match outcome.kind {
                Kind::Applied => ReportResult::Applied,
                Kind::Refused => ReportResult::Refused,
                Kind::Failed => ReportResult::Failed,
            };
            Handled { result, dead: None }
        }
        Reported::Repeat => Handled { result: ReportResult::Duplicate, dead: None },
        Reported::UnknownCommand => {
            warn!(%command_id, outcome = word, "report about an unknown command; dead-lettered");
            let dead = Some("the ledger has no such command".to_owned());
            Handled { result: ReportResult::UnknownCommand, dead }
        }
    }
}

/// Resolves one second after a stop request, when the ledger has most likely finished its current write.
async fn given_up(stop: &mut Stop) {
    requested(stop).await;
    sleep(Duration::from_secs(1)).await;
}
