//! Acts of people and their programs: written with what they change, found, pruned.

use serde_json::value::RawValue;
use tokio_postgres::Row;

use super::{
    Error,
    link::{Link, Transaction},
    values::{Columns, number, text, uuid, values},
};
use crate::{
    command::{CommandId, Seq},
    ledger::{
        ActError, ActFilter, ActKind, ActRecord, Actor, NewAct, Requeue, Via,
        acts::ContextTag,
        history::{ByOperator, Event, What},
        retention::MAX_ROWS,
    },
    time::Timestamp,
};

/// Writes an act down; returns its number. To be called within the transaction of what it changes.
pub(super) async fn add(transaction: &Transaction, act: &NewAct, now: Timestamp) -> Result<i64, Error> {
    let NewAct { kind, by, count, .. } = act;
    let row = transaction
        .query_opt(
            "INSERT INTO countersign.acts
                (at, changed_at, act, via, name, sudo_user, host, peer, reason, count, detail)
             VALUES ($1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id",
            values![
                now.as_millisecond(),
                kind.as_str(),
                by.actor.via.as_str(),
                by.actor.name.as_deref().map(text),
                by.actor.sudo_user.as_deref().map(text),
                by.actor.host.as_deref().map(text),
                by.actor.peer.as_deref().map(text),
                by.reason.as_deref().map(text),
                number(*count),
                act.detail_text(),
            ],
        )
        .await?;
    Ok(row.ok_or(Error::NoTables)?.try_get("id")?)
}

/// An act changed the commands at these places in the log.
pub(super) async fn changed(
    transaction: &Transaction,
    act: i64,
    places: Vec<i64>,
    now: i64,
) -> Result<(), Error> {
    transaction
        .execute(
            "INSERT INTO countersign.act_commands (act_id, seq, at)
             SELECT $1, seq, $3 FROM unnest($2) WITH ORDINALITY AS changed (seq, n) ORDER BY n",
            values![act, places, now],
        )
        .await?;
    Ok(())
}

/// An act changed the contexts with these keys.
pub(super) async fn changed_contexts(
    transaction: &Transaction,
    act: i64,
    keys: impl IntoIterator<Item = &str>,
) -> Result<(), Error> {
    let tags: Vec<i64> = keys.into_iter().map(|key| ContextTag::of(key).number()).collect();
    transaction
        .execute(
            "INSERT INTO countersign.act_contexts (act_id, tag) SELECT $1, tag FROM unnest($2) AS changed (tag)",
            values![act, tags],
        )
        .await?;
    Ok(())
}

/// A long act has changed more: so many in all.
pub(super) async fn advance(
    transaction: &Transaction,
    act: i64,
    count: u64,
    detail: Option<String>,
    now: Timestamp,
) -> Result<(), Error> {
    transaction
        .execute(
            "UPDATE countersign.acts SET count = $2, detail = coalesce($3, detail), changed_at = $4 WHERE id = $1",
            values![act, number(count), detail, now.as_millisecond()],
        )
        .await?;
    Ok(())
}

/// More is known of an act; it has changed nothing more.
pub(super) async fn detail(transaction: &Transaction, act: u64, detail: String) -> Result<(), Error> {
    let sql = "UPDATE countersign.acts SET detail = $2 WHERE id = $1";
    transaction.execute(sql, values![number(act), detail]).await?;
    Ok(())
}

/// How far an act has come that requeues what passes a filter. Locks the act until the transaction ends.
pub(super) async fn requeue(transaction: &Transaction, act: u64) -> Result<Requeue, ActError> {
    let row = transaction
        .query_opt(
            "SELECT detail FROM countersign.acts WHERE id = $1 AND act = 'requeue' FOR UPDATE",
            values![number(act)],
        )
        .await?;
    let detail: Option<String> =
        row.map(|row| row.try_get("detail")).transpose().map_err(Error::from)?.flatten();
    detail.as_deref().and_then(Requeue::read).ok_or(ActError::NoSuchAct(act))
}

/// The acts that changed a command, in their order.
pub(super) async fn of_command(transaction: &Transaction, place: i64) -> Result<Vec<Event>, Error> {
    let rows = transaction
        .query(
            "SELECT k.at AS changed, a.id, a.act, a.via, a.name, a.sudo_user, a.host, a.peer, a.reason
             FROM countersign.act_commands k JOIN countersign.acts a ON a.id = k.act_id
             WHERE k.seq = $1 ORDER BY k.id",
            values![place],
        )
        .await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some(kind) = row.word::<ActKind>("act")? else { continue };
        let by = ByOperator { act_id: row.seq("id")?, actor: actor(row)?, reason: row.try_get("reason")? };
        events.push(Event { at: Some(row.time("changed")?), what: What::act(kind, by) });
    }
    Ok(events)
}

