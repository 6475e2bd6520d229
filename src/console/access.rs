//! The API's token, which a reload may replace, and the state of the configuration in force.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use serde::Serialize;

use super::Settings;
use crate::{secret::Secret, time::Timestamp};

/// Who may use the API, and what `/readyz` reports about the configuration.
pub struct Access {
    /// The listener's actual address, even if a later configuration differs.
    listen: SocketAddr,
    token: RwLock<Option<Arc<Secret>>>,
    configuration: RwLock<Configuration>,
}

/// The configuration in force, as `/readyz` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Configuration {
    /// When it took effect.
    pub in_force_since: Timestamp,
    /// The result of the last SIGHUP; `null` if there was none.
    pub last_reload: Option<Reload>,
    /// Keys whose new values need a restart.
    pub restart_needed: Vec<String>,
}

/// The result of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reload {
    /// When it happened.
    pub at: Timestamp,
    /// Whether the new configuration is in force.
    pub result: ReloadResult,
}

/// Whether a reloaded configuration is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadResult {
    /// It is in force.
    Applied,
    /// It was invalid; the previous one stays in force.
    Rejected,
}

impl Access {
    /// Uses the token of these settings, if they have one.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let configuration =
            Configuration { in_force_since: Timestamp::now(), last_reload: None, restart_needed: Vec::new() };
        Self {
            listen: settings.listen,
            token: RwLock::new(settings.token.clone().map(Arc::new)),
            configuration: RwLock::new(configuration),
        }
    }

    /// Replaces the token; `listen` cannot be changed. Returns false and keeps the old token if the settings have
    /// none but the listener is reachable from other machines, where a token is mandatory.
    ///
    /// Settings without a token are valid for their own `listen`, which may differ from the address in use.
    #[must_use]
    pub fn replace(&self, settings: &Settings) -> bool {
        if settings.token.is_none() && !self.listen.ip().is_loopback() {
            return false;
        }
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = settings.token.clone().map(Arc::new);
        true
    }

    pub(super) fn token(&self) -> Option<Arc<Secret>> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What `/readyz` reports about the configuration.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        self.configuration.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the result of a reload and, if it was applied, which keys need a restart.
    pub fn reloaded(&self, result: ReloadResult, restart_needed: Vec<String>) {
        let at = Timestamp::now();
        let mut configuration = self.configuration.write().unwrap_or_else(PoisonError::into_inner);
        configuration.last_reload = Some(Reload { at, result });
        if result == ReloadResult::Applied {
            configuration.in_force_since = at;
            configuration.restart_needed = restart_needed;
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("listen", &self.listen).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(listen: &str, token: Option<&str>) -> Settings {
        Settings { listen: listen.parse().unwrap(), token: token.map(Secret::new) }
    }

    #[test]
    fn the_token_may_go_only_where_nobody_else_can_come_in() {
        let local = Access::new(&settings("127.0.0.1:9090", Some("fake-token")));
        assert!(local.replace(&settings("127.0.0.1:9090", None)));
        assert!(local.token().is_none());

        let open = Access::new(&settings("0.0.0.0:9090", Some("fake-token")));
        // Valid as a configuration, but the listener does not move until a restart.
        assert!(!open.replace(&settings("127.0.0.1:9090", None)));
        assert!(open.token().unwrap().equals("fake-token"));
        assert!(open.replace(&settings("127.0.0.1:9090", Some("another-fake"))));
        assert!(open.token().unwrap().equals("another-fake"));
    }
}
