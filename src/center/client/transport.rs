//! Sends one request until its final answer: rate limits, response, retries.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderValue},
};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::{
    answer::{foreign, judge, place_of},
    api::{Api, Host},
    codes::Fault,
    error::Error,
    limit::Limiter,
    settings::Settings,
};
use crate::{loopback, proxy, secret::Secret};

/// A page of 500 tasks has about 200 KiB.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Requests per call, including the first. With pauses they take about ten seconds.
const MAX_ATTEMPTS: u32 = 5;

/// Delay if the platform limits without giving a time.
const UNSAID_WAIT: Duration = Duration::from_secs(1);

/// The platform counts in minutes; a longer wait is a mistake.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A call to make. No `Debug`: the body may hold secrets.
pub(super) struct Call {
    pub(super) api: Api,
    /// Appended to the path as one segment.
    pub(super) segment: Option<String>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    /// True if the call is idempotent: it may be retried even if it was executed.
    pub(super) repeatable: bool,
}

impl Call {
    pub(super) fn new(api: Api) -> Self {
        Self { api, segment: None, query: Vec::new(), body: None, repeatable: true }
    }

    pub(super) fn segment(mut self, segment: &str) -> Self {
        self.segment = Some(segment.to_owned());
        self
    }

    pub(super) fn query(mut self, key: &'static str, value: Option<impl fmt::Display>) -> Self {
        self.query.extend(value.map(|value| (key, value.to_string())));
        self
    }

    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }
}

#[derive(Debug)]
pub(super) struct Transport {
    settings: Settings,
    http: reqwest::Client,
    limits: Vec<Limiter>,
}

impl Transport {
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(settings.connect_timeout);
        // Loopback URLs, as for the emulator, bypass the proxy.
        if settings.base_url.parse().is_ok_and(|url| loopback::is_url(&url)) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| Error::Client(Arc::new(error)))?;
        let limits = Api::ALL.iter().map(|_| Limiter::default()).collect();
        Ok(Self { settings: settings.clone(), http, limits })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sends until the final answer, within the deadline and [`MAX_ATTEMPTS`].
    pub(super) async fn attempts(
        &self,
        call: &Call,
        token: Option<&Secret>,
        deadline: Instant,
    ) -> Result<Value, Error> {
        let limiter = &self.limits[call.api as usize];
        let mut last = None;
        for attempt in 1.. {
            let now = Instant::now();
            match limiter.turn(now, deadline) {
                Ok(turn) => sleep_until(turn).await,
                Err(turn) => {
                    return Err(last.unwrap_or(Error::NoTurn { api: call.api, wait: turn - now }));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match self.exchange(call, token, left.min(self.settings.request_timeout)).await {
                Ok(envelope) => return Ok(envelope),
                Err(error) => error,
            };
            if error.fault() == Some(Fault::RateLimited) {
                let wait = match &error {
                    Error::Api(error) => error.wait,
                    _ => None,
                };
                limiter.close(Instant::now() + wait.unwrap_or(UNSAID_WAIT).min(LONGEST_WAIT));
            }
            let Some(pause) = again_after(&error, call.repeatable, attempt) else { return Err(error) };
            if attempt >= MAX_ATTEMPTS || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!(api = %call.api, attempt, ?pause, %error, "retrying request");
            sleep_until(Instant::now() + pause).await;
            last = Some(error);
        }
        unreachable!("attempts are counted from one without end")
    }

    /// Sends one request and returns the whole envelope, whose `code` is 0.
    async fn exchange(&self, call: &Call, token: Option<&Secret>, timeout: Duration) -> Result<Value, Error> {
        let (api, settings) = (call.api, &self.settings);
        let base = match api.host() {
            Host::Open => &settings.base_url,
            Host::Historic => &settings.historic_base_url,
        };
        let transport = |sent: bool| {
            move |error: reqwest::Error| Error::Transport {
                api,
                host: base.clone(),
                sent: sent && !error.is_connect() && !error.is_builder(),
                proxy: proxy::words(base),
                source: Arc::new(error.without_url()),
            }
        };
        let mut request = self.http.request(api.method(), url(base, call)?).timeout(timeout);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, bearer(api, token)?);
        }
        if let Some(body) = &call.body {
            // Also on GET: without its body, the platform would list tasks unfiltered (platform.md#task-status).
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(transport(true))?;
        let http_status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport(true))? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                let problem = format!("it is longer than {MAX_ANSWER_BYTES} bytes");
                return Err(Error::Unreadable { api, http_status, problem });
            }
            bytes.extend_from_slice(&chunk);
        }
        if let Some(problem) = foreign(http_status, &headers, &bytes) {
            return Err(Error::Unreadable { api, http_status, problem });
        }
        let envelope: Value = serde_json::from_slice(&bytes).map_err(|error| Error::Unreadable {
            api,
            http_status,
            problem: place_of(&error, "not JSON"),
        })?;
        let secrets: Vec<&Secret> = token.into_iter().chain([&settings.app_secret]).collect();
        judge(api, http_status, &headers, envelope, &secrets)
    }
}

