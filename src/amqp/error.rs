//! Errors of a session, and whether a publish caused them.

use std::time::Duration;

use lapin::ErrorKind;

use super::url::Address;
use crate::relay::Failure;

/// Why no session could be opened, or why it ended.
///
/// The messages name the broker by host, port and virtual host, never user or password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A URL cannot be used.
    #[error("broker URL number {number} {fault}")]
    Url {
        /// Counted from 1.
        number: usize,
        /// The fault of the URL.
        fault: &'static str,
    },
    /// No broker is configured.
    #[error("no broker URL is configured")]
    NoUrl,
    /// A broker did not accept the connection.
    #[error("cannot connect to {broker}")]
    Connect {
        /// The broker.
        broker: Address,
        /// The cause.
        #[source]
        source: Box<lapin::Error>,
    },
    /// The TLS handshake failed.
    #[error("no TLS with {broker}: {advice}")]
    Tls {
        /// The broker.
        broker: Address,
        /// The problem and what to do.
        advice: String,
        /// The cause, unless `advice` covers it.
        #[source]
        source: Option<Box<lapin::Error>>,
    },
    /// A broker did not answer in time.
    #[error("cannot connect to {broker} within {limit:?}")]
    ConnectTimeout {
        /// The broker.
        broker: Address,
        /// [`Settings::connect_timeout`](super::Settings::connect_timeout).
        limit: Duration,
    },
    /// An exchange, queue or binding cannot be declared or does not exist.
    #[error("cannot {verb} {object} on {broker}; {advice}")]
    Topology {
        /// `declare`, `find` or `consume from`.
        verb: &'static str,
        /// The object.
        object: String,
        /// The broker.
        broker: Address,
        /// What to do.
        advice: String,
        /// The cause.
        #[source]
        source: Box<lapin::Error>,
    },
    /// No channel could be opened.
    #[error("cannot open a channel on {broker}")]
    Channel {
        /// The broker.
        broker: Address,
        /// The cause.
        #[source]
        source: Box<lapin::Error>,
    },
    /// The connection or the channel ended.
    #[error("the connection to {broker} ended")]
    Ended {
        /// The broker.
        broker: Address,
        /// The cause, if it is known.
        #[source]
        source: Option<Box<lapin::Error>>,
    },
}

impl Failure for Error {
    fn needs_operator(&self) -> bool {
        match self {
            Self::Url { .. } | Self::NoUrl | Self::Tls { .. } => true,
            Self::ConnectTimeout { .. } => false,
            Self::Connect { source, .. } | Self::Channel { source, .. } => is_refusal(source),
            // Without the exchange there is nothing to publish to, and waiting does not create it.
            Self::Topology { source, .. } => is_refusal(source) || code(source) == Some(404),
            Self::Ended { source, .. } => source.as_deref().is_some_and(is_refusal),
        }
    }

    fn is_silence(&self) -> bool {
        let Self::Ended { source, .. } = self else { return false };
        matches!(source.as_deref().map(lapin::Error::kind), Some(ErrorKind::MissingHeartbeatError))
    }

    fn blames_publish(&self) -> Option<String> {
        match self {
            Self::Ended { source, .. } => source.as_deref().and_then(blame),
            Self::Url { .. }
            | Self::NoUrl
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::ConnectTimeout { .. }
            | Self::Topology { .. }
            | Self::Channel { .. } => None,
        }
    }
}

impl Error {
    /// The reply code and text with which a broker refused or ended the connection.
    #[must_use]
    pub fn reply(&self) -> Option<(u16, &str)> {
        let source = match self {
            Self::Connect { source, .. } | Self::Channel { source, .. } | Self::Topology { source, .. } => {
                source
            }
            Self::Tls { source, .. } | Self::Ended { source, .. } => source.as_ref()?,
            Self::Url { .. } | Self::NoUrl | Self::ConnectTimeout { .. } => return None,
        };
        match source.kind() {
            ErrorKind::ProtocolError(error) => Some((error.get_id(), error.get_message().as_str())),
            _ => None,
        }
    }
}

