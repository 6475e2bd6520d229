//! A PostgreSQL that fails over, or is away, while two replicas accept and one of them publishes. The question is always the
//! same: is what was answered exactly what the log holds, once and in order, and was all of that published?
//!
//! Losses and times go to standard error whether or not a test fails.

mod cuts;
mod oracle;
mod scene;
mod stalls;

use std::time::{Duration, Instant};

use scene::{SENDERS, Scene};

use crate::support::postgres::PostgresPair;

/// Enough to be in the middle of things.
const SOME: usize = 300;

const PAUSE: Duration = Duration::from_millis(5);

/// Says something on standard error, past the harness.
fn say(words: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{words}").expect("standard error is open");
}

/// Promotes the standby; returns how long after that the first decision was accepted.
async fn promote(pair: &mut PostgresPair, scene: &Scene) -> Duration {
    let asked = Instant::now();
    pair.promote().await;
    let promoted = asked.elapsed();
    scene.oracle.answer_after(asked).await.saturating_sub(promoted)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_primary_is_killed() {
    let mut pair = PostgresPair::boot(true).await;
    let scene = Scene::begin(&pair, PAUSE).await;
    for _ in 0..2 {
        scene.oracle.until_answered(SOME).await;
        pair.kill_primary();
        let gap = promote(&mut pair, &scene).await;
        say(&format!("killed: {gap:.2?} from the promotion to the first answer"));
        assert!(gap < Duration::from_secs(5), "the replicas find the new primary: {gap:?}");
        scene.oracle.until_answered(SOME).await;
        pair.rebuild().await;
    }
    scene.oracle.until_answered(SOME).await;
    scene.end(&pair).await.check("killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_primary_freezes() {
    let mut pair = PostgresPair::boot(true).await;
    let scene = Scene::begin(&pair, PAUSE).await;
    scene.oracle.until_answered(SOME).await;
    pair.freeze_primary();
    let gap = promote(&mut pair, &scene).await;
    say(&format!("frozen: {gap:.2?} from the promotion to the first answer"));
    assert!(gap < Duration::from_secs(5), "the replicas leave the frozen primary: {gap:?}");
    scene.oracle.until_answered(SOME).await;
    // Each connection is made past the frozen one.
    pair.end_sessions().await;
    let ended = Instant::now();
    let gap = scene.oracle.answer_after(ended).await;
    say(&format!("beside a frozen server: {gap:.2?} until the next answer"));
    assert!(gap < Duration::from_secs(2), "the replicas know where the primary is: {gap:?}");
    scene.oracle.until_answered(SOME).await;
    // It takes itself for the primary still, and waits for its standby forever.
    pair.thaw();
    scene.oracle.until_answered(SOME).await;
    pair.rebuild().await;
    scene.oracle.until_answered(SOME).await;
    scene.end(&pair).await.check("frozen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_comes_late_is_noticed_at_once() {
    let mut pair = PostgresPair::boot(true).await;
    let scene = Scene::begin(&pair, PAUSE).await;
    scene.oracle.until_answered(SOME).await;
    let refused = scene.oracle.refused();
    pair.freeze_primary();
    // All senders have been refused, and ask again.
    scene.oracle.until_refused(refused + SENDERS).await;
    let gap = promote(&mut pair, &scene).await;
    say(&format!("frozen for long: {gap:.2?} from the promotion to the first answer"));
    assert!(gap < Duration::from_secs(2), "the promotion is noticed: {gap:?}");
    scene.oracle.until_answered(SOME).await;
    scene.end(&pair).await.check("frozen for long");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_takes_no_writes_any_more_is_left() {
    let mut pair = PostgresPair::boot(true).await;
    let scene = Scene::begin(&pair, PAUSE).await;
    scene.oracle.until_answered(SOME).await;
    // What is told to a standby ends no session there, nor behind a balancer.
    pair.demote_primary().await;
    promote(&mut pair, &scene).await;
    scene.oracle.until_answered(SOME).await;
    scene.end(&pair).await.check("demoted");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_primary_comes_back_by_itself() {
    let pair = PostgresPair::boot(true).await;
    let scene = Scene::begin(&pair, PAUSE).await;
    scene.oracle.until_answered(SOME).await;
    let terms = scene.oracle.terms();
    pair.kill_primary();
    pair.revive_primary();
    scene.oracle.until_answered(SOME).await;
    scene.oracle.until_terms(terms + 1).await;
    scene.end(&pair).await.check("killed and started again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_failover_loses_the_end_of_the_log_and_nothing_else() {
    let mut pair = PostgresPair::boot(false).await;
    let scene = Scene::begin(&pair, PAUSE).await;
    scene.oracle.until_answered(SOME).await;
    // What is answered from here on is not on the standby.
    pair.cut_replication().await;
    scene.oracle.until_answered(SOME).await;
    let terms = scene.oracle.terms();
    pair.kill_primary();
    let gap = promote(&mut pair, &scene).await;
    say(&format!("asynchronous: {gap:.2?} from the promotion to the first answer"));
    scene.oracle.until_answered(SOME).await;
    scene.oracle.until_terms(terms + 1).await;
    let figures = scene.end(&pair).await;
    figures.check_but_losses("asynchronous");
    assert!(figures.lost > 0, "the end of the log was not on the standby");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: 200 failovers"]
async fn nothing_is_lost_in_many_failovers() {
    /// In each database, so that a copy for a new standby stays small.
    const ROUNDS: usize = 20;
    let wanted = std::env::var("FAILOVERS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(200);
    let mut pair = PostgresPair::boot(true).await;
    let (mut gaps, mut lost, mut twice) = (Vec::new(), 0, 0);
    while gaps.len() < wanted {
        let scene = Scene::begin(&pair, PAUSE).await;
        for _ in 0..ROUNDS.min(wanted - gaps.len()) {
            scene.oracle.until_answered(SOME).await;
            pair.kill_primary();
            gaps.push(promote(&mut pair, &scene).await);
            pair.rebuild().await;
        }
        scene.oracle.until_answered(SOME).await;
        let figures = scene.end(&pair).await;
        say(&format!("after {} failovers: {figures}", gaps.len()));
        lost += figures.lost;
        twice += figures.kept_twice.max(figures.named_twice);
        figures.check("many failovers");
    }
    gaps.sort();
    say(&format!(
        "{} failovers: lost {lost}, twice {twice}, gap from the promotion to the first answer: median {:.2?}, longest {:.2?}",
        gaps.len(),
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1],
    ));
}
