//! `/emulator/events`: a stream of server-sent events that carries one counter, so that a page knows when to look again.
//! Nothing of what happened is in it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{HttpResponse, http::header, web};
use futures_util::stream::unfold;
use tokio::time::{Instant, sleep_until, timeout};

use super::Emulator;

/// Streams at the same time. A browser opens one for each page; the rest look again by hand.
const MOST: usize = 32;

/// At most four events a second, however much happens.
const APART: Duration = Duration::from_millis(250);

/// A comment, so that the end of a silent peer is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// The streams that are open.
#[derive(Default)]
pub(super) struct Streams(Arc<AtomicUsize>);

struct Slot(Arc<AtomicUsize>);

impl Streams {
    fn take(&self) -> Option<Slot> {
        let take = |open: usize| (open < MOST).then_some(open + 1);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.is_ok().then(|| Slot(self.0.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) async fn events(emulator: web::Data<Emulator>) -> HttpResponse {
    let Some(slot) = emulator.streams.take() else {
        return HttpResponse::ServiceUnavailable()
            .insert_header((header::RETRY_AFTER, "30"))
            .json(serde_json::json!({ "problem": "too many streams are open" }));
    };
    let mut changes = emulator.changes.subscribe();
    changes.mark_changed();
    let events = unfold((changes, slot, Instant::now()), |(mut changes, slot, next)| async move {
        let text = match timeout(SIGN_OF_LIFE, changes.changed()).await {
            Ok(Err(_gone)) => return None,
            Ok(Ok(())) => {
                sleep_until(next).await;
                format!("data: {}\n\n", *changes.borrow_and_update())
            }
            Err(_elapsed) => ":\n\n".to_owned(),
        };
        let text = Ok::<_, std::convert::Infallible>(web::Bytes::from(text));
        Some((text, (changes, slot, Instant::now() + APART)))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(events)
}
