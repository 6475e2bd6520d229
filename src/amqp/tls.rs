//! TLS to the broker: trusted authorities, the client certificate, and advice for an operator when a handshake fails.

use std::{io, net::IpAddr, path::PathBuf};

use lapin::{
    ErrorKind,
    tcp::{RustlsConnector, RustlsConnectorConfig},
};
use rustls::{AlertDescription, CertificateError, pki_types::UnixTime};

use crate::{
    certificates::{self, Facts},
    time::Timestamp,
};

/// TLS settings for `amqps://` brokers. The files are read at each connect, so renewed ones need no restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Trusted authorities for the broker's certificate, in PEM; those of the system if absent.
    pub ca_file: Option<PathBuf>,
    /// The client certificate with its chain, and its private key, both in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Settings {
    /// Checks that the current files allow a connection attempt; returns facts from the client certificate, if there
    /// is one.
    ///
    /// # Errors
    /// The fault in the files.
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

/// Why a connection over TLS failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// The problem and what to do.
    pub(super) words: String,
    /// True if the cause would only add names from the TLS library.
    pub(super) whole: bool,
}

/// Advice for a failed connection over TLS; `None` if TLS is not the reason. `identified` if a client certificate is
/// configured; `host` is that of the URL.
pub(super) fn advice(error: &lapin::Error, identified: bool, host: &str) -> Option<Advice> {
    let partly = |words: &str| Some(Advice { words: words.to_owned(), whole: false });
    let ErrorKind::IOError(error) = error.kind() else { return None };
    if broken_off(error.kind()) {
        return partly(if identified {
            "it closed the connection immediately; if the network is fine, it does not accept our certificate (amqp.tls.cert_file)"
        } else {
            "it closed the connection immediately; if the network is fine, it asks for a client certificate: set amqp.tls.cert_file and amqp.tls.key_file"
        });
    }
    let cause = error.get_ref()?;
    if cause.is::<certificates::Error>() {
        return partly("check the files of [amqp.tls]");
    }
    match cause.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(fault) => Some(of_certificate(fault, host)),
        rustls::Error::AlertReceived(alert) => Some(of_alert(*alert)),
        rustls::Error::InvalidMessage(_) => Some(Advice {
            words: "it does not speak TLS on this port; is it the amqp:// port?".to_owned(),
            whole: true,
        }),
        fault => Some(Advice {
            words: format!("the handshake failed: {}", certificates::plain(fault)),
            whole: true,
        }),
    }
}

/// The fault of the broker's certificate.
fn of_certificate(fault: &CertificateError, host: &str) -> Advice {
    use webpki::Error as Path;
    let words = match fault {
        // The second occurs if an authority was recreated under its old name, or its RSA key is shorter than 2048
        // bits.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not signed by a trusted authority: those in amqp.tls.ca_file, or the system's if it is unset"
                .to_owned()
        }
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "its certificate has expired on {}; renew it, or fix the clock of this machine",
            date(*not_after)
        ),
        CertificateError::Expired => {
            "its certificate has expired; renew it, or fix the clock of this machine".to_owned()
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "its certificate is not valid before {}; is the clock of this machine wrong?",
            date(*not_before)
        ),
        CertificateError::NotValidYet => {
            "its certificate is not valid yet; is the clock of this machine wrong?".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => format!(
            "its certificate has no host in subjectAltName; a common name does not count. {}",
            signed(host)
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name than the host in amqp.url".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => format!(
            "its certificate is not for servers: its extendedKeyUsage has no serverAuth. {}",
            signed(host)
        ),
        CertificateError::Revoked => "its certificate has been revoked; replace it".to_owned(),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => format!(
            "its certificate, or one that leads to its authority, is signed by an algorithm that is not accepted, such as \
             SHA-1. {}",
            signed(host)
        ),
        CertificateError::Other(other) => match other.0.downcast_ref::<Path>() {
            Some(Path::CaUsedAsEndEntity) => format!(
                "its certificate is that of an authority (CA:TRUE), as `openssl req -x509` makes them, and a server cannot \
                 show that. {}",
                self_signed(host)
            ),
            Some(Path::EndEntityUsedAsCa | Path::PathLenConstraintViolated) => {
                "a certificate that leads to its authority is not that of an authority (CA:FALSE, or too long a path); an \
                 authority's is made with -addext basicConstraints=critical,CA:TRUE"
                    .to_owned()
            }
            Some(Path::UnsupportedCertVersion) => format!(
                "its certificate is of X.509 version 1, as `openssl x509 -req` makes them without -extfile; version 3 is \
                 needed. {}",
                signed(host)
            ),
            Some(Path::UnsupportedCriticalExtension) => {
                "its certificate has an unknown critical extension".to_owned()
            }
            Some(Path::NameConstraintViolation) => {
                "its authority may not name this host (nameConstraints)".to_owned()
            }
            _ => unacceptable(fault),
        },
        _ => unacceptable(fault),
    };
    Advice { words, whole: true }
}

