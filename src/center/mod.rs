//! What stands round the callback: the client of the approval center's APIs, and the work that needs it.
//!
//! All of it is off unless configured, and nothing on the accept path imports it (INVARIANT 4).

pub mod client;
pub mod enrichment;
pub mod outcomes;
pub mod reconcile;
