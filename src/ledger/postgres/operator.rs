//! What an operator does to a ledger, whether or not a service is running.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::{
    Error, PostgresClient, dead_letters,
    link::{Link, Transaction},
    outcomes, prune,
    values::{Columns, number, uuid, values},
};
use crate::{
    command::CommandId,
    ledger::{
        ActError, OperatorActs, Progress, ShowAgain,
        state::{Event, Exceptional, IllegalMove, State},
    },
    time::Timestamp,
};

/// The note of an exception that an operator requeued.
const REQUEUED: &str = "requeued by an operator";

/// The note of an exception that an operator parked.
const PARKED: &str = "parked by an operator";

impl OperatorActs for PostgresClient {
    fn requeue(&self, command_id: CommandId) -> BoxFuture<'static, Result<(), ActError>> {
        self.links.act(move |transaction| async move {
            move_on(&transaction, command_id, Event::Requeue, REQUEUED).await?;
            Ok(transaction.commit().await?)
        })
    }

    fn park(&self, command_id: CommandId) -> BoxFuture<'static, Result<(), ActError>> {
        self.links.act(move |transaction| async move {
            move_on(&transaction, command_id, Event::Park, PARKED).await?;
            Ok(transaction.commit().await?)
        })
    }

    fn requeue_parked(&self) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>> {
        self.links.act(|transaction| async move {
            let requeued = requeue_parked(&transaction).await?;
            transaction.commit().await?;
            Ok(requeued)
        })
    }

    fn show_again(&self, command_id: CommandId) -> BoxFuture<'static, Result<(), ActError>> {
        self.links.act(move |transaction| async move {
            match outcomes::show_again(&transaction, command_id).await? {
                ShowAgain::Ordered => Ok(transaction.commit().await?),
                ShowAgain::NoOutcome => Err(ActError::NoOutcome),
                ShowAgain::NothingToShow => Err(ActError::NothingToShow),
                ShowAgain::UnknownCommand => Err(ActError::NotFound(command_id)),
            }
        })
    }

    fn show_parked_again(&self) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>> {
        self.links.act(|transaction| async move {
            let ordered = outcomes::show_parked_again(&transaction).await?;
            transaction.commit().await?;
            Ok(ordered)
        })
    }

    fn remove_strays(&self, ids: Vec<u64>) -> BoxFuture<'static, Result<u64, ActError>> {
        self.links.act(move |transaction| async move {
            let removed = dead_letters::remove(&transaction, ids).await?;
            transaction.commit().await?;
            Ok(removed)
        })
    }

    fn prunable(&self, before: Timestamp) -> BoxFuture<'static, Result<u64, ActError>> {
        let reads = self.links.reads.clone();
        let counted = self.links.run(async move { prune::count(&reads, before).await });
        Box::pin(async move { Ok(counted.await?) })
    }

    fn prune(&self, before: Timestamp, progress: Progress) -> BoxFuture<'static, Result<u64, ActError>> {
        let changes = self.links.changes.clone();
        let pruned = self.links.run(async move { prune(&changes, before, progress).await });
        Box::pin(async move { Ok(pruned.await?) })
    }
}

impl From<Error> for ActError {
    fn from(error: Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Moves a command, and records the act. To be called within a transaction.
async fn move_on(
    transaction: &Transaction,
    command_id: CommandId,
    event: Event,
    note: &str,
) -> Result<(), ActError> {
    let cursor = prune::lock(transaction).await?;
    let found = transaction
        .query_opt(
            "SELECT c.seq, e.state FROM countersign.commands c LEFT JOIN countersign.exceptions e ON e.seq = c.seq
             WHERE c.command_id = $1",
            values![uuid(command_id)],
        )
        .await?;
    let Some(row) = found else { return Err(ActError::NotFound(command_id)) };
    let seq = row.seq("seq")?;
    let state = State::of(seq, cursor, row.word("state")?);
    let Some(next) = state.after(event)? else {
        return Err(ActError::Illegal(IllegalMove { from: state, event }));
    };
    Ok(write(transaction, vec![number(seq)], next, event, note).await?)
}

/// Requeues everything that is parked; returns what it was. To be called within a transaction.
async fn requeue_parked(transaction: &Transaction) -> Result<Vec<CommandId>, ActError> {
    prune::lock(transaction).await?;
    let parked = transaction
        .query(
            "SELECT e.seq, c.command_id FROM countersign.exceptions e JOIN countersign.commands c ON c.seq = e.seq
             WHERE e.state = 'parked' ORDER BY e.seq",
            values![],
        )
        .await?;
    let seqs: Vec<i64> = parked.iter().map(|row| row.seq("seq").map(number)).collect::<Result<_, _>>()?;
    write(transaction, seqs, Exceptional::Requeued, Event::Requeue, REQUEUED).await?;
    Ok(parked.iter().map(|row| row.id("command_id")).collect::<Result<_, _>>()?)
}

async fn write(
    transaction: &Transaction,
    seqs: Vec<i64>,
    state: Exceptional,
    event: Event,
    note: &str,
) -> Result<(), Error> {
    let now = Timestamp::now().as_millisecond();
    transaction
        .execute(
            "INSERT INTO countersign.exceptions (seq, state, attempts, next_attempt_at, changed_at, note)
             SELECT seq, $2, 0, $3, $3, $4 FROM unnest($1) AS moved (seq)
             ON CONFLICT (seq) DO UPDATE SET state = excluded.state, attempts = 0,
                next_attempt_at = excluded.next_attempt_at, changed_at = excluded.changed_at, note = excluded.note",
            values![seqs, state.as_str(), now, note],
        )
        .await?;
    if event == Event::Requeue {
        dead_letters::close(transaction, &seqs).await?;
    }
    let act = match event {
        Event::Requeue => "requeue",
        _ => "park",
    };
    transaction
        .execute(
            "INSERT INTO countersign.operator_acts (acted_at, seq, act)
             SELECT $2, seq, $3 FROM unnest($1) WITH ORDINALITY AS moved (seq, n) ORDER BY n",
            values![seqs, now, act],
        )
        .await?;
    Ok(())
}

/// Removes the published commands that were received before `before`, in small transactions; returns how many.
async fn prune(link: &Link, before: Timestamp, mut progress: Progress) -> Result<u64, Error> {
    const ROWS: usize = 256;
    let (mut from, mut pruned) = (0, 0);
    loop {
        let transaction = link.begin().await?;
        let step = prune::step(&transaction, from, before, ROWS).await?;
        transaction.commit().await?;
        pruned += step.pruned as u64;
        progress(pruned);
        match step.next {
            Some(next) => from = next,
            None => return Ok(pruned),
        }
        // The relay of a running service waits for its turn meanwhile.
        sleep(Duration::from_millis(5)).await;
    }
}
