//! Request validation in layers. It reports the first fault of the first layer that fails
//! (platform.md#sync-answers-and-errors).

use serde_json::{Value, json};

use super::api::ApiError;

/// Error 99992402 for one member.
pub(super) fn violation(field: impl Into<String>, description: &str) -> ApiError {
    let mut refused = ApiError::new(99_992_402, "field validation failed");
    refused.error = json!({ "field_violations": [{ "field": field.into(), "description": description }] });
    refused
}

/// Error 9499 for one member.
pub(super) fn wrong_type(field: &str) -> ApiError {
    ApiError::new(9_499, format!("Invalid parameter type in json: {field}"))
}

/// True if the platform treats the value as absent.
pub(super) fn is_absent(value: &Value) -> bool {
    matches!(value, Value::Null) || value.as_str() == Some("")
}

pub(super) fn require(body: &Value, prefix: &str, members: &[&str]) -> Result<(), ApiError> {
    match members.iter().find(|member| is_absent(&body[**member])) {
        Some(member) => Err(violation(format!("{prefix}{member}"), "is required")),
        None => Ok(()),
    }
}

pub(super) fn lists(body: &Value, members: &[&str]) -> Result<(), ApiError> {
    match members.iter().find(|member| !body[**member].is_null() && !body[**member].is_array()) {
        Some(member) => Err(wrong_type(member)),
        None => Ok(()),
    }
}

pub(super) fn truths(body: &Value, members: &[&str]) -> Result<(), ApiError> {
    match members.iter().find(|member| !body[**member].is_null() && !body[**member].is_boolean()) {
        Some(member) => Err(wrong_type(member)),
        None => Ok(()),
    }
}

/// `texts` must be a list of `{key, value}` for every language here, not the documented map (platform.md#definitions).
pub(super) fn texts_are_lists(resources: &Value) -> Result<(), ApiError> {
    for resource in items(resources) {
        if !resource["texts"].is_array() {
            return Err(wrong_type("texts"));
        }
    }
    Ok(())
}

/// Times are strings of digits. The platform's own tutorial sends the number 0 for "not yet"
/// (platform.md#third-party-instances).
pub(super) fn times(body: &Value, members: &[&str]) -> Result<(), ApiError> {
    for member in members {
        match &body[*member] {
            Value::Null => {}
            Value::Number(number) if number.as_i64() == Some(0) => {}
            Value::String(text) if text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit()) => {}
            Value::String(_) => return Err(ApiError::parameter(format!("param is invalid: {member}"))),
            _ => return Err(wrong_type(member)),
        }
    }
    Ok(())
}

/// Texts for people are given by key.
pub(super) fn keys(body: &Value, prefix: &str, members: &[&str]) -> Result<(), ApiError> {
    let is_no_key = |member: &&&str| {
        body[**member].as_str().is_some_and(|text| !text.is_empty() && !text.starts_with("@i18n@"))
    };
    match members.iter().find(is_no_key) {
        Some(member) => Err(violation(format!("{prefix}{member}"), "must begin with @i18n@")),
        None => Ok(()),
    }
}

/// The entries of a list; empty for any other value.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A time sent as a string or a number.
pub(super) fn millis(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok())).unwrap_or(0)
}

/// Resolves a key in the given language, or in the default one.
pub(super) fn translated(resources: &Value, key: &str, locale: &str) -> String {
    let resources = items(resources);
    let find = |resource: &Value| -> Option<String> {
        let texts = items(&resource["texts"]);
        texts
            .iter()
            .find(|text| text["key"] == key)
            .and_then(|text| text["value"].as_str())
            .map(str::to_owned)
    };
    resources
        .iter()
        .filter(|resource| resource["locale"] == locale)
        .chain(resources.iter().filter(|resource| resource["is_default"] == true))
        .find_map(find)
        .unwrap_or_else(|| key.to_owned())
}
