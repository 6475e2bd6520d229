//! `[ledger]`: where decisions are kept, and what 200 shall mean.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    files::{self, absolute},
    read::Section,
    secrets::Kind,
    show::redact_url,
};
use crate::{
    certificates,
    ledger::{
        self, Location,
        postgres::{Address, Demands, Durability, Options},
    },
    secret::Secret,
};

pub(super) fn ledger(section: &mut Section<'_, '_, '_>) -> Option<ledger::Settings> {
    let url = section.secret_shown("url", "url_file", Kind::Given, ledger_url, shown);
    let password = section.secret("password", "password_file", Kind::Given);
    let durability =
        section.one_of("durability", &[("primary", Durability::Primary), ("standby", Durability::Standby)]);
    let trust_storage = section.flag("trust_storage");
    let queue_capacity = section.number::<usize>("queue_capacity", 1..=1_000_000);
    let max_batch = section.number("max_batch", 1..=65_536);
    let refusals_kept = section.number("refusals_kept", 0..=10_000_000);
    let retention = section.retention("retention");
    let min_free_bytes = section.number("min_free_bytes", 0..=u64::MAX >> 1);
    let search_file =
        section.required("search_file", "\"auto\", \"off\", or the path of a file", |text| match text {
            "" => Err("names no file".to_owned()),
            text => Ok(text.to_owned()),
        });
    if let (Some(queue), Some(batch)) = (queue_capacity, max_batch)
        && batch > queue
    {
        section.warn("max_batch", "is larger than queue_capacity, so no commit is ever that large");
    }
    let (url, password) = (url??, password?);
    let location = match url.expose().strip_prefix("sqlite:") {
        Some(_) => {
            for key in ["password", "password_file", "durability", "trust_storage"] {
                if section.rank(key).is_some_and(|rank| rank > 0) {
                    section.warn(key, "has no effect, since ledger.url is SQLite");
                }
            }
            sqlite_file(section, sqlite_path(url.expose()).ok()?)
        }
        None => {
            let demands = Demands { durability: durability?, trust_storage: trust_storage? };
            postgres(section, Address::parse(url.expose(), password.as_ref()).ok()?, demands)?
        }
    };
    let search_file = match (search_file?.as_str(), &location) {
        ("auto", Location::Sqlite(path)) => Some(beside(path)),
        ("auto", Location::Postgres(_)) | ("off", _) => None,
        (path, _) => Some(absolute(PathBuf::from(path))),
    };
    Some(ledger::Settings {
        location,
        search_file,
        sizing: ledger::Sizing {
            queue_capacity: queue_capacity?,
            max_batch: max_batch?,
            limits: ledger::Limits {
                refusals_kept: refusals_kept?,
                // Set after the endpoints are read.
                longest_window: Duration::ZERO,
                longest_repeats_window: Duration::ZERO,
                retention: retention?,
                min_free_bytes: min_free_bytes?,
            },
        },
    })
}

/// The search file of a ledger that is a file.
fn beside(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".search");
    PathBuf::from(name)
}

/// Describes what is wrong with a ledger's URL without quoting it: it may contain a password.
fn ledger_url(url: &str) -> Result<(), String> {
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        return Address::parse(url, None).map(drop).map_err(|fault| format!("{fault}; {POSTGRES_URL}"));
    }
    sqlite_path(url).map(drop).map_err(|fault| format!("{fault}; {SQLITE_URL}"))
}

/// Where a ledger is that a command names by its URL. The error does not quote it.
pub(crate) fn ledger_location(url: &Secret) -> Result<Location, String> {
    ledger_url(url.expose())?;
    if url.expose().starts_with("sqlite:") {
        return sqlite_path(url.expose()).map(|path| Location::Sqlite(absolute(path)));
    }
    let address = Address::parse(url.expose(), None).map_err(|fault| fault.to_string())?;
    // Who serves from it demands more.
    let demands = Demands { durability: Durability::Primary, trust_storage: true };
    Ok(Location::Postgres(Options { address, demands, holder: String::new() }))
}

