//! Looks up registered contexts for the accept path: what many callbacks ask at the same time is one statement.

use tokio::sync::{mpsc, oneshot};

use super::{contexts, link::Link};
use crate::{command::Registered, ledger::AcceptError};

/// Questions in one statement at the most.
const MAX_BATCH: usize = 64;

/// What a callback is registered for: by its key, else by its bot message.
pub(super) struct Question {
    pub(super) key: Option<String>,
    pub(super) message_id: Option<u64>,
    pub(super) reply: oneshot::Sender<Result<Option<Registered>, AcceptError>>,
}

/// Answers until nobody is left to ask.
pub(super) async fn run(link: Link, mut questions: mpsc::UnboundedReceiver<Question>) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while questions.recv_many(&mut batch, MAX_BATCH).await > 0 {
        // Nobody needs to know what a callback is registered for whose sender has hung up.
        batch.retain(|one| !one.reply.is_closed());
        let asked: Vec<_> = batch.iter_mut().map(|one| (one.key.take(), one.message_id)).collect();
        match contexts::registered(&link, &asked).await {
            Ok(found) => {
                for (one, found) in batch.drain(..).zip(found) {
                    one.reply.send(Ok(found)).ok();
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "registered contexts cannot be read; callbacks that need them are refused"
                );
                for one in batch.drain(..) {
                    one.reply.send(Err(AcceptError::Unavailable)).ok();
                }
            }
        }
    }
}
