//! The service from the view of an attacker without credentials, with a captured callback, or with a place on the
//! wire. Each file is an attack; each test says what the attacker gets.
//!
//! CBC without a MAC leaves attacks to those who hold a genuine ciphertext. They are not fixed here, because the
//! platform prescribes the cipher. [`cbc`] measures them, and the operator is informed what helps against them.

#[expect(dead_code, unused_imports, reason = "shared with the tests in `it`, which use all of it")]
#[path = "../it/support/mod.rs"]
mod support;

mod bombs;
mod cbc;
mod floor;
mod internal;
mod leaks;
mod memory;
mod padding;
mod peers;
mod secrets;
mod statistics;
mod strangers;
mod wire;
