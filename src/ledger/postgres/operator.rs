//! What an operator does to a ledger, whether or not a service is running.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::{
    Error, PostgresClient, acts, dead_letters,
    link::{Link, Transaction},
    outcomes, prune, relay_row,
    values::{Columns, number, uuid, values},
};
use crate::{
    command::CommandId,
    ledger::{
        ActError, ActKind, By, NewAct, OperatorActs, Progress, Requeue, RequeueStep, ShowAgain, operator,
        state::{Event, Exceptional, IllegalMove, State},
    },
    time::Timestamp,
};

impl OperatorActs for PostgresClient {
    fn requeue(&self, command_id: CommandId, by: By) -> BoxFuture<'static, Result<(), ActError>> {
        self.links.act(move |transaction| async move {
            move_on(&transaction, command_id, Event::Requeue, &by).await?;
            Ok(transaction.commit().await?)
        })
    }

    fn park(&self, command_id: CommandId, by: By) -> BoxFuture<'static, Result<(), ActError>> {
        self.links.act(move |transaction| async move {
            move_on(&transaction, command_id, Event::Park, &by).await?;
            Ok(transaction.commit().await?)
        })
    }

    fn requeue_parked(&self, by: By) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>> {
        self.links.act(move |transaction| async move {
            let requeued = requeue_parked(&transaction, &by).await?;
            transaction.commit().await?;
            Ok(requeued)
        })
    }

    fn begin(&self, act: NewAct) -> BoxFuture<'static, Result<u64, ActError>> {
        self.links.act(move |transaction| async move {
            let id = acts::add(&transaction, &act, Timestamp::now()).await?;
            transaction.commit().await?;
            Ok(id.cast_unsigned())
        })
    }

    fn resume(&self, act: u64, by: By) -> BoxFuture<'static, Result<(u64, Requeue), ActError>> {
        self.links.act(move |transaction| async move {
            let stopped = acts::requeue(&transaction, act).await?;
            if !stopped.may_go_on(stopped.done_through) {
                return Err(ActError::Overtaken(act));
            }
            let rest = stopped.rest(act);
            let next = acts::add(&transaction, &rest.act(by), Timestamp::now()).await?.cast_unsigned();
            let stopped = Requeue { continued_by: Some(next), ..stopped };
            acts::detail(&transaction, act, stopped.detail_text()).await?;
            transaction.commit().await?;
            Ok((next, rest))
        })
    }

    fn requeue_step(&self, step: RequeueStep) -> BoxFuture<'static, Result<Requeue, ActError>> {
        self.links.act(move |transaction| async move {
            let after = requeue_step(&transaction, &step).await?;
            transaction.commit().await?;
            Ok(after)
        })
    }

    fn show_again(&self, command_id: CommandId, by: By) -> BoxFuture<'static, Result<(), ActError>> {
        self.links.act(move |transaction| async move {
            match outcomes::show_again(&transaction, command_id, &by).await? {
                ShowAgain::Ordered => Ok(transaction.commit().await?),
                ShowAgain::NoOutcome => Err(ActError::NoOutcome),
                ShowAgain::NothingToShow => Err(ActError::NothingToShow),
                ShowAgain::UnknownCommand => Err(ActError::NotFound(command_id)),
            }
        })
    }

    fn show_parked_again(&self, by: By) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>> {
        self.links.act(move |transaction| async move {
            let ordered = outcomes::show_parked_again(&transaction, &by).await?;
            transaction.commit().await?;
            Ok(ordered)
        })
    }

    fn remove_strays(&self, ids: Vec<u64>, by: By) -> BoxFuture<'static, Result<u64, ActError>> {
        self.links.act(move |transaction| async move {
            let removed = dead_letters::remove(&transaction, ids).await?;
            if !removed.is_empty() {
                acts::add(&transaction, &NewAct::remove_strays(&by, &removed), Timestamp::now()).await?;
            }
            transaction.commit().await?;
            Ok(removed.len() as u64)
        })
    }

    fn prunable(&self, before: Timestamp) -> BoxFuture<'static, Result<u64, ActError>> {
        let reads = self.links.reads.clone();
        let counted = self.links.run(async move { prune::count(&reads, before).await });
        Box::pin(async move { Ok(counted.await?) })
    }

    fn prune(
        &self,
        before: Timestamp,
        by: By,
        progress: Progress,
    ) -> BoxFuture<'static, Result<u64, ActError>> {
        let changes = self.links.changes.clone();
        let pruned = self.links.run(async move { prune(&changes, before, &by, progress).await });
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
    by: &By,
) -> Result<(), ActError> {
    let cursor = relay_row::lock(transaction).await?;
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
    let kind = if event == Event::Park { ActKind::Park } else { ActKind::Requeue };
    let now = Timestamp::now();
    let act = acts::add(transaction, &NewAct::new(kind, by, 1), now).await?;
    Ok(write(transaction, act, vec![number(seq)], next, now).await?)
}

