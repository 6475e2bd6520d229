//! The configuration: layers of one TOML file, the environment and flags over documented defaults, read into the typed
//! settings of each module. All faults are found at once, each with its key and where it was set.
//!
//! `default.toml`, beside this file, is the reference of all keys, and holds the defaults.

mod center;
mod certificates;
mod changes;
mod contexts;
mod endpoints;
mod environment;
mod fault;
mod files;
mod http;
mod layers;
mod load;
mod origin;
mod read;
mod secrets;
mod sections;
mod show;
mod values;

use std::{collections::HashMap, ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    amqp,
    center::{client, enrichment, outcomes, reconcile},
    console, intake, ledger, relay,
    telemetry::log,
};

pub use self::{
    changes::{Change, Changes, NEEDS_RESTART},
    fault::{Fault, Faults, Warning},
    load::load,
    origin::Origin,
    show::Effective,
};
pub(crate) use secrets::read_secret;
pub(crate) use values::parse_duration;

/// The documented defaults: the reference of every key.
pub const REFERENCE: &str = include_str!("default.toml");

/// What `serve` runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long stopping may take.
    pub shutdown_grace: Duration,
    /// The public listener.
    pub http: crate::http::Settings,
    /// The internal listener.
    pub admin: console::Settings,
    /// The ledger.
    pub ledger: ledger::Settings,
    /// The broker.
    pub amqp: Amqp,
    /// Logs.
    pub log: log::Settings,
    /// The approval center's own APIs; `None` if they are not to be used.
    pub approval_center: Option<client::Settings>,
    /// Outcomes: from the workers' reports to the approver; of no effect without `approval_center`.
    pub outcomes: outcomes::Settings,
    /// How published decisions are compared with what the approval center shows; of no effect without it.
    pub reconcile: reconcile::Settings,
    /// What is completed of the commands of endpoints, by name; only with `approval_center`.
    pub enrichment: HashMap<String, enrichment::Settings>,
    /// The endpoints: at least one.
    pub intake: intake::Settings,
}

/// The section `[amqp]`: where and how commands are published.
#[derive(Debug, Clone)]
pub struct Amqp {
    /// The broker. At least one URL; each was checked.
    pub broker: amqp::Settings,
    /// The relay.
    pub relay: relay::Settings,
}

impl Amqp {
    /// Whether a relay by these settings would do the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.broker.is_same(&other.broker) && self.relay == other.relay
    }
}

/// What a configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that was named, by a flag or by `COUNTERSIGN_CONFIG`; without one, `countersign.toml` in `directory`, or else
    /// `installed`.
    pub file: Option<PathBuf>,
    /// Where `countersign.toml` is looked for.
    pub directory: PathBuf,
    /// The file of a service that is installed on this machine, if there is one.
    pub installed: Option<PathBuf>,
    /// Variables of the environment, beside those of the process.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether the environment of this process counts. It is read again each time: a copy of it would be one of each secret.
    pub of_process: bool,
    /// `key=value`, as often as given.
    pub set: Vec<String>,
}

/// A configuration as far as it could be read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The file that was read, if any: absolute.
    pub file: Option<PathBuf>,
    /// Where a file was looked for in vain, if none was named and none found: absolute.
    missing: Vec<PathBuf>,
    /// What is risky.
    pub warnings: Vec<Warning>,
    /// The values in force, redacted.
    pub effective: Effective,
    faults: Vec<Fault>,
    lapsed: Vec<Fault>,
    shutdown_grace: Option<Duration>,
    http: Option<crate::http::Settings>,
    internal: Option<SocketAddr>,
    admin: Option<console::Settings>,
    ledger: Option<ledger::Settings>,
    amqp: Option<Amqp>,
    log: Option<log::Settings>,
    approval_center: Option<Option<client::Settings>>,
    outcomes: Option<outcomes::Settings>,
    reconcile: Option<reconcile::Settings>,
    enrichment: HashMap<String, enrichment::Settings>,
    intake: Option<intake::Settings>,
}

impl Loaded {
    /// Says where a file was looked for; `None` if one was named or found.
    #[must_use]
    pub fn no_file(&self) -> Option<String> {
        let paths: Vec<_> = self.missing.iter().map(|path| path.display().to_string()).collect();
        match &*paths {
            [] => None,
            [only] => Some(format!("{only} does not exist")),
            paths => Some(format!("neither {} exists", paths.join(" nor "))),
        }
    }

