//! `center definition apply`: creates or changes a definition from a TOML file.
//!
//! The platform has two traps (platform.md#the-external-block). Fields omitted from an update are reset to false, so
//! an update starts from the center's version. And creating a definition with a *real* code makes a duplicate that
//! nobody can delete. Therefore a code that is already the real code of a definition is refused, and so is a creation
//! that was not requested.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde_json::{Map, Value, json};

use super::{IdArguments, failure, read, wrong};
use crate::{
    center::client::{Center, Definition, Fault, UserIdType},
    cli::{
        credentials::choose,
        exit::{Exit, Failure},
        output::{json, line, say},
    },
    config::Loaded,
};

const EXAMPLES: &str = "\
Examples:
  countersign center definition apply purchase.toml --dry-run
  countersign center definition apply purchase.toml --create

A file:
  approval_code = \"PO_APPROVAL\"            # the custom code, yours
  real_code = \"0F0E0D0C-…\"                 # once it is created; without it --create is needed
  endpoint = \"purchase\"                    # URL, token and key are those of this endpoint
  public_url = \"https://hook.example.com\"  # under which the approval center reaches countersign
  approval_name = \"@i18n@po_name\"
  group_code = \"erp\"
  group_name = \"@i18n@group\"
  viewers = [ { viewer_type = \"TENANT\" } ]
  [external]
  biz_name = \"@i18n@biz\"
  create_link_mobile = \"https://erp.example.com/m/new\"
  support_mobile = true
  [[i18n_resources]]
  locale = \"zh-CN\"
  is_default = true
  texts = { \"@i18n@po_name\" = \"采购审批\", \"@i18n@group\" = \"ERP\", \"@i18n@biz\" = \"ERP\" }

Keys that the file does not have keep their value at the center. Prints the real code, which every
other API needs.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Arguments {
    /// The file; - is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Create a new definition, which can never be deleted
    #[arg(long)]
    create: bool,
    /// Only print what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    ids: IdArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Keys of the file that are not the platform's.
const OWN: [&str; 3] = ["real_code", "endpoint", "public_url"];

pub(super) async fn run(arguments: &Arguments, center: &Center, loaded: &Loaded) -> Result<Exit, Failure> {
    let file = &arguments.file;
    let wrong = |problem: String| wrong(file, problem);
    let mut wanted: Map<String, Value> = toml::from_str(&read(file)?)
        // After its first line, TOML's message quotes the file, which may contain a token.
        .map_err(|error: toml::de::Error| {
            wrong(format!("is not TOML: {}", error.message().lines().next().unwrap_or_default()))
        })?;
    let mut own = Map::new();
    for key in OWN {
        own.extend(wanted.remove(key).map(|value| (key.to_owned(), value)));
    }
    let text = |key: &str| own.get(key).and_then(Value::as_str);
    let custom_code = wanted.get("approval_code").and_then(Value::as_str).unwrap_or_default().to_owned();
    if custom_code.is_empty() {
        return Err(wrong("approval_code is missing".to_owned()));
    }
    if let Some(name) = text("endpoint") {
        point_at(&mut wanted, name, text("public_url"), loaded).map_err(|failure| match failure {
            Failure::Usage(problem) => wrong(problem),
            other => other,
        })?;
    }
    let ids = &arguments.ids.user_id_type;
    let before = match text("real_code") {
        Some(code) => Some(existing(center, code, &custom_code, arguments).await?),
        None => {
            refuse_a_twin(center, &custom_code, arguments).await?;
            None
        }
    };
    let (definition, changes) = merged(before.as_ref(), &wanted).map_err(wrong)?;
    for change in &changes {
        say(change);
    }
    if changes.is_empty() {
        say("nothing to change");
    }
    if arguments.dry_run || changes.is_empty() {
        return Ok(Exit::Done);
    }
    let saved = center.save_definition(&definition, ids).await.map_err(failure)?;
    let expected = text("real_code");
    // On an update the platform may answer with either code (platform.md#two-codes-of-a-definition).
    let twin = expected.is_some_and(|expected| saved != expected && saved != custom_code);
    if arguments.json {
        json(&json!({
            "real_code": saved, "custom_code": custom_code, "created": expected.is_none(), "changes": changes,
        }))?;
    } else {
        line(&saved)?;
    }
    if twin {
        say(format_args!(
            "the platform answers with the code {saved} in place of {}: there may be a second definition now",
            expected.unwrap_or_default()
        ));
        return Ok(Exit::Failed);
    }
    if expected.is_none() {
        say(format_args!(
            "created; put real_code = \"{saved}\" into the file, and use that code everywhere else"
        ));
    }
    Ok(Exit::Done)
}

/// Takes URL, token and key from a configured endpoint, so that the file needs no secret.
fn point_at(
    wanted: &mut Map<String, Value>,
    name: &str,
    public_url: Option<&str>,
    loaded: &Loaded,
) -> Result<(), Failure> {
    let endpoint = choose(loaded.endpoints()?, Some(name))?;
    let external = wanted.entry("external").or_insert_with(|| json!({}));
    let Some(external) = external.as_object_mut() else {
        return Err(Failure::Usage("external is not a table".to_owned()));
    };
    if let Some(public_url) = public_url {
        let url = format!("{}/callbacks/{name}", public_url.trim_end_matches('/'));
        external.insert("action_callback_url".to_owned(), url.into());
    } else if !external.contains_key("action_callback_url") {
        return Err(Failure::Usage(
            "public_url is missing: under which the approval center reaches countersign".to_owned(),
        ));
    }
    let credential = endpoint
        .credentials
        .first()
        .ok_or_else(|| Failure::Usage(format!("the endpoint {name} has no credentials")))?;
    let key = credential.action_callback_key.as_ref();
    external.insert("action_callback_token".to_owned(), credential.action_callback_token.expose().into());
    external.insert("action_callback_key".to_owned(), key.map_or("", |key| key.expose()).into());
    Ok(())
}

/// The definition to change.
async fn existing(
    center: &Center,
    code: &str,
    custom_code: &str,
    arguments: &Arguments,
) -> Result<Definition, Failure> {
    let file = &arguments.file;
    let Some(definition) = by_real_code(center, code, &arguments.ids.user_id_type).await? else {
        return Err(wrong(
            file,
            format!("no definition has the real_code {code}; a custom code cannot be used here"),
        ));
    };
    if definition.approval_code != custom_code {
        let theirs = &definition.approval_code;
        let problem =
            format!("the definition {code} has the custom approval_code {theirs}, not {custom_code}");
        return Err(wrong(file, format!("{problem}; saving it would make another definition")));
    }
    Ok(definition)
}

/// Refuses a creation that was not requested, or that uses a real code.
async fn refuse_a_twin(center: &Center, custom_code: &str, arguments: &Arguments) -> Result<(), Failure> {
    let file = &arguments.file;
    if let Some(definition) = by_real_code(center, custom_code, &arguments.ids.user_id_type).await? {
        let custom = definition.approval_code;
        return Err(wrong(
            file,
            format!(
                "approval_code = {custom_code:?} is the real code of the definition {custom}; saved so, it would make a \
                 second definition that nobody can delete. Write approval_code = {custom:?} and real_code = {custom_code:?}"
            ),
        ));
    }
    if !arguments.create {
        return Err(wrong(
            file,
            "real_code is missing: set it to change a definition, or use --create for a new one",
        ));
    }
    Ok(())
}

/// The resulting definition and its changes. Keys missing from the file are kept.
fn merged(
    before: Option<&Definition>,
    wanted: &Map<String, Value>,
) -> Result<(Definition, Vec<String>), String> {
    let is_update = before.is_some();
    let before = before.cloned().unwrap_or_default();
    let known = known_keys();
    let mut shown = serde_json::to_value(&before).expect("texts and truth values are JSON");
    let mut changes = Vec::new();
    let mut after = shown.clone();
    for (key, value) in wanted {
        match (key.as_str(), value) {
            ("external", Value::Object(external)) => {
                for (key, value) in external {
                    if !known.contains(&format!("external.{key}")) {
                        return Err(format!("external.{key} is not a key of a definition"));
                    }
                    after["external"][key] = value.clone();
                }
            }
            ("external", _) => return Err("external is not a table".to_owned()),
            (key, _) if !known.contains(key) => return Err(format!("{key} is not a key of a definition")),
            (key, value) => after[key] = value.clone(),
        }
    }
    let mut definition: Definition = serde_json::from_value(after)
        .map_err(|_| "a key has another type than the platform documents".to_owned())?;
    // Unset secrets are taken from the center's version, because the redacted form does not contain them.
    let said = |key: &str| wanted.get("external").is_some_and(|external| external.get(key).is_some());
    let external = &mut definition.external;
    if !said("action_callback_token") {
        external.action_callback_token = before.external.action_callback_token.clone();
    }
    if !said("action_callback_key") {
        external.action_callback_key = before.external.action_callback_key.clone();
    }
    for (key, old, new) in [
        ("action_callback_token", &before.external.action_callback_token, &external.action_callback_token),
        ("action_callback_key", &before.external.action_callback_key, &external.action_callback_key),
    ] {
        let same = match (old, new) {
            (Some(old), Some(new)) => old.equals(new.expose()),
            (None, None) => true,
            _ => false,
        };
        if !same {
            changes.push(match (is_update, old, new) {
                (false, ..) => format!("external.{key}: [redacted]"),
                (true, Some(_), Some(_)) => format!("external.{key}: [redacted] -> [redacted], another one"),
                (true, None, _) => format!("external.{key}: none -> [redacted]"),
                (true, Some(_), None) => format!("external.{key}: [redacted] -> none"),
            });
        }
        shown["external"][key] = Value::Null;
    }
    let mut now = serde_json::to_value(&definition).expect("texts and truth values are JSON");
    now["external"]["action_callback_token"] = Value::Null;
    now["external"]["action_callback_key"] = Value::Null;
    differences("", &shown, &now, is_update, &mut changes);
    Ok((definition, changes))
}

fn differences(path: &str, old: &Value, new: &Value, is_update: bool, changes: &mut Vec<String>) {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return };
    let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let (old, new) = (old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null));
        let name = format!("{path}{key}");
        if old == new {
            continue;
        }
        if old.is_object() && new.is_object() {
            differences(&format!("{name}."), old, new, is_update, changes);
        } else if is_update {
            changes.push(format!("{name}: {old} -> {new}"));
        } else {
            changes.push(format!("{name}: {new}"));
        }
    }
}

/// The definition keys known to the client.
fn known_keys() -> std::collections::BTreeSet<String> {
    let top = [
        "approval_name",
        "approval_code",
        "group_code",
        "group_name",
        "description",
        "viewers",
        "i18n_resources",
        "managers",
    ];
    let external = [
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
        "exclude_efficiency_statistics",
    ];
    top.iter()
        .map(|key| (*key).to_owned())
        .chain(external.iter().map(|key| format!("external.{key}")))
        .collect()
}

/// The definition with this real code; `None` if it is unknown, an error if it is deleted.
async fn by_real_code(center: &Center, code: &str, ids: &UserIdType) -> Result<Option<Definition>, Failure> {
    match center.definition(code, ids).await {
        Ok(definition) => Ok(Some(definition)),
        Err(error) if error.fault() == Some(Fault::DefinitionUnknown) => Ok(None),
        Err(error) if error.fault() == Some(Fault::DefinitionDeleted) => {
            Err(anyhow!("the definition {code} is deleted").into())
        }
        Err(error) => Err(failure(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> Definition {
        let text = json!({
            "approval_name": "@i18n@1", "approval_code": "PO", "group_code": "erp",
            "external": { "support_mobile": true, "allow_batch_operate": true, "action_callback_url": "https://a/callbacks/p",
                "action_callback_token": "fake-1", "action_callback_key": "fake-2" }
        });
        serde_json::from_value(text).unwrap()
    }

    fn wanted(toml: &str) -> Map<String, Value> {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn what_is_not_said_stays_switches_and_secrets_among_it() {
        let change = wanted("approval_code = 'PO'\n[external]\nsupport_pc = true");
        let (definition, changes) = merged(Some(&before()), &change).unwrap();
        assert_eq!(changes, ["external.support_pc: false -> true"]);
        let external = &definition.external;
        assert!(external.support_mobile && external.allow_batch_operate && external.support_pc);
        assert!(external.action_callback_token.as_ref().unwrap().equals("fake-1"));
        assert!(external.action_callback_key.as_ref().unwrap().equals("fake-2"));
    }

    #[test]
    fn secrets_change_without_being_shown() {
        let change = wanted("[external]\naction_callback_token = 'fake-3'\naction_callback_key = ''");
        let (definition, changes) = merged(Some(&before()), &change).unwrap();
        assert_eq!(
            changes,
            [
                "external.action_callback_token: [redacted] -> [redacted], another one",
                "external.action_callback_key: [redacted] -> none",
            ]
        );
        assert!(definition.external.action_callback_token.unwrap().equals("fake-3"));
        assert!(definition.external.action_callback_key.is_none());
    }

    #[test]
    fn nothing_new_is_no_change_and_a_slip_is_told() {
        let (_, changes) = merged(Some(&before()), &wanted("approval_code = 'PO'")).unwrap();
        assert_eq!(changes, Vec::<String>::new());
        for (toml, problem) in [
            ("aproval_name = 'x'", "aproval_name is not a key of a definition"),
            ("[external]\nsupport_mobil = true", "external.support_mobil is not a key of a definition"),
            ("external = 1", "external is not a table"),
            ("[external]\nsupport_pc = 'yes'", "a key has another type than the platform documents"),
        ] {
            assert_eq!(merged(None, &wanted(toml)).map(|_| ()), Err(problem.to_owned()));
        }
    }

    #[test]
    fn every_known_key_is_one_that_the_client_reads_and_writes() {
        let mut all = json!({ "external": {} });
        for key in known_keys() {
            let value = match key.as_str() {
                "viewers" => json!([{ "viewer_type": "TENANT" }]),
                "i18n_resources" => json!([{ "locale": "zh-CN" }]),
                "managers" => json!(["u"]),
                key if key.contains("support_") || key.contains("enable_") || key.contains("allow_") => {
                    json!(true)
                }
                key if key.contains("exclude_") => json!(true),
                _ => json!("x"),
            };
            match key.strip_prefix("external.") {
                Some(key) => all["external"][key] = value,
                None => all[&key] = value,
            }
        }
        let definition: Definition = serde_json::from_value(all.clone()).unwrap();
        let written = serde_json::to_value(definition).unwrap();
        for key in known_keys() {
            let pointer = format!("/{}", key.replace('.', "/"));
            assert!(written.pointer(&pointer).is_some(), "{key} is not written again");
        }
    }
}
