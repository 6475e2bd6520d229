//! What came to the public listener beside answered callbacks.

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use strum::{IntoStaticStr, VariantArray};

use super::{counters, words};

/// Why a callback was not heard because of who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum LimitCause {
    /// The peer sent more than its rate.
    Rate,
    /// The peer failed to authenticate too often.
    Failures,
    /// The peer is not in the allow-list, which may be in the mode that only warns.
    NotAllowed,
    /// The peer has as many connections as it may; one more was closed.
    Connections,
}

/// What came to the public listener and is no callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Misdirected {
    /// Somebody looks whether the listener is there.
    HealthCheck,
    /// A person, or a crawler.
    Browser,
    /// Nobody knows.
    Other,
}

/// Why a TLS handshake on the public listener failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum HandshakeFailure {
    /// What came was not TLS: plain HTTP, most likely.
    NotTls,
    /// No version, cipher or protocol in common.
    NothingInCommon,
    /// The client does not accept our certificate.
    CertificateRefused,
    /// The client closed the connection.
    Closed,
    /// It did not end in time.
    Timeout,
    /// Anything else.
    Other,
}

impl HandshakeFailure {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The value of the label `cause`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What came to the public listener beside answered callbacks.
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

    /// Counts a callback of a peer that is over a limit, or outside the allow-list.
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
