//! The public listener, except answered callbacks.

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use strum::{IntoStaticStr, VariantArray};

use super::{counters, words};

/// Why a callback was limited because of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum LimitCause {
    /// The peer exceeded its rate.
    Rate,
    /// The peer failed to authenticate too often.
    Failures,
    /// The peer is not in the allow-list, which may be in warn-only mode.
    NotAllowed,
    /// The peer has its maximum number of connections; one more was closed.
    Connections,
}

/// A request to the public listener that is no callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Misdirected {
    /// A health check.
    HealthCheck,
    /// A person, or a crawler.
    Browser,
    /// Unknown.
    Other,
}

/// Why a TLS handshake on the public listener failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum HandshakeFailure {
    /// The data was not TLS, most likely plain HTTP.
    NotTls,
    /// No version, cipher or protocol in common.
    NothingInCommon,
    /// The client rejected our certificate.
    CertificateRefused,
    /// The client closed the connection.
    Closed,
    /// It timed out.
    Timeout,
    /// Anything else.
    Other,
}

impl HandshakeFailure {
    /// All causes.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The value of the label `cause`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Metrics of the public listener, except answered callbacks.
#[derive(Debug)]
pub struct Http {
    peers_limited: Box<[Counter]>,
    misdirected: Box<[Counter]>,
    handshake_failures: Box<[Counter]>,
}

impl Http {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            peers_limited: counters(
                registry,
                "peers_limited",
                "Callbacks, and connections, of peers over a limit, by cause",
                "cause",
                words::<LimitCause>(),
            ),
            misdirected: counters(
                registry,
                "misdirected_requests",
                "Requests to the public listener that are not callbacks, by kind; they are not counted as callbacks",
                "kind",
                words::<Misdirected>(),
            ),
            handshake_failures: counters(
                registry,
                "tls_handshake_failures",
                "TLS handshakes of the public listener that failed, by cause",
                "cause",
                words::<HandshakeFailure>(),
            ),
        }
    }

    /// Counts a callback of a peer that exceeds a limit or is not in the allow-list.
    pub fn peer_limited(&self, cause: LimitCause) {
        self.peers_limited[cause as usize].inc();
    }

    /// Counts a request to the public listener that is no callback.
    pub fn request_misdirected(&self, kind: Misdirected) {
        self.misdirected[kind as usize].inc();
    }

    /// Counts a TLS handshake of the public listener that failed.
    pub fn handshake_failed(&self, cause: HandshakeFailure) {
        self.handshake_failures[cause as usize].inc();
    }
}
