//! Addresses of the console's pages in lines about a command, or about something else that has a page.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// The field with the id of a command, whose page is written after it.
pub(super) const COMMAND_ID: &str = "command_id";

/// The page of a command, from its id.
pub(super) const DECISION: &str = "/decisions/";

/// The field with the path of another page: written as an address, and only if the console's is known.
pub(super) const PAGE: &str = "page";

/// The console's address in browsers, without a slash at its end; `None` if nobody has configured it.
#[derive(Clone, Default)]
pub(super) struct Pages(Arc<RwLock<Option<String>>>);

impl Pages {
    pub(super) fn set(&self, base: Option<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = base;
    }

    pub(super) fn base(&self) -> RwLockReadGuard<'_, Option<String>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
