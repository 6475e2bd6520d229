//! What the relay knows and the ledger does not yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    command::Seq,
    ledger::{Exception, Settlement},
};

/// Collects what is to be written while the previous settlement is under way.
///
/// Only the latest state of each command is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Unsettled {
    through: Option<Seq>,
    exceptions: BTreeMap<Seq, Exception>,
    cleared: BTreeSet<Seq>,
}

impl Unsettled {
    /// Everything up to `seq` is confirmed or has an exception.
    pub(super) fn reach(&mut self, seq: Seq) {
        self.through = self.through.max(Some(seq));
    }

    pub(super) fn except(&mut self, exception: Exception) {
        self.cleared.remove(&exception.seq);
        self.exceptions.insert(exception.seq, exception);
    }

    /// The command of an exception was confirmed.
    pub(super) fn clear(&mut self, seq: Seq) {
        self.exceptions.remove(&seq);
        self.cleared.insert(seq);
    }

    /// True if the ledger's state of this command's exception is out of date.
    pub(super) fn mentions(&self, seq: Seq) -> bool {
        self.exceptions.contains_key(&seq) || self.cleared.contains(&seq)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.through.is_none() && self.exceptions.is_empty() && self.cleared.is_empty()
    }

    pub(super) fn take(&mut self) -> Settlement {
        Settlement {
            through: self.through.take(),
            exceptions: std::mem::take(&mut self.exceptions).into_values().collect(),
            cleared: std::mem::take(&mut self.cleared).into_iter().collect(),
            exchange: None,
        }
    }

    /// Puts back what could not be written; anything learned since takes precedence.
    pub(super) fn put_back(&mut self, older: Settlement) {
        self.through = self.through.max(older.through);
        for exception in older.exceptions {
            if !self.mentions(exception.seq) {
                self.exceptions.insert(exception.seq, exception);
            }
        }
        for seq in older.cleared {
            if !self.mentions(seq) {
                self.cleared.insert(seq);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::time::Timestamp;

    use super::*;
    use crate::ledger::state::Exceptional;

    fn exception(seq: Seq, attempts: u32) -> Exception {
        Exception {
            seq,
            state: Exceptional::Retrying,
            attempts,
            next_attempt_at: Timestamp::UNIX_EPOCH,
            reason: String::new(),
        }
    }

    #[test]
    fn the_latest_about_a_command_stands() {
        let mut unsettled = Unsettled::default();
        unsettled.except(exception(3, 1));
        unsettled.except(exception(3, 2));
        unsettled.clear(4);
        unsettled.except(exception(4, 1));
        unsettled.except(exception(5, 1));
        unsettled.clear(5);
        unsettled.reach(9);
        unsettled.reach(7);
        let expected = Settlement {
            through: Some(9),
            exceptions: vec![exception(3, 2), exception(4, 1)],
            cleared: vec![5],
            ..Settlement::default()
        };
        assert_eq!(unsettled.take(), expected);
        assert!(unsettled.is_empty());
    }

    #[test]
    fn what_was_put_back_yields_to_what_was_learned_since() {
        let mut unsettled = Unsettled::default();
        unsettled.clear(3);
        unsettled.except(exception(4, 2));
        unsettled.reach(5);
        unsettled.put_back(Settlement {
            through: Some(4),
            exceptions: vec![exception(3, 1), exception(6, 1)],
            cleared: vec![4, 7],
            ..Settlement::default()
        });
        let expected = Settlement {
            through: Some(5),
            exceptions: vec![exception(4, 2), exception(6, 1)],
            cleared: vec![3, 7],
            ..Settlement::default()
        };
        assert_eq!(unsettled.take(), expected);
    }
}
