//! The invariants of a ledger, held against its rows as they come by.

use uuid::Uuid;

use super::{
    body::{Body, keys},
    fault::{Fault, Kind},
    places::Places,
};
use crate::{
    command::CommandId,
    ledger::copy::tables::{Ends, Portion, Table, Values},
};

/// By how much ids may be ahead of their time without a note of it.
const LEAD_MS: i64 = 1000;
/// Several replicas, and the threads of one, make ids that are a bit out of the log's order.
const SLACK_MS: i64 = 60_000;
/// More than this of a text is not shown.
const SHOWN: usize = 60;

/// Rows by the names of their columns.
#[derive(Debug, Clone, Copy)]
pub(in crate::ledger) struct Rows<'a> {
    pub(in crate::ledger) table: &'a Table,
    pub(in crate::ledger) portion: &'a Portion,
}

impl<'a> Rows<'a> {
    fn column(&self, name: &str) -> Option<&'a Values> {
        let at = self.table.columns.iter().position(|column| column.name == name)?;
        self.portion.columns.get(at)
    }

    pub(in crate::ledger) fn number(&self, name: &str, row: usize) -> Option<i64> {
        match self.column(name)? {
            Values::Number(values) => values.get(row).copied().flatten(),
            Values::Count(values) => values.get(row).copied().flatten().map(i64::from),
            _ => None,
        }
    }

    pub(in crate::ledger) fn text(&self, name: &str, row: usize) -> Option<&'a str> {
        match self.column(name)? {
            Values::Text(values) => values.get(row)?.as_deref(),
            _ => None,
        }
    }

    pub(in crate::ledger) fn bytes(&self, name: &str, row: usize) -> Option<&'a [u8]> {
        match self.column(name)? {
            Values::Bytes(values) => values.get(row)?.as_deref(),
            _ => None,
        }
    }

    pub(in crate::ledger) fn id(&self, name: &str, row: usize) -> Option<Uuid> {
        match self.column(name)? {
            Values::Id(values) => values.get(row).copied().flatten(),
            _ => None,
        }
    }

    pub(in crate::ledger) fn each(&self) -> std::ops::Range<usize> {
        0..usize::try_from(self.portion.rows).unwrap_or(0)
    }
}

/// A round that a command should have: its fingerprint, its id, its place.
pub(in crate::ledger) type Wanted = (Vec<u8>, Uuid, i64);

/// What has been seen so far. The commands must come first, the outcomes before the showings.
#[derive(Debug)]
pub(in crate::ledger) struct Rules {
    ends: Ends,
    pub(in crate::ledger) commands: Places,
    outcomes: Places,
    /// The id of the first command that pruning has not reached.
    eldest: Option<CommandId>,
    latest_ms: i64,
    mark: i64,
    faults: Vec<Fault>,
}

impl Rules {
    pub(in crate::ledger) fn new(ends: Ends) -> Self {
        let mut rules = Self {
            ends,
            commands: Places::default(),
            outcomes: Places::default(),
            eldest: None,
            latest_ms: i64::MIN,
            mark: 0,
            faults: Vec::new(),
        };
        rules.ends();
        rules
    }

    pub(in crate::ledger) fn take(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    fn fault(&mut self, kind: Kind, place: impl Into<String>, what: impl Into<String>) {
        self.faults.push(Fault::new(kind, place, what));
    }

    fn ends(&mut self) {
        let Ends { cursor, pruned, head, id_lead, ref reconciliation, .. } = self.ends;
        let (skipped, asked) = (reconciliation.skipped_through, reconciliation.asked_through);
        if cursor > head {
            self.fault(
                Kind::Cursor,
                "cursor",
                format!("{cursor} commands are published, but the log ends at {head}"),
            );
        }
        if pruned > cursor {
            self.fault(
                Kind::Cursor,
                "cursor",
                format!("pruned through {pruned}, but published only through {cursor}"),
            );
        }
        if skipped > asked || asked > cursor {
            let what =
                format!("skipped through {skipped}, asked through {asked}, published through {cursor}");
            self.fault(Kind::Cursor, "reconciliation", what);
        }
        if cursor < 0 || pruned < 0 || id_lead < 0 {
            self.fault(Kind::Cursor, "cursor", "a place below zero");
        }
    }

    /// Looks at some rows. Returns the rounds that these commands should have.
    pub(in crate::ledger) fn see(&mut self, rows: &Rows<'_>) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for row in rows.each() {
            match rows.table.name {
                "commands" => wanted.extend(self.command(rows, row)),
                "exceptions" => self.exception(rows, row),
                "publish_marks" => self.marked(rows, row),
                "contexts" => self.context(rows, row),
                "outcomes" => {
                    self.reference(rows, row);
                    self.outcomes.add(rows.number("seq", row).unwrap_or(0));
                }
                "showings" => self.showing(rows, row),
                _ => self.reference(rows, row),
            }
        }
        wanted
    }

