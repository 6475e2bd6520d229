//! The configuration: one TOML file, the environment and flags, layered over documented defaults and read into the
//! typed settings of each module. All faults are reported at once, each with its key and origin.
//!
//! `default.toml`, next to this file, documents all keys and contains the defaults.

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
mod ledger;
mod load;
mod origin;
mod read;
mod secrets;
mod sections;
mod show;
mod tokens;
mod traces;
mod values;

use std::{collections::HashMap, ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    amqp,
    center::{client, enrichment, outcomes, reconcile},
    console, feedback, intake, relay,
    telemetry::{self, log},
};

pub use self::{
    changes::{Change, Changes, NEEDS_RESTART},
    fault::{Fault, Faults, Warning},
    load::load,
    origin::Origin,
    show::Effective,
};
pub(crate) use ledger::ledger_location;
pub(crate) use secrets::read_secret;
pub(crate) use values::parse_duration;

/// The documented defaults of every key.
pub const REFERENCE: &str = include_str!("default.toml");

/// The settings of `serve`.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long callbacks are taken after the request to stop.
    pub shutdown_delay: Duration,
    /// Time limit of a shutdown, after the delay.
    pub shutdown_grace: Duration,
    /// The public listener.
    pub http: crate::http::Settings,
    /// The internal listener.
    pub admin: console::Settings,
    /// The ledger.
    pub ledger: crate::ledger::Settings,
    /// The broker.
    pub amqp: Amqp,
    /// Logs.
    pub log: log::Settings,
    /// Where spans go; `None` for nowhere.
    pub traces: Option<telemetry::traces::Settings>,
    /// The approval center's own APIs; `None` if unused.
    pub approval_center: Option<client::Settings>,
    /// What is taken back from the broker.
    pub feedback: feedback::Settings,
    /// How outcomes are shown to the approver; unused without `approval_center`.
    pub outcomes: outcomes::Settings,
    /// How published decisions are compared with the approval center; unused without it.
    pub reconcile: reconcile::Settings,
    /// Enrichment of commands by endpoint name; only with `approval_center`.
    pub enrichment: HashMap<String, enrichment::Settings>,
    /// The endpoints: at least one.
    pub intake: intake::Settings,
}

/// The section `[amqp]`: where and how commands are published.
#[derive(Debug, Clone)]
pub struct Amqp {
    /// The broker. At least one URL; all are validated.
    pub broker: amqp::Settings,
    /// The relay.
    pub relay: relay::Settings,
}

impl Amqp {
    /// True if a relay with these settings would behave the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.broker.is_same(&other.broker) && self.relay == other.relay
    }
}

/// The sources of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file named by a flag or by `COUNTERSIGN_CONFIG`. Without one, `countersign.toml` in `directory` is read,
    /// or else `installed`.
    pub file: Option<PathBuf>,
    /// Where to look for `countersign.toml`.
    pub directory: PathBuf,
    /// The configuration file of a service installed on this machine, if any.
    pub installed: Option<PathBuf>,
    /// Environment variables, in addition to those of the process.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether to use the process environment. It is read each time: a copy would duplicate every secret.
    pub of_process: bool,
    /// Each `key=value` given.
    pub set: Vec<String>,
}

/// A configuration as far as it could be read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Absolute path of the file that was read, if any.
    pub file: Option<PathBuf>,
    /// Absolute paths where no file was found, if none was named and none found.
    missing: Vec<PathBuf>,
    /// Risky settings.
    pub warnings: Vec<Warning>,
    /// The effective values, redacted.
    pub effective: Effective,
    faults: Vec<Fault>,
    lapsed: Vec<Fault>,
    shutdown_delay: Option<Duration>,
    shutdown_grace: Option<Duration>,
    http: Option<crate::http::Settings>,
    internal: Option<SocketAddr>,
    admin: Option<console::Settings>,
    ledger: Option<crate::ledger::Settings>,
    amqp: Option<Amqp>,
    log: Option<log::Settings>,
    traces: Option<Option<telemetry::traces::Settings>>,
    approval_center: Option<Option<client::Settings>>,
    outcomes: Option<(feedback::Settings, outcomes::Settings)>,
    reconcile: Option<reconcile::Settings>,
    enrichment: HashMap<String, enrichment::Settings>,
    intake: Option<intake::Settings>,
}

