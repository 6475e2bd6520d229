//! What can be wrong with a ledger.

use strum::{IntoStaticStr, VariantArray};

use crate::ledger::copy::tables::{Place, Portion};

/// The rule that is broken. The words are a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// Pages or indexes of the file are damaged.
    File,
    /// Tables, indexes or triggers are missing, changed, or not ours.
    Schema,
    /// A row, or the rest of a table, cannot be read.
    Unreadable,
    /// The single rows that say how far things have come contradict each other or the log.
    Cursor,
    /// Places in the log are empty that pruning has not reached.
    Gap,
    /// A `command_id` is not unique, not 16 bytes, or not the one in the message.
    CommandId,
    /// A message is no `approval.command/1`.
    Message,
    /// A column says something else than the message that it was taken from.
    Column,
    /// An exception has no command.
    Exception,
    /// A round is missing, or names another command.
    Round,
    /// A row belongs to a command that is not there and was not pruned.
    Reference,
    /// A showing has no outcome.
    Showing,
    /// Marks overlap, or are beyond the cursor.
    Mark,
    /// A registered context cannot be read.
    Context,
}

impl Kind {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word for scripts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// What it means, and what to do.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::File => {
                "The disk or a program other than countersign has damaged the file. Stop serve and look at the disk. Restore a backup \
                 (ledger restore), or save what can be read (ledger salvage)."
            }
            Self::Schema => {
                "Somebody else has changed the tables; countersign does it only at start. Undo the change, or save the rows \
                 (ledger salvage) and import them into a new ledger."
            }
            Self::Unreadable => {
                "What is there cannot be used. ledger salvage saves the rest; the log of the service names lost commands \
                 (callback kept)."
            }
            Self::Cursor => {
                "A part of the ledger is older than the rest, as after copying a file in use. Restore a backup, or salvage and \
                 import: what is not certainly published is parked then."
            }
            Self::Gap => {
                "These commands are lost here. If they were published, workers have them; the log of the service names each \
                 (callback kept, command_id). Look up their tasks, and ask the approvers to decide again where nothing arrived."
            }
            Self::CommandId => {
                "Workers tell repeats by this id. Do not publish these commands again before you have compared them; park them \
                 (ledger park) if they are pending."
            }
            Self::Message => {
                "It cannot be carried out by a worker. Park the command (ledger park), look up its task, and ask the approver to \
                 decide again."
            }
            Self::Column => {
                "The message is what workers get; lists and filters show the column. Compare with the approval center before you \
                 trust either."
            }
            Self::Exception => {
                "It counts as waiting; beyond the end of the log it also keeps the service from starting. ledger import leaves it out: \
                 save the rows (ledger salvage) and import them into a new ledger."
            }
            Self::Round => {
                "The same callback may be accepted a second time, as a new command. Nothing to do for those that are published; \
                 workers should refuse a task that is decided."
            }
            Self::Reference => {
                "It is of no use, and is removed with the commands around it when they are pruned."
            }
            Self::Showing => "It is never shown. ledger import leaves it out.",
            Self::Mark => {
                "Only the history of commands is affected: ledger show may tell a wrong time of publishing."
            }
            Self::Context => "A callback with this context is refused. Have your system register it again.",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The broken rule.
    pub kind: Kind,
    /// Where: a table with a key, or a place in the log.
    pub place: String,
    /// What was found.
    pub what: String,
}

impl Fault {
    pub(in crate::ledger) fn new(kind: Kind, place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { kind, place: place.into(), what: what.into() }
    }
}

/// The rows after a place, or what cannot be read there.
pub(in crate::ledger) enum Seen {
    Rows(Portion),
    /// A row that cannot be read; others may follow it.
    Bad(Place, Fault),
    /// Nothing more can be read.
    Lost(Fault),
    End,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_word_and_says_what_to_do() {
        let words: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(
            words,
            [
                "file",
                "schema",
                "unreadable",
                "cursor",
                "gap",
                "command_id",
                "message",
                "column",
                "exception",
                "round",
                "reference",
                "showing",
                "mark",
                "context"
            ]
        );
        assert!(Kind::ALL.iter().all(|kind| kind.advice().ends_with('.')));
    }
}
