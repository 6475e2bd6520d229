//! Refused callbacks: how they are written, dropped and found.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_postgres::Row;

use super::{
    Error, lease,
    link::{Link, Transaction},
    search::{Sought, in_slices},
    shared::Shared,
    values::{Columns, number, text, values},
};
use crate::{
    ledger::{
        ContextTask, Found, KeptRefusal, RefusalFilter, RefusedCallback, Stopped,
        refused_queue::RefusedQueue,
        search::{Places, Slices},
    },
    time::Timestamp,
};

/// Refused callbacks written in one transaction.
const PER_COMMIT: usize = 64;

/// Writes refused callbacks as they come, until it is told to stop and none is left.
pub(super) async fn run(
    link: Link,
    mut refused: mpsc::UnboundedReceiver<RefusedCallback>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let mut queue = RefusedQueue::default();
    loop {
        if queue.is_empty() {
            let next = tokio::select! {
                biased;
                next = refused.recv() => next,
                () = lease::stopped(&mut stop) => return,
            };
            let Some(next) = next else { return };
            queue.push(next);
        }
        while let Ok(next) = refused.try_recv() {
            queue.push(next);
        }
        let batch = queue.take(PER_COMMIT);
        let kept = commit(&link, &batch, shared.limits().refusals_kept).await;
        shared.refused.written(&batch);
        shared.memory.changes.add();
        if let Err(error) = kept {
            // They are for information; what cannot be written now is not worth holding on to.
            tracing::warn!(error = &error as &dyn std::error::Error, "refused callbacks cannot be kept");
            batch.into_iter().for_each(|one| shared.refused.drop_one(one));
        }
    }
}

async fn commit(link: &Link, batch: &[RefusedCallback], kept: u64) -> Result<(), Error> {
    let transaction = link.begin().await?;
    keep(&transaction, batch, kept).await?;
    transaction.commit().await
}

/// Keeps refused callbacks, and drops the oldest of each kind. To be called within a transaction.
pub(super) async fn keep(
    transaction: &Transaction,
    refused: &[RefusedCallback],
    kept: u64,
) -> Result<(), Error> {
    if !refused.is_empty() {
        write(transaction, refused).await?;
    }
    // Each kind by itself, so that a stranger's noise does not push out what approvers ask about.
    for stranger in [true, false] {
        transaction
            .execute(
                "DELETE FROM countersign.refusals WHERE stranger = $2 AND id <= (
                    SELECT id FROM countersign.refusals WHERE stranger = $2 ORDER BY id DESC LIMIT 1 OFFSET $1
                 )",
                values![number(kept), stranger],
            )
            .await?;
    }
    Ok(())
}

async fn write(transaction: &Transaction, refused: &[RefusedCallback]) -> Result<(), Error> {
    let words = |of: fn(&RefusedCallback) -> &String| -> Vec<Cow<'_, str>> {
        refused.iter().map(|one| text(of(one))).collect()
    };
    let texts = |of: fn(&RefusedCallback) -> Option<&String>| -> Vec<Option<Cow<'_, str>>> {
        refused.iter().map(|one| of(one).map(|found| text(found))).collect()
    };
    let times: Vec<i64> = refused.iter().map(|one| one.refused_at.as_millisecond()).collect();
    let sizes: Vec<i64> = refused.iter().map(|one| number(one.body_bytes)).collect();
    let strangers: Vec<bool> = refused.iter().map(|one| one.stranger).collect();
    transaction
        .execute(
            "INSERT INTO countersign.refusals (refused_at, endpoint, reason, detail, peer, body_bytes, stranger, action_type,
                user_id, approval_code, instance_id, task_id, search_id, message_id,
                context_instance_id, context_task_id, context_round, context_business_key)
             SELECT refused_at, endpoint, reason, detail, peer, body_bytes, stranger, action_type,
                user_id, approval_code, instance_id, task_id, search_id, message_id,
                context_instance_id, context_task_id, context_round, context_business_key
             FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) WITH ORDINALITY
                AS r (refused_at, endpoint, reason, detail, peer, body_bytes, stranger, action_type,
                    user_id, approval_code, instance_id, task_id, search_id, message_id,
                    context_instance_id, context_task_id, context_round, context_business_key, n)
             ORDER BY n",
            values![
                times,
                words(|one| &one.endpoint),
                words(|one| &one.reason),
                texts(|one| one.detail.as_ref()),
                texts(|one| one.peer.as_ref()),
                sizes,
                strangers,
                texts(|one| one.action_type.as_ref()),
                texts(|one| one.user_id.as_ref()),
                texts(|one| one.approval_code.as_ref()),
                texts(|one| one.instance_id.as_ref()),
                texts(|one| one.task_id.as_ref()),
                texts(|one| one.search_id.as_ref()),
                texts(|one| one.message_id.as_ref()),
                texts(|one| one.context_task.as_ref()?.instance_id.as_ref()),
                texts(|one| one.context_task.as_ref()?.task_id.as_ref()),
                texts(|one| one.context_task.as_ref()?.round.as_ref()),
                texts(|one| one.context_task.as_ref()?.business_key.as_ref()),
            ],
        )
        .await?;
    Ok(())
}

