//! `admin.tokens`: who may use the API, and for what.

use super::{read::Section, secrets::Kind};
use crate::{
    console::access::{ADMIN, LOOPBACK, NamedToken, Role},
    secret::Secret,
};

/// Names that acts give to others than the holders of these tokens.
const TAKEN_NAMES: [&str; 2] = [ADMIN, LOOPBACK];

/// The named tokens. `one` is the token without a name.
pub(super) fn tokens(section: &mut Section<'_, '_, '_>, one: Option<&Secret>) -> Option<Vec<NamedToken>> {
    let tokens = section.tables("tokens", named_token)?;
    let mut sound = true;
    for (index, token) in tokens.iter().enumerate() {
        let before = &tokens[..index];
        if let Some(twin) = before.iter().position(|other| other.name == token.name) {
            section.fault(
                "tokens",
                format!("[{index}] has the name of [{twin}]"),
                "a name for each, by which acts name it",
            );
            sound = false;
        }
        let twin = before.iter().position(|other| other.token.equals(token.token.expose()));
        let twin = twin.map(|twin| format!("[{twin}]"));
        let is_one = one.is_some_and(|one| one.equals(token.token.expose()));
        if let Some(twin) = twin.or_else(|| is_one.then(|| "admin.token".to_owned())) {
            section.fault(
                "tokens",
                format!("[{index}] has the token of {twin}"),
                "a token for each: `countersign keygen` makes one",
            );
            sound = false;
        }
    }
    sound.then_some(tokens)
}

fn named_token(section: &mut Section<'_, '_, '_>) -> Option<NamedToken> {
    let expected = "1 to 64 of a-z, 0-9, ., _ and -";
    let name = section.required("name", expected, |text| {
        let fits = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
        };
        if TAKEN_NAMES.contains(&text) {
            return Err("is what acts call others".to_owned());
        }
        let is_name = (1..=64).contains(&text.len()) && text.bytes().all(fits);
        if is_name { Ok(text.to_owned()) } else { Err("is not a name".to_owned()) }
    });
    let role = section.required("role", "read, operate or register", |text| {
        text.parse::<Role>().map_err(|_| "is no role".to_owned())
    });
    let token = section.secret("token", "token_file", Kind::Chosen);
    if matches!(token, Some(None)) {
        section.fault("token", "is missing", "the token; `countersign keygen` makes one");
    }
    Some(NamedToken { name: name?, role: role?, token: token?? })
}
