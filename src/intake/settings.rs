//! Settings of the accept path.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::refusal::Refusal;
use crate::{callback::CredentialSettings, context, ledger::OnConflict};

/// The longest [`EndpointSettings::answer_wait`].
pub const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// Endpoint settings that the accept path needs.
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
    /// The language in which approvers of an endpoint read a refusal, and its own sentence if it has one. Before
    /// authentication, neither may reveal whether the endpoint exists.
    #[must_use]
    pub fn words(&self, endpoint: &str, refusal: Refusal) -> (Locale, Option<Arc<str>>) {
        let known = self.endpoints.iter().find(|known| known.name == endpoint);
        match known.filter(|_| Refusal::OF_AUTHENTICATED.contains(&refusal)) {
            Some(known) => (known.locale, known.sentences.get(&refusal).cloned()),
            None => (self.locale, None),
        }
    }

    /// The endpoints and credentials that have their own counters.
    #[must_use]
    pub fn counted(&self) -> Vec<Counted> {
        let counted = self.endpoints.iter().map(|endpoint| Counted {
            endpoint: endpoint.name.clone(),
            credentials: endpoint.credentials.iter().map(CredentialSettings::tag).collect(),
        });
        counted.collect()
    }
}

/// The parts of an endpoint that counters need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The name.
    pub endpoint: String,
    /// A tag for each of its credentials, in order; see [`CredentialSettings::tag`].
    pub credentials: Vec<u16>,
}

/// The target of one `action_callback_url`.
#[derive(Debug, Clone)]
pub struct EndpointSettings {
    /// `POST /callbacks/{name}`.
    pub name: String,
    /// If not empty, a callback with another `approval_code` is refused; one without passes.
    pub approval_codes: Vec<String>,
    /// 1 to 4; either all have a key or none.
    pub credentials: Vec<CredentialSettings>,
    /// Allowed `action_type`s.
    pub actions: Vec<String>,
    /// The language of sentences for its approvers.
    pub locale: Locale,
    /// The third party's own sentences for some refusals of authenticated callbacks.
    pub sentences: HashMap<Refusal, Arc<str>>,
    /// How long a callback without a round counts as the same callback.
    pub dedupe_window: Duration,
    /// How to handle contradictions.
    pub on_conflict: OnConflict,
    /// Within this window, a repeat that is no longer a duplicate is reported as a repeat, and a contradiction as a
    /// contradiction.
    pub repeats_window: Duration,
    /// How long an answer is held, after the commit, for the worker's report; `None`: it is not held. At most
    /// [`LONGEST_WAIT`].
    pub answer_wait: Option<Duration>,
    /// How contexts are parsed.
    pub context: context::Settings,
}

/// A language of refusal sentences.
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
