//! What of the service speaks to the approval center: none of it stands between a callback and its answer.

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

/// The client, of which there is one: what uses it shares its token and its limits. `None` if it is not configured.
pub(super) fn center(config: &Config) -> anyhow::Result<Option<Center>> {
    let center = config.approval_center.as_ref().map(Center::new).transpose();
    center.context("cannot set up the approval center's client")
}

/// What completes commands before they are published; `None` if no endpoint wants that.
pub(super) fn enricher(config: &Config, center: Option<&Center>) -> Option<Arc<dyn Enrich>> {
    let center = center.cloned().filter(|_| !config.enrichment.is_empty())?;
    Some(Arc::new(Enricher::new(center, config.enrichment.clone(), Handle::current())))
}

/// What compares commands with what the approval center shows; `None` if it is not to.
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

/// What takes the reports of workers and shows them to approvers; `None` if there is nobody to tell, or no queue to take them
/// from.
pub(super) fn outcomes(config: &Config, center: Option<&Center>) -> Option<Start> {
    let center = center.cloned().filter(|_| config.outcomes.queue().is_some())?;
    let (broker, settings) = (config.amqp.broker.clone(), config.outcomes.clone());
    Some(Arc::new(move |Resources { ledger, metrics, stop, .. }| {
        let (broker, settings, center) = (broker.clone(), settings.clone(), center.clone());
        let resources = outcomes::Resources { ledger, metrics, stop };
        Box::pin(async move { outcomes::run(resources, &broker, &settings, &center).await })
    }))
}
