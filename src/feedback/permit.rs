//! Checks reports on instances: a worker may only report on its own command.
//!
//! Countersign synchronises with the permissions of its app, which cover every instance of the tenant. Reports are
//! therefore checked against their command:
//!
//! 1. **The instance** is the one that the command names. Another one is allowed only if the endpoint lists it
//!    ([`Rules::instances`]), for contexts that name no instance.
//! 2. **The definition** is the one that the command names, or one that the endpoint lists ([`Rules::approval_codes`]):
//!    callbacks may carry the custom code, or none, while the instance needs the real one. If neither names a
//!    definition, only the instance is checked. The platform lets no one change an instance's definition.
//! 3. **Trusteeship** is not allowed: the platform would send decisions to an address chosen by the worker.
//! 4. **Links** lead to hosts that the endpoint lists ([`Rules::link_hosts`]), if it lists any.
//!
//! Data that is not an instance passes: the center never gets it, and the showing is parked with the reason.

use regex::Regex;
use reqwest::Url;

use crate::{
    center::client::{ExternalInstance, Links},
    command::outcome::Instance,
};

/// What an endpoint's workers may report, in addition to what their command names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Definitions of permitted instances, by any of their codes.
    pub approval_codes: Vec<String>,
    /// Instances permitted although the command names another one, or none.
    pub instances: Option<Pattern>,
    /// Permitted hosts of links: a name, or `*.` and a name for all subdomains. Empty: any host.
    pub link_hosts: Vec<String>,
}

/// A regular expression that must match a whole text.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// # Errors
    /// The expression is invalid.
    pub fn parse(text: &str) -> Result<Self, regex::Error> {
        // Parsed alone first, so that it cannot close the group around it.
        Regex::new(text)?;
        Regex::new(&format!("^(?:{text})$")).map(Self)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// The parts of a command that its reports are checked against.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Named<'a> {
    pub(super) instance_id: Option<&'a str>,
    pub(super) approval_code: Option<&'a str>,
}

/// Why a report is refused. The texts quote the worker, escaped and truncated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotPermitted {
    #[error(
        "it names the instance {0}, not the one of its command; endpoints.outcomes.instance_pattern can \
         permit others"
    )]
    OtherInstance(String),
    #[error(
        "it names the instance {0}, but its command names none; endpoints.outcomes.instance_pattern can permit some"
    )]
    NoInstance(String),
    #[error(
        "it names the definition {0}, not the one of its command; add it to \
         endpoints.outcomes.approval_codes if it is the real code of the same definition"
    )]
    OtherDefinition(String),
    #[error("its instance has {0}: a worker may not set where the platform sends decisions")]
    Trusteeship(String),
    #[error("{place} points to {link}, which is not in endpoints.outcomes.link_hosts")]
    Link { place: &'static str, link: String },
}

/// Maximum characters quoted from a worker.
const QUOTED_CHARS: usize = 100;

fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(QUOTED_CHARS).collect();
    format!("{cut:?}")
}

/// Checks whether a worker that reports on a command may have this instance synchronised.
pub(super) fn check(instance: &Instance, command: Named<'_>, rules: &Rules) -> Result<(), NotPermitted> {
    let Ok(sent) = serde_json::from_str::<ExternalInstance>(instance.json.get()) else { return Ok(()) };
    check_instance(&sent, command, rules)?;
    check_definition(&sent, command, rules)?;
    check_trusteeship(&sent)?;
    check_links(&sent, rules)
}

fn check_instance(sent: &ExternalInstance, command: Named<'_>, rules: &Rules) -> Result<(), NotPermitted> {
    let id = &*sent.instance_id;
    let listed = rules.instances.as_ref().is_some_and(|pattern| pattern.0.is_match(id));
    match command.instance_id {
        Some(own) if own == id => Ok(()),
        _ if listed => Ok(()),
        Some(_) => Err(NotPermitted::OtherInstance(quoted(id))),
        None => Err(NotPermitted::NoInstance(quoted(id))),
    }
}

fn check_definition(sent: &ExternalInstance, command: Named<'_>, rules: &Rules) -> Result<(), NotPermitted> {
    let code = &*sent.approval_code;
    let unknown = command.approval_code.is_none() && rules.approval_codes.is_empty();
    let own = command.instance_id == Some(&*sent.instance_id);
    let permitted = command.approval_code == Some(code)
        || rules.approval_codes.iter().any(|listed| listed == code)
        || (unknown && own);
    if permitted { Ok(()) } else { Err(NotPermitted::OtherDefinition(quoted(code))) }
}