impl Loaded {
    /// Reports where a file was looked for; `None` if one was named or found.
    #[must_use]
    pub fn no_file(&self) -> Option<String> {
        let paths: Vec<_> = self.missing.iter().map(|path| path.display().to_string()).collect();
        match &*paths {
            [] => None,
            [only] => Some(format!("{only} does not exist")),
            paths => Some(format!("neither {} exists", paths.join(" nor "))),
        }
    }

    /// The complete configuration, or all faults.
    pub fn config(&self) -> Result<Config, Faults> {
        let all = || {
            let (feedback, outcomes) = self.outcomes.clone()?;
            Some(Config {
                shutdown_delay: self.shutdown_delay?,
                shutdown_grace: self.shutdown_grace?,
                http: self.http.clone()?,
                admin: self.admin.clone()?,
                ledger: self.ledger.clone()?,
                amqp: self.amqp.clone()?,
                log: self.log.clone()?,
                traces: self.traces.clone()?,
                approval_center: self.approval_center.clone()?,
                feedback,
                outcomes,
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

    /// All faults; empty if [`Self::config`] succeeds.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Settings that have become invalid over time: expired certificates. `config check` fails for them. `serve` logs
    /// them and starts, because a service that does not start publishes nothing either.
    #[must_use]
    pub fn lapsed(&self) -> &[Fault] {
        &self.lapsed
    }

    /// The public listener. This and the following methods ignore faults in other sections. A command that needs only
    /// one section must not fail because, say, its user cannot read another section's secret.
    pub fn http(&self) -> Result<&crate::http::Settings, Faults> {
        self.part(self.http.as_ref(), "http")
    }

    /// The internal listener.
    pub fn admin(&self) -> Result<&console::Settings, Faults> {
        self.part(self.admin.as_ref(), "admin")
    }

    /// Address of the internal listener, even if this user cannot read its token.
    pub fn internal(&self) -> Result<SocketAddr, Faults> {
        self.part(self.internal.as_ref(), "admin.listen").copied()
    }

    /// The ledger.
    pub fn ledger(&self) -> Result<&crate::ledger::Settings, Faults> {
        self.part(self.ledger.as_ref(), "ledger")
    }

    /// The broker.
    pub fn amqp(&self) -> Result<&Amqp, Faults> {
        self.part(self.amqp.as_ref(), "amqp")
    }

    /// How to log.
    pub fn log(&self) -> Result<&log::Settings, Faults> {
        self.part(self.log.as_ref(), "log")
    }

    /// The approval center's own APIs; `None` if unused.
    pub fn approval_center(&self) -> Result<Option<&client::Settings>, Faults> {
        self.part(self.approval_center.as_ref(), "approval_center").map(Option::as_ref)
    }

    /// How decisions are compared with the approval center.
    pub fn reconcile(&self) -> Result<&reconcile::Settings, Faults> {
        self.part(self.reconcile.as_ref(), "reconcile")
    }

    /// The endpoints. An empty list is not a fault here.
    pub fn endpoints(&self) -> Result<&[intake::EndpointSettings], Faults> {
        match &self.intake {
            Some(intake) if intake.endpoints.is_empty() => Ok(&[]),
            intake => self.part(intake.as_ref(), "endpoints").map(|intake| intake.endpoints.as_slice()),
        }
    }

    /// The endpoints and the language.
    pub fn intake(&self) -> Result<&intake::Settings, Faults> {
        self.part(self.intake.as_ref(), "endpoints")
    }

    fn part<'a, T>(&self, part: Option<&'a T>, section: &str) -> Result<&'a T, Faults> {
        // A fault without a key concerns the file or the environment as a whole.
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
