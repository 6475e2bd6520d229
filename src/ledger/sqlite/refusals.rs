//! Refused callbacks: written by the writer, dropped, found by readers.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, Transaction, params, types::ToSql};

use super::{columns::seq, reader::Reader, slices::in_slices};
use crate::{
    ledger::{
        ContextTask, Found, KeptRefusal, RefusalFilter, RefusedCallback, Stopped,
        search::{Places, Slices},
    },
    time::Timestamp,
};

/// Keeps refused callbacks, and drops the oldest of each kind.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    refused: &[RefusedCallback],
    kept: u64,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO refusals (refused_at, endpoint, reason, detail, peer, body_bytes, strange, action_type, user_id,
            approval_code, instance_id, task_id, search_id, message_id,
            context_instance_id, context_task_id, context_round, context_business_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
    )?;
    for one in refused {
        let named = one.context_task.as_ref();
        insert.execute(params![
            one.refused_at.as_millisecond(),
            one.endpoint,
            one.reason,
            one.detail,
            one.peer,
            one.body_bytes as i64,
            one.stranger,
            one.action_type,
            one.user_id,
            one.approval_code,
            one.instance_id,
            one.task_id,
            one.search_id,
            one.message_id,
            named.and_then(|named| named.instance_id.as_ref()),
            named.and_then(|named| named.task_id.as_ref()),
            named.and_then(|named| named.round.as_ref()),
            named.and_then(|named| named.business_key.as_ref()),
        ])?;
    }
    transaction
        .prepare_cached(
            "DELETE FROM refusals WHERE strange = ?2
               AND id <= (SELECT id FROM refusals WHERE strange = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        )
        .and_then(|mut prune| {
            // Each kind separately, so that strangers do not push out what approvers ask about.
            let kept = i64::try_from(kept).unwrap_or(i64::MAX);
            prune.execute(params![kept, true])?;
            prune.execute(params![kept, false])
        })?;
    Ok(())
}

impl Reader {
    /// All refused callbacks that pass the filter, newest first.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn refusals(&self, filter: &RefusalFilter) -> rusqlite::Result<Vec<KeptRefusal>> {
        Ok(self.search_refusals(filter, None)?.rows)
    }

    /// [`Reader::refusals`], for as long as `patience` lasts.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn search_refusals(
        &self,
        filter: &RefusalFilter,
        patience: Option<Duration>,
    ) -> rusqlite::Result<Found<KeptRefusal>> {
        let ends = self
            .connection()
            .prepare_cached("SELECT (SELECT min(id) FROM refusals), (SELECT max(id) FROM refusals)")?
            .query_row([], |row| Ok(row.get::<_, Option<i64>>(0)?.zip(row.get::<_, Option<i64>>(1)?)))?;
        let ends =
            ends.map(|(first, last)| Places { first: first.cast_unsigned(), last: last.cast_unsigned() });
        let Some(places) = ends.and_then(|ends| filter.within(ends)) else { return Ok(Found::nothing()) };
        let (conditions, values) = conditions(filter);
        let sql = format!(
            "SELECT * FROM refusals WHERE id BETWEEN ?1 AND ?2{conditions} ORDER BY id DESC LIMIT ?3"
        );
        let slices = Slices::new(places, false);
        let (rows, stopped) = in_slices(&self.stopwatch, slices, filter.limit, patience, |slice, limit| {
            let (first, last) = (slice.first.cast_signed(), slice.last.cast_signed());
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut all: Vec<&dyn ToSql> = vec![&first, &last, &limit];
            all.extend(values.iter().map(AsRef::as_ref));
            self.connection().prepare_cached(&sql)?.query_map(&*all, kept)?.collect()
        })?;
        let back_to = |at: u64| {
            self.connection()
                .prepare_cached("SELECT refused_at FROM refusals WHERE id >= ?1 ORDER BY id LIMIT 1")?
                .query_row([at.cast_signed()], |row| row.get(0))
                .optional()
        };
        let stopped = match stopped {
            Some(at) => Some(Stopped { at, back_to: back_to(at)? }),
            None => None,
        };
        Ok(Found { rows, stopped })
    }

    /// As [`Lookup::refused_since`](crate::ledger::Lookup::refused_since).
    pub(super) fn refused_since(&self, since: Timestamp) -> rusqlite::Result<Vec<(u64, KeptRefusal)>> {
        self.connection()
            .prepare(
                "SELECT *, n FROM refusals JOIN (
                    SELECT max(id) AS newest, count(*) AS n FROM refusals WHERE refused_at >= ?1 GROUP BY reason
                 ) ON id = newest ORDER BY id DESC",
            )?
            .query_map([since.as_millisecond()], |row| Ok((seq(row, "n")?, kept(row)?)))?
            .collect()
    }
}

/// The conditions of a filter but for its places, and their values, from `?4` on.
fn conditions(filter: &RefusalFilter) -> (String, Vec<Box<dyn ToSql>>) {
    let mut conditions = String::new();
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut narrow = |condition: &str, value: Box<dyn ToSql>| {
        values.push(value);
        conditions.push_str(" AND ");
        conditions.push_str(&condition.replace('?', &format!("?{}", values.len() + 3)));
    };
    for (condition, value) in [
        ("reason = ?", &filter.reason),
        ("endpoint = ?", &filter.endpoint),
        ("peer = ?", &filter.peer),
        ("user_id = ?", &filter.user_id),
        ("message_id = ?", &filter.message_id),
        ("(instance_id = ? OR context_instance_id = ?)", &filter.instance_id),
        ("(task_id = ? OR search_id = ? OR context_task_id = ?)", &filter.task_id),
    ] {
        if let Some(value) = value {
            narrow(condition, Box::new(value.clone()));
        }
    }
    if let Some(since) = filter.since {
        narrow("refused_at >= ?", Box::new(since.as_millisecond()));
    }
    if let Some(until) = filter.until {
        narrow("refused_at < ?", Box::new(until.as_millisecond()));
    }
    if filter.nobody {
        conditions.push_str(" AND user_id IS NULL");
    }
    (conditions, values)
}

fn kept(row: &Row<'_>) -> rusqlite::Result<KeptRefusal> {
    let refused = RefusedCallback {
        refused_at: row.get("refused_at")?,
        endpoint: row.get("endpoint")?,
        reason: row.get("reason")?,
        detail: row.get("detail")?,
        peer: row.get("peer")?,
        body_bytes: seq(row, "body_bytes")?,
        stranger: row.get("strange")?,
        action_type: row.get("action_type")?,
        user_id: row.get("user_id")?,
        approval_code: row.get("approval_code")?,
        instance_id: row.get("instance_id")?,
        task_id: row.get("task_id")?,
        message_id: row.get("message_id")?,
        search_id: row.get("search_id")?,
        context_task: ContextTask {
            instance_id: row.get("context_instance_id")?,
            task_id: row.get("context_task_id")?,
            round: row.get("context_round")?,
            business_key: row.get("context_business_key")?,
        }
        .unless_empty(),
    };
    Ok(KeptRefusal { id: seq(row, "id")?, refused })
}
