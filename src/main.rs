//! The program: [`countersign::cli`] does it all.

use std::process::ExitCode;

fn main() -> ExitCode {
    countersign::cli::run()
}
