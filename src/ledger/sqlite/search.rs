//! Searches of the log, in slices; see [`ledger::search`](crate::ledger::search).

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params, types::ToSql};

use super::{
    columns::seq,
    history,
    reader::{RECORD, Reader, record},
    slices::in_slices,
};
use crate::{
    command::{CommandId, Seq},
    ledger::{
        Filter, Found, OutcomeFilter, Record, State, Stopped, Subject,
        search::{Bisection, Places, Slices},
    },
    time::Timestamp,
};

/// The command at a place in the log, or the first after it.
pub(super) const FROM: &str = "SELECT seq, command_id FROM commands WHERE seq >= ?1 ORDER BY seq LIMIT 1";

/// One of the searches of a slice: in which tables, ordered by which column, under which condition.
struct Search {
    from: &'static str,
    place: &'static str,
    condition: &'static str,
    places: Places,
}

impl Search {
    /// Its statement: the places are `?1` and `?2`, the limit is `?3`; the values of `conditions` follow.
    fn sql(&self, conditions: &str, ascending: bool) -> String {
        let Self { from, place, condition, places: _ } = self;
        let order = if ascending { "ASC" } else { "DESC" };
        format!(
            "SELECT {RECORD} FROM {from} WHERE {place} BETWEEN ?1 AND ?2 AND {condition}{conditions}
             ORDER BY {place} {order} LIMIT ?3"
        )
    }
}

const LOG: (&str, &str) = ("commands c LEFT JOIN exceptions e ON e.seq = c.seq", "c.seq");
const EXCEPTIONS: (&str, &str) = ("exceptions e CROSS JOIN commands c ON c.seq = e.seq", "e.seq");
const CAME_BACK: (&str, &str) = (
    "dead_letters d CROSS JOIN commands c ON c.seq = d.seq LEFT JOIN exceptions e ON e.seq = c.seq",
    "d.seq",
);

/// The searches that find the commands in a state. A state other than published is rare in a long log: they begin with
/// the few rows that can have it.
fn searches(state: Option<State>, places: Places, cursor: Seq) -> Vec<Search> {
    let Places { first, last } = places;
    let published = Places { first, last: last.min(cursor) };
    let unpublished = Places { first: first.max(cursor + 1), last };
    let search = |(from, place), condition, places| Search { from, place, condition, places };
    match state {
        None => vec![search(LOG, "1", places)],
        Some(State::Pending) => vec![
            search(LOG, "e.seq IS NULL", unpublished),
            search(EXCEPTIONS, "e.state IN ('retrying', 'requeued')", places),
        ],
        Some(State::Parked) => vec![search(EXCEPTIONS, "e.state = 'parked'", places)],
        Some(State::Published) => vec![search(
            LOG,
            "e.seq IS NULL
                AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.seq = c.seq AND d.is_open = 1)",
            published,
        )],
        Some(State::Rejected) => {
            vec![search(CAME_BACK, "d.is_open = 1 AND d.why <> 'unrouted' AND e.seq IS NULL", published)]
        }
        Some(State::Unrouted) => {
            vec![search(CAME_BACK, "d.is_open = 1 AND d.why = 'unrouted' AND e.seq IS NULL", published)]
        }
    }
}

impl Reader {
    /// All commands that pass the filter, newest first unless `after` is given.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn list(&self, filter: &Filter) -> rusqlite::Result<Vec<Record>> {
        Ok(self.search(filter, None)?.rows)
    }

    /// [`Reader::list`], for as long as `patience` lasts.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn search(&self, filter: &Filter, patience: Option<Duration>) -> rusqlite::Result<Found<Record>> {
        let Some(places) = self.places(filter)? else { return Ok(Found::nothing()) };
        let slices = Slices::new(places, filter.after.is_some()).hinted(filter.hint.clone());
        let (rows, stopped) = in_slices(&self.stopwatch, slices, filter.limit, patience, |slice, limit| {
            self.slice(filter, slice, limit)
        })?;
        let stopped = match stopped {
            Some(at) => Some(Stopped { at, back_to: self.received_from(at)? }),
            None => None,
        };
        Ok(Found { rows, stopped })
    }

    /// What passes the filter of a slice.
    fn slice(&self, filter: &Filter, slice: Places, limit: usize) -> rusqlite::Result<Vec<Record>> {
        // One read transaction, for a consistent view, and no longer.
        let transaction = self.connection().unchecked_transaction()?;
        let cursor = self.cursor()?;
        let (conditions, values) = conditions(filter);
        let ascending = filter.after.is_some();
        let mut found: Vec<Record> = Vec::new();
        for search in searches(filter.state, slice, cursor) {
            let places = search.places;
            if places.first > places.last {
                continue;
            }
            let sql = search.sql(&conditions, ascending);
            let (first, last) = (stored(places.first), stored(places.last));
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut all: Vec<&dyn ToSql> = vec![&first, &last, &limit];
            all.extend(values.iter().map(AsRef::as_ref));
            let mut statement = transaction.prepare_cached(&sql)?;
            let rows = statement.query_map(&*all, record)?;
            found.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        found.sort_by_key(|record| if ascending { record.seq } else { Seq::MAX - record.seq });
        found.truncate(limit);
        found.into_iter().map(|record| self.with_outcome(record)).collect()
    }

    /// The places in the log that enclose everything that may pass the filter; `None` if there are none.
    fn places(&self, filter: &Filter) -> rusqlite::Result<Option<Places>> {
        let transaction = self.connection().unchecked_transaction()?;
        let ends = transaction
            .prepare_cached("SELECT (SELECT min(seq) FROM commands), (SELECT max(seq) FROM commands)")?
            .query_row([], |row| Ok(row.get::<_, Option<i64>>(0)?.zip(row.get::<_, Option<i64>>(1)?)))?;
        let Some((first, last)) = ends else { return Ok(None) };
        let mut places = Places { first: first.cast_unsigned(), last: last.cast_unsigned() };
        if let Some(before) = filter.before {
            places.last = places.last.min(before.saturating_sub(1));
        }
        if let Some(after) = filter.after {
            places.first = places.first.max(after.saturating_add(1));
        }
        if places.first > places.last {
            return Ok(None);
        }
        let lead = history::id_lead(&transaction)?;
        let since = filter.since.map(|since| find(&transaction, Bisection::since(since, lead, places)));
        let until = filter.until.map(|until| find(&transaction, Bisection::until(until, lead, places)));
        if let Some(first) = since.transpose()? {
            places.first = first;
        }
        if let Some(end) = until.transpose()? {
            places.last = end.saturating_sub(1);
        }
        Ok((places.first <= places.last).then_some(places))
    }

    /// What commands are about, from a place in the log on.
    pub(super) fn subjects(&self, from: Seq, limit: usize) -> rusqlite::Result<Vec<Subject>> {
        self.connection()
            .prepare_cached(
                "SELECT seq, command_id, user_id, instance_id, task_id FROM commands WHERE seq >= ?1 ORDER BY seq LIMIT ?2",
            )?
            .query_map(params![stored(from), i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                Ok(Subject {
                    seq: seq(row, 0)?,
                    command_id: row.get(1)?,
                    user_id: row.get(2)?,
                    instance_id: row.get(3)?,
                    task_id: row.get(4)?,
                })
            })?
            .collect()
    }

    /// When the first command from a place in the log on was received.
    fn received_from(&self, place: Seq) -> rusqlite::Result<Option<Timestamp>> {
        self.connection()
            .prepare_cached("SELECT received_at FROM commands WHERE seq >= ?1 ORDER BY seq LIMIT 1")?
            .query_row([stored(place)], |row| row.get(0))
            .optional()
    }
}