/// The URL without its password.
fn shown(url: &str) -> String {
    if url.starts_with("sqlite:") { url.to_owned() } else { redact_url(url) }
}

const SQLITE_URL: &str = "expected sqlite:PATH, such as \"sqlite:countersign.db\"";
const POSTGRES_URL: &str = "expected postgres://user:password@host:port,host:port/database";

/// `sqlite:PATH`. `sqlite://PATH` means the same, so `sqlite:///abs` is `/abs`.
fn sqlite_path(url: &str) -> Result<PathBuf, String> {
    let path = url.strip_prefix("sqlite:").ok_or("does not begin with sqlite: or postgres:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.ends_with('/') {
        return Err("names no file".to_owned());
    }
    if path == ":memory:" {
        return Err("is not a file, so nothing would be stored".to_owned());
    }
    if path.contains('?') {
        return Err("has parameters, which are not supported".to_owned());
    }
    Ok(PathBuf::from(path))
}

fn sqlite_file(section: &mut Section<'_, '_, '_>, path: PathBuf) -> Location {
    let is_relative = path.is_relative();
    let path = absolute(path);
    let installed = section.report.beside.as_ref().is_some_and(|beside| beside.starts_with("/etc"));
    if is_relative && installed {
        section.warn(
            "url",
            format!(
                "is relative, so each command looks for the ledger where it is started, this one for {}; an absolute \
                 path is found by all: url = \"sqlite:/var/lib/countersign/countersign.db\"",
                path.display()
            ),
        );
    }
    match path.parent() {
        Some(directory) if !directory.is_dir() => section.warn(
            "url",
            format!("the directory {} does not exist; serve does not create it", directory.display()),
        ),
        _ => {}
    }
    if let Some(warning) = files::exposed(&path) {
        section.warn("url", warning);
    }
    Location::Sqlite(path)
}

fn postgres(section: &mut Section<'_, '_, '_>, address: Address, demands: Demands) -> Option<Location> {
    if let Some(host) = address.unprotected() {
        let mode = address.ssl_mode.as_str();
        section.warn(
            "url",
            format!(
                "{host} is another machine, and sslmode is {mode}: who can change packets on the way can read and forge \
                 decisions; use sslmode=verify-full"
            ),
        );
    }
    if let Some(path) = &address.root_cert
        && let Err(error) = certificates::read_authorities(path)
    {
        section.fault("url", format!("names an sslrootcert that cannot be used: {error}"), "");
        return None;
    }
    if demands.trust_storage {
        section.warn(
            "trust_storage",
            "accepts fsync = off: then only the storage keeps what was answered with 200",
        );
    }
    let host = rustix::system::uname();
    let holder = format!("{}/{}", host.nodename().to_string_lossy(), std::process::id());
    Some(Location::Postgres(Options { address, demands, holder }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_url_names_a_file() {
        for (url, path) in [
            ("sqlite:countersign.db", "countersign.db"),
            ("sqlite:/var/lib/c.db", "/var/lib/c.db"),
            ("sqlite:///var/lib/c.db", "/var/lib/c.db"),
            ("sqlite://./c.db", "./c.db"),
        ] {
            assert_eq!(sqlite_path(url), Ok(PathBuf::from(path)), "{url}");
        }
        for url in [
            "",
            "sqlite:",
            "sqlite:///",
            "sqlite::memory:",
            "countersign.db",
            "sqlite:a.db?mode=ro",
            "mysql://x",
        ] {
            assert!(sqlite_path(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_ledger_url_is_shown_without_its_password() {
        assert_eq!(shown("sqlite:///var/lib/c.db"), "sqlite:///var/lib/c.db");
        assert_eq!(shown("postgres://cs:hush@h1,h2/d"), "postgres://cs:[redacted]@h1,h2/d");
        for url in [
            "postgres://cs:hush@h",
            "postgres://cs:hush@h/d?sslmode=no",
            "postgres://hush:x@h:port/d",
            "hush",
        ] {
            let problem = ledger_url(url).unwrap_err();
            assert!(!problem.contains("hush"), "{problem}");
        }
    }
}
