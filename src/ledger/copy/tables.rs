//! What a copy takes: which rows, and how each side holds them.

use uuid::Uuid;

use Kind::{At, Bytes, Count, First8, Flag, Id, Number, Text};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ledger) enum Kind {
    /// 64 bits.
    Number,
    /// 32 bits.
    Count,
    /// 0 or 1 in SQLite.
    Flag,
    Text,
    Bytes,
    /// 16 bytes.
    Id,
    /// When a command was received; becomes a time of the log's clock.
    At,
    /// The first 8 of these bytes.
    First8,
}

/// A column in PostgreSQL, and the expression in SQLite that it comes from.
#[derive(Debug)]
pub(in crate::ledger) struct Column {
    pub(in crate::ledger) name: &'static str,
    pub(in crate::ledger) from: &'static str,
    /// The column in SQLite; `None` if the value is made of others.
    pub(in crate::ledger) own: Option<&'static str>,
    pub(in crate::ledger) kind: Kind,
}

/// A table, which has the same name on both sides.
#[derive(Debug)]
pub(in crate::ledger) struct Table {
    pub(in crate::ledger) name: &'static str,
    /// The rows are copied in the order of this column, which is a key in SQLite: a number, a text or bytes.
    pub(in crate::ledger) key: &'static str,
    pub(in crate::ledger) columns: &'static [Column],
    /// The largest value of this changes when a row does, without a change in their number.
    pub(in crate::ledger) changes: &'static str,
    /// What becomes of a row that is there already.
    pub(in crate::ledger) if_there: &'static str,
    /// True if PostgreSQL numbers new rows by itself.
    pub(in crate::ledger) is_numbered: bool,
}

/// Where the copy of a table has come to: the key of the last row, as bytes.
pub(in crate::ledger) type Place = Vec<u8>;

/// Some rows of a table, by column.
#[derive(Debug)]
pub(in crate::ledger) struct Portion {
    pub(in crate::ledger) rows: u64,
    pub(in crate::ledger) columns: Vec<Values>,
    /// The key of the last row.
    pub(in crate::ledger) last: Place,
}

/// The values of one column.
#[derive(Debug)]
pub(in crate::ledger) enum Values {
    Number(Vec<Option<i64>>),
    Count(Vec<Option<i32>>),
    Flag(Vec<Option<bool>>),
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Id(Vec<Option<Uuid>>),
}

impl Values {
    pub(in crate::ledger) fn none_of(kind: Kind) -> Self {
        match kind {
            Number | At | First8 => Self::Number(Vec::new()),
            Count => Self::Count(Vec::new()),
            Flag => Self::Flag(Vec::new()),
            Text => Self::Text(Vec::new()),
            Bytes => Self::Bytes(Vec::new()),
            Id => Self::Id(Vec::new()),
        }
    }
}

/// What the source holds.
#[derive(Debug, Clone)]
pub(in crate::ledger) struct Census {
    /// How many rows of each of [`TABLES`].
    pub(in crate::ledger) rows: Vec<u64>,
    /// A text that changes whenever the content does.
    pub(in crate::ledger) content: String,
    /// Commands that are not published and not parked: neither sent yet nor refused, refused, and requeued.
    pub(in crate::ledger) fresh: u64,
    pub(in crate::ledger) retrying: u64,
    pub(in crate::ledger) requeued: u64,
    pub(in crate::ledger) ends: Ends,
}

/// Single values.
#[derive(Debug, Clone)]
pub(in crate::ledger) struct Ends {
    pub(in crate::ledger) cursor: i64,
    pub(in crate::ledger) pruned: i64,
    pub(in crate::ledger) head: i64,
    pub(in crate::ledger) id_lead: i64,
    /// The time of the newest command.
    pub(in crate::ledger) newest: Option<i64>,
    /// True if the log has a clock of its own, whose times never fall.
    pub(in crate::ledger) has_clock: bool,
    /// The largest id that a showing ever had.
    pub(in crate::ledger) last_showing: i64,
    pub(in crate::ledger) reconciliation: Reconciliation,
}

