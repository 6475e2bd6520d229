//! `context sign|verify`

use std::{collections::BTreeMap, io::Read, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    exit::{Exit, Failure},
    output::{json, line, say},
    time::ZoneArguments,
};
use crate::{
    config::{Loaded, read_secret},
    context::{
        ContextError, Format,
        jwt::{Claims, Keys, Requirement, SigningKey, payload, sign},
    },
    time::Timestamp,
};

const CLAIMS: &str = "\
Examples:
  echo '{\"instance_id\":\"PO-77\",\"task_id\":\"n2\",\"round\":1,\"operators\":[\"zhang3\"]}' |
    countersign context sign --endpoint purchase --expires-in 72h

Claims that mean something to countersign: instance_id, task_id, round (or jti), business_key,
operators and actions (lists: who may do what), approval_code, endpoint, exp, nbf, data; and iss and
aud, where the endpoint looks at them. Others are signed as they are.

A missing jti is generated. By default an endpoint requires exp, round (or jti) and operators:
endpoints.context.jwt.require.";

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  countersign context sign --expires-in 72h < claims.json
  countersign context verify < token")]
pub(super) enum ContextCommand {
    /// Sign claims from stdin, a JSON object, and print the token for action_context
    #[command(after_help = CLAIMS)]
    Sign(SignArguments),
    /// Verify a token from stdin, and print its claims
    ///
    /// Exits with 1 if the endpoint would refuse it, and says why: what is missing, and when it expired.
    Verify(VerifyArguments),
}

#[derive(Debug, Args)]
pub(super) struct SignArguments {
    /// Sign with the first HS256 secret of this endpoint [default: the only endpoint configured]
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Sign with HS256 and the secret in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["endpoint", "private_key_file"])]
    secret_file: Option<PathBuf>,
    /// Sign with EdDSA and the Ed25519 private key (PKCS#8, PEM) in this file
    #[arg(long, value_name = "FILE", conflicts_with = "endpoint")]
    private_key_file: Option<PathBuf>,
    /// The header kid [default: that of the endpoint's secret]
    #[arg(long, value_name = "KID")]
    kid: Option<String>,
    /// Set exp to this long from now, such as 72h (ms, s, m, h)
    #[arg(long, value_name = "DURATION", value_parser = super::values::duration)]
    expires_in: Option<Duration>,
    #[command(flatten)]
    zone: ZoneArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign context verify < token
  countersign context sign < claims.json | countersign context verify --local-time")]
pub(super) struct VerifyArguments {
    /// Check with the keys of this endpoint [default: the only endpoint configured]
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    #[command(flatten)]
    zone: ZoneArguments,
}

pub(super) fn run(command: ContextCommand, load: impl FnOnce() -> Loaded) -> Result<Exit, Failure> {
    match command {
        ContextCommand::Sign(arguments) => sign_claims(&arguments, load),
        ContextCommand::Verify(arguments) => verify(&arguments, &load()),
    }
}

