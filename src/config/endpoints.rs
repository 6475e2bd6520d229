//! The section `[[endpoints]]`.

use std::{collections::HashMap, ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    center, contexts,
    layers::{Table, Value},
    origin::Origin,
    read::Section,
    secrets::Kind,
    sections::LOCALES,
    values::{duration_within, not_empty},
};
use crate::{
    callback::CredentialSettings,
    center::enrichment,
    command::profile::Profile,
    feedback::Rules,
    intake::{EndpointSettings, LONGEST_WAIT, Locale, PROBE_ACTION, Refusal},
    ledger::OnConflict,
};

/// Possible duplicates are held in memory.
const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Repeats to report are held in memory for at most this long, as space permits.
const LONGEST_REPEATS_WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);

/// A shorter wait hears no worker.
const WAITS: RangeInclusive<Duration> = Duration::from_millis(100)..=LONGEST_WAIT;

/// Old and new, for each of two senders.
const MAX_CREDENTIALS: usize = 4;

/// The expected value if a key is missing.
const NO_KEY: &str = "action_callback_key (without a file COUNTERSIGN_ACTION_CALLBACK_KEY); or plain = true \
    (COUNTERSIGN__ENDPOINTS__0__PLAIN=true), if the approval center has no key either";

/// An endpoint, with the settings that modules other than the intake use for its commands.
pub(super) struct EndpointSection {
    pub(super) settings: EndpointSettings,
    /// Message format of its commands.
    pub(super) profile: Profile,
    /// How its commands are enriched.
    pub(super) enrichment: Option<enrichment::Settings>,
    /// What workers may report about them.
    pub(super) rules: Rules,
}

pub(super) fn endpoint(section: &mut Section<'_, '_, '_>, default: Locale) -> Option<EndpointSection> {
    let expected = "1 to 64 of a-z, 0-9, _ and -, not beginning with _ or -";
    let name = section.required("name", expected, |text| {
        if is_name(text) { Ok(text.to_owned()) } else { Err("cannot be part of the URL as it is".to_owned()) }
    });
    let approval_codes = section.texts("approval_codes", "a list of codes", not_empty);
    let actions = section.texts("actions", "a list such as [\"APPROVE\", \"REJECT\"]", not_empty);
    if let Some(actions) = &actions {
        if actions.is_empty() {
            section.fault(
                "actions",
                "is empty, so every callback would be refused",
                "at least one action type",
            );
        }
        if actions.iter().any(|action| action == PROBE_ACTION) {
            section.fault(
                "actions",
                format!("{PROBE_ACTION:?} is reserved for the probes of `countersign doctor`"),
                "another action type",
            );
        }
        for known in ["APPROVE", "REJECT"] {
            if let Some(other) = actions.iter().find(|a| a.eq_ignore_ascii_case(known) && *a != known) {
                section.warn(
                    "actions",
                    format!("{other:?} is not {known:?}: action types are compared exactly"),
                );
            }
        }
    }
    let locale = section.maybe_one_of("locale", &LOCALES).map(|locale| locale.unwrap_or(default));
    let dedupe_window = section.duration("dedupe_window", LONGEST_WINDOW);
    if dedupe_window.is_some_and(|window| window.is_zero()) {
        section.warn("dedupe_window", "0: a callback that is repeated becomes two commands");
    }
    let repeats_window = section.duration("repeats_window", LONGEST_REPEATS_WINDOW);
    if let (Some(dedupe), Some(repeats)) = (dedupe_window, repeats_window)
        && repeats <= dedupe
    {
        section.warn(
            "repeats_window",
            "is not longer than dedupe_window: nothing tells a captured callback that is sent again after it",
        );
    }
    let on_conflict =
        section.one_of("on_conflict", &[("publish", OnConflict::Publish), ("refuse", OnConflict::Refuse)]);
    // Tables last: TOML requires this order when written.
    let profile = profile(section);
    let credentials = match section.flag("plain") {
        Some(plain) => credentials(section, plain),
        None => None,
    };
    let answer_wait = section.table("answer", |section| {
        let allowed = "\"off\", or \"2s\", \"500ms\", at least \"100ms\" and at most \"4s\"";
        section.required("wait", allowed, |text| {
            if text == "off" { Ok(None) } else { duration_within(text, &WAITS).map(Some) }
        })
    });
    let sentences = section.table("sentences", sentences);
    let context = section.table("context", contexts::context);
    let enrichment = section.table("enrichment", center::enrichment);
    let codes = approval_codes.clone().unwrap_or_default();
    let rules = section.table("outcomes", |section| center::rules(section, &codes));
    let settings = EndpointSettings {
        name: name?,
        approval_codes: approval_codes?,
        credentials: credentials?,
        actions: actions.filter(|actions| !actions.is_empty())?,
        locale: locale?,
        sentences: sentences?,
        dedupe_window: dedupe_window?,
        on_conflict: on_conflict?,
        repeats_window: repeats_window?,
        answer_wait: answer_wait?,
        context: context?,
    };
    Some(EndpointSection { settings, profile: profile?, enrichment: enrichment?, rules: rules? })
}

