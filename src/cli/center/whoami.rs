//! `center whoami`

use clap::Args;
use serde_json::json;

use super::{IdArguments, failure};
use crate::{
    center::client::{AppType, Center},
    cli::{
        exit::{Exit, Failure},
        output::{json, line},
    },
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign center whoami
  countersign center whoami --user zhang3                                     the open_id of zhang3
  countersign center whoami --user ou_7d8a6e6df --user-id-type open_id --json")]
pub(in crate::cli) struct Arguments {
    /// Look up the user with this id as well
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    #[command(flatten)]
    ids: IdArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments, center: &Center) -> Result<Exit, Failure> {
    let token = center.token_info().await.map_err(failure)?;
    let settings = center.settings();
    let app_type = match &settings.app_type {
        AppType::Internal => "internal",
        AppType::Store(_) => "store",
    };
    let user = match &arguments.user {
        Some(id) => Some(center.user(id, &arguments.ids.user_id_type).await.map_err(failure)?),
        None => None,
    };
    let seconds = token.expires_in.as_secs();
    if arguments.json {
        json(&json!({
            "base_url": settings.base_url, "historic_base_url": settings.historic_base_url,
            "app_id": settings.app_id, "app_type": app_type, "token_expires_in_seconds": seconds, "user": user,
        }))?;
        return Ok(Exit::Done);
    }
    line(format_args!("approval center  {}", settings.base_url))?;
    if settings.historic_base_url != settings.base_url {
        line(format_args!("historic APIs    {}", settings.historic_base_url))?;
    }
    line(format_args!("app              {} ({app_type})", settings.app_id))?;
    line(format_args!("access token     expires in {} min {} s", seconds / 60, seconds % 60))?;
    if let Some(user) = user {
        let or_hidden =
            |id: &str| if id.is_empty() { "(not shown to this app)".to_owned() } else { id.to_owned() };
        line(format_args!("user_id          {}", or_hidden(&user.user_id)))?;
        line(format_args!("open_id          {}", or_hidden(&user.open_id)))?;
        line(format_args!("union_id         {}", or_hidden(&user.union_id)))?;
        line(format_args!("name             {}", or_hidden(&user.name)))?;
    }
    Ok(Exit::Done)
}
