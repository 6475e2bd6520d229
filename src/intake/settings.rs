//! What the accept path needs to know of the endpoints.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::refusal::Refusal;
use crate::{callback::CredentialSettings, context, ledger::OnConflict};

/// Everything about the endpoints that the accept path needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// At least one; names are unique.
    pub endpoints: Vec<EndpointSettings>,
    /// The language of sentences before an endpoint is known.
    pub locale: Locale,
    /// Whether a [`Response`](super::Response) says who decided about what, for the log.
    pub identities: bool,
}

impl Settings {
    /// The language, and the words of its own if it has any, in which approvers of an endpoint read a refusal. Before the
    /// sender is authenticated neither must tell whether the endpoint exists.
    #[must_use]
    pub fn words(&self, endpoint: &str, refusal: Refusal) -> (Locale, Option<Arc<str>>) {
        let known = self.endpoints.iter().find(|known| known.name == endpoint);
        match known.filter(|_| Refusal::OF_AUTHENTICATED.contains(&refusal)) {
            Some(known) => (known.locale, known.sentences.get(&refusal).cloned()),
            None => (self.locale, None),
        }
    }

    /// What has counters of its own: the endpoints, and their credentials.
    #[must_use]
    pub fn counted(&self) -> Vec<Counted> {
        let counted = self.endpoints.iter().map(|endpoint| Counted {
            endpoint: endpoint.name.clone(),
            credentials: endpoint.credentials.iter().map(CredentialSettings::tag).collect(),
        });
        counted.collect()
    }
}

/// An endpoint as far as there are counters of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub endpoint: String,
    /// A tag for each of its credentials, in their order; see [`CredentialSettings::tag`].
    pub credentials: Vec<u16>,
}

/// What one `action_callback_url` points at.
#[derive(Debug, Clone)]
pub struct EndpointSettings {
    /// `POST /callbacks/{name}`.
    pub name: String,
    /// If not empty, a callback with another `approval_code` is refused; one without passes.
    pub approval_codes: Vec<String>,
    /// 1 to 4; all with a key or all without.
    pub credentials: Vec<CredentialSettings>,
    /// Allowed `action_type`s.
    pub actions: Vec<String>,
    /// The language of sentences for its approvers.
    pub locale: Locale,
    /// The third party's own words for some refusals of authenticated callbacks.
    pub sentences: HashMap<Refusal, Arc<str>>,
    /// How long a callback without a round is the same callback.
    pub dedupe_window: Duration,
    /// What to do with contradictions.
    pub on_conflict: OnConflict,
    /// Within this a callback that is no duplicate any more is told as a repeat, and a contradiction as one.
    pub repeats_window: Duration,
    /// How contexts are read.
    pub context: context::Settings,
}

/// A language that refusals are worded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Locale {
    /// Chinese.
    #[default]
    Zh,
    /// English.
    En,
    /// Japanese.
    Ja,
}
