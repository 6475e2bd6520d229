//! The fuzzer: libFuzzer round the target that FUZZ_TARGET names. One program for all, because most of what it takes to make
//! one is the same for each. See deploy/suites/fuzz.
#![no_main]

mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use targets::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    found.unwrap_or_else(|| panic!("FUZZ_TARGET is {wanted:?}; it may be one of {names:?}")).1
});

fuzz_target!(|data: &[u8]| (*TARGET)(data));
