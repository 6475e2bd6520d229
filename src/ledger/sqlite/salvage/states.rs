//! The states of commands that were read from a damaged file.
//!
//! A command is published again only if it is certainly not published: it is pending if nothing speaks against it, published if
//! that is certain, and otherwise parked, so that an operator decides.

use rusqlite::{Connection, params};

use super::{super::acts, Taken, Tally, trees::LIST};
use crate::{
    ledger::{ActKind, By, NewAct},
    time::Timestamp,
};

const NOTE: &str = "salvaged from a damaged ledger: it is not known whether it was published. requeue publishes it with the same message_id";

pub(super) struct States {
    pub(super) head: i64,
    pub(super) pruned: i64,
    pub(super) unknown: u64,
    pub(super) cursor_is_known: bool,
}

/// Adds the rounds that commands name, where their own rows are lost.
pub(super) fn rounds(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT OR IGNORE INTO rounds SELECT fingerprint, command_id FROM commands
         WHERE json_extract(CAST(message AS TEXT), '$.task.round') IS NOT NULL",
        [],
    )?;
    Ok(())
}

/// The places that have a command.
pub(super) fn present(connection: &Connection) -> rusqlite::Result<Taken> {
    let mut taken = Taken::default();
    let mut statement = connection.prepare("SELECT seq FROM commands ORDER BY seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        taken.add(row.get(0)?);
    }
    Ok(taken)
}

/// Writes the cursor, and an exception for each command whose state is not known.
pub(super) fn decide(
    connection: &Connection,
    tally: &Tally,
    has_cursor: bool,
    last_in_index: i64,
    log_is_cut: bool,
    by: &By,
) -> rusqlite::Result<States> {
    let is_whole = |table: &str| {
        !tally.bad_pages.values().any(|damaged| damaged == table || damaged == LIST && !has_cursor)
            && !tally.damaged.contains(table)
            && tally.unreadable.get(table).is_none_or(|rows| *rows == 0)
    };
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let marked = number("SELECT coalesce(max(through), 0) FROM publish_marks")?;
    let last = number("SELECT coalesce(max(seq), 0) FROM commands")?;
    let (mut cursor, mut pruned) = (marked, 0);
    if has_cursor {
        cursor = number("SELECT published_through FROM cursor")?;
        pruned = number("SELECT pruned_through FROM cursor")?;
    } else if last > 0 {
        pruned = (number("SELECT min(seq) FROM commands")? - 1).min(cursor);
    }
    // A mark is written with the cursor, so without the cursor the last one is it.
    let cursor_is_known = has_cursor || (is_whole("publish_marks") && marked > 0);
    // Without its mark a cursor may be ahead of commands that were lost since; it is kept, since it is true.
    let head = last.max(last_in_index).max(marked).max(cursor).max(pruned);
    connection.execute(
        "INSERT OR REPLACE INTO cursor VALUES (1, ?1, ?2, coalesce((SELECT probed_at FROM cursor), 0))",
        params![cursor, pruned],
    )?;
    let mut doubts = Vec::new();
    let mut doubt = |rule: &str| {
        doubts.push(format!("NOT EXISTS (SELECT 1 FROM exceptions e WHERE e.seq = c.seq) AND ({rule})"));
    };
    if !cursor_is_known || log_is_cut {
        doubt(&format!("c.seq > {cursor}"));
    }
    if !is_whole("exceptions") {
        if ["publish_events", "acts", "act_commands"].into_iter().all(is_whole) {
            // Every exception has left a row there. The last says that it is over, or it is not known.
            doubt(
                "EXISTS (SELECT 1 FROM act_commands a JOIN acts o ON o.id = a.act_id
                    WHERE a.seq = c.seq AND o.act IN ('park', 'requeue')
                    AND a.at > coalesce((SELECT max(at) FROM publish_events p WHERE p.seq = c.seq AND p.event = 'published'), -1)
                 UNION ALL SELECT 1 FROM publish_events p WHERE p.seq = c.seq AND p.event <> 'published'
                    AND p.id = (SELECT max(id) FROM publish_events l WHERE l.seq = c.seq))",
            );
        } else {
            doubt("1");
        }
    }
    if log_is_cut || !is_whole("exceptions") {
        // They may have been published since, and the row be of a page that was overwritten.
        doubts.push(
            "EXISTS (SELECT 1 FROM exceptions e WHERE e.seq = c.seq AND e.state <> 'parked')".to_owned(),
        );
    }
    let unknown = if doubts.is_empty() { 0 } else { park(connection, &doubts.join(" OR "), by)? };
    Ok(States { head, pruned, unknown, cursor_is_known })
}

