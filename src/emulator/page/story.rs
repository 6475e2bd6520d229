//! What became of one tap, step by step.

use serde_json::Value;

use super::{
    super::{
        Emulator,
        demo::Manner,
        press::{self, DONE},
        taps::{Source, Tap, Taps, Target, Turn},
    },
    bytes::{self, Dump, Part},
    look::{Look, View},
    phone::word_of,
    tame, tame_lines, time_of,
};
use crate::time::Timestamp;

/// How far a step has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Done,
    Waiting,
    Failed,
    /// It never happens for this tap.
    Never,
}

impl State {
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Never => "never",
        }
    }

    pub(super) const fn mark(self) -> &'static str {
        match self {
            Self::Done => "✓",
            Self::Waiting => "…",
            Self::Failed => "✗",
            Self::Never => "–",
        }
    }

    pub(super) const fn word(self, look: &Look) -> &'static str {
        let t = look.phrases();
        match self {
            Self::Done => t.state_done,
            Self::Waiting => t.state_waiting,
            Self::Failed => t.state_failed,
            Self::Never => t.state_none,
        }
    }
}

/// A step's head.
pub(super) struct Head {
    pub(super) number: usize,
    pub(super) title: &'static str,
    pub(super) state: State,
    pub(super) word: &'static str,
    pub(super) summary: String,
    pub(super) time: String,
    pub(super) link: String,
}

