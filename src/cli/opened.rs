//! The ledger, opened for a command.

use anyhow::Context;

use super::exit::Failure;
use crate::{
    config::Loaded,
    ledger::{self, Client},
};

/// Opens the ledger. What is asked of it must be awaited on the same runtime.
pub(super) async fn client(loaded: &Loaded) -> Result<Box<dyn Client>, Failure> {
    let opened = ledger::open_client(&loaded.ledger()?.location).await;
    Ok(opened.with_context(|| format!("cannot open the ledger ({})", named_by(loaded)))?)
}

/// Where the ledger was named, and how to name another.
pub(super) fn named_by(loaded: &Loaded) -> String {
    let origin = loaded.effective.origin("ledger.url").unwrap_or("default");
    let no_file = loaded.no_file().map_or(String::new(), |none| format!("; {none}"));
    format!("ledger.url from {origin}{no_file}; --config FILE or --set ledger.url=URL names another")
}
