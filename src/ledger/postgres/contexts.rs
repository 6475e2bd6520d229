//! The registered contexts: how they are written, found and pruned.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use serde_json::value::RawValue;
use tokio_postgres::Row;

use super::{
    Error, acts,
    link::{Link, Transaction},
    values::{number, values},
};
use crate::{
    command::{Grant, Registered, ResolvedBy, TaskRef},
    ledger::{By, NewAct, Registering, Registration},
    time::Timestamp,
};

/// An expired context is kept so long that the approver of an old card reads "expired" and not "unknown".
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

/// The advisory lock of those who register: "register" in ASCII.
const REGISTER: i64 = 0x7265_6769_7374_6572;

/// All of them or none. To be called within a transaction, which may be committed in any case: nothing is written before it
/// is known that nothing is in the way.
pub(super) async fn register(
    transaction: &Transaction,
    registrations: &[Registration],
    by: &By,
) -> Result<Registering, Error> {
    // A statement of its own: the snapshot of the next one is younger than the lock.
    transaction.query("SELECT pg_advisory_xact_lock($1)", values![REGISTER]).await?;
    let keys: HashSet<&[u8]> = registrations.iter().map(|one| one.key.as_bytes()).collect();
    let (known, holders) = in_the_way(transaction, registrations).await?;
    let mut messages = HashSet::new();
    let mut freed = Vec::new();
    let now = Timestamp::now().as_millisecond();
    for (item, one) in registrations.iter().enumerate() {
        let Some(message_id) = one.message_id.map(u64::cast_signed) else { continue };
        if !messages.insert(message_id) {
            return Ok(Registering::MessageTaken { item });
        }
        match holders.get(&message_id) {
            None => {}
            Some((key, _)) if key == one.key.as_bytes() => {}
            // It gets another one, or none, by this very change.
            Some((key, _)) if keys.contains(&**key) => freed.push(message_id),
            Some((_, expires_at)) if expires_at.is_some_and(|at| at <= now) => freed.push(message_id),
            Some(_) => return Ok(Registering::MessageTaken { item }),
        }
    }
    if !freed.is_empty() {
        transaction
            .execute(
                "UPDATE countersign.contexts SET message_id = NULL WHERE message_id = ANY($1)",
                values![freed],
            )
            .await?;
    }
    let replaced: Vec<bool> = registrations.iter().map(|one| known.contains(one.key.as_bytes())).collect();
    let keys: Vec<&str> = registrations.iter().map(|one| one.key.as_str()).collect();
    let act = acts::add(transaction, &NewAct::register(by, &keys, &replaced), Timestamp::now()).await?;
    acts::changed_contexts(transaction, act, keys).await?;
    write(transaction, registrations, act).await?;
    Ok(Registering::Kept { replaced })
}

/// Keys, and by message the key and the expiry.
type InTheWay = (HashSet<Vec<u8>>, HashMap<i64, (Vec<u8>, Option<i64>)>);

/// The rows that have a key or a message of one of these.
async fn in_the_way(transaction: &Transaction, registrations: &[Registration]) -> Result<InTheWay, Error> {
    let keys: Vec<&[u8]> = registrations.iter().map(|one| one.key.as_bytes()).collect();
    let messages: Vec<i64> =
        registrations.iter().filter_map(|one| one.message_id).map(u64::cast_signed).collect();
    let rows = transaction
        .query(
            "SELECT key, message_id, expires_at FROM countersign.contexts WHERE key = ANY($1) OR message_id = ANY($2)",
            values![keys, messages],
        )
        .await?;
    let (mut known, mut holders) = InTheWay::default();
    for row in rows {
        let key: Vec<u8> = row.try_get("key")?;
        if let Some(message_id) = row.try_get("message_id")? {
            holders.insert(message_id, (key.clone(), row.try_get("expires_at")?));
        }
        known.insert(key);
    }
    Ok((known, holders))
}

async fn write(transaction: &Transaction, registrations: &[Registration], act: i64) -> Result<(), Error> {
    let keys: Vec<&[u8]> = registrations.iter().map(|one| one.key.as_bytes()).collect();
    let messages = registrations.iter().map(|one| one.message_id.map(u64::cast_signed));
    let messages: Vec<Option<i64>> = messages.collect();
    let expiries = registrations.iter().map(|one| one.registered.expires_at.map(Timestamp::as_millisecond));
    let expiries: Vec<Option<i64>> = expiries.collect();
    let times: Vec<i64> = registrations.iter().map(|one| one.registered_at.as_millisecond()).collect();
    let texts = |of: fn(&Grant) -> Option<&str>| -> Vec<Option<&str>> {
        registrations.iter().map(|one| of(&one.registered.grant)).collect()
    };
    let lists = |of: fn(&Grant) -> &Option<Vec<String>>| -> Vec<Option<String>> {
        let list = |one: &Registration| {
            let texts = of(&one.registered.grant).as_ref()?;
            Some(serde_json::to_string(texts).expect("a list of texts always renders"))
        };
        registrations.iter().map(list).collect()
    };
    transaction
        .execute(
            "INSERT INTO countersign.contexts (key, message_id, expires_at, registered_at, instance_id, task_id, round,
                business_key, operators, actions, approval_code, endpoint, data, act_id)
             SELECT *, $14 FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (key) DO UPDATE SET message_id = excluded.message_id, expires_at = excluded.expires_at,
                registered_at = excluded.registered_at, instance_id = excluded.instance_id, task_id = excluded.task_id,
                round = excluded.round, business_key = excluded.business_key, operators = excluded.operators,
                actions = excluded.actions, approval_code = excluded.approval_code, endpoint = excluded.endpoint,
                data = excluded.data, act_id = excluded.act_id",
            values![
                keys,
                messages,
                expiries,
                times,
                texts(|grant| grant.task.instance_id.as_deref()),
                texts(|grant| grant.task.task_id.as_deref()),
                texts(|grant| grant.task.round.as_deref()),
                texts(|grant| grant.task.business_key.as_deref()),
                lists(|grant| &grant.operators),
                lists(|grant| &grant.actions),
                texts(|grant| grant.approval_code.as_deref()),
                texts(|grant| grant.endpoint.as_deref()),
                texts(|grant| grant.task.data.as_ref().map(|data| data.get())),
                act,
            ],
        )
        .await?;
    Ok(())
}