/// Refused callbacks that pass the filter, newest first; as long as `patience` lasts, if there is a limit.
pub(super) async fn search(
    link: &Link,
    filter: &RefusalFilter,
    patience: Option<Duration>,
) -> Result<Found<KeptRefusal>, Error> {
    let ends = link
        .query_opt(
            "SELECT (SELECT min(id) FROM countersign.refusals) AS first,
                (SELECT max(id) FROM countersign.refusals) AS last",
            values![],
        )
        .await?;
    let Some(row) = ends else { return Ok(Found::nothing()) };
    let ends: (Option<i64>, Option<i64>) = (row.try_get("first")?, row.try_get("last")?);
    let ends = ends.0.zip(ends.1);
    let ends = ends.map(|(first, last)| Places { first: first.cast_unsigned(), last: last.cast_unsigned() });
    let Some(places) = ends.and_then(|ends| filter.within(ends)) else { return Ok(Found::nothing()) };
    let slices = Slices::new(places, false);
    let (rows, stopped) = in_slices(link, slices, filter, filter.limit, patience).await?;
    let Some(at) = stopped else { return Ok(Found { rows, stopped: None }) };
    let sql = "SELECT refused_at FROM countersign.refusals WHERE id >= $1 ORDER BY id LIMIT 1";
    let last = link.query_opt(sql, values![number(at)]).await?;
    let back_to = last.map(|row| row.time("refused_at")).transpose()?;
    Ok(Found { rows, stopped: Some(Stopped { at, back_to }) })
}

impl Sought for RefusalFilter {
    type Row = KeptRefusal;

    async fn within(
        &self,
        transaction: &Transaction,
        slice: Places,
        limit: usize,
    ) -> Result<Vec<KeptRefusal>, Error> {
        refusals_within(transaction, self, slice, limit).await
    }
}

async fn refusals_within(
    transaction: &Transaction,
    filter: &RefusalFilter,
    slice: Places,
    limit: usize,
) -> Result<Vec<KeptRefusal>, Error> {
    // As they are kept.
    let sought = |sought: &'_ Option<String>| sought.as_deref().map(|sought| text(sought).into_owned());
    // The server plans for these very values, so a condition that asks for nothing costs nothing.
    let rows = transaction
        .query(
            "SELECT * FROM countersign.refusals
             WHERE id >= $8 AND id <= $12
               AND ($1 IS NULL OR reason = $1)
               AND ($2 IS NULL OR endpoint = $2)
               AND ($3 IS NULL OR user_id = $3)
               AND ($4 IS NULL OR message_id = $4)
               AND ($5 IS NULL OR instance_id = $5 OR context_instance_id = $5)
               AND ($6 IS NULL OR task_id = $6 OR search_id = $6 OR context_task_id = $6)
               AND ($7 IS NULL OR peer = $7)
               AND ($9 IS NULL OR refused_at >= $9)
               AND ($10 IS NULL OR refused_at < $10)
               AND (NOT $11 OR user_id IS NULL)
             ORDER BY id DESC LIMIT $13",
            values![
                sought(&filter.reason),
                sought(&filter.endpoint),
                sought(&filter.user_id),
                sought(&filter.message_id),
                sought(&filter.instance_id),
                sought(&filter.task_id),
                sought(&filter.peer),
                number(slice.first),
                filter.since.map(Timestamp::as_millisecond),
                filter.until.map(Timestamp::as_millisecond),
                filter.nobody,
                number(slice.last),
                number(limit as u64),
            ],
        )
        .await?;
    rows.iter().map(kept).collect()
}

/// As [`Lookup::refused_since`](crate::ledger::Lookup::refused_since).
pub(super) async fn since(link: &Link, since: Timestamp) -> Result<Vec<(u64, KeptRefusal)>, Error> {
    let rows = link
        .query(
            "SELECT r.*, newest.n FROM countersign.refusals r JOIN (
                SELECT max(id) AS id, count(*) AS n FROM countersign.refusals WHERE refused_at >= $1 GROUP BY reason
             ) newest ON newest.id = r.id ORDER BY r.id DESC",
            values![since.as_millisecond()],
        )
        .await?;
    rows.iter().map(|row| Ok((row.seq("n")?, kept(row)?))).collect()
}

fn kept(row: &Row) -> Result<KeptRefusal, Error> {
    let refused = RefusedCallback {
        refused_at: row.time("refused_at")?,
        endpoint: row.try_get("endpoint")?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        peer: row.try_get("peer")?,
        body_bytes: row.seq("body_bytes")?,
        stranger: row.try_get("stranger")?,
        action_type: row.try_get("action_type")?,
        user_id: row.try_get("user_id")?,
        approval_code: row.try_get("approval_code")?,
        instance_id: row.try_get("instance_id")?,
        task_id: row.try_get("task_id")?,
        message_id: row.try_get("message_id")?,
        search_id: row.try_get("search_id")?,
        context_task: ContextTask {
            instance_id: row.try_get("context_instance_id")?,
            task_id: row.try_get("context_task_id")?,
            round: row.try_get("context_round")?,
            business_key: row.try_get("context_business_key")?,
        }
        .unless_empty(),
    };
    Ok(KeptRefusal { id: row.seq("id")?, refused })
}