fn check_trusteeship(sent: &ExternalInstance) -> Result<(), NotPermitted> {
    let known = [
        ("trusteeship_url_token", sent.trusteeship_url_token.is_some()),
        ("trusteeship_user_id_type", sent.trusteeship_user_id_type.is_some()),
        ("trusteeship_urls", sent.trusteeship_urls.is_some()),
        ("trusteeship_cache_config", sent.trusteeship_cache_config.is_some()),
    ];
    let known = known.into_iter().filter(|(_, there)| *there).map(|(name, _)| name);
    let unknown = sent.unknown.keys().map(String::as_str).filter(|name| name.starts_with("trusteeship_"));
    known.chain(unknown).next().map_or(Ok(()), |name| Err(NotPermitted::Trusteeship(quoted(name))))
}

fn check_links(sent: &ExternalInstance, rules: &Rules) -> Result<(), NotPermitted> {
    if rules.link_hosts.is_empty() {
        return Ok(());
    }
    let own = [("a link of the instance", &sent.links)].into_iter();
    let tasks = sent.task_list.iter().map(|task| ("a link of a task", &task.links));
    let carbons = sent.cc_list.iter().map(|carbon| ("a link of a carbon copy", &carbon.links));
    for (place, Links { pc_link, mobile_link }) in own.chain(tasks).chain(carbons) {
        for link in [pc_link, mobile_link].into_iter().flatten() {
            if !leads_to(link, &rules.link_hosts) {
                return Err(NotPermitted::Link { place, link: quoted(link) });
            }
        }
    }
    Ok(())
}

