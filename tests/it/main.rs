//! The whole program against a real RabbitMQ, one file per part of the contract.

mod harness;
mod support;
