//! Replicas are exchanged one by one, and no approver sees anything of it.

use super::scene::Scene;
use super::traffic::Traffic;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_of_one_replica_after_the_other_refuses_nobody() {
    // As docs/replicas.md says: longer than the balancer needs to notice.
    let scene = Scene::configured(|config| config.set("", "shutdown_delay_ms", "3000")).await;
    let upgrade = async |scene: &mut Scene, traffic: &Traffic| {
        let leader = scene.leader().await;
        // The one that leads is both times among those that stop.
        for replica in [leader, 1 - leader] {
            scene.replicas[replica].terminate();
            let stopped = scene.replicas[replica].ended().await;
            assert_eq!(stopped.code(), Some(0), "{}", scene.replicas[replica].stderr());
            let since = Instant::now();
            scene.replicas[replica].restart().await;
            scene.goes_on(traffic, since, "a replica exchanged").await;
        }
    };
    let (figures, pace) = scene.survives("replicas: exchanged one by one", upgrade).await;
    assert!(figures.refused.is_empty(), "nobody is refused: {figures}");
    assert_eq!(pace.unanswered, 0, "no connection breaks");
}