/// True if every client that opens this link reaches one of the hosts. Links that clients may parse differently are
/// false.
fn leads_to(link: &str, hosts: &[String]) -> bool {
    if link.contains('\\') || link.chars().any(|char| char.is_whitespace() || char.is_control()) {
        return false;
    }
    let Ok(url) = Url::parse(link) else { return false };
    let plain =
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    let Some(host) = url.host_str().filter(|_| plain) else { return false };
    let host = host.to_ascii_lowercase();
    hosts.iter().any(|listed| {
        let listed = listed.to_ascii_lowercase();
        match listed.strip_prefix('*') {
            // `*.example.com` matches names that end in `.example.com` and have something before it.
            Some(below) => host.len() > below.len() && host.ends_with(below),
            None => host == listed,
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn instance(change: impl FnOnce(&mut Value)) -> Instance {
        let mut value = json!({
            "approval_code": "REAL", "instance_id": "PO-77", "status": "APPROVED",
            "links": { "pc_link": "https://erp.example.com/po/77" },
            "task_list": [{ "task_id": "n1", "links": { "mobile_link": "https://m.erp.example.com/77" } }],
            "cc_list": [{ "cc_id": "c", "links": { "pc_link": "https://erp.example.com/cc" } }],
        });
        change(&mut value);
        Instance::of(serde_json::value::to_raw_value(&value).unwrap()).unwrap()
    }

    const OWN: Named<'_> = Named { instance_id: Some("PO-77"), approval_code: Some("REAL") };

    fn checked(
        change: impl FnOnce(&mut Value),
        command: Named<'_>,
        rules: &Rules,
    ) -> Result<(), NotPermitted> {
        check(&instance(change), command, rules)
    }

    #[test]
    fn a_worker_speaks_of_the_instance_and_the_definition_of_its_command_and_of_no_other() {
        let strict = Rules::default();
        assert_eq!(checked(|_| {}, OWN, &strict), Ok(()));
        let other = checked(|it| it["instance_id"] = json!("SALARY-1"), OWN, &strict);
        assert_eq!(other, Err(NotPermitted::OtherInstance("\"SALARY-1\"".to_owned())));
        let other = checked(|it| it["approval_code"] = json!("SALARY"), OWN, &strict);
        assert_eq!(other, Err(NotPermitted::OtherDefinition("\"SALARY\"".to_owned())));
        // A card's callback names neither; a context may name the instance.
        let card = Named { instance_id: Some("PO-77"), approval_code: None };
        assert_eq!(checked(|_| {}, card, &strict), Ok(()));
        let nothing = checked(|_| {}, Named::default(), &strict);
        assert_eq!(nothing, Err(NotPermitted::NoInstance("\"PO-77\"".to_owned())));
    }

    #[test]
    fn an_endpoint_may_list_what_else_its_workers_may_speak_of() {
        let codes = Rules { approval_codes: vec!["REAL".to_owned()], ..Rules::default() };
        let custom = Named { approval_code: Some("PO_APPROVAL"), ..OWN };
        assert_eq!(checked(|_| {}, custom, &codes), Ok(()), "the callback has the custom code");
        assert!(checked(|it| it["approval_code"] = json!("SALARY"), custom, &codes).is_err());

        let instances = Some(Pattern::parse("PO-[0-9]+").unwrap());
        let both = Rules { instances: instances.clone(), ..codes };
        assert_eq!(checked(|_| {}, Named::default(), &both), Ok(()));
        for id in ["SALARY-1", "PO-77x", "xPO-77", "PO-77\n"] {
            let other = checked(|it| it["instance_id"] = json!(id), Named::default(), &both);
            assert!(other.is_err(), "{id:?}");
        }
        // If nothing names a definition, an instance that the command does not name is refused.
        let alone = Rules { instances, ..Rules::default() };
        assert!(checked(|_| {}, Named::default(), &alone).is_err());
    }

    #[test]
    fn a_pattern_is_for_the_whole_text_and_cannot_break_out() {
        let either = Pattern::parse("a|b").unwrap();
        assert!(either.0.is_match("a") && !either.0.is_match("ax") && !either.0.is_match("xb"));
        assert!(Pattern::parse("a)|(?:.*").is_err());
    }

    #[test]
    fn nobody_says_where_the_platform_sends_decisions() {
        for (member, value) in [
            ("trusteeship_url_token", json!("fake-token")),
            ("trusteeship_user_id_type", json!("user_id")),
            ("trusteeship_urls", json!({ "action_callback_url": "https://evil.example.net" })),
            ("trusteeship_cache_config", json!({})),
            ("trusteeship_new", json!(1)),
        ] {
            let refused = checked(|it| it[member] = value, OWN, &Rules::default()).unwrap_err();
            assert_eq!(refused, NotPermitted::Trusteeship(format!("\"{member}\"")));
            assert!(!refused.to_string().contains("fake-token"));
        }
    }

    #[test]
    fn links_lead_to_the_hosts_that_are_listed_if_any_are() {
        let listed = Rules {
            link_hosts: vec!["erp.example.com".to_owned(), "*.ERP.example.com".to_owned()],
            ..Rules::default()
        };
        assert_eq!(checked(|_| {}, OWN, &listed), Ok(()));
        for link in [
            "https://evil.example.net/po/77",
            "https://erp.example.com.evil.example.net/",
            "https://evilerp.example.com/",
            "https://erp.example.com@evil.example.net/",
            "https://user:pass@erp.example.com/",
            "https://evil.example.net\\@erp.example.com/",
            "https:erp.example.com\t.evil.example.net",
            "javascript:alert(1)",
            "//evil.example.net/x",
            "/po/77",
            "lark://erp.example.com/",
        ] {
            for place in ["/links/pc_link", "/task_list/0/links/mobile_link", "/cc_list/0/links/pc_link"] {
                let refused = checked(|it| *it.pointer_mut(place).unwrap() = json!(link), OWN, &listed);
                assert!(matches!(refused, Err(NotPermitted::Link { .. })), "{place} {link}");
                let unlisted =
                    checked(|it| *it.pointer_mut(place).unwrap() = json!(link), OWN, &Rules::default());
                assert_eq!(unlisted, Ok(()), "nothing is listed");
            }
        }
        for link in ["https://ERP.example.com:8443/x?y#z", "http://erp.example.com"] {
            let own = checked(|it| it["links"]["pc_link"] = json!(link), OWN, &listed);
            assert_eq!(own, Ok(()), "{link}");
        }
    }

    #[test]
    fn what_a_worker_wrote_is_quoted_cut_and_escaped() {
        let long = format!("\u{1b}[2J{}", "x".repeat(1000));
        let refused = checked(|it| it["instance_id"] = json!(long), OWN, &Rules::default()).unwrap_err();
        let text = refused.to_string();
        assert!(text.len() < 400 && !text.contains('\u{1b}'), "{text}");
    }
}
