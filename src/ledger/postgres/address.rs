//! Where PostgreSQL is, and how its connections are encrypted: what `ledger.url` says.

use std::{fmt, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;
use tokio_postgres::{
    Config,
    config::{Host, TargetSessionAttrs},
};

use crate::{loopback, secret::Secret};

/// The TCP handshake of one address of a host.
const CONNECT: Duration = Duration::from_secs(3);

/// A way to a host that is silent for so long is looked at, and given up when it stays silent.
const SILENCE: Duration = Duration::from_secs(10);

/// How a connection is protected, in the words of libpq (PostgreSQL, "SSL Mode Descriptions").
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server has it, with any certificate.
    Prefer,
    /// TLS, with any certificate.
    Require,
    /// TLS, with a certificate of a trusted authority, for whatever host.
    VerifyCa,
    /// TLS, with a certificate of a trusted authority for this host.
    VerifyFull,
}

/// The servers of one database, of which one takes writes.
#[derive(Clone)]
pub struct Address {
    /// One for each host, in the order in which they are tried.
    pub(super) hosts: Vec<Config>,
    /// How connections are protected.
    pub ssl_mode: SslMode,
    /// The authorities to trust, in PEM; those of the system if absent.
    pub root_cert: Option<PathBuf>,
    shown: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Display for Address {
    /// The URL without user, password and parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// What is wrong with a URL. Never quotes it: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// It cannot be parsed.
    #[error("cannot be parsed as a PostgreSQL URL; special characters in user and password are written %XX")]
    Unparsable,
    /// It names no host.
    #[error("names no host")]
    NoHost,
    /// It names no user.
    #[error("names no user")]
    NoUser,
    /// It names no database.
    #[error("names no database")]
    NoDatabase,
    /// An `sslmode` that libpq does not have either.
    #[error("has an sslmode that does not exist; it may be {}", SslMode::WORDS.join(", "))]
    SslMode,
    /// Another parameter.
    #[error(
        "has a parameter that is not supported; supported are sslmode, sslrootcert and target_session_attrs=read-write"
    )]
    Parameter,
}

impl SslMode {
    const WORDS: &'static [&'static str] = <Self as strum::VariantNames>::VARIANTS;

    /// The word in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Address {
    /// Reads a URL: `postgres://user:password@host:port,host:port/database?sslmode=verify-full&sslrootcert=FILE`.
    /// `password` counts if the URL has none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str, password: Option<&Secret>) -> Result<Self, AddressFault> {
        let (location, parameters) = url.split_once('?').unwrap_or((url, ""));
        if !location.starts_with("postgres://") && !location.starts_with("postgresql://") {
            return Err(AddressFault::Unparsable);
        }
        let (mut ssl_mode, mut root_cert) = (SslMode::Prefer, None);
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", word)) => ssl_mode = word.parse().map_err(|_| AddressFault::SslMode)?,
                Some(("sslrootcert", path)) => {
                    let path =
                        percent_decode_str(path).decode_utf8().map_err(|_| AddressFault::Unparsable)?;
                    root_cert = Some(PathBuf::from(&*path));
                }
                Some(("target_session_attrs", "read-write" | "primary")) => {}
                _ => return Err(AddressFault::Parameter),
            }
        }
        let whole: Config = location.parse().map_err(|_| AddressFault::Unparsable)?;
        let (user, database) = (
            whole.get_user().ok_or(AddressFault::NoUser)?,
            whole.get_dbname().ok_or(AddressFault::NoDatabase)?,
        );
        let names = whole.get_hosts();
        let host = |(host, port): (&Host, &u16)| {
            let mut one = Config::new();
            match host {
                Host::Tcp(name) => one.host(name),
                Host::Unix(path) => one.host_path(path),
            };
            one.port(*port).user(user).dbname(database);
            if let Some(password) = whole.get_password() {
                one.password(password);
            } else if let Some(password) = password {
                one.password(password.expose());
            }
            // Verification is for the TLS library to do.
            one.ssl_mode(match ssl_mode {
                SslMode::Disable => tokio_postgres::config::SslMode::Disable,
                SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
                _ => tokio_postgres::config::SslMode::Require,
            });
            one.application_name("countersign");
            one.connect_timeout(CONNECT);
            one.keepalives_idle(SILENCE).keepalives_interval(SILENCE / 4).keepalives_retries(4);
            one.tcp_user_timeout(2 * SILENCE);
            one.target_session_attrs(TargetSessionAttrs::ReadWrite);
            one
        };
        let hosts: Vec<_> = names.iter().zip(whole.get_ports()).map(host).collect();
        if hosts.is_empty() {
            return Err(AddressFault::NoHost);
        }
        let at: Vec<_> = names.iter().zip(whole.get_ports()).map(shown).collect();
        let shown = format!("postgres://{}/{database}", at.join(","));
        Ok(Self { hosts, ssl_mode, root_cert, shown })
    }

    /// True if it has a password, whichever way that was given.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.hosts.iter().any(|host| host.get_password().is_some())
    }

    /// A host on another machine to which a connection may be made that anybody between can read or answer; `None` if there
    /// is none.
    #[must_use]
    pub fn unprotected(&self) -> Option<String> {
        if self.ssl_mode == SslMode::VerifyFull {
            return None;
        }
        let mut hosts = self.hosts.iter().flat_map(Config::get_hosts);
        hosts.find_map(|host| match host {
            Host::Tcp(name) if !loopback::is_host(name) => Some(name.clone()),
            _ => None,
        })
    }
}

