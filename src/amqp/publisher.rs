//! Persistent and mandatory publishes on one channel; confirm or return → outcome.
//!
//! Only one task publishes on a channel: lapin numbers a publish and queues its frames in two steps, so the confirms
//! of two tasks could be swapped.

use std::{
    borrow::Cow,
    collections::HashMap,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::FutureExt;
use lapin::{
    BasicProperties, Confirmation,
    message::BasicReturnMessage,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    Broker, Error, Settings,
    connection::{Link, Turn},
    signing::{self, SigningKey},
    spans::Publishing,
    watch::Watch,
    window::{Answer, Returned, Window},
};
use crate::{
    command::{
        CommandId,
        message::Envelope,
        profile::{Form, Profile},
    },
    ledger::Entry,
    relay::News,
    telemetry::log::chain,
    time::Timestamp,
};

/// Headers longer than this are left out; the body has the whole value.
///
/// All properties of a message go into one frame, whose size the broker limits (131072 bytes by default, 8192 at the
/// least from RabbitMQ 4 on). A larger frame ends the connection, and such a command would be published again and
/// again, blocking all later ones.
pub(super) const MAX_HEADER_BYTES: usize = 1024;

/// `delivery_mode`: on disk before it is confirmed.
const PERSISTENT: u8 = 2;

/// Connects to one of several brokers.
#[derive(Debug)]
pub struct Publisher {
    settings: Settings,
    brokers: Vec<Broker>,
    next: usize,
    connected: watch::Sender<bool>,
}

impl Publisher {
    /// Creates a publisher that is not connected yet.
    ///
    /// # Errors
    /// A URL is missing or unusable.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let brokers = Broker::parse_all(&settings.urls)?;
        if brokers.is_empty() {
            return Err(Error::NoUrl);
        }
        Ok(Self { settings, brokers, next: 0, connected: watch::Sender::new(false) })
    }

    /// Watches exchanges and queues while this publisher has a session.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch::new(self.settings.clone(), self.connected.subscribe())
    }
}

impl crate::relay::Publisher for Publisher {
    type Session = ConfirmChannel;
    type Error = Error;

