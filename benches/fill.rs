//! Fills a ledger for the benchmark, through the library and in this process: a million rows in less than a minute.
//!
//! usage: fill FILE ROWS PENDING      the last PENDING of them are not published; FILE must not exist

mod support;

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use countersign::{
    ledger::{Accept, Lifecycle, Receipt, Settlement, sqlite::SqliteLedger},
    time::Timestamp,
};
use futures_util::future::join_all;

/// Accepts that wait for the same commit.
const TOGETHER: u64 = 256;
/// How long before now the newest is received: further back than the window of any endpoint that is measured.
const AGO: Duration = Duration::from_secs(600);

async fn fill(file: PathBuf, rows: u64, pending: u64) -> anyhow::Result<()> {
    anyhow::ensure!(!file.exists(), "{} is there already", file.display());
    let ledger = SqliteLedger::open(&file, &support::sizing())?;
    // One in each millisecond up to then: ids and times go up, as they do in life.
    let newest = Timestamp::now() - AGO;
    let mut next = 0;
    while next < rows {
        let until = rows.min(next + TOGETHER);
        let accepts = (next..until).map(|number| {
            let at = newest - Duration::from_millis(rows - number);
            let mut acceptance = support::acceptance(number, at);
            // Nothing is looked for in the window here, so nothing has to be remembered for long.
            acceptance.window = Duration::ZERO;
            ledger.accept(acceptance)
        });
        for receipt in join_all(accepts).await {
            anyhow::ensure!(matches!(receipt?, Receipt::Accepted { .. }), "a row was not new");
        }
        next = until;
    }
    if rows > pending {
        ledger.outbox().settle(Settlement { through: Some(rows - pending), ..Settlement::default() }).await?;
    }
    ledger.flush().await;
    Ok(())
}

/// A word to the person.
fn say(words: &str) {
    writeln!(std::io::stderr().lock(), "{words}").ok();
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match &arguments[..] {
        [file, rows, pending] => {
            rows.parse().and_then(|rows| Ok((PathBuf::from(file), rows, pending.parse()?))).ok()
        }
        _ => None,
    };
    let Some((file, rows, pending)) = parsed.filter(|(_, rows, pending)| pending <= rows) else {
        say("usage: fill FILE ROWS PENDING");
        return ExitCode::from(64);
    };
    match support::runtime().block_on(fill(file, rows, pending)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("fill: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
