//! A call: access token, request, and one retry with a fresh token if the platform refuses the first.

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

/// The approval center, with an optional shorter deadline. Clones share token, rate limits and connections.
#[derive(Debug, Clone)]
pub struct Center(Arc<Shared>, Option<Duration>);

#[derive(Debug)]
struct Shared {
    transport: Transport,
    tokens: Tokens,
}

impl Center {
    /// Creates a client without sending anything. The process must have a TLS provider installed.
    ///
    /// # Errors
    /// The HTTP client cannot be created.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let shared = Shared { transport: Transport::new(settings)?, tokens: Tokens::default() };
        Ok(Self(Arc::new(shared), None))
    }

    /// A client whose calls have this deadline. A call whose turn would come later fails at once and uses up no turn.
    #[must_use]
    pub fn within(&self, call_deadline: Duration) -> Self {
        Self(self.0.clone(), Some(call_deadline.min(self.0.transport.settings().call_deadline)))
    }

    /// The settings of this client.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        self.0.transport.settings()
    }

    /// Returns the remaining lifetime of the access token. Fetches a token if necessary.
    ///
    /// # Errors
    /// The platform refuses the request or is unreachable.
    pub async fn token_info(&self) -> Result<TokenInfo, Error> {
        Ok(self.token(self.deadline()).await?.info())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.1.unwrap_or(self.0.transport.settings().call_deadline)
    }

    async fn token(&self, deadline: Instant) -> Result<Lent, Error> {
        self.0.tokens.lend(|| token::fetch(&self.0.transport, deadline)).await
    }

    /// Makes the call and reads `data`, which must have what this API returns (`Api::brings`).
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
            // A fresh token is refused too, so the token is not the cause.
            self.0.tokens.acquit(&lent, call.api);
        }
        second
    }
}
