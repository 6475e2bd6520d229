//! What an operator may do to a command, from another process while `serve` runs.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{
    columns, outcomes, prune,
    schema::{self, OpenError},
};
use crate::{
    command::{CommandId, Seq},
    ledger::{
        ShowAgain,
        state::{Event, Exceptional, IllegalMove, State},
    },
    time::Timestamp,
};

/// A connection for an operator's acts. Each act is one short transaction, recorded in `operator_acts`.
#[derive(Debug)]
pub struct OperatorActs {
    connection: Connection,
}

/// Why an act was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The ledger has no such command.
    #[error("the ledger has no command {0}")]
    NotFound(CommandId),
    /// The log has no command at this place.
    #[error("the ledger has no command with seq {0}")]
    NoSuchPlace(Seq),
    /// The command's state does not allow it.
    #[error(transparent)]
    Illegal(#[from] IllegalMove),
    /// No worker has reported anything of this command, or this ledger is of a program that asked for no reports.
    #[error("no worker has reported an outcome of it")]
    NoOutcome,
    /// There is an outcome, and nothing of it to show.
    #[error("it did not come from a card, and its outcome has no instance")]
    NothingToShow,
    /// SQLite failed.
    #[error("the ledger could not be written")]
    Sqlite(#[from] rusqlite::Error),
}

impl OperatorActs {
    /// Opens a ledger that exists, beside its writer if there is one.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { connection: schema::open_actor(path)? })
    }

    /// The id of the command at a place in the log.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn id_at(&self, seq: Seq) -> Result<Option<CommandId>, ActError> {
        Ok(columns::id_at(&self.connection, seq)?)
    }

    /// Has a command published again that is parked or was published. The relay finds it within a second or two.
    ///
    /// # Errors
    /// [`ActError::Illegal`] for a command that is still pending.
    pub fn requeue(&mut self, command_id: CommandId) -> Result<(), ActError> {
        self.act(command_id, Event::Requeue, "requeued by an operator")
    }

    /// Takes a pending command out of the way, until it is requeued.
    ///
    /// # Errors
    /// [`ActError::Illegal`] for a command that is not pending.
    pub fn park(&mut self, command_id: CommandId) -> Result<(), ActError> {
        self.act(command_id, Event::Park, "parked by an operator")
    }

    /// Requeues everything that is parked; returns what it was.
    ///
    /// # Errors
    /// When SQLite fails; nothing is requeued then.
    pub fn requeue_parked(&mut self) -> Result<Vec<CommandId>, ActError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let parked: Vec<(i64, [u8; 16])> = transaction
            .prepare(
                "SELECT e.seq, c.command_id FROM exceptions e JOIN commands c ON c.seq = e.seq
                 WHERE e.state = 'parked' ORDER BY e.seq",
            )?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let now = Timestamp::now().as_millisecond();
        for (seq, _) in &parked {
            write(
                &transaction,
                *seq as Seq,
                Exceptional::Requeued,
                Event::Requeue,
                "requeued by an operator",
                now,
            )?;
        }
        transaction.commit()?;
        Ok(parked.into_iter().map(|(_, id)| CommandId::from_bytes(id)).collect())
    }

    /// Shows the outcome of a command again: what of it was rejected or waits; all of it if all of it is shown.
    ///
    /// # Errors
    /// [`ActError::NoOutcome`] and [`ActError::NothingToShow`] if there is nothing to show.
    pub fn show_again(&mut self, command_id: CommandId) -> Result<(), ActError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match outcomes::show_again(&transaction, command_id)? {
            ShowAgain::Ordered => Ok(transaction.commit()?),
            ShowAgain::NoOutcome => Err(ActError::NoOutcome),
            ShowAgain::NothingToShow => Err(ActError::NothingToShow),
            ShowAgain::UnknownCommand => Err(ActError::NotFound(command_id)),
        }
    }

    /// Shows every rejected outcome again; returns their commands.
    ///
    /// # Errors
    /// When SQLite fails; nothing is shown again then.
    pub fn show_parked_again(&mut self) -> Result<Vec<CommandId>, ActError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let ordered = outcomes::show_parked_again(&transaction)?;
        transaction.commit()?;
        Ok(ordered)
    }

    /// How many published commands that were received before `before` the ledger holds.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn prunable(&self, before: Timestamp) -> Result<u64, ActError> {
        Ok(prune::count(&self.connection, before)?)
    }

    /// Removes the published commands that were received before `before`, the oldest first, and returns how many. What is
    /// pending or parked stays. After each small transaction `progress` is told how many it were so far.
    ///
    /// # Errors
    /// When SQLite fails; what was removed before stays removed.
    pub fn prune(&mut self, before: Timestamp, mut progress: impl FnMut(u64)) -> Result<u64, ActError> {
        const ROWS: usize = 256;
        let (mut from, mut pruned) = (0, 0);
        loop {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let step = prune::step(&transaction, from, prune::EVERYWHERE, before, ROWS)?;
            transaction.commit()?;
            pruned += step.pruned as u64;
            progress(pruned);
            match step.next {
                Some(next) => from = next,
                None => return Ok(pruned),
            }
            // The writer of a running service waits for its turn meanwhile.
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn act(&mut self, command_id: CommandId, event: Event, note: &str) -> Result<(), ActError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = transaction
            .query_row(
                "SELECT c.seq, (SELECT published_through FROM cursor), e.state
                 FROM commands c LEFT JOIN exceptions e ON e.seq = c.seq WHERE c.command_id = ?1",
                [command_id.as_bytes().as_slice()],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<String>>(2)?)),
            )
            .optional()?;
        let Some((seq, cursor, exception)) = found else { return Err(ActError::NotFound(command_id)) };
        let exception = exception.and_then(|word| word.parse().ok());
        let state = State::of(seq as Seq, cursor as Seq, exception);
        let Some(next) = state.after(event)? else {
            return Err(ActError::Illegal(IllegalMove { from: state, event }));
        };
        write(&transaction, seq as Seq, next, event, note, Timestamp::now().as_millisecond())?;
        transaction.commit()?;
        Ok(())
    }
}

fn write(
    transaction: &Connection,
    seq: Seq,
    state: Exceptional,
    event: Event,
    note: &str,
    now: i64,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO exceptions (seq, state, attempts, next_attempt_at, changed_at, note)
         VALUES (?1, ?2, 0, ?3, ?3, ?4)
         ON CONFLICT (seq) DO UPDATE SET state = ?2, attempts = 0, next_attempt_at = ?3, changed_at = ?3, note = ?4",
        params![seq as i64, state.as_str(), now, note],
    )?;
    let act = match event {
        Event::Requeue => "requeue",
        _ => "park",
    };
    transaction.execute(
        "INSERT INTO operator_acts (acted_at, seq, act) VALUES (?1, ?2, ?3)",
        params![now, seq as i64, act],
    )?;
    Ok(())
}
