//! The ledgers on real disks and servers, through the doors that the rest of the program uses.

mod conformance;
mod failover;
mod leadership;
mod model;
mod plans;
mod pruning;
mod scratch;
#[expect(dead_code, unused_imports, reason = "shared with the tests in `it`, which use all of it")]
#[path = "../it/support/mod.rs"]
mod support;
mod turns;
mod versions;