/// Forgets that acts changed commands that are gone, which stood between two places in the log.
pub(super) async fn forget_commands(
    transaction: &Transaction,
    first: Seq,
    through: Seq,
) -> Result<(), Error> {
    transaction
        .execute(
            "DELETE FROM countersign.act_commands k WHERE k.seq BETWEEN $1 AND $2
               AND NOT EXISTS (SELECT 1 FROM countersign.commands c WHERE c.seq = k.seq)",
            values![number(first), number(through)],
        )
        .await?;
    Ok(())
}

/// Looks at up to `limit` acts after `from`, oldest first, and removes those that are older than `before` and about
/// nothing that the ledger still has; of what they changed [`MAX_ROWS`] rows at the most. Returns where to continue; `None`
/// if everything old enough was looked at.
pub(super) async fn prune(
    transaction: &Transaction,
    from: u64,
    before: Timestamp,
    limit: usize,
) -> Result<Option<u64>, Error> {
    // Young acts are passed over as long as older ones follow: clocks may disagree.
    let rows = transaction
        .query(
            &format!(
                "SELECT a.id, a.at < $2 AS old, {REFERRED} AS referred FROM countersign.acts a
                 WHERE a.id > $1 ORDER BY a.id LIMIT $3"
            ),
            values![number(from), before.as_millisecond(), number(limit as u64)],
        )
        .await?;
    let (mut free, mut any_old): (Vec<i64>, bool) = (Vec::new(), false);
    for row in &rows {
        let old = row.try_get("old")?;
        any_old |= old;
        if old && !row.try_get::<_, bool>("referred")? {
            free.push(row.try_get("id")?);
        }
    }
    if let Some(unfinished) = remove(transaction, free).await? {
        return Ok(Some(unfinished - 1));
    }
    rows.last().filter(|_| any_old && rows.len() == limit).map(|row| row.seq("id")).transpose()
}

/// Whether the ledger has something that an act of `acts a` is about.
const REFERRED: &str = "(EXISTS (SELECT 1 FROM countersign.act_commands k WHERE k.act_id = a.id)
    OR EXISTS (SELECT 1 FROM countersign.contexts c WHERE c.act_id = a.id))";

