//! The client of the approval center's APIs, and the features that need it.
//!
//! All of it is off unless configured. Nothing on the accept path imports it (INVARIANT 4).

pub mod client;
pub mod enrichment;
pub mod outcomes;
pub mod reconcile;
