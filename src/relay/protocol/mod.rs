//! The relay's protocol: a machine without I/O, clock, log or randomness.
//!
//! It is told what happened (the methods that take a [`Moment`] or an answer) and asked what to do ([`Machine::next`]),
//! until there is nothing. Its driver carries the effects out: in the service `relay::driver`; in the tests a
//! model checker, a property test and a simulation, all with this very machine.
//!
//! # Entities
//! - **Cargo.** A command: its place in the log and its task are looked at, the rest is passed on.
//! - **Session.** From [`Machine::begin`] to [`Machine::lost`]. What belongs to one session ([`Passing`]) is forgotten
//!   with it: the ledger knows better.
//! - **Exceptions** ([`Tasks`]). Those of the ledger that wait, with where they are: resting in the ledger, held behind
//!   an earlier one of the task, or tried.
//! - **Unsettled.** What was learned and is not in the ledger yet; outlives the session. A settlement that fails is put
//!   back into it.
//! - **Stragglers.** Commands for which something is prepared before they are published ([`Cargo::is_raw`]), and those of
//!   their tasks behind them; see [`stragglers`]. Exceptions are prepared as well; their tasks wait for them anyway.
//! - **Suspicion.** After the broker ended a session over something that was published; see [`suspicion`].
//!
//! # The stages of a command
//! Within a session; when it ends, all go back to the ledger (`[*]`), but for exceptions that rest. A test compares the
//! diagram with every step that the model takes.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Ready: read from the log, or fresh
//!     Ready --> Published: handed to the broker
//!     Ready --> Preparing: enrichment is configured
//!     Ready --> Prepared: waits behind one of its task that is not
//!     Preparing --> Prepared: completed, or its time is over
//!     Prepared --> Published: the first of its task
//!     Published --> [*]: confirmed
//!     Published --> Resting: refused
//!     Ready --> Resting: its task has an exception
//!     Prepared --> Resting: its task has an exception
//!     Ready --> [*]: the broker blocks, or too many exceptions wait
//!     [*] --> Resting: requeued by an operator, or returned late
//!     [*] --> Due: requeued by an operator
//!     [*] --> Held: requeued by an operator
//!     Resting --> Due: its time has come, and it is the first of its task
//!     Resting --> Held: its time has come, and an earlier one of its task is tried
//!     Held --> Due: the earlier one is through, or parked
//!     Held --> Resting: the earlier one was refused again
//!     Due --> Completing: enrichment is configured
//!     Completing --> Due: completed, or its time is over
//!     Due --> Tried: handed to the broker
//!     Tried --> [*]: confirmed, or parked after max_attempts
//!     Tried --> Resting: refused again
//!     Due --> Resting: the broker blocks, or an earlier one was requeued
//!     Completing --> Resting: the broker blocks
//!     Completing --> Held: an earlier one of its task was requeued
//!     Resting --> [*]: parked by an operator
//! ```
//!
//! # Who may write
//! One settlement at a time; and never a settlement together with a question to the ledger whose answer it would change
//! (the due exceptions, those that wait, the state of one command).
//!
//! # Invariants
//! - The cursor that a settlement carries never passes a command that is neither confirmed nor has its exception in this
//!   settlement or an earlier one.
//! - As long as a task has an exception, nothing of it is published but the first of them.
//! - Of the commands of a task that wait for what is prepared, only the first is published.
//! - An exception is cleared only after it was confirmed.
//! - Whatever is lost of this machine (it is memory), the ledger's cursor and exceptions suffice to go on.

mod asking;
mod feeding;
mod late;
mod looking;
mod outcomes;
mod reading;
mod settling;
mod stragglers;
mod suspicion;
mod tasks;
#[cfg(test)]
mod tests;
mod unsettled;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::LateReturn;
use crate::{
    backoff,
    command::{CommandId, Seq, TaskKey},
    ledger::{Settlement, State},
    time::Timestamp,
};
use late::Late;
use looking::Looking;
use reading::Reading;
use settling::Writing;
use stragglers::Stragglers;
use suspicion::Suspicion;
use tasks::{Stage, Tasks};
use unsettled::Unsettled;

/// How often the machine wants to be told the time.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// The first wait of a refused command. The broker will not be another one a moment later.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// While the ledger takes no settlement, this is said again so often.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// The reason of an exception with 0 attempts.
const WAITS: &str = "waits for an earlier command of its task";

/// A command, as far as the protocol looks at it.
pub(super) trait Cargo {
    /// Its place in the log.
    fn seq(&self) -> Seq;
    /// Commands with the same key are published in order.
    fn task_key(&self) -> TaskKey;
    /// Something has to be prepared for it before it is published.
    fn is_raw(&self) -> bool {
        false
    }
}

