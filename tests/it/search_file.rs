//! The search file beside the ledger, as an operator sees it.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::support::{App, Callback, Config, NOWHERE, eventually};

async fn found(app: &App, user: &str) -> usize {
    let answer = app.get(&format!("/api/v1/commands?user_id={user}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["commands"].as_array().expect("a list").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_appears_beside_the_ledger_and_may_be_deleted_or_damaged() {
    let mut app = App::with(Config::with_url(NOWHERE)).await;
    let file = app.dir().join("ledger.db.search");
    for number in 0..3 {
        let user = format!("user{}", number % 2);
        app.accept(&Callback::list("i", &format!("t{number}")).operator(&user)).await;
    }
    eventually("the search file is there", async || file.exists().then_some(()).ok_or("not yet")).await;
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!((found(&app, "user0").await, found(&app, "nobody").await), (2, 0));

    app.kill();
    for damage in [&b"rubbish"[..], &[]] {
        fs::write(&file, damage).expect("it can be written");
        app.restart().await;
        assert_eq!((found(&app, "user0").await, found(&app, "nobody").await), (2, 0));
        eventually("it is made again", async || {
            fs::read(&file)
                .is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3"))
                .then_some(())
                .ok_or("not yet")
        })
        .await;
        assert_eq!((found(&app, "user0").await, found(&app, "nobody").await), (2, 0));
        app.kill();
    }

    app.reconfigure(|config| config.set("ledger", "search_file", "\"off\""));
    fs::remove_file(&file).expect("it was there");
    app.restart().await;
    assert_eq!(found(&app, "user1").await, 1);
    assert!(!file.exists());
}
