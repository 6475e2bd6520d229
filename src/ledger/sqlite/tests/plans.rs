//! Which indexes SQLite uses.

use super::*;

fn plan(scratch: &Scratch, sql: &str, values: impl rusqlite::Params) -> Vec<String> {
    let connection = Connection::open(scratch.path()).unwrap();
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    statement.query_map(values, |row| row.get(3)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn looking_up_and_pruning_search_an_index_and_nothing_else() {
    let scratch = Scratch::new();
    drop(scratch.open());
    for (sql, plan) in [
        ("SELECT * FROM contexts WHERE key = ?1", "SEARCH contexts USING PRIMARY KEY (key=?)"),
        (
            "SELECT * FROM contexts WHERE message_id = ?1",
            "SEARCH contexts USING INDEX contexts_by_message (message_id=?)",
        ),
        (
            "SELECT key FROM contexts WHERE expires_at <= ?1 ORDER BY expires_at LIMIT 9",
            "SEARCH contexts USING COVERING INDEX contexts_by_expiry (expires_at<?)",
        ),
    ] {
        assert_eq!(self::plan(&scratch, sql, [0]), [plan], "{sql}");
    }
}

#[test]
fn a_time_is_found_without_reading_the_log() {
    let scratch = Scratch::new();
    drop(scratch.open());
    assert_eq!(plan(&scratch, search::FROM, [1]), ["SEARCH commands USING INTEGER PRIMARY KEY (rowid>?)"]);
}

#[test]
fn what_is_due_is_found_in_order_by_an_index() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let plan = plan(&scratch, reader::DUE_LONGEST, [0, 1, 2]);
    let plan: Vec<_> = plan.into_iter().filter(|row| row.contains(" exceptions ")).collect();
    let by_index = |range| format!("SEARCH exceptions USING INDEX exceptions_due (next_attempt_at{range}?)");
    assert_eq!(plan, [by_index(">"), by_index("<")]);
}

#[test]
fn the_acts_since_a_time_are_found_without_reading_older_ones() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let since = audit::SINCE.replace('?', "?1");
    let plan =
        plan(&scratch, &format!("SELECT a.* FROM acts a WHERE {since} ORDER BY a.id DESC LIMIT 50"), [0]);
    assert!(plan.iter().all(|row| !row.starts_with("SCAN")), "{plan:?}");
    let of_times = "SEARCH b USING COVERING INDEX acts_by_time (at>?)";
    assert!(plan.iter().any(|row| row == of_times), "{plan:?}");
}
