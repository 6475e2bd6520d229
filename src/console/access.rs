//! The token of the API, which a reload may exchange, and what is known of the configuration in force.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use serde::Serialize;

use super::Settings;
use crate::{secret::Secret, time::Timestamp};

/// Who may use the API, and what `/readyz` says of the configuration.
pub struct Access {
    /// Where the listener is, whatever a later configuration says.
    listen: SocketAddr,
    token: RwLock<Option<Arc<Secret>>>,
    configuration: RwLock<Configuration>,
}

/// The configuration in force, as `/readyz` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Configuration {
    /// When it was put in force.
    pub in_force_since: Timestamp,
    /// What came of the last SIGHUP; `null` if there was none.
    pub last_reload: Option<Reload>,
    /// Keys whose new values wait for a restart.
    pub restart_needed: Vec<String>,
}

/// What came of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reload {
    /// When.
    pub at: Timestamp,
    /// Whether the new configuration is in force.
    pub result: ReloadResult,
}

/// Whether a reloaded configuration is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadResult {
    /// It is.
    Applied,
    /// It had faults; the one before is.
    Rejected,
}

impl Access {
    /// With the token of these settings, if they have one.
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

    /// Asks for another token from now on; `listen` cannot be changed. False if the settings have no token and the
    /// listener can be reached from elsewhere, where one is always asked for: then the one before stays.
    ///
    /// Settings without a token are sound for their own `listen`, which need not be the one that is served.
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

    /// What `/readyz` says of the configuration.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        self.configuration.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what came of a reload, and, if it was applied, which keys wait for a restart.
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
        // Sound as a configuration, but the listener stays where it is until a restart.
        assert!(!open.replace(&settings("127.0.0.1:9090", None)));
        assert!(open.token().unwrap().equals("fake-token"));
        assert!(open.replace(&settings("127.0.0.1:9090", Some("another-fake"))));
        assert!(open.token().unwrap().equals("another-fake"));
    }
}
