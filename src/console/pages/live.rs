//! `/live`: counters as they change, for the pages that are open. Nothing personal goes over it; who wants to see more
//! asks for a page.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    web,
};
use futures_util::stream;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};

use super::{Desk, cookie};
use crate::{
    console::problem::Problem,
    ledger::{Filter, Ledger, RefusalFilter},
};

/// All streams together. Each holds a connection, and probes need theirs.
const MOST: usize = 32;

/// How often the ledger is looked at, for all streams together, while it changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a look may take. Then the stream ends, and the browser says that it has no news.
const PATIENCE: Duration = Duration::from_secs(2);

/// A stream says something this often in any case: only then is a browser noticed that has gone away.
const STILL_HERE: Duration = Duration::from_secs(2);

/// The counters of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Counters {
    /// The newest place in the log.
    decisions: u64,
    /// The newest refused callback.
    refusals: u64,
    pending: u64,
    parked: u64,
    outcomes_pending: u64,
    outcomes_parked: u64,
    /// Of the ledger, since the start: a page of one thing looks at itself again when they have grown.
    changes: u64,
}

/// The streams that are open, and what they last saw.
pub(in crate::console) struct Streams {
    permits: Arc<Semaphore>,
    last: tokio::sync::Mutex<Option<(Instant, Counters)>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(MOST)), last: tokio::sync::Mutex::default() }
    }
}

impl Streams {
    /// The counters, at most [`LOOK_EVERY`] old; `None` while the ledger cannot be read.
    async fn counters(&self, ledger: &dyn Ledger) -> Option<Counters> {
        timeout(PATIENCE, self.looked(ledger)).await.ok()?
    }

    async fn looked(&self, ledger: &dyn Ledger) -> Option<Counters> {
        let mut last = self.last.lock().await;
        if let Some((at, counters)) = *last
            && at.elapsed() < LOOK_EVERY
        {
            return Some(counters);
        }
        // Before the looks, so that no change falls between.
        let changes = *ledger.changes().borrow();
        let newest = ledger.list(Filter { limit: 1, ..Filter::default() });
        let refused = ledger.refusals(RefusalFilter { limit: 1, ..RefusalFilter::default() });
        let (newest, refused, stats) = tokio::join!(newest, refused, ledger.stats());
        let (newest, refused, stats) = (newest.ok()?, refused.ok()?, stats.ok()?);
        let counters = Counters {
            decisions: newest.first().map_or(0, |one| one.seq),
            refusals: refused.first().map_or(0, |one| one.id),
            pending: stats.pending,
            parked: stats.parked + stats.rejected + stats.unrouted,
            outcomes_pending: stats.outcomes_pending,
            outcomes_parked: stats.outcomes_parked,
            changes,
        };
        *last = Some((Instant::now(), counters));
        Some(counters)
    }
}

/// One open stream.
struct Open {
    desk: web::Data<Desk>,
    /// The session; `None` if none is needed.
    session: Option<String>,
    changes: watch::Receiver<u64>,
    told: Option<Counters>,
    told_at: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn is_permitted(&self) -> bool {
        let tokens = self.desk.access.tokens();
        match &self.session {
            Some(session) => self.desk.sessions.lives(session, &tokens, Instant::now()),
            None => tokens.is_empty(),
        }
    }

    /// Waits until there is something to tell; `None` when the stream has to end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if self.told.is_some() {
                sleep(LOOK_EVERY).await;
                // Ends without a change if the ledger is closed; then the look fails.
                timeout(STILL_HERE.saturating_sub(self.told_at.elapsed()), self.changes.changed()).await.ok();
            }
            if !self.is_permitted() {
                return None;
            }
            // The browser tries again by itself.
            let counters = self.desk.streams.counters(&*self.desk.ledger).await?;
            if self.told != Some(counters) {
                (self.told, self.told_at) = (Some(counters), Instant::now());
                let json = serde_json::to_string(&counters).expect("numbers always render");
                return Some(format!("retry: 1000\ndata: {json}\n\n"));
            }
            if self.told_at.elapsed() >= STILL_HERE {
                self.told_at = Instant::now();
                return Some(": \n\n".to_owned());
            }
        }
    }
}

/// `GET /live`: server-sent events.
pub(super) async fn stream(request: HttpRequest, desk: web::Data<Desk>) -> HttpResponse {
    if let Err(problem) = admitted(&request, &desk) {
        return problem.response();
    }
    let Ok(permit) = desk.streams.permits.clone().try_acquire_owned() else {
        let message = format!("{MOST} pages are live already.");
        let mut response =
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", message).response();
        response.headers_mut().insert(RETRY_AFTER, actix_web::http::header::HeaderValue::from_static("30"));
        return response;
    };
    let session = (!desk.access.tokens().is_empty())
        .then(|| cookie(request.headers(), &desk.cookie).unwrap_or_default().to_owned());
    let changes = desk.ledger.changes();
    let open = Open { desk, session, changes, told: None, told_at: Instant::now(), _permit: permit };
    let events = stream::unfold(open, |mut open| async move {
        let event = open.next().await?;
        Some((Ok::<_, Infallible>(web::Bytes::from(event)), open))
    });
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/event-stream")).streaming(events)
}

/// An `EventSource` accepts `text/event-stream` only, so a page is no answer here.
fn admitted(request: &HttpRequest, desk: &Desk) -> Result<(), Problem> {
    let tokens = desk.access.tokens();
    if tokens.is_empty() {
        return match super::host(request).is_some_and(crate::loopback::is_authority) {
            true => Ok(()),
            false => Err(Problem::not_permitted()),
        };
    }
    let session = cookie(request.headers(), &desk.cookie);
    match session.is_some_and(|session| desk.sessions.lives(session, &tokens, Instant::now())) {
        true => Ok(()),
        false => Err(Problem::no_session()),
    }
}
