//! What of the service speaks to the approval center: none of it stands between a callback and its answer.

use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::Handle;

use crate::{
    app::{BesideSeat, StartBeside, StartWayBack},
    center::client::Center,
    center::enrichment::Enricher,
    center::outcomes,
    center::reconcile,
    config::Config,
    relay::Enrich,
};

/// The client, of which there is one: what uses it shares its token and its limits. `None` if it is not configured.
pub(super) fn center(config: &Config) -> anyhow::Result<Option<Center>> {
    let center = config.approval_center.as_ref().map(Center::new).transpose();
    center.context("cannot speak to the approval center")
}

/// What completes commands before they are published; `None` if no endpoint wants that.
pub(super) fn enricher(config: &Config, center: Option<&Center>) -> Option<Arc<dyn Enrich>> {
    let center = center.cloned().filter(|_| !config.enrichment.is_empty())?;
    Some(Arc::new(Enricher::new(center, config.enrichment.clone(), Handle::current())))
}

/// What works beside the relay; `None` if nothing is to.
pub(super) fn beside(config: &Config, center: Option<&Center>) -> Option<StartBeside> {
    let settings = config.reconcile.clone();
    let center = center.cloned().filter(|_| settings.every.is_some())?;
    Some(Arc::new(move |seat: BesideSeat| {
        Box::pin(reconcile::run(center.clone(), seat.ledger, settings.clone(), seat.metrics))
    }))
}

/// The way back, from what workers report to what the approver sees; `None` if there is nobody to tell, or no queue to hear
/// from.
pub(super) fn way_back(config: &Config, center: Option<&Center>) -> Option<StartWayBack> {
    let center = center.cloned().filter(|_| config.outcomes.queue().is_some())?;
    let (broker, settings) = (config.amqp.broker.clone(), config.outcomes.clone());
    Some(Arc::new(move |ledger, metrics, stop| {
        let (broker, settings, center) = (broker.clone(), settings.clone(), center.clone());
        let seat = outcomes::Seat { ledger, metrics, stop };
        Box::pin(async move { outcomes::run(seat, &broker, &settings, &center).await })
    }))
}