/// Parks commands `c`, as an act; returns how many.
fn park(connection: &Connection, which: &str, by: &By) -> rusqlite::Result<u64> {
    let now = Timestamp::now();
    let sql = format!(
        "INSERT INTO exceptions (seq, state, attempts, next_attempt_at, changed_at, note)
         SELECT c.seq, 'parked', 0, ?1, ?1, ?2 FROM commands c WHERE {which}
         ON CONFLICT (seq) DO UPDATE SET state = 'parked', attempts = 0, next_attempt_at = ?1, changed_at = ?1, note = ?2
         RETURNING seq"
    );
    let parked: Vec<i64> = connection
        .prepare(&sql)?
        .query_map(params![now.as_millisecond(), NOTE], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if !parked.is_empty() {
        let act = acts::add(connection, &NewAct::new(ActKind::Park, by, parked.len()), now)?;
        for seq in &parked {
            acts::changed(connection, act, *seq, now.as_millisecond())?;
        }
    }
    Ok(parked.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledger::{Actor, Via, sqlite::schema};

    /// A log of eight, published up to the sixth, with a history; returns those that are parked then.
    fn parked(damaged: &[&str], has_cursor: bool) -> (Vec<i64>, bool) {
        parked_of(damaged, has_cursor, false, "")
    }

    fn parked_of(damaged: &[&str], has_cursor: bool, log_is_cut: bool, sql: &str) -> (Vec<i64>, bool) {
        let directory = tempfile::tempdir().unwrap();
        let connection = schema::open_writer(&directory.path().join("ledger.db")).unwrap();
        connection
            .execute_batch(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 8)
                 INSERT INTO commands SELECT n, randomblob(16), n, '', '', '', '', NULL, NULL, NULL, 0, zeroblob(32),
                    zeroblob(16), x'7b7d' FROM n;
                 UPDATE cursor SET published_through = 6;
                 INSERT INTO publish_marks VALUES (6, 0, 5, 5, NULL);
                 INSERT INTO publish_events (seq, at, event, passed) VALUES (2, 1, 'refused', 0), (3, 1, 'refused', 0),
                    (3, 2, 'published', 0), (4, 1, 'waiting', 0), (4, 2, 'published', 0);
                 INSERT INTO acts (id, at, changed_at, act, via, count) VALUES (1, 3, 3, 'requeue', 'cli', 1), (2, 3, 3, 'show_again', 'cli', 1);
                 INSERT INTO act_commands (act_id, seq, at) VALUES (1, 4, 3), (2, 5, 3)",
            )
            .unwrap();
        connection.execute_batch(sql).unwrap();
        let bad_pages: BTreeMap<u32, String> =
            (2..).zip(damaged.iter().map(|table| (*table).to_owned())).collect();
        let tally = Tally { bad_pages, ..Tally::default() };
        let by = By { actor: Actor::unnamed(Via::Cli), reason: Some("disk 3".to_owned()) };
        let states = decide(&connection, &tally, has_cursor, 0, log_is_cut, &by).unwrap();
        let mut statement =
            connection.prepare("SELECT seq FROM exceptions WHERE state = 'parked' ORDER BY seq").unwrap();
        let parked: Vec<i64> =
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        // Those who salvaged it have parked them, as the history of each says.
        let told: Vec<(i64, i64, String)> = connection
            .prepare(
                "SELECT k.seq, o.count, o.reason FROM act_commands k JOIN acts o ON o.id = k.act_id WHERE o.act = 'park' ORDER BY 1",
            )
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let count = i64::try_from(parked.len()).unwrap();
        assert_eq!(told, parked.iter().map(|seq| (*seq, count, "disk 3".to_owned())).collect::<Vec<_>>());
        assert_eq!(states.unknown, parked.len() as u64);
        (parked, states.cursor_is_known)
    }

    #[test]
    fn only_what_is_not_known_is_parked() {
        let all: Vec<i64> = (1..=8).collect();
        assert_eq!(parked(&[], true), (vec![], true));
        assert_eq!(parked(&["commands"], true), (vec![], true));
        // 2 was refused and may still be; 4 was requeued after it was published.
        assert_eq!(parked(&["exceptions"], true), (vec![2, 4], true));
        assert_eq!(parked(&["exceptions", "publish_events"], true), (all, true));
        // The last mark is the cursor.
        assert_eq!(parked(&["cursor"], false), (vec![], true));
        assert_eq!(parked(&["cursor", "publish_marks"], false), (vec![7, 8], false));
    }

    #[test]
    fn what_a_damaged_table_of_exceptions_says_is_to_be_published_is_parked() {
        let sql = "INSERT INTO exceptions VALUES (1, 'requeued', 0, 0, 0, ''), (7, 'retrying', 2, 0, 0, '')";
        let parked = |damaged: &[&str], log_is_cut| parked_of(damaged, true, log_is_cut, sql).0;
        assert_eq!(parked(&[], false), [0; 0]);
        assert_eq!(parked(&["exceptions"], false), [1, 2, 4, 7]);
        assert_eq!(parked(&[], true), [1, 7, 8]);
    }
}
