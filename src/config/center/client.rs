//! The section `[approval_center]`: off unless `app_id` is set.

use std::path::PathBuf;

use super::super::{layers::Value, read::Section, secrets};
use crate::{
    center::client::{AppType, Platform, Settings, StoreApp},
    loopback,
};

const BASE_URL: &str = "scheme and host such as \"https://open.feishu.cn\"";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Internal,
    Store,
}

/// `None` if faulty, `Some(None)` if off.
pub(in crate::config) fn approval_center(section: &mut Section<'_, '_, '_>) -> Option<Option<Settings>> {
    let platform = section.one_of("platform", &[("feishu", Platform::Feishu), ("lark", Platform::Lark)]);
    let base_url = section.parsed("base_url", BASE_URL, base_url);
    let historic_base_url = section.parsed("historic_base_url", BASE_URL, self::base_url);
    let kind = section.one_of("app_type", &[("internal", Kind::Internal), ("store", Kind::Store)]);
    let app_id = section.parsed("app_id", "the app's id, cli_…", not_empty);
    let app_secret = section.secret("app_secret", "app_secret_file", secrets::Kind::Given);
    let tenant_key = section.parsed("tenant_key", "the tenant's key", not_empty);
    let ticket_file = ticket_file(section);
    let app_ticket = section.secret("app_ticket", "app_ticket_file", secrets::Kind::Given);
    let connect_timeout = section.millis("connect_timeout_ms", 1..=600_000);
    let request_timeout = section.millis("request_timeout_ms", 1..=600_000);
    let call_deadline = section.millis("call_deadline_ms", 1..=3_600_000);

    if matches!(app_id, Some(None)) {
        for key in ["app_secret", "app_secret_file", "tenant_key", "app_ticket", "app_ticket_file"] {
            if section.is_set(key) {
                section.fault(key, "is given without an app_id", "app_id as well");
                return None;
            }
        }
        return Some(None);
    }
    if matches!(app_secret, Some(None)) {
        section.fault("app_secret", "is missing", "the app's secret; or app_secret_file");
    }
    let app_type = match kind? {
        Kind::Internal => {
            for key in ["tenant_key", "app_ticket", "app_ticket_file"] {
                if section.is_set(key) {
                    section.fault(key, "is for app_type = \"store\"", "no such key");
                    return None;
                }
            }
            AppType::Internal
        }
        Kind::Store => {
            if matches!(tenant_key, Some(None)) {
                section.fault("tenant_key", "is missing", "the key of the tenant that has installed the app");
            }
            if matches!(app_ticket, Some(None)) {
                section.fault("app_ticket", "is missing", "the app's ticket; or app_ticket_file");
            }
            AppType::Store(StoreApp {
                tenant_key: tenant_key??,
                app_ticket: app_ticket??,
                app_ticket_file: ticket_file,
            })
        }
    };
    let (platform, base_url, historic_base_url) = (platform?, base_url?, historic_base_url?);
    for (key, url, what) in [
        ("base_url", &base_url, "the app's secret and its tokens go"),
        ("historic_base_url", &historic_base_url, "access tokens go"),
    ] {
        if let Some(url) = url.as_ref().filter(|url| loopback::is_in_clear(url)) {
            section
                .warn(key, format!("{url} is not encrypted: {what} over the wire as they are; use https://"));
        }
    }
    Some(Some(Settings {
        // A custom host (a gateway or the emulator) serves all APIs.
        historic_base_url: historic_base_url
            .or_else(|| base_url.clone())
            .unwrap_or_else(|| platform.historic_base_url().to_owned()),
        base_url: base_url.unwrap_or_else(|| platform.base_url().to_owned()),
        app_id: app_id??,
        app_secret: app_secret??,
        app_type,
        connect_timeout: connect_timeout?,
        request_timeout: request_timeout?,
        call_deadline: call_deadline?,
    }))
}

/// The file of the ticket, if a file is configured: it is read again whenever the ticket is needed.
fn ticket_file(section: &Section<'_, '_, '_>) -> Option<PathBuf> {
    if section.rank("app_ticket") > section.rank("app_ticket_file") {
        return None;
    }
    match &section.table.get("app_ticket_file")?.value {
        // A reference is resolved when the secret is read; such a file is not read again.
        Value::Text(path) | Value::Word(path) if !path.starts_with("${") => Some(PathBuf::from(&**path)),
        _ => None,
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn base_url(text: &str) -> Result<String, String> {
    let url: reqwest::Url = text.parse().map_err(|_| "is not a URL".to_owned())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http:// nor https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user or a password in it".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has more than scheme, host and path".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}
