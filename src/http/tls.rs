//! TLS on the public listener: TLS 1.2 and 1.3 with rustls, HTTP/1.1 only. The certificate can be replaced while
//! connections are open.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};

use crate::certificates::{self, Error, Facts};

/// Where certificate and key come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// PEM file with the server's certificate first, then the chain to an authority.
    pub cert_file: PathBuf,
    /// PEM file with the unencrypted private key of the first certificate.
    pub key_file: PathBuf,
    /// How often to check the files for changes.
    pub check_interval: Duration,
}

impl Settings {
    /// Checks whether a listener could start with the current files, and returns facts about the certificate. An
    /// expired certificate passes: clients decide whether to accept it.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn check(&self) -> Result<Facts, Error> {
        let identity = certificates::read_identity(&self.cert_file, &self.key_file)?;
        Facts::of(&self.cert_file, &identity.cert)
    }
}

/// The certificate for handshakes. Open connections keep the one they began with.
pub(super) struct Identity {
    now: RwLock<Arc<CertifiedKey>>,
    source: Mutex<Source>,
}

/// The last state of the files.
struct Source {
    settings: Settings,
    /// Digest of both files' content, good or bad: a bad pair is reported once, not at every check.
    seen: [u8; 32],
}

/// Used instead of a digest if the files could not be read; no content has it.
const UNREADABLE: [u8; 32] = [0; 32];

/// A valid pair.
pub(super) struct Pair {
    settings: Settings,
    seen: [u8; 32],
    identity: Arc<CertifiedKey>,
}

impl Pair {
    pub(super) fn read(settings: &Settings) -> Result<Self, Error> {
        let (seen, identity) = look(settings)?;
        Ok(Self { settings: settings.clone(), seen, identity: Arc::new(identity?) })
    }
}

/// Returns the files' digest, and the pair if it is valid. The outer error means that the files could not be read.
fn look(settings: &Settings) -> Result<([u8; 32], Result<CertifiedKey, Error>), Error> {
    let Settings { cert_file, key_file, .. } = settings;
    let (cert, key) = (certificates::read(cert_file)?, certificates::read(key_file)?);
    let digest =
        Sha256::new().chain_update(cert.len().to_be_bytes()).chain_update(&*cert).chain_update(&*key);
    Ok((digest.finalize().into(), certificates::identity((cert_file, &cert), (key_file, &key))))
}

impl Identity {
    pub(super) fn new(pair: Pair) -> Self {
        let Pair { settings, seen, identity } = pair;
        Self { now: RwLock::new(identity), source: Mutex::new(Source { settings, seen }) }
    }

    /// Uses another certificate for new connections.
    pub(super) fn replace(&self, pair: Pair) {
        let Pair { settings, seen, identity } = pair;
        *self.source() = Source { settings, seen };
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Loads the files if they changed since the last check. True if the new pair is now in use.
    ///
    /// # Errors
    /// The new pair cannot be used, and the old one stays. Reported once per content: two files are never written at
    /// the same moment, and the next check finds both.
    pub(super) fn follow(&self) -> Result<bool, Error> {
        let mut source = self.source();
        let (seen, identity) = match look(&source.settings) {
            Ok(found) => found,
            Err(_) if source.seen == UNREADABLE => return Ok(false),
            Err(error) => {
                source.seen = UNREADABLE;
                return Err(error);
            }
        };
        if seen == source.seen {
            return Ok(false);
        }
        source.seen = seen;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity?);
        Ok(true)
    }

    pub(super) fn facts(&self) -> Result<Facts, Error> {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner).clone();
        Facts::of(&self.source().settings.cert_file, &now.cert)
    }

    pub(super) fn check_interval(&self) -> Duration {
        self.source().settings.check_interval
    }

    fn source(&self) -> std::sync::MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// The configuration of a listener with this identity. The server adds `http/1.1`.
pub(super) fn config(identity: Arc<Identity>) -> io::Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(certificates::provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(identity);
    // A resumed session shows no certificate and leads to another resumption, so clients that knew the old
    // certificate would never see the new one. The approval center and proxies keep their connections, so handshakes
    // are rare.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn write(dir: &Path) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(["countersign.test".to_owned()]).unwrap();
        fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    }

    fn shown(identity: &Identity) -> Vec<u8> {
        identity.now.read().unwrap().end_entity_cert().unwrap().to_vec()
    }

    #[test]
    fn a_pair_is_followed_when_it_changes_and_a_bad_one_keeps_the_old_and_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            cert_file: dir.path().join("cert.pem"),
            key_file: dir.path().join("key.pem"),
            check_interval: Duration::from_secs(60),
        };
        assert!(Pair::read(&settings).is_err(), "there are no files yet");
        let first = write(dir.path());
        let identity = Identity::new(Pair::read(&settings).unwrap());
        assert_eq!(shown(&identity), first);
        assert!(!identity.follow().unwrap(), "nothing has changed");

        let second = write(dir.path());
        assert!(identity.follow().unwrap());
        assert_eq!(shown(&identity), second);

        // The certificate of one pair with the key of another, as a check between two writes finds them.
        let key = fs::read(dir.path().join("key.pem")).unwrap();
        let third = write(dir.path());
        let new_key = fs::read(dir.path().join("key.pem")).unwrap();
        fs::write(dir.path().join("key.pem"), key).unwrap();
        assert!(matches!(identity.follow(), Err(Error::Mismatch { .. })));
        assert!(!identity.follow().unwrap(), "told once");
        assert_eq!(shown(&identity), second);
        fs::write(dir.path().join("key.pem"), new_key).unwrap();
        assert!(identity.follow().unwrap());
        assert_eq!(shown(&identity), third);

        fs::remove_file(dir.path().join("key.pem")).unwrap();
        assert!(matches!(identity.follow(), Err(Error::Read { .. })));
        assert!(!identity.follow().unwrap(), "told once");
        assert_eq!(shown(&identity), third);
    }
}
