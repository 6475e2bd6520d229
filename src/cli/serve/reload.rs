//! SIGHUP: reads and checks the whole configuration again, then applies either everything that can change while the
//! service runs, or nothing.

use serde_json::{Value, json};

use super::{relay, settings, workers};
use crate::{
    app::{Controls, ReloadResult},
    center::client::Center,
    cli::actor::host,
    config::{Changes, Config, Effective, Fault, Faults, Loaded, Sources, load},
    ledger::{ActKind, Actor, NewAct, Via},
    telemetry::log::{Log, chain},
};

/// Reads the configuration again from the same sources.
pub(super) struct Reloader {
    sources: Sources,
    /// As read at startup. Values that need a restart are still those.
    at_start: Effective,
    /// As last read without a fault.
    last: Effective,
    /// The active configuration.
    config: Config,
    /// Built from `config`. Clients share a token and limits, so it is kept while its settings do not change.
    center: Option<Center>,
}

impl Reloader {
    /// `loaded` is the startup configuration, `config` its settings, `center` the client built from them.
    pub(super) fn new(sources: Sources, loaded: Loaded, config: Config, center: Option<Center>) -> Self {
        Self { sources, at_start: loaded.effective.clone(), last: loaded.effective, config, center }
    }

    /// Reads, checks and applies the configuration, logs the result, and returns the act. If dropped midway, completed
    /// steps stay in effect.
    pub(super) async fn reload(&mut self, controls: &Controls, log: &Log) -> NewAct {
        tracing::info!(signal = "SIGHUP", "reloading the configuration");
        let sources = self.sources.clone();
        // The files may be on a disk that hangs.
        let loaded = match tokio::task::spawn_blocking(move || load(&sources)).await {
            Ok(loaded) => loaded,
            Err(panicked) => {
                tracing::error!("reading the configuration failed: {}", chain(&panicked));
                return rejected(controls, &[]);
            }
        };
        let config = match loaded.config() {
            Ok(config) => config,
            Err(faults) => {
                tell_faults(&faults);
                let keys: Vec<&str> = faults.0.iter().filter_map(Fault::key).collect();
                return rejected(controls, &keys);
            }
        };
        self.apply(config, loaded, controls, log)
    }

    fn apply(&mut self, config: Config, loaded: Loaded, controls: &Controls, log: &Log) -> NewAct {
        let changes = self.last.changes_to(&loaded.effective);
        let center =
            if changes.touch("approval_center") { workers::center(&config) } else { Ok(self.center.clone()) };
        let center = match center {
            Ok(center) => center,
            Err(error) => {
                tracing::error!("new configuration rejected: {}", chain(error.as_ref()));
                return rejected(controls, &[]);
            }
        };
        let completes_otherwise = config.enrichment != self.config.enrichment
            || (!config.enrichment.is_empty() && changes.touch("approval_center"));
        let exchange = (!config.amqp.is_same(&self.config.amqp) || completes_otherwise)
            .then(|| relay(&config, center.as_ref()));
        let exchanged = exchange.is_some();
        let left = match controls.replace(&settings(&config), config.ledger.sizing.limits.clone(), exchange) {
            Ok(left) => left,
            Err(error) => {
                tracing::error!(
                    "new configuration not applied; the previous one stays in use: {}",
                    chain(error.as_ref())
                );
                return rejected(controls, &[]);
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!(key = warning.key(), "configuration: {warning}");
        }
        if changes.touch("approval_center") || config.reconcile != self.config.reconcile {
            controls.exchange_reconciliation(workers::reconciliation(&config, center.as_ref()));
        }
        if changes.touch("amqp") || config.feedback != self.config.feedback {
            let start = workers::feedback(&config);
            let on = start.is_some();
            controls.exchange_feedback(start);
            tracing::info!(on, "taking outcomes and dead letters restarts with the new configuration");
        }
        let shows = config.feedback.queue().is_some();
        if changes.touch("approval_center")
            || config.outcomes != self.config.outcomes
            || shows != self.config.feedback.queue().is_some()
        {
            let start = workers::outcomes(&config, center.as_ref());
            let on = start.is_some();
            controls.exchange_outcomes(start);
            tracing::info!(on, "showing outcomes restarts with the new configuration");
        }
        tell_changes(&changes);
        if exchanged {
            tracing::info!("relay restarts with the new configuration");
        }
        let since_start = self.at_start.changes_to(&loaded.effective);
        let mut restart: Vec<String> = since_start.needing_restart().map(str::to_owned).collect();
        restart.extend(left.into_iter().map(str::to_owned));
        for key in &restart {
            tracing::warn!(key, "this key needs a restart; the new value is not in use yet");
        }
        self.last = loaded.effective;
        if let Err(error) = log.replace(&config.log) {
            tracing::error!("log settings not applied: {}", chain(&error));
        }
        (self.config, self.center) = (config, center);
        let act = applied(&changes, &restart);
        controls.reloaded(ReloadResult::Applied, restart);
        tracing::info!(
            changed = changes.keys.len() + changes.endpoints_added.len() + changes.endpoints_removed.len(),
            "configuration applied"
        );
        act
    }
}

/// Keys that an act names at the most: a change of everything is told by the log.
const MAX_KEYS: usize = 50;

fn rejected(controls: &Controls, faults: &[&str]) -> NewAct {
    controls.reloaded(ReloadResult::Rejected, Vec::new());
    let faults = &faults[..faults.len().min(MAX_KEYS)];
    act(json!({ "result": ReloadResult::Rejected, "faults": faults }))
}

/// Names the changed keys, never their values.
fn applied(changes: &Changes, restart: &[String]) -> NewAct {
    let keys: Vec<&str> = changes.keys.iter().map(|change| change.key.as_str()).take(MAX_KEYS).collect();
    let first = |names: &[String]| names[..names.len().min(MAX_KEYS)].to_vec();
    act(json!({
        "result": ReloadResult::Applied,
        "changed": keys,
        "endpoints_added": first(&changes.endpoints_added),
        "endpoints_removed": first(&changes.endpoints_removed),
        "restart_needed": first(restart),
    }))
}

fn act(detail: Value) -> NewAct {
    let actor = Actor { host: Some(host()), ..Actor::unnamed(Via::Signal) };
    NewAct { kind: ActKind::Reload, by: actor.into(), detail: Some(detail), count: 0 }
}

fn tell_faults(faults: &Faults) {
    for fault in &faults.0 {
        tracing::error!(key = fault.key(), "configuration: {fault}");
    }
    tracing::error!(faults = faults.0.len(), "new configuration rejected; the previous one stays in use");
}

fn tell_changes(changes: &Changes) {
    for endpoint in &changes.endpoints_added {
        tracing::info!(endpoint, "configuration: endpoint added");
    }
    for endpoint in &changes.endpoints_removed {
        tracing::info!(
            endpoint,
            "configuration: endpoint removed; its callbacks are refused as unauthenticated"
        );
    }
    for change in &changes.keys {
        let (key, from, to) = (&change.key, change.from.as_deref(), change.to.as_deref());
        tracing::info!(key, from, to, "configuration: changed");
    }
}
