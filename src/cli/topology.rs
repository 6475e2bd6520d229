//! `topology print`

use clap::Subcommand;

use super::exit::{Exit, Failure};
use crate::config::Loaded;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print exchanges, queues and bindings as RabbitMQ's definitions JSON
    ///
    /// For `rabbitmqctl import_definitions` or the management API, where the service may not declare them itself
    /// (topology = "check").
    Print,
}

pub(super) fn run(command: &Command, loaded: &Loaded) -> Result<Exit, Failure> {
    match command {
        Command::Print => print(loaded.amqp()?),
    }
}

fn print(_amqp: &crate::config::Amqp) -> Result<Exit, Failure> {
    Err(anyhow::anyhow!("being wired").into())
}
