//! `center definition get|check|apply`

use clap::{Args, Subcommand};
use serde_json::json;

use super::{IdArguments, apply, check, failure, or_dash};
use crate::{
    center::client::{Center, Definition, UserIdType},
    cli::{
        credentials::choose,
        exit::{Exit, Failure},
        output::{json, line, lines, table},
    },
    config::Loaded,
    intake::EndpointSettings,
    secret::Secret,
};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  countersign center definition get 0F0E0D0C-…
  countersign center definition check 0F0E0D0C-…
  countersign center definition apply purchase.toml --dry-run")]
pub(in crate::cli) enum DefinitionCommand {
    /// Show a definition; token and key are redacted
    Get(GetArguments),
    /// Compare a definition with the endpoint that it should point at
    Check(CheckArguments),
    /// Create or change a definition from a TOML file
    Apply(apply::Arguments),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign center definition get 0F0E0D0C-…
  countersign center definition get 0F0E0D0C-… --locale en-US")]
pub(in crate::cli) struct GetArguments {
    /// The real approval_code: what creating it returned, or the code in the admin console's URL
    #[arg(value_name = "CODE")]
    code: String,
    #[command(flatten)]
    ids: IdArguments,
    /// Language of names
    #[arg(long, value_name = "LOCALE", default_value = "zh-CN")]
    locale: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  countersign center definition check 0F0E0D0C-…
  countersign center definition check 0F0E0D0C-… --endpoint purchase \\
      --public-url https://hook.example.com

Prints a line for each check. Exits with 1 if one is wrong.";

#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(in crate::cli) struct CheckArguments {
    /// The real approval_code
    #[arg(value_name = "CODE")]
    code: String,
    /// The endpoint [default: that named in the definition's URL, or the only one]
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Scheme and host at which the approval center reaches countersign
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    command: DefinitionCommand,
    center: &Center,
    loaded: &Loaded,
) -> Result<Exit, Failure> {
    match command {
        DefinitionCommand::Get(arguments) => get(&arguments, center).await,
        DefinitionCommand::Check(arguments) => check(&arguments, center, loaded).await,
        DefinitionCommand::Apply(arguments) => apply::run(&arguments, center, loaded).await,
    }
}

async fn get(arguments: &GetArguments, center: &Center) -> Result<Exit, Failure> {
    let definition =
        center.definition(&arguments.code, &arguments.ids.user_id_type).await.map_err(failure)?;
    if arguments.json {
        json(&definition)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = fields(&definition, &arguments.locale)
        .into_iter()
        .map(|(name, value)| [name.to_owned(), value])
        .collect();
    lines(&table(["FIELD", "VALUE"], &rows))?;
    Ok(Exit::Done)
}

/// Every field, with the platform's names.
fn fields(definition: &Definition, locale: &str) -> Vec<(&'static str, String)> {
    let key = |key: Option<&str>| match key {
        None | Some("") => "-".to_owned(),
        Some(key) => match definition.text(key, locale) {
            text if text == key => key.to_owned(),
            text => format!("{text} ({key})"),
        },
    };
    let text = |text: &Option<String>| or_dash(text.as_deref().unwrap_or_default());
    let secret = |secret: &Option<Secret>| secret.as_ref().map_or("-", |_| "[redacted]").to_owned();
    let flag = |flag: Option<bool>| flag.map_or_else(|| "-".to_owned(), |flag| flag.to_string());
    let external = &definition.external;
    let mut fields = vec![
        ("approval_name", key(Some(&definition.approval_name))),
        ("approval_code", or_dash(&definition.approval_code)),
        ("group_code", text(&definition.group_code)),
        ("group_name", key(definition.group_name.as_deref())),
        ("description", key(definition.description.as_deref())),
        ("external.biz_name", key(external.biz_name.as_deref())),
        ("external.biz_type", text(&external.biz_type)),
        ("external.create_link_mobile", text(&external.create_link_mobile)),
        ("external.create_link_pc", text(&external.create_link_pc)),
        ("external.support_pc", external.support_pc.to_string()),
        ("external.support_mobile", external.support_mobile.to_string()),
        ("external.support_batch_read", external.support_batch_read.to_string()),
        ("external.enable_mark_readed", flag(external.enable_mark_readed)),
        ("external.enable_quick_operate", flag(external.enable_quick_operate)),
        ("external.action_callback_url", text(&external.action_callback_url)),
        ("external.action_callback_token", secret(&external.action_callback_token)),
        ("external.action_callback_key", secret(&external.action_callback_key)),
        ("external.allow_batch_operate", external.allow_batch_operate.to_string()),
        ("external.exclude_efficiency_statistics", external.exclude_efficiency_statistics.to_string()),
    ];
    for viewer in &definition.viewers {
        let ids = [&viewer.viewer_user_id, &viewer.viewer_department_id];
        let ids: Vec<_> = ids.into_iter().flatten().map(String::as_str).collect();
        fields.push(("viewers", format!("{} {}", viewer.viewer_type, ids.join(" ")).trim().to_owned()));
    }
    for resource in &definition.i18n_resources {
        let default = if resource.is_default { ", the default" } else { "" };
        let texts: Vec<_> =
            resource.texts.iter().map(|text| format!("{}={}", text.key, text.value)).collect();
        fields.push(("i18n_resources", format!("{}{default}: {}", resource.locale, texts.join(" "))));
    }
    fields.push(("managers", or_dash(&definition.managers.join(" "))));
    fields
}

async fn check(arguments: &CheckArguments, center: &Center, loaded: &Loaded) -> Result<Exit, Failure> {
    let definition = center.definition(&arguments.code, &UserIdType::UserId).await.map_err(failure)?;
    let endpoint = endpoint(&definition, arguments.endpoint.as_deref(), loaded)?;
    let input = check::CheckInput {
        real_code: &arguments.code,
        public_url: arguments.public_url.as_deref(),
        // The emulator reaches addresses that the platform's cloud cannot.
        center_is_local: check::is_local(&center.settings().base_url),
    };
    let checks = check::of(&definition, endpoint, &input);
    for check in &checks {
        if arguments.json {
            json(&json!({
                "endpoint": endpoint.name, "subject": check.subject, "verdict": check.result.as_str(),
                "words": check.words,
            }))?;
        } else {
            line(format_args!("{:<6} {}: {}", check.result.as_str(), check.subject, check.words))?;
        }
    }
    let wrong = checks.iter().any(|check| check.result == check::CheckResult::Wrong);
    Ok(if wrong { Exit::Failed } else { Exit::Done })
}

fn endpoint<'l>(
    definition: &Definition,
    name: Option<&str>,
    loaded: &'l Loaded,
) -> Result<&'l EndpointSettings, Failure> {
    let endpoints = loaded.endpoints()?;
    let by_url = || {
        let url = definition.external.action_callback_url.as_deref()?;
        let name = url.rsplit('/').next()?;
        endpoints.iter().find(|endpoint| endpoint.name == name)
    };
    match name {
        None => match by_url() {
            Some(endpoint) => Ok(endpoint),
            None => choose(endpoints, None),
        },
        name => choose(endpoints, name),
    }
}
