//! `topology print`

use anyhow::Context;
use clap::Subcommand;

use super::{
    exit::{Exit, Failure},
    output::line,
};
use crate::{config::Loaded, relay::amqp::topology::definitions};

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
        Command::Print => {
            let definitions = definitions(&loaded.amqp()?.broker);
            line(serde_json::to_string_pretty(&definitions).context("the definitions are not JSON")?)?;
            Ok(Exit::Done)
        }
    }
}