/// Removes acts that nothing refers to; returns the first that has rows left, if one transaction may not remove them all.
async fn remove(transaction: &Transaction, free: Vec<i64>) -> Result<Option<u64>, Error> {
    if free.is_empty() {
        return Ok(None);
    }
    // An act that is being continued is locked, and is about something again. Looked up by statements of their own: their
    // snapshots are younger than the locks.
    let locked = transaction
        .query(
            "SELECT a.id FROM countersign.acts a WHERE a.id = ANY($1) ORDER BY a.id FOR UPDATE SKIP LOCKED",
            values![free],
        )
        .await?;
    let locked: Vec<i64> = locked.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    let still = transaction
        .query(
            &format!(
                "SELECT a.id FROM countersign.acts a WHERE a.id = ANY($1) AND NOT {REFERRED} ORDER BY a.id"
            ),
            values![locked],
        )
        .await?;
    let free: Vec<i64> = still.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    transaction
        .execute(
            "DELETE FROM countersign.act_contexts WHERE id = ANY(ARRAY(
                SELECT k.id FROM unnest($1) WITH ORDINALITY AS act (id, n)
                CROSS JOIN LATERAL (SELECT c.id FROM countersign.act_contexts c WHERE c.act_id = act.id LIMIT $2) k
                LIMIT $2))",
            values![free, number(MAX_ROWS as u64)],
        )
        .await?;
    let removed = transaction
        .query(
            "DELETE FROM countersign.acts a WHERE a.id = ANY($1)
               AND NOT EXISTS (SELECT 1 FROM countersign.act_contexts k WHERE k.act_id = a.id) RETURNING a.id",
            values![free],
        )
        .await?;
    let removed: Vec<i64> = removed.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    Ok(free.iter().find(|id| !removed.contains(id)).map(|id| id.cast_unsigned()))
}

/// Of acts that changed commands, the first command of each that is still kept.
pub(super) async fn firsts(link: &Link, acts: &[u64]) -> Result<Vec<(u64, CommandId)>, Error> {
    let acts: Vec<i64> = acts.iter().copied().map(number).collect();
    let rows = link
        .query(
            "SELECT DISTINCT ON (k.act_id) k.act_id, c.command_id FROM countersign.act_commands k
             JOIN countersign.commands c ON c.seq = k.seq
             WHERE k.act_id = ANY($1) ORDER BY k.act_id, k.seq",
            values![acts],
        )
        .await?;
    rows.iter().map(|row| Ok((row.seq("act_id")?, row.id("command_id")?))).collect()
}

/// Acts that pass the filter, newest first.
pub(super) async fn list(link: &Link, filter: &ActFilter) -> Result<Vec<ActRecord>, Error> {
    let rows = link
        .query(
            "SELECT a.* FROM countersign.acts a
             WHERE ($1 IS NULL OR a.id = $1)
               AND ($2 IS NULL OR a.id IN (
                    SELECT k.act_id FROM countersign.act_commands k
                    JOIN countersign.commands c ON c.seq = k.seq WHERE c.command_id = $2))
               AND ($3 IS NULL OR a.id IN (SELECT k.act_id FROM countersign.act_contexts k WHERE k.tag = $3))
               AND ($4 IS NULL OR a.act = $4)
               AND ($5 IS NULL OR a.name = $5 OR a.sudo_user = $5)
               AND ($6 IS NULL OR a.at >= $6) AND ($7 IS NULL OR a.at < $7)
               AND ($8 IS NULL OR a.id < $8)
             ORDER BY a.id DESC LIMIT $9",
            values![
                filter.id.map(number),
                filter.command_id.map(uuid),
                filter.context.as_deref().map(|key| ContextTag::of(key).number()),
                filter.kind.map(ActKind::as_str),
                filter.actor.as_deref().map(text),
                filter.since.map(Timestamp::as_millisecond),
                filter.until.map(Timestamp::as_millisecond),
                filter.before.map(number),
                number(filter.limit as u64),
            ],
        )
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        // One of a newer program is left out.
        let Some(act) = row.word("act")? else { continue };
        let detail: Option<String> = row.try_get("detail")?;
        found.push(ActRecord {
            id: row.seq("id")?,
            at: row.time("at")?,
            changed_at: row.time("changed_at")?,
            act,
            actor: actor(row)?,
            reason: row.try_get("reason")?,
            count: row.seq("count")?,
            detail: detail.and_then(|text| RawValue::from_string(text).ok()),
        });
    }
    Ok(found)
}

fn actor(row: &Row) -> Result<Actor, Error> {
    Ok(Actor {
        via: row.word("via")?.unwrap_or(Via::Cli),
        name: row.try_get("name")?,
        sudo_user: row.try_get("sudo_user")?,
        host: row.try_get("host")?,
        peer: row.try_get("peer")?,
    })
}
