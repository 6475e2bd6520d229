//! Entry point. See [`countersign::cli`].

use std::process::ExitCode;

/// glibc's allocator never returns the memory of a flood of connections to the system; mimalloc does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    countersign::cli::run()
}
