//! The ledgers on real disks and servers, through the doors that the rest of the program uses.

mod conformance;
mod model;
mod scratch;
