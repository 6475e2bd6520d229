//! The parts of the service that call the approval center. None is between a callback and its answer.

use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::Handle;

use crate::{
    app::{Resources, Start},
    center::{client::Center, enrichment::Enricher, outcomes, reconcile},
    config::Config,
    feedback,
    relay::Enrich,
    stop::requested,
};

/// The shared client: its users share a token and limits. `None` if not configured.
pub(in crate::cli) fn center(config: &Config) -> anyhow::Result<Option<Center>> {
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

/// Takes back what comes from the broker; `None` if nothing is to be taken.
pub(super) fn feedback(config: &Config) -> Option<Start> {
    let (broker, settings) = (config.amqp.broker.clone(), config.feedback.clone());
    (settings.queue().is_some() || broker.collects).then_some(())?;
    Some(Arc::new(move |Resources { ledger, metrics, bell, stop, .. }| {
        let (broker, settings) = (broker.clone(), settings.clone());
        let resources = feedback::Resources { ledger, metrics, bell, stop };
        Box::pin(async move { Box::pin(feedback::run(resources, &broker, &settings)).await })
    }))
}

/// Shows outcomes to approvers; `None` without an approval center or a queue of reports.
pub(super) fn outcomes(config: &Config, center: Option<&Center>) -> Option<Start> {
    let center = center.cloned().filter(|_| config.feedback.queue().is_some())?;
    let settings = config.outcomes.clone();
    Some(Arc::new(move |Resources { ledger, metrics, bell, stop, .. }| {
        let (settings, center) = (settings.clone(), center.clone());
        let resources = outcomes::Resources { ledger, metrics, bell, stop };
        Box::pin(async move { outcomes::run(resources, &settings, &center).await })
    }))
}
