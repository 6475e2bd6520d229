//! Reads certificates and private keys from PEM files.
//!
//! Errors are worded for operators: they name the file and never show its content.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    CertificateError, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use crate::time::Timestamp;

/// A faulty file. `Display` is complete; there is no further source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause, already part of the text.
        source: io::Error,
    },
    /// The file contains no certificate.
    #[error("{} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    /// The file contains no private key.
    #[error("{} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)", .0.display())]
    NoKey(PathBuf),
    /// The private key is encrypted.
    #[error(
        "{} holds an encrypted private key, which cannot be used; decrypt it with `openssl pkey`",
        .0.display()
    )]
    EncryptedKey(PathBuf),
    /// The PEM content cannot be parsed.
    #[error("{} is damaged: {fault}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser rejected.
        fault: String,
    },
    /// The format is too old for TLS.
    #[error(
        "{} begins with a certificate of X.509 version 1, as `openssl x509 -req` makes them without -extfile; version 3 is \
         needed: make a file server.ext with the line subjectAltName=DNS:HOST, and add -extfile server.ext",
        .0.display()
    )]
    OldVersion(PathBuf),
    /// The key does not belong to the certificate.
    #[error("the private key in {} does not belong to the first certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        cert: PathBuf,
    },
}

impl Error {
    /// The file to fix.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. } | Self::Damaged { path, .. } => path,
            Self::NoCertificate(path)
            | Self::NoKey(path)
            | Self::EncryptedKey(path)
            | Self::OldVersion(path) => path,
            Self::Mismatch { key, .. } => key,
        }
    }
}

/// The properties of a certificate that may require action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// The certificate is a CA (`CA:TRUE`). Many clients reject it as a server certificate.
    pub is_authority: bool,
}

/// Remaining validity below which to warn. ACME renewal begins 30 days before expiry, so by then it has failed for
/// days.
pub const EXPIRES_SOON: Duration = Duration::from_secs(21 * 24 * 3600);

/// Remaining validity below which to act immediately.
pub const EXPIRES_AT_ONCE: Duration = Duration::from_secs(3 * 24 * 3600);

/// Validity of a certificate at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// No action needed.
    Fine,
    /// Expires within [`EXPIRES_SOON`].
    Soon,
    /// Expires within [`EXPIRES_AT_ONCE`].
    AtOnce,
    /// Already expired.
    Expired,
    /// Not valid yet.
    NotYet,
}

impl Facts {
    /// Reads the first certificate of the chain from `path`.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it cannot be parsed, [`Error::NoCertificate`] if the chain is empty.
    pub fn of(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Self, Error> {
        let first = chain.first().ok_or_else(|| Error::NoCertificate(path.to_owned()))?;
        let damaged = || Error::Damaged {
            path: path.to_owned(),
            fault: "its first certificate cannot be parsed".to_owned(),
        };
        let (_, parsed) = x509_parser::parse_x509_certificate(first).map_err(|_| damaged())?;
        let is_authority = parsed.basic_constraints().map_err(|_| damaged())?.is_some_and(|it| it.value.ca);
        let validity = parsed.validity();
        // A certificate may contain a time outside the range of `Timestamp`.
        let time = |seconds: i64| {
            let clamped = seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
            Timestamp::from_millisecond(clamped * 1000).unwrap_or(Timestamp::MAX)
        };
        Ok(Self {
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
            is_authority,
        })
    }

    /// Validity at `now`.
    #[must_use]
    pub fn validity(&self, now: Timestamp) -> Validity {
        let left = self.not_after.since(now);
        match () {
            () if self.not_after < now => Validity::Expired,
            () if now < self.not_before => Validity::NotYet,
            () if left <= EXPIRES_AT_ONCE => Validity::AtOnce,
            () if left <= EXPIRES_SOON => Validity::Soon,
            () => Validity::Fine,
        }
    }
}

/// Describes a TLS library error in plain words. Its own text ends in source names such as `Other(OtherError(X))`.
#[must_use]
pub fn plain(fault: &rustls::Error) -> String {
    let text = fault.to_string();
    let text = text.strip_prefix("invalid peer certificate: ").unwrap_or(&text);
    let text =
        text.strip_prefix("Other(OtherError(").and_then(|rest| rest.strip_suffix("))")).unwrap_or(text);
    let mut words = String::with_capacity(text.len() + 8);
    let mut before = ' ';
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        // `UnknownCA` becomes "unknown CA", and `PEM` is kept.
        let begins = !before.is_ascii_alphanumeric() || before.is_ascii_lowercase();
        let goes_on = letters.peek().is_some_and(char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && before.is_ascii_lowercase() {
            words.push(' ');
        }
        if letter.is_ascii_uppercase() && begins && goes_on {
            words.push(letter.to_ascii_lowercase());
        } else {
            words.push(letter);
        }
        before = letter;
    }
    words
}

/// UTF-8 text from Windows may begin with it; PEM and JSON must not.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A larger file is a mistake, such as naming a log or a device.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The TLS implementation of the whole program.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()))
}

