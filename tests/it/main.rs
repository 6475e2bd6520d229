//! The whole program against a real RabbitMQ, one file per part of the contract.

mod accept;
mod audit;
mod backup;
mod cases;
mod center;
mod check;
mod cli;
mod config;
mod console;
mod context;
mod contract;
mod copy;
mod dedupe;
mod deploy;
mod descriptors;
mod docs;
mod doctor;
mod feedback;
mod formats;
mod fuzz;
mod harness;
mod init;
mod layering;
mod layout;
mod load;
mod logs;
mod manual;
mod orders;
mod pages;
mod paths;
mod poison;
mod probe;
mod refusals;
mod refuse;
mod relay;
mod release;
mod replicas;
mod requeue;
mod restart;
mod rotation;
mod runbook;
mod salvage;
mod search_file;
mod shutdown;
mod signing;
#[expect(
    dead_code,
    unused_imports,
    reason = "shared with the other test programs, which use what this one does not"
)]
mod support;
mod tls;
mod tokens;
mod traces;
