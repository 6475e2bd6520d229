//! Keeps the search file up with the log.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    ledger::{Ledger, SearchFile, Step},
    telemetry::log::chain,
};

/// While it is behind, it pauses so many times as long as it worked, so that it takes a twentieth of a core from the
/// callbacks. What it has not reached yet is searched without it.
const PAUSE: u32 = 19;

/// How often it looks for more. Seldom, so that the threads that it borrows end in between: what their stacks hold, of a reload for
/// example, goes with them. What came since is searched without the file.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// After a failure, and while the disk has too little room.
const AGAIN: Duration = Duration::from_secs(60);

/// How often what was pruned is removed from it.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// Reads the log into the file for as long as it is polled.
pub(super) async fn keep(file: Option<Arc<SearchFile>>, ledger: Arc<dyn Ledger>) -> Infallible {
    let Some(file) = file else { return std::future::pending().await };
    let mut forgot = Instant::now();
    let mut failing = false;
    loop {
        let began = Instant::now();
        let step = file.step(&*ledger).await;
        let pause = match &step {
            Ok(Step::More) => began.elapsed() * PAUSE,
            Ok(Step::Done) => LOOK_EVERY,
            Ok(Step::NoRoom) => AGAIN,
            Err(error) => {
                if !failing {
                    let error = chain(error);
                    tracing::warn!("the search file is not kept up, so searches read the ledger: {error}");
                }
                AGAIN
            }
        };
        failing = step.is_err();
        if forgot.elapsed() >= FORGET_EVERY {
            forgot = Instant::now();
            if let Err(error) = file.forget(&*ledger).await {
                tracing::debug!("cannot remove what was pruned from the search file: {}", chain(&error));
            }
        }
        sleep(pause).await;
    }
}
