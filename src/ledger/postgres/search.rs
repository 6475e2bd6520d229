//! Searches of the log, in slices; see [`ledger::search`](crate::ledger::search).

use std::time::{Duration, Instant};

use super::{
    Error, history,
    link::{Link, Transaction},
    lookup::{RECORD, record},
    outcomes,
    values::{Columns, number, text, values},
};
use crate::{
    command::{Action, Seq},
    ledger::{
        Filter, Found, OutcomeFilter, Record, State, Stopped,
        search::{Bisection, Places, Slices},
    },
    time::Timestamp,
};

const LOG: &str = "countersign.commands c LEFT JOIN countersign.exceptions e ON e.seq = c.seq";

const CAME_BACK: &str = "countersign.dead_letters l JOIN countersign.commands c ON c.seq = l.seq
    LEFT JOIN countersign.exceptions e ON e.seq = c.seq";

const EXCEPTIONS: &str = "countersign.exceptions e JOIN countersign.commands c ON c.seq = e.seq";

/// In which tables, and under which condition, to look for commands in a state. A state other than published is rare in a
/// long log: begin with the few rows that can have it.
fn searches(state: Option<State>) -> &'static [(&'static str, &'static str)] {
    match state {
        None => &[(LOG, "true")],
        Some(State::Parked) => &[(EXCEPTIONS, "e.state = 'parked'")],
        Some(State::Pending) => &[
            (LOG, "c.seq > (SELECT published_through FROM countersign.relay) AND e.seq IS NULL"),
            (EXCEPTIONS, "e.state IN ('retrying', 'requeued')"),
        ],
        Some(State::Published) => &[(
            LOG,
            "c.seq <= (SELECT published_through FROM countersign.relay) AND e.seq IS NULL
                AND NOT EXISTS (SELECT 1 FROM countersign.dead_letters l WHERE l.seq = c.seq AND l.is_open)",
        )],
        Some(State::Rejected) => &[(
            CAME_BACK,
            "c.seq <= (SELECT published_through FROM countersign.relay) AND e.seq IS NULL
                AND l.is_open AND l.why <> 'unrouted'",
        )],
        Some(State::Unrouted) => &[(
            CAME_BACK,
            "c.seq <= (SELECT published_through FROM countersign.relay) AND e.seq IS NULL
                AND l.is_open AND l.why = 'unrouted'",
        )],
    }
}

/// Commands that pass the filter, newest first unless `after` is given; as long as `patience` lasts, if there is a limit.
pub(super) async fn search(
    link: &Link,
    filter: &Filter,
    patience: Option<Duration>,
) -> Result<Found<Record>, Error> {
    let Some(places) = places(link, filter).await? else { return Ok(Found::nothing()) };
    let slices = Slices::new(places, filter.after.is_some()).hinted(filter.hint.clone());
    let (rows, stopped) = in_slices(link, slices, filter, filter.limit, patience).await?;
    let stopped = match stopped {
        Some(at) => Some(Stopped { at, back_to: received_from(link, at).await? }),
        None => None,
    };
    Ok(Found { rows, stopped })
}

/// What is searched for.
pub(super) trait Sought: Sync {
    type Row: Send;

    /// Up to `limit` of what passes, in a slice.
    fn within(
        &self,
        transaction: &Transaction,
        slice: Places,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Self::Row>, Error>> + Send;
}

/// Reads slices until the limit is reached, nothing is left, or the time is over, but one at least. Returns what was found,
/// and where it stopped if its time was over.
pub(super) async fn in_slices<S: Sought>(
    link: &Link,
    mut slices: Slices,
    sought: &S,
    limit: usize,
    patience: Option<Duration>,
) -> Result<(Vec<S::Row>, Option<u64>), Error> {
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
        let longest = slices.longest(left);
        let at = Instant::now();
        let transaction = link.snapshot().await?;
        if let Some(longest) = longest {
            // It only reads, so none of its statements waits for a standby; see `link`. 0 would be no limit.
            let millis = longest.as_millis().max(1);
            transaction.execute_batch(&format!("SET LOCAL statement_timeout = {millis}")).await?;
        }
        match sought.within(&transaction, slice, limit - found.len()).await {
            Ok(rows) => {
                transaction.commit().await?;
                found.extend(rows);
                slices.read(at.elapsed());
                forward = true;
            }
            Err(error) if longest.is_some() && error.is_stopped() => {
                transaction.roll_back().await?;
                slices.stopped();
            }
            Err(error) => return Err(error),
        }
    }
    Ok((found, None))
}

impl Sought for Filter {
    type Row = Record;

    async fn within(
        &self,
        transaction: &Transaction,
        slice: Places,
        limit: usize,
    ) -> Result<Vec<Record>, Error> {
        commands_within(transaction, self, slice, limit).await
    }
}

