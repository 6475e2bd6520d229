//! The sections of what stands round the callback.

mod client;
mod enrichment;
mod outcomes;
mod reconcile;

pub(super) use self::{
    client::approval_center, enrichment::enrichment, outcomes::rules, reconcile::reconcile,
};