/// The AMQP reply code of an error, if the broker sent one.
pub(super) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// The broker's reply code and text, if it ended a publish-only session over a publish.
///
/// - 403 access refused: of the topic, that is, the routing key. A user who may not write to the exchange at all is
///   refused with every command, so no single command is to blame.
/// - 311 content too large, 406 precondition failed: the message is larger than `max_message_size`, or has a property
///   that the broker does not accept.
/// - 501 frame error, 502 syntax error, 503 command invalid, 505 unexpected frame, 540 not implemented, 541 internal
///   error: the broker could not parse or process it.
///
/// Not 320 connection forced (shut down), 404 not found (the exchange was deleted), 504 and 506 (channel, resources).
fn blame(error: &lapin::Error) -> Option<String> {
    let ErrorKind::ProtocolError(error) = error.kind() else { return None };
    let (code, text) = (error.get_id(), error.get_message().as_str());
    let blames = match code {
        403 => !text.contains("access to exchange"),
        311 | 406 | 501 | 502 | 503 | 505 | 540 | 541 => true,
        _ => false,
    };
    blames.then(|| format!("{code} {text}"))
}

/// 403 access refused (user, password or permission), 406 precondition failed (declared with other properties), 530
/// not allowed (no such virtual host).
fn is_refusal(error: &lapin::Error) -> bool {
    matches!(code(error), Some(403 | 406 | 530))
}

#[cfg(test)]
mod tests {
    use std::io;

    use lapin::protocol::AMQPError;

    use super::*;

    /// The broker's error when it closes a channel or connection.
    fn said(code: u16, text: &str) -> Box<lapin::Error> {
        let error = AMQPError::from_id(code, text.into()).expect("a reply code of AMQP 0-9-1");
        Box::new(ErrorKind::ProtocolError(error).into())
    }

    fn ended(source: Box<lapin::Error>) -> Error {
        Error::Ended { broker: Address::of("localhost", 5672, "/"), source: Some(source) }
    }

    #[test]
    fn only_ends_over_what_was_published_blame_it() {
        for code in [311, 406, 501, 502, 503, 505, 540, 541] {
            let blame = ended(said(code, "the broker's words")).blames_publish();
            assert_eq!(blame, Some(format!("{code} the broker's words")));
        }
        for code in [320, 404, 405, 504, 506, 530] {
            assert_eq!(ended(said(code, "the broker's words")).blames_publish(), None, "{code}");
        }
        assert_eq!(ended(Box::new(io::Error::from(io::ErrorKind::BrokenPipe).into())).blames_publish(), None);
    }

    #[test]
    fn only_missing_heartbeats_are_silence() {
        assert!(ended(Box::new(ErrorKind::MissingHeartbeatError.into())).is_silence());
        assert!(!ended(said(320, "shut down")).is_silence());
        assert!(!ended(Box::new(io::Error::from(io::ErrorKind::ConnectionReset).into())).is_silence());
    }

    #[test]
    fn a_routing_key_that_may_not_be_written_blames_the_command_and_an_exchange_does_not() {
        let topic = "ACCESS_REFUSED - write access to topic 'approval.purchase' in exchange 'e' refused";
        assert_eq!(ended(said(403, topic)).blames_publish(), Some(format!("403 {topic}")));
        let exchange = "ACCESS_REFUSED - write access to exchange 'e' in vhost '/' refused";
        assert_eq!(ended(said(403, exchange)).blames_publish(), None);
    }

    #[test]
    fn nothing_is_blamed_on_a_publish_before_there_was_one() {
        let broker = Address::of("localhost", 5672, "/");
        let source = said(406, "declared with other properties");
        let advice = "look";
        let error = Error::Topology {
            verb: "declare",
            object: "queue q".to_owned(),
            broker,
            advice: advice.to_owned(),
            source,
        };
        assert_eq!(error.blames_publish(), None);
    }

    #[test]
    fn what_waiting_does_not_fix_needs_an_operator() {
        let broker = Address::of("localhost", 5672, "/");
        let connect = |source| Error::Connect { broker: broker.clone(), source };
        let find = |source| {
            let object = "exchange e".to_owned();
            Error::Topology {
                verb: "find",
                object,
                broker: broker.clone(),
                advice: "make it".to_owned(),
                source,
            }
        };
        for code in [403, 406, 530] {
            assert!(connect(said(code, "")).needs_operator(), "{code}");
            assert!(find(said(code, "")).needs_operator(), "{code}");
            assert!(ended(said(code, "")).needs_operator(), "{code}");
        }
        assert!(find(said(404, "")).needs_operator(), "waiting does not make an exchange");
        assert!(!ended(said(404, "")).needs_operator(), "the next session declares it again");
        for code in [320, 541] {
            assert!(!connect(said(code, "")).needs_operator(), "{code}");
            assert!(!find(said(code, "")).needs_operator(), "{code}");
            assert!(!ended(said(code, "")).needs_operator(), "{code}");
        }
        assert!(
            !connect(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused).into())).needs_operator()
        );
        assert!(Error::NoUrl.needs_operator());
    }
}
