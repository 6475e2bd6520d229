//! Keeps each credential's last use in the ledger, so a restart does not make an old one look unused.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    ledger::{CredentialUse, Ledger},
    telemetry::{log::chain, metrics::Metrics},
};

/// Maximum age difference between the kept and the known uses. A crash loses as much. One row for each credential, in
/// a commit together with the next accepts.
const BEHIND: Duration = Duration::from_secs(60);

/// The first use after a while is kept this soon: `doctor` reads the ledger to determine whether a credential is still
/// needed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After a failure, which the ledger logs each time.
const AGAIN: Duration = Duration::from_secs(30);

/// Loads the ledger's uses, then keeps changes there.
pub(super) async fn keep(ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) -> Infallible {
    match ledger.credential_uses().await {
        Ok(known) => {
            for CredentialUse { endpoint, tag, known_since, last_used_at } in known {
                metrics.uses.remember(&endpoint, tag, known_since, last_used_at);
            }
        }
        // Writes merge with the ledger's uses, so only the display until then is incomplete.
        Err(error) => {
            tracing::warn!("cannot read when credentials were last used: {}", chain(&error));
        }
    }
    let mut kept: Vec<CredentialUse> = Vec::new();
    loop {
        let known = known(&metrics);
        let mut pause = LOOK_EVERY;
        if is_behind(&kept, &known) {
            if write(&*ledger, known.clone()).await {
                kept = known;
            } else {
                pause = AGAIN;
            }
        }
        sleep(pause).await;
    }
}

/// Keeps the current uses, at the end.
pub(super) async fn keep_last(ledger: &dyn Ledger, metrics: &Metrics) {
    write(ledger, known(metrics)).await;
}

/// Whether the credentials changed, or one's use is new or long after its kept use.
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
    // The ledger logs its own failures.
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
