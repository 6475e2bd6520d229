//! What can go wrong, one named test each, and always the same question: is what was answered 200 exactly what can be
//! found again ([`oracle::Oracle`])? The figures go to standard error whether or not a test fails.

#[expect(dead_code, unused_imports, reason = "shared with the tests in `it`, which use all of it")]
#[path = "../it/support/mod.rs"]
mod support;

mod amqps;
mod broker;
mod calm;
mod cluster;
mod disk;
mod edge;
mod edge_tls;
mod files;
mod kill;
mod life;
/// The oracle, shared with other test programs by its path.
mod oracle;
mod outages;
mod permissions;
mod power;
mod replicas;
mod rogue;
mod shim;
mod topology;
/// Between the program and a real broker.
mod wire;

/// Says something on standard error, past the harness.
fn say(words: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{words}").expect("standard error is open");
}
