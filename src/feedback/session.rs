//! A session with one queue: connects, subscribes, takes messages in batches, and connects again when it ends.

use std::{future::pending, sync::Arc, time::Duration};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
};
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use crate::{
    amqp::{self, Error, Listening, listen_in},
    backoff,
    ledger::AcceptError,
    relay::Failure,
    stop::{Stop, requested},
    telemetry::{log::chain, metrics::Metrics},
};

/// First delay after a lost connection, as in the relay.
const FIRST_DELAY: Duration = Duration::from_millis(250);

/// Delay after an end that waiting alone does not change.
const LONG_DELAY: Duration = Duration::from_secs(60);

const LEDGER_PAUSE: Duration = Duration::from_millis(500);

/// How often the log repeats that the ledger keeps nothing.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// A session that lasted this long was good, with or without messages.
const GOOD: Duration = Duration::from_secs(10);

/// lapin may never answer if the connection ends at the wrong moment.
const STEP: Duration = Duration::from_secs(10);

/// Why a session ended.
pub(super) enum End {
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
    /// For [`LONG_DELAY`] the inbox had no room for some messages. They go back to their queue.
    Full,
}

/// Whether a batch was taken.
pub(super) enum Taken {
    /// All of it.
    Whole,
    /// Not those that the inbox has no room for. The session keeps them from the next consumer, and goes on.
    Partly,
}

impl From<lapin::Error> for End {
    fn from(error: lapin::Error) -> Self {
        Self::Lapin(error)
    }
}

/// What a session does with the messages of its queue.
pub(super) trait Inbox: Send + Sync {
    /// What tells whether the relay is connected.
    fn metrics(&self) -> &Metrics;

    /// The connection name that the broker displays.
    fn connection(&self) -> &'static str;

    /// The queue.
    fn queue(&self) -> &str;

    /// Maximum messages in a batch.
    fn prefetch(&self) -> u16;

    /// The setting that leaves the queue alone, if the service is complete without it.
    fn without(&self) -> Option<&'static str>;

    /// Declares or looks for the queue; returns an open channel.
    fn prepare<'a>(
        &'a self,
        listening: &'a Listening,
        broker: &'a amqp::Settings,
    ) -> BoxFuture<'a, Result<Channel, Error>>;

    /// What it needs for one session.
    type Session: Send;

    /// Called once a session has its connection.
    fn begin(&self, listening: &Arc<Listening>) -> Self::Session;

    /// Keeps a batch, then acknowledges it in the broker's order, so that redelivery after a crash keeps the order.
    fn take<'a>(
        &'a self,
        session: &'a mut Self::Session,
        batch: Vec<Delivery>,
        stop: &'a mut Stop,
    ) -> BoxFuture<'a, Result<Taken, End>>;
}

/// Takes messages until a stop is requested, and connects again as needed.
pub(super) async fn run(inbox: &impl Inbox, broker: &amqp::Settings, mut stop: Stop) {
    let mut failures = 0;
    loop {
        // Where the broker allows few connections, the relay's comes first.
        tokio::select! {
            () = until_relay_is_connected(inbox) => {}
            () = requested(&mut stop) => return,
        }
        let connected = tokio::select! {
            connected = listen_in(broker, inbox.connection()) => connected,
            () = requested(&mut stop) => return,
        };
        let end = match connected {
            Ok(listening) => {
                let (listening, began) = (Arc::new(listening), Instant::now());
                let mut taken = 0;
                let Err(end) = serve(inbox, broker, &listening, &mut taken, &mut stop).await;
                if let Some(listening) = Arc::into_inner(listening) {
                    listening.close("the queue is no longer consumed").await;
                }
                if taken > 0 || began.elapsed() >= GOOD {
                    failures = 0;
                }
                end
            }
            Err(failure) => End::Amqp(failure),
        };
        failures += 1;
        let mut delay = backoff::delay(FIRST_DELAY, failures, backoff::random());
        let (delay_ms, queue) = (delay.as_millis(), inbox.queue());
        match end {
            End::Stopped => return,
            End::Amqp(failure)
                if failure.needs_operator()
                    && let Some(without) = inbox.without() =>
            {
                delay = LONG_DELAY;
                let error = chain(&failure);
                if failures == 1 {
                    warn!(
                        queue,
                        error, without, "cannot consume from a queue; what it holds stays with the broker"
                    );
                } else {
                    debug!(queue, error, "still cannot consume from a queue");
                }
            }
            End::Amqp(failure) if failure.needs_operator() => {
                error!(delay_ms, failures, queue, error = %chain(&failure), "cannot consume from a queue; operator action required");
            }
            End::Amqp(failure) => {
                warn!(delay_ms, failures, queue, error = %chain(&failure), "cannot consume from a queue; reconnecting");
            }
            End::Lapin(failure) => {
                warn!(delay_ms, failures, queue, error = %chain(&failure), "cannot consume from a queue; reconnecting");
            }
            End::Cancelled => warn!(delay_ms, failures, queue, "a consumed queue was deleted; reconnecting"),
            End::Silent => {
                warn!(delay_ms, failures, queue, "broker does not respond while consuming; reconnecting");
            }
            End::Full => debug!(queue, "looking again whether there is room for what a queue holds"),
        }
        tokio::select! {
            () = sleep(delay) => {}
            () = requested(&mut stop) => return,
        }
    }
}