    /// Everything; all faults if there is one.
    pub fn config(&self) -> Result<Config, Faults> {
        let all = || {
            Some(Config {
                shutdown_grace: self.shutdown_grace?,
                http: self.http.clone()?,
                admin: self.admin.clone()?,
                ledger: self.ledger.clone()?,
                amqp: self.amqp.clone()?,
                log: self.log.clone()?,
                approval_center: self.approval_center.clone()?,
                outcomes: self.outcomes.clone()?,
                reconcile: self.reconcile.clone()?,
                enrichment: self.enrichment.clone(),
                intake: self.intake.clone().filter(|intake| !intake.endpoints.is_empty())?,
            })
        };
        match all() {
            Some(config) if self.faults.is_empty() => Ok(config),
            _ => Err(Faults(self.faults.clone())),
        }
    }

    /// Every fault; empty if [`Self::config`] succeeds.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// What was right when it was written, and time has made wrong: certificates that have expired. `config check` fails for
    /// them; `serve` starts all the same and says so, because a service that does not start publishes nothing either.
    #[must_use]
    pub fn lapsed(&self) -> &[Fault] {
        &self.lapsed
    }

    /// The public listener, whatever is wrong elsewhere. This and the following are for commands that need one section
    /// and should not fail because, say, a secret of another one cannot be read by the user who runs them.
    pub fn http(&self) -> Result<&crate::http::Settings, Faults> {
        self.part(self.http.as_ref(), "http")
    }

    /// The internal listener, whatever is wrong elsewhere.
    pub fn admin(&self) -> Result<&console::Settings, Faults> {
        self.part(self.admin.as_ref(), "admin")
    }

    /// Where the internal listener is, even if its token cannot be read by the user who runs this.
    pub fn internal(&self) -> Result<SocketAddr, Faults> {
        self.part(self.internal.as_ref(), "admin.listen").copied()
    }

    /// The ledger, whatever is wrong elsewhere.
    pub fn ledger(&self) -> Result<&ledger::Settings, Faults> {
        self.part(self.ledger.as_ref(), "ledger")
    }

    /// The broker, whatever is wrong elsewhere.
    pub fn amqp(&self) -> Result<&Amqp, Faults> {
        self.part(self.amqp.as_ref(), "amqp")
    }

    /// How to log, whatever is wrong elsewhere.
    pub fn log(&self) -> Result<&log::Settings, Faults> {
        self.part(self.log.as_ref(), "log")
    }

    /// The approval center's own APIs, whatever is wrong elsewhere; `None` if they are not to be used.
    pub fn approval_center(&self) -> Result<Option<&client::Settings>, Faults> {
        self.part(self.approval_center.as_ref(), "approval_center").map(Option::as_ref)
    }

    /// The settings of outcomes, whatever is wrong elsewhere.
    pub fn outcomes(&self) -> Result<&outcomes::Settings, Faults> {
        self.part(self.outcomes.as_ref(), "outcomes")
    }

    /// How decisions are compared with the approval center, whatever is wrong elsewhere.
    pub fn reconcile(&self) -> Result<&reconcile::Settings, Faults> {
        self.part(self.reconcile.as_ref(), "reconcile")
    }

    /// The endpoints, whatever is wrong elsewhere; none at all is no fault here.
    pub fn endpoints(&self) -> Result<&[intake::EndpointSettings], Faults> {
        match &self.intake {
            Some(intake) if intake.endpoints.is_empty() => Ok(&[]),
            intake => self.part(intake.as_ref(), "endpoints").map(|intake| intake.endpoints.as_slice()),
        }
    }

    /// The endpoints and the language, whatever is wrong elsewhere.
    pub fn intake(&self) -> Result<&intake::Settings, Faults> {
        self.part(self.intake.as_ref(), "endpoints")
    }

    fn part<'a, T>(&self, part: Option<&'a T>, section: &str) -> Result<&'a T, Faults> {
        // A fault without a key is one of the file or the environment as a whole.
        let concerns = |key: &str| {
            key.is_empty()
                || key
                    .strip_prefix(section)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let own: Vec<_> = self.faults.iter().filter(|fault| concerns(&fault.key)).cloned().collect();
        match part {
            Some(part) if own.is_empty() => Ok(part),
            None if own.is_empty() => Err(Faults(self.faults.clone())),
            _ => Err(Faults(own)),
        }
    }
}

#[cfg(test)]
mod tests;