fn unacceptable(fault: &CertificateError) -> String {
    let fault = certificates::plain(&rustls::Error::InvalidCertificate(fault.clone()));
    format!("its certificate cannot be accepted: {fault}")
}

fn date(time: UnixTime) -> String {
    let millis = i64::try_from(time.as_secs()).ok().and_then(|seconds| seconds.checked_mul(1000));
    let time = millis.and_then(|millis| Timestamp::from_millisecond(millis).ok());
    time.map_or_else(|| "a distant date".to_owned(), |time| time.to_string())
}

/// The extensions of a server's certificate.
fn alternative_name(host: &str) -> String {
    let kind = if host.parse::<IpAddr>().is_ok() { "IP" } else { "DNS" };
    format!("subjectAltName={kind}:{host}")
}

/// How to create a self-signed certificate that is accepted.
fn self_signed(host: &str) -> String {
    format!(
        "One that vouches for itself, which the broker shows and amqp.tls.ca_file names: openssl req -x509 -newkey rsa:3072 \
         -sha256 -nodes -days 825 -subj '/CN={host}' -addext 'basicConstraints=critical,CA:FALSE' -addext '{}' -addext \
         'extendedKeyUsage=serverAuth' -keyout server-key.pem -out server.pem",
        alternative_name(host)
    )
}

/// How an authority creates a server's certificate that is accepted.
fn signed(host: &str) -> String {
    format!(
        "Its authority makes a good one from its request: printf '%s\\n' '{}' 'extendedKeyUsage=serverAuth' > server.ext && \
         openssl x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -sha256 -days 825 -extfile server.ext \
         -out server.pem",
        alternative_name(host)
    )
}

/// The broker's alert about the client certificate.
fn of_alert(alert: AlertDescription) -> Advice {
    let words = match alert {
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
        AlertDescription::ProtocolVersion => "it speaks neither TLS 1.2 nor 1.3",
        AlertDescription::HandshakeFailure => {
            "it aborted the handshake; it may ask for a client certificate (amqp.tls.cert_file)"
        }
        other => {
            let alert = certificates::plain(&rustls::Error::AlertReceived(other));
            return Advice { words: format!("it aborted the handshake: {alert}"), whole: true };
        }
    };
    Advice { words: words.to_owned(), whole: true }
}

/// In TLS 1.3 (RFC 8446 §4.4.2.4, §6.2) the client finishes its handshake before the server checks its certificate. If
/// the server refuses and closes with data from the client unread, TCP may reset the connection and discard the alert
/// that carries the reason.
fn broken_off(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Option<String> {
        advice(&lapin::Error::from(io::Error::other(cause)), true, "mq.example.invalid").map(|it| it.words)
    }

    #[test]
    fn a_connection_that_is_reset_before_the_alert_is_read_is_told_by_what_it_may_mean() {
        let reset = lapin::Error::from(io::Error::from(io::ErrorKind::ConnectionReset));
        let told = |identified| advice(&reset, identified, "h").unwrap().words;
        let (ours, none) = (told(true), told(false));
        assert!(ours.contains("does not accept our certificate (amqp.tls.cert_file)"), "{ours}");
        assert!(none.contains("set amqp.tls.cert_file and amqp.tls.key_file"), "{none}");
    }

    #[test]
    fn an_operator_is_told_which_side_has_to_be_fixed() {
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
            (CertificateError::Revoked, "revoked"),
            (CertificateError::InvalidPurpose, "extendedKeyUsage has no serverAuth"),
            (CertificateError::BadEncoding, "cannot be accepted: bad encoding"),
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
            (AlertDescription::InternalError, "aborted the handshake: received fatal alert: internal error"),
        ] {
            let ours = told(rustls::Error::AlertReceived(alert)).unwrap();
            assert!(ours.starts_with("it ") && ours.contains(words), "{ours}");
        }
        let plain = told(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)).unwrap();
        assert!(plain.contains("does not speak TLS"), "{plain}");
        assert_eq!(told("connection refused"), None);
        assert_eq!(advice(&io::Error::from(io::ErrorKind::ConnectionRefused).into(), true, "h"), None);
    }

    #[test]
    fn a_certificate_is_made_for_a_name_or_an_address_as_the_url_has_it() {
        for (host, name) in [
            ("mq.example.invalid", "subjectAltName=DNS:mq.example.invalid"),
            ("192.0.2.7", "subjectAltName=IP:192.0.2.7"),
            ("2001:db8::7", "subjectAltName=IP:2001:db8::7"),
        ] {
            assert!(self_signed(host).contains(name) && signed(host).contains(name), "{host}");
        }
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