    /// What only the whole log tells.
    pub(in crate::ledger) fn commands_end(&mut self) {
        for (first, last) in self.commands.holes(self.ends.pruned, self.ends.head) {
            self.fault(
                Kind::Gap,
                places(first, last),
                format!("{} commands are missing", last.abs_diff(first).saturating_add(1)),
            );
        }
        if let Some(last) = self.commands.last().filter(|last| *last > self.ends.head) {
            self.fault(
                Kind::Cursor,
                format!("commands {last}"),
                format!("the log ends at {}", self.ends.head),
            );
        }
        if let Some(first) = self.commands.first().filter(|first| *first < 1) {
            self.fault(Kind::Cursor, format!("commands {first}"), "the first place of a log is 1");
        }
    }

    fn command(&mut self, rows: &Rows<'_>, row: usize) -> Option<Wanted> {
        let seq = rows.number("seq", row).unwrap_or(0);
        let place = format!("commands {seq}");
        self.commands.add(seq);
        let id = CommandId::from_bytes(*rows.id("command_id", row).unwrap_or_default().as_bytes());
        if seq > self.ends.pruned && self.eldest.is_none() {
            self.eldest = Some(id);
        }
        let at = rows.number("at_ms", row).unwrap_or(i64::MIN);
        if self.ends.has_clock && at < self.latest_ms {
            let what = format!("at_ms is {at}, and {} of an earlier one", self.latest_ms);
            self.fault(Kind::Column, &*place, what);
        }
        self.latest_ms = self.latest_ms.max(at);
        let fingerprint = rows.bytes("fingerprint", row).unwrap_or_default();
        let decision = rows.bytes("decision_key", row).unwrap_or_default();
        for (name, bytes, length) in [("fingerprint", fingerprint, 32), ("decision_key", decision, 16)] {
            if bytes.len() != length {
                let what = format!("{name} has {} bytes, not {length}", bytes.len());
                self.fault(Kind::Column, &*place, what);
            }
            let head = bytes.first_chunk().map(|head| i64::from_be_bytes(*head));
            if rows.number(&format!("{name}8"), row) != head {
                self.fault(Kind::Column, &*place, format!("{name}8 is not the beginning of {name}"));
            }
        }
        let (command, action) = match Body::read(rows.bytes("message", row).unwrap_or_default()) {
            Ok(read) => read,
            Err(what) => {
                self.fault(Kind::Message, place, what);
                return None;
            }
        };
        if command.command_id != id {
            let what = format!("command_id is {id}, in the message {}", command.command_id);
            self.fault(Kind::CommandId, &*place, what);
        }
        let received = rows.number("received_at", row).unwrap_or(0);
        let lead = id.millis().saturating_sub(received);
        if lead > LEAD_MS.max(self.ends.id_lead) {
            self.fault(
                Kind::CommandId,
                &*place,
                format!("its time is {lead} ms ahead, more than any is said to be"),
            );
        }
        for (name, told) in [
            ("endpoint", Some(&*command.endpoint)),
            ("action", Some(&*action)),
            ("action_type", Some(&*command.action_type)),
            ("user_id", Some(&*command.user_id)),
            ("approval_code", command.approval_code.as_deref()),
            ("instance_id", command.task.instance_id.as_deref()),
            ("task_id", command.task.task_id.as_deref()),
            ("message_id", command.message_id.as_deref()),
        ] {
            let column = rows.text(name, row);
            if column != told {
                let what = format!("{name} is {}, in the message {}", shown(column), shown(told));
                self.fault(Kind::Column, &*place, what);
            }
        }
        if received != command.received_at.as_millisecond() {
            self.fault(
                Kind::Column,
                &*place,
                format!("received_at is {received}, in the message {}", command.received_at),
            );
        }
        let (task, decided) = keys(&command);
        if rows.number("task_key", row) != Some(task) {
            self.fault(Kind::Column, &*place, "task_key is not the one of its task");
        }
        if decision.len() == decided.len() && decision != decided {
            self.fault(Kind::Column, &*place, "decision_key is not the one of its operator and task");
        }
        command.task.round.is_some().then(|| (fingerprint.to_vec(), Uuid::from_bytes(*id.as_bytes()), seq))
    }

