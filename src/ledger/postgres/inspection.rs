//! A ledger's database as `ledger check` sees it: all rows as of one moment.

use std::{collections::HashMap, sync::Arc};

use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Error, Options,
    link::{Link, Transaction},
    schema,
    server::Server,
    values::values,
};
use crate::ledger::{
    check::{Fault, Kind, Seen},
    copy::tables::{Ends, Kind as Holds, Place, Portion, Reconciliation, Table, Values},
};

/// Rows of a portion: few enough to come within the time that a statement may take.
const ROWS: usize = 1000;

/// See the module.
pub(in crate::ledger) struct Inspection {
    transaction: Transaction,
}

impl Inspection {
    /// Opens a ledger as it is now, beside the replicas.
    pub(in crate::ledger) async fn open(options: &Options) -> Result<Self, Error> {
        let link = Link::new(Arc::new(Server::new(options.address.clone())));
        schema::check(&link).await?;
        let transaction = link.snapshot().await?;
        // Somebody may read what is printed page by page. It holds no lock that others wait for.
        transaction.execute_batch("SET LOCAL idle_in_transaction_session_timeout = '10min'").await?;
        Ok(Self { transaction })
    }

    /// What is wrong with tables and indexes.
    pub(in crate::ledger) async fn tables(&mut self) -> Result<Vec<Fault>, Error> {
        let sql = "SELECT 'index ' || c.relname AS thing, 'is not valid: REINDEX it' AS what
             FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'countersign' AND NOT i.indisvalid
             UNION ALL SELECT 'trigger ' || t.tgname, 'is not of countersign'
             FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'countersign' AND NOT t.tgisinternal
             UNION ALL SELECT 'unique index on commands (command_id)', 'is missing'
             WHERE NOT EXISTS (SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                WHERE i.indrelid = 'countersign.commands'::regclass AND i.indisunique AND i.indnkeyatts = 1
                  AND a.attname = 'command_id')
             UNION ALL SELECT 'table ' || t.name, 'has ' || t.rows || ' rows, not one' FROM (
                SELECT 'log' AS name, count(*) AS rows FROM countersign.log
                UNION ALL SELECT 'relay', count(*) FROM countersign.relay
                UNION ALL SELECT 'reconciliation', count(*) FROM countersign.reconciliation) t WHERE t.rows <> 1";
        let rows = self.transaction.query(sql, values![]).await?;
        rows.iter()
            .map(|row| {
                Ok(Fault::new(Kind::Schema, row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?))
            })
            .collect()
    }

    pub(in crate::ledger) async fn ends(&mut self) -> Result<Ends, Error> {
        let sql = "SELECT r.published_through, r.pruned_through, l.head, l.id_lead_ms, c.skipped_through, c.asked_through, c.passed_at,
                c.seen, c.ended, c.untellable,
                (SELECT received_at FROM countersign.commands ORDER BY seq DESC LIMIT 1) AS newest,
                NOT EXISTS (SELECT 1 FROM countersign.copied) AS has_clock
             FROM countersign.relay r, countersign.log l, countersign.reconciliation c";
        let row = self.transaction.query_opt(sql, values![]).await?.ok_or(Error::NoVersion)?;
        Ok(Ends {
            cursor: row.try_get("published_through")?,
            pruned: row.try_get("pruned_through")?,
            head: row.try_get("head")?,
            id_lead: row.try_get("id_lead_ms")?,
            newest: row.try_get("newest")?,
            // What was copied has the times of a machine's clock, which may have been set back.
            has_clock: row.try_get("has_clock")?,
            // A sequence numbers them, which never goes back.
            last_showing: i64::MAX,
            reconciliation: Reconciliation {
                skipped_through: row.try_get("skipped_through")?,
                asked_through: row.try_get("asked_through")?,
                passed_at: row.try_get("passed_at")?,
                counts: [row.try_get("seen")?, row.try_get("ended")?, row.try_get("untellable")?],
            },
        })
    }

