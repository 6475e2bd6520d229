//! Threads that look up registered contexts for the accept path.
//!
//! A lookup takes microseconds, and a callback waits for it. Tokio's blocking pool would start a thread, a connection
//! and its cache for each. Here a few threads share one queue, and each takes all that wait: many lookups share one
//! read transaction, as many accepts share one commit.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

use super::{contexts, reader::Reader};
use crate::{command::Registered, ledger::AcceptError};

/// More than one, so that a lookup that waits for the disk does not block all others. On two cores four were not
/// faster, and each costs a page cache.
const THREADS: usize = 2;

/// Room for the inner pages of two million contexts, about 6 MiB: a lookup then reads one page from the system's cache
/// instead of two. Allocated only as it fills. (Negative: KiB, https://www.sqlite.org/pragma.html#pragma_cache_size)
const CACHE_KIB: i32 = -8192;

/// Maximum number of lookups in one read transaction. A reader that never ends keeps the write-ahead log from
/// restarting.
const MAX_BATCH: usize = 64;

/// A callback that waits for its registered context.
pub(super) struct Question {
    /// Tried first.
    pub(super) key: Option<String>,
    /// Tried if no context has the key.
    pub(super) message_id: Option<u64>,
    pub(super) reply: oneshot::Sender<Result<Option<Registered>, AcceptError>>,
}

/// The lookup threads. They end when this is closed or dropped.
pub(super) struct Lookups {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Question>,
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }
}

impl Lookups {
    /// Starts the threads. Each opens its connection on first use: without a registry there is none.
    pub(super) fn start(path: &Arc<Path>) -> std::io::Result<Self> {
        let lookups = Self { queue: Arc::default(), threads: Mutex::default() };
        for _ in 0..THREADS {
            let (path, queue) = (path.clone(), lookups.queue.clone());
            let thread =
                thread::Builder::new().name("ledger-lookup".to_owned()).spawn(move || work(&path, &queue))?;
            lookups.threads.lock().expect("nobody panics with the lock").push(thread);
        }
        Ok(lookups)
    }

    /// Queues a lookup. Once closed, drops the reply.
    pub(super) fn ask(&self, lookup: Question) {
        let mut state = self.queue.state();
        if !state.closed {
            state.waiting.push_back(lookup);
            drop(state);
            self.queue.wake.notify_one();
        }
    }

    /// Lets the threads finish what waits, and joins them.
    pub(super) fn close(&self) {
        self.queue.state().closed = true;
        self.queue.wake.notify_all();
        for thread in self.threads.lock().expect("nobody panics with the lock").drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that looks up contexts panicked");
            }
        }
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        self.close();
    }
}

fn work(path: &Path, queue: &Queue) {
    let mut reader = None;
    loop {
        let mut batch: Vec<Question> = {
            let mut state = queue.state();
            while state.waiting.is_empty() && !state.closed {
                state = queue.wake.wait(state).expect("nobody panics with the lock");
            }
            let taken = state.waiting.len().min(MAX_BATCH);
            state.waiting.drain(..taken).collect()
        };
        if batch.is_empty() {
            return;
        }
        // Nobody needs the answer once the sender has hung up.
        batch.retain(|lookup| !lookup.reply.is_closed());
        match look_up(path, &mut reader, &batch) {
            Ok(found) => {
                for (lookup, found) in batch.into_iter().zip(found) {
                    lookup.reply.send(Ok(found)).ok();
                }
            }
            Err(error) => {
                let path = path.display();
                tracing::error!(error = &*error, %path, "registered contexts cannot be read; callbacks that need them are refused");
                // Do not reuse a failed connection.
                reader = None;
                for lookup in batch {
                    lookup.reply.send(Err(AcceptError::Unavailable)).ok();
                }
            }
        }
    }
}

fn look_up(
    path: &Path,
    reader: &mut Option<Reader>,
    batch: &[Question],
) -> Result<Vec<Option<Registered>>, Box<dyn std::error::Error + Send + Sync>> {
    let reader = match reader {
        Some(reader) => reader,
        none => {
            let reader = none.insert(Reader::open(path)?);
            reader.connection().pragma_update(None, "cache_size", CACHE_KIB)?;
            reader
        }
    };
    let transaction = reader.connection().unchecked_transaction()?;
    let mut found = Vec::with_capacity(batch.len());
    for Question { key, message_id, .. } in batch {
        let mut one = match key {
            Some(key) => contexts::by_key(&transaction, key)?,
            None => None,
        };
        if let (None, Some(message_id)) = (&one, message_id) {
            one = contexts::by_message(&transaction, *message_id)?;
        }
        found.push(one.map(|one| one.registered));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::sqlite::schema;

    fn ask(lookups: &Lookups, message_id: u64) -> oneshot::Receiver<Result<Option<Registered>, AcceptError>> {
        let (reply, answer) = oneshot::channel();
        lookups.ask(Question { key: None, message_id: Some(message_id), reply });
        answer
    }

    #[test]
    fn the_threads_finish_what_waits_and_end_when_it_is_closed_or_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path: Arc<Path> = directory.path().join("ledger.db").into();
        drop(schema::open_writer(&path).unwrap());
        for dropped in [false, true] {
            let lookups = Lookups::start(&path).unwrap();
            let answers: Vec<_> = (0..200).map(|message_id| ask(&lookups, message_id)).collect();
            let queue = lookups.queue.clone();
            if dropped {
                drop(lookups);
                assert_eq!(Arc::strong_count(&queue), 1, "no thread has it any more");
            } else {
                lookups.close();
                assert_eq!(Arc::strong_count(&queue), 2);
                assert!(ask(&lookups, 1).blocking_recv().is_err());
            }
            for mut answer in answers {
                assert!(matches!(answer.try_recv(), Ok(Ok(None))));
            }
        }
    }
}
