//! Parts of several pages: times, states, rows, links, fields of forms.

use std::time::Duration;

use actix_web::{HttpRequest, web};
use sha2::{Digest, Sha256};

use super::phrases::Phrases;
use crate::{
    command::{Action, CommandId, outcome::Kind},
    ledger::{Record, ShowingState, State},
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
        let (date, time, offset) = Self::parts(at, zone);
        // Milliseconds only where they tell apart.
        let second = time.split('.').next().unwrap_or_default();
        Self { utc: at.to_string(), shown: format!("{date} {second}{offset}") }
    }

    /// With milliseconds.
    pub(super) fn exact(at: Timestamp, zone: &Zone) -> Self {
        let (date, time, offset) = Self::parts(at, zone);
        Self { utc: at.to_string(), shown: format!("{date} {time}{offset}") }
    }

    /// Date, time and offset. The foot of each page names the offset of now, so only another one is said.
    fn parts(at: Timestamp, zone: &Zone) -> (String, String, String) {
        // `2026-11-20T16:15:30.123+08:00`
        let split = |at| {
            let text = zone.show(at);
            let (date, time) = text.split_once('T').unwrap_or((&text, ""));
            let (time, offset) = time.split_at_checked(12).unwrap_or((time, ""));
            (date.to_owned(), time.to_owned(), offset.to_owned())
        };
        let (date, time, offset) = split(at);
        let now = split(Timestamp::now()).2;
        (date, time, if offset == now { String::new() } else { offset })
    }
}

/// A span of time in its largest unit: what people say.
pub(super) fn span(span: Duration, t: &Phrases) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0 => (u64::try_from(span.as_millis()).unwrap_or_default(), t.unit_ms),
        1..=119 => (seconds, t.unit_s),
        120..=7199 => (seconds / 60, t.unit_min),
        7200..=172_799 => (seconds / 3600, t.unit_h),
        _ => (seconds / 86_400, t.unit_d),
    };
    format!("{count} {unit}")
}

/// A word of a closed list, and its code where that is another text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) word: String,
    pub(super) code: Option<String>,
}

impl Term {
    pub(super) fn new(word: &str, code: &str) -> Self {
        Self { word: word.to_owned(), code: (word != code).then(|| code.to_owned()) }
    }

    pub(super) fn of_reason(reason: &str, t: &Phrases) -> Self {
        Self::new(t.reason_of(reason).unwrap_or(reason), reason)
    }
}

/// A word with a shape and a colour: no state is told by colour alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) class: &'static str,
    pub(super) shape: &'static str,
    pub(super) term: Term,
}

impl Mark {
    pub(super) fn of(state: State, t: &Phrases) -> Self {
        let (class, shape) = match state {
            State::Pending => ("pending", "○"),
            State::Published => ("published", "●"),
            State::Parked => ("parked", "■"),
            State::Rejected => ("rejected", "▲"),
            State::Unrouted => ("unrouted", "△"),
        };
        Self { class, shape, term: Term::new(t.state(state), state.as_str()) }
    }

    /// What to know of a decision at a glance: its state, and what a worker made of it. Only one that nobody has to look
    /// at is green all over.
    pub(super) fn all(record: &Record, t: &Phrases) -> Vec<Self> {
        let mut marks = vec![Self::of(record.state, t)];
        let Some(outcome) = &record.outcome else { return marks };
        let (class, shape) = match outcome.outcome {
            Kind::Applied => ("good", "✓"),
            Kind::Refused | Kind::Failed => ("warn", "!"),
        };
        if class == "warn" && record.state == State::Published {
            marks[0].class = "unknown";
        }
        let word = t.outcome(outcome.outcome);
        marks.push(Self { class, shape, term: Term::new(word, outcome.outcome.as_str()) });
        let (class, shape) = match outcome.showing {
            ShowingState::Nothing => return marks,
            ShowingState::Waiting => ("pending", "○"),
            ShowingState::Shown => ("good", "✓"),
            ShowingState::Parked => ("parked", "■"),
        };
        let term = Term::new(t.showing(outcome.showing), outcome.showing.as_str());
        marks.push(Self { class, shape, term });
        marks
    }

    pub(super) fn good(word: impl Into<String>) -> Self {
        Self { class: "good", shape: "✓", term: Term { word: word.into(), code: None } }
    }

