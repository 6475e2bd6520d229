//! Checks whether a definition fits the endpoint it should point at. Each check states the problem and the fix.

use strum::IntoStaticStr;

use crate::{center::client::Definition, intake::EndpointSettings, loopback};

#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(in crate::cli) enum CheckResult {
    #[strum(serialize = "ok")]
    Right,
    /// Works, but may surprise.
    Risky,
    Wrong,
    /// Not checked; the text states why.
    #[strum(serialize = "-")]
    Skipped,
}

impl CheckResult {
    pub(in crate::cli) fn as_str(self) -> &'static str {
        self.into()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Check {
    pub(in crate::cli) subject: &'static str,
    pub(in crate::cli) result: CheckResult,
    pub(in crate::cli) words: String,
}

/// Additional inputs besides definition and endpoint.
pub(in crate::cli) struct CheckInput<'a> {
    pub(in crate::cli) real_code: &'a str,
    pub(in crate::cli) public_url: Option<&'a str>,
    /// True if the center runs on this machine, and so can reach local addresses.
    pub(in crate::cli) center_is_local: bool,
}

/// Checks everything that decides whether a callback can be sent, arrives here, and is accepted.
pub(in crate::cli) fn of(
    definition: &Definition,
    endpoint: &EndpointSettings,
    input: &CheckInput<'_>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut add = |subject, result, words: String| checks.push(Check { subject, result, words });
    let external = &definition.external;

    let (result, words) = url(external.action_callback_url.as_deref(), endpoint, input);
    add("action_callback_url", result, words);
    let (result, words) = credentials(definition, endpoint);
    add("token and key", result, words);
    let (result, words) = codes(definition, endpoint, input.real_code);
    add("approval_codes", result, words);
    match external.support_mobile {
        true => add("support_mobile", CheckResult::Right, "on".to_owned()),
        false => add(
            "support_mobile",
            CheckResult::Wrong,
            "off, and lists have quick approval buttons on mobile only; set support_mobile = true".to_owned(),
        ),
    }
    match external.allow_batch_operate {
        false => add("allow_batch_operate", CheckResult::Right, "off: one decision at a time".to_owned()),
        true => add(
            "allow_batch_operate",
            CheckResult::Risky,
            "on: each task of a batch comes as a callback of its own, many at once; workers must stand that"
                .to_owned(),
        ),
    }
    if definition.viewers.is_empty() {
        add(
            "viewers",
            CheckResult::Risky,
            "nobody: the definition is on nobody's start page; add viewers if it should be".to_owned(),
        );
    }
    let (result, words) = texts(definition);
    add("i18n_resources", result, words);
    add(
        "buttons",
        CheckResult::Skipped,
        "not looked at: each task needs action_configs, and each card action_configs with next_status"
            .to_owned(),
    );
    checks
}

/// True if the URL names this machine.
pub(in crate::cli) fn is_local(url: &str) -> bool {
    url.parse().is_ok_and(|url| loopback::is_url(&url))
}

fn is_private(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(ip)) => ip.is_private() || ip.is_link_local(),
        Ok(std::net::IpAddr::V6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => !host.contains('.'),
    }
}

