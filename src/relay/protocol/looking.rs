//! When to ask the ledger for the due exceptions, and when for all that wait.
//!
//! A look for due exceptions never runs together with a settlement, which may make some due. It runs before one, or
//! after one that is already collected (`Next`) or under way (`UnderWay`).
//!
//! ```text
//!              a task's next exception is due        the settlement is taken
//!   Nothing ──────────────────────────────▶ Next ─────────────────────────▶ UnderWay ──▶ look, once it is written
//! ```

/// While new commands are held back, known exceptions are compared with the ledger's after this many ticks.
const REVIEW_AFTER: u32 = 5;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Looking {
    /// Look as soon as no settlement is under way.
    wanted: bool,
    after: After,
    unreviewed: u32,
}

/// The settlement after which another look is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum After {
    #[default]
    Nothing,
    /// The one being collected.
    Next,
    /// The one under way.
    UnderWay,
    Both,
}

impl Looking {
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Requests a look after everything unsettled now is written.
    pub(super) fn want_after_settling(&mut self) {
        self.after = match self.after {
            After::Nothing | After::Next => After::Next,
            After::UnderWay | After::Both => After::Both,
        };
    }

    pub(super) fn taken(&mut self) {
        if self.after == After::Next {
            self.after = After::UnderWay;
        }
    }

    pub(super) fn written(&mut self) {
        self.wanted |= matches!(self.after, After::UnderWay | After::Both);
        self.after = match self.after {
            After::Both | After::Next => After::Next,
            After::UnderWay | After::Nothing => After::Nothing,
        };
    }

    /// The settlement under way failed; it becomes part of the next.
    pub(super) fn put_back(&mut self) {
        if self.after != After::Nothing {
            self.after = After::Next;
        }
    }

    /// The session is over. The settlement under way outlives it.
    pub(super) fn reset(&mut self) {
        let after = match self.after {
            After::UnderWay | After::Both => After::UnderWay,
            After::Nothing | After::Next => After::Nothing,
        };
        *self = Self { after, ..Self::default() };
    }

    pub(super) fn tick(&mut self, crowded: bool) {
        self.wanted = true;
        self.unreviewed = if crowded { (self.unreviewed + 1).min(REVIEW_AFTER) } else { 0 };
    }

    /// True if a look is wanted; resets that.
    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.wanted)
    }

    /// True if a review is due; resets that.
    pub(super) fn take_review(&mut self) -> bool {
        let due = self.unreviewed == REVIEW_AFTER;
        if due {
            self.unreviewed = 0;
        }
        due
    }

    #[cfg(test)]
    pub(super) fn review(&mut self) {
        self.unreviewed = REVIEW_AFTER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_after_a_settlement_waits_until_it_is_written() {
        let mut looking = Looking::default();
        looking.want_after_settling();
        assert!(!looking.take());
        looking.taken();
        looking.want_after_settling();
        looking.put_back();
        assert!(!looking.take(), "it was not written");
        looking.taken();
        looking.want_after_settling();
        looking.written();
        assert!(looking.take());
        looking.taken();
        looking.written();
        assert!(looking.take(), "the second settlement has its own");
        looking.written();
        assert!(!looking.take());
    }

    #[test]
    fn a_review_takes_place_while_new_commands_are_held_back_only() {
        let mut looking = Looking::default();
        (0..REVIEW_AFTER).for_each(|_| looking.tick(false));
        assert!(!looking.take_review());
        (0..REVIEW_AFTER).for_each(|_| looking.tick(true));
        assert!(looking.take_review() && !looking.take_review());
    }
}
