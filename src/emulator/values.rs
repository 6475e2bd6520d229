//! Times, random values and sizes.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// The length of a value as JSON.
pub(super) fn json_bytes(value: &Value) -> usize {
    serde_json::to_string(value).map_or(0, |text| text.len())
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    bytes
}

pub(super) fn random_hex<const N: usize>() -> String {
    random::<N>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A random code in the platform's format.
pub(super) fn fresh_code() -> String {
    uuid::Builder::from_random_bytes(random()).into_uuid().to_string().to_uppercase()
}