    pub(in crate::ledger) async fn after(
        &mut self,
        table: &Table,
        place: Option<&Place>,
    ) -> Result<Seen, Error> {
        let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
        // The expression of a key with two columns.
        let key = table.key.replace("char(", "chr(");
        let condition = if place.is_some() { format!("WHERE {key} > $1") } else { String::new() };
        let sql = format!(
            "SELECT {}, {key} AS place FROM countersign.{} {condition} ORDER BY {key} LIMIT {ROWS}",
            names.join(", "),
            table.name
        );
        let found = match place.map(|place| place.split_first()) {
            None => self.transaction.query(&sql, values![]).await?,
            Some(Some((b'i', key))) => {
                let key = key.first_chunk().map_or(i64::MIN, |key| i64::from_be_bytes(*key));
                self.transaction.query(&sql, values![key]).await?
            }
            Some(Some((b't', key))) => {
                self.transaction.query(&sql, values![String::from_utf8_lossy(key).into_owned()]).await?
            }
            Some(key) => {
                self.transaction
                    .query(&sql, values![key.map_or_else(Vec::new, |(_, key)| key.to_vec())])
                    .await?
            }
        };
        let Some(last) = found.last() else { return Ok(Seen::End) };
        let last = place_of(last)?;
        let columns = table.columns.iter().map(|column| column_of(&found, column.name, column.kind));
        let columns = columns.collect::<Result<_, Error>>()?;
        Ok(Seen::Rows(Portion { rows: found.len() as u64, columns, last }))
    }

    pub(in crate::ledger) async fn rounds(
        &mut self,
        fingerprints: Vec<Vec<u8>>,
    ) -> Result<Vec<Option<Uuid>>, Error> {
        if fingerprints.is_empty() {
            return Ok(Vec::new());
        }
        let sql = "SELECT fingerprint, command_id FROM countersign.rounds WHERE fingerprint = ANY($1)";
        let found = self.transaction.query(sql, values![fingerprints]).await?;
        let mut known: HashMap<Vec<u8>, Uuid> = HashMap::new();
        for row in &found {
            known.insert(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(fingerprints.iter().map(|fingerprint| known.get(fingerprint).copied()).collect())
    }

    pub(in crate::ledger) async fn unknown(&mut self, ids: Vec<Uuid>) -> Result<Vec<Uuid>, Error> {
        let sql = "SELECT i.id FROM unnest($1) i (id)
             WHERE NOT EXISTS (SELECT 1 FROM countersign.commands c WHERE c.command_id = i.id)";
        let found = self.transaction.query(sql, values![ids]).await?;
        found.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

fn place_of(row: &Row) -> Result<Place, Error> {
    if let Ok(key) = row.try_get::<_, i64>("place") {
        return Ok([&b"i"[..], &key.to_be_bytes()].concat());
    }
    if let Ok(key) = row.try_get::<_, &str>("place") {
        return Ok([b"t", key.as_bytes()].concat());
    }
    Ok([b"b", row.try_get::<_, &[u8]>("place")?].concat())
}

fn column_of(rows: &[Row], name: &str, kind: Holds) -> Result<Values, Error> {
    Ok(match Values::none_of(kind) {
        Values::Number(_) => Values::Number(all(rows, name)?),
        Values::Count(_) => Values::Count(all(rows, name)?),
        Values::Flag(_) => Values::Flag(all(rows, name)?),
        Values::Text(_) => Values::Text(all(rows, name)?),
        Values::Bytes(_) => Values::Bytes(all(rows, name)?),
        Values::Id(_) => Values::Id(all(rows, name)?),
    })
}

fn all<'a, T: tokio_postgres::types::FromSql<'a>>(
    rows: &'a [Row],
    name: &str,
) -> Result<Vec<Option<T>>, Error> {
    rows.iter().map(|row| Ok(row.try_get(name)?)).collect()
}
