//! `keygen`: tokens and keys.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    credentials::random,
    exit::{Exit, Failure},
    output::{is_seen, json, line, say},
};
use crate::amqp::signing::SigningKey;

const EXAMPLES: &str = "\
Examples:
  countersign keygen                      a token and a key for an endpoint
  countersign keygen --signing ed25519    a key that signs commands, and what workers verify with
  countersign keygen --signing ed25519 --json | jq -rj .secret > signing-key";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Generate a key that signs commands, in the form of Standard Webhooks
    #[arg(long, value_name = "KIND")]
    signing: Option<Kind>,
    /// Print JSON instead of TOML
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Workers verify with a public key, so they cannot sign (whsk_, whpk_)
    Ed25519,
    /// Workers verify with the same secret: less work, and all libraries can (whsec_)
    HmacSha256,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match arguments.signing {
        None => credential(arguments.json),
        Some(kind) => signing(kind, arguments.json),
    }
}

fn credential(as_json: bool) -> Result<Exit, Failure> {
    // 256 bits each, in characters that need no escaping in TOML, JSON, a shell or a URL.
    let [token, key] = [(); 2].map(|()| URL_SAFE_NO_PAD.encode(random::<32>()));
    if as_json {
        json(&json!({ "action_callback_token": token, "action_callback_key": key }))?;
        return Ok(Exit::Done);
    }
    line(format_args!(
        "credentials = [ {{ action_callback_token = \"{token}\", action_callback_key = \"{key}\" }} ]"
    ))?;
    if is_seen() {
        say(
            "The line goes into [[endpoints]]; the same two values go into the approval definition or the bot message.",
        );
    }
    Ok(Exit::Done)
}

fn signing(kind: Kind, as_json: bool) -> Result<Exit, Failure> {
    let secret = match kind {
        Kind::Ed25519 => SigningKey::ed25519_text(&random()),
        Kind::HmacSha256 => SigningKey::hmac_text(&random()),
    };
    let public = SigningKey::parse(&secret).expect("what is made can be read").public_key();
    let secret = secret.expose();
    if as_json {
        json(&match &public {
            Some(public) => json!({ "secret": secret, "public_key": public }),
            None => json!({ "secret": secret }),
        })?;
        return Ok(Exit::Done);
    }
    let with = public.as_deref().unwrap_or("the same secret");
    // One text of TOML, so that it can be pasted as it is.
    line(format_args!("keys = [ {{ secret = \"{secret}\" }} ]  # workers verify with {with}"))?;
    if is_seen() {
        say("The line goes into [amqp.signing]; beside an older key, until all workers know the new one.");
    }
    Ok(Exit::Done)
}
