//! The sections about the approval center's APIs.

mod client;
mod enrichment;
mod outcomes;
mod reconcile;

pub(super) use self::{
    client::approval_center, enrichment::enrichment, outcomes::rules, reconcile::reconcile,
};
