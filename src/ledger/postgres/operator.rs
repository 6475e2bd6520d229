//! What an operator does to a ledger, whether or not a service is running.

use std::{collections::HashMap, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    Error, PostgresClient, acts, dead_letters,
    link::{Link, Transaction},
    outcomes, prune, relay_row,
    values::{Columns, number, uuid, values},
};
use crate::{
    command::CommandId,
    ledger::{
        ActError, ActKind, By, CarriedOut, NewAct, OperatorActs, Order, OrderKind, Ordered, Progress,
        Requeue, RequeueStep, operator,
        state::{Event, Exceptional, State},
    },
    time::Timestamp,
};

impl OperatorActs for PostgresClient {
    fn requeue(&self, command_id: CommandId, by: By) -> BoxFuture<'static, Result<(), ActError>> {
        self.order(OrderKind::Requeue, command_id, by)
    }

    fn park(&self, command_id: CommandId, by: By) -> BoxFuture<'static, Result<(), ActError>> {
        self.order(OrderKind::Park, command_id, by)
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
        self.order(OrderKind::ShowAgain, command_id, by)
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

impl PostgresClient {
    /// Carries out an order on one command.
    fn order(
        &self,
        kind: OrderKind,
        command_id: CommandId,
        by: By,
    ) -> BoxFuture<'static, Result<(), ActError>> {
        let order = Order { kind, commands: vec![command_id], if_state: None, by };
        self.links.act(move |transaction| async move {
            let carried_out = carry_out(&transaction, &order).await?;
            transaction.commit().await?;
            order.only(&carried_out)
        })
    }
}

/// Carries out an order, and records it as one act if anything was done. To be called within a transaction.
pub(super) async fn carry_out(transaction: &Transaction, order: &Order) -> Result<CarriedOut, Error> {
    // In the order in which settlements and pruning lock.
    let cursor = relay_row::lock(transaction).await?;
    let ids: Vec<Uuid> = order.commands.iter().copied().map(uuid).collect();
    if order.kind == OrderKind::ShowAgain {
        // What is reported and shown of them comes before or after.
        let sql =
            "SELECT seq FROM countersign.commands WHERE command_id = ANY($1) ORDER BY seq FOR NO KEY UPDATE";
        transaction.query(sql, values![ids]).await?;
    }
    let rows = transaction
        .query(
            "SELECT c.command_id, c.seq, e.state,
                (SELECT l.why FROM countersign.dead_letters l WHERE l.seq = c.seq AND l.is_open) AS came_back,
                EXISTS (SELECT 1 FROM countersign.outcomes o WHERE o.seq = c.seq) AS is_reported
             FROM countersign.commands c LEFT JOIN countersign.exceptions e ON e.seq = c.seq
             WHERE c.command_id = ANY($1)",
            values![ids],
        )
        .await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        found.insert(row.id("command_id")?, row);
    }
    let now = Timestamp::now();
    // By what they become.
    let mut moved: Vec<(Exceptional, Vec<i64>)> = Vec::new();
    let mut shown: Vec<i64> = Vec::new();
    let mut results = Vec::with_capacity(order.commands.len());
    for command_id in &order.commands {
        let Some(row) = found.get(command_id) else {
            results.push(Ordered::UnknownCommand);
            continue;
        };
        let seq = row.seq("seq")?;
        let state = State::of(seq, cursor, row.word("state")?).or_came_back(row.word("came_back")?);
        results.push(match order.moves(state) {
            Err(result) => result,
            Ok(Some(next)) => {
                match moved.iter_mut().find(|(state, _)| *state == next) {
                    Some((_, places)) => places.push(number(seq)),
                    None => moved.push((next, vec![number(seq)])),
                }
                Ordered::Done
            }
            Ok(None) if !row.try_get::<_, bool>("is_reported")? => Ordered::NoOutcome,
            Ok(None) if !outcomes::order(transaction, number(seq), now).await? => Ordered::NothingToShow,
            Ok(None) => {
                shown.push(number(seq));
                Ordered::Done
            }
        });
    }
    let mut carried_out = CarriedOut { act_id: None, results };
    if carried_out.done() > 0 {
        let act = NewAct::new(order.kind.act(), &order.by, carried_out.done());
        let act = acts::add(transaction, &act, now).await?;
        carried_out.act_id = Some(act.cast_unsigned());
        for (state, places) in moved {
            write(transaction, act, places, state, now).await?;
        }
        if !shown.is_empty() {
            acts::changed(transaction, act, shown, now.as_millisecond()).await?;
        }
    }
    Ok(carried_out)
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
