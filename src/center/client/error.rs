//! Why a call failed. INVARIANT 6: neither the app's secret nor a token is in any of it.

use std::{fmt, sync::Arc, time::Duration};

use super::{api::Api, codes::Fault};

/// A call did not do what it was asked to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The platform answered that it failed.
    #[error("{0}")]
    Api(Box<ApiError>),
    /// It could not be sent, or its answer did not come.
    #[error("{api}: the approval center at {host} cannot be reached{proxy}")]
    Transport {
        /// What was called.
        api: Api,
        /// Where.
        host: String,
        /// The proxy on the way, as [`crate::proxy::words`] tells it.
        proxy: String,
        /// False if it certainly was not sent.
        sent: bool,
        /// Why.
        #[source]
        source: Arc<reqwest::Error>,
    },
    /// The answer came and is not one of this API.
    #[error("{api}: unexpected answer (HTTP {http_status}): {problem}")]
    Unreadable {
        /// What was called.
        api: Api,
        /// The HTTP status.
        http_status: u16,
        /// Where it does not fit, without a word of it.
        problem: String,
    },
    /// Its turn would not have come within the deadline.
    #[error("{api}: rate limited beyond the deadline; the next request is possible in {wait:?}")]
    NoTurn {
        /// What was called.
        api: Api,
        /// How long it would have had to wait.
        wait: Duration,
    },
    /// It would be refused, so it was not sent.
    #[error("{api}: {problem}")]
    Request {
        /// What was to be called.
        api: Api,
        /// What is wrong with it.
        problem: String,
    },
    /// The platform gives the same page again and again.
    #[error("{api}: the page token does not change; paging would never end")]
    EndlessPages {
        /// What was called.
        api: Api,
    },
    /// The ticket of a store app cannot be read.
    #[error("the app_ticket cannot be read: {0}")]
    Ticket(String),
    /// No HTTP client can be made.
    #[error("cannot create an HTTP client")]
    Client(#[source] Arc<reqwest::Error>),
}

impl Error {
    /// What it means, if the platform said so by a code.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Api(error) => Some(error.fault()),
            _ => None,
        }
    }

    /// True if the platform was not reached, or not in time.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Transport { .. } | Self::NoTurn { .. })
    }
}

/// What the platform said about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// What was called.
    pub api: Api,
    /// The HTTP status; the historic APIs and messages fail with 200.
    pub http_status: u16,
    /// The platform's code, never 0.
    pub code: i64,
    /// The platform's text, with our own secrets cut out.
    pub msg: String,
    /// The id under which the platform's support finds the request.
    pub log_id: Option<String>,
    /// The members that are wrong.
    pub field_violations: Vec<FieldViolation>,
    /// The scopes of which one would do.
    pub scopes: Vec<String>,
    /// Where the platform explains it.
    pub help_urls: Vec<String>,
    /// How long the platform asks to wait.
    pub wait: Option<Duration>,
}

/// A member that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Its name.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl ApiError {
    /// What it means.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::of(self.code)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { api, http_status, code, msg, .. } = self;
        write!(f, "{api}: code {code} (HTTP {http_status}): {msg}")?;
        for FieldViolation { field, description } in &self.field_violations {
            write!(f, "; {field}: {description}")?;
        }
        if !self.scopes.is_empty() {
            write!(f, "; any one of the scopes {} would do", self.scopes.join(", "))?;
        }
        for url in &self.help_urls {
            write!(f, "; see {url}")?;
        }
        if let Some(log_id) = &self.log_id {
            write!(f, "; log id {log_id}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}
