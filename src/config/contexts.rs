//! How an endpoint parses contexts.

use std::time::Duration;

use super::{
    read::{Given, Section, list_of},
    secrets::Kind,
    values::not_empty,
};
use crate::context::{
    self, Format, JsonFields, OnUnresolved,
    jwt::{Demands, KeySettings, Keys, Requirement},
    pattern::{Over, Pattern},
};

const FORMATS: &str = "opaque, json, pattern, jwt, registry, or a list of them";

/// Clocks of machines that use NTP differ by less.
const LONGEST_LEEWAY: Duration = Duration::from_secs(3600);

/// Values of the keys next to `format`. All are read, even if no format uses them.
struct Details {
    fields: Option<JsonFields>,
    pattern: Given<Pattern>,
    keys: Option<Option<Keys>>,
}

pub(super) fn context(section: &mut Section<'_, '_, '_>) -> Option<context::Settings> {
    let names = section.text_or_texts("format", FORMATS);
    let on_unresolved = section
        .one_of("on_unresolved", &[("publish", OnUnresolved::Publish), ("refuse", OnUnresolved::Refuse)]);
    let details = Details {
        fields: section.table("fields", json_fields),
        pattern: pattern(section),
        keys: section.table("jwt", jwt),
    };
    let names = names?;
    if names.is_empty() {
        section.fault("format", "is empty", FORMATS);
        return None;
    }
    let (mut formats, mut sound) = (Vec::with_capacity(names.len()), true);
    for name in &names {
        match format(section, name, &details) {
            Some(format) => formats.push(format),
            None => sound = false,
        }
    }
    for (key, format) in
        [("fields", "json"), ("pattern", "pattern"), ("pattern_over", "pattern"), ("jwt", "jwt")]
    {
        if section.is_set(key) && !names.iter().any(|name| name == format) {
            section.warn(key, format!("has no effect, because format is not {format}"));
        }
    }
    let signed_only = !names.is_empty() && names.iter().all(|name| name == "jwt" || name == "registry");
    if signed_only && on_unresolved == Some(OnUnresolved::Publish) {
        section.warn(
            "on_unresolved",
            "publish, so a callback whose context is not of the third party's making is published too, as unresolved",
        );
    }
    let settings = context::Settings { formats: sound.then_some(formats)?, on_unresolved: on_unresolved? };
    for (format, lack) in settings.replayable() {
        section.warn("format", format!("{format}: {lack}"));
    }
    Some(settings)
}

/// `None` if the format cannot be used; a fault gives the reason.
fn format(section: &mut Section<'_, '_, '_>, name: &str, details: &Details) -> Option<Format> {
    match name {
        "opaque" => Some(Format::Opaque),
        "registry" => Some(Format::Registry),
        "json" => match &details.fields {
            Some(fields) if fields.task_id.is_none() && fields.instance_id.is_none() => {
                section.fault(
                    "fields",
                    "json needs to know where in the context the task is named",
                    "JSON pointers for task_id or instance_id, such as fields = { task_id = \"/task\" }",
                );
                None
            }
            fields => fields.clone().map(Format::Json),
        },
        "pattern" => match &details.pattern {
            Some(None) => {
                section.fault(
                    "pattern",
                    "is missing",
                    "a regular expression with a group named task_id or instance_id",
                );
                None
            }
            pattern => pattern.clone().flatten().map(Format::Pattern),
        },
        "jwt" => match &details.keys {
            Some(None) => {
                section.fault(
                    "jwt",
                    "has no keys",
                    "[[endpoints.context.jwt.keys]] with secret or public_key",
                );
                None
            }
            keys => keys.clone().flatten().map(Format::Jwt),
        },
        _ => {
            section.fault("format", format!("{name:?} is not a format of contexts"), FORMATS);
            None
        }
    }
}

fn pattern(section: &mut Section<'_, '_, '_>) -> Given<Pattern> {
    let words = [("action_context", Over::ActionContext), ("instance_id", Over::InstanceId)];
    let over = section.maybe_one_of("pattern_over", &words)?.unwrap_or(Over::ActionContext);
    section.parsed("pattern", "named groups such as (?P<instance_id>…):(?P<task_id>…)", |text| {
        Pattern::new(text, over).map_err(|error| error.to_string())
    })
}

/// `Some(None)` if no key is set.
fn jwt(section: &mut Section<'_, '_, '_>) -> Option<Option<Keys>> {
    let leeway = if section.is_set("leeway") {
        section.duration("leeway", LONGEST_LEEWAY)
    } else {
        section.know(&["leeway"]);
        Some(Duration::from_secs(60))
    };
    let require = requirements(section);
    let aud = names(section, "aud");
    let iss = names(section, "iss");
    let typ = section.parsed("typ", "a media type such as \"JWT\"", some_text);
    let keys = section.tables("keys", key)?;
    if keys.is_empty() {
        return Some(None);
    }
    let mut sound = true;
    for (index, key) in keys.iter().enumerate() {
        if keys.len() > 1 && key.kid().is_none() {
            section.fault("keys", format!("[{index}] has no kid"), "a kid for each, when there are several");
            sound = false;
        }
        if keys[..index].iter().any(|other| other.kid() == key.kid()) && key.kid().is_some() {
            section.fault("keys", format!("[{index}] has the kid of another"), "a kid of its own");
            sound = false;
        }
    }
    let demands =
        Demands { leeway_seconds: leeway?.as_secs(), require: require?, aud: aud?, iss: iss?, typ: typ? };
    match Keys::new(&keys, demands) {
        Ok(keys) => sound.then_some(Some(keys)),
        Err((index, error)) => {
            section.fault(
                "keys",
                format!("[{index}] {error}"),
                "32 bytes or more, or an Ed25519 PUBLIC KEY in PEM",
            );
            None
        }
    }
}