pub(super) struct Story {
    pub(super) id: u64,
    pub(super) tap: Head,
    pub(super) source: String,
    /// The tap that was sent again.
    pub(super) source_link: Option<String>,
    pub(super) request: Head,
    pub(super) views: Vec<(String, &'static str, bool)>,
    pub(super) shown: Shown,
    pub(super) is_kept: bool,
    /// What is shown has a mask in place of the token.
    pub(super) is_masked: bool,
    pub(super) answer: Head,
    pub(super) elapsed_ms: u64,
    pub(super) patience_ms: u64,
    pub(super) patience: String,
    pub(super) answer_text: Option<String>,
    pub(super) toast: Option<Toast>,
    pub(super) command: Head,
    pub(super) same_as: Option<String>,
    /// The command arrived before the answer.
    pub(super) overtook: bool,
    pub(super) routing_key: String,
    pub(super) headers: String,
    pub(super) body: Option<String>,
    /// Where in the console it is, and the words of the link.
    pub(super) console: Option<(String, &'static str)>,
    pub(super) worker: Head,
    pub(super) manners: Vec<(&'static str, &'static str, bool)>,
    pub(super) card: Head,
    pub(super) turns: Vec<Turned>,
}

pub(super) struct Toast {
    pub(super) text: String,
    pub(super) is_good: bool,
}

pub(super) struct Turned {
    pub(super) time: String,
    pub(super) words: String,
}

impl Story {
    /// From there on the answer is late: the meter has another colour.
    pub(super) fn too_late_ms(&self) -> u64 {
        self.patience_ms.saturating_sub(1)
    }
}

/// A request in the view that was asked for.
pub(super) enum Shown {
    Text(String),
    Hex(Vec<(&'static str, Dump)>),
}

/// One line for each tap in a list.
pub(super) struct Line {
    pub(super) id: u64,
    pub(super) link: String,
    pub(super) time: String,
    pub(super) user: String,
    pub(super) action: String,
    pub(super) state: State,
    pub(super) answer: String,
    pub(super) is_open: bool,
}

pub(super) fn lines(taps: &Taps, look: &Look, open: Option<u64>, most: usize) -> Vec<Line> {
    taps.iter()
        .take(most)
        .map(|tap| {
            let state = match &tap.answer {
                None => State::Waiting,
                Some(answer) if answer.seen.is_ok() => State::Done,
                Some(_) => State::Failed,
            };
            Line {
                id: tap.id,
                link: look.link(format!("/taps/{}", tap.id)),
                time: time_of(tap.at),
                user: tame(&tap.user),
                action: action_of(look, &tap.action),
                state,
                answer: match &tap.answer {
                    None => look.phrases().on_its_way.to_owned(),
                    Some(answer) => answered_in_short(look, answer.status, answer.word.as_deref()),
                },
                is_open: open == Some(tap.id),
            }
        })
        .collect()
}

fn answered_in_short(look: &Look, status: Option<u16>, word: Option<&str>) -> String {
    match (status, word) {
        (Some(status), Some(word)) => format!("{status} {}", tame(word)),
        (Some(status), None) => status.to_string(),
        (None, _) => look.phrases().no_answer.to_owned(),
    }
}

fn action_of(look: &Look, action: &str) -> String {
    let t = look.phrases();
    match action {
        "APPROVE" => t.approve.to_owned(),
        "REJECT" => t.reject.to_owned(),
        other => tame(other),
    }
}

struct Teller<'a> {
    emulator: &'a Emulator,
    taps: &'a Taps,
    tap: &'a Tap,
    look: &'a Look,
}

pub(super) fn story(emulator: &Emulator, taps: &Taps, tap: &Tap, look: &Look) -> Story {
    Teller { emulator, taps, tap, look }.tell()
}

impl Teller<'_> {
    fn tell(&self) -> Story {
        let (tap, look) = (self.tap, self.look);
        let (source, source_link) = self.source();
        let (command, same_as) = self.command();
        let arrived = tap.command.as_ref();
        let demo = self.emulator.demo.get();
        let manner = demo.map(|demo| *demo.manner.borrow());
        let worker = self.worker(command.state);
        let views = View::ALL.into_iter().map(|view| {
            let t = look.phrases();
            let word = match view {
                View::Decrypted if !tap.request.is_encrypted() => t.view_plain,
                View::Decrypted => t.view_decrypted,
                View::Sent => t.view_sent,
                View::Hex => t.view_hex,
                View::Curl => t.view_curl,
            };
            (look.to_view(tap.id, view), word, view == look.view)
        });
        let is_masked = views_mask(tap, look.view);
        Story {
            id: tap.id,
            tap: self.head(1, State::Done, self.tapped(), Some(tap.at)),
            source,
            source_link,
            request: self.request(),
            views: views.collect(),
            shown: self.shown(),
            is_kept: tap.request.is_kept(),
            is_masked,
            answer: self.answer(),
            elapsed_ms: tap.answer.as_ref().map_or(0, |answer| answer.elapsed_ms),
            patience_ms: tap.patience_ms,
            patience: (look.phrases().patience)(tap.patience_ms),
            answer_text: tap.answer.as_ref().and_then(|answer| answer.text.as_deref()).map(pretty),
            toast: tap.answer.as_ref().map(|answer| Toast {
                text: seen_of(look, answer.seen.as_ref().unwrap_or_else(|text| text)),
                is_good: answer.seen.is_ok(),
            }),
            command,
            same_as,
            overtook: arrived
                .zip(self.answered_at())
                .is_some_and(|(arrived, answered)| arrived.at < answered),
            routing_key: arrived.map(|arrived| tame(&arrived.routing_key)).unwrap_or_default(),
            headers: arrived.map(|arrived| pretty(&arrived.headers)).unwrap_or_default(),
            body: arrived.map(|arrived| pretty(&arrived.body)),
            console: self.in_console(),
            manners: match manner {
                Some(current) if arrived.is_some() => Manner::ALL
                    .into_iter()
                    .map(|manner| (manner.as_str(), look.phrases().manner(manner), manner == current))
                    .collect(),
                _ => Vec::new(),
            },
            worker,
            card: self.card(),
            turns: tap
                .turns
                .iter()
                .map(|turn| Turned { time: time_of(turn.at), words: self.turned(turn) })
                .collect(),
        }
    }

    fn head(&self, number: usize, state: State, summary: String, at: Option<i64>) -> Head {
        let t = self.look.phrases();
        let (anchor, title) = [
            ("tap", t.step_tap),
            ("request", t.step_request),
            ("answer", t.step_answer),
            ("command", t.step_command),
            ("worker", t.step_worker),
            ("card", t.step_card),
        ][number - 1];
        Head {
            number,
            title,
            state,
            word: state.word(self.look),
            summary,
            time: at.map(time_of).unwrap_or_default(),
            link: self.look.to_view(self.tap.id, self.look.view).replace("#request", &format!("#{anchor}")),
        }
    }

    fn tapped(&self) -> String {
        let t = self.look.phrases();
        let place = match self.tap.origin {
            "card" => t.on_card,
            "search" => t.by_search,
            _ => t.in_list,
        };
        let (user, action) = (tame(&self.tap.user), action_of(self.look, &self.tap.action));
        match t.html_lang {
            "en" => format!("{user} {} {action} {place}", t.tapped),
            _ => format!("{user} {place}{}“{action}”", t.tapped),
        }
    }

    fn source(&self) -> (String, Option<String>) {
        let t = self.look.phrases();
        let link = |of: u64| Some(self.look.link(format!("/taps/{of}")));
        match self.tap.source {
            Source::Replay(of) => ((t.replayed)(of), link(of)),
            Source::Edit(of) => ((t.edited)(of), link(of)),
            Source::Button | Source::Forged if self.tap.request.spoiled => (t.changed.to_owned(), None),
            Source::Button | Source::Forged => (String::new(), None),
        }
    }

    /// The decision, or why there is none.
    fn in_console(&self) -> Option<(String, &'static str)> {
        let (tap, t) = (self.tap, self.look.phrases());
        let console = &self.emulator.demo.get()?.console;
        let command_id =
            tap.command.as_ref().map(|arrived| &*arrived.command_id).or_else(|| tap.command_id());
        if let Some(id) = command_id {
            return Some((format!("{console}/decisions/{}", tame(id)), t.in_console));
        }
        tap.answer.as_ref()?;
        // A stranger's callback names nobody: the time is all that is known of it.
        let user = if tap.source == Source::Forged { "" } else { &*tap.user };
        let at = Timestamp::from_millisecond(tap.at).ok()?;
        let asked = [("q", format!("{user} {at}").trim().to_owned())];
        let url = reqwest::Url::parse_with_params(&format!("{console}/why"), asked).ok()?;
        Some((url.into(), t.why_in_console))
    }

    fn turned(&self, turn: &Turn) -> String {
        let t = self.look.phrases();
        let what = if turn.what == "card" { t.card } else { t.task };
        let by = match (turn.by_itself, &*turn.to) {
            (false, _) => t.by_call,
            (true, "DETAIL") => t.by_failure,
            (true, _) => t.by_next_status,
        };
        let (from, to) = (word_of(self.look, &turn.from), word_of(self.look, &turn.to));
        (t.turned)(what, &(t.turned_from)(&from, &to), by)
    }

    fn answered_at(&self) -> Option<i64> {
        let answer = self.tap.answer.as_ref()?;
        answer.status?;
        Some(self.tap.at.saturating_add_unsigned(answer.elapsed_ms))
    }

    fn request(&self) -> Head {
        let url = &self.tap.request.url;
        let path = url.find("://").and_then(|at| url[at + 3..].find('/').map(|slash| &url[at + 3 + slash..]));
        let summary = format!("POST {}", tame(path.unwrap_or(url)));
        self.head(2, State::Done, summary, Some(self.tap.at))
    }

    fn shown(&self) -> Shown {
        let request = &self.tap.request;
        let t = self.look.phrases();
        let url = tame(&request.url);
        match self.look.view {
            View::Decrypted => Shown::Text(pretty(&request.shown_plain())),
            View::Sent => {
                let wire = tame_lines(&request.shown_wire());
                let (host, path) = parts(&url);
                Shown::Text(format!(
                    "POST {path} HTTP/1.1\nhost: {host}\ncontent-type: application/json\ncontent-length: {}\n\n{wire}",
                    request.shown_wire().len()
                ))
            }
            View::Hex => match request.sealed() {
                // What was tampered with does not decrypt to what was meant.
                Some(sealed) if request.spoiled => Shown::Hex(vec![(t.hex_sealed, bytes::sealed(&sealed))]),
                Some(sealed) => Shown::Hex(vec![
                    (t.hex_sealed, bytes::sealed(&sealed)),
                    (t.hex_plain, bytes::padded(request.shown_plain().as_bytes())),
                ]),
                None => Shown::Hex(vec![(t.hex_plain, bytes::plain(request.shown_wire().as_bytes()))]),
            },
            View::Curl => {
                let body = request.shown_wire().replace('\'', "'\\''");
                Shown::Text(format!(
                    "curl -i '{}' \\\n  -H 'content-type: application/json' \\\n  -d '{}'",
                    url.replace('\'', "%27"),
                    tame_lines(&body)
                ))
            }
        }
    }

    fn answer(&self) -> Head {
        let t = self.look.phrases();
        let Some(answer) = &self.tap.answer else {
            return self.head(3, State::Waiting, t.on_its_way.to_owned(), None);
        };
        let state = if answer.seen.is_ok() { State::Done } else { State::Failed };
        let short = answered_in_short(self.look, answer.status, answer.word.as_deref());
        let summary = format!("{short} · {} ms", answer.elapsed_ms);
        let at = self.tap.at.saturating_add_unsigned(answer.elapsed_ms);
        self.head(3, state, summary, Some(at))
    }

    fn command(&self) -> (Head, Option<String>) {
        let t = self.look.phrases();
        if let Some(arrived) = &self.tap.command {
            let head = self.head(4, State::Done, tame(&arrived.routing_key), Some(arrived.at));
            return (head, None);
        }
        let earlier = self.tap.command_id().and_then(|id| self.taps.of_command(id));
        if let Some(earlier) = earlier.filter(|earlier| earlier.id != self.tap.id) {
            let link = self.look.link(format!("/taps/{}", earlier.id));
            return (self.head(4, State::Never, (t.same_as)(earlier.id), None), Some(link));
        }
        let kept = self.tap.command_id().is_some();
        let lost = self.tap.answer.as_ref().is_some_and(|answer| answer.status.is_none());
        let is_demo = self.emulator.demo.get().is_some();
        let (state, summary) = match (&self.tap.answer, self.emulator.sees_commands()) {
            (None, _) => (State::Waiting, ""),
            (Some(_), _) if !kept && !lost => (State::Never, t.no_command),
            (Some(_), None) => (State::Never, t.not_followed),
            (Some(_), Some(_)) if !kept => (State::Waiting, ""),
            (Some(_), Some(false)) if is_demo => (State::Waiting, t.waits_for_broker),
            (Some(_), Some(true)) if is_demo => (State::Waiting, t.waits_for_worker),
            (Some(_), Some(false)) => (State::Waiting, t.cannot_follow),
            (Some(_), Some(true)) => (State::Waiting, t.waits_for_queue),
        };
        (self.head(4, state, summary.to_owned(), None), None)
    }

    fn worker(&self, command: State) -> Head {
        let t = self.look.phrases();
        let Some(report) = &self.tap.report else {
            // A command that is on its way will have a report.
            let is_on_its_way = self.emulator.sees_commands().is_some() && command == State::Waiting;
            let state =
                if self.tap.command.is_some() || is_on_its_way { State::Waiting } else { State::Never };
            let summary = if self.tap.command.is_some() { t.no_report } else { "" };
            return self.head(5, state, summary.to_owned(), None);
        };
        let (state, word) = match Manner::parse(&report.word) {
            Some(Manner::Silent) => (State::Waiting, t.worker_silent),
            Some(manner @ Manner::Applied) => (State::Done, t.manner(manner)),
            Some(manner) => (State::Failed, t.manner(manner)),
            None => (State::Done, ""),
        };
        let summary = match report.message.as_deref() {
            Some(message) => (t.said)(word, &tame(message)),
            None => word.to_owned(),
        };
        self.head(5, state, summary, Some(report.at))
    }

    fn card(&self) -> Head {
        let t = self.look.phrases();
        if let Some(last) = self.tap.turns.last() {
            let (from, to) = (word_of(self.look, &last.from), word_of(self.look, &last.to));
            // What countersign has shown is what the worker said, whatever that was.
            let good = !last.by_itself || last.to != "DETAIL";
            let state = if good { State::Done } else { State::Failed };
            return self.head(6, state, (t.turned_from)(&from, &to), Some(last.at));
        }
        let ends = self.tap.source != Source::Button
            || self.tap.answer.as_ref().is_some_and(|answer| answer.seen.is_err());
        let state = if ends { State::Never } else { State::Waiting };
        let words = match (&self.tap.answer, &self.tap.target) {
            (Some(answer), Target::Card(_)) if answer.seen.as_deref() == Ok(DONE) && !ends => t.keeps_buttons,
            _ => t.unchanged,
        };
        self.head(6, state, words.to_owned(), None)
    }
}

/// What the approver reads. The emulator's own words about a missing answer are in the reader's language.
fn seen_of(look: &Look, text: &str) -> String {
    match text {
        press::TOO_LATE => look.phrases().no_answer_in_time.to_owned(),
        press::NOT_REACHED => look.phrases().nobody_there.to_owned(),
        other => tame(other),
    }
}

/// Whether what a view shows has the token's mask in it.
fn views_mask(tap: &Tap, view: View) -> bool {
    let text = match view {
        View::Decrypted | View::Hex => tap.request.shown_plain(),
        View::Sent | View::Curl => tap.request.shown_wire(),
    };
    tap.request.is_masked_in(&text)
}

/// Host and path of a URL.
fn parts(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or((rest, "/"), |at| rest.split_at(at))
}

/// JSON with one member per line; anything else as it is.
pub(super) fn pretty(text: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(text).ok().filter(|value: &Value| value.is_object());
    let text =
        parsed.and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or_else(|| text.to_owned());
    tame_lines(&text)
}

impl Part {
    pub(super) const fn word(self, look: &Look) -> &'static str {
        let t = look.phrases();
        match self {
            Self::Iv => t.iv,
            Self::Ciphertext => t.ciphertext,
            Self::Plaintext => t.plaintext,
            Self::Padding => t.padding,
        }
    }
}
