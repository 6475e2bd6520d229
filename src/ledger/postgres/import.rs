//! A new database as the target of an import: one transaction.

use std::sync::Arc;

use super::{
    Error, Options,
    link::{Link, Transaction},
    schema,
    server::Server,
    target::{Held, ahead, held, insert, settle},
    values::{uuid, values},
};
use crate::{
    command::CommandId,
    ledger::copy::tables::{Ends, Portion, Table},
};

/// See the module. Dropping it takes everything back.
pub(in crate::ledger) struct Import {
    transaction: Transaction,
    ahead_ms: i64,
}

impl Import {
    /// Begins, or says what is there already. Accepts wait until the end.
    pub(in crate::ledger) async fn begin(
        options: &Options,
        ends: &Ends,
    ) -> Result<Result<Self, String>, Error> {
        let link = Link::new(Arc::new(Server::new(options.address.clone())));
        schema::migrate(&link).await?;
        let transaction = link.begin().await?;
        transaction.query("SELECT 1 FROM countersign.log WHERE id = 1 FOR UPDATE", values![]).await?;
        transaction.query("SELECT 1 FROM countersign.relay WHERE id = 1 FOR UPDATE", values![]).await?;
        match held(&transaction).await? {
            Held::Empty | Held::Nothing => {}
            found => {
                transaction.roll_back().await?;
                return Ok(Err(match found {
                    Held::Led(leader) => format!("{leader} serves from it; stop all replicas"),
                    Held::Copy(copy) => format!("a copy of {}", copy.source),
                    Held::Ledger { commands, contexts, refusals } => {
                        format!("{commands} commands, {contexts} contexts, {refusals} refusals")
                    }
                    Held::Empty | Held::Nothing => String::new(),
                }));
            }
        }
        let demands = options.demands;
        let durable = "SELECT countersign.durable_v1($1, $2)";
        transaction.query(durable, values![demands.needs_standby(), demands.trust_storage]).await?;
        let ahead_ms = ahead(&transaction, ends.newest).await?;
        Ok(Ok(Self { transaction, ahead_ms }))
    }

    pub(in crate::ledger) async fn rows(&mut self, table: &Table, portion: &Portion) -> Result<(), Error> {
        insert(&self.transaction, table, portion, self.ahead_ms).await
    }

    /// Writes the single values, and removes rounds whose command, younger than `after`, is not there; returns how many.
    pub(in crate::ledger) async fn finish(
        &mut self,
        ends: &Ends,
        after: Option<CommandId>,
    ) -> Result<u64, Error> {
        settle(&self.transaction, ends).await?;
        let cursor = "UPDATE countersign.relay SET published_through = $1, pruned_through = $2";
        self.transaction.execute(cursor, values![ends.cursor, ends.pruned]).await?;
        let Some(after) = after else { return Ok(0) };
        let forget = "DELETE FROM countersign.rounds r WHERE command_id >= $1
               AND NOT EXISTS (SELECT 1 FROM countersign.commands c WHERE c.command_id = r.command_id)";
        self.transaction.execute(forget, values![uuid(after)]).await
    }

    pub(in crate::ledger) async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await
    }
}