fn shown((host, port): (&Host, &u16)) -> String {
    match host {
        Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
        Host::Tcp(name) => format!("{name}:{port}"),
        Host::Unix(path) => format!("{}:{port}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_hosts_and_how_to_protect_the_way_there() {
        let url = "postgres://cs:hush@db1,[2001:db8::1]:5433/approvals?sslmode=verify-full&sslrootcert=/etc/ca%20s.pem";
        let address = Address::parse(url, None).unwrap();
        assert_eq!(address.to_string(), "postgres://db1:5432,[2001:db8::1]:5433/approvals");
        assert_eq!(address.ssl_mode, SslMode::VerifyFull);
        assert_eq!(address.root_cert, Some(PathBuf::from("/etc/ca s.pem")));
        assert_eq!(address.unprotected(), None);
        let password = |address: &Address| address.hosts[1].get_password().map(<[u8]>::to_vec);
        assert_eq!(password(&address), Some(b"hush".to_vec()));
        let by_file = Address::parse("postgresql://cs@db1,127.0.0.1/approvals", Some(&Secret::new("hush")));
        let by_file = by_file.unwrap();
        assert_eq!(password(&by_file), Some(b"hush".to_vec()));
        assert_eq!(by_file.unprotected(), Some("db1".to_owned()));
        assert_eq!(
            Address::parse("postgres://cs@127.0.0.1/d?sslmode=disable", None).unwrap().unprotected(),
            None
        );
    }

    #[test]
    fn what_is_wrong_with_a_url_does_not_quote_it() {
        for (url, fault) in [
            ("postgres://", AddressFault::NoUser),
            ("postgres://hush@/d", AddressFault::NoHost),
            ("postgres://hush@h", AddressFault::NoDatabase),
            ("postgres://h/d", AddressFault::NoUser),
            ("mysql://hush@h/d", AddressFault::Unparsable),
            ("postgres://u:hush@h:port/d", AddressFault::Unparsable),
            ("postgres://u@h/d?sslmode=hush", AddressFault::SslMode),
            ("postgres://u@h/d?hush=1", AddressFault::Parameter),
            ("postgres://u@h/d?target_session_attrs=any", AddressFault::Parameter),
        ] {
            let found = Address::parse(url, None).unwrap_err();
            assert_eq!(found, fault, "{url}");
            assert!(!found.to_string().contains("hush"), "{found}");
        }
        let address = Address::parse("postgres://u:hush@h/d", None).unwrap();
        assert!(!format!("{address:?}").contains("hush"));
    }
}
