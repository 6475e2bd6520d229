//! Endpoints with several credentials: which of them are still used.

use std::time::Duration;

use super::Results;
use crate::{
    cli::{exit::Failure, opened, output::counted},
    config::Loaded,
    intake::EndpointSettings,
    ledger::CredentialUse,
    time::Timestamp,
};

/// A credential unused for this long, while another one was used, is probably obsolete.
const UNUSED: Duration = Duration::from_secs(7 * 86_400);

pub(super) async fn look(results: &mut Results, loaded: &Loaded) -> Result<(), Failure> {
    let Ok(endpoints) = loaded.endpoints() else { return Ok(()) };
    let rotating = || endpoints.iter().filter(|endpoint| endpoint.credentials.len() > 1);
    if rotating().next().is_none() {
        return Ok(());
    }
    // Ledger problems are reported elsewhere.
    let Ok(ledger) = opened::client(loaded).await else { return Ok(()) };
    let Ok(uses) = ledger.credential_uses().await else { return Ok(()) };
    let now = Timestamp::now();
    for endpoint in rotating() {
        let known: Vec<_> = endpoint.credentials.iter().map(|one| find(&uses, endpoint, one.tag())).collect();
        let told: Vec<_> =
            known.iter().enumerate().map(|(at, used)| format!("[{at}] {}", words(*used, now))).collect();
        let told = format!("{} has {} credentials: {}", endpoint.name, known.len(), told.join(", "));
        let idle = known.iter().position(|used| used.is_some_and(|used| is_idle(used, &known, now)));
        match idle {
            Some(at) => results.risky(
                "rotation",
                format!("{told}; the rotation can be finished: take credentials[{at}] out, and reload"),
            )?,
            None => results.ok("rotation", told)?,
        }
    }
    Ok(())
}

fn find<'u>(uses: &'u [CredentialUse], endpoint: &EndpointSettings, tag: u16) -> Option<&'u CredentialUse> {
    uses.iter().find(|used| used.endpoint == endpoint.name && used.tag == tag)
}

/// Unused for long, while another credential of the endpoint was used within that time.
fn is_idle(used: &CredentialUse, all: &[Option<&CredentialUse>], now: Timestamp) -> bool {
    let quiet_since = |used: &CredentialUse| used.last_used_at.unwrap_or(used.known_since);
    let is_live = |other: &CredentialUse| other.last_used_at.is_some_and(|at| now.since(at) < UNUSED);
    now.since(quiet_since(used)) >= UNUSED && all.iter().flatten().any(|other| is_live(other))
}

fn words(used: Option<&CredentialUse>, now: Timestamp) -> String {
    match used {
        None => "not seen by a running service yet".to_owned(),
        Some(CredentialUse { last_used_at: Some(at), .. }) => {
            format!("was last used {} ago", ago(now.since(*at)))
        }
        Some(used) => {
            format!("was not used since it was configured {} ago", ago(now.since(used.known_since)))
        }
    }
}

fn ago(time: Duration) -> String {
    let count = |seconds: u64, unit: &str| counted(time.as_secs() / seconds, unit);
    match time.as_secs() {
        0..120 => count(1, "second"),
        120..7_200 => count(60, "minute"),
        7_200..172_800 => count(3_600, "hour"),
        _ => count(86_400, "day"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used_at(now: Timestamp, known_days: u64, last_days: Option<u64>) -> CredentialUse {
        let days = |days: u64| Duration::from_secs(86_400 * days);
        CredentialUse {
            endpoint: "purchase".to_owned(),
            tag: 1,
            known_since: now - days(known_days),
            last_used_at: last_days.map(|last| now - days(last)),
        }
    }

    #[test]
    fn an_old_credential_is_idle_when_the_new_one_is_used_and_it_is_not() {
        // One moment for all: a day is no longer a day a millisecond later.
        let now = Timestamp::now();
        let used = |known_days, last_days| used_at(now, known_days, last_days);
        let idle = |one: CredentialUse, other: CredentialUse| is_idle(&one, &[Some(&one), Some(&other)], now);
        assert!(idle(used(90, Some(9)), used(10, Some(0))));
        assert!(idle(used(90, None), used(10, Some(0))));
        assert!(!idle(used(90, Some(2)), used(10, Some(0))), "somebody still uses it");
        assert!(!idle(used(90, Some(9)), used(90, Some(9))), "a quiet endpoint tells nothing");
        assert!(!idle(used(2, None), used(90, Some(0))), "it is the new one");
        assert_eq!(words(Some(&used(90, Some(9))), now), "was last used 9 days ago");
        assert_eq!(words(Some(&used(1, None)), now), "was not used since it was configured 24 hours ago");
    }
}
