//! What people order for commands by their ids: one act, and what became of each.

use futures_util::future::BoxFuture;

use super::{
    AcceptError,
    acts::{ActKind, By, NewAct},
    operator::ActError,
    outcomes::ShowAgain,
    state::{Event, Exceptional, IllegalMove, State},
};
use crate::command::CommandId;

/// Commands in one order, at most: it is one transaction.
pub const MAX_ORDERED: usize = 1000;

/// What is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderKind {
    /// Publish parked or published commands again, or those that came back.
    Requeue,
    /// Set pending commands aside.
    Park,
    /// Show outcomes again: what was rejected or waits, or everything if everything is shown.
    ShowAgain,
}

impl OrderKind {
    pub(super) fn act(self) -> ActKind {
        match self {
            Self::Requeue => ActKind::Requeue,
            Self::Park => ActKind::Park,
            Self::ShowAgain => ActKind::ShowAgain,
        }
    }

    /// The word of its act.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.act().as_str()
    }

    /// The event of the command, if the order moves it.
    fn event(self) -> Option<Event> {
        match self {
            Self::Requeue => Some(Event::Requeue),
            Self::Park => Some(Event::Park),
            Self::ShowAgain => None,
        }
    }
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What to do.
    pub kind: OrderKind,
    /// With which commands, each once, at most [`MAX_ORDERED`].
    pub commands: Vec<CommandId>,
    /// Only with those that are in this state: what somebody else has moved since it was read is left alone.
    pub if_state: Option<State>,
    /// By whom, and why.
    pub by: By,
}

impl Order {
    /// To show the outcome of one command again.
    pub(super) fn show_again(command_id: CommandId, by: By) -> Self {
        Self { kind: OrderKind::ShowAgain, commands: vec![command_id], if_state: None, by }
    }

    /// What became of an order on one command, or why nothing did.
    pub(super) fn only(&self, carried_out: &CarriedOut) -> Result<(), ActError> {
        let [command_id] = self.commands[..] else { return Ok(()) };
        Err(match (carried_out.first(), self.kind.event()) {
            (Ordered::OtherState(from), Some(event)) => IllegalMove { from, event }.into(),
            (Ordered::Done | Ordered::OtherState(_), _) => return Ok(()),
            (Ordered::UnknownCommand, _) => ActError::NotFound(command_id),
            (Ordered::NoOutcome, _) => ActError::NoOutcome,
            (Ordered::NothingToShow, _) => ActError::NothingToShow,
        })
    }

    /// What a command in this state becomes; `None` if the order does not move it.
    pub(super) fn moves(&self, state: State) -> Result<Option<Exceptional>, Ordered> {
        if self.if_state.is_some_and(|wanted| wanted != state) {
            return Err(Ordered::OtherState(state));
        }
        match self.kind.event() {
            None => Ok(None),
            Some(event) => state.after(event).map_err(|illegal| Ordered::OtherState(illegal.from)),
        }
    }
}

/// What became of one command of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordered {
    /// It was done.
    Done,
    /// Nothing: the command is in this state, which is not the wanted one, or does not allow it.
    OtherState(State),
    /// The ledger has no such command.
    UnknownCommand,
    /// No worker has reported on it, so there is nothing to show.
    NoOutcome,
    /// Its outcome has nothing to show.
    NothingToShow,
}

impl Ordered {
    /// The word in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::OtherState(_) => "other_state",
            Self::UnknownCommand => "no_such_command",
            Self::NoOutcome => "no_outcome",
            Self::NothingToShow => "nothing_to_show",
        }
    }
}

impl From<Ordered> for ShowAgain {
    /// What became of an order to show an outcome again, whatever the state.
    fn from(ordered: Ordered) -> Self {
        match ordered {
            Ordered::Done => Self::Ordered,
            Ordered::NoOutcome => Self::NoOutcome,
            Ordered::NothingToShow | Ordered::OtherState(_) => Self::NothingToShow,
            Ordered::UnknownCommand => Self::UnknownCommand,
        }
    }
}

/// What became of an order.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedOut {
    /// The number of the act; `None` if nothing was done.
    pub act_id: Option<u64>,
    /// What became of each command, in their order.
    pub results: Vec<Ordered>,
}

impl CarriedOut {
    /// How many commands were changed.
    #[must_use]
    pub fn done(&self) -> usize {
        self.results.iter().filter(|result| **result == Ordered::Done).count()
    }

    /// What became of the first command.
    #[must_use]
    pub fn first(&self) -> Ordered {
        self.results.first().copied().unwrap_or(Ordered::UnknownCommand)
    }
}

/// Acts of people and their programs that reach the running service.
pub trait Acts: Send + Sync {
    /// Carries out an order on commands, and records it as one act, all in one transaction.
    ///
    /// Cancel safe: an order that was handed over is carried out.
    fn order(&self, order: Order) -> BoxFuture<'static, Result<CarriedOut, AcceptError>>;

    /// Writes down an act that changes nothing in the ledger.
    ///
    /// Resolves after commit and sync.
    fn record(&self, act: NewAct) -> BoxFuture<'static, Result<(), AcceptError>>;
}
