//! `center message send|update`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{failure, read_json, wrong};
use crate::{
    center::client::{Center, I18n, I18nMap, I18nText, Message, MessageStatus, MessageUpdate},
    cli::{
        exit::{Exit, Failure},
        output::{json, line},
    },
};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  countersign center message send card.json
  countersign center message update 7093141256317 --status APPROVED")]
pub(in crate::cli) enum MessageCommand {
    /// Send a card from a file
    Send(SendArguments),
    /// Update a card
    ///
    /// Only cards of template 1008, and only within 30 days.
    Update(UpdateArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign center message send card.json
  countersign center message send --json - < card.json")]
pub(in crate::cli) struct SendArguments {
    /// A file of JSON as POST message/send takes it; - is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign center message update 7093141256317 --status APPROVED
  countersign center message update 7093141256317 --status CUSTOM --status-text 已完成")]
pub(in crate::cli) struct UpdateArguments {
    /// The message_id that sending it returned
    #[arg(value_name = "MESSAGE_ID")]
    message_id: String,
    /// APPROVED, REJECTED, CANCELLED, FORWARDED, ROLLBACK, ADD, DELETED, PROCESSED or CUSTOM
    #[arg(long, value_name = "STATUS")]
    status: String,
    /// With CUSTOM: its status text
    #[arg(long, value_name = "TEXT")]
    status_text: Option<String>,
    /// With CUSTOM: the text of its button
    #[arg(long, value_name = "TEXT", requires = "status_text")]
    detail_text: Option<String>,
    /// The language of these texts
    #[arg(long, value_name = "LOCALE", default_value = "zh-CN")]
    locale: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: MessageCommand, center: &Center) -> Result<Exit, Failure> {
    let (message_id, as_json) = match command {
        MessageCommand::Send(arguments) => {
            let mut messages = read_json::<Message>(&arguments.file)?;
            let (Some(message), true) = (messages.pop(), messages.is_empty()) else {
                return Err(wrong(&arguments.file, "does not hold one message"));
            };
            if let Some(key) = message.unknown.keys().next() {
                return Err(wrong(&arguments.file, format!("{key} is not a member of this API")));
            }
            (center.send_message(&message).await.map_err(failure)?, arguments.json)
        }
        MessageCommand::Update(arguments) => {
            let update = update(&arguments)?;
            (center.update_message(&update).await.map_err(failure)?, arguments.json)
        }
    };
    if as_json {
        json(&json!({ "message_id": message_id }))?;
    } else {
        line(message_id)?;
    }
    Ok(Exit::Done)
}

fn update(arguments: &UpdateArguments) -> Result<MessageUpdate, Failure> {
    let status = MessageStatus::from(arguments.status.as_str());
    if !status.is_known() {
        let words: Vec<_> = MessageStatus::ALL.iter().map(MessageStatus::as_str).collect();
        return Err(Failure::Usage(format!("--status {status}: it must be one of {}", words.join(", "))));
    }
    if arguments.status_text.is_some() != (status == MessageStatus::Custom) {
        return Err(Failure::Usage("--status CUSTOM and --status-text go together".to_owned()));
    }
    let texts: Vec<_> = [("@i18n@status", &arguments.status_text), ("@i18n@detail", &arguments.detail_text)]
        .into_iter()
        .filter_map(|(key, text)| text.clone().map(|value| I18nText { key: key.to_owned(), value }))
        .collect();
    let key = |text: &Option<String>, key: &str| text.as_ref().map(|_| key.to_owned());
    let resources = I18nMap(I18n { locale: arguments.locale.clone(), is_default: true, texts });
    Ok(MessageUpdate {
        message_id: arguments.message_id.clone(),
        status,
        status_name: key(&arguments.status_text, "@i18n@status"),
        detail_action_name: key(&arguments.detail_text, "@i18n@detail"),
        i18n_resources: arguments.status_text.as_ref().map(|_| resources).into_iter().collect(),
    })
}
