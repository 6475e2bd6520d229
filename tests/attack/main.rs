//! The service as somebody meets it who wants in: no credentials, or a captured callback, or a place on the wire. Each
//! file is an attack; each test says what the attacker gets.
//!
//! What CBC without a MAC leaves to whoever holds a genuine ciphertext is not mended here, because the platform
//! prescribes the cipher. It is measured, in [`cbc`], and the operator is told what helps against it.

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
