//! The search file beside the ledger, as an operator sees it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};

use crate::support::{App, Callback, Config, NOWHERE, eventually};

async fn found(app: &App, user: &str) -> usize {
    let answer = app.get(&format!("/api/v1/commands?user_id={user}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["commands"].as_array().expect("a list").len()
}

/// Waits until a whole file of the whole log is there. What is in the write-ahead log counts.
async fn kept_up(file: &Path, commands: i64) {
    eventually("the search file knows the log", async || {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let users = "SELECT count(DISTINCT place) FROM places, reached";
        match connection.query_row(users, [], |row| row.get::<_, i64>(0))? {
            seen if seen == commands => Ok(()),
            _ => Err(rusqlite::Error::QueryReturnedNoRows),
        }
    })
    .await;
}

/// Where SQLite keeps what is not yet in the file itself.
fn write_ahead_log(file: &Path) -> PathBuf {
    file.with_extension("search-wal")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_appears_beside_the_ledger_and_may_be_deleted_or_damaged() {
    let mut app = App::with(Config::with_url(NOWHERE)).await;
    let file = app.dir().join("ledger.db.search");
    for number in 0..3 {
        let user = format!("user{}", number % 2);
        app.accept(&Callback::list("i", &format!("t{number}")).operator(&user)).await;
    }
    kept_up(&file, 3).await;
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!((found(&app, "user0").await, found(&app, "nobody").await), (2, 0));

    for damage in [Some(&b"rubbish"[..]), Some(&[]), None] {
        app.kill();
        match damage {
            Some(bytes) => fs::write(&file, bytes).expect("it can be written"),
            None => fs::remove_file(&file).expect("it was there"),
        }
        // With it, SQLite reads a damaged file as it was.
        fs::remove_file(write_ahead_log(&file)).expect("the program was killed");
        app.restart().await;
        assert_eq!((found(&app, "user0").await, found(&app, "nobody").await), (2, 0));
        kept_up(&file, 3).await;
        assert_eq!((found(&app, "user0").await, found(&app, "nobody").await), (2, 0));
    }

    app.kill();
    fs::write(&file, b"rubbish").expect("it can be written");
    app.restart().await;
    assert_eq!((found(&app, "user0").await, found(&app, "nobody").await), (2, 0));
    app.kill();

    app.reconfigure(|config| config.set("ledger", "search_file", "\"off\""));
    fs::remove_file(&file).expect("it was there");
    app.restart().await;
    assert_eq!(found(&app, "user1").await, 1);
    assert!(!file.exists());
}
