//! Acts of people and their programs: written with what they change, told of commands, pruned.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{seq, word};
use crate::{
    ledger::{
        ActError, ActKind, Actor, NewAct, Requeue, Via,
        acts::ContextTag,
        history::{ByOperator, Event, What},
        retention::MAX_ROWS,
    },
    time::Timestamp,
};

/// Writes an act down; returns its number. Call it within the transaction of what it changes.
pub(super) fn add(transaction: &Connection, act: &NewAct, now: Timestamp) -> rusqlite::Result<i64> {
    let NewAct { kind, by, count, .. } = act;
    transaction
        .prepare_cached(
            "INSERT INTO acts (at, changed_at, act, via, name, sudo_user, host, peer, reason, count, detail)
             VALUES (?1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            now.as_millisecond(),
            kind.as_str(),
            by.actor.via.as_str(),
            by.actor.name,
            by.actor.sudo_user,
            by.actor.host,
            by.actor.peer,
            by.reason,
            *count as i64,
            act.detail_text(),
        ])?;
    Ok(transaction.last_insert_rowid())
}

/// An act changed the command at a place in the log.
pub(super) fn changed(transaction: &Connection, act: i64, place: i64, now: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO act_commands (act_id, seq, at) VALUES (?1, ?2, ?3)")?
        .execute(params![act, place, now])?;
    Ok(())
}

/// An act changed the contexts with these keys.
pub(super) fn changed_contexts<'a>(
    transaction: &Connection,
    act: i64,
    keys: impl IntoIterator<Item = &'a str>,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached("INSERT INTO act_contexts (act_id, tag) VALUES (?1, ?2)")?;
    for key in keys {
        insert.execute(params![act, ContextTag::of(key).number()])?;
    }
    Ok(())
}

/// A long act has changed more: so many in all.
pub(super) fn advance(
    transaction: &Connection,
    act: i64,
    count: u64,
    detail: Option<&str>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE acts SET count = ?2, detail = coalesce(?3, detail), changed_at = ?4 WHERE id = ?1",
        )?
        .execute(params![act, count as i64, detail, now.as_millisecond()])?;
    Ok(())
}

/// More is known of an act; it has changed nothing more.
pub(super) fn detail(transaction: &Connection, act: i64, detail: &str) -> rusqlite::Result<()> {
    transaction.prepare_cached("UPDATE acts SET detail = ?2 WHERE id = ?1")?.execute(params![act, detail])?;
    Ok(())
}

/// How far an act has come that requeues what passes a filter.
pub(super) fn requeue(transaction: &Connection, act: u64) -> Result<Requeue, ActError> {
    let detail = transaction
        .prepare_cached("SELECT detail FROM acts WHERE id = ?1 AND act = 'requeue'")?
        .query_row([act.cast_signed()], |row| row.get::<_, Option<String>>(0))
        .optional()?
        .flatten();
    detail.as_deref().and_then(Requeue::read).ok_or(ActError::NoSuchAct(act))
}

/// The acts that changed a command, in their order.
pub(super) fn of_command(connection: &Connection, place: i64) -> rusqlite::Result<Vec<Event>> {
    let rows = connection
        .prepare_cached(
            "SELECT k.at AS changed, a.* FROM act_commands k JOIN acts a ON a.id = k.act_id
             WHERE k.seq = ?1 ORDER BY k.id",
        )?
        .query_map([place], |row| {
            let Some(kind) = word::<ActKind>(row, "act")? else { return Ok(None) };
            let by = ByOperator { act_id: seq(row, "id")?, actor: actor(row)?, reason: row.get("reason")? };
            Ok(Some(Event { at: row.get("changed")?, what: What::act(kind, by) }))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(rows.into_iter().flatten().collect())
}

/// Forgets that acts changed commands that are gone, in this part of the log.
pub(super) fn forget_commands(transaction: &Connection, first: i64, through: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM act_commands WHERE seq BETWEEN ?1 AND ?2
               AND NOT EXISTS (SELECT 1 FROM commands c WHERE c.seq = act_commands.seq)",
        )?
        .execute(params![first, through])?;
    Ok(())
}

/// Looks at up to `limit` acts after `from`, oldest first, and removes those that are older than `before` and about
/// nothing that the ledger still has; of what they changed [`MAX_ROWS`] rows at the most. Returns where to continue;
/// `None` if everything old enough was looked at.
pub(super) fn prune(
    transaction: &Connection,
    from: u64,
    before: Timestamp,
    limit: usize,
) -> rusqlite::Result<Option<u64>> {
    // Young acts are passed over as long as older ones follow: the clock may have been set back.
    let looked: Vec<(u64, bool, bool)> = transaction
        .prepare_cached(
            "SELECT a.id, a.at < ?2, EXISTS (SELECT 1 FROM act_commands k WHERE k.act_id = a.id)
                OR EXISTS (SELECT 1 FROM contexts c WHERE c.act_id = a.id)
             FROM acts a WHERE a.id > ?1 ORDER BY a.id LIMIT ?3",
        )?
        .query_map(params![from.cast_signed(), before.as_millisecond(), limit as i64], |row| {
            Ok((seq(row, "id")?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut left = MAX_ROWS;
    for (id, ..) in looked.iter().filter(|(_, old, referred)| *old && !referred) {
        left -= transaction
            .prepare_cached(
                "DELETE FROM act_contexts
                 WHERE id IN (SELECT k.id FROM act_contexts k WHERE k.act_id = ?1 LIMIT ?2)",
            )?
            .execute(params![id.cast_signed(), left as i64])?;
        if left == 0 {
            // It may have more of them.
            return Ok(Some(id - 1));
        }
        transaction.prepare_cached("DELETE FROM acts WHERE id = ?1")?.execute([id.cast_signed()])?;
    }
    let more = looked.len() == limit && looked.iter().any(|(_, old, _)| *old);
    Ok(looked.last().filter(|_| more).map(|(id, ..)| *id))
}

pub(super) fn actor(row: &Row<'_>) -> rusqlite::Result<Actor> {
    Ok(Actor {
        via: word(row, "via")?.unwrap_or(Via::Cli),
        name: row.get("name")?,
        sudo_user: row.get("sudo_user")?,
        host: row.get("host")?,
        peer: row.get("peer")?,
    })
}
