//! `topology print`

use anyhow::Context;
use clap::Subcommand;

use super::{
    exit::{Exit, Failure},
    output::{line, lines},
};
use crate::{
    amqp::{permissions, topology::definitions},
    config::Loaded,
};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  countersign topology print > definitions.json
  countersign topology print --permissions")]
pub(super) enum TopologyCommand {
    /// Print exchanges, queues and bindings as RabbitMQ's definitions JSON
    ///
    /// For `rabbitmqctl import_definitions` or the management API, where the service may not declare them itself
    /// (topology = "check").
    #[command(after_help = "\
Examples:
  countersign topology print > definitions.json && rabbitmqctl import_definitions definitions.json
  countersign topology print --permissions")]
    Print {
        /// Print `rabbitmqctl` commands that grant users the least permissions they need, instead of the definitions
        ///
        /// Three users: countersign, worker and monitoring. Add them first: `rabbitmqctl add_user NAME`. What countersign
        /// needs depends on amqp.topology. `countersign tail` and `send --verify` make a queue of their own, so they need more
        /// than any of these.
        #[arg(long)]
        permissions: bool,
    },
}

pub(super) fn run(command: &TopologyCommand, loaded: &Loaded) -> Result<Exit, Failure> {
    match command {
        TopologyCommand::Print { permissions: true } => {
            for text in permissions(&loaded.amqp()?.broker) {
                line(text)?;
            }
        }
        TopologyCommand::Print { permissions: false } => {
            let definitions = definitions(&loaded.amqp()?.broker);
            lines(&serde_json::to_string_pretty(&definitions).context("the definitions are not JSON")?)?;
            line("")?;
        }
    }
    Ok(Exit::Done)
}
