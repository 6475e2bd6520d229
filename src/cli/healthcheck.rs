//! `healthcheck`

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, anyhow};
use clap::Args;

use super::{
    Trust, block_on, client,
    exit::{Exit, Failure},
    output::{line, say},
    reachable, url,
};
use crate::{config::Loaded, proxy};

/// Exits with 0 if the service is ready, 1 if it answers that it is not, 69 if it does not answer
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign healthcheck                              may it take callbacks?
  countersign healthcheck --live                       does it run?
  countersign healthcheck --url http://10.0.0.7:9090")]
pub(super) struct Arguments {
    /// Check only that the process is alive (/livez), not that it can keep callbacks (/readyz)
    #[arg(long)]
    live: bool,
    /// The internal listener of another machine [default: admin.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// For https://: trust the authorities in this PEM file instead of the system's
    #[arg(long, value_name = "FILE", requires = "url")]
    ca_file: Option<PathBuf>,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

pub(super) fn run(arguments: &Arguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let path = if arguments.live { "/livez" } else { "/readyz" };
    let url = match &arguments.url {
        Some(text) => url(text, path)?,
        None => {
            let listen = loaded.internal()?;
            if listen.port() == 0 {
                return Err(Failure::Usage("admin.listen has no fixed port; use --url".to_owned()));
            }
            url(&format!("http://{}", reachable(listen)), path)?
        }
    };
    let timeout = Duration::from_secs(arguments.timeout);
    block_on(async {
        let away = || format!("{url} cannot be reached{}", proxy::words(url.as_str()));
        let answer = client(&url, Trust::of(arguments.ca_file.as_deref(), false), timeout)?
            .get(url.clone())
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(away)
            .map_err(Failure::Unavailable)?;
        let status = answer.status();
        let text = answer
            .text()
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(away)
            .map_err(Failure::Unavailable)?;
        match status.as_u16() {
            200 => {
                line(text.trim())?;
                Ok(Exit::Done)
            }
            503 => {
                line(text.trim())?;
                say(format_args!("countersign: {url} is not ready"));
                Ok(Exit::Failed)
            }
            other => {
                Err(anyhow!("{url} answers {other}, so it is not countersign's internal listener").into())
            }
        }
    })
}
