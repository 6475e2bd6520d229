//! When each credential was used last, kept in the ledger, so that a restart does not make an old one look unused.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    ledger::{CredentialUse, Ledger},
    telemetry::{log::chain, metrics::Metrics},
};

/// What is kept is at most so much older than what is known. A crash forgets as much. One row for each credential, in a commit
/// that goes with the next accepts.
const BEHIND: Duration = Duration::from_secs(60);

/// The first use after a while is kept this soon: `doctor` reads the ledger to say whether a credential is still needed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Remembers what the ledger knows, then keeps what changes there, for as long as it is polled.
pub(super) async fn keep(ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) -> Infallible {
    match ledger.credential_uses().await {
        Ok(known) => {
            for CredentialUse { endpoint, tag, known_since, last_used_at } in known {
                metrics.uses.remember(&endpoint, tag, known_since, last_used_at);
            }
        }
        // What is kept is merged with what is there, so nothing is lost by it but what is shown until then.
        Err(error) => {
            tracing::warn!("cannot read when credentials were last used: {}", chain(&error));
        }
    }
    let mut kept: Vec<CredentialUse> = Vec::new();
    loop {
        let known = known(&metrics);
        if is_behind(&kept, &known) && write(&*ledger, known.clone()).await {
            kept = known;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Keeps what is known now, at the end.
pub(super) async fn keep_last(ledger: &dyn Ledger, metrics: &Metrics) {
    write(ledger, known(metrics)).await;
}

/// Whether there are other credentials, or one of them was used for the first time, or long after what is kept.
fn is_behind(kept: &[CredentialUse], known: &[CredentialUse]) -> bool {
    kept.len() != known.len()
        || kept.iter().zip(known).any(|(kept, known)| {
            let same = (&kept.endpoint, kept.tag) == (&known.endpoint, known.tag);
            let behind = match (kept.last_used_at, known.last_used_at) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(kept), Some(known)) => known.since(kept) >= BEHIND,
            };
            !same || behind
        })
}

async fn write(ledger: &dyn Ledger, known: Vec<CredentialUse>) -> bool {
    // A ledger that takes nothing says so itself.
    ledger.keep_credential_uses(known).await.is_ok()
}

fn known(metrics: &Metrics) -> Vec<CredentialUse> {
    let known = metrics.uses.known().into_iter().map(|used| CredentialUse {
        endpoint: used.endpoint.as_ref().to_owned(),
        tag: used.tag,
        known_since: used.known_since,
        last_used_at: used.last_used_at,
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn used(tag: u16, last_used_s: Option<u64>) -> CredentialUse {
        let at = |seconds| Timestamp::UNIX_EPOCH + Duration::from_secs(seconds);
        CredentialUse {
            endpoint: "purchase".to_owned(),
            tag,
            known_since: at(0),
            last_used_at: last_used_s.map(at),
        }
    }

    #[test]
    fn the_first_use_is_kept_at_once_and_a_busy_credential_once_a_minute() {
        assert!(is_behind(&[], &[used(1, None)]));
        assert!(!is_behind(&[used(1, None)], &[used(1, None)]));
        assert!(is_behind(&[used(1, None)], &[used(1, Some(5))]));
        assert!(!is_behind(&[used(1, Some(5))], &[used(1, Some(64))]));
        assert!(is_behind(&[used(1, Some(5))], &[used(1, Some(65))]));
        assert!(is_behind(&[used(1, Some(5))], &[used(2, Some(5))]), "another one in its place");
    }
}