fn sign_claims(arguments: &SignArguments, load: impl FnOnce() -> Loaded) -> Result<Exit, Failure> {
    let from_file = |path: &PathBuf| {
        read_secret(path).map_err(|problem| Failure::Usage(format!("{}: {problem}", path.display())))
    };
    let loaded;
    let (kid, key, required) = match (&arguments.secret_file, &arguments.private_key_file) {
        (Some(path), _) => (None, SigningKey::Hs256(from_file(path)?), Requirement::SAFE.to_vec()),
        (None, Some(path)) => (None, SigningKey::EdDsa(from_file(path)?), Requirement::SAFE.to_vec()),
        (None, None) => {
            loaded = load();
            let keys = keys(&loaded, arguments.endpoint.as_deref())?;
            let (kid, key) = keys.signing_key().ok_or_else(|| {
                let problem = "the endpoint has public keys only; sign with --private-key-file";
                Failure::Usage(problem.to_owned())
            })?;
            (kid.map(str::to_owned), key, keys.demands().require.clone())
        }
    };
    let text = stdin()?;
    let not_claims = "stdin is not a JSON object of claims";
    // Keep the members as written: an unknown claim may have a meaning for another reader. Parsed twice, because
    // known claims may occur only once.
    let given = text.trim_start_matches('\u{feff}');
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(given).context(not_claims)?;
    let claims: Claims = serde_json::from_str(given).context(not_claims)?;
    let now = Timestamp::now();
    if let Some(life) = arguments.expires_in {
        set(&mut members, "exp", (now + life).as_second().to_string())?;
    }
    if claims.jti.as_deref().is_none_or(str::is_empty) {
        set(&mut members, "jti", format!("\"{}\"", Uuid::now_v7()))?;
    }
    // Parsed the way an endpoint will read them.
    let signed = serde_json::to_string(&members).context("cannot express the claims as JSON")?;
    let claims: Claims = serde_json::from_str(&signed).context(not_claims)?;
    let times = claims.times().map_err(|error| anyhow!("not signed: {error}"))?;
    match times.exp {
        None => say(
            "warning: the token has no exp, so it stays valid forever if it is captured; --expires-in sets one",
        ),
        Some(exp) if exp <= now => {
            say(format_args!("warning: its exp, {}, is in the past", arguments.zone.zone()?.show(exp)));
        }
        Some(_) => {}
    }
    let missing = claims.missing(&required);
    if !missing.is_empty() {
        say(format_args!("warning: an endpoint will refuse the token: it has {}", without(&missing)));
    }
    let kid = arguments.kid.as_deref().or(kid.as_deref());
    line(sign(&key, kid, &members).context("cannot sign")?)?;
    Ok(Exit::Done)
}

fn set(members: &mut BTreeMap<String, Box<RawValue>>, name: &str, value: String) -> Result<(), Failure> {
    let value = RawValue::from_string(value).context("cannot express a claim as JSON")?;
    members.insert(name.to_owned(), value);
    Ok(())
}

/// `no exp, no operators (endpoints.context.jwt.require)`
fn without(missing: &[Requirement]) -> String {
    let claims: Vec<_> = missing.iter().map(|one| format!("no {}", one.claims())).collect();
    format!("{} (endpoints.context.jwt.require)", claims.join(", "))
}

fn verify(arguments: &VerifyArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let keys = keys(loaded, arguments.endpoint.as_deref())?;
    let (now, zone) = (Timestamp::now(), arguments.zone.zone()?);
    let text = stdin()?;
    let token = text.trim();
    let claims = match keys.verify(token, now) {
        Ok(claims) => claims,
        Err(error) => {
            // Not for a forged token: it could claim anything.
            let ended = (error == ContextError::Expired).then(|| payload(token)).flatten();
            let ended = ended.and_then(|claims| serde_json::from_str::<Claims>(claims.get()).ok());
            let ended = ended.and_then(|claims| claims.times().ok()?.exp);
            let ended = ended.map(|exp| format!(": its exp is {}", zone.show(exp)));
            return Err(anyhow!("refused: {error}{}", ended.unwrap_or_default()).into());
        }
    };
    json(&payload(token).context("the token cannot be read")?)?;
    let missing = claims.missing(&keys.demands().require);
    if !missing.is_empty() {
        return Err(anyhow!("refused: the token has {}", without(&missing)).into());
    }
    let times = claims.times().map_err(|error| anyhow!("refused: {error}"))?;
    match times.exp {
        Some(exp) => say(format_args!("valid until {}", zone.show(exp))),
        None => say("valid forever: it has no exp"),
    }
    Ok(Exit::Done)
}

/// The keys of an endpoint that takes tokens as contexts.
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
                .ok_or_else(|| Failure::Usage(format!("the contexts of {name} are not of format jwt")))
        }
        None => match &*endpoints.iter().filter_map(of).collect::<Vec<_>>() {
            [only] => Ok(only),
            [] => Err(Failure::Usage("no endpoint has contexts of format jwt".to_owned())),
            _ => Err(Failure::Usage(
                "several endpoints have contexts of format jwt; name one with --endpoint".to_owned(),
            )),
        },
    }
}

fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).context("cannot read stdin")?;
    if text.trim().is_empty() {
        return Err(anyhow!("stdin is empty").into());
    }
    Ok(text)
}