fn profile(section: &mut Section<'_, '_, '_>) -> Option<Profile> {
    let names = [
        ("plain", Profile::Plain),
        ("cloudevents", Profile::CloudEvents),
        ("cloudevents-binary", Profile::CloudEventsBinary),
        ("celery", Profile::Celery { task: String::new() }),
        ("masstransit", Profile::MassTransit),
    ];
    let profile = section.one_of("profile", &names);
    let name =
        section.required("celery_task", "1 to 255 bytes: the name of the task", |text| match text.len() {
            1..=255 => Ok(text.to_owned()),
            0 => Err("is empty".to_owned()),
            _ => Err("is too long".to_owned()),
        })?;
    match profile? {
        Profile::Celery { .. } => Some(Profile::Celery { task: name }),
        other => Some(other),
    }
}

/// In characters: as much as a phone shows.
const MAX_SENTENCE: usize = 120;

fn sentences(section: &mut Section<'_, '_, '_>) -> Option<HashMap<Refusal, Arc<str>>> {
    let mut sentences = HashMap::new();
    let mut sound = true;
    for refusal in Refusal::OF_AUTHENTICATED {
        let expected = "a sentence for the approver of up to 120 characters";
        let sentence = section.parsed(refusal.as_str(), expected, |text| match text.chars().count() {
            0 => Err("is empty".to_owned()),
            1..=MAX_SENTENCE => Ok(Arc::from(text)),
            _ => Err("is too long for a phone".to_owned()),
        });
        match sentence {
            Some(Some(sentence)) => drop(sentences.insert(refusal, sentence)),
            Some(None) => {}
            None => sound = false,
        }
    }
    sound.then_some(sentences)
}

fn is_name(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 64
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'_' || byte == b'-')
}

fn credentials(section: &mut Section<'_, '_, '_>, plain: bool) -> Option<Vec<CredentialSettings>> {
    let credentials = section.tables("credentials", credential)?;
    let expected = "1 to 4, each with an action_callback_token";
    if credentials.is_empty() {
        section.fault("credentials", "is missing", expected);
        return None;
    }
    let mut sound = true;
    if credentials.len() > MAX_CREDENTIALS {
        section.fault("credentials", format!("there are {}", credentials.len()), expected);
        sound = false;
    }
    let keyed = credentials.iter().filter(|credential| credential.action_callback_key.is_some()).count();
    if keyed == 0 && plain {
        section.warn("plain", "true: callbacks come unencrypted, and anybody who reads one has the token");
    } else if keyed == 0 {
        // Otherwise a misspelt variable would open the endpoint to anybody who has read one callback.
        section.fault(
            "credentials",
            "none has an action_callback_key, so callbacks would be taken unencrypted",
            NO_KEY,
        );
        sound = false;
    } else if plain {
        section.fault(
            "plain",
            "true, and there is an action_callback_key",
            "one of the two: with a key only encrypted callbacks are taken",
        );
        sound = false;
    } else if keyed < credentials.len() {
        section.fault(
            "credentials",
            format!("{keyed} of {} have an action_callback_key", credentials.len()),
            "all or none: one without would accept plain callbacks as well as encrypted ones",
        );
        sound = false;
    }
    for (index, credential) in credentials.iter().enumerate() {
        if let Some(twin) = credentials[..index].iter().position(|other| same(other, credential)) {
            section.fault(
                "credentials",
                format!("[{index}] is the same as [{twin}]"),
                "different ones; one is enough when nothing rotates",
            );
            sound = false;
        }
    }
    sound.then_some(credentials)
}

