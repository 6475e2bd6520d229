//! The states of a command, and every legal move between them.
//!
//! ```text
//!               accept                 confirmed and routed
//!   (nothing) ─────────▶ pending ──────────────────────────▶ published
//!                         │  ▲ ▲                               │  │
//!      max_attempts, park │  │ └───────── late return ─────────┘  │
//!                         ▼  │ requeue                            │ requeue
//!                        parked                pending ◀──────────┘
//! ```
//!
//! A published command that came back from a queue is `rejected` or, if no queue was bound for it, `unrouted`, until it is
//! requeued or a worker reports its outcome.

use strum::{EnumString, IntoStaticStr, VariantArray};

use super::Why;
use crate::command::Seq;

/// The state of a command, as people see it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, IntoStaticStr, VariantArray, EnumString,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Committed; the broker has not confirmed it yet.
    Pending,
    /// The broker confirmed it and routed it to a queue.
    Published,
    /// The broker refused it too often, or an operator parked it; an operator must act.
    Parked,
    /// It was published, and a worker rejected it or its queue dropped it; an operator must act.
    Rejected,
    /// It was published, and no queue was bound for it; an operator must act.
    Unrouted,
}

/// The state in an exception row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Exceptional {
    /// To be tried again automatically.
    Retrying,
    /// Waits for an operator.
    Parked,
    /// To be tried again because an operator requeued it.
    Requeued,
}

impl Exceptional {
    /// The word in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What happens to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The broker confirmed it and did not return it.
    Confirmed,
    /// The broker refused or returned it, and it may be tried again.
    Refused,
    /// The broker refused or returned it too often.
    RefusedPermanently,
    /// An operator has it published (again).
    Requeue,
    /// An operator sets it aside.
    Park,
}

impl Event {
    /// The event as a participle, for people.
    #[must_use]
    pub fn as_participle(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Refused => "refused",
            Self::RefusedPermanently => "refused permanently",
            Self::Requeue => "requeued",
            Self::Park => "parked",
        }
    }
}

impl State {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word in answers, metrics and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The state of the command at `seq`, given the cursor and its exception.
    #[must_use]
    pub fn of(seq: Seq, cursor: Seq, exception: Option<Exceptional>) -> Self {
        match exception {
            Some(Exceptional::Parked) => Self::Parked,
            Some(Exceptional::Retrying | Exceptional::Requeued) => Self::Pending,
            None if seq <= cursor => Self::Published,
            None => Self::Pending,
        }
    }

    /// The state of a command for people, if a dead letter of it is open.
    ///
    /// The relay needs no more than [`State::of`]: to it the command is published.
    #[must_use]
    pub fn or_came_back(self, open: Option<Why>) -> Self {
        match (self, open) {
            (Self::Published, Some(Why::Unrouted)) => Self::Unrouted,
            (Self::Published, Some(Why::Rejected | Why::DeliveryLimit | Why::Expired | Why::Overflowed)) => {
                Self::Rejected
            }
            _ => self,
        }
    }

    /// The exception after `event`, `Ok(None)` for none; `Err` if the move is illegal from this state.
    ///
    /// INVARIANT 3: only a confirmed, routed publish or an operator's act leads out of `pending`.
    pub fn after(self, event: Event) -> Result<Option<Exceptional>, IllegalMove> {
        match (self, event) {
            // A confirm of a published or parked command is the late answer to an earlier publish.
            (_, Event::Confirmed) => Ok(None),
            (Self::Parked, Event::Refused) | (_, Event::RefusedPermanently) => Ok(Some(Exceptional::Parked)),
            (_, Event::Refused) => Ok(Some(Exceptional::Retrying)),
            (Self::Parked | Self::Published | Self::Rejected | Self::Unrouted, Event::Requeue) => {
                Ok(Some(Exceptional::Requeued))
            }
            (Self::Pending, Event::Park) => Ok(Some(Exceptional::Parked)),
            (Self::Pending, Event::Requeue)
            | (Self::Published | Self::Parked | Self::Rejected | Self::Unrouted, Event::Park) => {
                Err(IllegalMove { from: self, event })
            }
        }
    }

    /// The exception after a refusal by the broker. There always is one: `Retrying` if the rules give none.
    ///
    /// For [`Event::Refused`] and [`Event::RefusedPermanently`].
    #[must_use]
    pub fn refused(self, event: Event) -> Exceptional {
        self.after(event).ok().flatten().unwrap_or(Exceptional::Retrying)
    }
}

/// A move that no rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a command that is {} cannot be {}", from.as_str(), event.as_participle())]
pub struct IllegalMove {
    /// The command's state.
    pub from: State,
    /// The event.
    pub event: Event,
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 5] = ["pending", "published", "parked", "rejected", "unrouted"];

    #[test]
    fn the_words_of_the_states_are_a_contract_and_read_back() {
        assert!(State::ALL.iter().copied().map(State::as_str).eq(WORDS));
        for &state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("retrying".parse::<State>().is_err());
        assert_eq!(serde_json::to_value(State::ALL).unwrap(), serde_json::json!(WORDS));

        let exceptional = ["retrying", "parked", "requeued"];
        let variants = [Exceptional::Retrying, Exceptional::Parked, Exceptional::Requeued];
        assert_eq!(variants.map(Exceptional::as_str), exceptional);
        assert_eq!(exceptional.map(str::parse), variants.map(Ok));
    }

    #[test]
    fn the_state_follows_from_cursor_and_exception() {
        assert_eq!(State::of(5, 4, None), State::Pending);
        assert_eq!(State::of(5, 5, None), State::Published);
        assert_eq!(State::of(5, 9, Some(Exceptional::Retrying)), State::Pending);
        assert_eq!(State::of(5, 9, Some(Exceptional::Requeued)), State::Pending);
        assert_eq!(State::of(5, 4, Some(Exceptional::Parked)), State::Parked);
    }

    #[test]
    fn a_published_command_that_came_back_says_so_until_it_is_dealt_with() {
        assert_eq!(State::Published.or_came_back(Some(Why::DeliveryLimit)), State::Rejected);
        assert_eq!(State::Published.or_came_back(Some(Why::Unrouted)), State::Unrouted);
        assert_eq!(State::Published.or_came_back(None), State::Published);
        assert_eq!(State::Pending.or_came_back(Some(Why::Rejected)), State::Pending);
        for state in [State::Rejected, State::Unrouted] {
            assert_eq!(state.after(Event::Requeue), Ok(Some(Exceptional::Requeued)));
            assert!(state.after(Event::Park).is_err());
        }
    }

    #[test]
    fn only_a_confirm_or_an_operator_leads_out_of_pending() {
        for event in
            [Event::Confirmed, Event::Refused, Event::RefusedPermanently, Event::Requeue, Event::Park]
        {
            let leads_out = match State::Pending.after(event) {
                Ok(exception) => State::of(5, 5, exception) != State::Pending,
                Err(_) => false,
            };
            let may = matches!(event, Event::Confirmed | Event::RefusedPermanently | Event::Park);
            assert_eq!(leads_out, may, "{event:?}");
        }
    }
}
