//! The comparison with the approval center: what is asked for when, and what stays of it.

use super::*;
use crate::ledger::findings::{Finding, Reach, Reconciled, Verdict, Which};

const MINUTE: Duration = Duration::from_secs(60);

/// So many published commands, of which the first was received so many minutes ago and each further one a minute later.
async fn published(scratch: &Scratch, count: u64, first_minutes_ago: i64) -> SqliteLedger {
    let limits = Limits { retention: None, ..Limits::default() };
    let ledger = SqliteLedger::open(&Settings { limits, ..scratch.settings() }).unwrap();
    let start = Timestamp::now().as_millisecond() - first_minutes_ago * 60_000;
    let connection = Connection::open(scratch.settings().path).unwrap();
    for seq in 1..=count {
        connection
            .execute(
                "INSERT INTO commands (seq, command_id, received_at, endpoint, action, action_type, user_id, approval_code, instance_id, task_id, task_key,
                    fingerprint, decision_key, message)
                 VALUES (?1, CAST(printf('%016d', ?1) AS BLOB), ?2, 'purchase', 'approve', 'APPROVE',
                    'zhang3', NULL, 'i', 't' || ?1, ?1, zeroblob(32), zeroblob(16), CAST('{}' AS BLOB))",
                rusqlite::params![seq as i64, start + (seq as i64 - 1) * 60_000],
            )
            .unwrap();
    }
    connection.execute("UPDATE cursor SET published_through = ?1", [count as i64]).unwrap();
    ledger
}

fn reach(after: Duration, within: Duration) -> Reach {
    Reach { now: Timestamp::now(), after, within }
}

fn finding(verdict: Verdict, next_check_at: Option<Timestamp>) -> Finding {
    let now = Some(Timestamp::now());
    Finding { verdict, found_at: now, checked_at: now, next_check_at, ..Finding::seen() }
}

async fn unasked(ledger: &SqliteLedger, reach: Reach, limit: usize) -> (Vec<Seq>, Option<Seq>, Seq, bool) {
    let page = ledger.unasked(reach, limit).await.unwrap();
    let seqs = page.candidates.iter().map(|one| one.seq).collect();
    (seqs, page.skipped_through, page.through, page.more)
}

#[tokio::test]
async fn the_log_is_walked_in_pages_from_where_it_was_left_within_reach() {
    let scratch = Scratch::new();
    let ledger = published(&scratch, 10, 10).await;
    // Received 10, 9, … 1 minutes ago: those of 4 to 8 minutes ago are within reach.
    let half = MINUTE / 2;
    let wanted = reach(MINUTE * 4 - half, MINUTE * 8 + half);
    assert_eq!(unasked(&ledger, wanted, 3).await, (vec![3, 4, 5], Some(2), 5, true));
    ledger
        .reconciled(Reconciled {
            skipped_through: Some(2),
            through: Some(5),
            seen: 3,
            ..Reconciled::default()
        })
        .await
        .unwrap();
    assert_eq!(unasked(&ledger, wanted, 3).await, (vec![6, 7], None, 7, false));
    ledger.reconciled(Reconciled { through: Some(4), ..Reconciled::default() }).await.unwrap();
    assert_eq!(ledger.overview().await.unwrap().asked_through, 5, "it never goes back");
    let verdict = async |seq: u64| {
        let id = CommandId::from_bytes(format!("{seq:016}").into_bytes().try_into().unwrap());
        ledger.find(id).await.unwrap().unwrap().reconciliation.map(|finding| finding.verdict)
    };
    assert_eq!(
        [verdict(2).await, verdict(3).await, verdict(6).await],
        [None, Some(Verdict::Seen), None],
        "left out, shown, not asked for yet"
    );
}

