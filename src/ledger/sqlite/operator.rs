//! An operator's acts on a ledger file, from another process while `serve` runs.

use std::time::Duration;

use futures_util::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{SqliteClient, columns, dead_letters, outcomes, prune};
use crate::{
    command::{CommandId, Seq},
    ledger::{
        ActError, OperatorActs, Progress, ShowAgain,
        state::{Event, Exceptional, IllegalMove, State},
    },
    time::Timestamp,
};

impl OperatorActs for SqliteClient {
    fn requeue(&self, command_id: CommandId) -> BoxFuture<'static, Result<(), ActError>> {
        self.act(move |transaction| move_on(transaction, command_id, Event::Requeue, REQUEUED))
    }

    fn park(&self, command_id: CommandId) -> BoxFuture<'static, Result<(), ActError>> {
        self.act(move |transaction| move_on(transaction, command_id, Event::Park, "parked by an operator"))
    }

    fn requeue_parked(&self) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>> {
        self.act(|transaction| {
            let parked: Vec<(i64, CommandId)> = transaction
                .prepare(
                    "SELECT e.seq, c.command_id FROM exceptions e JOIN commands c ON c.seq = e.seq
                     WHERE e.state = 'parked' ORDER BY e.seq",
                )?
                .query_map([], |row| Ok((row.get("seq")?, row.get("command_id")?)))?
                .collect::<rusqlite::Result<_>>()?;
            let now = Timestamp::now().as_millisecond();
            for (seq, _) in &parked {
                write(transaction, *seq as Seq, Exceptional::Requeued, Event::Requeue, REQUEUED, now)?;
            }
            Ok(parked.into_iter().map(|(_, id)| id).collect())
        })
    }

    fn show_again(&self, command_id: CommandId) -> BoxFuture<'static, Result<(), ActError>> {
        self.act(move |transaction| match outcomes::show_again(transaction, command_id)? {
            ShowAgain::Ordered => Ok(()),
            ShowAgain::NoOutcome => Err(ActError::NoOutcome),
            ShowAgain::NothingToShow => Err(ActError::NothingToShow),
            ShowAgain::UnknownCommand => Err(ActError::NotFound(command_id)),
        })
    }

    fn show_parked_again(&self) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>> {
        self.act(|transaction| Ok(outcomes::show_parked_again(transaction)?))
    }

    fn remove_strays(&self, ids: Vec<u64>) -> BoxFuture<'static, Result<u64, ActError>> {
        self.act(move |transaction| Ok(dead_letters::remove(transaction, &ids)?))
    }

    fn prunable(&self, before: Timestamp) -> BoxFuture<'static, Result<u64, ActError>> {
        self.run(move |connection| Ok(prune::count(connection, before)?))
    }

    fn prune(&self, before: Timestamp, mut progress: Progress) -> BoxFuture<'static, Result<u64, ActError>> {
        const ROWS: usize = 256;
        self.run(move |connection| {
            let (mut from, mut pruned) = (0, 0);
            loop {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let step = prune::step(&transaction, from, prune::EVERYWHERE, before, ROWS)?;
                transaction.commit()?;
                pruned += step.pruned as u64;
                progress(pruned);
                match step.next {
                    Some(next) => from = next,
                    None => return Ok(pruned),
                }
                // Lets the writer of a running service have its turn.
                std::thread::sleep(Duration::from_millis(5));
            }
        })
    }
}

const REQUEUED: &str = "requeued by an operator";

fn move_on(
    transaction: &Connection,
    command_id: CommandId,
    event: Event,
    note: &str,
) -> Result<(), ActError> {
    let found = transaction
        .query_row(
            "SELECT c.seq, (SELECT published_through FROM cursor) AS cursor, e.state
             FROM commands c LEFT JOIN exceptions e ON e.seq = c.seq WHERE c.command_id = ?1",
            [command_id.as_bytes().as_slice()],
            |row| Ok((columns::seq(row, "seq")?, columns::seq(row, "cursor")?, columns::word(row, "state")?)),
        )
        .optional()?;
    let Some((seq, cursor, exception)) = found else { return Err(ActError::NotFound(command_id)) };
    let state = State::of(seq, cursor, exception);
    let Some(next) = state.after(event)? else {
        return Err(ActError::Illegal(IllegalMove { from: state, event }));
    };
    Ok(write(transaction, seq, next, event, note, Timestamp::now().as_millisecond())?)
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
    if event == Event::Requeue {
        dead_letters::close(transaction, seq as i64)?;
    }
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
