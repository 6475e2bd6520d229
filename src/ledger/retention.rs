//! How far a pass over what may be pruned has come.

use crate::command::Seq;

/// Rows that go with what is pruned, of which one transaction removes so many: a transaction holds up those who wait for it.
pub(super) const MAX_ROWS: usize = 1000;

/// Looks at everything old once: each kind until its end. What is old and has to stay would otherwise be looked at again for
/// as long as another kind takes, and with two such kinds for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pass {
    /// There may be more expired contexts.
    pub(super) contexts: bool,
    /// Commands up to here were looked at; `None` when all were.
    pub(super) commands: Option<Seq>,
    /// The same for acts.
    pub(super) acts: Option<u64>,
}

impl Pass {
    /// A pass at its beginning.
    pub(super) const BEGIN: Self = Self { contexts: true, commands: Some(0), acts: Some(0) };

    /// Nothing is left to look at.
    pub(super) fn is_over(&self) -> bool {
        !self.contexts && self.commands.is_none() && self.acts.is_none()
    }
}

/// A command that pruning looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    pub(super) seq: i64,
    pub(super) is_old: bool,
    /// Rows that would go with it.
    pub(super) rows: i64,
}

/// How many of these, in the order of the log, one transaction may remove, and where the next goes on; `None` if everything
/// old enough was looked at. At least one, however many rows it has; a `limit` of them was asked for.
pub(super) fn portion(looked: impl IntoIterator<Item = Looked>, limit: usize) -> (usize, Option<Seq>) {
    let (mut taken, mut rows, mut last) = (0, 0, None);
    for one in looked {
        rows += one.rows;
        if !one.is_old {
            return (taken, None);
        }
        if taken > 0 && rows > MAX_ROWS as i64 {
            return (taken, last);
        }
        (taken, last) = (taken + 1, Some(one.seq.cast_unsigned()));
    }
    (taken, last.filter(|_| taken == limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(rows: &[i64]) -> impl Iterator<Item = Looked> {
        (1..).zip(rows).map(|(seq, rows)| Looked { seq, is_old: true, rows: *rows })
    }

    #[test]
    fn a_portion_ends_before_too_many_rows_and_has_one_command_at_least() {
        assert_eq!(portion(commands(&[0, 0, 0]), 3), (3, Some(3)), "there may be more");
        assert_eq!(portion(commands(&[0, 0, 0]), 4), (3, None));
        assert_eq!(portion(commands(&[500, 500, 1]), 4), (2, Some(2)));
        assert_eq!(portion(commands(&[5000, 0]), 4), (1, Some(1)));
        let young = Looked { seq: 3, is_old: false, rows: 5000 };
        assert_eq!(portion(commands(&[0, 0]).chain([young]), 3), (2, None));
        assert_eq!(portion([], 3), (0, None));
    }

    #[test]
    fn a_pass_is_over_when_nothing_is_left_of_any_kind() {
        let over = Pass { contexts: false, commands: None, acts: None };
        assert!(over.is_over() && !Pass::BEGIN.is_over());
        assert!(!Pass { acts: Some(7), ..over.clone() }.is_over());
        assert!(!Pass { commands: Some(7), ..over.clone() }.is_over());
        assert!(!Pass { contexts: true, ..over }.is_over());
    }
}