fn find(connection: &Connection, mut bisection: Bisection) -> rusqlite::Result<Seq> {
    let mut statement = connection.prepare_cached(FROM)?;
    while let Some(place) = bisection.look() {
        let row = statement
            .query_row(params![stored(place)], |row| Ok((seq(row, 0)?, row.get::<_, CommandId>(1)?.millis())))
            .optional()?;
        bisection.saw(row);
    }
    Ok(bisection.place())
}

fn stored(place: Seq) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

/// The conditions of a filter but for its places and its state, and their values, from `?4` on.
fn conditions(filter: &Filter) -> (String, Vec<Box<dyn ToSql>>) {
    let mut conditions = String::new();
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut narrow = |condition: &str, value: Box<dyn ToSql>| {
        values.push(value);
        conditions.push_str(" AND ");
        conditions.push_str(&condition.replace('?', &format!("?{}", values.len() + 3)));
    };
    for (column, value) in [
        ("endpoint", &filter.endpoint),
        ("instance_id", &filter.instance_id),
        ("task_id", &filter.task_id),
        ("user_id", &filter.user_id),
    ] {
        if let Some(value) = value {
            narrow(&format!("c.{column} = ?"), Box::new(value.clone()));
        }
    }
    if let Some(action) = filter.action {
        narrow("c.action = ?", Box::new(action.as_str()));
    }
    if let Some(message_id) = &filter.message_id {
        // Only the message has it. Most rows are skipped by their bytes, without parsing JSON.
        let member = format!("\"message_id\":\"{message_id}\"");
        narrow("instr(c.message, ?) > 0", Box::new(member.into_bytes()));
        let member = "json_extract(CAST(c.message AS TEXT), '$.message_id') = ?";
        narrow(member, Box::new(message_id.clone()));
    }
    if let Some(since) = filter.since {
        narrow("c.received_at >= ?", Box::new(since.as_millisecond()));
    }
    if let Some(until) = filter.until {
        narrow("c.received_at < ?", Box::new(until.as_millisecond()));
    }
    match filter.outcome {
        None => {}
        Some(OutcomeFilter::None) => {
            conditions.push_str(" AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.seq = c.seq)");
        }
        Some(OutcomeFilter::Last(kind)) => {
            // Begins with the outcomes of these places, whose rows are small and often few.
            conditions.push_str(
                " AND c.seq IN (SELECT o.seq FROM outcomes o WHERE o.seq BETWEEN ?1 AND ?2 AND o.outcome = '",
            );
            conditions.push_str(kind.as_str());
            conditions.push_str("')");
        }
    }
    (conditions, values)
}

#[cfg(test)]
mod tests {
    use super::{super::schema::MIGRATIONS, *};
    use crate::command::outcome::Kind;

    /// The overview asks for the outcomes of a day, most of which may have none of the wanted kind.
    #[test]
    fn a_search_by_outcome_reads_no_command_without_it() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATIONS[0]).unwrap();
        let filter = Filter { outcome: Some(OutcomeFilter::Last(Kind::Refused)), ..Filter::default() };
        for state in [None, Some(State::Published)] {
            for search in searches(state, Places { first: 1, last: 9 }, 9) {
                let sql = format!("EXPLAIN QUERY PLAN {}", search.sql(&conditions(&filter).0, false));
                let mut statement = connection.prepare(&sql).unwrap();
                let plan = statement.query_map([1, 9, 5], |row| row.get::<_, String>(3)).unwrap();
                let plan: Vec<_> = plan.map(Result::unwrap).collect();
                assert_eq!(plan[0], "SEARCH c USING INTEGER PRIMARY KEY (rowid=?)", "{plan:?}");
                let of_places = "SEARCH o USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)";
                assert!(plan.iter().any(|row| row == of_places), "{plan:?}");
            }
        }
    }
}
