//! The comparison with the approval center: what is asked for when, and what stays of it.

use super::*;
use countersign::ledger::findings::{Finding, Reach, Reconciled, Verdict, Which};

const MINUTE: Duration = Duration::from_secs(60);

/// So many commands, of which the first was received so many minutes ago and each further one a minute later, published
/// through a place in the log; nobody knows when.
async fn published_through(
    scratch: &Scratch,
    count: u64,
    first_minutes_ago: i64,
    settlement: Settlement,
) -> (Handle, Vec<CommandId>) {
    let limits = Limits { retention: None, ..Limits::default() };
    let ledger = scratch.open_with(limits, 1000).await;
    let start = Timestamp::now().as_millisecond() - first_minutes_ago * 60_000;
    let mut ids = Vec::new();
    for seq in 1..=count {
        let mut acceptance = acceptance(&format!("t{seq}"), action_of(seq), None);
        let received_at = Timestamp::from_millisecond(start + (seq as i64 - 1) * 60_000).unwrap();
        acceptance.command.received_at = received_at;
        acceptance.command.command_id = CommandId::new(received_at);
        if seq == 4 {
            acceptance.command.task.instance_id = None;
        }
        ids.push(accepted(&ledger, acceptance).await);
    }
    ledger.settle(settlement).await.unwrap();
    scratch.execute("DELETE FROM publish_marks").await;
    (ledger, ids)
}

/// The second is a rejection, the third neither.
fn action_of(seq: Seq) -> &'static str {
    match seq {
        2 => "REJECT",
        3 => "ADD_SIGN",
        _ => "APPROVE",
    }
}

/// All of so many commands are published.
async fn published(scratch: &Scratch, count: u64, first_minutes_ago: i64) -> (Handle, Vec<CommandId>) {
    let settlement = Settlement { through: Some(count), ..Settlement::default() };
    published_through(scratch, count, first_minutes_ago, settlement).await
}

fn reach(after: Duration, within: Duration) -> Reach {
    Reach { now: Timestamp::now(), after, within }
}

fn finding(verdict: Verdict, next_check_at: Option<Timestamp>) -> Finding {
    let now = Some(Timestamp::now());
    Finding { verdict, found_at: now, checked_at: now, next_check_at, ..Finding::seen() }
}

async fn unasked(ledger: &Handle, reach: Reach, limit: usize) -> (Vec<Seq>, Option<Seq>, Seq, bool) {
    let page = ledger.unasked(reach, limit).await.unwrap();
    let seqs = page.candidates.iter().map(|one| one.seq).collect();
    (seqs, page.skipped_through, page.through, page.more)
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_walked_in_pages_from_where_it_was_left_within_reach(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let (ledger, ids) = published(&scratch, 10, 10).await;
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
        ledger
            .find(ids[seq as usize - 1])
            .await
            .unwrap()
            .unwrap()
            .reconciliation
            .map(|finding| finding.verdict)
    };
    assert_eq!(
        [verdict(2).await, verdict(5).await, verdict(6).await],
        [None, Some(Verdict::Seen), None],
        "left out, shown, not asked for yet"
    );
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_counts_is_how_long_a_command_has_been_published_once_that_is_known(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let (ledger, _) = published(&scratch, 5, 60).await;
    // The broker was away: three of them were published only five minutes after the first.
    let now = Timestamp::now();
    let at = |minutes: i64| Timestamp::from_millisecond(now.as_millisecond() + 60_000 * minutes).unwrap();
    for (after, through, minutes) in [(1, 2, 0), (2, 5, 5)] {
        let at = at(minutes).as_millisecond();
        let mark = format!(
            "INSERT INTO publish_marks (through, after, first_at, last_at, exchange)
             VALUES ({through}, {after}, {at}, {at}, 'x')"
        );
        scratch.execute(&mark).await;
    }
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
    scratch.execute(&format!("UPDATE commands SET received_at = {}", at(-120).as_millisecond())).await;
    assert_eq!(unasked(&ledger, reach, 9).await.0, [1, 2, 3, 4, 5]);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_before_it_was_marked_counts_by_its_receipt(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let (ledger, _) = published(&scratch, 3, 60).await;
    let now = Timestamp::now();
    let reach = Reach { now, after: MINUTE * 10, within: MINUTE * 600 };
    assert_eq!(unasked(&ledger, reach, 9).await.0, [1, 2, 3]);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn findings_are_read_when_they_are_due_and_go_with_their_command(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let parked = Exception {
        seq: 3,
        state: Exceptional::Parked,
        attempts: 20,
        next_attempt_at: Timestamp::now(),
        reason: "returned".to_owned(),
    };
    let settlement = Settlement { through: Some(4), exceptions: vec![parked], ..Settlement::default() };
    let (ledger, _) = published_through(&scratch, 4, 60, settlement).await;
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

    let operator = scratch.client().await;
    assert_eq!(operator.prune(now, by(), Box::new(|_| ())).await.unwrap(), 3);
    assert_eq!(scratch.count("findings").await, 1, "that of the parked command");
    ledger.reconciled(Reconciled { cleared: vec![3], seen: 1, ..Reconciled::default() }).await.unwrap();
    assert_eq!(scratch.count("findings").await, 0);
    assert_eq!(ledger.overview().await.unwrap().seen, 1);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_published_yet_is_not_left_out_however_old_it_is(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let through = |through| Settlement { through: Some(through), ..Settlement::default() };
    let (ledger, _) = published_through(&scratch, 8, 60, through(5)).await;
    scratch.execute("DELETE FROM commands WHERE seq IN (4, 5)").await;
    let page = unasked(&ledger, reach(Duration::ZERO, Duration::ZERO), 9).await;
    assert_eq!(page, (vec![], Some(3), 5, false), "those after 5 may be published yet");
    ledger.settle(through(8)).await.unwrap();
    scratch.execute("DELETE FROM publish_marks").await;
    let page = unasked(&ledger, reach(Duration::ZERO, Duration::ZERO), 9).await;
    assert_eq!(page, (vec![], Some(8), 8, false));
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_command_is_told_with_it(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let (ledger, _) = published(&scratch, 6, 60).await;
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

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_beside_the_writer_reads_and_writes_the_same(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let (ledger, _) = published(&scratch, 3, 60).await;
    let auditor = scratch.client().await;
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