async fn commands_within(
    transaction: &Transaction,
    filter: &Filter,
    slice: Places,
    limit: usize,
) -> Result<Vec<Record>, Error> {
    let order = if filter.after.is_some() { "ASC" } else { "DESC" };
    let outcome = match filter.outcome {
        None => "true",
        Some(OutcomeFilter::None) => "NOT EXISTS (SELECT 1 FROM countersign.outcomes o WHERE o.seq = c.seq)",
        Some(OutcomeFilter::Last(_)) => {
            "EXISTS (SELECT 1 FROM countersign.outcomes o WHERE o.seq = c.seq AND o.outcome = $10)"
        }
    };
    let kind = match filter.outcome {
        Some(OutcomeFilter::Last(kind)) => Some(kind.as_str()),
        None | Some(OutcomeFilter::None) => None,
    };
    // A statement is planned with its values: what is not asked for costs nothing.
    let searches = searches(filter.state).iter().map(|(from, state)| {
        format!(
            "(SELECT {RECORD} FROM {from}
              WHERE c.seq >= $1 AND c.seq <= $2 AND c.received_at >= $3 AND c.received_at < $4
                AND ($5 IS NULL OR c.endpoint = $5) AND ($6 IS NULL OR c.instance_id = $6)
                AND ($7 IS NULL OR c.task_id = $7) AND ($8 IS NULL OR c.user_id = $8)
                AND ($9 IS NULL OR c.message_id = $9) AND ($12 IS NULL OR c.action = $12)
                AND {outcome} AND {state}
              ORDER BY c.seq {order} LIMIT $11)"
        )
    });
    let searches: Vec<String> = searches.collect();
    let sql =
        format!("SELECT * FROM ({}) found ORDER BY seq {order} LIMIT $11", searches.join(" UNION ALL "));
    let asked = |value: &Option<String>| value.as_deref().map(|value| text(value).into_owned());
    let rows = transaction
        .query(
            &sql,
            values![
                number(slice.first),
                number(slice.last),
                filter.since.map_or(i64::MIN, Timestamp::as_millisecond),
                filter.until.map_or(i64::MAX, Timestamp::as_millisecond),
                asked(&filter.endpoint),
                asked(&filter.instance_id),
                asked(&filter.task_id),
                asked(&filter.user_id),
                asked(&filter.message_id),
                kind,
                number(limit as u64),
                filter.action.map(Action::as_str),
            ],
        )
        .await?;
    let mut found = rows.iter().map(record).collect::<Result<Vec<_>, _>>()?;
    let places: Vec<Seq> = found.iter().map(|record| record.seq).collect();
    let mut outcomes = outcomes::records(transaction, &places).await?;
    for record in &mut found {
        record.outcome = outcomes.remove(&record.seq);
    }
    Ok(found)
}

/// The places in the log that enclose everything that may pass the filter; `None` if there are none.
async fn places(link: &Link, filter: &Filter) -> Result<Option<Places>, Error> {
    let transaction = link.snapshot().await?;
    let places = places_within(&transaction, filter).await?;
    transaction.commit().await?;
    Ok(places)
}

async fn places_within(transaction: &Transaction, filter: &Filter) -> Result<Option<Places>, Error> {
    let ends = transaction
        .query_opt(
            "SELECT (SELECT min(seq) FROM countersign.commands) AS first,
                (SELECT max(seq) FROM countersign.commands) AS last",
            values![],
        )
        .await?;
    let Some(row) = ends else { return Ok(None) };
    let ends: (Option<i64>, Option<i64>) = (row.try_get("first")?, row.try_get("last")?);
    let Some((first, last)) = ends.0.zip(ends.1) else { return Ok(None) };
    let mut places = Places { first: first.cast_unsigned(), last: last.cast_unsigned() };
    if let Some(before) = filter.before {
        places.last = places.last.min(before.saturating_sub(1));
    }
    if let Some(after) = filter.after {
        places.first = places.first.max(after.saturating_add(1));
    }
    if places.first > places.last || (filter.since, filter.until) == (None, None) {
        return Ok((places.first <= places.last).then_some(places));
    }
    let lead = history::id_lead(transaction).await?;
    let within = places;
    if let Some(since) = filter.since {
        places.first = find(transaction, Bisection::since(since, lead, within)).await?;
    }
    if let Some(until) = filter.until {
        places.last = find(transaction, Bisection::until(until, lead, within)).await?.saturating_sub(1);
    }
    Ok((places.first <= places.last).then_some(places))
}

async fn find(transaction: &Transaction, mut bisection: Bisection) -> Result<Seq, Error> {
    while let Some(place) = bisection.look() {
        let row = transaction
            .query_opt(
                "SELECT seq, command_id FROM countersign.commands WHERE seq >= $1 ORDER BY seq LIMIT 1",
                values![number(place)],
            )
            .await?;
        let seen = row.map(|row| Ok::<_, Error>((row.seq("seq")?, row.id("command_id")?.millis())));
        bisection.saw(seen.transpose()?);
    }
    Ok(bisection.place())
}

/// When the first command from a place in the log on was received.
async fn received_from(link: &Link, place: Seq) -> Result<Option<Timestamp>, Error> {
    let sql = "SELECT received_at FROM countersign.commands WHERE seq >= $1 ORDER BY seq LIMIT 1";
    link.query_opt(sql, values![number(place)]).await?.map(|row| row.time("received_at")).transpose()
}
