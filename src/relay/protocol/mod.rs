//! The relay's protocol: a state machine without I/O, clock, log or randomness.
//!
//! It is fed events (the methods that take a [`Moment`] or an answer) and asked for effects ([`Machine::next`]) until
//! there are none. The driver that carries them out is `relay::driver` in the service; in the tests it is a model
//! checker, a property test or a simulation, all with this same machine.
//!
//! # Entities
//! - **Cargo.** A command: the machine reads its place in the log and its task, and passes the rest on.
//! - **Session.** From [`Machine::begin`] to [`Machine::lost`]. Its state ([`Passing`]) is dropped with it: the ledger
//!   is authoritative.
//! - **Exceptions** ([`Tasks`]). The ledger's waiting exceptions and where each one is: resting in the ledger, held
//!   behind an earlier one of the task, or tried.
//! - **Unsettled.** What was learned and is not in the ledger yet; outlives the session. A failed settlement is put
//!   back into it.
//! - **Stragglers.** Commands that are prepared (enriched) before they are published ([`Cargo::is_raw`]), and those of
//!   their tasks behind them; see [`stragglers`]. Exceptions are prepared as well; their tasks wait for them anyway.
//! - **Suspicion.** Handling of commands over which the broker ends the session; see [`suspicion`].
//!
//! # The stages of a command
//! Within a session. When it ends, all commands except resting exceptions go back to the ledger (`[*]`). A test
//! compares the diagram with every step that the model takes.
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
//! At most one settlement at a time, and never together with a question to the ledger whose answer it would change
//! (the due exceptions, those that wait, the state of one command).
//!
//! # Invariants
//! - The cursor of a settlement never passes a command that is neither confirmed nor has its exception in this
//!   settlement or an earlier one.
//! - While a task has an exception, only its first exception is published.
//! - Of the commands of a task that wait for preparation, only the first is published.
//! - An exception is cleared only after it was confirmed.
//! - The machine is memory only: if it is lost, the ledger's cursor and exceptions suffice to continue.

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

/// How often the machine wants [`Machine::tick`].
pub(super) const TICK: Duration = Duration::from_secs(1);

/// Delay before the first retry: the broker will not have changed a moment later.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Interval between reminders while settlements fail.
const REMIND_AFTER: Duration = Duration::from_secs(60);

const WAITS: &str = "waits for an earlier command of its task";

