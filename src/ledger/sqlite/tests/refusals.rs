//! Refused callbacks: how many are kept, and whose.

use super::*;

#[tokio::test]
async fn a_strangers_noise_does_not_push_out_what_approvers_ask_about() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    let refused = |user_id: Option<&str>| Refused {
        reason: if user_id.is_some() { "conflicting" } else { "unauthenticated" }.to_owned(),
        user_id: user_id.map(str::to_owned),
        ..malformed(0)
    };
    ledger.refused(refused(Some("zhang3")));
    for _ in 0..30 {
        ledger.refused(refused(None));
    }
    ledger.flush().await;
    let of = async |reason: &str| ledger.refusals(Some(reason.to_owned()), None, 100).await.unwrap().len();
    assert_eq!((of("conflicting").await, of("unauthenticated").await), (1, 10));
}

#[tokio::test]
async fn refused_callbacks_are_kept_and_the_oldest_dropped() {
    let scratch = Scratch::new();
    let ledger = scratch.open();
    for n in 0..15 {
        let reason = if n % 2 == 0 { "malformed" } else { "unauthenticated" }.to_owned();
        ledger.refused(Refused { reason, ..malformed(n) });
    }
    // The probe is a commit that takes along what was handed over before it.
    ledger.flush().await;
    let kept = ledger.refusals(None, None, 100).await.unwrap();
    assert_eq!(kept.iter().map(|one| one.body_bytes).collect::<Vec<_>>(), (5..15).rev().collect::<Vec<_>>());
    let malformed = ledger.refusals(Some("malformed".to_owned()), None, 2).await.unwrap();
    assert_eq!(malformed.iter().map(|one| one.body_bytes).collect::<Vec<_>>(), [14, 12]);
}

/// A callback that was refused for its contents.
fn malformed(body_bytes: u64) -> Refused {
    Refused {
        refused_at: Timestamp::now(),
        endpoint: "purchase".to_owned(),
        reason: "malformed".to_owned(),
        detail: None,
        peer: None,
        body_bytes,
        action_type: None,
        user_id: None,
        approval_code: None,
        instance_id: None,
        task_id: None,
        message_id: None,
    }
}

#[tokio::test]
async fn a_flood_of_refused_callbacks_is_written_in_several_commits_without_waiting_for_more() {
    let scratch = Scratch::new();
    let limits = Limits { refusals_kept: 1000, ..scratch.settings().limits };
    let settings = Settings { limits, ..scratch.settings() };
    let ledger = SqliteLedger::open(&settings).unwrap();
    let began = Instant::now();
    (0..200).for_each(|n| ledger.refused(malformed(n)));
    while scratch.sql::<i64>("SELECT count(*) FROM refusals") < 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "the next prune would take them along");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Once nothing waits nothing is committed.
    let before = ledger.shared.commits.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let commits = ledger.shared.commits.load(Ordering::Relaxed) - before;
    assert!(commits <= 1, "{commits} commits of nothing");
    // What a commit has no room for is not left behind at the end.
    (0..500).for_each(|n| ledger.refused(malformed(n)));
    drop(ledger);
    assert_eq!(scratch.sql::<i64>("SELECT count(*) FROM refusals"), 700);
}
