//! Changes for the writer that are neither accepts nor the relay's: contexts, outcomes, dead letters, findings,
//! credential uses.

use rusqlite::Transaction;
use tokio::sync::oneshot;

use super::{acts, contexts, credentials, dead_letters, findings, operator, outcomes};
use crate::{
    command::outcome::Outcome,
    ledger::{
        AcceptError, By, CarriedOut, Collected, CredentialUse, DeadLetter, NewAct, Order, RefusedReport,
        Registering, Registration, Reported, Shown, findings::Reconciled,
    },
    time::Timestamp,
};

/// A large value counts as one row for this many bytes.
const PAGE_BYTES: usize = 4096;

type Reply<A> = oneshot::Sender<Result<A, AcceptError>>;

/// A change on its way to the writer: the request, its answer, and the caller that waits for the commit.
pub(super) struct Asked<Q, A> {
    what: Q,
    answer: Option<A>,
    reply: Reply<A>,
}

impl<Q, A> Asked<Q, A> {
    fn new(what: Q, reply: Reply<A>) -> Self {
        Self { what, answer: None, reply }
    }

    fn tell(self, committed: bool) {
        let answer = self.answer.filter(|_| committed).ok_or(AcceptError::Unavailable);
        // A caller that no longer waits retries, or looks it up.
        self.reply.send(answer).ok();
    }
}

/// A change of what is registered, reported or found. Changes are applied in the order of the requests.
pub(super) enum Change {
    Register(Asked<(Vec<Registration>, By), Registering>),
    Unregister(Asked<(String, By), bool>),
    Report(Box<Asked<(Outcome, bool), Reported>>),
    RefuseReport(Asked<RefusedReport, ()>),
    SettleShowings(Asked<Vec<Shown>, ()>),
    Order(Box<Asked<Order, CarriedOut>>),
    Collect(Asked<Vec<DeadLetter>, Vec<Collected>>),
    Reconciled(Asked<Reconciled, ()>),
    Credentials(Asked<Vec<CredentialUse>, ()>),
    Act(Box<Asked<NewAct, ()>>),
}

impl Change {
    pub(super) fn register(registrations: Vec<Registration>, by: By, reply: Reply<Registering>) -> Self {
        Self::Register(Asked::new((registrations, by), reply))
    }

    pub(super) fn unregister(key: String, by: By, reply: Reply<bool>) -> Self {
        Self::Unregister(Asked::new((key, by), reply))
    }

    pub(super) fn report(outcome: Outcome, shows: bool, reply: Reply<Reported>) -> Self {
        Self::Report(Box::new(Asked::new((outcome, shows), reply)))
    }

    pub(super) fn refuse_report(refused: RefusedReport, reply: Reply<()>) -> Self {
        Self::RefuseReport(Asked::new(refused, reply))
    }

    pub(super) fn settle_showings(shown: Vec<Shown>, reply: Reply<()>) -> Self {
        Self::SettleShowings(Asked::new(shown, reply))
    }

    pub(super) fn order(order: Order, reply: Reply<CarriedOut>) -> Self {
        Self::Order(Box::new(Asked::new(order, reply)))
    }

    pub(super) fn act(act: NewAct, reply: Reply<()>) -> Self {
        Self::Act(Box::new(Asked::new(act, reply)))
    }

    pub(super) fn collect(letters: Vec<DeadLetter>, reply: Reply<Vec<Collected>>) -> Self {
        Self::Collect(Asked::new(letters, reply))
    }

    pub(super) fn reconciled(reconciled: Reconciled, reply: Reply<()>) -> Self {
        Self::Reconciled(Asked::new(reconciled, reply))
    }

    pub(super) fn credentials(uses: Vec<CredentialUse>, reply: Reply<()>) -> Self {
        Self::Credentials(Asked::new(uses, reply))
    }

    /// Maximum number of rows or pages that it writes.
    pub(super) fn rows(&self) -> usize {
        match self {
            // With the act. Its rows about the contexts are adjacent, hundreds to a page.
            Self::Register(asked) => asked.what.0.len() + 2,
            Self::Unregister(_) => 3,
            Self::RefuseReport(_) => 2,
            // Of each command an exception or its showings, a dead letter, and that the act changed it.
            Self::Order(asked) => 3 * asked.what.commands.len() + 1,
            Self::Act(_) => 1,
            // An instance may be as large as hundreds of rows, and accepts wait for the same commit.
            Self::Report(asked) => {
                let instance = asked.what.0.instance.as_ref().map_or(0, |instance| instance.json.get().len());
                3 + instance / PAGE_BYTES
            }
            Self::SettleShowings(asked) => 2 * asked.what.len(),
            Self::Collect(asked) => asked.what.iter().map(|letter| 2 + letter.body.len() / PAGE_BYTES).sum(),
            Self::Reconciled(asked) => asked.what.findings.len() + asked.what.cleared.len() + 1,
            Self::Credentials(asked) => asked.what.len(),
        }
    }