    /// Compares the round that a command should have with the one that is there.
    pub(in crate::ledger) fn round(&mut self, (_, id, seq): &Wanted, found: Option<Uuid>) {
        match found {
            Some(found) if found == *id => {}
            Some(found) => {
                self.fault(Kind::Round, format!("commands {seq}"), format!("its round names {found}"))
            }
            None => {
                self.fault(Kind::Round, format!("commands {seq}"), "it has a round, and no row in rounds")
            }
        }
    }

    /// A round that names a command that is not there.
    pub(in crate::ledger) fn unknown(&mut self, id: Uuid) {
        let id = CommandId::from_bytes(*id.as_bytes());
        let was_pruned = self.ends.pruned > 0
            && self.eldest.is_none_or(|eldest| id.millis() <= eldest.millis().saturating_add(SLACK_MS));
        if !was_pruned {
            self.fault(Kind::Round, format!("rounds {id}"), "the command is not there, and was not pruned");
        }
    }

    pub(in crate::ledger) fn wrong_fingerprint(&mut self, id: Uuid, length: usize) {
        self.fault(Kind::Round, format!("rounds {id}"), format!("fingerprint has {length} bytes, not 32"));
    }

    fn exception(&mut self, rows: &Rows<'_>, row: usize) {
        let seq = rows.number("seq", row).unwrap_or(0);
        if !self.commands.has(seq) {
            let state = rows.text("state", row).unwrap_or_default();
            self.fault(
                Kind::Exception,
                format!("exceptions {seq}"),
                format!("{state}, and there is no such command"),
            );
        }
        if rows.number("attempts", row).is_some_and(|attempts| attempts < 0) {
            self.fault(Kind::Exception, format!("exceptions {seq}"), "fewer than no attempts");
        }
    }

    fn marked(&mut self, rows: &Rows<'_>, row: usize) {
        let number = |name| rows.number(name, row).unwrap_or(0);
        let (after, through) = (number("after"), number("through"));
        let place = format!("publish_marks {through}");
        if after >= through || number("first_at") > number("last_at") {
            self.fault(Kind::Mark, &*place, format!("from {after} to {through}: it ends before it begins"));
        }
        if after < self.mark {
            self.fault(
                Kind::Mark,
                &*place,
                format!("begins after {after}, and the one before ends at {}", self.mark),
            );
        }
        if through > self.ends.cursor {
            self.fault(Kind::Mark, &*place, format!("published only through {}", self.ends.cursor));
        }
        self.mark = self.mark.max(through);
    }

    /// A row of a command may outlive it only where commands are pruned.
    fn reference(&mut self, rows: &Rows<'_>, row: usize) {
        let Some(seq) = rows.number("seq", row) else { return };
        if !self.commands.has(seq) && (seq > self.ends.pruned || seq < 1) {
            let key = rows.number("id", row).map_or_else(String::new, |id| format!(" (id {id})"));
            let place = format!("{} of command {seq}{key}", rows.table.name);
            self.fault(Kind::Reference, place, "there is no such command, and none was pruned there");
        }
    }

    fn showing(&mut self, rows: &Rows<'_>, row: usize) {
        self.reference(rows, row);
        let seq = rows.number("seq", row).unwrap_or(0);
        if !self.outcomes.has(seq) {
            let id = rows.number("id", row).unwrap_or(0);
            self.fault(Kind::Showing, format!("showings {id}"), format!("command {seq} has no outcome"));
        }
        if let Some(id) = rows.number("id", row).filter(|id| *id > self.ends.last_showing) {
            let what = format!("the next id is said to be {}", self.ends.last_showing.saturating_add(1));
            self.fault(Kind::Cursor, format!("showings {id}"), what);
        }
    }

    fn context(&mut self, rows: &Rows<'_>, row: usize) {
        let key = String::from_utf8_lossy(rows.bytes("key", row).unwrap_or_default()).into_owned();
        for name in ["operators", "actions"] {
            let list = rows.text(name, row).map(serde_json::from_str::<Vec<String>>);
            if let Some(Err(error)) = list {
                let place = format!("contexts {}", shown(Some(&key)));
                self.fault(Kind::Context, place, format!("{name} is no list of texts: {error}"));
            }
        }
    }
}

fn shown(text: Option<&str>) -> String {
    match text {
        None => "empty".to_owned(),
        Some(text) if text.chars().count() > SHOWN => {
            format!("{:?}…", text.chars().take(SHOWN).collect::<String>())
        }
        Some(text) => format!("{text:?}"),
    }
}

/// A place in the log, or several.
fn places(first: i64, last: i64) -> String {
    if first == last { format!("command {first}") } else { format!("commands {first} to {last}") }
}
