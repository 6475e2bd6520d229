//! The last taps, each with what became of it: the request, the answer, the command, the worker's report, what the card
//! and the task then showed.
//!
//! # Bounds
//! At most [`MOST`] taps and [`MOST_BYTES`] are kept; the oldest go first. Whatever comes from outside is cut before it
//! is kept. A token is masked in everything that leaves this module.

mod request;

use std::{borrow::Cow, collections::VecDeque};

use serde_json::{Value, json};

use super::values::now_ms;

pub(super) use request::Request;

/// Taps kept.
pub(super) const MOST: usize = 200;

/// Bytes kept, all taps together.
pub(super) const MOST_BYTES: usize = 16 << 20;

/// A larger request is sent, but not kept: it can be neither read nor sent again.
pub(super) const KEPT_REQUEST_BYTES: usize = 128 << 10;

/// Bytes kept of a command.
const KEPT_COMMAND_BYTES: usize = 64 << 10;

/// Bytes kept of a text of somebody else: a report's message, a status, a reason.
const KEPT_TEXT_BYTES: usize = 4096;

/// State changes kept of a tap.
const KEPT_TURNS: usize = 20;

/// Commands kept that arrived before the answer that names them.
const EARLY: usize = 64;

/// What was tapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Card(u64),
    Task { instance_id: String, task_id: String },
}

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A button.
    Button,
    /// The bytes of an earlier tap, unchanged.
    Replay(u64),
    /// The body of an earlier tap, edited.
    Edit(u64),
    /// A stranger who is not the platform, in a scenario.
    Forged,
}

pub(super) struct Tap {
    pub(super) id: u64,
    /// Milliseconds since 1970.
    pub(super) at: i64,
    pub(super) source: Source,
    pub(super) origin: &'static str,
    pub(super) target: Target,
    pub(super) user: String,
    pub(super) action: String,
    /// What the platform makes of the card by itself after a success.
    pub(super) next_status: Option<String>,
    pub(super) request: Request,
    /// How long the answer is waited for.
    pub(super) patience_ms: u64,
    /// `None` while the request is on its way.
    pub(super) answer: Option<Answer>,
    pub(super) command: Option<Arrived>,
    pub(super) report: Option<Reported>,
    pub(super) turns: Vec<Turn>,
}

impl Tap {
    pub(super) fn command_id(&self) -> Option<&str> {
        self.answer.as_ref()?.command_id.as_deref()
    }

    fn bytes(&self) -> usize {
        let answer = self.answer.as_ref().map_or(0, |answer| answer.text.as_ref().map_or(0, String::len));
        let command =
            self.command.as_ref().map_or(0, |command| command.body.len() + command.routing_key.len());
        let texts = self.user.len() + self.action.len() + self.turns.len() * 256;
        self.request.len() + answer + command + texts
    }

    /// Whether it is about this task, as far as its target or its command says.
    fn names(&self, instance_id: &str, task_id: &str) -> bool {
        if let Target::Task { instance_id: one, task_id: other } = &self.target {
            return one == instance_id && other == task_id;
        }
        let Some(command) = &self.command else { return false };
        let body: Value = serde_json::from_str(&command.body).unwrap_or_default();
        body["task"]["instance_id"] == instance_id && body["task"]["task_id"] == task_id
    }
}

pub(super) struct Answer {
    /// `None` if none came.
    pub(super) status: Option<u16>,
    pub(super) elapsed_ms: u64,
    /// The first bytes of the body.
    pub(super) text: Option<String>,
    /// What the approver reads; `Err` for a failure.
    pub(super) seen: Result<String, String>,
    pub(super) command_id: Option<String>,
    /// `accepted`, `duplicate`, or the reason of a refusal, as the service says.
    pub(super) word: Option<String>,
}

impl Answer {
    pub(super) fn new(
        status: Option<u16>,
        elapsed_ms: u64,
        text: Option<String>,
        seen: Result<String, String>,
    ) -> Self {
        let body: Value =
            text.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let text_of = |value: &Value| value.as_str().map(|text| cut(text, 64).into_owned());
        let command_id = text_of(&body["data"]["command_id"]);
        // A refusal may be of a decision that is kept (`declined`), so both have `data`.
        let word = if body["code"] == 0 { text_of(&body["data"]["status"]) } else { text_of(&body["msg"]) };
        Self { status, elapsed_ms, text, seen, command_id, word }
    }
}

/// A command as a worker receives it.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// Its id, which is the `message_id` of the message.
    pub command_id: String,
    /// The routing key.
    pub routing_key: String,
    /// The headers, as JSON.
    pub headers: String,
    /// The body.
    pub body: String,
    /// When it arrived, in milliseconds since 1970.
    pub at: i64,
}

