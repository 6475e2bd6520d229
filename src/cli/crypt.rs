//! `encrypt`, `decrypt`, `keygen`.

use std::{io::Read, path::PathBuf};

use anyhow::{Context, anyhow};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use serde_json::json;

use super::{
    exit::{Exit, Failure},
    output::{is_seen, json, line, say, write},
};
use crate::{
    callback::cipher::{self, BLOCK_BYTES, Key},
    config::{Loaded, read_secret},
    intake::EndpointSettings,
    secret::Secret,
};

const KEY_VARIABLE: &str = "COUNTERSIGN_ACTION_CALLBACK_KEY";

const KEY_SOURCES: &str = "\
The key is taken from --key-file, or the endpoint named by --endpoint, or the environment variable
COUNTERSIGN_ACTION_CALLBACK_KEY, or the only endpoint in the configuration, whichever comes first
in this list.";

#[derive(Debug, Args)]
pub(super) struct KeyArguments {
    /// Take the action_callback_key of this endpoint in the configuration
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Take the action_callback_key from this file
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
#[command(after_help = KEY_SOURCES)]
pub(super) struct DecryptArguments {
    #[command(flatten)]
    key: KeyArguments,
}

#[derive(Debug, Args)]
pub(super) struct KeygenArguments {
    /// Print JSON in place of TOML
    #[arg(long)]
    json: bool,
}

pub(super) fn encrypt(arguments: &EncryptArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let keys = keys(&arguments.key, loaded)?;
    let sealed = seal(&keys[0], &stdin()?);
    if arguments.raw {
        line(sealed)?
    } else {
        json(&json!({ "encrypt": sealed }))?
    }
    Ok(Exit::Done)
}

/// Encrypts as the platform does, with a fresh IV.
pub(super) fn seal(key: &Secret, plain: &[u8]) -> String {
    cipher::encrypt(&Key::derive(key), random::<BLOCK_BYTES>(), plain)
}

pub(super) fn decrypt(arguments: &DecryptArguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let keys = keys(&arguments.key, loaded)?;
    let input = stdin()?;
    let sealed = sealed_part(&input).map_err(Failure::Failed)?;
    let opened = keys.iter().find_map(|key| cipher::decrypt(&Key::derive(key), &sealed));
    let Some(plain) = opened else {
        let which = match keys.len() {
            1 => "the key".to_owned(),
            count => format!("any of the {count} keys"),
        };
        return Err(
            anyhow!("{which} does not open it: another key, or not base64 of IV and whole blocks").into()
        );
    };
    write(&plain)?;
    // Byte for byte for a program; for a person, a line.
    if is_seen() {
        line("")?;
    }
    Ok(Exit::Done)
}

/// The base64 in what was given: the object that the platform sends, or the base64 by itself, line breaks allowed.
fn sealed_part(input: &[u8]) -> anyhow::Result<String> {
    let text = std::str::from_utf8(input).context("stdin is not UTF-8 text")?.trim();
    if !text.starts_with('{') {
        return Ok(text.split_ascii_whitespace().collect());
    }
    let object: serde_json::Value = serde_json::from_str(text).context("stdin is not one JSON object")?;
    match object.get("encrypt").and_then(|sealed| sealed.as_str()) {
        Some(sealed) => Ok(sealed.to_owned()),
        None => Err(anyhow!("the JSON object on stdin has no text `encrypt`; it may be a plain callback")),
    }
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read stdin")?;
    Ok(bytes)
}

/// The keys to work with; at least one.
fn keys(arguments: &KeyArguments, loaded: &Loaded) -> Result<Vec<Secret>, Failure> {
    if let Some(path) = &arguments.key_file {
        return Ok(vec![secret_from(path, "--key-file")?]);
    }
    if arguments.endpoint.is_none()
        && let Some(key) = std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty())
    {
        return Ok(vec![Secret::new(key)]);
    }
    let endpoint = choose(loaded.endpoints()?, arguments.endpoint.as_deref())?;
    let keys: Vec<_> =
        endpoint.credentials.iter().filter_map(|credential| credential.action_callback_key.clone()).collect();
    if keys.is_empty() {
        return Err(Failure::Usage(format!("the endpoint {} has no action_callback_key", endpoint.name)));
    }
    Ok(keys)
}

/// Reads a secret from a file that a flag names.
pub(super) fn secret_from(path: &std::path::Path, flag: &str) -> Result<Secret, Failure> {
    let wrong = |problem: &str| Failure::Usage(format!("{flag} {}: {problem}", path.display()));
    let secret = read_secret(path).map_err(|problem| wrong(&problem))?;
    if secret.is_empty() { Err(wrong("is empty")) } else { Ok(secret) }
}

/// The endpoint with this name, or the only one.
pub(super) fn choose<'e>(
    endpoints: &'e [EndpointSettings],
    name: Option<&str>,
) -> Result<&'e EndpointSettings, Failure> {
    let names = || endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, endpoints) {
        (_, []) => {
            Err(Failure::Usage("no endpoint is configured; see `countersign config check`".to_owned()))
        }
        (Some(name), _) => endpoints.iter().find(|endpoint| endpoint.name == name).ok_or_else(|| {
            Failure::Usage(format!("no endpoint {name:?} is configured; there are: {}", names()))
        }),
        (None, [endpoint]) => Ok(endpoint),
        (None, _) => Err(Failure::Usage(format!("say which --endpoint: {}", names()))),
    }
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    bytes
}

pub(super) fn keygen(arguments: &KeygenArguments) -> Result<Exit, Failure> {
    // 256 bits each, in letters that need no escaping in TOML, JSON, a shell or a URL.
    let [token, key] = [(); 2].map(|()| URL_SAFE_NO_PAD.encode(random::<32>()));
    if arguments.json {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_and_no_two_are_alike() {
        let key = Secret::new("审批密钥-demo");
        let (one, two) = (seal(&key, b"hello"), seal(&key, b"hello"));
        assert_ne!(one, two);
        assert_eq!(cipher::decrypt(&Key::derive(&key), &one).as_deref(), Some(b"hello".as_slice()));
    }

    #[test]
    fn decrypt_takes_the_object_and_the_bare_base64() {
        for input in
            ["{\"encrypt\":\"QUJD\"}\n", "QUJD", "QU\nJD\n", " { \"other\": 1, \"encrypt\": \"QUJD\" }"]
        {
            assert_eq!(sealed_part(input.as_bytes()).unwrap(), "QUJD");
        }
        for input in ["{\"token\":\"hush\"}", "{\"encrypt\":5}", "{"] {
            let error = format!("{:#}", sealed_part(input.as_bytes()).unwrap_err());
            assert!(!error.contains("hush"), "{error}");
        }
        assert!(sealed_part(&[0xff]).is_err());
    }
}
