//! A database as the target of a copy. Every portion is one transaction with the note how far the copy has come, so that one
//! that ended at any moment goes on from there.
//!
//! Until the end no replica uses the database: none starts on it, none leads, and no callback is accepted.

use std::sync::Arc;

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::{
    Error, Options,
    lease::{NOW, named},
    link::{Link, Transaction},
    schema,
    server::Server,
    values::{Columns, number, text, typed, values},
};
use crate::{
    ledger::copy::tables::{Census, Ends, Kind, Portion, TABLES, Table, Values},
    time::Timestamp,
};

/// Holds the lease while a copy is not finished.
const HOLDER: &str = "the copy of a ledger";

/// See the module.
#[derive(Debug)]
pub(in crate::ledger) struct Target {
    link: Link,
    options: Options,
}

/// What a database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ledger) enum Held {
    /// No ledger.
    Nothing,
    /// A ledger to which nothing happened yet.
    Empty,
    /// A ledger that something happened to.
    Ledger { commands: u64, contexts: u64, refusals: u64 },
    /// A replica leads, with this name.
    Led(String),
    /// A part of another ledger, or all of it.
    Copy(Under),
}

/// A copy under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ledger) struct Under {
    /// What is copied.
    pub(in crate::ledger) source: String,
    /// The content of that when the copy began.
    pub(in crate::ledger) content: String,
    /// Rows that are here.
    pub(in crate::ledger) rows: u64,
    pub(in crate::ledger) way: Way,
    pub(in crate::ledger) finished_at: Option<Timestamp>,
}

/// How far a copy has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ledger) struct Way {
    /// The table that is being copied.
    pub(in crate::ledger) doing: String,
    /// The key of the last row of it.
    pub(in crate::ledger) place: Option<Vec<u8>>,
    /// By how much the receiving machine's clock is ahead of the log's.
    pub(in crate::ledger) ahead_ms: i64,
}

impl Target {
    /// Connects when it is needed, on the runtime on which it is used.
    pub(in crate::ledger) fn new(options: &Options) -> Self {
        Self { link: Link::new(Arc::new(Server::new(options.address.clone()))), options: options.clone() }
    }

    /// What is there; changes nothing.
    pub(in crate::ledger) async fn look(&self) -> Result<Held, Error> {
        match schema::known(&self.link).await {
            Err(Error::NoTables) => return Ok(Held::Nothing),
            known => known?,
        }
        let transaction = self.link.begin().await?;
        let held = held(&transaction).await?;
        transaction.roll_back().await?;
        Ok(held)
    }

    /// Begins, if nothing is there; returns what is there then.
    pub(in crate::ledger) async fn begin(&self, source: &str, census: &Census) -> Result<Held, Error> {
        schema::migrate(&self.link).await?;
        let transaction = self.link.begin().await?;
        // Accepts wait, and see afterwards that a copy is under way.
        transaction.query("SELECT 1 FROM countersign.log WHERE id = 1 FOR UPDATE", values![]).await?;
        transaction.query("SELECT 1 FROM countersign.relay WHERE id = 1 FOR UPDATE", values![]).await?;
        let held_before = held(&transaction).await?;
        if held_before != Held::Empty {
            transaction.roll_back().await?;
            return Ok(held_before);
        }
        let demands = self.options.demands;
        transaction
            .query(
                "SELECT countersign.durable_v1($1, $2)",
                values![demands.needs_standby(), demands.trust_storage],
            )
            .await?;
        let ahead_ms = ahead(&transaction, census.ends.newest).await?;
        let now = Timestamp::now().as_millisecond();
        transaction
            .execute(
                "INSERT INTO countersign.copied (id, source, content, ahead_ms, doing, place, rows, begun_at)
                 VALUES (1, $1, $2, $3, $4, NULL, 0, $5)",
                values![text(source), census.content.as_str(), ahead_ms, TABLES[0].name, now],
            )
            .await?;
        // A term that never expires, and a cursor that nothing is after: no replica publishes what arrives.
        transaction
            .execute(
                "UPDATE countersign.relay SET published_through = $1, term = $2, holder = $3, expires_at = $4
                 WHERE id = 1",
                values![census.ends.cursor, Uuid::now_v7(), HOLDER, i64::MAX],
            )
            .await?;
        let begun = held(&transaction).await?;
        transaction.commit().await?;
        Ok(begun)
    }