fn url(given: Option<&str>, endpoint: &EndpointSettings, input: &CheckInput<'_>) -> (CheckResult, String) {
    let path = format!("/callbacks/{}", endpoint.name);
    let wanted = input.public_url.map(|url| format!("{}{path}", url.trim_end_matches('/')));
    let set = |url: &str| format!("set it to {url}");
    let advice = set(wanted.as_deref().unwrap_or(&format!("https://YOUR-HOST{path}")));
    let Some(given) = given else {
        return (CheckResult::Wrong, format!("is missing, so that decisions go nowhere; {advice}"));
    };
    let Ok(url) = given.parse::<reqwest::Url>() else {
        return (CheckResult::Wrong, format!("{given} is not a URL; {advice}"));
    };
    if !matches!(url.scheme(), "http" | "https") {
        return (CheckResult::Wrong, format!("{given} is neither http:// nor https://; {advice}"));
    }
    if !url.path().ends_with(&path) {
        return (CheckResult::Wrong, format!("{given} is not the path {path} of this endpoint; {advice}"));
    }
    if let Some(wanted) = wanted.filter(|wanted| wanted != given) {
        return (CheckResult::Wrong, format!("{given} is not {wanted}; {advice}"));
    }
    if !input.center_is_local && (is_local(given) || is_private(&url)) {
        return (
            CheckResult::Wrong,
            format!("{given} cannot be reached from the platform's cloud; {advice}"),
        );
    }
    if url.scheme() == "http" && !input.center_is_local {
        let words = "is not encrypted on the way: anyone who reads it on the line can send it again, and without \
                     action_callback_key can read the token; use https";
        return (CheckResult::Risky, format!("{given} {words}"));
    }
    if url.path() != path {
        return (CheckResult::Risky, format!("{given}: a proxy must cut off what stands before {path}"));
    }
    (CheckResult::Right, given.to_owned())
}

fn credentials(definition: &Definition, endpoint: &EndpointSettings) -> (CheckResult, String) {
    let external = &definition.external;
    let name = &endpoint.name;
    let Some(token) = &external.action_callback_token else {
        return (
            CheckResult::Wrong,
            "action_callback_token is missing, so that callbacks prove nothing and are refused; set it"
                .to_owned(),
        );
    };
    let same = |one: &Option<crate::secret::Secret>, other: &Option<crate::secret::Secret>| match (one, other)
    {
        (None, None) => true,
        (Some(one), Some(other)) => one.equals(other.expose()),
        _ => false,
    };
    let mut with_token = endpoint
        .credentials
        .iter()
        .enumerate()
        .filter(|(_, ours)| ours.action_callback_token.equals(token.expose()));
    let key = &external.action_callback_key;
    let Some((first, ours)) = with_token.next() else {
        return (
            CheckResult::Wrong,
            format!(
                "action_callback_token is none of those of the endpoint {name}; set one of the two to the other"
            ),
        );
    };
    let fits = std::iter::once((first, ours))
        .chain(with_token)
        .find(|(_, ours)| same(&ours.action_callback_key, key));
    match (fits, key, &ours.action_callback_key) {
        (Some((0, _)), ..) => (CheckResult::Right, format!("those of the endpoint {name}")),
        (Some((at, _)), ..) => (
            CheckResult::Risky,
            format!(
                "those of credential {} of the endpoint {name}: an old one while rotating, to be replaced",
                at + 1
            ),
        ),
        (None, None, _) => (
            CheckResult::Wrong,
            format!(
                "action_callback_key is missing, and the endpoint {name} takes encrypted callbacks only; set it"
            ),
        ),
        (None, Some(_), None) => (
            CheckResult::Wrong,
            format!(
                "there is an action_callback_key, and the endpoint {name} has none; add it to its credentials"
            ),
        ),
        (None, Some(_), Some(_)) => (
            CheckResult::Wrong,
            format!(
                "action_callback_key is not that of the endpoint {name}, which cannot open its callbacks; set one of the two to the other"
            ),
        ),
    }
}

fn codes(definition: &Definition, endpoint: &EndpointSettings, real: &str) -> (CheckResult, String) {
    let allowed = |code: &str| endpoint.approval_codes.iter().any(|allowed| allowed == code);
    let custom = definition.approval_code.as_str();
    if endpoint.approval_codes.is_empty() {
        return (CheckResult::Right, "the endpoint takes every definition".to_owned());
    }
    match (allowed(real), allowed(custom)) {
        (true, true) => (CheckResult::Right, "both codes are allowed".to_owned()),
        (false, false) => (
            CheckResult::Wrong,
            format!("neither {real} nor {custom} is allowed; add both to the endpoint's approval_codes"),
        ),
        // It is undocumented which of the two codes a callback contains (Q6).
        (true, false) => (
            CheckResult::Risky,
            format!("{custom} is not allowed; which of its two codes comes is not known: add it"),
        ),
        (false, true) => (
            CheckResult::Risky,
            format!("{real} is not allowed; which of its two codes comes is not known: add it"),
        ),
    }
}

