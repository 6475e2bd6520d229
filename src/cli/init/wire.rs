//! What the approval center has to be told, as the bodies of its APIs. Members stand in the order of the platform's
//! documentation, which values of JSON would lose.

use std::path::PathBuf;

use super::{Format, answers::Answers, files::Written, phrases::Phrases};
use crate::secret::Secret;

/// Each document with its title.
pub(super) fn documents(
    answers: &Answers,
    written: &Written,
    shown: bool,
    phrases: &Phrases,
) -> [(&'static str, String); 3] {
    let secret = |(path, secret): &(PathBuf, Secret)| {
        quoted(&if shown {
            secret.expose().to_owned()
        } else {
            phrases.content_of.replace("{path}", &path.display().to_string())
        })
    };
    let (token, key) = (secret(&written.token), written.key.as_ref().map(secret));
    let callback = |indentation: &str| {
        let key = key.as_ref().map(|key| format!(",\n{indentation}\"action_callback_key\": {key}"));
        format!(
            "\"action_callback_url\": {},\n{indentation}\"action_callback_token\": {token}{}",
            quoted(&answers.url()),
            key.unwrap_or_default(),
        )
    };
    let context = quoted(&context(answers.context, phrases));
    let buttons =
        "[{ \"action_type\": \"APPROVE\" }, { \"action_type\": \"REJECT\", \"is_need_reason\": true }]";
    let code = quoted(&answers.endpoint.to_uppercase().replace('-', "_"));
    let definition = format!(
        r#"{{
  "approval_name": "@i18n@name",
  "approval_code": {code},
  "group_code": {code},
  "group_name": "@i18n@group",
  "external": {{
    "biz_name": "@i18n@group",
    "support_pc": true,
    "support_mobile": true,
    {}
  }},
  "viewers": [{{ "viewer_type": "TENANT" }}],
  "i18n_resources": [
    {{
      "locale": "{}",
      "is_default": true,
      "texts": [{{ "key": "@i18n@name", "value": {name} }}, {{ "key": "@i18n@group", "value": {name} }}]
    }}
  ]
}}
"#,
        callback("    "),
        phrases.platform_locale,
        name = quoted(&answers.endpoint),
    );
    let task = format!("{{\n  \"action_context\": {context},\n  \"action_configs\": {buttons}\n}}\n");
    let card = format!(
        "{{\n  \"action_configs\": {buttons},\n  \"action_callback\": {{\n    {},\n    \"action_context\": {context}\n  }}\n}}\n",
        callback("    "),
    );
    [(phrases.definition, definition), (phrases.task, task), (phrases.card, card)]
}

/// The context of a task PO-77-n1 in the instance PO-77.
fn context(format: Format, phrases: &Phrases) -> String {
    match format {
        Format::Json => r#"{"instance":"PO-77","task":"PO-77-n1","round":1}"#,
        Format::Jwt => phrases.signed_context,
        Format::Pattern => "PO-77:PO-77-n1:1",
        Format::Registry | Format::Opaque => "PO-77-n1",
    }
    .to_owned()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