/// The claims a token must have. They are listed by name, so that a relaxed requirement is visible.
fn requirements(section: &mut Section<'_, '_, '_>) -> Option<Vec<Requirement>> {
    if !section.is_set("require") {
        section.know(&["require"]);
        return Some(Requirement::SAFE.to_vec());
    }
    let known = list_of(Requirement::ALL.iter().copied().map(Requirement::as_str));
    let texts = section.texts("require", &format!("a list of {known}; [] asks for nothing"), |text| {
        match text.parse::<Requirement>() {
            Ok(_) => Ok(()),
            // A jti substitutes for a round.
            Err(_) if text == "jti" => Err("is part of \"round\": either of the two is enough".to_owned()),
            Err(_) => Err("is not a claim that can be asked for".to_owned()),
        }
    })?;
    let require: Vec<_> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    for (wanted, without) in [
        (Requirement::Exp, "a captured token stays valid forever"),
        (Requirement::Round, "a captured callback is accepted again after dedupe_window"),
        (Requirement::Operators, "a captured token can be sent in anybody's name"),
    ] {
        if !require.contains(&wanted) {
            section.warn("require", format!("does not ask for {}: {without}", wanted.claims()));
        }
    }
    Some(require)
}

/// One text or several; empty if absent.
fn names(section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<Vec<String>> {
    if !section.is_set(key) {
        section.know(&[key]);
        return Some(Vec::new());
    }
    let names = section.text_or_texts(key, "a text, or a list of them")?;
    if names.is_empty() || names.iter().any(String::is_empty) {
        section.fault(key, "names nobody", "a text, or a list of them; leave it out not to look at it");
        return None;
    }
    Some(names)
}

fn some_text(text: &str) -> Result<String, String> {
    not_empty(text).map(|()| text.to_owned())
}

fn key(section: &mut Section<'_, '_, '_>) -> Option<KeySettings> {
    let kid = section.parsed("kid", "a short text", some_text);
    let secret = section.secret("secret", "secret_file", Kind::Given);
    let public_key = section.secret("public_key", "public_key_file", Kind::PublicKey);
    let kid = kid?;
    match (secret?, public_key?) {
        (Some(secret), None) => Some(KeySettings::Hs256 { kid, secret }),
        (None, Some(pem)) => Some(KeySettings::EdDsa { kid, public_key: pem.expose().to_owned() }),
        (None, None) => {
            section.fault("secret", "is missing", "secret (HS256) or public_key (EdDSA)");
            None
        }
        (Some(_), Some(_)) => {
            section.fault("secret", "is given with public_key", "one of the two: a key is for one algorithm");
            None
        }
    }
}

fn json_fields(section: &mut Section<'_, '_, '_>) -> Option<JsonFields> {
    let mut pointer = |key: &'static str, whole: bool| {
        let expected = "a JSON pointer (RFC 6901) such as \"/task/id\"";
        section.parsed(key, expected, |text| check_pointer(text, whole).map(|()| text.to_owned()))
    };
    let task_id = pointer("task_id", false);
    let instance_id = pointer("instance_id", false);
    let round = pointer("round", false);
    let business_key = pointer("business_key", false);
    // `data` may be the whole context.
    let data = pointer("data", true);
    Some(JsonFields {
        task_id: task_id?,
        instance_id: instance_id?,
        round: round?,
        business_key: business_key?,
        data: data?,
    })
}

fn check_pointer(text: &str, whole: bool) -> Result<(), String> {
    if text.is_empty() && !whole {
        return Err("points at the whole context, which is no identifier".to_owned());
    }
    if !text.is_empty() && !text.starts_with('/') {
        return Err("does not begin with /".to_owned());
    }
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if escapes { Ok(()) } else { Err("has a ~ that is neither ~0 nor ~1".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_pointer_begins_with_a_slash_and_escapes_its_tildes() {
        for pointer in ["/t", "/a/b/0", "/a~1b~0c", "/", "/采"] {
            assert_eq!(check_pointer(pointer, false), Ok(()), "{pointer}");
        }
        for pointer in ["", "t", "a/b", "/~", "/a~2", "/~~0"] {
            assert!(check_pointer(pointer, false).is_err(), "{pointer}");
        }
        assert_eq!(check_pointer("", true), Ok(()));
    }
}