fn url(base: &str, call: &Call) -> Result<Url, Error> {
    let wrong = || Error::Request { api: call.api, problem: format!("{base} is not a base URL") };
    let mut url: Url = format!("{base}{}", call.api.path()).parse().map_err(|_| wrong())?;
    if let Some(segment) = &call.segment {
        // A segment of dots would leave the path, and an empty one would call another API.
        if segment.is_empty() || segment.bytes().all(|byte| byte == b'.') {
            let problem = format!("{segment:?} is not an id");
            return Err(Error::Request { api: call.api, problem });
        }
        url.path_segments_mut().map_err(|()| wrong())?.push(segment);
    }
    if !call.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&call.query);
    }
    Ok(url)
}

fn bearer(api: Api, token: &Secret) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| {
        Error::Request { api, problem: "the access token is not a valid header value".to_owned() }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The delay before a retry; `None` for no retry.
fn again_after(error: &Error, repeatable: bool, attempt: u32) -> Option<Duration> {
    let (again, base) = match error {
        Error::Api(error) => match error.fault() {
            // The limiter knows how long.
            Fault::RateLimited => return Some(Duration::ZERO),
            fault if fault.was_not_done() => (true, 500),
            // The platform asks not to synchronise the same instance again immediately
            // (platform.md#sync-answers-and-errors).
            fault if fault.is_passing() => (repeatable, 1000),
            _ if error.http_status >= 500 => (repeatable, 500),
            _ => (false, 0),
        },
        Error::Transport { sent, .. } => (!sent || repeatable, 250),
        // Gateways in between answer in HTML.
        Error::Unreadable { http_status, .. } => (repeatable && *http_status >= 500, 500),
        Error::NoTurn { .. }
        | Error::Request { .. }
        | Error::EndlessPages { .. }
        | Error::Ticket(_)
        | Error::Client(_) => (false, 0),
    };
    again.then(|| {
        let whole = base * (1 << (attempt - 1).min(4));
        // Half of it is random, so that clients that failed together do not retry together.
        let mut chance = [0; 2];
        getrandom::fill(&mut chance).expect("the operating system has random bytes");
        Duration::from_millis(whole / 2 + whole / 2 * u64::from(u16::from_be_bytes(chance)) / 65_536)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::center::client::double::failure;

    #[test]
    fn only_what_may_be_done_twice_is_repeated_after_a_doubt() {
        let again = |error: &Error, repeatable| again_after(error, repeatable, 1).is_some();
        for (error, repeatable, not) in [
            (failure(429, 99_991_400), true, true),
            (failure(400, 99_991_400), true, true),
            (failure(400, 60_014), true, true),
            (failure(400, 1_395_001), true, false),
            (failure(500, 12_345), true, false),
            (failure(400, 1_390_001), false, false),
            (failure(400, 99_991_663), false, false),
            (failure(400, 99_991_403), false, false),
        ] {
            assert_eq!((again(&error, true), again(&error, false)), (repeatable, not), "{error}");
        }
    }

    #[test]
    fn an_id_is_one_segment_of_the_path_whatever_is_in_it() {
        let path = |id: &str| {
            url("https://h", &Call::new(Api::GetInstance).segment(id)).map(|url| url.path().to_owned())
        };
        assert_eq!(path("a/../b?c").unwrap(), "/open-apis/approval/v4/instances/a%2F..%2Fb%3Fc");
        assert_eq!(path("审").unwrap(), "/open-apis/approval/v4/instances/%E5%AE%A1");
        for id in ["", ".", ".."] {
            assert!(path(id).is_err(), "{id:?} would call another API");
        }
    }

    #[test]
    fn a_token_in_a_header_is_not_shown_by_debug() {
        let header = bearer(Api::ListTasks, &Secret::new("t-hush")).unwrap();
        assert!(!format!("{header:?}").contains("hush"));
    }
}
