//! A leader that does not reach the broker lets another replica lead, which may reach it.
//!
//! If none does, each leads in turn. So each waits twice as long as the last time, until it has reached the broker.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{ledger::Ledger, telemetry::metrics::Metrics};

/// A broker that is restarted, or a node of it that is left for another, takes less.
const PATIENCE: Duration = Duration::from_secs(15);
const LONGEST_PATIENCE: Duration = Duration::from_secs(600);

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Hands the lead on when it is time, as long as it is polled.
pub(super) async fn hand_on(ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) -> Infallible {
    let mut term = ledger.term();
    let mut patience = PATIENCE;
    let mut away_since = None;
    loop {
        let leads = term.borrow_and_update().is_some();
        if leads && metrics.relay.connected() {
            patience = PATIENCE;
        }
        if !leads || metrics.relay.connected() {
            away_since = None;
        } else if away_since.get_or_insert_with(Instant::now).elapsed() >= patience {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::double::Double;

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
        assert_eq!(pass(&ledger, 5).await, 0);
        metrics.relay.set_connected(false);
        assert_eq!(pass(&ledger, 14).await, 0, "what was before does not count");
        assert_eq!(pass(&ledger, 4).await, 1);
        assert_eq!(pass(&ledger, 28).await, 0);
        assert_eq!(pass(&ledger, 4).await, 1);
        assert_eq!(pass(&ledger, 56).await, 0);

        ledger.lead(false);
        assert_eq!(pass(&ledger, 10_000).await, 0, "another one leads");
        ledger.lead(true);
        metrics.relay.set_connected(true);
        assert_eq!(pass(&ledger, 2).await, 0);
        metrics.relay.set_connected(false);
        assert_eq!(pass(&ledger, 18).await, 1, "patience begins again");
        task.abort();
    }
}
