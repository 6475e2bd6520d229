//! Standard error behind a thread: a logging thread only queues its line in memory.
//!
//! A callback must not wait for the reader of our log: an undrained pipe or a paused terminal would stop every thread
//! at its next line. Batching is also cheaper: a test checks that 1000 lines take fewer than 500 writes.
//! `tracing-appender` writes each line separately, limits their number (128 000) but not their bytes, which strangers
//! choose, and does not log how many it has dropped.
//!
//! A line is written about a moment after it was logged, at the latest when the [`Flush`] is dropped. A killed process
//! loses the lines of that time; the ledger does not depend on its log.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tracing_subscriber::fmt::MakeWriter;

/// How long lines are batched for one write.
const LINGER: Duration = Duration::from_millis(10);

/// Maximum bytes waiting to be written; further lines are dropped and counted.
const ROOM_BYTES: usize = 1 << 20;

/// Time limit for the last lines at exit.
const PATIENCE: Duration = Duration::from_secs(1);

/// The waiting lines; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or `flush` is waiting.
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    writing: bool,
    hurry: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock must still work: the panic is logged through it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// Starts the thread that writes to `sink` for the lifetime of the process.
    ///
    /// # Errors
    /// The system could not start a thread.
    pub(super) fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Self::default();
        let shared = Arc::clone(&lines.0);
        thread::Builder::new().name("log".to_owned()).spawn(move || write_for_ever(&shared, sink))?;
        Ok(lines)
    }

    /// Waits until everything logged before is written, for at most `PATIENCE`.
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.0.state();
        while state.writing || !state.waiting.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            state.hurry = true;
            self.0.filled.notify_one();
            state = self.0.emptied.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn write_for_ever(shared: &Shared, mut sink: impl Write) {
    let mut batch = Vec::new();
    let mut state = shared.state();
    loop {
        while state.waiting.is_empty() {
            state.hurry = false;
            shared.emptied.notify_all();
            state = shared.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let deadline = Instant::now() + LINGER;
        while !state.hurry {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            state = shared.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        mem::swap(&mut batch, &mut state.waiting);
        state.writing = true;
        drop(state);
        // The error cannot be reported.
        sink.write_all(&batch).and_then(|()| sink.flush()).ok();
        batch.clear();
        // A flood must not keep its memory allocated.
        batch.shrink_to(ROOM_BYTES / 16);
        let dropped = {
            let mut state = shared.state();
            state.writing = false;
            mem::take(&mut state.dropped)
        };
        if dropped > 0 {
            tracing::warn!(dropped, "log lines dropped here: stderr was not read in time");
        }
        state = shared.state();
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &Lines {
    /// Takes a whole line: the subscriber writes each event with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        if state.waiting.len() + line.len() > ROOM_BYTES {
            state.dropped += 1;
            return Ok(line.len());
        }
        let first = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        // Only the first line wakes the thread.
        if first {
            self.0.filled.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the remaining lines on drop, for at most `PATIENCE`.
#[must_use = "lines are lost that are not written when the process ends"]
pub struct Flush(pub(super) Lines);

impl std::fmt::Debug for Flush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flush")
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Records writes; each waits until it is permitted.
    struct Sink {
        may: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.may.recv().map_err(|_gone| io::ErrorKind::BrokenPipe)?;
            self.written.send(bytes.to_vec()).map_err(|_gone| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sink() -> (Lines, Sender<()>, Receiver<Vec<u8>>) {
        let ((allow, may), (written, read)) = (channel(), channel());
        (Lines::start(Sink { may, written }).unwrap(), allow, read)
    }

    #[test]
    fn lines_come_whole_and_in_order_and_many_in_one_write() {
        let (lines, allow, read) = sink();
        let mut text = Vec::new();
        for n in 0..1000 {
            let line = format!("line {n}\n");
            (&lines).write_all(line.as_bytes()).unwrap();
            text.extend_from_slice(line.as_bytes());
        }
        let (mut came, mut writes) = (Vec::new(), 0);
        while came.len() < text.len() {
            allow.send(()).unwrap();
            came.extend(read.recv().unwrap());
            writes += 1;
        }
        assert_eq!(came, text);
        assert!(writes < 500, "{writes} writes for 1000 lines");
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read_and_what_is_lost_is_counted() {
        let (lines, allow, read) = sink();
        let line = [b'x'; 1024];
        // Must return although nothing may be written.
        for _ in 0..3 * ROOM_BYTES / line.len() {
            (&lines).write_all(&line).unwrap();
        }
        assert!(lines.0.state().dropped > 0);
        drop(allow);
        drop(read);
    }

    #[test]
    fn the_end_waits_for_the_last_line() {
        let (lines, allow, read) = sink();
        (&lines).write_all(b"last\n").unwrap();
        allow.send(()).unwrap();
        drop(Flush(lines));
        assert_eq!(read.try_recv().as_deref(), Ok(b"last\n".as_slice()));
    }
}
