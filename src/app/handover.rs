//! A leader that does not reach the broker lets another replica lead, which may reach it.
//!
//! It reaches the broker when a publish is confirmed, or a session has lasted for [`STEADY`] in which the broker left nothing
//! unanswered for as long. A session that soon ends again, or in which nothing is ever confirmed, is none: another replica
//! may be at a better node. A broker that blocks publishing is waited for: it does so to all replicas.
//!
//! If none reaches it, each leads in turn. So each waits twice as long as the last time, until it has reached the broker, or
//! has followed for [`LONGEST_PATIENCE`]: a leader that stayed for so long has reached it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{ledger::Ledger, telemetry::metrics::Metrics};

/// A broker that is restarted, or a node of it that is left for another, takes less.
const PATIENCE: Duration = Duration::from_secs(15);
const LONGEST_PATIENCE: Duration = Duration::from_secs(600);

/// A session that lasts so long is not one of those that a broker or a balancer ends as soon as they begin.
const STEADY: Duration = Duration::from_secs(5);

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Hands the lead on when it is time, as long as it is polled.
pub(super) async fn hand_on(ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) -> Infallible {
    let mut term = ledger.term();
    let mut patience = PATIENCE;
    let mut session = BrokerSession::default();
    let (mut away_since, mut follows_since) = (None, None);
    loop {
        let leads = term.borrow_and_update().is_some();
        let reached = session.look(&metrics);
        if leads {
            follows_since = None;
        } else if follows_since.get_or_insert_with(Instant::now).elapsed() >= LONGEST_PATIENCE {
            patience = PATIENCE;
        }
        if leads && reached {
            patience = PATIENCE;
        }
        if !leads || reached {
            away_since = None;
        } else if away_since.get_or_insert_with(Instant::now).elapsed() >= patience && !session.is_on_trial()
        {
            away_since = None;
            if ledger.resign() {
                tracing::warn!(
                    waited_s = patience.as_secs(),
                    "the leader does not reach the broker; another replica may lead"
                );
                patience = (2 * patience).min(LONGEST_PATIENCE);
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The relay's session with the broker, looked at from time to time.
#[derive(Default)]
struct BrokerSession {
    /// Which one it is, and when it was seen first; `None` if there is none.
    current: Option<(u64, Instant)>,
    /// It follows one that did not last.
    is_repeated: bool,
    confirmed: u64,
}

impl BrokerSession {
    /// Looks again; true if the broker was reached.
    fn look(&mut self, metrics: &Metrics) -> bool {
        let number = metrics.relay.session();
        if number != self.current.map(|(number, _)| number) {
            if let Some((_, since)) = self.current {
                self.is_repeated = since.elapsed() < STEADY;
            }
            self.current = number.map(|number| (number, Instant::now()));
        }
        let confirmed = metrics.relay.confirmed();
        let answers = confirmed > std::mem::replace(&mut self.confirmed, confirmed);
        let is_steady = self.current.is_some_and(|(_, since)| since.elapsed() >= STEADY)
            && metrics.relay.unanswered() < STEADY;
        if answers || is_steady {
            self.is_repeated = false;
        }
        answers || is_steady
    }

    /// Whether it is the first after a time without, and may become steady yet.
    fn is_on_trial(&self) -> bool {
        !self.is_repeated && self.current.is_some_and(|(_, since)| since.elapsed() < STEADY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{app::tests::double::Double, telemetry::metrics::PublishResult};

    /// Lets so much time pass; tells how often the leader resigned.
    async fn pass(ledger: &Double, seconds: u64) -> usize {
        let before = ledger.resigned();
        sleep(Duration::from_secs(seconds)).await;
        ledger.resigned() - before
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_without_the_broker_resigns_and_each_time_later_until_it_has_reached_it() {
        let (ledger, metrics) = (Arc::new(Double::default()), Metrics::new());
        let task = tokio::spawn(hand_on(ledger.clone(), metrics.clone()));
        metrics.relay.set_connected(true);
        assert_eq!(pass(&ledger, 100).await, 0, "it publishes");
        metrics.relay.set_connected(false);
        assert_eq!(pass(&ledger, 10).await, 0, "a broker may be restarted");
        metrics.relay.set_connected(true);
        assert_eq!(pass(&ledger, 7).await, 0);
        metrics.relay.set_connected(false);
        assert_eq!(pass(&ledger, 14).await, 0, "what was before does not count");
        assert_eq!(pass(&ledger, 4).await, 1);
        assert_eq!(pass(&ledger, 28).await, 0);
        assert_eq!(pass(&ledger, 4).await, 1);
        assert_eq!(pass(&ledger, 56).await, 0);

        ledger.lead(false);
        assert_eq!(pass(&ledger, 200).await, 0, "another one leads");
        ledger.lead(true);
        assert_eq!(pass(&ledger, 4).await, 0);
        metrics.relay.set_connected(true);
        assert_eq!(pass(&ledger, 8).await, 0, "it has reached the broker");
        metrics.relay.set_connected(false);
        assert_eq!(pass(&ledger, 18).await, 1, "patience begins again");
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_do_not_last_are_none() {
        let (ledger, metrics) = (Arc::new(Double::default()), Metrics::new());
        let task = tokio::spawn(hand_on(ledger.clone(), metrics.clone()));
        let flap = async |times: usize| {
            let before = ledger.resigned();
            for _ in 0..times {
                metrics.relay.set_connected(true);
                sleep(Duration::from_millis(1500)).await;
                metrics.relay.set_connected(false);
                sleep(Duration::from_millis(1500)).await;
            }
            ledger.resigned() - before
        };
        assert_eq!(flap(4).await, 0, "12 s");
        assert_eq!(flap(3).await, 1, "21 s");
        assert_eq!(flap(7).await, 0, "patience has grown all the same");
        assert_eq!(flap(6).await, 1);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_has_just_begun_is_given_its_time() {
        let (ledger, metrics) = (Arc::new(Double::default()), Metrics::new());
        let task = tokio::spawn(hand_on(ledger.clone(), metrics.clone()));
        assert_eq!(pass(&ledger, 13).await, 0);
        metrics.relay.set_connected(true);
        assert_eq!(pass(&ledger, 100).await, 0, "it lasts");
        metrics.relay.set_connected(false);
        assert_eq!(pass(&ledger, 13).await, 0);
        metrics.relay.set_connected(true);
        assert_eq!(pass(&ledger, 4).await, 0);
        metrics.relay.set_connected(false);
        assert_eq!(pass(&ledger, 2).await, 1, "it did not");
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_confirms_nothing_is_not_reached() {
        let (ledger, metrics) = (Arc::new(Double::default()), Metrics::new());
        let task = tokio::spawn(hand_on(ledger.clone(), metrics.clone()));
        metrics.relay.set_connected(true);
        for second in 0..14 {
            metrics.relay.set_unanswered(Duration::from_secs(second));
            assert_eq!(pass(&ledger, 1).await, 0, "{second}");
        }
        metrics.relay.published(PublishResult::Confirmed, 1);
        assert_eq!(pass(&ledger, 14).await, 0, "slow as it is");
        assert_eq!(pass(&ledger, 4).await, 1);
        // Blocked: nothing is in flight.
        metrics.relay.set_unanswered(Duration::ZERO);
        assert_eq!(pass(&ledger, 1000).await, 0);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn patience_of_an_outage_long_ago_begins_again() {
        let (ledger, metrics) = (Arc::new(Double::default()), Metrics::new());
        let task = tokio::spawn(hand_on(ledger.clone(), metrics.clone()));
        assert_eq!(pass(&ledger, 60).await, 2, "after 15 s, and 30 s later");
        ledger.lead(false);
        // A leader that stays for so long has reached the broker, or would have handed on.
        sleep(LONGEST_PATIENCE + Duration::from_secs(10)).await;
        ledger.lead(true);
        assert_eq!(pass(&ledger, 13).await, 0);
        assert_eq!(pass(&ledger, 5).await, 1, "15 s again");
        ledger.lead(false);
        sleep(Duration::from_secs(120)).await;
        ledger.lead(true);
        assert_eq!(pass(&ledger, 25).await, 0, "the same outage: the others have just handed on");
        task.abort();
    }
}