/// What the machine goes by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Rules {
    pub(super) max_in_flight: usize,
    pub(super) max_attempts: u32,
    pub(super) confirm_timeout: Duration,
    pub(super) max_exceptions: usize,
    /// Commands that may wait because of what is prepared, for themselves or for one before them.
    pub(super) max_stragglers: usize,
    /// How old a session must be before a command is tried that is known to end sessions.
    pub(super) calm: Duration,
    /// Spreads the waits of commands that are refused together.
    pub(super) salt: u32,
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Moment {
    /// The time of day, as the ledger writes it.
    pub(super) at: Timestamp,
    /// Since some start; never goes back.
    pub(super) elapsed: Duration,
}

/// An exception whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Due<C> {
    pub(super) cargo: C,
    /// Refusals so far.
    pub(super) attempts: u32,
}

/// What is to be done. A question replaces an earlier one of the same kind that has no answer yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect<C> {
    /// Hand it to the session. One [`Machine::answered`] for each, in this order.
    Publish(C),
    /// Prepare something for it, within a bounded time, and hand it back to [`Machine::prepared`]; once, if that is under way
    /// already.
    Prepare(C),
    /// At once: take what is fresh, for [`Machine::fresh`].
    TakeFresh,
    /// Tell the ledger whether fresh commands are wanted.
    KeepFresh(bool),
    /// Read the log, for [`Machine::log_read`].
    ReadLog { after: Seq, limit: usize },
    /// Put a question to the ledger.
    Ask(Question),
    /// Write, for [`Machine::settled`].
    Settle(Settlement),
    /// Tell people.
    Say(Notice),
}

/// A question to the ledger. There is one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// Which exceptions are due? For [`Machine::due`].
    Due { at: Timestamp, limit: usize },
    /// Which exceptions wait? For [`Machine::waiting`].
    Waiting,
    /// Is this one still pending? For [`Machine::still_pending`].
    Pending { seq: Seq },
    /// What of this one? For [`Machine::found`].
    Find { command_id: CommandId },
}

/// What the ledger knows of a command that was returned late.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Found {
    pub(super) seq: Seq,
    pub(super) state: State,
    pub(super) attempts: Option<u32>,
    /// Its task, unless it is parked.
    pub(super) key: Option<TaskKey>,
}

/// The ledger could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// What people should know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Notice {
    Crowded { waiting: usize },
    RoomAgain { waiting: usize },
    Blocked,
    Unblocked,
    SettlementFails { first: bool },
    SettlementTaken,
    NoLongerPending { gone: usize },
    Refusals(Tally),
    Careful { in_flight: usize },
    SetAside { seq: Seq, reason: String },
    LateUnknown(LateReturn),
    LateUnderWay(LateReturn),
    LateAgain(LateReturn),
}

/// What happened since the last tick, for one line of the log instead of thousands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Tally {
    pub(super) refused: u64,
    pub(super) parked: u64,
    pub(super) last: Option<(Seq, String)>,
}

/// How a session ended, by the machine's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// Commands that were with the broker.
    pub(super) unanswered: usize,
    /// A command was tried that is known to end sessions, by a broker that takes others: it is well.
    pub(super) expected: bool,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Machine<C> {
    rules: Rules,
    tasks: Tasks<C>,
    unsettled: Unsettled,
    writing: Writing,
    /// The cursor as last put into a settlement.
    through: Seq,
    /// The question under way.
    asking: Option<Asking>,
    looking: Looking,
    late: Late,
    suspicion: Suspicion,
    tally: Tally,
    notices: VecDeque<Notice>,
    keep_fresh: Option<bool>,
    session: Passing<C>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asking {
    Due,
    Waiting,
    Pending(TaskKey, Seq),
    Find,
}

/// Whether the session takes commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Gate {
    /// There is no session. Nothing but settling is done.
    Closed,
    Open,
    /// The broker blocks publishing.
    Blocked,
}

/// A command with the broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Flight {
    seq: Seq,
    key: TaskKey,
    /// Refusals so far of an exception; `None` for a command in the order of the log.
    attempts: Option<u32>,
    sent_at: Duration,
}

/// What belongs to one session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Passing<C> {
    gate: Gate,
    began: Duration,
    in_flight: VecDeque<Flight>,
    /// The log in its order.
    reading: Reading<C>,
    /// Those of the log's order that are overtaken.
    stragglers: Stragglers<C>,
    /// Exceptions for which something is prepared; how often each was refused.
    preparing: BTreeMap<Seq, (TaskKey, u32)>,
    /// Exceptions whose turn it is.
    retries: VecDeque<Due<C>>,
    /// The same, of those that are known to end sessions: one at a time, with nothing else in flight.
    alone: VecDeque<Due<C>>,
    /// How many are held behind an earlier one of their task.
    held: usize,
    /// Others wait for this exception, which should be due and is not listed.
    missing: Option<(TaskKey, Seq)>,
    /// The time of the broker's answer counts from here, if it has blocked publishing before.
    patience_from: Duration,
    /// New commands are held back because too many exceptions wait.
    crowded: bool,
    /// Commands up to here are not new: later ones are exceptions already, and may wait for them.
    catch_up: Seq,
}

