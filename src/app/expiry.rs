//! The expiry of our certificates: always as a metric, and in the log once the end is near. Logged at start, each day,
//! and after a certificate was replaced.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::spawn_blocking, time::sleep};

use crate::{
    certificates::{self, Facts, Validity},
    http::Gate,
    telemetry::{
        log::chain,
        metrics::{CertificateUse, Metrics},
    },
    time::Timestamp,
};

/// Delay until the metric shows a renewed certificate.
const LOOK_EVERY: Duration = Duration::from_secs(60);

const TELL_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Watches the certificates while [`Self::keep_telling`] is polled.
pub(super) struct Expiry {
    metrics: Arc<Metrics>,
    client: Mutex<Option<PathBuf>>,
    changed: Notify,
}

impl Expiry {
    pub(super) fn new(metrics: Arc<Metrics>, client: Option<PathBuf>) -> Self {
        Self { metrics, client: Mutex::new(client), changed: Notify::new() }
    }

    /// Switches to another client certificate and checks now.
    pub(super) fn look_again(&self, client: Option<PathBuf>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        self.changed.notify_one();
    }

    pub(super) async fn keep_telling(&self, gate: &Gate) -> Infallible {
        let (mut of_server, mut of_client) = (Telling::default(), Telling::default());
        loop {
            self.note(CertificateUse::Http, gate.certificate(), &mut of_server);
            let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // The file may be on a disk that hangs.
            let facts = match client {
                None => None,
                Some(path) => Some(spawn_blocking(move || read(&path)).await.unwrap_or_else(|panicked| {
                    tracing::error!("cannot inspect a certificate: {}", chain(&panicked));
                    None
                })),
            };
            // The relay reports an unreadable one each time it connects.
            self.note(CertificateUse::Amqp, facts.flatten(), &mut of_client);
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn note(&self, of: CertificateUse, facts: Option<Facts>, telling: &mut Telling) {
        self.metrics.process.set_certificate_not_after(of, facts.map(|facts| facts.not_after.as_second()));
        let now = Timestamp::now();
        let (Some(facts), Some(validity)) = (facts, telling.due(facts, now)) else { return };
        let (key, not_after) = (key(of), facts.not_after.to_string());
        let days_left = facts.not_after.since(now).as_secs() / (24 * 3600);
        match validity {
            Validity::Fine => {}
            Validity::Soon => tracing::warn!(key, not_after, days_left, "the certificate expires soon"),
            Validity::AtOnce => tracing::error!(key, not_after, days_left, "the certificate expires soon"),
            Validity::Expired => tracing::error!(key, not_after, "the certificate has expired"),
            Validity::NotYet => {
                let not_before = facts.not_before.to_string();
                tracing::error!(key, not_before, "the certificate is not valid yet; is the clock right?");
            }
        }
    }
}

fn read(path: &std::path::Path) -> Option<Facts> {
    let pem = certificates::read(path).ok()?;
    Facts::of(path, &certificates::chain(path, &pem).ok()?).ok()
}

fn key(of: CertificateUse) -> &'static str {
    match of {
        CertificateUse::Http => "http.tls.cert_file",
        CertificateUse::Amqp => "amqp.tls.cert_file",
    }
}

#[derive(Debug, Default)]
struct Telling(Option<(Facts, Validity, Timestamp)>);

impl Telling {
    /// The certificate's validity, if it should be logged now.
    fn due(&mut self, facts: Option<Facts>, now: Timestamp) -> Option<Validity> {
        let facts = facts?;
        let validity = facts.validity(now);
        if let Some((of, said, at)) = self.0
            && (of, said) == (facts, validity)
            && now.since(at) < TELL_EVERY
        {
            return None;
        }
        self.0 = Some((facts, validity, now));
        (validity != Validity::Fine).then_some(validity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_from_three_weeks_before_it_once_a_day_and_after() {
        let end: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let days = |days: u64| Duration::from_secs(24 * 3600 * days);
        let facts = Facts { not_before: end - days(90), not_after: end, is_authority: false };
        let mut telling = Telling::default();
        let mut told = Vec::new();
        // Checked each minute, from 25 days before until two days after.
        for minute in 0..27 * 24 * 60 {
            let now = end - days(25) + Duration::from_secs(60 * minute + 1);
            if let Some(validity) = telling.due(Some(facts), now) {
                told.push((i64::try_from(minute / (24 * 60)).unwrap() - 25, validity));
            }
        }
        let soon = (-21..-3).map(|day| (day, Validity::Soon));
        let at_once = (-3..0).map(|day| (day, Validity::AtOnce));
        let expired = [(0, Validity::Expired), (1, Validity::Expired)];
        assert_eq!(told, soon.chain(at_once).chain(expired).collect::<Vec<_>>());

        let renewed = Facts { not_before: end, not_after: end + days(2), is_authority: false };
        assert_eq!(telling.due(Some(renewed), end + days(1)), Some(Validity::AtOnce), "another one");
        assert_eq!(telling.due(Some(renewed), end - days(1)), Some(Validity::NotYet));
        assert_eq!(telling.due(None, end), None);
    }
}
