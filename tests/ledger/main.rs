//! The ledgers on real disks and servers, through the doors that the rest of the program uses.

mod conformance;
mod leadership;
mod model;
#[path = "../it/support/postgres.rs"]
mod postgres;
mod scratch;
mod turns;
mod versions;
