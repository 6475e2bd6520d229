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
mod origin;
mod read;
mod secrets;
mod sections;
mod show;
mod values;

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use self::{
    layers::{Entry, Step, Table, Text, Value},
    read::{Report, Section},
};
use crate::{
    amqp,
    center::{client, enrichment, outcomes, reconcile},
    console, intake, ledger, relay,
    telemetry::log,
};

pub use self::{
    changes::{Change, Changes, NEEDS_RESTART},
    fault::{Fault, Faults, Warning},
    origin::Origin,
    show::Effective,
};
pub(crate) use secrets::read_secret;
pub(crate) use values::parse_duration;

/// The documented defaults: the reference of every key.
pub const REFERENCE: &str = include_str!("default.toml");

/// The file that is read if it exists and no other is named.
const USUAL_FILE: &str = "countersign.toml";

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
    /// Whether the environment of this process counts. It is read anew each time: a copy of it would be one of each secret.
    pub of_process: bool,
    /// `key=value`, as often as given.
    pub set: Vec<String>,
}

/// A configuration as far as it could be read.
#[derive(Debug)]
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
    /// and should not fail because, say, a secret of another one cannot be read by whoever runs them.
    pub fn http(&self) -> Result<&crate::http::Settings, Faults> {
        self.part(self.http.as_ref(), "http")
    }

    /// The internal listener, whatever is wrong elsewhere.
    pub fn admin(&self) -> Result<&console::Settings, Faults> {
        self.part(self.admin.as_ref(), "admin")
    }

    /// Where the internal listener is, even if its token cannot be read by whoever runs this.
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

/// Reads the configuration. Does not fail: what is wrong is in [`Loaded::faults`].
#[must_use]
pub fn load(sources: &Sources) -> Loaded {
    let (environment, mut faults) = environment::utf8(
        sources
            .of_process
            .then(std::env::vars_os)
            .into_iter()
            .flatten()
            .chain(sources.environment.iter().cloned()),
    );
    let mut tree = layers::parse_defaults(REFERENCE);
    let template = take_endpoint_template(&mut tree);
    let mut warnings = Vec::new();
    let mut readable = true;

    // A file that may not even be looked for is taken for one: reading it says why it cannot be read.
    let is_there = |path: &PathBuf| path.try_exists().unwrap_or(true);
    let usual =
        || [Some(sources.directory.join(USUAL_FILE)), sources.installed.clone()].into_iter().flatten();
    let file = sources.file.clone().or_else(|| usual().find(is_there)).map(absolute);
    let missing = if file.is_none() { usual().map(absolute).collect() } else { Vec::new() };
    if let Some(path) = &file {
        match read_file(path) {
            Ok(layer) => tree.overlay(layer),
            Err(found) => {
                faults.extend(found);
                readable = false;
            }
        }
    }
    environment::lay(&mut tree, &environment, &mut faults, &mut warnings);
    for (path, entry) in flags(&sources.set, &mut faults) {
        faults.extend(layers::set(&mut tree, &path, entry).err());
    }
    complete_endpoints(&mut tree, &template);

    let mut report = Report {
        environment: &environment,
        referenced: HashSet::new(),
        allow_weak_secrets: false,
        secrets_in_file: false,
        beside: file.as_ref().and_then(|file| file.parent()).map(Path::to_owned),
        faults,
        lapsed: Vec::new(),
        warnings,
        effective: Effective::default(),
    };
    let mut loaded = Loaded {
        file,
        missing,
        warnings: Vec::new(),
        effective: Effective::default(),
        faults: Vec::new(),
        lapsed: Vec::new(),
        shutdown_grace: None,
        http: None,
        internal: None,
        admin: None,
        ledger: None,
        amqp: None,
        log: None,
        approval_center: None,
        outcomes: None,
        reconcile: None,
        enrichment: HashMap::new(),
        intake: None,
    };
    // A file that cannot be read as a whole makes every other fault guesswork.
    if readable {
        read_sections(&tree, &mut report, &mut loaded);
        report.warnings.extend(environment::lookalikes(&environment, &report.referenced));
    }
    if report.secrets_in_file
        && let Some(path) = &loaded.file
        && let Some(problem) = files::exposed(path)
    {
        report.warnings.push(Warning {
            key: String::new(),
            problem: format!("holds secrets, and {problem}"),
            origin: Some(Origin::File { path: path.as_path().into(), line: 0 }),
        });
    }
    loaded.faults = report.faults;
    loaded.lapsed = report.lapsed;
    loaded.warnings = report.warnings;
    loaded.effective = report.effective;
    loaded
}

