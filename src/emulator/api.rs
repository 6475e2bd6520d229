//! What an API of the emulator is asked, and how it refuses.

use serde_json::Value;

/// What was asked.
pub(super) struct Ask {
    /// The last part of the path, where it is an id.
    pub(super) id: String,
    pub(super) query: Vec<(String, String)>,
    /// Null if there was no body.
    pub(super) body: Value,
}

impl Ask {
    pub(super) fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// A failure.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) code: i64,
    pub(super) msg: String,
    /// Other than that of the API's family.
    pub(super) status: Option<u16>,
    /// The member `error`.
    pub(super) error: Value,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl ApiError {
    pub(super) fn new(code: i64, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), status: None, error: Value::Null, headers: Vec::new() }
    }

    /// 1390001, the approval APIs' word for everything that is wrong with a parameter.
    pub(super) fn parameter(msg: impl Into<String>) -> Self {
        Self::new(1_390_001, msg)
    }
}

/// `data`, or for tokens what stands at the top.
pub(super) type Answered = Result<Value, ApiError>;
