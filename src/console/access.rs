//! The API's tokens, which a reload may replace, and the state of the configuration in force.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use serde::Serialize;

use strum::{EnumString, IntoStaticStr, VariantArray};

use super::Settings;
use crate::{secret::Secret, time::Timestamp};

/// What the holder of a named token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Look at everything.
    Read,
    /// Look at everything, and act on commands.
    Operate,
    /// Register contexts and look at them, nothing else.
    Register,
}

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// To look at commands, refusals, findings and acts.
    Look,
    /// To act on commands.
    Act,
    /// To look at registered contexts.
    LookAtContexts,
    /// To register and remove contexts.
    Register,
}

impl Role {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    pub(super) fn suffices(self, need: Need) -> bool {
        match need {
            Need::Look => matches!(self, Self::Read | Self::Operate),
            Need::Act => self == Self::Operate,
            Need::LookAtContexts => true,
            Need::Register => self == Self::Register,
        }
    }
}

/// A token with a name.
#[derive(Debug, Clone)]
pub struct NamedToken {
    /// Names its holder in acts.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// The token.
    pub token: Secret,
}

/// What acts call the holder of the one token that may do everything.
pub const ADMIN: &str = "admin";

/// What acts call those who need no token.
pub const LOOPBACK: &str = "loopback";

/// The address under which browsers find the pages: of a proxy in front of the internal listener, as a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Reads an address with scheme and host, without a path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url: reqwest::Url = text.parse().map_err(|_| "is not a URL".to_owned())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("is neither http:// nor https://".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has a user or a password in it".to_owned());
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("has more than scheme and host: the pages are at the root of a host".to_owned());
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// The address of a page, from its path.
    #[must_use]
    pub fn page(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Whether this is HTTPS at the host of a request.
    pub(super) fn is_https_at(&self, host: &str) -> bool {
        self.0.strip_prefix("https://").is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    }
}

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) name: String,
    /// `None` for everything.
    role: Option<Role>,
}

impl Holder {
    pub(super) fn may(&self, need: Need) -> bool {
        self.role.is_none_or(|role| role.suffices(need))
    }
}

/// The tokens in force.
#[derive(Debug)]
pub(super) struct Tokens(Vec<(Holder, Secret)>);

impl Tokens {
    fn of(settings: &Settings) -> Arc<Self> {
        let admin =
            settings.token.iter().map(|token| (Holder { name: ADMIN.to_owned(), role: None }, token.clone()));
        let named = settings.tokens.iter().map(|named| {
            let holder = Holder { name: named.name.clone(), role: Some(named.role) };
            (holder, named.token.clone())
        });
        Arc::new(Self(admin.chain(named).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this holder still has a token that fits.
    pub(super) fn keep(&self, holder: &Holder, fits: impl Fn(&Secret) -> bool) -> bool {
        self.0.iter().any(|(one, token)| one == holder && fits(token))
    }

    /// Whose token this is. Compares with all of them always, so that the time tells nothing.
    pub(super) fn holder(&self, offered: &str) -> Option<&Holder> {
        self.0.iter().fold(
            None,
            |found, (holder, token)| {
                if token.equals(offered) { Some(holder) } else { found }
            },
        )
    }
}

/// Who may use the API, and what `/readyz` reports about the configuration.
pub struct Access {
    /// The listener's actual address, even if a later configuration differs.
    listen: SocketAddr,
    tokens: RwLock<Arc<Tokens>>,
    public_url: RwLock<Option<PublicUrl>>,
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
    /// Uses the tokens of these settings, if they have any.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let configuration =
            Configuration { in_force_since: Timestamp::now(), last_reload: None, restart_needed: Vec::new() };
        Self {
            listen: settings.listen,
            tokens: RwLock::new(Tokens::of(settings)),
            public_url: RwLock::new(settings.public_url.clone()),
            configuration: RwLock::new(configuration),
        }
    }

    /// Replaces the tokens; `listen` cannot be changed. Returns false and keeps the old tokens if the settings have
    /// none but the listener is reachable from other machines, where a token is mandatory.
    ///
    /// Settings without tokens are valid for their own `listen`, which may differ from the address in use.
    #[must_use]
    pub fn replace(&self, settings: &Settings) -> bool {
        let tokens = Tokens::of(settings);
        if tokens.is_empty() && !self.listen.ip().is_loopback() {
            return false;
        }
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
        *self.public_url.write().unwrap_or_else(PoisonError::into_inner) = settings.public_url.clone();
        true
    }

    pub(super) fn public_url(&self) -> Option<PublicUrl> {
        self.public_url.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn tokens(&self) -> Arc<Tokens> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
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
        Settings {
            listen: listen.parse().unwrap(),
            token: token.map(Secret::new),
            tokens: Vec::new(),
            public_url: None,
        }
    }

    fn named(name: &str, role: Role, token: &str) -> NamedToken {
        NamedToken { name: name.to_owned(), role, token: Secret::new(token) }
    }

    #[test]
    fn a_token_is_known_by_its_name_and_opens_what_its_role_says() {
        let tokens = vec![named("erp", Role::Register, "fake-one"), named("ops", Role::Operate, "fake-two")];
        let access = Access::new(&Settings { tokens, ..settings("0.0.0.0:9090", Some("fake-token")) });
        let tokens = access.tokens();
        let names = ["fake-token", "fake-one", "fake-two"].map(|token| &*tokens.holder(token).unwrap().name);
        assert_eq!(names, [ADMIN, "erp", "ops"]);
        assert_eq!(tokens.holder("fake"), None);
        assert_eq!(tokens.holder(""), None);
        let needs = [Need::Look, Need::Act, Need::LookAtContexts, Need::Register];
        let may = |token| needs.map(|need| tokens.holder(token).unwrap().may(need));
        assert_eq!(may("fake-token"), [true; 4]);
        assert_eq!(may("fake-one"), [false, false, true, true]);
        assert_eq!(may("fake-two"), [true, true, true, false]);
        assert_eq!(needs.map(|need| Role::Read.suffices(need)), [true, false, true, false]);
        assert!(!format!("{tokens:?}").contains("fake"));
    }

    #[test]
    fn a_named_token_is_enough_for_a_listener_that_others_reach() {
        let open = Access::new(&settings("0.0.0.0:9090", Some("fake-token")));
        let tokens = vec![named("ops", Role::Read, "fake-two")];
        assert!(open.replace(&Settings { tokens, ..settings("0.0.0.0:9090", None) }));
        assert!(open.tokens().holder("fake-token").is_none());
        assert!(!open.replace(&settings("0.0.0.0:9090", None)));
        assert!(open.tokens().holder("fake-two").is_some());
    }

    #[test]
    fn the_token_may_go_only_where_nobody_else_can_come_in() {
        let local = Access::new(&settings("127.0.0.1:9090", Some("fake-token")));
        assert!(local.replace(&settings("127.0.0.1:9090", None)));
        assert!(local.tokens().is_empty());

        let open = Access::new(&settings("0.0.0.0:9090", Some("fake-token")));
        // Valid as a configuration, but the listener does not move until a restart.
        assert!(!open.replace(&settings("127.0.0.1:9090", None)));
        assert!(open.tokens().holder("fake-token").is_some());
        assert!(open.replace(&settings("127.0.0.1:9090", Some("another-fake"))));
        assert!(open.tokens().holder("another-fake").is_some());
    }
}
