//! Interprets responses: a success, a failure with the platform's details, or a response that is not the platform's.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    api::{Api, Brings},
    error::{ApiError, Error, FieldViolation},
    lenient::REDACTED,
};
use crate::secret::Secret;

/// Returns the envelope of a success, else the platform's error. Success means `code` 0 (platform.md#error-codes) and
/// no HTTP error.
pub(super) fn judge(
    api: Api,
    http_status: u16,
    headers: &HeaderMap,
    envelope: Value,
    secrets: &[&Secret],
) -> Result<Value, Error> {
    let Some(code) = envelope.get("code").and_then(Value::as_i64) else {
        return Err(Error::Unreadable { api, http_status, problem: "it has no code".to_owned() });
    };
    if code == 0 && (200..300).contains(&http_status) {
        return Ok(envelope);
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let clean = |text: &str| {
        let mut text: String = text.chars().take(1000).collect();
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret.expose(), REDACTED);
        }
        text
    };
    let error = envelope.get("error").unwrap_or(&Value::Null);
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(clean);
    let list = |key: &str| error.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    Err(Error::Api(Box::new(ApiError {
        api,
        http_status,
        code,
        msg: text(&envelope, "msg").unwrap_or_default(),
        log_id: header("x-tt-logid").or_else(|| text(error, "log_id")).or_else(|| header("x-request-id")),
        field_violations: list("field_violations")
            .iter()
            .map(|violation| FieldViolation {
                field: text(violation, "field").unwrap_or_default(),
                description: text(violation, "description").unwrap_or_default(),
            })
            .collect(),
        scopes: list("permission_violations").iter().filter_map(|scope| text(scope, "subject")).collect(),
        help_urls: list("helps").iter().filter_map(|help| text(help, "url")).collect(),
        wait: header("x-ogw-ratelimit-reset")
            .and_then(|text| text.trim().parse().ok())
            .map(Duration::from_secs),
    })))
}

/// Detects responses that something in between sent: a redirect or an HTML page. Reports only the host of a redirect,
/// since the rest of the URL may hold secrets.
pub(super) fn foreign(http_status: u16, headers: &HeaderMap, body: &[u8]) -> Option<String> {
    const BETWEEN: &str = "is it a proxy, a login page, or another server than base_url should name?";
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if (300..400).contains(&http_status) {
        let url = header(LOCATION).and_then(|to| to.parse::<reqwest::Url>().ok());
        let to = url.as_ref().and_then(|url| Some(format!("{}://{}", url.scheme(), url.host_str()?)));
        return Some(format!("it is a redirect to {}; {BETWEEN}", to.as_deref().unwrap_or("elsewhere")));
    }
    let is_html = header(CONTENT_TYPE).is_some_and(|kind| kind.trim_start().starts_with("text/html"))
        || body.trim_ascii_start().starts_with(b"<");
    is_html.then(|| format!("it is an HTML page; {BETWEEN}"))
}

/// Checks that the `data` of a success has what this API returns.
pub(super) fn brings(api: Api, data: &Value) -> Result<(), Error> {
    let lacks = |what: String| {
        let problem = format!("it reports success but has {what}; does a proxy or a gateway answer?");
        Err(Error::Unreadable { api, http_status: 200, problem })
    };
    // Defaults that libraries write for unset members. No id, name or object of the platform looks like this.
    let is_unset = |value: Option<&Value>| match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::String(text)) => text.is_empty() || text == "0",
        Some(Value::Number(number)) => number.as_f64() == Some(0.0),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(members)) => members.is_empty(),
        Some(Value::Bool(true)) => false,
    };
    match api.brings() {
        Brings::Nothing => Ok(()),
        _ if !data.is_object() => lacks("no data".to_owned()),
        Brings::Object => Ok(()),
        Brings::Member(member) if is_unset(data.get(member)) => lacks(format!("no data.{member}")),
        Brings::OneOf(members) if members.iter().all(|member| data.get(member).is_none()) => {
            lacks(format!("no data.{}", members[0]))
        }
        Brings::Member(_) | Brings::OneOf(_) => Ok(()),
    }
}

/// Reads `data`. Errors name the member but do not quote its value, which may be a secret.
pub(super) fn read<T: DeserializeOwned>(api: Api, data: Value) -> Result<T, Error> {
    T::deserialize(data).map_err(|error| Error::Unreadable {
        api,
        http_status: 200,
        problem: match error.to_string() {
            // Our own and serde's messages about members are safe; serde's messages about values quote them.
            text if text.starts_with("missing field") || text.contains("in place of") => text,
            _ => "a member has a type other than documented".to_owned(),
        },
    })
}

