//! countersign (draft of the crate doc)

pub mod app;
pub mod callback;
pub mod command;
pub mod console;
pub mod context;
pub mod http;
pub mod intake;
pub mod ledger;
pub mod secret;
pub mod telemetry;
