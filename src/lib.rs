//! countersign (draft of the crate doc)

pub mod callback;
pub mod command;
pub mod config;
pub mod context;
pub mod intake;
pub mod ledger;
pub mod secret;
pub mod telemetry;