/// Reads a certificate or key file and strips the BOM.
///
/// # Errors
/// [`Error::Read`].
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::new());
    io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE_BYTES + 1), &mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "too large for certificates")));
    }
    if bytes.starts_with(BOM) {
        bytes.drain(..BOM.len());
    }
    Ok(bytes)
}

/// Parses the certificates in `pem`, read from `path`: at least one, in file order.
///
/// # Errors
/// [`Error::NoCertificate`] and [`Error::Damaged`].
pub fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = found.map_err(|fault| Error::Damaged { path: path.to_owned(), fault: fault.to_string() })?;
    if chain.is_empty() {
        return Err(Error::NoCertificate(path.to_owned()));
    }
    Ok(chain)
}

/// Parses a server's certificate chain and its private key, each from `pem` as read from its file.
///
/// # Errors
/// All but [`Error::Read`].
pub fn identity(cert: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<CertifiedKey, Error> {
    let (chain, private) = (chain(cert.0, cert.1)?, private_key(key.0, key.1)?);
    let damaged =
        |path: &Path, fault: &rustls::Error| Error::Damaged { path: path.to_owned(), fault: plain(fault) };
    // Load the key separately, so that an error names the right file.
    let signing =
        provider().key_provider.load_private_key(private).map_err(|fault| damaged(key.0, &fault))?;
    let identity = CertifiedKey::new(chain, signing);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(Error::Mismatch { key: key.0.to_owned(), cert: cert.0.to_owned() })
        }
        Err(fault) if is_of_version_1(&fault) => Err(Error::OldVersion(cert.0.to_owned())),
        Err(fault) => Err(damaged(cert.0, &fault)),
    }
}

fn is_of_version_1(fault: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = fault else { return false };
    other.0.downcast_ref() == Some(&webpki::Error::UnsupportedCertVersion)
}

/// Reads a client's certificate chain and its private key, and checks that they match.
///
/// # Errors
/// All of them.
pub fn read_pair(
    cert: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let (cert_pem, key_pem) = (read(cert)?, read(key)?);
    let checked = identity((cert, &cert_pem), (key, &key_pem))?;
    Ok((checked.cert, private_key(key, &key_pem)?))
}

/// Reads both files for [`identity`].
///
/// # Errors
/// All of them.
pub fn read_identity(cert: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    identity((cert, &read(cert)?), (key, &read(key)?))
}