fn texts(definition: &Definition) -> (CheckResult, String) {
    let Some(default) = definition.i18n_resources.iter().find(|resource| resource.is_default) else {
        return (
            CheckResult::Risky,
            "no language is the default one; set is_default for one that has every key".to_owned(),
        );
    };
    // The platform accepts any text as a locale but then never finds it (platform.md#definitions).
    if let Some(resource) = definition.i18n_resources.iter().find(|resource| !resource.locale.contains('-')) {
        return (
            CheckResult::Risky,
            format!("the locale {:?} is never shown; it is written like zh-CN", resource.locale),
        );
    }
    let keys = [
        Some(&definition.approval_name),
        definition.group_name.as_ref(),
        definition.external.biz_name.as_ref(),
    ];
    let missing = keys
        .into_iter()
        .flatten()
        .find(|key| key.starts_with("@i18n@") && !default.texts.iter().any(|text| text.key == **key));
    match missing {
        Some(key) => (
            CheckResult::Risky,
            format!("the default language has no {key}, which is shown as it stands; add it"),
        ),
        None => (CheckResult::Right, format!("{} has every key", default.locale)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        center::client::External,
        config::{Sources, load},
        secret::Secret,
    };

    fn endpoints(more: &str) -> Vec<EndpointSettings> {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[[endpoints]]\nname = \"purchase\"\n{more}\n");
        std::fs::write(dir.path().join("countersign.toml"), text).unwrap();
        let loaded = load(&Sources { directory: dir.path().to_owned(), ..Sources::default() });
        loaded.endpoints().unwrap().to_vec()
    }

    const ENCRYPTED: &str = r#"credentials = [
        { action_callback_token = "fake-new-of-so-many-bytes", action_callback_key = "fake-key-new-of-so-many-bytes" },
        { action_callback_token = "fake-old-of-so-many-bytes", action_callback_key = "fake-key-old-of-so-many-bytes" } ]"#;

    fn sound() -> Definition {
        let text = serde_json::json!({
            "approval_name": "@i18n@1", "approval_code": "PO", "viewers": [{ "viewer_type": "TENANT" }],
            "external": {
                "support_mobile": true, "action_callback_url": "https://hook.example.com/callbacks/purchase",
                "action_callback_token": "fake-new-of-so-many-bytes", "action_callback_key": "fake-key-new-of-so-many-bytes"
            },
            "i18n_resources": [{ "locale": "zh-CN", "is_default": true,
                "texts": [{ "key": "@i18n@1", "value": "采购" }] }]
        });
        serde_json::from_value(text).unwrap()
    }

    const CLOUD: CheckInput<'_> = CheckInput { real_code: "REAL", public_url: None, center_is_local: false };

    fn said(definition: &Definition, endpoint: &str, input: &CheckInput<'_>) -> Vec<String> {
        of(definition, &endpoints(endpoint)[0], input)
            .into_iter()
            .filter(|check| !matches!(check.result, CheckResult::Right | CheckResult::Skipped))
            .map(|check| format!("{} {}: {}", check.result.as_str(), check.subject, check.words))
            .collect()
    }

    #[track_caller]
    fn says(change: impl FnOnce(&mut External), expected: &str) {
        let mut definition = sound();
        change(&mut definition.external);
        let said = said(&definition, ENCRYPTED, &CLOUD);
        assert!(said.len() == 1 && said[0].starts_with(expected), "{expected:?} is not {said:#?}");
        assert!(!said[0].contains("fake"), "{said:?}");
    }

    #[test]
    fn a_definition_that_fits_has_nothing_to_fix() {
        assert_eq!(said(&sound(), ENCRYPTED, &CLOUD), Vec::<String>::new());
        let plain =
            "plain = true\ncredentials = [ { action_callback_token = \"fake-new-of-so-many-bytes\" } ]";
        let mut definition = sound();
        definition.external.action_callback_key = None;
        assert_eq!(said(&definition, plain, &CLOUD), Vec::<String>::new());
    }

    #[test]
    fn what_the_definition_does_not_tell_is_not_said_to_be_right() {
        let checks = of(&sound(), &endpoints(ENCRYPTED)[0], &CLOUD);
        let buttons = checks.iter().find(|check| check.subject == "buttons").unwrap();
        assert_eq!((buttons.result, buttons.result.as_str()), (CheckResult::Skipped, "-"));
    }

    #[test]
    fn each_thing_that_keeps_callbacks_away_is_told() {
        let to = |url: &'static str| {
            move |external: &mut External| external.action_callback_url = Some(url.to_owned())
        };
        says(|external| external.action_callback_url = None, "wrong action_callback_url: is missing");
        says(to("hook.example.com"), "wrong action_callback_url: hook.example.com is not a URL");
        says(
            to("https://hook.example.com/callbacks/leave"),
            "wrong action_callback_url: https://hook.example.com/callbacks/leave is not the path /callbacks/purchase",
        );
        for away in
            ["http://127.0.0.1:8080", "http://10.0.0.5", "https://localhost", "http://countersign:8080"]
        {
            let url = format!("{away}/callbacks/purchase");
            says(
                |external| external.action_callback_url = Some(url.clone()),
                &format!("wrong action_callback_url: {url} cannot be reached"),
            );
        }
        says(
            to("http://hook.example.com/callbacks/purchase"),
            "risky action_callback_url: http://hook.example.com",
        );
        says(
            |external| external.action_callback_token = None,
            "wrong token and key: action_callback_token is missing",
        );
        says(
            |external| external.action_callback_token = Some(Secret::new("fake-other")),
            "wrong token and key: action_callback_token is none of those of the endpoint purchase",
        );
        says(
            |external| external.action_callback_key = Some(Secret::new("fake-other")),
            "wrong token and key: action_callback_key is not that of the endpoint purchase",
        );
        says(
            |external| external.action_callback_key = None,
            "wrong token and key: action_callback_key is missing",
        );
        says(|external| external.support_mobile = false, "wrong support_mobile: off");
        says(|external| external.allow_batch_operate = true, "risky allow_batch_operate: on");
    }

    #[test]
    fn token_and_key_of_two_credentials_do_not_make_one() {
        says(
            |external| external.action_callback_key = Some(Secret::new("fake-key-old-of-so-many-bytes")),
            "wrong token and key: action_callback_key is not that",
        );
        says(
            |external| {
                external.action_callback_token = Some(Secret::new("fake-old-of-so-many-bytes"));
                external.action_callback_key = Some(Secret::new("fake-key-old-of-so-many-bytes"));
            },
            "risky token and key: those of credential 2",
        );
    }

    #[test]
    fn the_public_url_is_compared_and_the_allow_list_wants_both_codes() {
        let input = CheckInput { public_url: Some("https://other.example.com/"), ..CLOUD };
        let told = said(&sound(), ENCRYPTED, &input);
        assert!(told[0].contains("set it to https://other.example.com/callbacks/purchase"), "{told:?}");
        for (codes, expected) in [
            ("[\"PO\", \"REAL\"]", None),
            ("[\"PO\"]", Some("risky approval_codes: REAL is not allowed")),
            ("[\"REAL\"]", Some("risky approval_codes: PO is not allowed")),
            ("[\"X\"]", Some("wrong approval_codes: neither REAL nor PO")),
        ] {
            let told = said(&sound(), &format!("approval_codes = {codes}\n{ENCRYPTED}"), &CLOUD);
            assert_eq!(told.len(), usize::from(expected.is_some()), "{told:?}");
            assert!(expected.is_none_or(|expected| told[0].starts_with(expected)), "{told:?}");
        }
    }

    #[test]
    fn the_emulator_may_reach_this_machine() {
        let mut definition = sound();
        definition.external.action_callback_url = Some("http://127.0.0.1:8080/callbacks/purchase".to_owned());
        let input = CheckInput { center_is_local: true, ..CLOUD };
        assert_eq!(said(&definition, ENCRYPTED, &input), Vec::<String>::new());
    }
}
