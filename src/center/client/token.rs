//! The `tenant_access_token` (platform.md#access-tokens): one cache for all callers.
//!
//! - One caller fetches, the others wait for its result, a token or an error.
//! - A token is renewed before it expires. While the old one is valid, only the renewing caller waits. If renewal
//!   fails, the old one stays in use.
//! - A refused token is evicted, unless another caller has already renewed it. If an API refuses the fresh one too, the
//!   token is not the cause (platform.md#reading-a-definition), and its refusals are ignored until the token changes.

use std::{
    collections::HashSet,
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    api::Api,
    codes::Fault,
    error::Error,
    settings::{AppType, StoreApp},
    transport::{Call, Transport},
};
use crate::secret::Secret;

/// The platform issues a new token when less than half an hour of the old one is left (platform.md#access-tokens), so
/// at this point it does. The old one stays valid for its users.
const RENEW_BEFORE: Duration = Duration::from_secs(600);

/// Delay after a failed renewal while the old token is valid.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// Remaining lifetime of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenInfo {
    /// Time until the platform refuses it.
    pub expires_in: Duration,
}

pub(super) struct Fetched {
    pub(super) token: Secret,
    pub(super) lifetime: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct Lent {
    pub(super) token: Secret,
    /// Identifies the token.
    number: u64,
    expires_at: Instant,
}

impl Lent {
    pub(super) fn info(&self) -> TokenInfo {
        TokenInfo { expires_in: self.expires_at.saturating_duration_since(Instant::now()) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Held by the fetching caller.
    fetching: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    /// The last evicted token: the platform may return the same one again.
    evicted: Option<Secret>,
    /// Completed fetches.
    fetches: u64,
    failure: Option<Error>,
    /// APIs that refused a fresh token.
    acquitted: HashSet<Api>,
}

#[derive(Debug)]
struct Held {
    lent: Lent,
    renew_at: Instant,
}

impl Tokens {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a valid token, and fetches one if necessary. If dropped while fetching, the next caller fetches.
    pub(super) async fn lend<F, Fetching>(&self, fetch: F) -> Result<Lent, Error>
    where
        F: FnOnce() -> Fetching,
        Fetching: Future<Output = Result<Fetched, Error>>,
    {
        let before = {
            let state = self.state();
            if let Some(lent) = state.fresh() {
                return Ok(lent);
            }
            state.fetches
        };
        let turn = self.fetching.try_lock();
        let usable = self.state().usable();
        let _fetching = match (turn, usable) {
            (Ok(turn), _) => turn,
            // Another caller is renewing it; it is still valid.
            (Err(_), Some(lent)) => return Ok(lent),
            (Err(_), None) => self.fetching.lock().await,
        };
        {
            let state = self.state();
            if let Some(lent) = state.fresh() {
                return Ok(lent);
            }
            // The awaited fetch failed; fetching again at once would cause a stampede.
            if state.fetches != before
                && let Some(failure) = &state.failure
            {
                return state.usable().ok_or_else(|| failure.clone());
            }
        }
        let fetched = fetch().await;
        self.state().keep(fetched)
    }

    /// Evicts a refused token; true if a retry with another one makes sense.
    pub(super) fn evict(&self, refused: &Lent, api: Api) -> bool {
        let mut state = self.state();
        match &state.held {
            Some(held) if held.lent.number == refused.number => {
                if state.acquitted.contains(&api) {
                    return false;
                }
                state.held = None;
                state.evicted = Some(refused.token.clone());
                true
            }
            // Another caller has already evicted it.
            _ => true,
        }
    }

    /// Records that an API refuses even a fresh token.
    pub(super) fn acquit(&self, refused: &Lent, api: Api) {
        let mut state = self.state();
        if state.held.as_ref().is_some_and(|held| held.lent.number == refused.number) {
            state.acquitted.insert(api);
        }
    }
}

impl State {
    /// The token, if it is valid and not due for renewal.
    fn fresh(&self) -> Option<Lent> {
        let held = self.held.as_ref().filter(|held| Instant::now() < held.renew_at)?;
        Some(held.lent.clone())
    }

    fn usable(&self) -> Option<Lent> {
        let held = self.held.as_ref().filter(|held| Instant::now() < held.lent.expires_at)?;
        Some(held.lent.clone())
    }

    fn keep(&mut self, fetched: Result<Fetched, Error>) -> Result<Lent, Error> {
        self.fetches += 1;
        let now = Instant::now();
        match fetched {
            Ok(Fetched { token, lifetime }) => {
                if self.evicted.take().is_none_or(|evicted| !evicted.equals(token.expose())) {
                    self.acquitted.clear();
                }
                let lent = Lent { token, number: self.fetches, expires_at: now + lifetime };
                let renew_at = now + (lifetime - RENEW_BEFORE.min(lifetime / 4));
                self.held = Some(Held { lent: lent.clone(), renew_at });
                self.failure = None;
                Ok(lent)
            }
            Err(error) => {
                self.failure = Some(error.clone());
                let usable = self.usable();
                match (&mut self.held, usable) {
                    (Some(held), Some(lent)) => {
                        tracing::warn!(%error, "cannot renew the access token; the current one is still valid");
                        held.renew_at = now + RENEW_AGAIN;
                        Ok(lent)
                    }
                    _ => Err(error),
                }
            }
        }
    }
}

pub(super) async fn fetch(transport: &Transport, deadline: Instant) -> Result<Fetched, Error> {
    let settings = transport.settings();
    let (id, secret) = (&settings.app_id, settings.app_secret.expose());
    match &settings.app_type {
        AppType::Internal => {
            let body = json!({ "app_id": id, "app_secret": secret });
            token(transport, Api::InternalToken, body, "tenant_access_token", deadline).await
        }
        AppType::Store(app) => {
            let ticket = ticket(app)?;
            let body = json!({ "app_id": id, "app_secret": secret, "app_ticket": ticket.expose() });
            let fetched = token(transport, Api::StoreAppToken, body, "app_access_token", deadline).await;
            if fetched.as_ref().is_err_and(|error| error.fault() == Some(Fault::AppTicketWrong)) {
                let body = json!({ "app_id": id, "app_secret": secret });
                let call = Call::new(Api::ResendTicket).body(body);
                // The caller needs the token's error; a failed request for a new ticket is only a detail.
                if let Err(error) = transport.attempts(&call, None, deadline).await {
                    tracing::warn!(%error, "cannot request a new app_ticket");
                }
            }
            let body = json!({ "app_access_token": fetched?.token.expose(), "tenant_key": app.tenant_key });
            token(transport, Api::StoreTenantToken, body, "tenant_access_token", deadline).await
        }
    }
}

fn ticket(app: &StoreApp) -> Result<Secret, Error> {
    let Some(path) = &app.app_ticket_file else { return Ok(app.app_ticket.clone()) };
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Ok(Secret::new(text.trim())),
        Ok(_) => Err(Error::Ticket(format!("{} is empty", path.display()))),
        Err(error) => Err(Error::Ticket(format!("{}: {error}", path.display()))),
    }
}

/// Requests a token. The response has its members at the top level, not under `data` (platform.md#access-tokens).
async fn token(
    transport: &Transport,
    api: Api,
    body: Value,
    member: &str,
    deadline: Instant,
) -> Result<Fetched, Error> {
    let answer = transport.attempts(&Call::new(api).body(body), None, deadline).await?;
    let text = answer.get(member).and_then(Value::as_str).filter(|text| !text.is_empty());
    let expire = answer.get("expire").and_then(Value::as_u64);
    match (text, expire) {
        (Some(text), Some(seconds)) => {
            Ok(Fetched { token: Secret::new(text), lifetime: Duration::from_secs(seconds) })
        }
        _ => {
            Err(Error::Unreadable { api, http_status: 200, problem: format!("it lacks {member} or expire") })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;

    /// A fake platform: counts, takes a second, and issues token `t-<count>` or the fixed one.
    #[derive(Default)]
    struct Platform {
        asked: AtomicU64,
        down: std::sync::atomic::AtomicBool,
        same: Option<&'static str>,
    }

    impl Platform {
        async fn fetch(&self) -> Result<Fetched, Error> {
            let number = self.asked.fetch_add(1, SeqCst) + 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.down.load(SeqCst) {
                return Err(Error::Ticket(format!("failure {number}")));
            }
            let token = self.same.map_or_else(|| Secret::new(format!("t-{number}")), Secret::new);
            Ok(Fetched { token, lifetime: Duration::from_secs(7200) })
        }

        fn asked(&self) -> u64 {
            self.asked.load(SeqCst)
        }
    }

    async fn lend(tokens: &Tokens, platform: &Platform) -> Result<Lent, Error> {
        tokens.lend(|| platform.fetch()).await
    }

    async fn text(tokens: &Tokens, platform: &Platform) -> String {
        lend(tokens, platform).await.unwrap().token.expose().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_callers_cause_one_fetch() {
        let (tokens, platform) = (Tokens::default(), Platform::default());
        let lent = futures_util::future::join_all((0..100).map(|_| lend(&tokens, &platform))).await;
        assert_eq!(platform.asked(), 1);
        assert!(lent.iter().all(|lent| lent.as_ref().unwrap().token.equals("t-1")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_callers_share_one_failure_and_the_next_tries_again() {
        let (tokens, platform) = (Tokens::default(), Platform::default());
        platform.down.store(true, SeqCst);
        let lent = futures_util::future::join_all((0..100).map(|_| lend(&tokens, &platform))).await;
        assert_eq!(platform.asked(), 1);
        assert!(lent.iter().all(|lent| lent.as_ref().unwrap_err().to_string().contains("failure 1")));
        platform.down.store(false, SeqCst);
        assert_eq!(text(&tokens, &platform).await, "t-2");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_renewed_before_it_runs_out_and_only_one_caller_waits_for_it() {
        let (tokens, platform) = (Tokens::default(), Platform::default());
        assert_eq!(text(&tokens, &platform).await, "t-1");
        tokio::time::advance(Duration::from_secs(6599)).await;
        assert_eq!((text(&tokens, &platform).await.as_str(), platform.asked()), ("t-1", 1));
        tokio::time::advance(Duration::from_secs(1)).await;
        let (renewing, other) = tokio::join!(text(&tokens, &platform), text(&tokens, &platform));
        assert_eq!((renewing.as_str(), other.as_str(), platform.asked()), ("t-2", "t-1", 2));
    }

    #[tokio::test(start_paused = true)]
    async fn while_it_cannot_be_renewed_the_old_one_is_used_until_it_runs_out() {
        let (tokens, platform) = (Tokens::default(), Platform::default());
        text(&tokens, &platform).await;
        platform.down.store(true, SeqCst);
        tokio::time::advance(Duration::from_secs(6700)).await;
        for _ in 0..10 {
            assert_eq!(text(&tokens, &platform).await, "t-1");
        }
        assert_eq!(platform.asked(), 2, "renewing is not tried again at once");
        tokio::time::advance(Duration::from_secs(500)).await;
        assert!(lend(&tokens, &platform).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_fetched_again_once_for_all_who_had_it() {
        let (tokens, platform) = (Tokens::default(), Platform::default());
        let lent = lend(&tokens, &platform).await.unwrap();
        for _ in 0..10 {
            assert!(tokens.evict(&lent, Api::ListTasks));
            assert_eq!(text(&tokens, &platform).await, "t-2");
        }
        assert_eq!(platform.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_that_refuses_fresh_tokens_is_not_believed_again() {
        for same in [None, Some("t-same")] {
            let (tokens, platform) = (Tokens::default(), Platform { same, ..Platform::default() });
            for _ in 0..10 {
                let lent = lend(&tokens, &platform).await.unwrap();
                if tokens.evict(&lent, Api::GetInstance) {
                    let lent = lend(&tokens, &platform).await.unwrap();
                    tokens.acquit(&lent, Api::GetInstance);
                }
            }
            assert_eq!(platform.asked(), 2, "one fetch too many, not one for each call");
            let lent = lend(&tokens, &platform).await.unwrap();
            assert!(tokens.evict(&lent, Api::ListTasks), "other APIs are still believed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_leaves_the_fetch_to_the_next() {
        let (tokens, platform) = (Tokens::default(), Platform::default());
        let gave_up = tokio::time::timeout(Duration::from_millis(500), lend(&tokens, &platform)).await;
        assert!(gave_up.is_err());
        assert_eq!(text(&tokens, &platform).await, "t-2");
    }

    #[test]
    fn a_ticket_is_read_when_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ticket");
        let app = StoreApp {
            tenant_key: "tenant".to_owned(),
            app_ticket: Secret::new("old"),
            app_ticket_file: Some(path.clone()),
        };
        assert!(ticket(&app).unwrap_err().to_string().contains("ticket"));
        for text in ["first\n", "second"] {
            std::fs::write(&path, text).unwrap();
            assert!(ticket(&app).unwrap().equals(text.trim()));
        }
    }
}