    /// Keeps some rows of a table. False if the copy is not where it was left: somebody else goes on with it.
    pub(in crate::ledger) async fn keep(
        &self,
        table: &Table,
        way: &Way,
        portion: &Portion,
    ) -> Result<bool, Error> {
        let transaction = self.link.begin().await?;
        // A portion that is forgotten is forgotten with the note of it.
        transaction.execute_batch("SET LOCAL synchronous_commit = off").await?;
        let last = Some(portion.last.clone());
        if !go_on(&transaction, way, table.name, last, portion.rows).await? {
            transaction.roll_back().await?;
            return Ok(false);
        }
        insert(&transaction, table, portion, way.ahead_ms).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Goes from a table that is done to the next. False as for [`Self::keep`].
    pub(in crate::ledger) async fn turn_to(&self, table: &Table, way: &Way) -> Result<bool, Error> {
        let transaction = self.link.begin().await?;
        let done = go_on(&transaction, way, table.name, None, 0).await?;
        transaction.commit().await?;
        Ok(done)
    }

    /// Makes a ledger of what was copied. False as for [`Self::keep`].
    pub(in crate::ledger) async fn finish(&self, way: &Way, ends: &Ends) -> Result<bool, Error> {
        let transaction = self.link.begin().await?;
        let done = transaction
            .query_opt(
                "UPDATE countersign.copied SET finished_at = $1
                 WHERE finished_at IS NULL AND doing = $2 AND place IS NOT DISTINCT FROM $3 RETURNING 1",
                values![Timestamp::now().as_millisecond(), way.doing.as_str(), way.place.clone()],
            )
            .await?;
        if done.is_none() {
            transaction.roll_back().await?;
            return Ok(false);
        }
        settle(&transaction, ends).await?;
        transaction
            .execute(
                "UPDATE countersign.relay SET published_through = $1, pruned_through = $2, term = NULL, holder = NULL,
                    expires_at = 0",
                values![ends.cursor, ends.pruned],
            )
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Has PostgreSQL learn how the rows are distributed. It would by itself, some minutes later.
    pub(in crate::ledger) async fn analyze(&self) {
        for table in &TABLES {
            let done = self.link.query(&format!("ANALYZE countersign.{}", table.name), values![]).await;
            if let Err(error) = done {
                tracing::debug!(error = &error as &dyn std::error::Error, table.name, "not analyzed");
            }
        }
    }

    /// Removes the part of a ledger whose copy is not finished. False if there is none.
    pub(in crate::ledger) async fn discard(&self) -> Result<bool, Error> {
        let transaction = self.link.begin().await?;
        let removed = transaction
            .execute("DELETE FROM countersign.copied WHERE finished_at IS NULL", values![])
            .await?;
        if removed == 0 {
            transaction.roll_back().await?;
            return Ok(false);
        }
        let names: Vec<String> = TABLES
            .iter()
            .filter(|table| table.if_there.is_empty())
            .map(|table| format!("countersign.{}", table.name))
            .collect();
        transaction.execute_batch(&format!("TRUNCATE {}", names.join(", "))).await?;
        transaction
            .execute(
                "UPDATE countersign.relay SET published_through = 0, term = NULL, holder = NULL, expires_at = 0",
                values![],
            )
            .await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Adds rows to a table. By `ahead_ms` the receiving machine's clock is ahead of the log's.
pub(super) async fn insert(
    transaction: &Transaction,
    table: &Table,
    portion: &Portion,
    ahead_ms: i64,
) -> Result<(), Error> {
    let times = portion.columns.iter().zip(table.columns).map(|(values, column)| match values {
        Values::Number(times) if column.kind == Kind::At => {
            Some(times.iter().map(|at| at.map(|at| at.saturating_sub(ahead_ms))).collect::<Vec<_>>())
        }
        _ => None,
    });
    let times: Vec<_> = times.collect();
    let texts: Vec<_> = portion.columns.iter().map(without_zero_bytes).collect();
    let values: Vec<(&(dyn ToSql + Sync), Type)> = portion
        .columns
        .iter()
        .zip(&times)
        .zip(&texts)
        .map(|((values, times), texts)| match (values, times, texts) {
            (_, Some(times), _) => typed(times),
            (_, _, Some(texts)) => typed(texts),
            (Values::Number(values), ..) => typed(values),
            (Values::Count(values), ..) => typed(values),
            (Values::Flag(values), ..) => typed(values),
            (Values::Text(values), ..) => typed(values),
            (Values::Bytes(values), ..) => typed(values),
            (Values::Id(values), ..) => typed(values),
        })
        .collect();
    let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
    let places: Vec<String> = (1..=names.len()).map(|place| format!("${place}")).collect();
    let sql = format!(
        "INSERT INTO countersign.{} ({}) {} SELECT * FROM unnest({}) {}",
        table.name,
        names.join(", "),
        if table.is_numbered { "OVERRIDING SYSTEM VALUE" } else { "" },
        places.join(", "),
        table.if_there,
    );
    transaction.execute(&sql, &values).await?;
    Ok(())
}

/// Writes the single values but the cursor, and has rows be numbered from where they end.
pub(super) async fn settle(transaction: &Transaction, ends: &Ends) -> Result<(), Error> {
    for table in TABLES.iter().filter(|table| table.is_numbered) {
        let least = if table.name == "showings" { ends.last_showing } else { 0 };
        let sql = format!(
            "SELECT setval(pg_get_serial_sequence('countersign.{name}', 'id'), l.last)
             FROM (SELECT greatest($1, (SELECT max(id) FROM countersign.{name})) AS last) l WHERE l.last > 0",
            name = table.name
        );
        transaction.query(&sql, values![least]).await?;
    }
    let reconciliation = &ends.reconciliation;
    let [seen, ended, untellable] = reconciliation.counts;
    transaction
        .execute(
            "UPDATE countersign.reconciliation SET skipped_through = $1, asked_through = $2, passed_at = $3,
                seen = $4, ended = $5, untellable = $6",
            values![
                reconciliation.skipped_through,
                reconciliation.asked_through,
                reconciliation.passed_at,
                seen,
                ended,
                untellable
            ],
        )
        .await?;
    transaction
        .execute(
            "UPDATE countersign.log SET head = $1, id_lead_ms = greatest(id_lead_ms, $2)",
            values![ends.head, ends.id_lead],
        )
        .await?;
    Ok(())
}

/// Brings the log's clock up to now; returns by how much the clock of a machine that received `newest` is ahead of it.
pub(super) async fn ahead(transaction: &Transaction, newest: Option<i64>) -> Result<i64, Error> {
    let clock = "UPDATE countersign.log SET wall_ms = w.wall_ms,
            elapsed_ms = elapsed_ms + greatest(0, w.wall_ms - log.wall_ms)
         FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS wall_ms) w
         RETURNING elapsed_ms";
    let clock: i64 = transaction.query_opt(clock, values![]).await?.ok_or(Error::NoVersion)?.try_get(0)?;
    let now = Timestamp::now().as_millisecond();
    // After the clock was set back, the newest row is a better time than the clock.
    Ok(now.max(newest.unwrap_or(i64::MIN)) - clock)
}

/// What is there, as one transaction sees it.
pub(super) async fn held(transaction: &Transaction) -> Result<Held, Error> {
    let sql = "SELECT source, content, ahead_ms, doing, place, rows, finished_at FROM countersign.copied";
    if let Some(row) = transaction.query_opt(sql, values![]).await? {
        return Ok(Held::Copy(Under {
            source: row.try_get("source")?,
            content: row.try_get("content")?,
            rows: row.seq("rows")?,
            way: Way {
                doing: row.try_get("doing")?,
                place: row.try_get("place")?,
                ahead_ms: row.try_get("ahead_ms")?,
            },
            finished_at: row.time_if_any("finished_at")?,
        }));
    }
    let sql = format!(
        "SELECT l.head, CASE WHEN r.term IS NOT NULL AND r.expires_at > {NOW} THEN r.holder END AS holder,
            (SELECT count(*) FROM countersign.contexts) AS contexts,
            (SELECT count(*) FROM countersign.refusals) AS refusals
         FROM countersign.log l CROSS JOIN countersign.relay r"
    );
    let row = transaction.query_opt(&sql, values![]).await?.ok_or(Error::NoVersion)?;
    if let Some(holder) = row.try_get::<_, Option<&str>>("holder")? {
        return Ok(Held::Led(named(holder)));
    }
    let (commands, contexts, refusals) = (row.seq("head")?, row.seq("contexts")?, row.seq("refusals")?);
    Ok(if (commands, contexts, refusals) == (0, 0, 0) {
        Held::Empty
    } else {
        Held::Ledger { commands, contexts, refusals }
    })
}

/// Notes how far the copy has come, if it is where it was left.
async fn go_on(
    transaction: &Transaction,
    way: &Way,
    doing: &str,
    place: Option<Vec<u8>>,
    rows: u64,
) -> Result<bool, Error> {
    let moved = transaction
        .query_opt(
            "UPDATE countersign.copied SET doing = $3, place = $4, rows = rows + $5
             WHERE finished_at IS NULL AND doing = $1 AND place IS NOT DISTINCT FROM $2 RETURNING 1",
            values![way.doing.as_str(), way.place.clone(), doing, place, number(rows)],
        )
        .await?;
    Ok(moved.is_some())
}

/// Texts with a zero byte, changed to such as a column holds.
fn without_zero_bytes(values: &Values) -> Option<Vec<Option<String>>> {
    let Values::Text(texts) = values else { return None };
    let is_odd = texts.iter().flatten().any(|words| words.contains('\0'));
    is_odd.then(|| texts.iter().map(|words| words.as_deref().map(|words| text(words).into_owned())).collect())
}
