//! Acts of people and their programs: written with what they change, found by readers, pruned.

use rusqlite::{Connection, OptionalExtension, Row, params, types::ToSql};
use serde_json::value::RawValue;

use super::{
    columns::{seq, word},
    reader::Reader,
};
use crate::{
    ledger::{
        ActError, ActFilter, ActKind, ActRecord, Actor, NewAct, Requeue, Via,
        acts::ContextTag,
        history::{ByOperator, Event, What},
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
/// nothing that the ledger still has. Returns where to continue; `None` if everything old enough was looked at.
pub(super) fn prune(
    transaction: &Connection,
    from: u64,
    before: Timestamp,
    limit: usize,
) -> rusqlite::Result<Option<u64>> {
    let old: Vec<(i64, bool)> = transaction
        .prepare_cached(
            "SELECT a.id, EXISTS (SELECT 1 FROM act_commands k WHERE k.act_id = a.id)
                OR EXISTS (SELECT 1 FROM contexts c WHERE c.act_id = a.id)
             FROM (SELECT * FROM acts WHERE id > ?1 ORDER BY id LIMIT ?3) a WHERE a.at < ?2 ORDER BY a.id",
        )?
        .query_map(params![from.cast_signed(), before.as_millisecond(), limit as i64], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (id, _) in old.iter().filter(|(_, referred)| !referred) {
        transaction.prepare_cached("DELETE FROM act_contexts WHERE act_id = ?1")?.execute([id])?;
        transaction.prepare_cached("DELETE FROM acts WHERE id = ?1")?.execute([id])?;
    }
    // Fewer: the rest is too young, or there is none.
    Ok(old.last().filter(|_| old.len() == limit).map(|(id, _)| id.cast_unsigned()))
}

impl Reader {
    /// Acts that pass the filter, newest first.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn acts(&self, filter: &ActFilter) -> rusqlite::Result<Vec<ActRecord>> {
        let mut conditions = vec!["1".to_owned()];
        let mut values: Vec<Box<dyn ToSql>> = Vec::new();
        let mut narrow = |condition: &str, value: Box<dyn ToSql>| {
            values.push(value);
            conditions.push(condition.replace('?', &format!("?{}", values.len())));
        };
        let number = |value: u64| Box::new(i64::try_from(value).unwrap_or(i64::MAX));
        if let Some(id) = filter.id {
            narrow("a.id = ?", number(id));
        }
        if let Some(command_id) = filter.command_id {
            narrow(
                "a.id IN (SELECT k.act_id FROM act_commands k JOIN commands c ON c.seq = k.seq
                    WHERE c.command_id = ?)",
                Box::new(command_id.as_bytes().to_vec()),
            );
        }
        if let Some(key) = &filter.context {
            let tag = ContextTag::of(key).number();
            narrow(
                "EXISTS (SELECT 1 FROM act_contexts k WHERE k.act_id = a.id AND k.tag = ?)",
                Box::new(tag),
            );
        }
        if let Some(kind) = filter.kind {
            narrow("a.act = ?", Box::new(kind.as_str()));
        }
        if let Some(actor) = &filter.actor {
            narrow("(a.name = ? OR a.sudo_user = ?)", Box::new(actor.clone()));
        }
        if let Some(since) = filter.since {
            narrow("a.at >= ?", Box::new(since.as_millisecond()));
        }
        if let Some(until) = filter.until {
            narrow("a.at < ?", Box::new(until.as_millisecond()));
        }
        if let Some(before) = filter.before {
            narrow("a.id < ?", number(before));
        }
        values.push(Box::new(filter.limit as i64));
        let sql = format!(
            "SELECT a.* FROM acts a WHERE {} ORDER BY a.id DESC LIMIT ?{}",
            conditions.join(" AND "),
            values.len()
        );
        let values: Vec<&dyn ToSql> = values.iter().map(AsRef::as_ref).collect();
        let mut statement = self.connection().prepare(&sql)?;
        let found = statement.query_map(&*values, record)?.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// `None` for an act of a newer program.
fn record(row: &Row<'_>) -> rusqlite::Result<Option<ActRecord>> {
    let Some(act) = word(row, "act")? else { return Ok(None) };
    let detail: Option<String> = row.get("detail")?;
    Ok(Some(ActRecord {
        id: seq(row, "id")?,
        at: row.get("at")?,
        changed_at: row.get("changed_at")?,
        act,
        actor: actor(row)?,
        reason: row.get("reason")?,
        count: seq(row, "count")?,
        detail: detail.and_then(|text| RawValue::from_string(text).ok()),
    }))
}

fn actor(row: &Row<'_>) -> rusqlite::Result<Actor> {
    Ok(Actor {
        via: word(row, "via")?.unwrap_or(Via::Cli),
        name: row.get("name")?,
        sudo_user: row.get("sudo_user")?,
        host: row.get("host")?,
        peer: row.get("peer")?,
    })
}
