//! Settings replaced while the service runs.

use std::sync::Mutex;

use super::*;
use crate::{intake::PROBE_ACTION, ledger::Limits};

/// A relay that records its start and end.
fn telling(name: &'static str, story: &Arc<Mutex<Vec<String>>>) -> Start {
    let story = story.clone();
    Arc::new(move |mut resources: Resources| {
        let story = story.clone();
        async move {
            story.lock().unwrap().push(format!("{name} begins"));
            resources.stop.wait_for(Option::is_some).await.unwrap();
            story.lock().unwrap().push(format!("{name} ends"));
        }
        .boxed()
    })
}

#[tokio::test]
async fn one_relay_has_ended_before_the_next_begins_and_the_last_is_stopped_in_its_turn() {
    let story = Arc::new(Mutex::new(Vec::new()));
    let service = Service::with(settings(), telling("first", &story));
    let told = |wanted: &'static str| {
        let story = story.clone();
        async move {
            eventually(wanted, async || story.lock().unwrap().iter().any(|line| line == wanted)).await;
        }
    };
    told("first begins").await;
    let limits = Limits::default();
    let exchange = |relay| service.controls.replace(&settings(), limits.clone(), relay).unwrap();
    assert!(exchange(Some(telling("second", &story))).is_empty());
    told("second begins").await;
    // The replaced one in between is not awaited.
    assert!(exchange(Some(telling("third", &story))).is_empty());
    assert!(exchange(Some(telling("fourth", &story))).is_empty());
    told("fourth begins").await;
    assert!(exchange(None).is_empty());
    assert_eq!(service.post("plain", &callback("t1")).await.status, 200);
    let (controls, ledger) = (service.controls.clone(), service.ledger.clone());
    service.stop().await;
    // After the end nothing starts any more.
    let late = controls.replace(&settings(), limits.clone(), Some(telling("late", &story)));
    assert!(late.unwrap().is_empty());

    let mut story = story.lock().unwrap().clone();
    // Whether the third started before the fourth was requested is a race.
    story.retain(|line| !line.starts_with("third"));
    let wanted =
        ["first begins", "first ends", "second begins", "second ends", "fourth begins", "fourth ends"];
    assert_eq!(story, wanted);
    let asked = ledger.story.lock().unwrap().clone();
    assert_eq!(asked, ["limit", "limit", "limit", "limit", "accept", "flush", "limit"]);
}

#[tokio::test]
async fn a_relay_that_was_told_to_end_twice_ends_once_and_one_that_panics_is_followed_by_the_one_wanted() {
    let story = Arc::new(Mutex::new(Vec::new()));
    let panicking: Start = Arc::new(|_| async { panic!("as it was asked to by a test") }.boxed());
    let service = Service::with(settings(), panicking);
    let next = service.controls.replace(&settings(), Limits::default(), Some(telling("sound", &story)));
    assert!(next.unwrap().is_empty());
    eventually("the sound one begins", async || !story.lock().unwrap().is_empty()).await;
    service.stop().await;
    assert_eq!(*story.lock().unwrap(), ["sound begins", "sound ends"]);
}

#[tokio::test]
async fn the_settings_of_a_stop_are_those_in_force() {
    let mut long = settings();
    long.shutdown_grace = 10 * PATIENCE;
    let service = Service::with(long, Arc::new(|_| futures_util::future::pending().boxed()));
    let mut short = settings();
    short.shutdown_grace = Duration::from_millis(100);
    short.console.token = Some(Secret::new("fake-admin-token"));
    assert!(service.controls.replace(&short, Limits::default(), None).unwrap().is_empty());
    assert_eq!(service.get("/api/v1/commands").await.status, 401, "another token, and at once");
    service.stop().await;
}

#[tokio::test]
async fn who_still_uses_an_old_credential_is_told_and_outlives_a_reload_and_the_end() {
    let with = |tokens: [&str; 2]| {
        let mut settings = settings();
        settings.intake.endpoints[0].credentials = tokens
            .iter()
            .map(|token| CredentialSettings {
                action_callback_token: Secret::new(*token),
                action_callback_key: None,
            })
            .collect();
        settings
    };
    let service = Service::with(with([TOKEN, "fake-token-new"]), idle_relay());
    let told = async |place: usize| {
        let said = service.get("/readyz").await.json();
        let all = said["credentials"].as_array().unwrap().clone();
        let found = all.into_iter().find(|one| one["endpoint"] == "plain" && one["credential"] == place);
        found.unwrap()["last_used_at"].clone()
    };
    let metric = async |line: &str| {
        let text = service.get("/metrics").await.body;
        assert!(text.lines().any(|one| one.starts_with(line)), "{line} is not in\n{text}");
    };
    assert!(told(0).await.is_null() && told(1).await.is_null());
    metric("countersign_credential_last_used_seconds{endpoint=\"plain\",credential=\"0\"} 0").await;

    // Neither a stranger nor a probe counts as use.
    let stranger = callback("t0").replace(TOKEN, "fake-token-of-nobody");
    assert_eq!(service.post("plain", &stranger).await.status, 403);
    let probe = callback("t0").replace("APPROVE", PROBE_ACTION);
    assert_eq!(service.post("plain", &probe).await.status, 422);
    assert!(told(0).await.is_null() && told(1).await.is_null());

    assert_eq!(service.post("plain", &callback("t1")).await.status, 200);
    // Refused, but its sender still uses the credential.
    assert_eq!(service.post("plain", &callback("t2").replace("APPROVE", "HOLD")).await.status, 422);
    let used = told(0).await;
    assert!(used.is_string() && told(1).await.is_null());
    metric("countersign_credential_uses_total{endpoint=\"plain\",credential=\"0\"} 2").await;
    metric("countersign_credential_uses_total{endpoint=\"plain\",credential=\"1\"} 0").await;

    let swapped = with(["fake-token-newest", TOKEN]);
    assert!(service.controls.replace(&swapped, Limits::default(), None).unwrap().is_empty());
    assert!(told(0).await.is_null());
    assert_eq!(told(1).await, used, "it is the same, wherever it stands");
    metric("countersign_credential_uses_total{endpoint=\"plain\",credential=\"1\"} 0").await;

    let ledger = service.ledger.clone();
    service.stop().await;
    let kept = ledger.uses.lock().unwrap().clone();
    let plain: Vec<_> = kept.iter().filter(|used| used.endpoint == "plain").collect();
    assert_eq!(plain.len(), 2, "{kept:?}");
    assert!(plain[0].last_used_at.is_none() && plain[1].last_used_at.is_some(), "{kept:?}");
}
