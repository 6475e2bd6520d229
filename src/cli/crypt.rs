//! `encrypt`, `decrypt`.

use std::{io::Read, path::PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::json;

use super::{
    credentials::{choose, random, secret_from},
    exit::{Exit, Failure},
    output::{exactly, line, say},
};
use crate::{
    callback::{
        self, Cause, Credentials,
        cipher::{self, BLOCK_BYTES, Key},
    },
    config::Loaded,
    intake::EndpointSettings,
    secret::Secret,
};

const KEY_VARIABLE: &str = "COUNTERSIGN_ACTION_CALLBACK_KEY";

const DECRYPT_HELP: &str = "\
Examples:
  countersign send --dry-run | countersign decrypt
  countersign decrypt --key-file key < body.json

Reads the body of a callback, or only the base64 of its `encrypt`, from stdin. It opens whatever the
service would open, and prints what is inside; if the service would refuse that, stderr says why.

The key is the first of: --key-file, that of --endpoint, COUNTERSIGN_ACTION_CALLBACK_KEY in the
environment, that of the only endpoint in the configuration.";

const KEY_SOURCES: &str = "\
Examples:
  echo '{\"action_type\":\"APPROVE\"}' | countersign encrypt
  countersign encrypt --endpoint purchase < plain.json | countersign decrypt --endpoint purchase

The key is the first of: --key-file, that of --endpoint, COUNTERSIGN_ACTION_CALLBACK_KEY in the
environment, that of the only endpoint in the configuration.";

#[derive(Debug, Args)]
pub(super) struct KeyArguments {
    /// Use the action_callback_key of this endpoint in the configuration
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Read the action_callback_key from this file
    #[arg(long, value_name = "FILE", conflicts_with = "endpoint")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = KEY_SOURCES)]
pub(super) struct EncryptArguments {
    #[command(flatten)]
    key: KeyArguments,
    /// Print only the base64, without the object around it
    #[arg(long)]
    raw: bool,
}

#[derive(Debug, Args)]
#[command(after_help = DECRYPT_HELP)]
pub(super) struct DecryptArguments {
    #[command(flatten)]
    key: KeyArguments,
}

pub(super) fn encrypt(arguments: &EncryptArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let known = known(&arguments.key, loaded)?;
    let key = Key::derive(&known.keys[0]);
    let plain = stdin()?;
    if arguments.raw {
        line(cipher::encrypt(&key, random::<BLOCK_BYTES>(), &plain))?
    } else {
        line(cipher::envelope(&key, random::<BLOCK_BYTES>(), &plain))?
    }
    Ok(Exit::Done)
}

pub(super) fn decrypt(arguments: &DecryptArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let known = known(&arguments.key, loaded)?;
    let given = Given::of(stdin()?);
    let keys: Vec<_> = known.keys.iter().map(Key::derive).collect();
    let opened = callback::decrypt(&keys, given.body()).map_err(|cause| not_opened(cause, keys.len()))?;
    exactly(&opened.plain)?;
    let refusal = match (opened.unreadable, &known.endpoint) {
        (Some(cause), _) => Some(cause.to_string()),
        (None, Some(endpoint)) => callback::open(&Credentials::new(&endpoint.credentials), given.body())
            .err()
            .map(|error| error.to_string()),
        (None, None) => None,
    };
    match (refusal, &given) {
        // An unreadable body is refused whatever the key; a wrong token only at this endpoint.
        (Some(refusal), Given::Body(_)) if opened.unreadable.is_some() => {
            Err(anyhow!("decrypted, but the service refuses such a body: {refusal}").into())
        }
        (Some(refusal), _) => {
            say(format_args!("note: the service refuses such a body: {refusal}"));
            Ok(Exit::Done)
        }
        (None, _) => Ok(Exit::Done),
    }
}

fn not_opened(cause: Cause, keys: usize) -> Failure {
    Failure::Failed(match cause {
        Cause::Key if keys == 1 => anyhow!("the key does not decrypt it: it was encrypted with another key"),
        Cause::Key => anyhow!("none of the {keys} keys decrypts it; it was encrypted with another key"),
        Cause::NotEncrypted => anyhow!("the JSON object on stdin has no text `encrypt`: a plain callback"),
        cause => anyhow!("cannot decrypt: {cause}"),
    })
}

/// The input on stdin.
enum Given {
    /// The exact body of a callback.
    Body(Vec<u8>),
    /// Bare base64, as printed by `encrypt --raw`, wrapped into the body it belongs in.
    Bare(Vec<u8>),
}

impl Given {
    fn of(input: Vec<u8>) -> Self {
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_ \t\r\n".contains(&byte);
        match std::str::from_utf8(&input).map(str::trim) {
            Ok(text) if !text.is_empty() && text.trim_end_matches('=').bytes().all(is_base64) => {
                Self::Bare(json!({ "encrypt": text }).to_string().into_bytes())
            }
            _ => Self::Body(input),
        }
    }

    fn body(&self) -> &[u8] {
        match self {
            Self::Body(body) | Self::Bare(body) => body,
        }
    }
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read stdin")?;
    Ok(bytes)
}

/// The keys to use.
struct Known<'l> {
    /// At least one.
    keys: Vec<Secret>,
    /// The endpoint that has these keys, if any.
    endpoint: Option<&'l EndpointSettings>,
}

fn known<'l>(arguments: &KeyArguments, loaded: &'l Loaded) -> Result<Known<'l>, Failure> {
    if let Some(path) = &arguments.key_file {
        return Ok(Known { keys: vec![secret_from(path, "--key-file")?], endpoint: None });
    }
    if arguments.endpoint.is_none()
        && let Some(key) = std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty())
    {
        return Ok(Known { keys: vec![Secret::new(key)], endpoint: None });
    }
    let endpoint = choose(loaded.endpoints()?, arguments.endpoint.as_deref())?;
    let keys: Vec<_> =
        endpoint.credentials.iter().filter_map(|credential| credential.action_callback_key.clone()).collect();
    if keys.is_empty() {
        return Err(Failure::Usage(format!("the endpoint {} has no action_callback_key", endpoint.name)));
    }
    Ok(Known { keys, endpoint: Some(endpoint) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::credentials::envelope;

    #[test]
    fn what_is_sealed_opens_and_no_two_are_alike() {
        let key = Secret::new("审批密钥-demo");
        let (one, two) = (envelope(&key, b"{}"), envelope(&key, b"{}"));
        assert_ne!(one, two);
        let opened = callback::decrypt(&[Key::derive(&key)], one.as_bytes()).unwrap();
        assert_eq!((&*opened.plain, opened.unreadable), (&b"{}"[..], None));
    }

    #[test]
    fn base64_alone_is_put_into_a_body_and_a_body_is_taken_as_it_is() {
        for input in ["QUJD", "QU\nJD\n", "  QUJD\r\n"] {
            let Given::Bare(body) = Given::of(input.into()) else { panic!("{input}") };
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["encrypt"].as_str().unwrap(), input.trim());
        }
        for input in [
            &b"{\"encrypt\":\"QUJD\"}\n"[..],
            b"\xEF\xBB\xBF{}",
            b"[]",
            b"\"QUJD\"",
            b"encrypt=QUJD",
            b"\xff",
            b"",
            b"\n",
        ] {
            let Given::Body(body) = Given::of(input.into()) else { panic!("{input:?}") };
            assert_eq!(body, input);
        }
    }
}
