//! The looks into the database, for the service and for commands alike.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Links, acts, credentials, dead_letters, findings, lookup, outcomes, refusals, search};
use crate::{
    command::{CommandId, Seq},
    ledger::{
        AcceptError, ActFilter, ActRecord, CredentialUse, Filter, Found, KeptRefusal, LookError, Lookup,
        Record, RefusalFilter, Stats, Stray, Subject,
        findings::{Candidate, Findings, Overview, Page, Reach, Reconciled, Which},
    },
    time::Timestamp,
};

impl Lookup for Links {
    fn id_at(&self, seq: Seq) -> BoxFuture<'static, Result<Option<CommandId>, LookError>> {
        self.look("look up a command in", move |links| async move { lookup::id_at(&links.reads, seq).await })
    }

    fn find(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Record>, LookError>> {
        let operation = "look up a command in";
        self.look(operation, move |links| async move {
            let found = lookup::find(&links.snapshots, command_id).await?;
            Ok(match &links.memory {
                Some(memory) => memory.complete(found),
                None => found,
            })
        })
    }

    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Record>, LookError>> {
        self.look("list commands of", move |links| async move {
            Ok(search::search(&links.snapshots, &filter, None).await?.rows)
        })
    }

    fn search(
        &self,
        filter: Filter,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Found<Record>, LookError>> {
        self.look("search", move |links| async move {
            search::search(&links.snapshots, &filter, Some(patience)).await
        })
    }

    fn subjects(&self, from: Seq, limit: usize) -> BoxFuture<'static, Result<Vec<Subject>, LookError>> {
        self.look("read", move |links| async move { lookup::subjects(&links.reads, from, limit).await })
    }

    fn pruned_before(&self) -> BoxFuture<'static, Result<Option<Timestamp>, LookError>> {
        self.look("read the retention of", |links| async move { lookup::pruned_before(&links.reads).await })
    }

    fn refusals(&self, filter: RefusalFilter) -> BoxFuture<'static, Result<Vec<KeptRefusal>, LookError>> {
        self.look("list refusals of", move |links| async move {
            Ok(refusals::search(&links.snapshots, &filter, None).await?.rows)
        })
    }

    fn search_refusals(
        &self,
        filter: RefusalFilter,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Found<KeptRefusal>, LookError>> {
        self.look("search", move |links| async move {
            refusals::search(&links.snapshots, &filter, Some(patience)).await
        })
    }

    fn refused_since(
        &self,
        since: Timestamp,
    ) -> BoxFuture<'static, Result<Vec<(u64, KeptRefusal)>, LookError>> {
        self.look("count refusals of", move |links| async move { refusals::since(&links.reads, since).await })
    }

    fn acts(&self, filter: ActFilter) -> BoxFuture<'static, Result<Vec<ActRecord>, LookError>> {
        self.look("list the acts of", move |links| async move { acts::list(&links.reads, &filter).await })
    }

    fn first_of_acts(&self, acts: Vec<u64>) -> BoxFuture<'static, Result<Vec<(u64, CommandId)>, LookError>> {
        self.look("list the acts of", move |links| async move { acts::firsts(&links.reads, &acts).await })
    }

    fn parked_showings(&self, limit: usize) -> BoxFuture<'static, Result<Vec<Seq>, LookError>> {
        self.look("list the parked outcomes of", move |links| async move {
            outcomes::parked(&links.reads, limit).await
        })
    }

    fn credential_uses(&self) -> BoxFuture<'static, Result<Vec<CredentialUse>, LookError>> {
        self.look("look up the credentials in", |links| async move { credentials::all(&links.reads).await })
    }

    fn strays(&self, before: Option<u64>, limit: usize) -> BoxFuture<'static, Result<Vec<Stray>, LookError>> {
        self.look("list strays of", move |links| async move {
            dead_letters::strays(&links.reads, before, limit).await
        })
    }

    fn stats(&self) -> BoxFuture<'static, Result<Stats, LookError>> {
        self.look("read the figures of", |links| async move { lookup::stats(&links.snapshots).await })
    }
}

impl Findings for Links {
    fn unasked(&self, reach: Reach, limit: usize) -> BoxFuture<'static, Result<Page, LookError>> {
        let operation = "read published commands from";
        self.look(
            operation,
            move |links| async move { findings::unasked(&links.snapshots, reach, limit).await },
        )
    }

    fn findings(
        &self,
        which: Which,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Candidate>, LookError>> {
        let operation = "read the findings of";
        self.look(operation, move |links| async move {
            findings::findings(&links.reads, which, after, limit).await
        })
    }

    fn overview(&self) -> BoxFuture<'static, Result<Overview, LookError>> {
        self.look("count the findings of", |links| async move { findings::overview(&links.snapshots).await })
    }

    fn reconciled(&self, reconciled: Reconciled) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.change("write findings to", move |transaction| async move {
            findings::write(&transaction, &reconciled).await?;
            transaction.commit().await
        })
    }
}
