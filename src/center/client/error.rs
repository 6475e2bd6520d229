//! Errors of calls. INVARIANT 6: they contain neither the app's secret nor a token.

use std::{fmt, sync::Arc, time::Duration};

use super::{api::Api, codes::Fault};

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The platform reported a failure.
    #[error("{0}")]
    Api(Box<ApiError>),
    /// The request could not be sent, or no response came.
    #[error("{api}: the approval center at {host} cannot be reached{proxy}")]
    Transport {
        /// The API called.
        api: Api,
        /// The host.
        host: String,
        /// The proxy in use, as [`crate::proxy::words`] describes it.
        proxy: String,
        /// False if the request was certainly not sent.
        sent: bool,
        /// The cause.
        #[source]
        source: Arc<reqwest::Error>,
    },
    /// The response is not one of this API.
    #[error("{api}: unexpected answer (HTTP {http_status}): {problem}")]
    Unreadable {
        /// The API called.
        api: Api,
        /// The HTTP status.
        http_status: u16,
        /// What does not fit, without quoting it.
        problem: String,
    },
    /// The rate limit allows the request only after the deadline.
    #[error("{api}: rate limited beyond the deadline; the next request is possible in {wait:?}")]
    NoTurn {
        /// The API called.
        api: Api,
        /// The required wait.
        wait: Duration,
    },
    /// The request was not sent, because it would be refused.
    #[error("{api}: {problem}")]
    Request {
        /// The API to call.
        api: Api,
        /// What is wrong with the request.
        problem: String,
    },
    /// The platform returns the same page repeatedly.
    #[error("{api}: the page token does not change; paging would never end")]
    EndlessPages {
        /// The API called.
        api: Api,
    },
    /// The ticket of a store app cannot be read.
    #[error("the app_ticket cannot be read: {0}")]
    Ticket(String),
    /// The HTTP client cannot be created.
    #[error("cannot create an HTTP client")]
    Client(#[source] Arc<reqwest::Error>),
}

impl Error {
    /// The meaning of the platform's code, if it sent one.
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

/// A failure reported by the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The API called.
    pub api: Api,
    /// The HTTP status; historic APIs and messages fail with 200.
    pub http_status: u16,
    /// The platform's code, never 0.
    pub code: i64,
    /// The platform's message, with our secrets removed.
    pub msg: String,
    /// The request id for the platform's support.
    pub log_id: Option<String>,
    /// The invalid members.
    pub field_violations: Vec<FieldViolation>,
    /// Scopes, one of which is sufficient.
    pub scopes: Vec<String>,
    /// Help pages of the platform.
    pub help_urls: Vec<String>,
    /// The wait that the platform asks for.
    pub wait: Option<Duration>,
}

/// An invalid member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Its name.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl ApiError {
    /// The meaning of the code.
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