/// The row of `reconciliation`.
#[derive(Debug, Clone)]
pub(in crate::ledger) struct Reconciliation {
    pub(in crate::ledger) skipped_through: i64,
    pub(in crate::ledger) asked_through: i64,
    pub(in crate::ledger) passed_at: Option<i64>,
    pub(in crate::ledger) counts: [i64; 3],
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, from: name, own: Some(name), kind }
}

/// A value that SQLite has only as a part of others.
const fn made(name: &'static str, from: &'static str, kind: Kind) -> Column {
    Column { name, from, own: None, kind }
}

/// A column that has another name or type in SQLite.
const fn other(name: &'static str, own: &'static str, from: &'static str, kind: Kind) -> Column {
    Column { name, from, own: Some(own), kind }
}

const fn table(
    name: &'static str,
    key: &'static str,
    columns: &'static [Column],
    changes: &'static str,
) -> Table {
    Table { name, key, columns, changes, if_there: "", is_numbered: false }
}

const fn numbered(table: Table) -> Table {
    Table { is_numbered: true, ..table }
}

/// In the order in which they are copied: an exception before its command, so that no command is there as published that
/// is not.
pub(in crate::ledger) static TABLES: [Table; 18] = [
    table("exceptions", "seq", EXCEPTIONS, "changed_at"),
    table("commands", "seq", COMMANDS, "seq"),
    table("rounds", "fingerprint", ROUNDS, "command_id"),
    table("contexts", "key", CONTEXTS, "registered_at"),
    numbered(table("acts", "id", ACTS, "changed_at")),
    numbered(table("act_commands", "id", ACT_COMMANDS, "id")),
    numbered(table("act_contexts", "id", ACT_CONTEXTS, "id")),
    table("publish_marks", "through", PUBLISH_MARKS, "last_at"),
    numbered(table("publish_events", "id", PUBLISH_EVENTS, "id")),
    table("outcomes", "seq", OUTCOMES, "reported_at"),
    numbered(table("showings", "id", SHOWINGS, "changed_at")),
    numbered(table("refused_reports", "id", REFUSED_REPORTS, "id")),
    numbered(table("dead_letters", "id", DEAD_LETTERS, "is_open || came_at")),
    numbered(table("strays", "id", STRAYS, "id")),
    table("instance_versions", "instance_id", INSTANCE_VERSIONS, "update_time"),
    table("findings", "seq", FINDINGS, "checked_at"),
    numbered(table("refusals", "id", REFUSALS, "id")),
    Table {
        // A service that was tried on the database has noted its own.
        if_there: "ON CONFLICT (endpoint, tag) DO UPDATE SET
            known_since = least(credential_uses.known_since, excluded.known_since),
            last_used_at = greatest(credential_uses.last_used_at, excluded.last_used_at)",
        ..table(
            "credential_uses",
            // The key has two columns.
            "endpoint || char(10) || tag",
            CREDENTIAL_USES,
            "coalesce(last_used_at, known_since)",
        )
    },
];

/// The table with this name, by its place in [`TABLES`].
pub(in crate::ledger) fn numbered_by(name: &str) -> Option<usize> {
    TABLES.iter().position(|table| table.name == name)
}

const EXCEPTIONS: &[Column] = &[
    column("seq", Number),
    column("state", Text),
    column("attempts", Count),
    column("next_attempt_at", Number),
    column("changed_at", Number),
    column("note", Text),
];

/// Nothing where the message is damaged: a copy must not end there.
const MESSAGE_ID: &str = "CASE WHEN json_valid(CAST(message AS TEXT))
    THEN CAST(json_extract(CAST(message AS TEXT), '$.message_id') AS TEXT) END";

const COMMANDS: &[Column] = &[
    column("seq", Number),
    column("command_id", Id),
    made("at_ms", "received_at", At),
    column("received_at", Number),
    column("endpoint", Text),
    column("action", Text),
    column("action_type", Text),
    column("user_id", Text),
    column("approval_code", Text),
    column("instance_id", Text),
    column("task_id", Text),
    // In SQLite only the message has it.
    made("message_id", MESSAGE_ID, Text),
    column("task_key", Number),
    column("fingerprint", Bytes),
    made("fingerprint8", "fingerprint", First8),
    column("decision_key", Bytes),
    made("decision_key8", "decision_key", First8),
    column("message", Bytes),
];

