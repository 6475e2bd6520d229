//! Requests to the emulator's APIs, and their failures.

use serde_json::Value;

pub(super) struct Ask {
    /// The last path segment, for paths that end in an id.
    pub(super) id: String,
    pub(super) query: Vec<(String, String)>,
    /// Null if the request had no body.
    pub(super) body: Value,
}

impl Ask {
    pub(super) fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) code: i64,
    pub(super) msg: String,
    /// Overrides the status of the API's family.
    pub(super) status: Option<u16>,
    /// The member `error`.
    pub(super) error: Value,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl ApiError {
    pub(super) fn new(code: i64, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), status: None, error: Value::Null, headers: Vec::new() }
    }

    /// 1390001: the approval APIs return it for any parameter error.
    pub(super) fn parameter(msg: impl Into<String>) -> Self {
        Self::new(1_390_001, msg)
    }
}

/// `data`, or the top-level members for tokens.
pub(super) type Answered = Result<Value, ApiError>;