#[tokio::test]
async fn what_counts_is_how_long_a_command_has_been_published_once_that_is_known() {
    let scratch = Scratch::new();
    let ledger = published(&scratch, 5, 60).await;
    // The broker was away: three of them were published only five minutes after the first.
    let now = Timestamp::now();
    let at = |minutes: i64| Timestamp::from_millisecond(now.as_millisecond() + 60_000 * minutes).unwrap();
    let mark = |after: u64, through: u64, minutes: i64| {
        let at = at(minutes).as_millisecond();
        scratch.execute(&format!("INSERT INTO publish_marks VALUES ({through}, {after}, {at}, {at}, 'x')"));
    };
    scratch.execute("DELETE FROM publish_marks");
    mark(1, 2, 0);
    mark(2, 5, 5);
    for (minutes, expected) in [(9, vec![1]), (11, vec![1, 2]), (16, vec![1, 2, 3, 4, 5])] {
        let reach = Reach { now: at(minutes), after: MINUTE * 10, within: MINUTE * 600 };
        assert_eq!(unasked(&ledger, reach, 9).await.0, expected, "{minutes} minutes later");
    }
    // A clock that was ahead: those marks say nothing of the time.
    let reach = Reach { now: at(-60), after: MINUTE * 10, within: MINUTE * 600 };
    assert_eq!(
        unasked(&ledger, reach, 9).await.0,
        Vec::<u64>::new(),
        "what was received later than now waits"
    );
    scratch.execute(&format!("UPDATE commands SET received_at = {}", at(-120).as_millisecond()));
    assert_eq!(unasked(&ledger, reach, 9).await.0, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn what_was_published_before_it_was_marked_counts_by_its_receipt() {
    let scratch = Scratch::new();
    let ledger = published(&scratch, 3, 60).await;
    scratch.execute("DELETE FROM publish_marks");
    let now = Timestamp::now();
    let reach = Reach { now, after: MINUTE * 10, within: MINUTE * 600 };
    assert_eq!(unasked(&ledger, reach, 9).await.0, [1, 2, 3]);
}

#[tokio::test]
async fn findings_are_read_when_they_are_due_and_go_with_their_command() {
    let scratch = Scratch::new();
    let ledger = published(&scratch, 4, 60).await;
    scratch.sql::<i64>(
        "INSERT INTO exceptions VALUES (3, 'parked', 20, 1700000000000, 1700000000000, 'returned') RETURNING 1",
    );
    let now = Timestamp::now();
    let soon = now + MINUTE;
    let findings = vec![
        (1, finding(Verdict::Unseen, Some(now))),
        (2, finding(Verdict::NotFound, Some(soon))),
        (3, finding(Verdict::Unpublished, Some(now))),
        (4, finding(Verdict::Ended, None)),
        // Not in the log: pruned since it was read.
        (9, finding(Verdict::Unseen, Some(now))),
    ];
    ledger.reconciled(Reconciled { findings, through: Some(4), ..Reconciled::default() }).await.unwrap();
    let read = async |which: Which| -> Vec<(Seq, bool)> {
        let found = ledger.findings(which, 0, 9).await.unwrap();
        found.into_iter().map(|one| (one.seq, one.published)).collect()
    };
    let since = now - MINUTE * 90;
    assert_eq!(read(Which::Due { now, since }).await, [(1, true), (3, false)]);
    assert_eq!(read(Which::Due { now: soon, since }).await, [(1, true), (2, true), (3, false)]);
    assert_eq!(read(Which::Due { now: soon, since: now }).await, [], "too old to be asked for again");
    assert_eq!(read(Which::Open).await, [(1, true), (2, true)]);
    assert_eq!(read(Which::Unsettled).await, [(1, true), (2, true), (3, false)]);
    assert_eq!(read(Which::Of(Verdict::Ended)).await, [(4, true)]);
    let overview = ledger.overview().await.unwrap();
    assert_eq!((overview.unseen, overview.not_found, overview.open()), (1, 1, 2));

    let mut operator = OperatorActs::open(&scratch.settings().path).unwrap();
    assert_eq!(operator.prune(now, |_| {}).unwrap(), 3);
    assert_eq!(scratch.sql::<i64>("SELECT count(*) FROM findings"), 1, "that of the parked command");
    ledger.reconciled(Reconciled { cleared: vec![3], seen: 1, ..Reconciled::default() }).await.unwrap();
    assert_eq!(scratch.sql::<i64>("SELECT count(*) FROM findings"), 0);
    assert_eq!(ledger.overview().await.unwrap().seen, 1);
}

#[tokio::test]
async fn what_is_not_published_yet_is_not_left_out_however_old_it_is() {
    let scratch = Scratch::new();
    let ledger = published(&scratch, 8, 60).await;
    scratch.execute("DELETE FROM commands WHERE seq IN (4, 5); UPDATE cursor SET published_through = 5");
    let page = unasked(&ledger, reach(Duration::ZERO, Duration::ZERO), 9).await;
    assert_eq!(page, (vec![], Some(3), 5, false), "those after 5 may be published yet");
    scratch.execute("UPDATE cursor SET published_through = 8");
    let page = unasked(&ledger, reach(Duration::ZERO, Duration::ZERO), 9).await;
    assert_eq!(page, (vec![], Some(8), 8, false));
}

#[tokio::test]
async fn what_became_of_a_command_is_told_with_it() {
    let scratch = Scratch::new();
    let ledger = published(&scratch, 6, 60).await;
    scratch.execute(
        "UPDATE commands SET action = 'reject' WHERE seq = 2; UPDATE commands SET action = 'custom' WHERE seq = 3;
         UPDATE commands SET task_id = NULL WHERE seq = 4",
    );
    let page = ledger.unasked(reach(MINUTE, MINUTE * 600), 9).await.unwrap();
    let actions: Vec<_> = page.candidates[..4].iter().map(|one| (one.action, one.can_be_asked())).collect();
    assert_eq!(
        actions,
        [(Action::Approve, true), (Action::Reject, true), (Action::Custom, false), (Action::Approve, false)]
    );
    let found = Finding { instance_status: Some("PENDING".to_owned()), ..finding(Verdict::Unseen, None) };
    let findings = vec![(5, found), (6, finding(Verdict::Unpublished, None))];
    ledger.reconciled(Reconciled { findings, through: Some(6), ..Reconciled::default() }).await.unwrap();
    let mut verdicts = Vec::new();
    for one in &page.candidates {
        let record = ledger.find(one.command_id).await.unwrap().unwrap();
        verdicts.push(record.reconciliation.map(|finding| finding.verdict));
    }
    let untellable = Some(Verdict::Untellable);
    let seen = Some(Verdict::Seen);
    assert_eq!(verdicts, [seen, seen, untellable, untellable, Some(Verdict::Unseen), None]);
}

#[tokio::test]
async fn an_auditor_beside_the_writer_reads_and_writes_the_same() {
    let scratch = Scratch::new();
    let ledger = published(&scratch, 3, 60).await;
    let auditor = Auditor::open(&scratch.settings().path).unwrap();
    let reach = reach(MINUTE, MINUTE * 600);
    let page = auditor.unasked(reach, 2).await.unwrap();
    assert_eq!((page.candidates.len(), &page), (2, &ledger.unasked(reach, 2).await.unwrap()));
    let passed_at = Some(Timestamp::from_millisecond(1_700_000_000_000).unwrap());
    let findings = vec![(2, finding(Verdict::Contradicted, None))];
    let step = Reconciled {
        findings,
        passed_at,
        through: Some(page.through),
        seen: 1,
        ended: 2,
        untellable: 3,
        ..Reconciled::default()
    };
    auditor.reconciled(step).await.unwrap();
    let overview = auditor.overview().await.unwrap();
    assert_eq!(overview, ledger.overview().await.unwrap());
    assert_eq!((overview.asked_through, overview.published_through, overview.contradicted), (2, 3, 1));
    assert_eq!((overview.seen, overview.ended, overview.untellable), (1, 2, 3));
    assert_eq!((overview.passed_at, overview.open()), (passed_at, 1));
    let open = auditor.findings(Which::Open, 0, 9).await.unwrap();
    assert_eq!((open[0].seq, &open), (2, &ledger.findings(Which::Open, 0, 9).await.unwrap()));
}
