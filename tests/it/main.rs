//! The whole program against a real RabbitMQ, one file per part of the contract.

mod accept;
mod center;
mod cli;
mod config;
mod console;
mod context;
mod contract;
mod dedupe;
mod formats;
mod harness;
mod layering;
mod logs;
mod refuse;
mod relay;
mod restart;
mod shutdown;
mod support;