    /// Tries every broker once, starting with the last connected one unless it was passed over.
    async fn connect(&mut self) -> Result<ConfirmChannel, Error> {
        let mut last = Error::NoUrl;
        for tried in 1..=self.brokers.len() {
            let broker = &self.brokers[self.next];
            match Link::open(broker, &self.settings).await {
                Ok(link) => {
                    info!(broker = %broker.address, "connected to the broker");
                    return Ok(ConfirmChannel::new(link, &self.settings, self.connected.clone()));
                }
                Err(error) => {
                    crate::relay::Publisher::pass_over(self);
                    if tried < self.brokers.len() {
                        warn!(error = %chain(&error), "trying the next broker");
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    fn brokers(&self) -> usize {
        self.brokers.len()
    }

    fn pass_over(&mut self) {
        self.next = (self.next + 1) % self.brokers.len();
    }
}

type Answers = Pin<Box<dyn Future<Output = lapin::Result<Answer>> + Send>>;

/// A connected channel in confirm mode.
pub struct ConfirmChannel {
    link: Link,
    window: Window<Answers>,
    exchange: ShortString,
    message_type: String,
    profiles: HashMap<String, Profile>,
    signing: Vec<SigningKey>,
    _connected: Connected,
}

/// Marks the session as existing until dropped.
struct Connected(watch::Sender<bool>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl std::fmt::Debug for ConfirmChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfirmChannel").field("broker", &self.link.broker).finish_non_exhaustive()
    }
}

impl ConfirmChannel {
    fn new(link: Link, settings: &Settings, connected: watch::Sender<bool>) -> Self {
        connected.send_replace(true);
        Self {
            _connected: Connected(connected),
            link,
            window: Window::new(),
            exchange: short(&settings.exchange),
            message_type: settings.message_type.clone(),
            profiles: settings.profiles.clone(),
            signing: settings.signing.clone(),
        }
    }

    /// Once the broker has closed the channel, every later operation fails because it is closed; only the answers that
    /// were pending then carry the broker's message.
    fn ended(&mut self, source: Option<lapin::Error>) -> Error {
        let is_the_brokers = |error: &lapin::Error| super::code(error).is_some();
        let told = source.as_ref().is_some_and(is_the_brokers);
        let cause = if told { None } else { self.window.cause(is_the_brokers) };
        Error::Ended { broker: self.link.broker.clone(), source: cause.or(source).map(Box::new) }
    }
}

impl crate::relay::Session for ConfirmChannel {
    type Error = Error;

    fn publish(&mut self, entry: Entry) {
        let Entry { mut envelope, body, .. } = entry;
        let publishing = Publishing::of(&envelope, self.exchange.as_str(), body.len());
        envelope.trace = publishing.context().or(envelope.trace);
        let command_id = envelope.command_id;
        let profile = self.profiles.get(&*envelope.endpoint).unwrap_or(&Profile::Plain);
        let mut form = profile.form(&envelope, &self.message_type, &body);
        if !self.signing.is_empty() {
            let signed = signing::headers(&self.signing, command_id, Timestamp::now(), &form.body);
            form.headers.extend(signed.into_iter().map(|(name, value)| (name, value.into())));
        }
        let wrapped = match std::mem::take(&mut form.body) {
            Cow::Owned(wrapped) => Some(wrapped),
            Cow::Borrowed(_) => None,
        };
        let properties = properties(&envelope, &self.message_type, form);
        let body = wrapped.unwrap_or(body);
        // At most 255 bytes by contract of `Envelope::routing_key`.
        let routing_key = ShortString::from(envelope.routing_key());
        let channel = self.link.channel.clone();
        let exchange = self.exchange.clone();
        let answer = async move {
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let confirm = channel.basic_publish(exchange, routing_key, options, &body, properties).await?;
            drop(body);
            drop(channel);
            let answer = answer(confirm.await?);
            publishing.end(&answer);
            Ok(answer)
        };
        self.window.push(command_id, Box::pin(answer));
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.window.start().map_err(|error| self.ended(Some(error)))
    }

    fn poll_news(&mut self, cx: &mut Context<'_>, news: &mut News) -> Poll<Result<(), Error>> {
        if let Poll::Ready(turn) = self.link.poll_turn(cx) {
            return Poll::Ready(match turn {
                Turn::Blocked(blocked) => {
                    news.blocked = Some(blocked);
                    Ok(())
                }
                Turn::Ended(error) => Err(self.ended(error)),
            });
        }
        let channel = &self.link.channel;
        let barrier = || {
            // Takes the lock under which lapin completes the confirms of one ack; see `window`. Not awaited: with
            // confirms outstanding the future would only resolve after the last of them.
            let unclaimed = channel.wait_for_confirms().now_or_never();
            unclaimed.and_then(Result::ok).unwrap_or_default().into_iter().map(returned).collect()
        };
        match self.window.poll(cx, barrier, news) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.ended(Some(error)))),
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn look(&mut self) -> Result<(), Error> {
        self.window.be_thorough();
        if self.link.is_open() { Ok(()) } else { Err(self.ended(None)) }
    }

    async fn close(self) {
        self.link.close().await;
    }
}

fn answer(confirmation: Confirmation) -> Answer {
    // Without confirm mode nothing would be confirmed, so `NotRequested` does not count.
    let ack = confirmation.is_ack();
    Answer { ack, returned: confirmation.take_message().map(returned) }
}

fn returned(message: BasicReturnMessage) -> Returned {
    let id = message.properties.message_id().as_ref();
    Returned {
        command_id: id.and_then(|id| CommandId::parse(id.as_str())),
        reason: format!("{} {}", message.reply_code, message.reply_text),
    }
}

/// The properties of the contract. Never `expiration` (a decision does not expire), `user_id` (the broker would
/// compare it with the connection's user) or `priority` (quorum queues have none).
fn properties(envelope: &Envelope, message_type: &str, form: Form<'_>) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in form.headers {
        if value.len() <= MAX_HEADER_BYTES {
            headers.insert(name.into(), AMQPValue::LongString(value.into_owned().into()));
        }
    }
    let mut properties = BasicProperties::default()
        .with_message_id(envelope.command_id.to_string().into())
        .with_type(short(message_type))
        .with_content_type(form.content_type.into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(u64::try_from(envelope.received_at.as_second()).unwrap_or(0))
        .with_app_id("countersign".into())
        .with_headers(headers);
    if let Some(correlation_id) = form.correlation_id {
        properties = properties.with_correlation_id(short(&correlation_id));
    }
    properties
}

/// A short string holds 255 bytes; longer text is cut between two characters.
fn short(text: &str) -> ShortString {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::command::Action;

    fn envelope() -> Envelope {
        Envelope {
            command_id: CommandId::parse("019a0000-0000-7000-8000-000000000001").unwrap(),
            received_at: "2026-11-20T08:15:30.123Z".parse().unwrap(),
            endpoint: Arc::from("purchase"),
            action: Action::Approve,
            approval_code: None,
            instance_id: Some("people_1234".to_owned()),
            task_id: None,
            trace: None,
        }
    }

    fn properties(envelope: &Envelope, profile: &Profile) -> BasicProperties {
        let form = profile.form(envelope, "approval.command.v1", b"{}");
        super::properties(envelope, "approval.command.v1", form)
    }

    #[test]
    fn a_profile_decides_content_type_correlation_and_further_headers_and_nothing_else() {
        let plain = properties(&envelope(), &Profile::Plain);
        let celery = properties(&envelope(), &Profile::Celery { task: "t.approve".to_owned() });
        let id = celery.message_id().as_ref().map(ShortString::as_str);
        assert_eq!(celery.correlation_id().as_ref().map(ShortString::as_str), id);
        let headers = celery.headers().as_ref().unwrap();
        assert_eq!(headers.inner().get("task"), Some(&AMQPValue::LongString("t.approve".into())));
        assert!(celery.reply_to().is_none(), "nobody waits for a result");
        for (profile, content_type) in [
            (Profile::CloudEvents, "application/cloudevents+json"),
            (Profile::MassTransit, "application/vnd.masstransit+json"),
        ] {
            let wrapped = properties(&envelope(), &profile);
            assert_eq!(wrapped, plain.clone().with_content_type(content_type.into()));
        }
    }

    #[test]
    fn a_message_has_the_properties_of_the_contract() {
        let properties = properties(&envelope(), &Profile::Plain);
        assert_eq!(
            properties.message_id().as_ref().map(ShortString::as_str),
            Some("019a0000-0000-7000-8000-000000000001")
        );
        assert_eq!(properties.kind().as_ref().map(ShortString::as_str), Some("approval.command.v1"));
        assert_eq!(properties.content_type().as_ref().map(ShortString::as_str), Some("application/json"));
        assert_eq!(properties.content_encoding().as_ref().map(ShortString::as_str), Some("utf-8"));
        assert_eq!(properties.app_id().as_ref().map(ShortString::as_str), Some("countersign"));
        assert_eq!(properties.correlation_id().as_ref().map(ShortString::as_str), Some("people_1234"));
        assert_eq!((*properties.delivery_mode(), *properties.timestamp()), (Some(2), Some(1_795_162_530)));
        assert_eq!(
            (properties.expiration(), properties.user_id(), properties.priority()),
            (&None, &None, &None)
        );
        let headers = properties.headers().as_ref().unwrap();
        let expected = AMQPValue::LongString("purchase".into());
        assert_eq!(headers.inner().get("endpoint"), Some(&expected));
        assert!(!headers.contains_key("approval_code"));
    }

    #[test]
    fn a_long_instance_id_is_cut_between_characters_and_left_out_of_the_headers() {
        let long = Envelope { instance_id: Some("审".repeat(400)), ..envelope() };
        let properties = properties(&long, &Profile::Plain);
        let cut = properties.correlation_id().as_ref().unwrap().as_str();
        assert_eq!(cut, "审".repeat(85));
        let headers = properties.headers().as_ref().unwrap();
        assert!(!headers.contains_key("instance_id"));
        assert_eq!(short(&format!("ab{}", "审".repeat(400))).as_str(), format!("ab{}", "审".repeat(84)));
    }
}
