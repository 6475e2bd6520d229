//! What is fuzzed, by name. Each target takes bytes and panics where a rule is broken.
//!
//! Compiled twice: into the fuzzer, and into the program of the tests, which tries the seeds. So a target that no longer fits
//! the crate does not compile there either.

use arbitrary::{Arbitrary, Unstructured};

mod cipher;
mod config;
mod context;
mod envelope;
mod fingerprint;
mod forwarded;
mod internal;
mod json;
mod ledger;
mod message;
mod outcome;
mod routing_key;

/// Takes one input.
pub(crate) type Target = fn(&[u8]);

/// All of them, with the name that is also that of the folder of their seeds.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("cipher", cipher::run),
    ("config", config::run),
    ("context", context::run),
    ("envelope", envelope::run),
    ("fingerprint", fingerprint::run),
    ("forwarded", forwarded::run),
    ("internal", internal::run),
    ("json", json::run),
    ("ledger", ledger::run),
    ("message", message::run),
    ("outcome", outcome::run),
    ("routing_key", routing_key::run),
];

/// What the bytes of an input mean to a target that takes more than bytes. `None` if there are too few.
fn read<'a, T: Arbitrary<'a>>(data: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(data)).ok()
}
