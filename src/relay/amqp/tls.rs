//! TLS to the broker: whom we believe, who we say we are, and what an operator is told when that fails.

use std::{io, path::PathBuf};

use lapin::{
    ErrorKind,
    tcp::{RustlsConnector, RustlsConnectorConfig},
};
use rustls::{AlertDescription, CertificateError};

use crate::certificates::{self, Facts};

/// How `amqps://` brokers are spoken to. The files are read at each connect, so renewed ones need no restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The authorities that the broker's certificate may come from, in PEM; those of the system if absent.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, with those that lead to its authority, and its private key, both in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Settings {
    /// Whether a connection could be tried with the files as they are now; if so, what our certificate, if there is one,
    /// says of itself.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<Option<Facts>, certificates::Error> {
        if let Some(path) = &self.ca_file {
            certificates::read_authorities(path)?;
        }
        let Some((cert, key)) = &self.identity else { return Ok(None) };
        let (chain, _) = certificates::read_pair(cert, key)?;
        Facts::of(cert, &chain).map(Some)
    }
}

/// Reads the files.
pub(super) fn connector(settings: &Settings) -> io::Result<RustlsConnector> {
    let config = match &settings.ca_file {
        None => RustlsConnectorConfig::new_with_native_certs()?,
        Some(path) => {
            let authorities = certificates::read(path).and_then(|pem| certificates::chain(path, &pem));
            RustlsConnectorConfig::default()
                .with_parsable_certificates(authorities.map_err(io::Error::other)?)
        }
    };
    match &settings.identity {
        None => config.connector_with_no_client_auth(),
        Some((cert, key)) => {
            let (chain, key) = certificates::read_pair(cert, key).map_err(io::Error::other)?;
            config.connector_with_single_cert(chain, key)
        }
    }
}

/// What to do about a connection over TLS that was not to be had; `None` if TLS is not the reason. `identified` if we have a
/// certificate to show.
pub(super) fn advice(error: &lapin::Error, identified: bool) -> Option<&'static str> {
    let ErrorKind::IOError(error) = error.kind() else { return None };
    if broken_off(error.kind()) {
        return Some(if identified {
            "it broke off the connection at once; if the line is sound, it does not accept our certificate (amqp.tls.cert_file)"
        } else {
            "it broke off the connection at once; if the line is sound, it asks for a client certificate: set amqp.tls.cert_file and amqp.tls.key_file"
        });
    }
    let cause = error.get_ref()?;
    if cause.is::<certificates::Error>() {
        return Some("look at the files of [amqp.tls]");
    }
    Some(match cause.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(fault) => match fault {
            // The second where an authority was made anew under its old name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate comes from no authority that is believed: those in amqp.tls.ca_file, or else the system's"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired; it needs another, or the clock of this machine is wrong"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; is the clock of this machine wrong?"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name than the host in amqp.url"
            }
            _ => "its certificate cannot be accepted",
        },
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => {
                "it asks for a client certificate: set amqp.tls.cert_file and amqp.tls.key_file"
            }
            AlertDescription::CertificateExpired => {
                "it says that our certificate (amqp.tls.cert_file) has expired"
            }
            AlertDescription::UnknownCA => {
                "it does not know the authority of our certificate (amqp.tls.cert_file)"
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied => "it does not accept our certificate (amqp.tls.cert_file)",
            AlertDescription::HandshakeFailure => {
                "it broke off the handshake; it may ask for a client certificate (amqp.tls.cert_file)"
            }
            _ => "it broke off the handshake",
        },
        rustls::Error::InvalidMessage(_) => "it does not speak TLS on this port; is it that of amqp://?",
        _ => "the handshake failed",
    })
}

/// In TLS 1.3 (RFC 8446 §4.4.2.4, §6.2) the client has finished its handshake before the server looks at its certificate. What
/// the client sent by then lies unread at a server that refuses and closes, so TCP may reset the connection, and the alert
/// that says why is thrown away with it.
fn broken_off(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Option<&'static str> {
        advice(&lapin::Error::from(io::Error::other(cause)), true)
    }

    #[test]
    fn a_connection_that_is_reset_before_the_alert_is_read_is_told_by_what_it_may_mean() {
        let reset = lapin::Error::from(io::Error::from(io::ErrorKind::ConnectionReset));
        let (ours, none) = (advice(&reset, true).unwrap(), advice(&reset, false).unwrap());
        assert!(ours.contains("does not accept our certificate (amqp.tls.cert_file)"), "{ours}");
        assert!(none.contains("set amqp.tls.cert_file and amqp.tls.key_file"), "{none}");
    }

    #[test]
    fn an_operator_is_told_which_side_has_to_be_mended() {
        let theirs = told(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)).unwrap();
        assert!(theirs.contains("amqp.tls.ca_file"), "{theirs}");
        let ours = told(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)).unwrap();
        assert!(ours.contains("amqp.tls.cert_file"), "{ours}");
        let files = told(certificates::Error::NoKey("k.pem".into())).unwrap();
        assert!(files.contains("[amqp.tls]"), "{files}");
        for (fault, words) in [
            (CertificateError::Expired, "has expired"),
            (CertificateError::NotValidYet, "not valid yet"),
            (CertificateError::NotValidForName, "another name than the host"),
            (CertificateError::Revoked, "cannot be accepted"),
        ] {
            let theirs = told(rustls::Error::InvalidCertificate(fault)).unwrap();
            assert!(theirs.starts_with("its certificate") && theirs.contains(words), "{theirs}");
        }
        for (alert, words) in [
            (AlertDescription::CertificateExpired, "says that our certificate"),
            (AlertDescription::UnknownCA, "does not know the authority of our certificate"),
            (AlertDescription::BadCertificate, "does not accept our certificate"),
            (AlertDescription::AccessDenied, "does not accept our certificate"),
            (AlertDescription::HandshakeFailure, "may ask for a client certificate"),
            (AlertDescription::InternalError, "broke off the handshake"),
        ] {
            let ours = told(rustls::Error::AlertReceived(alert)).unwrap();
            assert!(ours.starts_with("it ") && ours.contains(words), "{ours}");
        }
        let plain = told(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)).unwrap();
        assert!(plain.contains("does not speak TLS"), "{plain}");
        assert_eq!(told("connection refused"), None);
        assert_eq!(advice(&io::Error::from(io::ErrorKind::ConnectionRefused).into(), true), None);
    }

    #[test]
    fn files_that_are_not_there_are_told_before_a_connection_is_tried() {
        let missing = |name: &str| PathBuf::from("no such directory").join(name);
        assert!(Settings::default().check().is_ok());
        let authority = Settings { ca_file: Some(missing("ca.pem")), identity: None };
        assert!(authority.check().unwrap_err().to_string().contains("ca.pem"));
        let identity = Settings { ca_file: None, identity: Some((missing("cert.pem"), missing("key.pem"))) };
        assert!(identity.check().unwrap_err().to_string().contains("cert.pem"));
    }
}