impl<C> Default for Passing<C> {
    fn default() -> Self {
        Self {
            gate: Gate::Closed,
            began: Duration::ZERO,
            in_flight: VecDeque::new(),
            reading: Reading::from(0),
            stragglers: Stragglers::default(),
            preparing: BTreeMap::new(),
            retries: VecDeque::new(),
            alone: VecDeque::new(),
            held: 0,
            missing: None,
            patience_from: Duration::ZERO,
            crowded: false,
            catch_up: 0,
        }
    }
}

impl<C: Cargo> Machine<C> {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            tasks: Tasks::default(),
            unsettled: Unsettled::default(),
            writing: Writing::default(),
            through: 0,
            asking: None,
            looking: Looking::default(),
            late: Late::default(),
            suspicion: Suspicion::default(),
            tally: Tally::default(),
            notices: VecDeque::new(),
            keep_fresh: None,
            session: Passing::default(),
        }
    }

    /// A session can publish. The cursor and the exceptions that wait are the ledger's, read after everything was
    /// settled.
    pub(super) fn begin(&mut self, cursor: Seq, waiting: Vec<(TaskKey, Seq)>, now: Moment) {
        self.through = cursor;
        let catch_up = waiting.iter().map(|(_, seq)| *seq).max().unwrap_or(0);
        self.suspicion.keep(&waiting.iter().map(|(_, seq)| *seq).collect());
        self.tasks.load(waiting);
        self.session = Passing {
            gate: Gate::Open,
            began: now.elapsed,
            reading: Reading::from(cursor),
            catch_up,
            ..Passing::default()
        };
        self.looking.want();
    }

    /// What to do next; `None` if there is nothing until something happens. `head` is the highest place in the log.
    /// Once `stopping`, nothing new is published.
    pub(super) fn next(&mut self, head: Seq, stopping: bool, now: Moment) -> Option<Effect<C>> {
        if let Some(wanted) = self.keep_fresh.take() {
            return Some(Effect::KeepFresh(wanted));
        }
        if self.session.gate != Gate::Closed && !stopping {
            let effect = self.feed(head, now);
            if effect.is_some() {
                return effect;
            }
        }
        let effect = self.write(stopping, now);
        effect.or_else(|| self.notices.pop_front().map(Effect::Say))
    }

    /// Time has passed; about every [`TICK`]. True if the broker has not answered the oldest publish in time.
    ///
    /// A broker that blocks publishing legitimately does not answer, so that time does not count: the session would
    /// otherwise be torn down and built again as long as the alarm lasts, and each time everything in flight be sent
    /// twice. A peer that has died meanwhile is found by its missing heartbeats.
    pub(super) fn tick(&mut self, now: Moment) -> bool {
        self.writing.tick();
        self.late.tick();
        self.tell();
        let session = &mut self.session;
        self.looking.tick(session.crowded);
        session.reading.tick();
        let Some(oldest) = session.in_flight.front() else { return false };
        let since = oldest.sent_at.max(session.patience_from);
        session.gate != Gate::Blocked && now.elapsed.saturating_sub(since) >= self.rules.confirm_timeout
    }

    /// The session is over; `blame` has the broker's words if it ended it over something that was published.
    ///
    /// What was in flight is published again by the ledger's account of it; answers to questions that are still under
    /// way may not be given any more.
    pub(super) fn lost(&mut self, blame: Option<String>, now: Moment) -> Lost {
        let unanswered = self.session.in_flight.len();
        let expected = blame.is_some_and(|words| self.blamed(&words, now));
        self.reach();
        self.session = Passing::default();
        self.tasks.rest_all();
        self.asking = None;
        self.writing.tick();
        self.late.tick();
        self.looking.reset();
        self.keep_fresh = Some(false);
        self.tell();
        Lost { unanswered, expected }
    }

    /// True if all that is known is in the ledger.
    pub(super) fn is_settled(&self) -> bool {
        !self.writing.is_under_way() && self.unsettled.is_empty() && self.late.is_empty()
    }

    /// Commands with the broker.
    pub(super) fn in_flight(&self) -> usize {
        self.session.in_flight.len()
    }

    fn say(&mut self, notice: Notice) {
        self.notices.push_back(notice);
    }

    fn tell(&mut self) {
        if self.tally.last.is_some() {
            let tally = std::mem::take(&mut self.tally);
            self.say(Notice::Refusals(tally));
        }
    }

    /// How long a command rests after so many refusals.
    fn delay(&self, seq: Seq, attempts: u32) -> Duration {
        backoff::delay(FIRST_RETRY, attempts, spread(self.rules.salt, seq, attempts))
    }
}

/// Spreads evenly, and tells the same to who asks the same: the machine has no dice of its own.
fn spread(salt: u32, seq: Seq, attempts: u32) -> u32 {
    // The mixing of SplitMix64.
    let mut mixed = (seq ^ (u64::from(attempts) << 48) ^ u64::from(salt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 32) as u32
}
