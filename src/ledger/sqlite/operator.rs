//! An operator's acts on a ledger file, from another process while `serve` runs.

use std::time::Duration;

use futures_util::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{SqliteClient, acts, columns, dead_letters, outcomes, prune};
use crate::{
    command::{CommandId, Seq},
    ledger::{
        ActError, ActKind, By, CarriedOut, NewAct, OperatorActs, Order, OrderKind, Ordered, Progress,
        Requeue, RequeueStep, operator,
        state::{Event, Exceptional, State},
    },
    time::Timestamp,
};

impl OperatorActs for SqliteClient {
    fn requeue(&self, command_id: CommandId, by: By) -> BoxFuture<'static, Result<(), ActError>> {
        self.order(OrderKind::Requeue, command_id, by)
    }

    fn park(&self, command_id: CommandId, by: By) -> BoxFuture<'static, Result<(), ActError>> {
        self.order(OrderKind::Park, command_id, by)
    }

    fn requeue_parked(&self, by: By) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>> {
        self.act(move |transaction| {
            let parked: Vec<(i64, CommandId)> = transaction
                .prepare(
                    "SELECT e.seq, c.command_id FROM exceptions e JOIN commands c ON c.seq = e.seq
                     WHERE e.state = 'parked' ORDER BY e.seq",
                )?
                .query_map([], |row| Ok((row.get("seq")?, row.get("command_id")?)))?
                .collect::<rusqlite::Result<_>>()?;
            if parked.is_empty() {
                return Ok(Vec::new());
            }
            let now = Timestamp::now();
            let act = acts::add(transaction, &NewAct::new(ActKind::Requeue, &by, parked.len()), now)?;
            for (seq, _) in &parked {
                write(transaction, act, *seq as Seq, Exceptional::Requeued, now.as_millisecond())?;
            }
            Ok(parked.into_iter().map(|(_, id)| id).collect())
        })
    }

    fn begin(&self, act: NewAct) -> BoxFuture<'static, Result<u64, ActError>> {
        self.act(move |transaction| Ok(acts::add(transaction, &act, Timestamp::now())?.cast_unsigned()))
    }

    fn resume(&self, act: u64, by: By) -> BoxFuture<'static, Result<(u64, Requeue), ActError>> {
        self.act(move |transaction| {
            let stopped = acts::requeue(transaction, act)?;
            if !stopped.may_go_on(stopped.done_through) {
                return Err(ActError::Overtaken(act));
            }
            let (rest, now) = (stopped.rest(act), Timestamp::now());
            let next = acts::add(transaction, &rest.act(by), now)?.cast_unsigned();
            let stopped = Requeue { continued_by: Some(next), ..stopped };
            acts::detail(transaction, act.cast_signed(), &stopped.detail_text())?;
            Ok((next, rest))
        })
    }

    fn requeue_step(&self, step: RequeueStep) -> BoxFuture<'static, Result<Requeue, ActError>> {
        self.act(move |transaction| {
            let before = acts::requeue(transaction, step.act)?;
            if !before.may_go_on(step.after) {
                return Err(ActError::Overtaken(step.act));
            }
            let (act, now) = (step.act.cast_signed(), Timestamp::now());
            let mut requeued = 0;
            for &seq in &step.places {
                let Some(state) = state(transaction, seq)? else { continue };
                if let Ok(Some(next)) = state.after(Event::Requeue) {
                    write(transaction, act, seq, next, now.as_millisecond())?;
                    requeued += 1;
                }
            }
            let after = before.advanced(&step, requeued);
            acts::advance(transaction, act, after.requeued, Some(&after.detail_text()), now)?;
            Ok(after)
        })
    }

    fn show_again(&self, command_id: CommandId, by: By) -> BoxFuture<'static, Result<(), ActError>> {
        self.order(OrderKind::ShowAgain, command_id, by)
    }

    fn show_parked_again(&self, by: By) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>> {
        self.act(move |transaction| Ok(outcomes::show_parked_again(transaction, &by)?))
    }

    fn remove_strays(&self, ids: Vec<u64>, by: By) -> BoxFuture<'static, Result<u64, ActError>> {
        self.act(move |transaction| {
            let removed = dead_letters::remove(transaction, &ids)?;
            if !removed.is_empty() {
                acts::add(transaction, &NewAct::remove_strays(&by, &removed), Timestamp::now())?;
            }
            Ok(removed.len() as u64)
        })
    }

    fn prunable(&self, before: Timestamp) -> BoxFuture<'static, Result<u64, ActError>> {
        self.run(move |connection| Ok(prune::count(connection, before)?))
    }

    fn prune(
        &self,
        before: Timestamp,
        by: By,
        mut progress: Progress,
    ) -> BoxFuture<'static, Result<u64, ActError>> {
        const ROWS: usize = 256;
        self.run(move |connection| {
            let (mut from, mut pruned, mut act) = (0, 0, None);
            loop {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let step = prune::step(&transaction, from, prune::EVERYWHERE, before, ROWS)?;
                pruned += step.pruned as u64;
                if step.pruned > 0 {
                    let now = Timestamp::now();
                    match act {
                        Some(act) => acts::advance(&transaction, act, pruned, None, now)?,
                        None => {
                            let first = NewAct::prune(&by, before, step.pruned);
                            act = Some(acts::add(&transaction, &first, now)?);
                        }
                    }
                }
                transaction.commit()?;
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

impl SqliteClient {
    /// Carries out an order on one command.
    fn order(
        &self,
        kind: OrderKind,
        command_id: CommandId,
        by: By,
    ) -> BoxFuture<'static, Result<(), ActError>> {
        let order = Order { kind, commands: vec![command_id], if_state: None, by };
        self.act(move |transaction| order.only(&carry_out(transaction, &order)?))
    }
}

/// The state of the command at a place in the log.
fn state(transaction: &Connection, seq: Seq) -> rusqlite::Result<Option<State>> {
    transaction
        .prepare_cached(
            "SELECT (SELECT published_through FROM cursor) AS cursor, e.state,
                (SELECT d.why FROM dead_letters d WHERE d.seq = c.seq AND d.is_open = 1) AS came_back
             FROM commands c LEFT JOIN exceptions e ON e.seq = c.seq WHERE c.seq = ?1",
        )?
        .query_row([seq as i64], |row| {
            let state = State::of(seq, columns::seq(row, "cursor")?, columns::word(row, "state")?);
            Ok(state.or_came_back(columns::word(row, "came_back")?))
        })
        .optional()
}

/// Carries out an order, and records it as one act if anything was done. Call it within a transaction.
pub(super) fn carry_out(transaction: &Connection, order: &Order) -> rusqlite::Result<CarriedOut> {
    let now = Timestamp::now();
    let mut done: Vec<(Seq, Option<Exceptional>)> = Vec::new();
    let mut results = Vec::with_capacity(order.commands.len());
    for command_id in &order.commands {
        results.push(match judge(transaction, order, *command_id, now)? {
            Ok(moved) => {
                done.push(moved);
                Ordered::Done
            }
            Err(result) => result,
        });
    }
    if done.is_empty() {
        return Ok(CarriedOut { act_id: None, results });
    }
    let act = acts::add(transaction, &NewAct::new(order.kind.act(), &order.by, done.len()), now)?;
    for (seq, moved) in done {
        match moved {
            Some(state) => write(transaction, act, seq, state, now.as_millisecond())?,
            None => acts::changed(transaction, act, seq as i64, now.as_millisecond())?,
        }
    }
    Ok(CarriedOut { act_id: Some(act.cast_unsigned()), results })
}

/// What is to become of a command by an order. An outcome that is to be shown again waits from here on.
fn judge(
    transaction: &Connection,
    order: &Order,
    command_id: CommandId,
    now: Timestamp,
) -> rusqlite::Result<Result<(Seq, Option<Exceptional>), Ordered>> {
    let found = transaction
        .prepare_cached("SELECT seq FROM commands WHERE command_id = ?1")?
        .query_row([command_id.as_bytes().as_slice()], |row| columns::seq(row, "seq"))
        .optional()?;
    let Some(seq) = found else { return Ok(Err(Ordered::UnknownCommand)) };
    let Some(state) = state(transaction, seq)? else { return Ok(Err(Ordered::UnknownCommand)) };
    let moved = match order.moves(state) {
        Ok(moved) => moved,
        Err(result) => return Ok(Err(result)),
    };
    if order.kind == OrderKind::ShowAgain {
        if !outcomes::is_reported(transaction, seq)? {
            return Ok(Err(Ordered::NoOutcome));
        }
        if !outcomes::order(transaction, seq as i64, now)? {
            return Ok(Err(Ordered::NothingToShow));
        }
    }
    Ok(Ok((seq, moved)))
}

fn write(transaction: &Connection, act: i64, seq: Seq, state: Exceptional, now: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO exceptions (seq, state, attempts, next_attempt_at, changed_at, note)
             VALUES (?1, ?2, 0, ?3, ?3, ?4)
             ON CONFLICT (seq) DO UPDATE SET state = ?2, attempts = 0, next_attempt_at = ?3, changed_at = ?3, note = ?4",
        )?
        .execute(params![seq as i64, state.as_str(), now, operator::note(state)])?;
    if state == Exceptional::Requeued {
        dead_letters::close(transaction, seq as i64)?;
    }
    acts::changed(transaction, act, seq as i64, now)
}