    pub(super) fn apply(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        match self {
            Self::Register(asked) => {
                let (registrations, by) = &asked.what;
                asked.answer = Some(contexts::register(transaction, registrations, by)?);
            }
            Self::Unregister(asked) => {
                let (key, by) = &asked.what;
                asked.answer = Some(contexts::unregister(transaction, key, by)?);
            }
            Self::Report(asked) => {
                let (outcome, shows) = &asked.what;
                asked.answer = Some(outcomes::report(transaction, outcome, *shows)?);
            }
            Self::RefuseReport(asked) => asked.answer = Some(outcomes::refuse(transaction, &asked.what)?),
            Self::SettleShowings(asked) => {
                asked.answer = Some(outcomes::settle(transaction, &asked.what)?);
            }
            Self::Order(asked) => asked.answer = Some(operator::carry_out(transaction, &asked.what)?),
            Self::Collect(asked) => {
                let collected = asked.what.iter().map(|letter| dead_letters::collect(transaction, letter));
                asked.answer = Some(collected.collect::<rusqlite::Result<_>>()?);
            }
            Self::Reconciled(asked) => asked.answer = Some(findings::write(transaction, &asked.what)?),
            Self::Credentials(asked) => asked.answer = Some(credentials::keep(transaction, &asked.what)?),
            Self::Act(asked) => {
                acts::add(transaction, &asked.what, Timestamp::now())?;
                asked.answer = Some(());
            }
        }
        Ok(())
    }

    /// Sends the answer to the caller, after the commit succeeded or failed.
    pub(super) fn tell(self, committed: bool) {
        match self {
            Self::Register(asked) => asked.tell(committed),
            Self::Unregister(asked) => asked.tell(committed),
            Self::Report(asked) => asked.tell(committed),
            Self::RefuseReport(asked) => asked.tell(committed),
            Self::SettleShowings(asked) => asked.tell(committed),
            Self::Order(asked) => asked.tell(committed),
            Self::Collect(asked) => asked.tell(committed),
            Self::Reconciled(asked) => asked.tell(committed),
            Self::Credentials(asked) => asked.tell(committed),
            Self::Act(asked) => asked.tell(committed),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::{
        command::{
            CommandId, Grant, Registered, TaskRef,
            outcome::{Instance, Kind},
        },
        ledger::{ActKind, Actor, ShowingEnd, Via, findings::Finding},
    };

    fn reply<A>() -> Reply<A> {
        oneshot::channel().0
    }

    #[test]
    fn what_a_change_writes_is_known_before() {
        let command_id = CommandId::from_bytes([1; 16]);
        let registered = Registered { grant: Grant::unbound(TaskRef::default()), expires_at: None };
        let registered_at = Timestamp::UNIX_EPOCH;
        let one = Registration { key: "k".to_owned(), message_id: None, registered, registered_at };
        let by = By::from(Actor::unnamed(Via::Api));
        assert_eq!(Change::register(vec![one; 3], by.clone(), reply()).rows(), 5);
        assert_eq!(Change::unregister("k".to_owned(), by.clone(), reply()).rows(), 3);
        let order = |ids: usize| Order {
            commands: vec![command_id; ids],
            ..Order::show_again(command_id, by.clone())
        };
        assert_eq!(Change::order(order(1), reply()).rows(), 4);
        assert_eq!(Change::order(order(1000), reply()).rows(), 3001);
        assert_eq!(Change::act(NewAct::new(ActKind::Reload, &by, 0), reply()).rows(), 1);
        let refused = RefusedReport { command_id, kind: Kind::Applied, reason: String::new() };
        assert_eq!(Change::refuse_report(refused, reply()).rows(), 2);

        let outcome = |instance_bytes: Option<usize>| {
            let instance = instance_bytes.map(|bytes| {
                let json = RawValue::from_string(format!("\"{}\"", "x".repeat(bytes - 2))).unwrap();
                Instance { instance_id: "i".to_owned(), json }
            });
            Outcome { command_id, kind: Kind::Applied, status: None, message: None, instance }
        };
        for (instance_bytes, rows) in [(None, 3), (Some(4095), 3), (Some(4096), 4), (Some(3 * 4096), 6)] {
            assert_eq!(
                Change::report(outcome(instance_bytes), true, reply()).rows(),
                rows,
                "{instance_bytes:?}"
            );
        }
        let shown =
            Shown { id: 1, command_id, target: "i".to_owned(), end: ShowingEnd::Shown { version: None } };
        assert_eq!(Change::settle_showings(vec![shown; 3], reply()).rows(), 6);

        let findings = vec![(1, Finding::seen()), (2, Finding::seen())];
        let reconciled = Reconciled { findings, cleared: vec![3, 4, 5], ..Reconciled::default() };
        assert_eq!(Change::reconciled(reconciled, reply()).rows(), 6);
    }
}
