//! Reads in slices, and stops those that take too long; see [`ledger::search`](crate::ledger::search).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode};

use crate::ledger::search::{Places, Slices};

/// Instructions of SQLite between two looks at the clock: some microseconds, but for the disk.
const INSTRUCTIONS: i32 = 1000;

/// Stops the reads of one connection that take too long.
#[derive(Debug)]
pub(super) struct Stopwatch {
    began: Instant,
    /// When to stop, in nanoseconds from then.
    stop_at: AtomicU64,
}

impl Stopwatch {
    /// Watches a connection.
    pub(super) fn watch(connection: &mut Connection) -> rusqlite::Result<Arc<Self>> {
        let stopwatch = Arc::new(Self { began: Instant::now(), stop_at: AtomicU64::new(u64::MAX) });
        let watched = stopwatch.clone();
        connection.progress_handler(
            INSTRUCTIONS,
            Some(move || watched.now() >= watched.stop_at.load(Ordering::Relaxed)),
        )?;
        Ok(stopwatch)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Does a read that is stopped after `limit`; `None` if it was.
    fn within<T>(
        &self,
        limit: Option<Duration>,
        read: impl FnOnce() -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        let nanos = limit.and_then(|limit| u64::try_from(limit.as_nanos()).ok());
        let stop_at = nanos.map_or(u64::MAX, |nanos| self.now().saturating_add(nanos));
        self.stop_at.store(stop_at, Ordering::Relaxed);
        let found = read();
        self.stop_at.store(u64::MAX, Ordering::Relaxed);
        match found {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(None),
            found => found.map(Some),
        }
    }
}

/// Reads slices until the limit is reached, nothing is left, or the time is over, but one at least. Returns what was found,
/// and where it stopped if its time was over.
pub(super) fn in_slices<T>(
    stopwatch: &Stopwatch,
    mut slices: Slices,
    limit: usize,
    patience: Option<Duration>,
    mut read: impl FnMut(Places, usize) -> rusqlite::Result<Vec<T>>,
) -> rusqlite::Result<(Vec<T>, Option<u64>)> {
    let began = Instant::now();
    let mut found = Vec::new();
    let mut forward = false;
    while let Some(slice) = slices.next()
        && found.len() < limit
    {
        let left = patience.filter(|_| forward).map(|patience| patience.saturating_sub(began.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok((found, Some(slices.at())));
        }
        let at = Instant::now();
        match stopwatch.within(slices.longest(left), || read(slice, limit - found.len()))? {
            Some(rows) => {
                found.extend(rows);
                slices.read(at.elapsed());
                forward = true;
            }
            None => slices.stopped(),
        }
    }
    Ok((found, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_takes_too_long_is_stopped_and_the_next_is_not() {
        let mut connection = Connection::open_in_memory().unwrap();
        let stopwatch = Stopwatch::watch(&mut connection).unwrap();
        let count = |rows: u64| {
            let sql = format!(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows}) SELECT count(*) FROM n"
            );
            connection.query_row(&sql, [], |row| row.get::<_, i64>(0))
        };
        let began = Instant::now();
        assert_eq!(stopwatch.within(Some(Duration::from_millis(20)), || count(u64::MAX / 2)).unwrap(), None);
        assert!(began.elapsed() >= Duration::from_millis(20));
        assert_eq!(stopwatch.within(None, || count(10_000)).unwrap(), Some(10_000));
        assert_eq!(count(10_000).unwrap(), 10_000, "what nobody limits");
    }
}
