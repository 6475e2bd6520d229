//! The ledger's file, opened for a command.

use anyhow::Context;

use super::exit::Failure;
use crate::{
    config::Loaded,
    ledger::{
        OperatorActs,
        sqlite::{Reader, SqliteActs},
    },
};

pub(super) fn reader(loaded: &Loaded) -> Result<Reader, Failure> {
    let opened = Reader::open(&loaded.ledger()?.path);
    Ok(opened.with_context(|| format!("cannot read the ledger ({})", named_by(loaded)))?)
}

pub(super) fn operator(loaded: &Loaded) -> Result<Box<dyn OperatorActs>, Failure> {
    let opened = SqliteActs::open(&loaded.ledger()?.path);
    Ok(Box::new(opened.with_context(|| format!("cannot write to the ledger ({})", named_by(loaded)))?))
}

/// Where the ledger was named, and how to name another.
pub(super) fn named_by(loaded: &Loaded) -> String {
    let origin = loaded.effective.origin("ledger.url").unwrap_or("default");
    let no_file = loaded.no_file().map_or(String::new(), |none| format!("; {none}"));
    format!("ledger.url from {origin}{no_file}; --config FILE or --set ledger.url=sqlite:PATH names another")
}
