//! Registered contexts: written by the writer, found by readers, pruned.

use std::{collections::HashSet, time::Duration};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, types::Type};
use serde_json::value::RawValue;

use super::acts;
use crate::{
    command::{Grant, Registered, ResolvedBy, TaskRef},
    ledger::{By, NewAct, Registering, Registration},
    time::Timestamp,
};

/// How long an expired context is kept, so that the approver of an old card reads "expired" and not "unknown".
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Writes all or none. Checks everything before the first write: the transaction holds accepts too, and a partial
/// rollback would cost a copy of each page.
pub(super) fn register(
    transaction: &Transaction<'_>,
    registrations: &[Registration],
    by: &By,
) -> rusqlite::Result<Registering> {
    let keys: HashSet<&str> = registrations.iter().map(|one| one.key.as_str()).collect();
    let mut messages = HashSet::new();
    let mut freed = Vec::new();
    let now = Timestamp::now().as_millisecond();
    for (item, one) in registrations.iter().enumerate() {
        let Some(message_id) = one.message_id else { continue };
        if !messages.insert(message_id) {
            return Ok(Registering::MessageTaken { item });
        }
        let holder: Option<(String, Option<i64>)> = transaction
            .prepare_cached("SELECT key, expires_at FROM contexts WHERE message_id = ?1")?
            .query_row([message_id as i64], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match holder {
            None => {}
            Some((key, _)) if key == one.key => {}
            // This change gives that context another message, or none.
            Some((key, _)) if keys.contains(&*key) => freed.push(message_id),
            Some((_, expires_at)) if expires_at.is_some_and(|at| at <= now) => freed.push(message_id),
            Some(_) => return Ok(Registering::MessageTaken { item }),
        }
    }
    for message_id in freed {
        transaction
            .prepare_cached("UPDATE contexts SET message_id = NULL WHERE message_id = ?1")?
            .execute([message_id as i64])?;
    }
    let keys: Vec<&str> = registrations.iter().map(|one| one.key.as_str()).collect();
    let mut replaced = Vec::with_capacity(registrations.len());
    for key in &keys {
        replaced.push(transaction.prepare_cached("SELECT 1 FROM contexts WHERE key = ?1")?.exists([key])?);
    }
    let act = acts::add(transaction, &NewAct::register(by, &keys, &replaced), Timestamp::now())?;
    acts::changed_contexts(transaction, act, keys)?;
    for one in registrations {
        write(transaction, one, act)?;
    }
    Ok(Registering::Kept { replaced })
}

/// True if there was one with this key.
pub(super) fn unregister(transaction: &Transaction<'_>, key: &str, by: &By) -> rusqlite::Result<bool> {
    if transaction.prepare_cached("DELETE FROM contexts WHERE key = ?1")?.execute([key])? == 0 {
        return Ok(false);
    }
    let act = acts::add(transaction, &NewAct::unregister(by, key), Timestamp::now())?;
    acts::changed_contexts(transaction, act, [key])?;
    Ok(true)
}

fn write(transaction: &Transaction<'_>, one: &Registration, act: i64) -> rusqlite::Result<()> {
    let Registered { grant, expires_at } = &one.registered;
    let list = |texts: &Option<Vec<String>>| {
        texts.as_ref().map(|texts| serde_json::to_string(texts).expect("a list of texts always renders"))
    };
    transaction
        .prepare_cached(
            "INSERT INTO contexts (key, message_id, expires_at, registered_at, instance_id, task_id, round,
                business_key, operators, actions, approval_code, endpoint, data, act_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
             ON CONFLICT (key) DO UPDATE SET message_id = ?2, expires_at = ?3, registered_at = ?4, instance_id = ?5,
                task_id = ?6, round = ?7, business_key = ?8, operators = ?9, actions = ?10, approval_code = ?11,
                endpoint = ?12, data = ?13, act_id = ?14",
        )?
        .execute(params![
            one.key,
            one.message_id.map(|id| id as i64),
            expires_at.map(Timestamp::as_millisecond),
            one.registered_at.as_millisecond(),
            grant.task.instance_id,
            grant.task.task_id,
            grant.task.round,
            grant.task.business_key,
            list(&grant.operators),
            list(&grant.actions),
            grant.approval_code,
            grant.endpoint,
            grant.task.data.as_ref().map(|data| data.get()),
            act,
        ])?;
    Ok(())
}

/// Removes up to `limit` contexts that expired long ago, oldest first; returns how many.
pub(super) fn prune(transaction: &Connection, now: Timestamp, limit: usize) -> rusqlite::Result<usize> {
    let horizon = now - KEPT_AFTER_EXPIRY;
    transaction
        .prepare_cached(
            "DELETE FROM contexts WHERE key IN
                (SELECT key FROM contexts WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        )?
        .execute(params![horizon.as_millisecond(), limit as i64])
}

/// The context with this key, even if expired.
pub(super) fn by_key(connection: &Connection, key: &str) -> rusqlite::Result<Option<Registration>> {
    connection
        .prepare_cached("SELECT * FROM contexts WHERE key = ?1")?
        .query_row([key], registration)
        .optional()
}

/// The context of this bot message, even if expired.
pub(super) fn by_message(connection: &Connection, message_id: u64) -> rusqlite::Result<Option<Registration>> {
    connection
        .prepare_cached("SELECT * FROM contexts WHERE message_id = ?1")?
        .query_row([message_id as i64], registration)
        .optional()
}

fn registration(row: &Row<'_>) -> rusqlite::Result<Registration> {
    let list = |column: &str| -> rusqlite::Result<Option<Vec<String>>> {
        let Some(text) = row.get_ref(column)?.as_str_or_null()? else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| unreadable(row, column, error))
    };
    let data = match row.get("data")? {
        None => None,
        Some(text) => Some(RawValue::from_string(text).map_err(|error| unreadable(row, "data", error))?),
    };
    let time =
        |millis| Timestamp::from_millisecond(millis).map_err(|error| unreadable(row, "expires_at", error));
    Ok(Registration {
        key: row.get("key")?,
        message_id: row.get::<_, Option<i64>>("message_id")?.map(|id| id as u64),
        registered: Registered {
            grant: Grant {
                task: TaskRef {
                    instance_id: row.get("instance_id")?,
                    task_id: row.get("task_id")?,
                    round: row.get("round")?,
                    business_key: row.get("business_key")?,
                    resolved_by: Some(ResolvedBy::Registry),
                    data,
                },
                operators: list("operators")?,
                actions: list("actions")?,
                approval_code: row.get("approval_code")?,
                endpoint: row.get("endpoint")?,
            },
            expires_at: row.get::<_, Option<i64>>("expires_at")?.map(time).transpose()?,
        },
        registered_at: time(row.get("registered_at")?)?,
    })
}

/// Somebody else wrote the row. An unreadable list of operators must not become "anybody".
fn unreadable(
    row: &Row<'_>,
    column: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    let column = row.as_ref().column_index(column).unwrap_or(0);
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