const ROUNDS: &[Column] = &[column("fingerprint", Bytes), column("command_id", Id)];

const CONTEXTS: &[Column] = &[
    other("key", "key", "CAST(key AS BLOB)", Bytes),
    column("message_id", Number),
    column("expires_at", Number),
    column("registered_at", Number),
    column("instance_id", Text),
    column("task_id", Text),
    column("round", Text),
    column("business_key", Text),
    column("operators", Text),
    column("actions", Text),
    column("approval_code", Text),
    column("endpoint", Text),
    column("data", Text),
    column("act_id", Number),
];

const ACTS: &[Column] = &[
    column("id", Number),
    column("at", Number),
    column("changed_at", Number),
    column("act", Text),
    column("via", Text),
    column("name", Text),
    column("sudo_user", Text),
    column("host", Text),
    column("peer", Text),
    column("reason", Text),
    column("count", Number),
    column("detail", Text),
];

const ACT_COMMANDS: &[Column] =
    &[column("id", Number), column("act_id", Number), column("seq", Number), column("at", Number)];

const ACT_CONTEXTS: &[Column] = &[column("id", Number), column("act_id", Number), column("tag", Number)];

const PUBLISH_MARKS: &[Column] = &[
    column("through", Number),
    column("after", Number),
    column("first_at", Number),
    column("last_at", Number),
    column("exchange", Text),
];

const PUBLISH_EVENTS: &[Column] = &[
    column("id", Number),
    column("seq", Number),
    column("at", Number),
    column("event", Text),
    column("attempt", Count),
    column("passed", Flag),
    column("words", Text),
    column("exchange", Text),
];

const OUTCOMES: &[Column] = &[
    column("seq", Number),
    column("reported_at", Number),
    column("superseded", Count),
    column("outcome", Text),
    column("status", Text),
    column("message", Text),
    column("instance", Text),
];

const SHOWINGS: &[Column] = &[
    column("id", Number),
    column("seq", Number),
    column("surface", Text),
    column("target", Text),
    column("state", Text),
    column("attempts", Count),
    column("next_attempt_at", Number),
    column("changed_at", Number),
    column("note", Text),
];

const REFUSED_REPORTS: &[Column] = &[
    column("id", Number),
    column("seq", Number),
    column("at", Number),
    column("outcome", Text),
    column("reason", Text),
];

const DEAD_LETTERS: &[Column] = &[
    column("id", Number),
    column("seq", Number),
    column("came_at", Number),
    column("died_at", Number),
    column("why", Text),
    column("queue", Text),
    column("is_open", Flag),
];

const STRAYS: &[Column] = &[
    column("id", Number),
    column("came_at", Number),
    column("why", Text),
    column("queue", Text),
    column("reason", Text),
    column("message_id", Text),
    column("type", Text),
    column("routing_key", Text),
    column("body", Bytes),
];

const INSTANCE_VERSIONS: &[Column] =
    &[column("instance_id", Text), column("update_time", Number), column("seq", Number)];

const FINDINGS: &[Column] = &[
    column("seq", Number),
    column("verdict", Text),
    column("task_status", Text),
    column("instance_status", Text),
    column("checks", Count),
    column("found_at", Number),
    column("checked_at", Number),
    column("next_check_at", Number),
];

const REFUSALS: &[Column] = &[
    column("id", Number),
    column("refused_at", Number),
    column("endpoint", Text),
    column("reason", Text),
    column("detail", Text),
    column("peer", Text),
    column("body_bytes", Number),
    column("action_type", Text),
    column("user_id", Text),
    column("approval_code", Text),
    column("instance_id", Text),
    column("task_id", Text),
    column("message_id", Text),
    other("stranger", "strange", "strange", Flag),
    column("search_id", Text),
    column("context_instance_id", Text),
    column("context_task_id", Text),
    column("context_round", Text),
    column("context_business_key", Text),
];

const CREDENTIAL_USES: &[Column] = &[
    column("endpoint", Text),
    column("tag", Count),
    column("known_since", Number),
    column("last_used_at", Number),
];