/// A command, as the protocol sees it.
pub(super) trait Cargo {
    fn seq(&self) -> Seq;
    /// Commands with the same key are published in order.
    fn task_key(&self) -> TaskKey;
    /// True if it must be prepared before it is published.
    fn is_raw(&self) -> bool {
        false
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Rules {
    pub(super) max_in_flight: usize,
    pub(super) max_attempts: u32,
    pub(super) confirm_timeout: Duration,
    pub(super) max_exceptions: usize,
    /// Maximum number of commands waiting for preparation, their own or an earlier one's.
    pub(super) max_stragglers: usize,
    /// How old a session must be before a command known to end sessions is tried.
    pub(super) calm: Duration,
    /// Spreads the retries of commands that are refused together.
    pub(super) salt: u32,
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Moment {
    /// The time of day, as recorded in the ledger.
    pub(super) at: Timestamp,
    /// Monotonic time since an arbitrary start.
    pub(super) elapsed: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Due<C> {
    pub(super) cargo: C,
    /// Refusals so far.
    pub(super) attempts: u32,
}

/// An action for the driver. A question replaces an earlier, unanswered one of the same kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect<C> {
    /// Hand it to the session. One [`Machine::answered`] for each, in this order.
    Publish(C),
    /// Prepare it within a bounded time and return it to [`Machine::prepared`]; only once, if preparation is already
    /// under way.
    Prepare(C),
    /// Take what is fresh, immediately, for [`Machine::fresh`].
    TakeFresh,
    /// Set whether the ledger keeps fresh commands.
    KeepFresh(bool),
    /// For [`Machine::log_read`].
    ReadLog {
        after: Seq,
        limit: usize,
    },
    Ask(Question),
    /// For [`Machine::settled`].
    Settle(Settlement),
    Say(Notice),
}

/// A question to the ledger. At most one is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// Which exceptions are due? For [`Machine::due`].
    Due { at: Timestamp, limit: usize },
    /// Which exceptions wait? For [`Machine::waiting`].
    Waiting,
    /// Is this one still pending? For [`Machine::still_pending`].
    Pending { seq: Seq },
    /// What is the state of this one? For [`Machine::found`].
    Find { command_id: CommandId },
}

/// The ledger's state of a command that was returned late.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Found {
    pub(super) seq: Seq,
    pub(super) state: State,
    pub(super) attempts: Option<u32>,
    /// Its task, unless it is parked.
    pub(super) key: Option<TaskKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

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

/// Events since the last tick, for one log line instead of thousands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Tally {
    pub(super) refused: u64,
    pub(super) parked: u64,
    pub(super) last: Option<(Seq, String)>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) unanswered: usize,
    /// The session ended by trying a command known to end sessions, on a broker that takes others: the broker is
    /// healthy.
    pub(super) expected: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Machine<C> {
    rules: Rules,
    tasks: Tasks<C>,
    unsettled: Unsettled,
    writing: Writing,
    /// The cursor as last put into a settlement.
    through: Seq,
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
    /// There is no session. Only settlements are written.
    Closed,
    Open,
    Blocked,
}

/// A command with the broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Flight {
    seq: Seq,
    key: TaskKey,
    /// Refusals so far of an exception; `None` for a command in the log's order.
    attempts: Option<u32>,
    sent_at: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Passing<C> {
    gate: Gate,
    began: Duration,
    in_flight: VecDeque<Flight>,
    reading: Reading<C>,
    /// Commands that others may overtake.
    stragglers: Stragglers<C>,
    /// Exceptions being prepared, with their refusals so far.
    preparing: BTreeMap<Seq, (TaskKey, u32)>,
    /// Exceptions whose turn has come.
    retries: VecDeque<Due<C>>,
    /// The same, known to end sessions: tried one at a time, with nothing else in flight.
    alone: VecDeque<Due<C>>,
    /// Number of held exceptions.
    held: usize,
    /// An exception that others wait for, due but not listed.
    missing: Option<(TaskKey, Seq)>,
    /// The confirm timeout counts from here if the broker has blocked publishing before.
    patience_from: Duration,
    /// New commands are held back because too many exceptions wait.
    crowded: bool,
    /// Commands up to here are not new: later ones may already be exceptions that wait for them.
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

    /// Starts a session. Cursor and waiting exceptions are the ledger's after everything was settled.
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

    /// The next effect; `None` until something else happens. `head` is the highest place in the log. Once `stopping`,
    /// nothing new is published.
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

    /// To be called about every [`TICK`]. True if the broker has not answered the oldest publish in time.
    ///
    /// A broker that blocks publishing is right not to answer, so that time does not count. Otherwise the session
    /// would be rebuilt for as long as the alarm lasts, and everything in flight would be sent twice each time. A peer
    /// that has died meanwhile is detected by its missing heartbeats.
    pub(super) fn tick(&mut self, now: Moment) -> bool {
        self.writing.tick();
        self.late.tick();
        self.tell();
        let session = &mut self.session;
        self.looking.tick(session.crowded);
        session.reading.tick();
        self.unanswered_for(now) >= self.rules.confirm_timeout
    }

    /// How long the oldest publish has been unanswered. Zero while the broker blocks publishing.
    pub(super) fn unanswered_for(&self, now: Moment) -> Duration {
        let session = &self.session;
        match session.in_flight.front() {
            Some(oldest) if session.gate != Gate::Blocked => {
                now.elapsed.saturating_sub(oldest.sent_at.max(session.patience_from))
            }
            _ => Duration::ZERO,
        }
    }

    /// Ends the session; `blame` has the broker's message if it ended the session over a published command.
    ///
    /// Commands in flight are published again from the ledger. Answers to open questions must not be delivered after
    /// this.
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

    /// True if everything known is in the ledger.
    pub(super) fn is_settled(&self) -> bool {
        !self.writing.is_under_way() && self.unsettled.is_empty() && self.late.is_empty()
    }

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

    /// How long a command rests after `attempts` refusals.
    fn delay(&self, seq: Seq, attempts: u32) -> Duration {
        backoff::delay(FIRST_RETRY, attempts, spread(self.rules.salt, seq, attempts))
    }
}

/// Spreads evenly and deterministically: the machine has no randomness.
fn spread(salt: u32, seq: Seq, attempts: u32) -> u32 {
    // The mixing function of SplitMix64.
    let mut mixed = (seq ^ (u64::from(attempts) << 48) ^ u64::from(salt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 32) as u32
}