/// Requeues everything that is parked; returns what it was. To be called within a transaction.
async fn requeue_parked(transaction: &Transaction, by: &By) -> Result<Vec<CommandId>, ActError> {
    relay_row::lock(transaction).await?;
    let parked = transaction
        .query(
            "SELECT e.seq, c.command_id FROM countersign.exceptions e JOIN countersign.commands c ON c.seq = e.seq
             WHERE e.state = 'parked' ORDER BY e.seq",
            values![],
        )
        .await?;
    let seqs: Vec<i64> = parked.iter().map(|row| row.seq("seq").map(number)).collect::<Result<_, _>>()?;
    if seqs.is_empty() {
        return Ok(Vec::new());
    }
    let now = Timestamp::now();
    let act = acts::add(transaction, &NewAct::new(ActKind::Requeue, by, seqs.len()), now).await?;
    write(transaction, act, seqs, Exceptional::Requeued, now).await?;
    Ok(parked.iter().map(|row| row.id("command_id")).collect::<Result<_, _>>()?)
}

/// Requeues those commands of a step that may be. To be called within a transaction.
async fn requeue_step(transaction: &Transaction, step: &RequeueStep) -> Result<Requeue, ActError> {
    // In the order in which settlements and pruning lock.
    let cursor = relay_row::lock(transaction).await?;
    let before = acts::requeue(transaction, step.act).await?;
    if !before.may_go_on(step.after) {
        return Err(ActError::Overtaken(step.act));
    }
    let places: Vec<i64> = step.places.iter().copied().map(number).collect();
    let rows = transaction
        .query(
            "SELECT c.seq, e.state FROM countersign.commands c LEFT JOIN countersign.exceptions e ON e.seq = c.seq
             WHERE c.seq = ANY($1) ORDER BY c.seq",
            values![places],
        )
        .await?;
    // By what they become, in order of the log.
    let mut moved: Vec<(Exceptional, Vec<i64>)> = Vec::new();
    for row in &rows {
        let seq = row.seq("seq")?;
        let state = State::of(seq, cursor, row.word("state")?);
        let Ok(Some(next)) = state.after(Event::Requeue) else { continue };
        match moved.iter_mut().find(|(state, _)| *state == next) {
            Some((_, seqs)) => seqs.push(number(seq)),
            None => moved.push((next, vec![number(seq)])),
        }
    }
    let (act, now) = (number(step.act), Timestamp::now());
    let mut requeued = 0;
    for (state, seqs) in moved {
        requeued += seqs.len();
        write(transaction, act, seqs, state, now).await?;
    }
    let after = before.advanced(step, requeued);
    acts::advance(transaction, act, after.requeued, Some(after.detail_text()), now).await?;
    Ok(after)
}

async fn write(
    transaction: &Transaction,
    act: i64,
    seqs: Vec<i64>,
    state: Exceptional,
    now: Timestamp,
) -> Result<(), Error> {
    let now = now.as_millisecond();
    transaction
        .execute(
            "INSERT INTO countersign.exceptions (seq, state, attempts, next_attempt_at, changed_at, note)
             SELECT seq, $2, 0, $3, $3, $4 FROM unnest($1) AS moved (seq)
             ON CONFLICT (seq) DO UPDATE SET state = excluded.state, attempts = 0,
                next_attempt_at = excluded.next_attempt_at, changed_at = excluded.changed_at, note = excluded.note",
            values![seqs, state.as_str(), now, operator::note(state)],
        )
        .await?;
    if state == Exceptional::Requeued {
        dead_letters::close(transaction, &seqs).await?;
    }
    acts::changed(transaction, act, seqs, now).await
}

/// Removes the published commands that were received before `before`, in small transactions; returns how many.
async fn prune(link: &Link, before: Timestamp, by: &By, mut progress: Progress) -> Result<u64, Error> {
    const ROWS: usize = 256;
    let (mut from, mut pruned, mut act) = (0, 0, None);
    loop {
        let transaction = link.begin().await?;
        let step = prune::step(&transaction, from, before, ROWS).await?;
        pruned += step.pruned as u64;
        if step.pruned > 0 {
            let now = Timestamp::now();
            match act {
                Some(act) => acts::advance(&transaction, act, pruned, None, now).await?,
                None => {
                    let first = NewAct::prune(by, before, step.pruned);
                    act = Some(acts::add(&transaction, &first, now).await?);
                }
            }
        }
        transaction.commit().await?;
        progress(pruned);
        match step.next {
            Some(next) => from = next,
            None => return Ok(pruned),
        }
        // The relay of a running service waits for its turn meanwhile.
        sleep(Duration::from_millis(5)).await;
    }
}
