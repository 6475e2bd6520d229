//! Acts, as people look for them.

use rusqlite::{OptionalExtension, Row, types::ToSql};
use serde_json::value::RawValue;

use super::{
    acts::actor,
    columns::{seq, word},
    reader::Reader,
};
use crate::{
    command::CommandId,
    ledger::{ActFilter, ActRecord, acts::ContextTag},
};

/// Numbers grow with time, but for a clock that was set back. Without the second condition a listing that finds less than its
/// limit reads all older acts as well. The plus has the smallest number looked up by the index of times.
pub(super) const SINCE: &str = "a.at >= ? AND a.id >= (SELECT min(+b.id) FROM acts b WHERE b.at >= ?)";

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
            narrow(SINCE, Box::new(since.as_millisecond()));
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

    /// Of acts that changed commands, the first command of each that is still kept.
    pub(super) fn first_of_acts(&self, acts: &[u64]) -> rusqlite::Result<Vec<(u64, CommandId)>> {
        let mut statement = self.connection().prepare_cached(
            "SELECT c.command_id FROM act_commands k JOIN commands c ON c.seq = k.seq
             WHERE k.act_id = ?1 ORDER BY k.seq LIMIT 1",
        )?;
        let mut found = Vec::with_capacity(acts.len());
        for act in acts {
            let first = statement.query_row([act.cast_signed()], |row| row.get(0)).optional()?;
            found.extend(first.map(|command| (*act, command)));
        }
        Ok(found)
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