fn same(left: &CredentialSettings, right: &CredentialSettings) -> bool {
    let key = |credential: &CredentialSettings| credential.action_callback_key.clone();
    left.action_callback_token.equals(right.action_callback_token.expose())
        && match (key(left), key(right)) {
            (None, None) => true,
            (Some(left), Some(right)) => left.equals(right.expose()),
            _ => false,
        }
}

fn credential(section: &mut Section<'_, '_, '_>) -> Option<CredentialSettings> {
    let token = section.secret("action_callback_token", "action_callback_token_file", Kind::Chosen);
    let key = section.secret("action_callback_key", "action_callback_key_file", Kind::Chosen);
    if matches!(token, Some(None)) {
        section.fault("action_callback_token", "is missing", "the token as entered at the approval center");
    }
    Some(CredentialSettings { action_callback_token: token??, action_callback_key: key? })
}

/// Records a fault if an endpoint enables enrichment but the approval center is not configured.
pub(super) fn check_enrichment(root: &mut Section<'_, '_, '_>, tree: &Table, place: usize) {
    let Some(Value::List(list)) = tree.get("endpoints").map(|entry| &entry.value) else { return };
    let Some(Value::Table(endpoint)) = list.get(place).map(|entry| &entry.value) else { return };
    let Some(enrichment) = endpoint.get("enrichment") else { return };
    let fields = match &enrichment.value {
        Value::Table(table) => table.get("fields"),
        _ => None,
    };
    root.fault_of(
        &format!("endpoints[{place}].enrichment.fields"),
        "needs the approval center, which is not configured",
        "[] for nothing, or app_id and app_secret in [approval_center]",
        &fields.unwrap_or(enrichment).origin,
    );
}

/// Reports an endpoint whose answers would wait for reports that nobody takes.
pub(super) fn check_answer(root: &mut Section<'_, '_, '_>, tree: &Table, place: usize) {
    let Some(Value::List(list)) = tree.get("endpoints").map(|entry| &entry.value) else { return };
    let Some(Value::Table(endpoint)) = list.get(place).map(|entry| &entry.value) else { return };
    let Some(answer) = endpoint.get("answer") else { return };
    let wait = match &answer.value {
        Value::Table(table) => table.get("wait"),
        _ => None,
    };
    root.fault_of(
        &format!("endpoints[{place}].answer.wait"),
        "waits for workers' reports, and outcomes.queue is empty: nobody takes them",
        "\"off\", or the name of a queue in outcomes.queue",
        &wait.unwrap_or(answer).origin,
    );
}

/// Checks that names are unique, regardless of other endpoint faults.
pub(super) fn check_names(root: &mut Section<'_, '_, '_>, tree: &Table) {
    let Some(Value::List(list)) = tree.get("endpoints").map(|entry| &entry.value) else { return };
    let mut seen: Vec<(&str, &Origin)> = Vec::new();
    for (index, endpoint) in list.iter().enumerate() {
        let Value::Table(endpoint) = &endpoint.value else { continue };
        let Some(entry) = endpoint.get("name") else { continue };
        let (Value::Text(name) | Value::Word(name)) = &entry.value else { continue };
        let name: &str = name;
        match seen.iter().find(|(other, _)| *other == name) {
            Some((_, first)) => {
                let problem = format!("{name:?} is already the name of the endpoint at {first}");
                root.fault_of(
                    &format!("endpoints[{index}].name"),
                    problem,
                    "a name of its own",
                    &entry.origin,
                );
            }
            None => seen.push((name, &entry.origin)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_part_of_a_path() {
        for name in ["a", "0", "purchase", "po-2_b", &"x".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-a", "_a", "A", "a.b", "a/b", "采购", "a b", &"x".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
