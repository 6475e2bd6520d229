//! The program: [`countersign::cli`] does it all.

use std::process::ExitCode;

/// glibc's allocator keeps what a flood of connections took for as long as the process lives; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    countersign::cli::run()
}
