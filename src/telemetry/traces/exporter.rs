//! A bounded queue of spans, and the task that posts them.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use prost::Message;
use reqwest::{
    Client, Url,
    header::{CONTENT_TYPE, HeaderValue},
    redirect::Policy,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::{
    Settings, Span,
    otlp::{Answer, Request},
};
use crate::telemetry::{log::chain, metrics::Spans};

/// Spans that wait: what some hundred callbacks a second make while a collector takes a second to answer.
const QUEUE: usize = 2048;

/// Spans in one request: some hundred KiB.
const BATCH: usize = 512;

/// How long a request waits for more spans.
const GATHER: Duration = Duration::from_millis(500);

/// A collector that is away is logged at most this often.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// Longer answers are not read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub(super) struct Exporter {
    queue: mpsc::Sender<Span>,
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    counters: Spans,
    /// A trace is recorded if the last four bytes of its id are below.
    threshold: u64,
}

impl Exporter {
    /// The exporter, and the work to spawn.
    pub(super) fn new(
        settings: &Settings,
        counters: Spans,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), reqwest::Error> {
        let mut http = Client::builder()
            .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .default_headers(settings.headers.clone())
            .redirect(Policy::none())
            .timeout(settings.timeout);
        if !settings.proxied {
            http = http.no_proxy();
        }
        let post = Post {
            http: http.build()?,
            url: settings.url.clone(),
            instance: uuid::Uuid::now_v7().to_string(),
            counters: counters.clone(),
            complaint: Complaint::default(),
        };
        let (queue, spans) = mpsc::channel(QUEUE);
        let (flushes, asked) = mpsc::channel(1);
        let threshold = threshold(settings.sample_percent);
        Ok((Self { queue, flushes, counters, threshold }, work(spans, asked, post)))
    }

    /// The last bytes, because the first ones of a command's id are a time, and some of those between are not random either.
    pub(super) fn samples(&self, trace_id: &[u8; 16]) -> bool {
        let [.., a, b, c, d] = *trace_id;
        u64::from(u32::from_be_bytes([a, b, c, d])) < self.threshold
    }

    pub(super) fn take(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.counters.dropped(1);
        }
    }

    pub(super) async fn flush(&self) {
        let (done, told) = oneshot::channel();
        if self.flushes.send(done).await.is_ok() {
            // An error says that the task is gone, and nothing can be sent.
            told.await.ok();
        }
    }
}

fn threshold(percent: u8) -> u64 {
    (1 << 32) * u64::from(percent) / 100
}

async fn work(
    mut spans: mpsc::Receiver<Span>,
    mut flushes: mpsc::Receiver<oneshot::Sender<()>>,
    mut post: Post,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let mut flush = None;
        tokio::select! {
            count = spans.recv_many(&mut batch, BATCH) => if count == 0 { return },
            asked = flushes.recv() => flush = asked,
        }
        let mut gathered = pin!(sleep(GATHER));
        while batch.len() < BATCH && flush.is_none() {
            let room = BATCH - batch.len();
            tokio::select! {
                biased;
                asked = flushes.recv() => flush = asked,
                count = spans.recv_many(&mut batch, room) => if count == 0 { break },
                () = &mut gathered => break,
            }
        }
        if let Some(done) = flush {
            while let Ok(span) = spans.try_recv() {
                batch.push(span);
                if batch.len() == BATCH {
                    post.send(std::mem::take(&mut batch)).await;
                }
            }
            if !batch.is_empty() {
                post.send(std::mem::take(&mut batch)).await;
            }
            // Nobody may be left who waits for it.
            done.send(()).ok();
        } else {
            post.send(std::mem::take(&mut batch)).await;
        }
    }
}

struct Post {
    http: Client,
    url: Url,
    instance: String,
    counters: Spans,
    complaint: Complaint,
}

impl Post {
    /// Never tries a second time: the spans that came meanwhile say more than those that waited.
    async fn send(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let body = Request::of(batch, &self.instance).encode_to_vec();
        match self.exchange(body).await {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                self.counters.sent(count - rejected);
                self.counters.failed(rejected);
                match rejected {
                    0 => self.complaint.withdraw(),
                    rejected => self.complaint.tell(rejected, "the collector rejected some of them"),
                }
            }
            Err(error) => {
                self.counters.failed(count);
                self.complaint.tell(count, &error);
            }
        }
    }

    /// How many the collector rejected, or what went wrong.
    async fn exchange(&self, body: Vec<u8>) -> Result<u64, String> {
        let told = |error: reqwest::Error| chain(&error.without_url());
        let form = HeaderValue::from_static("application/x-protobuf");
        let request = self.http.post(self.url.clone()).header(CONTENT_TYPE, form).body(body);
        let mut response = request.send().await.map_err(told)?;
        if !response.status().is_success() {
            return Err(format!("the collector answered {}", response.status().as_u16()));
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Ok(0);
            }
            answer.extend_from_slice(&chunk);
        }
        // An answer in another form accepts them all the same: its status says so.
        let partial = Answer::decode(&*answer).ok().and_then(|answer| answer.partial_success);
        Ok(partial.and_then(|partial| u64::try_from(partial.rejected_spans).ok()).unwrap_or(0))
    }
}

/// Says at most once a minute that spans are lost, and when they are taken again.
#[derive(Default)]
struct Complaint {
    told: Option<Instant>,
    untold: u64,
}

impl Complaint {
    fn tell(&mut self, spans: u64, error: &str) {
        self.untold += spans;
        if self.told.is_none_or(|told| told.elapsed() >= REMIND_AFTER) {
            self.told = Some(Instant::now());
            tracing::warn!(
                spans = self.untold,
                error,
                "cannot send spans to the collector; they are dropped"
            );
            self.untold = 0;
        }
    }

    fn withdraw(&mut self) {
        if self.told.take().is_some() {
            tracing::info!("collector takes spans again");
            self.untold = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_traces_is_recorded() {
        assert_eq!((threshold(0), threshold(100), threshold(50)), (0, 1 << 32, 1 << 31));
        let (queue, _spans) = mpsc::channel(1);
        let (flushes, _asked) = mpsc::channel(1);
        let metrics = crate::telemetry::metrics::Metrics::new();
        let counters = metrics.spans.clone();
        let exporter = Exporter { queue, flushes, counters, threshold: threshold(25) };
        let id = |last: u32| {
            let mut id = [0xff; 16];
            id[12..].copy_from_slice(&last.to_be_bytes());
            id
        };
        assert!(exporter.samples(&id(0)) && exporter.samples(&id((1 << 30) - 1)));
        assert!(!exporter.samples(&id(1 << 30)) && !exporter.samples(&id(u32::MAX)));
    }
}