/// True if there was one with this key.
pub(super) async fn unregister(transaction: &Transaction, key: &str, by: &By) -> Result<bool, Error> {
    let removed = transaction
        .execute("DELETE FROM countersign.contexts WHERE key = $1", values![key.as_bytes()])
        .await?;
    if removed == 0 {
        return Ok(false);
    }
    let act = acts::add(transaction, &NewAct::unregister(by, key), Timestamp::now()).await?;
    acts::changed_contexts(transaction, act, [key]).await?;
    Ok(true)
}

/// Removes up to `limit` contexts that expired long ago, the oldest first; returns how many it were.
pub(super) async fn prune(transaction: &Transaction, now: Timestamp, limit: usize) -> Result<usize, Error> {
    let horizon = now - KEPT_AFTER_EXPIRY;
    // What is locked is being registered again, or pruned by another replica.
    let removed = transaction
        .execute(
            "DELETE FROM countersign.contexts WHERE key = ANY(ARRAY(
                SELECT key FROM countersign.contexts WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
                FOR UPDATE SKIP LOCKED
             ))",
            values![horizon.as_millisecond(), number(limit as u64)],
        )
        .await?;
    Ok(usize::try_from(removed).unwrap_or(limit))
}

/// The context with this key, even if it has expired.
pub(super) async fn by_key(link: &Link, key: &str) -> Result<Option<Registration>, Error> {
    let row =
        link.query_opt("SELECT * FROM countersign.contexts WHERE key = $1", values![key.as_bytes()]).await?;
    row.as_ref().map(registration).transpose()
}

/// What is registered for callbacks, each by its key or, if nothing has that, by its message; even if it has expired.
pub(super) async fn registered(
    link: &Link,
    questions: &[(Option<String>, Option<u64>)],
) -> Result<Vec<Option<Registered>>, Error> {
    let keys: Vec<Option<&[u8]>> =
        questions.iter().map(|(key, _)| key.as_deref().map(str::as_bytes)).collect();
    let messages: Vec<Option<i64>> =
        questions.iter().map(|(_, message_id)| message_id.map(u64::cast_signed)).collect();
    let rows = link
        .query(
            "SELECT c.* FROM unnest($1, $2) WITH ORDINALITY AS q (key, message_id, n)
             LEFT JOIN LATERAL (
                SELECT 1 AS rank, k.* FROM countersign.contexts k WHERE k.key = q.key
                UNION ALL
                SELECT 2 AS rank, m.* FROM countersign.contexts m WHERE m.message_id = q.message_id
                ORDER BY rank LIMIT 1
             ) c ON true
             ORDER BY q.n",
            values![keys, messages],
        )
        .await?;
    let one = |row: &Row| match row.try_get::<_, Option<i32>>("rank")? {
        None => Ok(None),
        Some(_) => registration(row).map(|one| Some(one.registered)),
    };
    rows.iter().map(one).collect()
}

fn registration(row: &Row) -> Result<Registration, Error> {
    let list = |column: &str| -> Result<Option<Vec<String>>, Error> {
        let Some(text) = row.try_get::<_, Option<&str>>(column)? else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| unreadable(column, error))
    };
    let data = match row.try_get::<_, Option<String>>("data")? {
        None => None,
        Some(text) => Some(RawValue::from_string(text).map_err(|error| unreadable("data", error))?),
    };
    let time =
        |column, millis| Timestamp::from_millisecond(millis).map_err(|error| unreadable(column, error));
    let expires_at: Option<i64> = row.try_get("expires_at")?;
    Ok(Registration {
        key: String::from_utf8(row.try_get("key")?).map_err(|error| unreadable("key", error))?,
        message_id: row.try_get::<_, Option<i64>>("message_id")?.map(i64::cast_unsigned),
        registered: Registered {
            grant: Grant {
                task: TaskRef {
                    instance_id: row.try_get("instance_id")?,
                    task_id: row.try_get("task_id")?,
                    round: row.try_get("round")?,
                    business_key: row.try_get("business_key")?,
                    resolved_by: Some(ResolvedBy::Registry),
                    data,
                },
                operators: list("operators")?,
                actions: list("actions")?,
                approval_code: row.try_get("approval_code")?,
                endpoint: row.try_get("endpoint")?,
            },
            expires_at: expires_at.map(|millis| time("expires_at", millis)).transpose()?,
        },
        registered_at: time("registered_at", row.try_get("registered_at")?)?,
    })
}

/// Somebody else wrote the row. A list of operators that cannot be read must not become "anybody".
fn unreadable(column: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unreadable(column.to_owned(), Box::new(error))
}
