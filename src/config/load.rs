//! Loads the settings: merges the file, the environment and the flags over the defaults, and reads every section.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Loaded, REFERENCE, Sources, center, endpoints, environment,
    fault::{Fault, Warning},
    files::{self, absolute},
    http,
    layers::{self, Entry, Step, Table, Text, Value},
    ledger,
    origin::Origin,
    read::{Report, Section},
    sections,
    show::Effective,
    traces,
};
use crate::{feedback::Rules, intake};

/// The file to read if it exists and no other is named.
const USUAL_FILE: &str = "countersign.toml";

/// Reads the configuration. Never fails: errors are in [`Loaded::faults`].
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

    // If the lookup itself is denied, assume the file exists: reading it then reports why.
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
    let mut loaded = Loaded { file, missing, ..Loaded::default() };
    // If the file cannot be parsed, every other fault is guesswork.
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
    loaded.shutdown_delay = root.millis("shutdown_delay_ms", 0..=600_000);
    loaded.shutdown_grace = root.millis("shutdown_grace_ms", 0..=600_000);
    // Before the sections, which contain secrets.
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
    loaded.ledger = root.table("ledger", ledger::ledger);
    loaded.amqp = root.table("amqp", sections::amqp);
    let mut identities = None;
    loaded.log = root.table("log", |section| {
        let (log, whether) = sections::log(section);
        identities = whether;
        log
    });
    if let (Some(log), Some(admin)) = (&mut loaded.log, &loaded.admin) {
        log.pages = admin.public_url.as_ref().map(|url| url.page(""));
    }
    loaded.traces = root.table("traces", traces::traces);
    loaded.approval_center = root.table("approval_center", center::approval_center);
    let taken = loaded.amqp.as_ref().map(|amqp| amqp.broker.queue.clone());
    loaded.outcomes = root.table("outcomes", |section| sections::outcomes(section, taken));
    if let Some((feedback, _)) = &mut loaded.outcomes {
        feedback.shows = matches!(loaded.approval_center, Some(Some(_)));
        feedback.needed |= feedback.shows;
        if let Some(amqp) = &mut loaded.amqp {
            amqp.broker.outcomes = feedback.queue().map(str::to_owned);
            amqp.broker.outcomes_needed = feedback.needed;
        }
    }
    loaded.reconcile = root.table("reconcile", center::reconcile);
    let endpoints =
        root.tables("endpoints", |section| endpoints::endpoint(section, locale.unwrap_or_default()));
    endpoints::check_names(&mut root, tree);
    if let Some(endpoints) = endpoints {
        let center_is_off = matches!(loaded.approval_center, Some(None));
        let (mut list, mut profiles) = (Vec::new(), Vec::new());
        for (place, endpoint) in endpoints.into_iter().enumerate() {
            let endpoints::EndpointSection { settings: endpoint, profile, enrichment, rules } = endpoint;
            if let Some((feedback, _)) = &mut loaded.outcomes
                && rules != Rules::default()
            {
                feedback.rules.insert(endpoint.name.clone(), rules);
            }
            if let Some(enrichment) = enrichment {
                if center_is_off {
                    endpoints::check_enrichment(&mut root, tree, place);
                }
                loaded.enrichment.insert(endpoint.name.clone(), enrichment);
            }
            let no_reports = loaded.outcomes.as_ref().is_some_and(|(feedback, _)| feedback.queue().is_none());
            if no_reports && endpoint.answer_wait.is_some() {
                endpoints::check_answer(&mut root, tree, place);
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
            let limits = &mut ledger.sizing.limits;
            limits.longest_window = longest(|endpoint| endpoint.dedupe_window);
            limits.longest_repeats_window = longest(|endpoint| endpoint.repeats_window);
        }
        loaded.intake = locale.zip(identities).map(|(locale, identities)| intake::Settings {
            endpoints,
            locale,
            identities,
        });
    }
    root.finish();
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

/// Defaults of every endpoint: the only endpoint in the reference.
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

/// `--set key=value`, in command-line order.
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
