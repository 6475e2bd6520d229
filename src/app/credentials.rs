//! When each credential was used last, kept in the ledger, so that a restart does not make an old one look unused.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    ledger::{CredentialUse, Ledger},
    telemetry::{log::chain, metrics::Metrics},
};

/// A crash forgets as much. One row for each credential, in a commit that goes with the next accepts.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// Remembers what the ledger knows, then keeps what changes there, for as long as it is polled.
pub(super) async fn keep(ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) -> Infallible {
    match ledger.credential_uses().await {
        Ok(known) => {
            for CredentialUse { endpoint, tag, known_since, last_used_at } in known {
                metrics.uses().remember(&endpoint, tag, known_since, last_used_at);
            }
        }
        // What is kept is merged with what is there, so nothing is lost by it but what is shown until then.
        Err(error) => {
            tracing::warn!("it cannot be told when credentials were used before: {}", chain(&error));
        }
    }
    let mut kept = Vec::new();
    loop {
        let known = known(&metrics);
        if known != kept && write(&*ledger, known.clone()).await {
            kept = known;
        }
        sleep(KEEP_EVERY).await;
    }
}

/// Keeps what is known now, at the end.
pub(super) async fn keep_last(ledger: &dyn Ledger, metrics: &Metrics) {
    write(ledger, known(metrics)).await;
}

async fn write(ledger: &dyn Ledger, known: Vec<CredentialUse>) -> bool {
    // A ledger that takes nothing says so itself.
    ledger.keep_credential_uses(known).await.is_ok()
}

fn known(metrics: &Metrics) -> Vec<CredentialUse> {
    let known = metrics.uses().known().into_iter().map(|used| CredentialUse {
        endpoint: used.endpoint.as_ref().to_owned(),
        tag: used.tag,
        known_since: used.known_since,
        last_used_at: used.last_used_at,
    });
    known.collect()
}