/// What a worker reported.
#[derive(Debug, Clone)]
pub struct Reported {
    /// `applied`, `refused` or `failed`; `silent` for none.
    pub word: String,
    /// The words for the approver.
    pub message: Option<String>,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// A change of what a card or a task shows.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) at: i64,
    /// `card` or `task`.
    pub(super) what: &'static str,
    pub(super) from: String,
    pub(super) to: String,
    /// By the platform itself, because of `next_status` or a failure; otherwise by a call of the sender.
    pub(super) by_itself: bool,
}

#[derive(Default)]
pub(super) struct Taps {
    kept: VecDeque<Tap>,
    early: VecDeque<(Arrived, Option<Reported>)>,
    last: u64,
    bytes: usize,
}

impl Taps {
    /// Keeps a tap; returns its number.
    pub(super) fn begin(&mut self, mut tap: Tap) -> u64 {
        self.last += 1;
        tap.id = self.last;
        tap.request.trim();
        tap.user = cut(&tap.user, KEPT_TEXT_BYTES).into_owned();
        tap.action = cut(&tap.action, KEPT_TEXT_BYTES).into_owned();
        self.kept.push_back(tap);
        self.settle();
        self.last
    }

    pub(super) fn answered(&mut self, id: u64, mut answer: Answer) {
        let early = answer.command_id.as_ref().and_then(|command_id| {
            let at = self.early.iter().position(|(arrived, _)| arrived.command_id == *command_id)?;
            self.early.remove(at)
        });
        let Some(tap) = self.find(id) else { return };
        // A service that repeats what it was sent must not put the token on a page.
        answer.text = answer.text.map(|text| tap.request.masked(&text).into_owned());
        answer.seen = match answer.seen {
            Ok(text) => Ok(text),
            Err(text) => Err(tap.request.masked(&text).into_owned()),
        };
        tap.answer = Some(answer);
        if let Some((arrived, report)) = early {
            tap.command = Some(arrived);
            tap.report = report;
        }
        self.settle();
    }

    /// A command arrived at a worker. It belongs to the first tap that was answered with it.
    pub(super) fn arrived(&mut self, mut arrived: Arrived) {
        arrived.body = cut(&arrived.body, KEPT_COMMAND_BYTES).into_owned();
        arrived.headers = cut(&arrived.headers, KEPT_TEXT_BYTES).into_owned();
        arrived.routing_key = cut(&arrived.routing_key, KEPT_TEXT_BYTES).into_owned();
        let id = arrived.command_id.clone();
        if let Some(tap) = self.kept.iter_mut().find(|tap| tap.command_id() == Some(&*id)) {
            tap.command = Some(arrived);
        } else if let Some(tap) = self.kept.iter_mut().rev().find(|tap| is_of_unanswered(tap, &arrived)) {
            tap.command = Some(arrived);
        } else {
            if self.early.len() == EARLY {
                self.early.pop_front();
            }
            self.early.push_back((arrived, None));
        }
        self.settle();
    }

    pub(super) fn reported(&mut self, command_id: &str, mut report: Reported) {
        report.word = cut(&report.word, 64).into_owned();
        report.message = report.message.map(|message| cut(&message, KEPT_TEXT_BYTES).into_owned());
        let has =
            |tap: &&mut Tap| tap.command.as_ref().is_some_and(|command| command.command_id == command_id);
        if let Some(tap) = self.kept.iter_mut().find(has) {
            tap.report = Some(report);
        } else if let Some((_, early)) =
            self.early.iter_mut().find(|(arrived, _)| arrived.command_id == command_id)
        {
            *early = Some(report);
        }
    }

    /// A card shows something else.
    pub(super) fn card_turned(&mut self, card: u64, from: &str, to: &str) {
        let turn = Turn::new("card", from, to, false);
        let of_card = |tap: &Tap| tap.target == Target::Card(card);
        // Several taps may have one card. The worker's report comes before what shows it.
        let reported = self.kept.iter().rposition(|tap| of_card(tap) && tap.report.is_some());
        let at = reported.or_else(|| self.kept.iter().rposition(of_card));
        let tap = at.and_then(|at| self.kept.get_mut(at));
        if let Some(tap) = tap {
            tap.turn(turn);
        }
        self.settle();
    }

    /// A task shows something else.
    pub(super) fn task_turned(&mut self, instance_id: &str, task_id: &str, from: &str, to: &str) {
        if let Some(tap) = self.kept.iter_mut().rev().find(|tap| tap.names(instance_id, task_id)) {
            tap.turn(Turn::new("task", from, to, false));
        }
        self.settle();
    }

    /// The platform itself changed the card of this tap.
    pub(super) fn turned_itself(&mut self, id: u64, from: &str, to: &str) {
        if let Some(tap) = self.find(id) {
            tap.turn(Turn::new("card", from, to, true));
        }
    }

