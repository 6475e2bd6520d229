//! `context sign|verify`

use std::{io::Read, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};

use super::{
    exit::{Exit, Failure},
    output::{json, line},
};
use crate::{
    config::{Loaded, read_secret},
    context::{
        Format,
        jwt::{Claims, Keys, SigningKey, sign},
    },
    time::Timestamp,
};

const CLAIMS: &str = "\
Claims that mean something to countersign: instance_id, task_id, round (or jti), business_key,
operators and actions (lists: who may do what), approval_code, endpoint, exp, nbf, data.

Example:
  echo '{\"instance_id\":\"PO-77\",\"task_id\":\"n2\",\"round\":1,\"operators\":[\"zhang3\"]}' |
    countersign context sign --endpoint purchase --expires-in 72h";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Sign claims that stand on stdin as a JSON object, and print the token for action_context
    #[command(after_help = CLAIMS)]
    Sign(SignArguments),
    /// Check a token that stands on stdin, and print its claims
    ///
    /// Exits 1 if the endpoint would refuse it, and says why.
    Verify(VerifyArguments),
}

#[derive(Debug, Args)]
pub(super) struct SignArguments {
    /// Sign with the first HS256 secret of this endpoint [default: the only endpoint configured]
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Sign by HS256 with the secret in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["endpoint", "private_key_file"])]
    secret_file: Option<PathBuf>,
    /// Sign by EdDSA with the Ed25519 private key (PKCS#8, PEM) in this file
    #[arg(long, value_name = "FILE", conflicts_with = "endpoint")]
    private_key_file: Option<PathBuf>,
    /// The header kid [default: that of the endpoint's secret]
    #[arg(long, value_name = "KID")]
    kid: Option<String>,
    /// Set exp to so long from now, such as 72h (ms, s, m, h)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires_in: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// Check with the keys of this endpoint [default: the only endpoint configured]
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
}

pub(super) fn run(command: Command, load: impl FnOnce() -> Loaded) -> Result<Exit, Failure> {
    match command {
        Command::Sign(arguments) => sign_claims(&arguments, load),
        Command::Verify(arguments) => verify(&arguments, &load()),
    }
}

fn sign_claims(arguments: &SignArguments, load: impl FnOnce() -> Loaded) -> Result<Exit, Failure> {
    let from_file = |path: &PathBuf| {
        read_secret(path).map_err(|problem| Failure::Usage(format!("{}: {problem}", path.display())))
    };
    let loaded;
    let (kid, key) = match (&arguments.secret_file, &arguments.private_key_file) {
        (Some(path), _) => (None, SigningKey::Hs256(from_file(path)?)),
        (None, Some(path)) => (None, SigningKey::EdDsa(from_file(path)?)),
        (None, None) => {
            loaded = load();
            let keys = keys(&loaded, arguments.endpoint.as_deref())?;
            let (kid, key) = keys.signing_key().ok_or_else(|| {
                let problem = "the endpoint has public keys only; sign with --private-key-file";
                Failure::Usage(problem.to_owned())
            })?;
            (kid.map(str::to_owned), key)
        }
    };
    let mut claims: Claims = serde_json::from_str(stdin()?.trim_start_matches('\u{feff}'))
        .context("stdin is not a JSON object of claims")?;
    if let Some(life) = arguments.expires_in {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        claims.exp = Some(now.saturating_add(life.as_secs()));
    }
    let kid = arguments.kid.as_deref().or(kid.as_deref());
    line(sign(&key, kid, &claims).context("cannot sign")?)?;
    Ok(Exit::Done)
}

fn verify(arguments: &VerifyArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let keys = keys(loaded, arguments.endpoint.as_deref())?;
    let claims = keys.verify(stdin()?.trim(), Timestamp::now()).context("refused")?;
    json(&claims)?;
    Ok(Exit::Done)
}

/// The keys of an endpoint whose contexts are tokens.
fn keys<'a>(loaded: &'a Loaded, endpoint: Option<&str>) -> Result<&'a Keys, Failure> {
    let endpoints = loaded.endpoints()?;
    let of = |endpoint: &'a crate::intake::EndpointSettings| {
        endpoint.context.formats.iter().find_map(|format| match format {
            Format::Jwt(keys) => Some(keys),
            _ => None,
        })
    };
    match endpoint {
        Some(name) => {
            let endpoint = endpoints
                .iter()
                .find(|endpoint| endpoint.name == name)
                .ok_or_else(|| Failure::Usage(format!("there is no endpoint named {name}")))?;
            of(endpoint)
                .ok_or_else(|| Failure::Usage(format!("the contexts of {name} are no tokens (format jwt)")))
        }
        None => match &*endpoints.iter().filter_map(of).collect::<Vec<_>>() {
            [only] => Ok(only),
            [] => Err(Failure::Usage("no endpoint has contexts of format jwt".to_owned())),
            _ => Err(Failure::Usage(
                "several endpoints have contexts of format jwt; name one by --endpoint".to_owned(),
            )),
        },
    }
}

fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).context("cannot read stdin")?;
    if text.trim().is_empty() {
        return Err(anyhow!("nothing stands on stdin").into());
    }
    Ok(text)
}

/// Reads a duration of the command line.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    crate::config::parse_duration(text).ok_or_else(|| "is not a duration such as 90s, 30m or 72h".to_owned())
}
