//! The parts of the service that call the approval center. None is between a callback and its answer.

use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::Handle;

use crate::{
    app::{Resources, Start},
    center::{client::Center, enrichment::Enricher, outcomes, reconcile},
    config::Config,
    relay::Enrich,
    stop::requested,
};

/// The shared client: its users share a token and limits. `None` if not configured.
pub(super) fn center(config: &Config) -> anyhow::Result<Option<Center>> {
    let center = config.approval_center.as_ref().map(Center::new).transpose();
    center.context("cannot set up the approval center's client")
}

/// Enriches commands before they are published; `None` if no endpoint enables it.
pub(super) fn enricher(config: &Config, center: Option<&Center>) -> Option<Arc<dyn Enrich>> {
    let center = center.cloned().filter(|_| !config.enrichment.is_empty())?;
    Some(Arc::new(Enricher::new(center, config.enrichment.clone(), Handle::current())))
}

/// Compares commands with the approval center; `None` if disabled.
pub(super) fn reconciliation(config: &Config, center: Option<&Center>) -> Option<Start> {
    let settings = config.reconcile.clone();
    let center = center.cloned().filter(|_| settings.every.is_some())?;
    Some(Arc::new(move |mut resources: Resources| {
        let passes = reconcile::run(center.clone(), resources.ledger, settings.clone(), resources.metrics);
        Box::pin(async move {
            tokio::select! {
                () = passes => {}
                () = requested(&mut resources.stop) => {}
            }
        })
    }))
}

/// Receives workers' reports and shows them to approvers; `None` without an approval center or a queue.
pub(super) fn outcomes(config: &Config, center: Option<&Center>) -> Option<Start> {
    let center = center.cloned().filter(|_| config.outcomes.queue().is_some())?;
    let (broker, settings) = (config.amqp.broker.clone(), config.outcomes.clone());
    Some(Arc::new(move |Resources { ledger, metrics, stop, .. }| {
        let (broker, settings, center) = (broker.clone(), settings.clone(), center.clone());
        let resources = outcomes::Resources { ledger, metrics, stop };
        Box::pin(async move { outcomes::run(resources, &broker, &settings, &center).await })
    }))
}
