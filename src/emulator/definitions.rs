//! Definitions, with their custom and real codes (platform.md#definitions).

use serde_json::{Value, json};

use super::{
    api::{Answered, ApiError, Ask},
    fields::{is_absent, lists, require, texts_are_lists, truths, wrong_type},
    tenant::{Definition, Tenant},
    values::fresh_code,
};

const SWITCHES: [&str; 5] = [
    "support_pc",
    "support_mobile",
    "support_batch_read",
    "allow_batch_operate",
    "exclude_efficiency_statistics",
];

const EXTERNAL: [&str; 13] = [
    "biz_name",
    "biz_type",
    "create_link_mobile",
    "create_link_pc",
    "support_pc",
    "support_mobile",
    "support_batch_read",
    "enable_mark_readed",
    "enable_quick_operate",
    "action_callback_url",
    "action_callback_token",
    "action_callback_key",
    "allow_batch_operate",
];

const MEMBERS: [&str; 9] = [
    "approval_name",
    "approval_code",
    "group_code",
    "group_name",
    "description",
    "external",
    "viewers",
    "i18n_resources",
    "managers",
];

/// Creates or updates, by the custom code only. A real code is treated as a new custom code and creates a duplicate
/// (platform.md#two-codes-of-a-definition).
pub(super) fn save(tenant: &mut Tenant, ask: &Ask) -> Answered {
    let body = &ask.body;
    if !body.is_object() {
        return Err(wrong_type("body"));
    }
    lists(body, &["viewers", "i18n_resources", "managers"])?;
    texts_are_lists(&body["i18n_resources"])?;
    truths(&body["external"], &SWITCHES)?;
    require(body, "", &["approval_name", "approval_code", "external"])?;
    let text = |member: &str| body[member].as_str().unwrap_or_default().to_owned();
    let custom_code = text("approval_code");
    if custom_code.chars().count() > 128 {
        return Err(ApiError::parameter("param is invalid: approval_code is too long"));
    }
    let external = &body["external"];
    if external["support_pc"] != true && external["support_mobile"] != true {
        return Err(ApiError::parameter("param is invalid: support_pc and support_mobile are both false"));
    }
    let known = tenant.definitions.iter().position(|definition| definition.custom_code == custom_code);
    // Documented as optional, but required on creation (platform.md#definitions).
    if known.is_none() && is_absent(&body["group_code"]) {
        return Err(ApiError::parameter("Group code cannot be empty when create approval definition"));
    }
    let group_is_known =
        tenant.definitions.iter().any(|definition| definition.body["group_code"] == body["group_code"]);
    if !is_absent(&body["group_code"]) && is_absent(&body["group_name"]) && !group_is_known {
        return Err(ApiError::parameter("分组编码与分组名称不匹配"));
    }
    let kept = kept(body, known.map(|at| &tenant.definitions[at].body));
    let number = tenant.number();
    let definition = match known {
        Some(at) => {
            let definition = &mut tenant.definitions[at];
            definition.body = kept;
            definition
        }
        None => {
            tenant.definitions.push(Definition { custom_code, real_code: fresh_code(), number, body: kept });
            tenant.definitions.last_mut().expect("was just pushed")
        }
    };
    Ok(json!({ "approval_code": definition.real_code }))
}

/// The stored definition: known members only; switches that were not sent are false.
fn kept(body: &Value, before: Option<&Value>) -> Value {
    let mut kept = json!({});
    for member in MEMBERS {
        if !body[member].is_null() {
            kept[member] = body[member].clone();
        }
    }
    // An update may omit the group.
    for member in ["group_code", "group_name"] {
        if let Some(before) = before
            && is_absent(&kept[member])
        {
            kept[member] = before[member].clone();
        }
    }
    let mut external = json!({});
    for member in EXTERNAL.iter().chain(&SWITCHES) {
        if !body["external"][*member].is_null() {
            external[*member] = body["external"][*member].clone();
        }
    }
    for switch in SWITCHES {
        if external[switch].is_null() {
            external[switch] = false.into();
        }
    }
    kept["external"] = external;
    // Plain text becomes a generated key, silently (platform.md#definitions).
    if let Some(name) = body["approval_name"].as_str().filter(|name| !name.starts_with("@i18n@")) {
        let key = format!("@i18n@{}", fresh_code().to_lowercase());
        let text = json!({ "key": key, "value": name });
        match kept["i18n_resources"].as_array_mut().and_then(|resources| resources.first_mut()) {
            Some(resource) => {
                resource["texts"].as_array_mut().into_iter().for_each(|texts| texts.push(text.clone()))
            }
            None => {
                kept["i18n_resources"] = json!([{ "locale": "zh-CN", "is_default": true, "texts": [text] }]);
            }
        }
        kept["approval_name"] = key.into();
    }
    kept
}

/// Looks up by the real code only. The response has the custom code, and token and key in clear
/// (platform.md#reading-a-definition).
pub(super) fn get(tenant: &mut Tenant, ask: &Ask) -> Answered {
    match tenant.by_real_code(&ask.id) {
        Some(definition) => Ok(definition.body.clone()),
        None => Err(ApiError::new(1_390_002, "approval code not found")),
    }
}
