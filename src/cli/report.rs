//! Reports the failure of a command.

use super::{
    exit::{Exit, Failure},
    output::say,
};
use crate::telemetry::log::chain;

pub(super) fn report(failure: Failure) -> Exit {
    match failure {
        Failure::Configuration(faults) => {
            for fault in &faults.0 {
                say(fault);
            }
            say(format_args!("countersign: {faults}"));
            Exit::Usage
        }
        Failure::Usage(problem) => {
            say(format_args!("countersign: {problem}"));
            Exit::Usage
        }
        Failure::Failed(error) => {
            say(format_args!("countersign: {}", chain(error.as_ref())));
            Exit::Failed
        }
        Failure::Unavailable(error) => {
            say(format_args!("countersign: {}", chain(error.as_ref())));
            Exit::Unavailable
        }
        Failure::Said(exit) => exit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Faults;

    #[test]
    fn each_failure_has_its_exit_code() {
        assert_eq!(report(Failure::Configuration(Faults(Vec::new()))), Exit::Usage);
        assert_eq!(report(Failure::Usage(String::new())), Exit::Usage);
        assert_eq!(report(Failure::Failed(anyhow::anyhow!("x"))), Exit::Failed);
        assert_eq!(report(Failure::Unavailable(anyhow::anyhow!("x"))), Exit::Unavailable);
    }
}
