//! Searches with a search file: the same answers, whatever state it is in.

use std::{fs, path::Path};

use super::*;
use countersign::ledger::{Lookup, SearchFile, Step};

/// How far the commands are from one another: many slices, and together a few segments of the file.
const APART: Seq = 25_000;

async fn commands(ledger: &Handle, tasks: std::ops::Range<u32>) {
    for task in tasks {
        let mut acceptance = acceptance(&format!("t{task}"), "APPROVE", None);
        acceptance.command.user_id = format!("user{}", task % 2);
        acceptance.command.task.instance_id = (task != 3).then(|| format!("i{}", task % 3));
        accepted(ledger, acceptance).await;
    }
}

async fn keep_up(file: &Arc<SearchFile>, ledger: &dyn Lookup) {
    while file.step(ledger).await.expect("the file can be written") != Step::Done {}
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn filters() -> Vec<Filter> {
    let all = || Filter { limit: 20, ..Filter::default() };
    vec![
        Filter { user_id: text("user1"), ..all() },
        Filter { user_id: text("user1"), limit: 2, ..all() },
        Filter { user_id: text("user1"), before: Some(9 * APART), ..all() },
        Filter { user_id: text("user0"), instance_id: text("i0"), ..all() },
        Filter { user_id: text("user0"), instance_id: text("i0"), task_id: text("t6"), ..all() },
        Filter { instance_id: text("i2"), state: Some(State::Pending), ..all() },
        Filter { task_id: text("t3"), ..all() },
        Filter { task_id: text("user1"), ..all() },
        Filter { user_id: text("nobody"), ..all() },
        Filter { user_id: text("user1"), after: Some(0), ..all() },
        all(),
    ]
}

/// The same is found with the file and without it. Returns how often searches that have no time stop, with the file.
async fn compare(file: &Arc<SearchFile>, ledger: &dyn Lookup) -> usize {
    let mut stops = 0;
    for filter in filters() {
        let expected = seqs(&ledger.list(filter.clone()).await.unwrap());
        let (mut seen, mut before) = (Vec::new(), filter.before);
        loop {
            let limit = filter.limit - seen.len();
            let filter = file.hinted(ledger, Filter { before, limit, ..filter.clone() }).await.unwrap();
            let is_named =
                filter.user_id.is_some() || filter.instance_id.is_some() || filter.task_id.is_some();
            let patience = if filter.after.is_some() { Duration::MAX } else { Duration::ZERO };
            let found = ledger.search(filter, patience).await.unwrap();
            seen.extend(seqs(&found.rows));
            let Some(stopped) = found.stopped else { break };
            stops += usize::from(is_named);
            before = Some(stopped.at);
        }
        assert_eq!(seen, expected, "{filter:?}");
    }
    stops
}

fn seqs(records: &[countersign::ledger::Record]) -> Vec<Seq> {
    records.iter().map(|record| record.seq).collect()
}

fn file_at(path: &Path) -> Arc<SearchFile> {
    Arc::new(SearchFile::at(path.to_owned()))
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn with_a_search_file_the_same_is_found_in_a_few_reads(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let directory = tempfile::tempdir().unwrap();
    let file = file_at(&directory.path().join("search"));
    commands(&ledger, 0..6).await;
    keep_up(&file, &*ledger).await;
    commands(&ledger, 6..12).await;
    compare(&file, &*ledger).await;
    scratch.spread(APART).await;
    let without = compare(&file, &*ledger).await;
    keep_up(&file, &*ledger).await;
    let with = compare(&file, &*ledger).await;
    assert!(with < 40 && without > 10 * with, "{with} stops with the file, {without} without");
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_search_file_of_another_log_or_of_no_use_is_made_again(backend: Backend) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("search");
    let other = Scratch::new(backend).await;
    let file = file_at(&path);
    {
        let ledger = other.open().await;
        commands(&ledger, 0..14).await;
        keep_up(&file, &*ledger).await;
    }
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    commands(&ledger, 20..32).await;
    compare(&file, &*ledger).await;
    keep_up(&file, &*ledger).await;
    compare(&file, &*ledger).await;
    drop(file);

    // A ledger that has lost its newest commands, and has others in their place.
    scratch.execute("DELETE FROM commands WHERE seq > 6").await;
    let file = file_at(&path);
    compare(&file, &*ledger).await;
    keep_up(&file, &*ledger).await;
    compare(&file, &*ledger).await;
    drop(file);

    for rubbish in [&b"no database"[..], &[0; 8192]] {
        for name in ["search", "search-wal"] {
            fs::write(directory.path().join(name), rubbish).unwrap();
            let file = file_at(&path);
            compare(&file, &*ledger).await;
            while !matches!(file.step(&*ledger).await, Ok(Step::Done)) {}
            compare(&file, &*ledger).await;
        }
    }
    scratch.execute("DELETE FROM commands").await;
    let file = file_at(&path);
    keep_up(&file, &*ledger).await;
    compare(&file, &*ledger).await;
    file.forget(&*ledger).await.unwrap();
}
