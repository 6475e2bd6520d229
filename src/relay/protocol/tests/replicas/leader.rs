//! A replica while it leads: a machine and what is under way for it, as `relay::driver` has them.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    super::{
        super::{Effect, Machine, Moment, Question, Rules, TICK},
        ledger::Answer,
    },
    Bounds, Command, Term,
    database::Contents,
};
use crate::{
    command::{CommandId, Seq},
    ledger::Settlement,
    time::Timestamp,
};

/// It stands still: a refused command rests for as long as the explorer likes.
pub(super) const NOW: Moment = Moment { at: Timestamp::UNIX_EPOCH, elapsed: Duration::ZERO };

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    pub(super) term: Term,
    /// Where the lease was taken.
    pub(super) server: u8,
    pub(super) machine: Machine<Command>,
    /// Its connection to the database leads to the primary.
    pub(super) linked: bool,
    /// There is a session with the broker.
    pub(super) connected: bool,
    /// What is with the broker, and whether that took it, if it has decided.
    pub(super) flying: VecDeque<(Command, Option<bool>)>,
    pub(super) settling: Option<Settlement>,
    pub(super) asking: Option<(Question, Option<Answer<Command>>)>,
    pub(super) reading: Option<(Seq, usize, Option<Vec<Command>>)>,
    /// What the broker told as confirmed in this term.
    pub(super) heard: BTreeSet<CommandId>,
    /// What it returned after that.
    pub(super) returned: BTreeSet<CommandId>,
}

/// What is fresh, and the head: they come with the callbacks that a replica accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Feed {
    pub(super) fresh: Vec<Command>,
    pub(super) wanted: bool,
    pub(super) head: Seq,
}

pub(super) fn machine(bounds: &Bounds) -> Machine<Command> {
    Machine::new(Rules {
        max_in_flight: bounds.max_in_flight,
        max_attempts: bounds.max_attempts,
        confirm_timeout: Duration::from_secs(30),
        max_exceptions: 10,
        max_stragglers: 2,
        calm: TICK,
        salt: 0,
    })
}

/// All that rests is due, for it may have rested for so long; and all is listed, for without time none has its turn.
pub(super) fn look(contents: &Contents, question: Question) -> Answer<Command> {
    let question = match question {
        Question::Due { .. } => Question::Due { at: NOW.at + Duration::from_secs(3600), limit: usize::MAX },
        other => other,
    };
    contents.ledger.look(question)
}

impl Leader {
    pub(super) fn new(term: Term, server: u8, machine: Machine<Command>) -> Self {
        Self {
            term,
            server,
            machine,
            linked: true,
            connected: false,
            flying: VecDeque::new(),
            settling: None,
            asking: None,
            reading: None,
            heard: BTreeSet::new(),
            returned: BTreeSet::new(),
        }
    }

    /// The first that the broker has not decided about.
    pub(super) fn undecided(&self) -> Option<usize> {
        self.flying.iter().position(|(_, decided)| decided.is_none())
    }

    /// Begins a session.
    pub(super) fn begin(&mut self, contents: &Contents, feed: &mut Feed) {
        self.connected = true;
        feed.wanted = true;
        self.machine.begin(contents.ledger.cursor, contents.ledger.waiting(), NOW);
    }

    /// Ends the session with the broker, if there is one.
    pub(super) fn lose(&mut self, feed: &mut Feed) {
        self.flying.clear();
        (self.asking, self.reading) = (None, None);
        self.connected = false;
        self.machine.lost(None, NOW);
        feed.wanted = false;
        feed.fresh.clear();
    }

    /// Does all that the machine wants. Answers are as of now only if there are `contents` to look at. An error is a fault.
    pub(super) fn carry_on(&mut self, feed: &mut Feed, contents: Option<&Contents>) -> Result<(), String> {
        let head = if self.connected { feed.head } else { 0 };
        for _ in 0..1000 {
            let Some(effect) = self.machine.next(head, false, NOW) else { return Ok(()) };
            match effect {
                Effect::Publish(command) => {
                    if !self.connected {
                        return Err(format!("{} is published to nobody", command.seq));
                    }
                    self.flying.push_back((command, None));
                }
                Effect::TakeFresh => self.machine.fresh(std::mem::take(&mut feed.fresh)),
                Effect::KeepFresh(wanted) => {
                    feed.wanted = wanted;
                    if !wanted {
                        feed.fresh.clear();
                    }
                }
                Effect::ReadLog { after, limit } => {
                    let read = contents.map(|contents| contents.ledger.since(after, limit));
                    self.reading = Some((after, limit, read));
                }
                Effect::Ask(question) => {
                    self.asking = Some((question, contents.map(|contents| look(contents, question))));
                }
                Effect::Settle(settlement) => self.settling = Some(settlement),
                Effect::Prepare(_) => return Err("nothing is to be prepared".to_owned()),
                Effect::Say(_) => {}
            }
        }
        Err("the machine never comes to rest".to_owned())
    }
}
