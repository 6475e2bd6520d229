//! A one-time examination of a broker: reports everything AMQP reveals about exchanges and queues, without changing
//! them.

use lapin::{
    Channel,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
};

use super::{
    Listening, Settings, Topology,
    declare::{look_for_exchange, look_for_queue, table, table_of},
    topology::{Exchange, OVERFLOW, Queue, REJECT_PUBLISH, whole_plan},
    words::{advice, overflow_of_existing, problem},
};
use crate::telemetry::{
    log::chain,
    metrics::topology::{Counts, Problem, Role},
};

/// An exchange or queue on the broker.
#[derive(Debug)]
pub struct Examined {
    /// Its name.
    pub name: String,
    /// The queue's purpose; `None` for an exchange.
    pub role: Option<Role>,
    /// The queue's counts; `None` for an exchange or a missing queue.
    pub counts: Option<Counts>,
    /// What is wrong with it.
    pub trouble: Option<Trouble>,
    /// False if it could not be compared with what `serve` declares because the user may not configure it.
    pub compared: bool,
    /// The queue's declared overflow behaviour, if that is not to refuse; `Some("")` if none is declared, which means
    /// drop the oldest.
    pub overflow: Option<String>,
    /// Whether commands or reports depend on it.
    pub needed: bool,
}

/// A fault of an exchange or queue.
#[derive(Debug)]
pub struct Trouble {
    /// The kind.
    pub problem: Problem,
    /// The broker's message.
    pub words: String,
    /// What to do.
    pub advice: String,
}

/// Examines every exchange and queue that these settings name. Existing ones are redeclared; the broker answers
/// whether they match. Missing ones are not created.
///
/// # Errors
/// The connection failed.
pub async fn examine(connection: &Listening, settings: &Settings) -> lapin::Result<Vec<Examined>> {
    let plan = whole_plan(settings);
    let mut examining = Examining { connection, channel: None };
    let mut found = Vec::new();
    for exchange in &plan.exchanges {
        found.push(examining.exchange(exchange).await?);
    }
    for queue in &plan.queues {
        found.push(examining.queue(queue).await?);
    }
    // Nothing else is looked for with "check" and "none".
    let declares = settings.topology == Topology::Declare;
    found.retain(|examined| {
        declares
            || examined.needed
            || examined.trouble.as_ref().is_none_or(|trouble| trouble.problem != Problem::Missing)
    });
    Ok(found)
}

/// The broker closes a channel on each refusal.
struct Examining<'a> {
    connection: &'a Listening,
    channel: Option<Channel>,
}

impl Examining<'_> {
    async fn open(&mut self) -> lapin::Result<Channel> {
        match &self.channel {
            Some(channel) => Ok(channel.clone()),
            None => Ok(self.channel.insert(self.connection.channel().await?).clone()),
        }
    }

    /// The broker's refusal; fails if the connection ended instead.
    fn refused(&mut self, error: lapin::Error, object: &str) -> lapin::Result<Trouble> {
        self.channel = None;
        if super::code(&error).is_none() || !self.connection.is_open() {
            return Err(error);
        }
        Ok(Trouble { problem: problem(&error), words: chain(&error), advice: advice(&error, object) })
    }

    async fn exchange(&mut self, exchange: &Exchange) -> lapin::Result<Examined> {
        let mut examined = Examined {
            name: exchange.name.clone(),
            role: None,
            counts: None,
            trouble: None,
            compared: true,
            overflow: None,
            needed: exchange.needed,
        };
        let object = format!("exchange {}", exchange.name);
        if let Err(error) = look_for_exchange(&self.open().await?, exchange).await {
            examined.trouble = Some(self.refused(error, &object)?);
            return Ok(examined);
        }
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (name, arguments) = (exchange.name.as_str().into(), table(exchange.arguments));
        let declared =
            self.open().await?.exchange_declare(name, exchange.kind.clone(), options, arguments).await;
        self.compared(&mut examined, declared.err(), &object)?;
        Ok(examined)
    }

    async fn queue(&mut self, queue: &Queue) -> lapin::Result<Examined> {
        let mut examined = Examined {
            name: queue.name.clone(),
            role: Some(queue.role),
            counts: None,
            trouble: None,
            compared: true,
            overflow: None,
            needed: queue.needed,
        };
        let object = format!("queue {}", queue.name);
        match look_for_queue(&self.open().await?, &queue.name).await {
            Ok(found) => {
                let (messages, consumers) = (found.message_count(), found.consumer_count());
                examined.counts = Some(Counts { messages, consumers });
            }
            Err(error) => {
                examined.trouble = Some(self.refused(error, &object)?);
                return Ok(examined);
            }
        }
        let mut declared = self.declare(queue, Some(REJECT_PUBLISH)).await?;
        if let Err(error) = &declared
            && let Some(overflow) = overflow_of_existing(error)
        {
            self.channel = None;
            declared = self.declare(queue, overflow.as_deref()).await?;
            examined.overflow = Some(overflow.unwrap_or_default());
        }
        self.compared(&mut examined, declared.err(), &object)?;
        Ok(examined)
    }

    async fn declare(&mut self, queue: &Queue, overflow: Option<&str>) -> lapin::Result<lapin::Result<()>> {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let others = queue.arguments.iter().filter(|(name, _)| *name != OVERFLOW).copied();
        let arguments = table_of(others.chain(overflow.map(|overflow| (OVERFLOW, overflow))));
        let channel = self.open().await?;
        Ok(channel.queue_declare(queue.name.as_str().into(), options, arguments).await.map(drop))
    }

    fn compared(
        &mut self,
        examined: &mut Examined,
        error: Option<lapin::Error>,
        object: &str,
    ) -> lapin::Result<()> {
        let Some(error) = error else { return Ok(()) };
        let trouble = self.refused(error, object)?;
        if trouble.problem == Problem::NotPermitted {
            examined.compared = false;
        } else {
            examined.trouble = Some(trouble);
        }
        Ok(())
    }
}