    pub(super) fn get(&self, id: u64) -> Option<&Tap> {
        self.kept.iter().find(|tap| tap.id == id)
    }

    pub(super) fn newest(&self) -> Option<&Tap> {
        self.kept.back()
    }

    /// The newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Tap> {
        self.kept.iter().rev()
    }

    /// The first tap with this command.
    pub(super) fn of_command(&self, command_id: &str) -> Option<&Tap> {
        self.kept.iter().find(|tap| {
            tap.command_id() == Some(command_id)
                || tap.command.as_ref().is_some_and(|command| command.command_id == command_id)
        })
    }

    fn find(&mut self, id: u64) -> Option<&mut Tap> {
        self.kept.iter_mut().find(|tap| tap.id == id)
    }

    /// Drops the oldest until the rest is within the bounds.
    fn settle(&mut self) {
        self.bytes = self.kept.iter().map(Tap::bytes).sum();
        while self.kept.len() > MOST || (self.bytes > MOST_BYTES && self.kept.len() > 1) {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= oldest.bytes();
        }
    }
}

impl Tap {
    fn turn(&mut self, turn: Turn) {
        if self.turns.len() < KEPT_TURNS {
            self.turns.push(turn);
        }
    }
}

impl Turn {
    fn new(what: &'static str, from: &str, to: &str, by_itself: bool) -> Self {
        Self {
            at: now_ms(),
            what,
            from: cut(from, 128).into_owned(),
            to: cut(to, 128).into_owned(),
            by_itself,
        }
    }
}

/// Whether a command is that of a tap without an answer that names it: a sender that gave up waiting. Only the members
/// of the callback can tell.
fn is_of_unanswered(tap: &Tap, arrived: &Arrived) -> bool {
    if tap.command.is_some()
        || tap.command_id().is_some()
        || tap.answer.as_ref().is_some_and(|a| a.status.is_some())
    {
        return false;
    }
    let body: Value = serde_json::from_str(&arrived.body).unwrap_or_default();
    let of_target = match &tap.target {
        Target::Card(id) => body["message_id"] == id.to_string().as_str(),
        Target::Task { instance_id, task_id } => {
            body["task"]["instance_id"] == instance_id.as_str() && body["task"]["task_id"] == task_id.as_str()
        }
    };
    of_target
        && body["action_type"] == tap.action.as_str()
        && body["operator"]["user_id"] == tap.user.as_str()
}

/// The first bytes of a text.
pub(super) fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return text.into();
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end]).into()
}

/// A tap as JSON.
pub(super) fn told(tap: &Tap) -> Value {
    let source = match tap.source {
        Source::Button => json!({ "kind": "button" }),
        Source::Replay(of) => json!({ "kind": "replay", "of": of }),
        Source::Edit(of) => json!({ "kind": "edit", "of": of }),
        Source::Forged => json!({ "kind": "forged" }),
    };
    let target = match &tap.target {
        Target::Card(id) => json!({ "message_id": id.to_string() }),
        Target::Task { instance_id, task_id } => json!({ "instance_id": instance_id, "task_id": task_id }),
    };
    let answer = tap.answer.as_ref().map(|answer| {
        json!({
            "status": answer.status, "elapsed_ms": answer.elapsed_ms, "text": answer.text,
            "accepted": answer.seen.is_ok(), "shown": answer.seen.as_ref().unwrap_or_else(|text| text),
            "command_id": answer.command_id, "word": answer.word,
        })
    });
    let command = tap.command.as_ref().map(|command| {
        json!({
            "at": command.at, "command_id": command.command_id, "routing_key": command.routing_key,
            "body": serde_json::from_str::<Value>(&command.body).unwrap_or_else(|_| command.body.as_str().into()),
        })
    });
    let report = tap
        .report
        .as_ref()
        .map(|report| json!({ "at": report.at, "outcome": report.word, "message": report.message }));
    let turns: Vec<_> = tap
        .turns
        .iter()
        .map(|turn| {
            json!({ "at": turn.at, "what": turn.what, "from": turn.from, "to": turn.to, "by_itself": turn.by_itself })
        })
        .collect();
    json!({
        "id": tap.id, "at": tap.at, "source": source, "origin": tap.origin, "target": target, "user_id": tap.user,
        "action_type": tap.action, "patience_ms": tap.patience_ms,
        "request": {
            "url": tap.request.url, "encrypted": tap.request.is_encrypted(), "changed": tap.request.spoiled,
            "kept": tap.request.is_kept(), "as_sent": tap.request.shown_wire(),
            "decrypted": tap.request.shown_plain(),
        },
        "answer": answer, "command": command, "report": report, "turns": turns,
    })
}

#[cfg(test)]
mod tests;
