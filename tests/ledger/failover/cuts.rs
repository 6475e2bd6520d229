//! The ways between replicas, primary and standby are cut.

use std::time::{Duration, Instant};

use super::{
    PAUSE, SOME, say,
    scene::{SENDERS, Scene, replica},
};
use crate::support::{PATIENCE, Proxy, eventually, postgres::PostgresPair};

/// The approval center waits 5 s for the answer to a callback.
const ANSWER: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_cut_off_refuses_and_another_leads_until_it_is_back() {
    let pair = PostgresPair::boot(true).await;
    let url = pair.database().await;
    let mut ways = pair.addresses().map(Proxy::shut_before);
    for way in &mut ways {
        way.open().await;
    }
    let [first, second] = [&ways[0], &ways[1]].map(|way| format!("127.0.0.1:{}", way.port()));
    let [primary, standby] = pair.addresses().map(|address| address.to_string());
    let apart = replica(&url.replace(&primary, &first).replace(&standby, &second)).await;
    let mut term = apart.term();
    let led = tokio::time::timeout(PATIENCE, term.wait_for(Option::is_some)).await;
    drop(led.expect("it leads").expect("the ledger is there"));
    let near = replica(&url).await;
    let scene = Scene::of([apart, near], &url, PAUSE);
    scene.oracle.until_answered(SOME).await;

    for way in &mut ways {
        way.shut().await;
    }
    let ended = tokio::time::timeout(PATIENCE, term.wait_for(Option::is_none)).await;
    drop(ended.expect("its term ends").expect("the ledger is there"));
    let mut other = scene.replicas[1].term();
    let led = tokio::time::timeout(PATIENCE, other.wait_for(Option::is_some)).await;
    drop(led.expect("the other leads").expect("the ledger is there"));
    // Each sender waits for the one that is cut off as well.
    scene.oracle.until_answered(SENDERS).await;
    assert!(scene.oracle.refused() > 0, "what is cut off refuses");

    for way in &mut ways {
        way.open().await;
    }
    eventually("it takes commits again", async || scene.replicas[0].probe().await).await;
    scene.oracle.until_answered(SOME).await;
    let figures = scene.end(&pair).await;
    figures.check("cut off");
    assert!(figures.slowest < ANSWER, "each is answered in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_standby_a_synchronous_primary_accepts_nothing() {
    let mut pair = PostgresPair::boot(true).await;
    let scene = Scene::begin(&pair, PAUSE).await;
    scene.oracle.until_answered(SOME).await;
    pair.cut_replication().await;
    // What was under way may have reached it.
    let refused = scene.oracle.refused();
    scene.oracle.until_refused(refused + SENDERS).await;
    let answered = scene.oracle.answered();
    let watch = Instant::now();
    let mut most = 0;
    let client = pair.client("postgres").await;
    while watch.elapsed() < Duration::from_secs(10) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'countersign'";
        let sessions: i64 = client.query_one(sql, &[]).await.expect("the server answers").get(0);
        most = most.max(sessions);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(scene.oracle.answered(), answered, "nothing is promised without the standby");
    say(&format!("without a standby: {most} sessions of two replicas"));
    pair.restore_replication().await;
    scene.oracle.until_answered(SOME).await;
    let figures = scene.end(&pair).await;
    figures.check("without a standby");
    assert!(figures.slowest < ANSWER, "each is answered in time");
}
