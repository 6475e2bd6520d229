//! Two replicas on one database that fails over, and a broker: what `checker` explores, and `walks` walks through.
//!
//! # Entities
//! - **Database.** The ledger and the lease's row, commit after commit; see `database`.
//! - **Replica.** Accepts callbacks. At times it leads: then it has a machine for its *term*, the real one, driven as
//!   `relay::driver` drives it; see `leader`. A leader that is not told of a new term is a *zombie*: it goes on with the old
//!   one until the ledger tells it that it is *deposed*.
//! - **Broker.** What each session has handed to it, decided in the order of publishing and told later; and which messages
//!   have ever been in the queue.
//! - **Decision.** What an approver decided. Until it is answered it is sent again, to any replica.
//!
//! # Time
//! There is none. A lease can be taken at any moment, for its holder may have stalled until it expired; a zombie is a
//! leader that does nothing for as long as the explorer likes. So there is nothing to renew either: a renewal tells no more
//! than whether one is deposed. A SIGTERM is the end of a term at a moment when nothing is in flight.
//!
//! # What is left out
//! Enrichment, a broker that blocks or ends sessions, and operators: they meet one machine only, which has a world of its
//! own for them. What the broker takes of a session after its end: the same as what it takes of a zombie's.

mod checker;
mod database;
mod judge;
mod leader;
mod rules;
mod walks;
mod world;

use super::{super::Cargo, ledger::Kept};
use crate::command::{CommandId, Seq, TaskKey};

/// One of the replicas.
type Who = usize;

/// Terms have random ids: none comes twice, whatever is forgotten.
type Term = u8;

/// A decision, by the order in which they are first sent.
type Decision = u8;

/// The rules that the design rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A settlement is written only `WHERE term = mine`.
    TermInSettlements,
    /// The log, the exceptions and the cursor are read only `WHERE term = mine`.
    TermInLooks,
    /// A term is over when another server has become the primary, even if its row is there and no connection was lost: a
    /// pooler hides that. Each statement of a term goes by that, and the answer to each accept, which brings what is fresh.
    TermOfOneServer,
    /// A lost connection to the database ends the term.
    LossEndsTheTerm,
    /// And not only the relay's own: none brings anything to a machine that another connection's loss has outdated.
    AnyLossEndsTheTerm,
    /// The machine is built again for each term.
    NewMachine,
    /// What was fresh, and was not taken, is forgotten with the term.
    NewFresh,
    /// The head of an earlier term does not count.
    NewHead,
    /// A term begins only when the standby has it: then it has all that the leader can read.
    LeaseWaits,
    /// A settlement with exceptions is answered only when the standby has it: it may be all that tells of a late return.
    /// One that only clears need not: what is forgotten of it is published again.
    ExceptionsWait,
}

/// What a replica promises with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Durability {
    /// An answer waits for the standby.
    Standby,
    /// It does not: a failover forgets the last commits.
    Asynchronous,
}

/// What may happen, and how often.
#[derive(Debug, Clone)]
struct Bounds {
    replicas: usize,
    /// The task of each decision to come.
    tasks: Vec<u64>,
    durability: Durability,
    /// Commits that a failover may forget, at the most.
    lag: usize,
    max_in_flight: usize,
    max_attempts: u32,
    /// Answers to questions are as of when they were asked, not of when they come.
    stale: bool,
    /// The replicas do not see that their connections lead to another server.
    pooler: bool,
    /// The rules that are broken.
    without: &'static [Rule],
    budget: Budget,
}

/// How much is left of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Budget {
    terms: u8,
    /// Connections to the database that are lost, replicas that are killed or stopped.
    ends: u8,
    failovers: u8,
    /// Decisions that are kept while nobody is told.
    unanswered: u8,
    /// Connections to the broker that are lost.
    losses: u8,
    refusals: u8,
    late: u8,
    /// Statements that fail while the connection stays.
    failures: u8,
    /// Settlements that arrive again later.
    copies: u8,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            replicas: 2,
            tasks: vec![1, 1],
            durability: Durability::Standby,
            lag: 3,
            max_in_flight: 2,
            max_attempts: 2,
            stale: false,
            pooler: false,
            without: &[],
            budget: Budget::default(),
        }
    }
}

impl Bounds {
    fn holds(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    fn is_standby(&self) -> bool {
        self.durability == Durability::Standby
    }
}

/// A command without a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Command {
    seq: Seq,
    key: TaskKey,
    id: CommandId,
}

impl Cargo for Command {
    fn seq(&self) -> Seq {
        self.seq
    }

    fn task_key(&self) -> TaskKey {
        self.key
    }
}

impl Kept for Command {
    fn command_id(&self) -> CommandId {
        self.id
    }
}

/// A replica that does not know whether a decision was kept tries again with the same id; another makes its own.
fn id(decision: Decision, at: Who) -> CommandId {
    CommandId::from_bytes((u128::from(decision) << 8 | at as u128).to_be_bytes())
}

fn decision(id: CommandId) -> Decision {
    id.as_bytes()[14]
}