pub(super) fn place_of(error: &serde_json::Error, what: &str) -> String {
    format!("{what} at line {}, column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use serde_json::json;

    use super::*;
    use crate::center::client::Fault;

    fn judged(http_status: u16, envelope: Value) -> Result<Value, Error> {
        let mut headers = HeaderMap::new();
        headers.insert("x-tt-logid", HeaderValue::from_static("log-1"));
        headers.insert("x-ogw-ratelimit-reset", HeaderValue::from_static("7"));
        judge(Api::ListTasks, http_status, &headers, envelope, &[&Secret::new("t-hush"), &Secret::new("")])
    }

    fn api_error(result: Result<Value, Error>) -> ApiError {
        match result {
            Err(Error::Api(error)) => *error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn success_is_code_zero_and_a_failure_may_come_as_http_200() {
        assert!(judged(200, json!({ "code": 0, "msg": "success" })).is_ok());
        let error = api_error(judged(200, json!({ "code": 60001, "msg": "actionUrls incomplete error" })));
        assert_eq!((error.code, error.http_status, error.fault()), (60_001, 200, Fault::Parameter));
        assert!(judged(502, json!({ "code": 0 })).is_err());
        assert!(matches!(judged(200, json!({ "data": {} })), Err(Error::Unreadable { .. })));
    }

    #[test]
    fn an_error_carries_all_that_the_platform_said_and_nothing_secret() {
        let error = api_error(judged(
            400,
            json!({ "code": 99991672, "msg": "token t-hush lacks scopes", "error": {
                "log_id": "log-2",
                "permission_violations": [{ "type": "action_scope_required", "subject": "approval:approval" }],
                "field_violations": [{ "field": "task_list[0].update_time", "description": "is required" }],
                "helps": [{ "url": "https://open.example.com/app/cli_1/auth" }],
            } }),
        ));
        assert_eq!(error.fault(), Fault::ScopeMissing);
        assert_eq!(error.scopes, ["approval:approval"]);
        assert_eq!(error.wait, Some(Duration::from_secs(7)));
        let said = error.to_string();
        assert_eq!(
            said,
            "GET /open-apis/approval/v4/external_tasks: code 99991672 (HTTP 400): token [redacted] lacks scopes; \
             task_list[0].update_time: is required; any one of the scopes approval:approval would do; \
             see https://open.example.com/app/cli_1/auth; log id log-1"
        );
    }

    #[test]
    fn a_success_that_brings_nothing_is_none() {
        let told = |api, data: Value| brings(api, &data).map_err(|error| error.to_string());
        for api in [
            Api::GetDefinition,
            Api::SaveDefinition,
            Api::SyncInstance,
            Api::CheckInstances,
            Api::ListTasks,
            Api::ListTasksHistoric,
            Api::QueryInstances,
            Api::GetInstance,
            Api::GetInstanceHistoric,
            Api::SendMessage,
            Api::UpdateMessage,
            Api::GetUser,
        ] {
            for data in [Value::Null, json!({}), json!({ "other": 1 }), json!("x"), json!([])] {
                let error = told(api, data.clone()).unwrap_err();
                assert!(error.contains("it reports success but has no data"), "{api} {data}: {error}");
            }
        }
        assert!(told(Api::GetUsers, Value::Null).is_err() && told(Api::GetUsers, json!({})).is_ok());
        for unset in [json!(""), json!("0"), json!(0), json!(0.0), json!(false), json!([]), json!({})] {
            assert!(told(Api::SendMessage, json!({ "message_id": unset })).is_err(), "{unset}");
        }
        assert!(told(Api::SyncInstance, json!({ "data": {} })).is_err());
        for (api, data) in [
            (Api::SendMessage, json!({ "message_id": "7" })),
            (Api::ListTasks, json!({ "data": null, "has_more": false })),
            (Api::ListTasks, json!({ "has_more": false })),
            (Api::CheckInstances, json!({ "diff_instances": [] })),
            (Api::CheckInstances, json!({ "diff_instances": null })),
            (Api::QueryInstances, json!({ "count": 0 })),
        ] {
            assert_eq!(told(api, data.clone()), Ok(()), "{api} {data}");
        }
    }

    #[test]
    fn what_stands_between_is_named() {
        let mut headers = HeaderMap::new();
        assert_eq!(foreign(200, &headers, b"{}"), None);
        assert_eq!(foreign(404, &headers, b"404 page not found"), None);
        let html = foreign(200, &headers, b" <!DOCTYPE html><p>hush").unwrap();
        assert!(html.starts_with("it is an HTML page; is it a proxy") && !html.contains("hush"), "{html}");
        headers.insert("content-type", HeaderValue::from_static("text/html; charset=utf-8"));
        assert!(foreign(502, &headers, b"").unwrap().starts_with("it is an HTML page"));
        headers.insert("location", HeaderValue::from_static("https://login.example/sso?token=hush"));
        let redirect = foreign(302, &headers, b"").unwrap();
        assert!(redirect.starts_with("it is a redirect to https://login.example; is it"), "{redirect}");
        assert!(!redirect.contains("hush"), "{redirect}");
        headers.insert("location", HeaderValue::from_static("/relative"));
        assert!(foreign(307, &headers, b"").unwrap().starts_with("it is a redirect to elsewhere"));
    }

    #[test]
    fn what_does_not_fit_is_not_quoted() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(expecting = "an object")]
        struct Wanted {
            #[expect(dead_code, reason = "only its type matters")]
            number: u64,
        }
        let error = read::<Wanted>(Api::ListTasks, json!({ "number": "hush" })).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }
}
