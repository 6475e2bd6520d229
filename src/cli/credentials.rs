//! Endpoints, keys and random bytes for the commands that encrypt, decrypt or send callbacks.

use crate::{
    callback::cipher::{self, BLOCK_BYTES, Key},
    config::read_secret,
    intake::EndpointSettings,
    secret::Secret,
};

use super::exit::Failure;

/// The body of a callback, encrypted like the platform's, with a fresh IV.
pub(super) fn envelope(key: &Secret, plain: &[u8]) -> String {
    cipher::envelope(&Key::derive(key), random::<BLOCK_BYTES>(), plain)
}

/// Reads a secret from the file that a flag names.
pub(super) fn secret_from(path: &std::path::Path, flag: &str) -> Result<Secret, Failure> {
    let wrong = |problem: &str| Failure::Usage(format!("{flag} {}: {problem}", path.display()));
    let secret = read_secret(path).map_err(|problem| wrong(&problem))?;
    if secret.is_empty() { Err(wrong("is empty")) } else { Ok(secret) }
}

/// Returns the named endpoint, or the only one.
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
        (None, _) => Err(Failure::Usage(format!("name one with --endpoint: {}", names()))),
    }
}

/// Cryptographically secure random bytes.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    bytes
}