/// Reads the CAs in a file, at least one, to trust instead of the system's.
///
/// # Errors
/// [`Error::Read`], [`Error::NoCertificate`] and [`Error::Damaged`].
pub fn read_authorities(path: &Path) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in chain(path, &read(path)?)? {
        store
            .add(certificate)
            .map_err(|fault| Error::Damaged { path: path.to_owned(), fault: plain(&fault) })?;
    }
    Ok(store)
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    // PKCS#8 has its own label for this; the older formats have a header line.
    let encrypted = || {
        let text = String::from_utf8_lossy(pem);
        text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED")
    };
    match PrivateKeyDer::from_pem_slice(pem) {
        _ if encrypted() => Err(Error::EncryptedKey(path.to_owned())),
        Ok(key) => Ok(key),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => Err(Error::NoKey(path.to_owned())),
        // The parser's error text may quote a line of the key.
        Err(_) => {
            Err(Error::Damaged { path: path.to_owned(), fault: "the PEM of the key is broken".to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(["countersign.test".to_owned()]).unwrap()
    }

    fn told(cert: &str, key: &str) -> String {
        identity((Path::new("c.pem"), cert.as_bytes()), (Path::new("k.pem"), key.as_bytes()))
            .map(|_| ())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_pair_is_read_and_each_fault_names_its_file_and_shows_nothing_of_it() {
        let (one, other) = (fake(), fake());
        let (cert, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let files = (Path::new("c.pem"), Path::new("k.pem"));
        assert!(identity((files.0, cert.as_bytes()), (files.1, key.as_bytes())).is_ok());

        let foreign = other.signing_key.serialize_pem();
        assert_eq!(
            told(&cert, &foreign),
            "the private key in k.pem does not belong to the first certificate in c.pem"
        );
        assert!(told(&key, &key).starts_with("c.pem holds no certificate"), "{}", told(&key, &key));
        assert!(told("", &key).starts_with("c.pem holds no certificate"));
        assert!(told(&cert, &cert).starts_with("k.pem holds no private key"));
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert!(told(&cert, &encrypted).starts_with("k.pem holds an encrypted private key"));
        let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                     -----END RSA PRIVATE KEY-----\n";
        assert!(told(&cert, older).starts_with("k.pem holds an encrypted private key"));

        let line = key.lines().nth(1).unwrap();
        for broken in [key.replace(line, "!!!"), key.replace(line, &line[4..]), key.replace("-----END", "--")]
        {
            let text = told(&cert, &broken);
            assert!(text.starts_with("k.pem is damaged"), "{text}");
            assert!(!text.contains(&line[4..]), "{text}");
        }
        let text = told("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key);
        assert!(text.starts_with("c.pem is damaged"), "{text}");
    }

    /// Made by `openssl x509 -req` without `-extfile`.
    const VERSION_1: &str = include_str!("../tests/fixtures/tls/version1-cert.pem");

    #[test]
    fn a_certificate_of_version_1_is_told_as_what_it_is() {
        let text = told(VERSION_1, &fake().signing_key.serialize_pem());
        assert!(text.starts_with("c.pem begins with a certificate of X.509 version 1"), "{text}");
        assert!(text.contains("-extfile") && !text.contains("Other"), "{text}");
    }

    #[test]
    fn faults_are_told_without_names_of_the_librarys_source() {
        use rustls::{AlertDescription, InvalidMessage, OtherError};
        let other = |fault| CertificateError::Other(OtherError(Arc::new(fault)));
        for (fault, words) in [
            (rustls::Error::InvalidCertificate(CertificateError::BadEncoding), "bad encoding"),
            (
                rustls::Error::InvalidCertificate(other(webpki::Error::MaximumSignatureChecksExceeded)),
                "maximum signature checks exceeded",
            ),
            (rustls::Error::AlertReceived(AlertDescription::UnknownCA), "received fatal alert: unknown CA"),
            (
                rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "received corrupt message of type invalid content type",
            ),
            (rustls::Error::General("the PEM of it".to_owned()), "unexpected error: the PEM of it"),
        ] {
            assert_eq!(plain(&fault), words);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_told_by_name() {
        let text = read(Path::new("/none/such.pem")).unwrap_err().to_string();
        assert!(text.starts_with("/none/such.pem cannot be read: "), "{text}");
    }
}
