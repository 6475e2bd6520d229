//! A call: its access token, the request, and a second one with a fresh token if the platform refuses the first token.

use std::{sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    answer::{brings, read},
    codes::Fault,
    error::Error,
    lenient::prune,
    settings::Settings,
    token::{self, Lent, TokenInfo, Tokens},
    transport::{Call, Transport},
};

/// The approval center, and how long a call may take if not as long as is configured. Clones share token, limits and
/// connections.
#[derive(Debug, Clone)]
pub struct Center(Arc<Shared>, Option<Duration>);

#[derive(Debug)]
struct Shared {
    transport: Transport,
    tokens: Tokens,
}

impl Center {
    /// Makes a client. Nothing is sent yet. The process must have a TLS provider installed.
    ///
    /// # Errors
    /// Only if cannot create an HTTP client at all.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let shared = Shared { transport: Transport::new(settings)?, tokens: Tokens::default() };
        Ok(Self(Arc::new(shared), None))
    }

    /// The same, whose calls take no longer than this with everything. A call that cannot have its turn within this time fails
    /// at once, and takes nobody else's.
    #[must_use]
    pub fn within(&self, call_deadline: Duration) -> Self {
        Self(self.0.clone(), Some(call_deadline.min(self.0.transport.settings().call_deadline)))
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        self.0.transport.settings()
    }

    /// Gets an access token, unless one is at hand, and tells how long it will do.
    ///
    /// # Errors
    /// The platform refuses it, or is away.
    pub async fn token_info(&self) -> Result<TokenInfo, Error> {
        Ok(self.token(self.deadline()).await?.info())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.1.unwrap_or(self.0.transport.settings().call_deadline)
    }

    async fn token(&self, deadline: Instant) -> Result<Lent, Error> {
        self.0.tokens.lend(|| token::fetch(&self.0.transport, deadline)).await
    }

    /// Calls and reads the member `data`, which must bring what this API answers (`Api::brings`).
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let api = call.api;
        let mut envelope = self.call_for_envelope(&call).await?;
        let mut data = envelope.get_mut("data").map_or(Value::Null, Value::take);
        brings(api, &data)?;
        prune(&mut data);
        read(api, data)
    }

    async fn call_for_envelope(&self, call: &Call) -> Result<Value, Error> {
        let deadline = self.deadline();
        let lent = self.token(deadline).await?;
        let first = self.0.transport.attempts(call, Some(&lent.token), deadline).await;
        let refused = |result: &Result<Value, Error>| {
            result.as_ref().is_err_and(|error| error.fault().is_some_and(Fault::is_of_the_token))
        };
        if !refused(&first) || !self.0.tokens.evict(&lent, call.api) {
            return first;
        }
        tracing::debug!(api = %call.api, "access token refused; retrying with a new one");
        let lent = self.token(deadline).await?;
        let second = self.0.transport.attempts(call, Some(&lent.token), deadline).await;
        if refused(&second) {
            // A fresh token does not help here, so it is not the token.
            self.0.tokens.acquit(&lent, call.api);
        }
        second
    }
}
