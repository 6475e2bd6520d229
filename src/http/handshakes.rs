//! Counts failed handshakes of the public listener by cause, and logs them. Without this, an operator whose clients
//! reject the certificate would only see that callbacks are missing.

use std::{
    io,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_tls::accept::TlsError;
use rustls::AlertDescription;

use crate::{
    certificates,
    telemetry::metrics::{HandshakeFailure, Metrics},
};

/// Each cause gets one log line per interval, with the number of failures that were not logged.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Why the handshake failed; `None` if it succeeded and a later step failed.
fn cause(error: &TlsError<io::Error, actix_http::error::DispatchError>) -> Option<HandshakeFailure> {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let error = match error {
        TlsError::Timeout => return Some(HandshakeFailure::Timeout),
        TlsError::Service(_) => return None,
        TlsError::Tls(error) => error,
    };
    if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof) {
        return Some(HandshakeFailure::Closed);
    }
    let fault = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    Some(match fault {
        Some(rustls::Error::InvalidMessage(_)) => HandshakeFailure::NotTls,
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol) => {
            HandshakeFailure::NothingInCommon
        }
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA => HandshakeFailure::CertificateRefused,
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
            | AlertDescription::NoApplicationProtocol => HandshakeFailure::NothingInCommon,
            AlertDescription::CloseNotify | AlertDescription::UserCanceled => HandshakeFailure::Closed,
            _ => HandshakeFailure::Other,
        },
        _ => HandshakeFailure::Other,
    })
}

/// For each cause, the time of its last log line and the number of failures since.
#[derive(Default)]
pub(super) struct Tellings([Mutex<Telling>; HandshakeFailure::ALL.len()]);

#[derive(Default)]
struct Telling {
    told: Option<Instant>,
    untold: u64,
}

impl Telling {
    /// The number of failures since the last line; `None` if this one is not logged either.
    fn due(&mut self, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|told| now.duration_since(told) < TELL_AGAIN) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

impl Tellings {
    /// Counts a connection that ended with this error if its handshake failed, and logs it within the rate limit.
    pub(super) fn note(
        &self,
        error: &TlsError<io::Error, actix_http::error::DispatchError>,
        peer: Option<IpAddr>,
        metrics: &Metrics,
    ) {
        let Some(cause) = cause(error) else { return };
        metrics.http.handshake_failed(cause);
        let due = self.0[cause as usize].lock().unwrap_or_else(PoisonError::into_inner).due(Instant::now());
        let Some(untold) = due else { return };
        let untold = (untold > 0).then_some(untold);
        let peer = peer.map(tracing::field::display);
        let detail = match error {
            TlsError::Tls(error) => {
                let fault = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
                Some(fault.map_or_else(|| error.to_string(), certificates::plain))
            }
            TlsError::Timeout | TlsError::Service(_) => None,
        };
        let (cause, refused) = (cause.as_str(), cause == HandshakeFailure::CertificateRefused);
        if refused {
            let advice = "check its names, its expiry and the chain in http.tls.cert_file";
            tracing::warn!(cause, peer, detail, untold, advice, "TLS handshake failed");
        } else {
            tracing::info!(cause, peer, detail, untold, "TLS handshake failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failed_handshake_has_one_cause() {
        let of = |fault: rustls::Error| cause(&TlsError::Tls(io::Error::other(fault)));
        for alert in [AlertDescription::UnknownCA, AlertDescription::CertificateExpired] {
            assert_eq!(
                of(rustls::Error::AlertReceived(alert)),
                Some(HandshakeFailure::CertificateRefused),
                "{alert:?}"
            );
        }
        let message = rustls::InvalidMessage::InvalidContentType;
        assert_eq!(of(rustls::Error::InvalidMessage(message)), Some(HandshakeFailure::NotTls));
        assert_eq!(of(rustls::Error::NoApplicationProtocol), Some(HandshakeFailure::NothingInCommon));
        assert_eq!(of(rustls::Error::DecryptError), Some(HandshakeFailure::Other));
        let closed = TlsError::Tls(io::ErrorKind::UnexpectedEof.into());
        assert_eq!(cause(&closed), Some(HandshakeFailure::Closed));
        assert_eq!(cause(&TlsError::Timeout), Some(HandshakeFailure::Timeout));
        let after = TlsError::Service(actix_http::error::DispatchError::SlowRequestTimeout);
        assert_eq!(cause(&after), None);
    }

    #[test]
    fn a_flood_of_one_cause_has_a_line_a_minute() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        assert_eq!(telling.due(now), Some(0));
        for second in 0..59 {
            assert_eq!(telling.due(now + Duration::from_secs(second)), None);
        }
        assert_eq!(telling.due(now + TELL_AGAIN), Some(59));
        assert_eq!(telling.due(now + 2 * TELL_AGAIN), Some(0));
    }
}
