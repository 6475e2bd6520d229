//! Declares, or looks for, the objects in the table of [`topology`](super::topology).

use lapin::{
    Channel, Connection,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tracing::warn;

use super::{
    Address, Error, Existing, Topology,
    topology::{Arguments, Binding, Exchange, OVERFLOW, Plan, Queue},
    words::{advice, overflow_of_existing, refusing_policy},
};

impl Existing {
    /// The arguments of the queue's last declaration, or those for its first.
    fn arguments(&self, queue: &Queue) -> FieldTable {
        let known = self.known();
        let Some(overflow) = known.get(&queue.name) else { return table(queue.arguments) };
        let others = queue.arguments.iter().filter(|(name, _)| *name != OVERFLOW).copied();
        table_of(others.chain(overflow.as_deref().map(|overflow| (OVERFLOW, overflow))))
    }

    fn accept(&self, queue: &Queue, overflow: Option<String>, broker: &Address) {
        let ours = queue.arguments.iter().find(|(name, _)| *name == OVERFLOW).map(|(_, value)| *value);
        if overflow.as_deref() == ours {
            self.known().remove(&queue.name);
            return;
        }
        let name = &*queue.name;
        warn!(
            queue = name,
            overflow,
            advice = refusing_policy(&broker.vhost, name),
            "the queue exists without x-overflow=reject-publish and is used as it is; should a policy limit its length, \
             confirmed commands would be dropped"
        );
        self.known().insert(name.to_owned(), overflow);
    }
}

/// Carries out a plan on channels of one connection.
pub(super) struct Declaring<'a> {
    connection: &'a Connection,
    broker: &'a Address,
    existing: &'a Existing,
    verb: &'static str,
    /// The last one is in use; the broker has closed those before. All are held: lapin (4.12.3) closes a channel when
    /// its last handle is dropped, and cannot close a connection while a channel is closing.
    channels: Vec<Channel>,
}

impl<'a> Declaring<'a> {
    pub(super) async fn begin(
        connection: &'a Connection,
        broker: &'a Address,
        existing: &'a Existing,
    ) -> Result<Self, Error> {
        let mut declaring = Self { connection, broker, existing, verb: "declare", channels: Vec::new() };
        declaring.open().await?;
        Ok(declaring)
    }

    /// Applies `topology`. Returns the channels, at least one; the last is open and ready for use.
    ///
    /// # Errors
    /// The first object that is refused or missing.
    pub(super) async fn carry_out(mut self, plan: Plan, topology: Topology) -> Result<Vec<Channel>, Error> {
        match topology {
            Topology::Declare => self.declare(plan).await?,
            Topology::Check => self.check(plan).await?,
            Topology::None => {}
        }
        Ok(self.channels)
    }

    async fn declare(&mut self, plan: Plan) -> Result<(), Error> {
        for exchange in plan.exchanges {
            self.declare_exchange(exchange).await?;
        }
        for queue in plan.queues {
            self.declare_queue(&queue).await?;
        }
        for binding in plan.bindings {
            self.bind(binding).await?;
        }
        Ok(())
    }

    /// Looks for what is needed: the exchange that is published to, and the needed queue. AMQP cannot query a binding,
    /// only create it.
    async fn check(&mut self, plan: Plan) -> Result<(), Error> {
        self.verb = "find";
        for exchange in plan.exchanges.into_iter().filter(|exchange| exchange.needed) {
            let found = look_for_exchange(self.channel(), &exchange).await;
            found.map_err(|source| self.failed(format!("exchange {}", exchange.name), source))?;
        }
        for queue in plan.queues.into_iter().filter(|queue| queue.needed) {
            let found = look_for_queue(self.channel(), &queue.name).await;
            found.map_err(|source| self.failed(format!("queue {}", queue.name), source))?;
        }
        Ok(())
    }

    async fn declare_exchange(&self, exchange: Exchange) -> Result<(), Error> {
        // Durable: a transient exchange would be gone when the broker restarts, and every publish would fail.
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (name, arguments) = (exchange.name.as_str().into(), table(exchange.arguments));
        let declared = self.channel().exchange_declare(name, exchange.kind, options, arguments).await;
        declared.map_err(|source| self.failed(format!("exchange {}", exchange.name), source))
    }

    /// Declares a queue. One that differs from ours only in its [`OVERFLOW`] is accepted as it is.
    async fn declare_queue(&mut self, queue: &Queue) -> Result<(), Error> {
        let mut result = self.try_queue(queue).await;
        if let Err(source) = &result
            && let Some(overflow) = overflow_of_existing(source)
        {
            self.existing.accept(queue, overflow, self.broker);
            self.open().await?;
            result = self.try_queue(queue).await;
        }
        result.map_err(|source| self.failed(format!("queue {}", queue.name), source))
    }

    async fn try_queue(&self, queue: &Queue) -> lapin::Result<()> {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let arguments = self.existing.arguments(queue);
        self.channel().queue_declare(queue.name.as_str().into(), options, arguments).await.map(drop)
    }

    async fn bind(&self, binding: Binding) -> Result<(), Error> {
        let Binding { exchange, queue, routing_key } = binding;
        let bound = self.channel().queue_bind(
            queue.as_str().into(),
            exchange.as_str().into(),
            routing_key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        let failed = |source| self.failed(format!("binding of queue {queue} to exchange {exchange}"), source);
        bound.await.map_err(failed)
    }

    async fn open(&mut self) -> Result<(), Error> {
        let channel = self.connection.create_channel().await;
        let failed =
            |source: lapin::Error| Error::Channel { broker: self.broker.clone(), source: source.into() };
        self.channels.push(channel.map_err(failed)?);
        Ok(())
    }

    fn channel(&self) -> &Channel {
        self.channels.last().expect("one was opened at the beginning")
    }

    fn failed(&self, object: String, source: lapin::Error) -> Error {
        Error::Topology {
            verb: self.verb,
            broker: self.broker.clone(),
            advice: advice(&source, &object),
            object,
            source: source.into(),
        }
    }
}

/// Checks that the exchange exists. If not, the channel is closed.
pub(super) async fn look_for_exchange(channel: &Channel, exchange: &Exchange) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let (name, kind) = (exchange.name.as_str().into(), exchange.kind.clone());
    channel.exchange_declare(name, kind, options, FieldTable::default()).await
}

/// Queries a queue. If it does not exist, the channel is closed.
pub(super) async fn look_for_queue(channel: &Channel, name: &str) -> lapin::Result<lapin::Queue> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, FieldTable::default()).await
}

pub(super) fn table(arguments: Arguments) -> FieldTable {
    table_of(arguments.iter().copied())
}

pub(super) fn table_of<'a>(arguments: impl Iterator<Item = (&'a str, &'a str)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    table
}