async fn until_relay_is_connected(inbox: &impl Inbox) {
    while !inbox.metrics().relay.connected() {
        sleep(FIRST_DELAY).await;
    }
}

async fn serve(
    inbox: &impl Inbox,
    broker: &amqp::Settings,
    listening: &Arc<Listening>,
    taken: &mut usize,
    stop: &mut Stop,
) -> Result<std::convert::Infallible, End> {
    let subscribing = timeout(broker.connect_timeout, subscribe(inbox, broker, listening));
    let mut deliveries = tokio::select! {
        subscribed = subscribing => subscribed.map_err(|_elapsed| End::Silent)??,
        () = requested(stop) => return Err(End::Stopped),
    };
    info!(broker = %listening.broker(), queue = inbox.queue(), "consuming from a queue");
    let mut session = inbox.begin(listening);
    let mut full_until = None;
    loop {
        let first = tokio::select! {
            delivery = deliveries.next() => delivery.ok_or(End::Cancelled)??,
            () = until(full_until) => return Err(End::Full),
            () = requested(stop) => return Err(End::Stopped),
        };
        let mut batch = vec![first];
        while batch.len() < usize::from(inbox.prefetch())
            && let Some(Some(delivery)) = deliveries.next().now_or_never()
        {
            batch.push(delivery?);
        }
        let count = batch.len();
        if matches!(inbox.take(&mut session, batch, stop).await?, Taken::Partly) {
            full_until.get_or_insert(Instant::now() + LONG_DELAY);
        }
        *taken += count;
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

async fn subscribe(
    inbox: &impl Inbox,
    broker: &amqp::Settings,
    listening: &Listening,
) -> Result<Consumer, End> {
    let channel = inbox.prepare(listening, broker).await.map_err(End::Amqp)?;
    channel.basic_qos(inbox.prefetch(), BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(inbox.queue().into(), "".into(), options, FieldTable::default());
    consumer.await.map_err(|source| End::Amqp(listening.refused_to_consume(inbox.queue(), source)))
}

/// Tells the broker what became of a message, within [`STEP`].
pub(super) async fn tell(telling: impl Future<Output = lapin::Result<()>>) -> Result<(), End> {
    Ok(timeout(STEP, telling).await.map_err(|_elapsed| End::Silent)??)
}

/// Retries an idempotent operation of the ledger until it succeeds.
pub(super) async fn until_it_works<T, E, F>(ask: impl Fn() -> F) -> T
where
    E: std::error::Error + 'static,
    F: Future<Output = Result<T, E>>,
{
    let mut complaint = Complaint::default();
    loop {
        match ask().await {
            Ok(answer) => {
                complaint.withdraw();
                return answer;
            }
            Err(error) => complaint.tell(1, &error),
        }
        sleep(LEDGER_PAUSE).await;
    }
}

/// Keeps things in order, many per commit, with retries. From the first failure on, all are retried, so that the last
/// one stays the last.
pub(super) async fn keep_all<T, A, F>(things: &[T], ask: impl Fn(&T) -> F) -> Vec<A>
where
    F: Future<Output = Result<A, AcceptError>>,
{
    let mut kept = Vec::with_capacity(things.len());
    let mut complaint = Complaint::default();
    loop {
        let asked: Vec<_> = things[kept.len()..].iter().map(&ask).collect();
        let mut failure = None;
        for answer in join_all(asked).await {
            match answer {
                Ok(answer) if failure.is_none() => kept.push(answer),
                Ok(_) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            None => {
                complaint.withdraw();
                return kept;
            }
            Some(error) => complaint.tell(things.len() - kept.len(), &error),
        }
        sleep(LEDGER_PAUSE).await;
    }
}

/// Says at most once a minute that the ledger keeps nothing, and when it does again.
#[derive(Default)]
struct Complaint(Option<Instant>);

impl Complaint {
    fn tell(&mut self, waiting: usize, error: &(dyn std::error::Error + 'static)) {
        if self.0.is_none_or(|told| told.elapsed() >= REMIND_AFTER) {
            self.0 = Some(Instant::now());
            warn!(waiting, error = %chain(error), "ledger cannot keep what came back; retrying");
        }
    }

    fn withdraw(&self) {
        if self.0.is_some() {
            info!("ledger keeps what comes back again");
        }
    }
}

/// Resolves one second after a stop request, when the ledger has most likely finished its current write.
pub(super) async fn given_up(stop: &mut Stop) {
    requested(stop).await;
    sleep(Duration::from_secs(1)).await;
}
