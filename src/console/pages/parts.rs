//! Parts of several pages: times, states, rows, links, fields of forms.

use std::time::Duration;

use actix_web::{HttpRequest, web};

use super::phrases::Phrases;
use crate::{
    command::CommandId,
    ledger::State,
    time::{Timestamp, Zone},
};

/// A time as pages show it.
#[derive(Debug, Clone)]
pub(super) struct When {
    pub(super) utc: String,
    pub(super) shown: String,
}

impl When {
    pub(super) fn of(at: Timestamp, zone: &Zone) -> Self {
        // `2026-11-20T16:15:30.123+08:00`: the offset stays, milliseconds only where they tell apart.
        let text = zone.show(at);
        let (date, time) = text.split_once('T').unwrap_or((&text, ""));
        let (time, offset) = time.split_at_checked(12).unwrap_or((time, ""));
        let second = time.split('.').next().unwrap_or_default();
        Self { utc: at.to_string(), shown: format!("{date} {second}{offset}") }
    }

    /// With milliseconds.
    pub(super) fn exact(at: Timestamp, zone: &Zone) -> Self {
        Self { utc: at.to_string(), shown: zone.show(at).replacen('T', " ", 1) }
    }
}

/// A span of time in its largest unit: what people say.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A word with a shape and a colour: no state is told by colour alone.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) class: &'static str,
    pub(super) shape: &'static str,
    pub(super) word: String,
}

impl Mark {
    pub(super) fn of(state: State) -> Self {
        let (class, shape) = match state {
            State::Pending => ("pending", "○"),
            State::Published => ("published", "●"),
            State::Parked => ("parked", "■"),
            State::Rejected => ("rejected", "▲"),
            State::Unrouted => ("unrouted", "△"),
        };
        Self { class, shape, word: state.as_str().to_owned() }
    }

    pub(super) fn good(word: impl Into<String>) -> Self {
        Self { class: "good", shape: "✓", word: word.into() }
    }

    pub(super) fn bad(word: impl Into<String>) -> Self {
        Self { class: "bad", shape: "✕", word: word.into() }
    }
}

/// One line of a list of details.
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) href: Option<String>,
}

impl Fact {
    pub(super) fn of(name: &'static str, value: impl Into<String>) -> Self {
        Self { name, value: value.into(), href: None }
    }

    pub(super) fn link(name: &'static str, value: impl Into<String>, href: String) -> Self {
        Self { name, value: value.into(), href: Some(href) }
    }
}

/// A choice in a form.
pub(super) struct Choice {
    pub(super) value: &'static str,
    pub(super) word: &'static str,
    pub(super) chosen: bool,
}

pub(super) fn choices(words: impl IntoIterator<Item = &'static str>, chosen: &str) -> Vec<Choice> {
    words.into_iter().map(|word| Choice { value: word, word, chosen: word == chosen }).collect()
}

/// A text field of a form.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) value: String,
    pub(super) wrong: bool,
}

/// What a page brings to its pill of new entries.
pub(super) struct Live {
    pub(super) head: u64,
    pub(super) refusals: u64,
}

/// Where a page of one command is.
pub(super) fn decision_href(id: CommandId) -> String {
    format!("/decisions/{id}")
}

/// `instance / task`, as far as they are known.
pub(super) fn task_of(instance: Option<&str>, task: Option<&str>) -> String {
    match (instance, task) {
        (Some(instance), Some(task)) => format!("{instance} / {task}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "–".to_owned(),
    }
}

pub(super) fn action_of(word: &str, t: &Phrases) -> String {
    match word {
        "approve" => t.approve.to_owned(),
        "reject" => t.reject.to_owned(),
        "custom" => t.custom.to_owned(),
        other => other.to_owned(),
    }
}

pub(super) fn meaning_of(state: State, t: &Phrases) -> &'static str {
    match state {
        State::Pending => t.state_pending,
        State::Published => t.state_published,
        State::Parked => t.state_parked,
        State::Rejected => t.state_rejected,
        State::Unrouted => t.state_unrouted,
    }
}

/// A path with a query. Empty values are left out.
pub(super) fn link<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut href = path.to_owned();
    let mut sign = '?';
    for (name, value) in pairs {
        if !value.is_empty() {
            href.push(sign);
            href.push_str(name);
            href.push('=');
            href.push_str(&encoded(value));
            sign = '&';
        }
    }
    href
}

pub(super) fn encoded(text: &str) -> String {
    pub(super) const PLAIN: percent_encoding::AsciiSet =
        percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(text, &PLAIN).to_string()
}

/// The query, without what is for the frame, and without the fields of a form that were left empty.
pub(super) fn query(request: &HttpRequest) -> Vec<(String, String)> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
    let pairs = pairs.map(web::Query::into_inner).unwrap_or_default();
    pairs
        .into_iter()
        .map(|(name, value)| (name, value.trim().to_owned()))
        .filter(|(name, value)| !value.is_empty() && !matches!(&**name, "lang" | "theme"))
        .collect()
}

/// A text for a list: a stranger may have made it long.
pub(super) fn clipped(text: &str) -> String {
    pub(super) const MOST: usize = 120;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The text fields of a form.
pub(super) fn fields<const N: usize>(
    pairs: &[(String, String)],
    names: [(&'static str, &'static str); N],
    wrong: Option<&str>,
) -> Vec<Field> {
    let value = |name: &str| pairs.iter().find(|(one, _)| one == name).map(|(_, value)| value.clone());
    let field = |(name, label)| Field {
        name,
        label,
        value: value(name).unwrap_or_default(),
        wrong: wrong == Some(name),
    };
    names.map(field).into()
}

/// The value of a form's choice.
pub(super) fn chosen<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    pairs.iter().find(|(one, _)| one == name).map_or("", |(_, value)| value)
}