    pub(super) fn bad(word: impl Into<String>) -> Self {
        Self { class: "bad", shape: "✕", term: Term { word: word.into(), code: None } }
    }
}

/// One line of a list of details.
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) href: Option<String>,
    /// Of a word.
    pub(super) code: Option<String>,
}

impl Fact {
    pub(super) fn of(name: &'static str, value: impl Into<String>) -> Self {
        Self { name, value: value.into(), href: None, code: None }
    }

    pub(super) fn term(name: &'static str, term: Term) -> Self {
        Self { name, value: term.word, href: None, code: term.code }
    }

    pub(super) fn link(name: &'static str, value: impl Into<String>, href: String) -> Self {
        Self { name, value: value.into(), href: Some(href), code: None }
    }
}

/// A choice in a form.
pub(super) struct Choice {
    pub(super) value: &'static str,
    pub(super) word: String,
    pub(super) chosen: bool,
}

/// Choices of words with their codes, which are what a filter takes.
pub(super) fn choices(
    words: impl IntoIterator<Item = (&'static str, &'static str)>,
    chosen: &str,
) -> Vec<Choice> {
    let choice = |(word, code): (&'static str, &'static str)| Choice {
        value: code,
        word: if word == code { word.to_owned() } else { format!("{word} ({code})") },
        chosen: code == chosen,
    };
    words.into_iter().map(choice).collect()
}

/// A text field of a form.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) value: String,
    pub(super) wrong: bool,
}

impl Field {
    /// An absolute time is long.
    pub(super) fn is_time(&self) -> bool {
        matches!(self.name, "since" | "until")
    }
}

/// What a page brings to the stream of news.
pub(super) struct Live {
    pub(super) head: u64,
    pub(super) refusals: u64,
    pub(super) one: Option<One>,
}

/// For a page of one thing, which has no newest entry.
pub(super) struct One {
    /// Of the ledger, before the page was made.
    pub(super) changes: u64,
    /// Of what the page shows.
    pub(super) digest: String,
}

impl Live {
    pub(super) fn list(head: u64, refusals: u64) -> Self {
        Self { head, refusals, one: None }
    }

    pub(super) fn one(changes: u64, shown: &impl serde::Serialize) -> Self {
        let shown = serde_json::to_vec(shown).expect("texts and numbers always render");
        let digest = Sha256::digest(shown)[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { head: 0, refusals: 0, one: Some(One { changes, digest }) }
    }
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
    word.parse::<Action>().map_or_else(|_| word.to_owned(), |action| t.action(action).to_owned())
}

/// What the state of a decision means, or what became of it.
pub(super) fn meaning_of(record: &Record, t: &Phrases) -> String {
    match (&record.outcome, record.state) {
        (None, state) => t.meaning(state).to_owned(),
        (Some(outcome), State::Published) => t.became(outcome),
        // It goes round again, whatever a worker has said of it.
        (Some(outcome), state) => format!("{} {}", t.meaning(state), t.became(outcome)),
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
pub(super) fn fields(
    pairs: &[(String, String)],
    names: &[(&'static str, &'static str)],
    wrong: Option<&str>,
) -> Vec<Field> {
    let value = |name: &str| pairs.iter().find(|(one, _)| one == name).map(|(_, value)| value.clone());
    let field = |&(name, label): &(&'static str, &'static str)| Field {
        name,
        label,
        value: value(name).unwrap_or_default(),
        wrong: wrong == Some(name),
    };
    names.iter().map(field).collect()
}

/// What a list was filtered by, in words.
pub(super) fn searched(
    pairs: &[(String, String)],
    labels: &[(&'static str, &'static str)],
    word: impl Fn(&str, &str) -> Option<&'static str>,
    t: &Phrases,
) -> String {
    let told = |(name, value): &(String, String)| {
        let label = labels.iter().find(|(one, _)| one == name).map_or(&**name, |(_, label)| label);
        (t.is_value)(label, word(name, value).unwrap_or(value))
    };
    let shown = pairs.iter().filter(|(name, _)| !matches!(&**name, "before" | "limit"));
    shown.map(told).collect::<Vec<_>>().join(t.comma)
}

/// The value of a form's choice.
pub(super) fn chosen<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    pairs.iter().find(|(one, _)| one == name).map_or("", |(_, value)| value)
}