fn read_sections(tree: &Table, report: &mut Report<'_>, loaded: &mut Loaded) {
    let mut root = Section::root(tree, report);
    loaded.shutdown_grace = root.millis("shutdown_grace_ms", 0..=600_000);
    // Before the sections, which have secrets.
    let allow_weak = root.flag("allow_weak_secrets");
    root.report.allow_weak_secrets = allow_weak == Some(true);
    let mut locale = None;
    loaded.http = root.table("http", |section| {
        let (http, language) = http::http(section);
        locale = language;
        http
    });
    loaded.admin = root.table("admin", |section| {
        loaded.internal = sections::listen(section);
        sections::admin(section, loaded.internal)
    });
    if let (Some(http), Some(internal)) = (&loaded.http, loaded.internal) {
        sections::check_ports(&mut root, http.listen, internal);
    }
    loaded.ledger = root.table("ledger", sections::ledger);
    loaded.amqp = root.table("amqp", sections::amqp);
    let mut identities = None;
    loaded.log = root.table("log", |section| {
        let (log, whether) = sections::log(section);
        identities = whether;
        log
    });
    loaded.approval_center = root.table("approval_center", center::approval_center);
    let center_is_on = !matches!(loaded.approval_center, Some(None));
    let taken = loaded.amqp.as_ref().filter(|_| center_is_on).map(|amqp| amqp.broker.queue.clone());
    loaded.outcomes = root.table("outcomes", |section| sections::outcomes(section, taken, center_is_on));
    if let (Some(amqp), Some(outcomes), Some(Some(_))) =
        (&mut loaded.amqp, &loaded.outcomes, &loaded.approval_center)
    {
        amqp.broker.outcomes = outcomes.queue().map(str::to_owned);
    }
    loaded.reconcile = root.table("reconcile", center::reconcile);
    let endpoints =
        root.tables("endpoints", |section| endpoints::endpoint(section, locale.unwrap_or_default()));
    endpoints::check_names(&mut root, tree);
    if let Some(endpoints) = endpoints {
        let center_is_off = matches!(loaded.approval_center, Some(None));
        let (mut list, mut profiles) = (Vec::new(), Vec::new());
        for (place, endpoint) in endpoints.into_iter().enumerate() {
            let endpoints::Endpoint { settings: endpoint, profile, enrichment, rules } = endpoint;
            if let Some(outcomes) = &mut loaded.outcomes
                && rules != outcomes::Rules::default()
            {
                outcomes.rules.insert(endpoint.name.clone(), rules);
            }
            if let Some(enrichment) = enrichment {
                if center_is_off {
                    endpoints::check_enrichment(&mut root, tree, place);
                }
                loaded.enrichment.insert(endpoint.name.clone(), enrichment);
            }
            list.push(endpoint);
            profiles.push(profile);
        }
        let endpoints = list;
        if let Some(amqp) = &mut loaded.amqp {
            let names = endpoints.iter().map(|endpoint| endpoint.name.clone());
            amqp.broker.profiles = names.zip(profiles).collect();
        }
        if endpoints.is_empty() {
            let file = loaded
                .no_file()
                .map_or("the file".to_owned(), |none| format!("a file ({none}; --config FILE names one)"));
            let variable = "COUNTERSIGN_ACTION_CALLBACK_TOKEN in the environment";
            root.fault("endpoints", "is missing", format!("an [[endpoints]] in {file}, or {variable}"));
        }
        if let Some(ledger) = &mut loaded.ledger {
            let longest = |window: fn(&intake::EndpointSettings) -> Duration| {
                endpoints.iter().map(window).max().unwrap_or_default()
            };
            ledger.limits.longest_window = longest(|endpoint| endpoint.dedupe_window);
            ledger.limits.longest_repeats_window = longest(|endpoint| endpoint.repeats_window);
        }
        loaded.intake = locale.zip(identities).map(|(locale, identities)| intake::Settings {
            endpoints,
            locale,
            identities,
        });
    }
    root.finish();
}

/// As a person finds it wherever they stand; as it is, if there is no working directory any more.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn read_file(path: &Path) -> Result<Table, Vec<Fault>> {
    let fault = |problem: String| {
        vec![Fault {
            key: String::new(),
            problem,
            expected: "a TOML file; --config FILE or COUNTERSIGN_CONFIG names another".to_owned(),
            origin: Some(Origin::File { path: path.into(), line: 0 }),
        }]
    };
    let bytes = fs::read(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    // It may hold secrets.
    let bytes = zeroize::Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map_err(|_| fault("is not UTF-8 text".to_owned()))?;
    layers::parse_file(text, path)
}

/// What an endpoint has that does not say otherwise: the one endpoint of the reference.
fn take_endpoint_template(defaults: &mut Table) -> Table {
    match defaults.remove("endpoints").map(|entry| entry.value) {
        Some(Value::List(mut list)) => match list.pop().map(|entry| entry.value) {
            Some(Value::Table(template)) => template,
            _ => Table::default(),
        },
        _ => Table::default(),
    }
}

fn complete_endpoints(tree: &mut Table, template: &Table) {
    let Some(entry) = tree.get_mut("endpoints") else { return };
    if let Value::Word(word) = &entry.value
        && let Some(list) = layers::parse_word(word, &entry.origin)
    {
        entry.value = list;
    }
    if let Value::List(list) = &mut entry.value {
        for endpoint in list {
            if let Value::Table(endpoint) = &mut endpoint.value {
                endpoint.underlay(template);
            }
        }
    }
}

/// `--set key=value`, in the order of the command line.
fn flags(set: &[String], faults: &mut Vec<Fault>) -> Vec<(Vec<Step>, Entry)> {
    let mut found = Vec::new();
    for assignment in set {
        let (key, value) = match assignment.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value)),
            None => (assignment.as_str(), None),
        };
        let origin = Origin::Flag(key.to_owned());
        match (layers::path_of_flag(key), value) {
            (Some(path), Some(value)) => {
                found.push((path, Entry { value: Value::Word(Text::new(value.to_owned())), origin }));
            }
            _ => faults.push(Fault {
                key: String::new(),
                problem: "sets nothing".to_owned(),
                expected: "--set SECTION.KEY=VALUE".to_owned(),
                origin: Some(origin),
            }),
        }
    }
    found
}

#[cfg(test)]
mod tests;
