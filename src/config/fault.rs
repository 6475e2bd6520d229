//! Errors and warnings about a configuration.

use std::fmt;

use super::origin::Origin;

/// One error. All errors are reported at once.
///
/// `Display` is one line without secrets: origin, key, problem, expected value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, as in `endpoints[0].credentials[1].action_callback_key`; empty for the file as a whole.
    pub key: String,
    /// The problem.
    pub problem: String,
    /// A valid value; empty if the problem states it.
    pub expected: String,
    /// Where the value was set; `None` if it is unset.
    pub origin: Option<Origin>,
}

/// A legal value or combination that is probably a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The key to change; empty for the file as a whole.
    pub key: String,
    /// The possible consequence.
    pub problem: String,
    /// Where the value was set.
    pub origin: Option<Origin>,
}

/// All faults found: at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {} {}", .0.len(), if .0.len() == 1 { "fault" } else { "faults" })]
pub struct Faults(pub Vec<Fault>);

impl Fault {
    /// The key; `None` for the file as a whole.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        Some(&*self.key).filter(|key| !key.is_empty())
    }
}

impl Warning {
    /// The key; `None` for the file as a whole.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        Some(&*self.key).filter(|key| !key.is_empty())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, self.origin.as_ref(), &self.key, &self.problem)?;
        if self.expected.is_empty() { Ok(()) } else { write!(f, "; expected {}", self.expected) }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, self.origin.as_ref(), &self.key, &self.problem)
    }
}

fn line(f: &mut fmt::Formatter<'_>, origin: Option<&Origin>, key: &str, problem: &str) -> fmt::Result {
    if let Some(origin) = origin {
        write!(f, "{origin}: ")?;
    }
    if key.is_empty() { f.write_str(problem) } else { write!(f, "{key}: {problem}") }
}

/// The one of `known` that `word` probably misspells.
pub(super) fn probably<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_another_word_is_not() {
        let known = ["listen", "max_body_bytes", "workers"];
        assert_eq!(probably("listen", known), Some("listen"));
        assert_eq!(probably("listn", known), Some("listen"));
        assert_eq!(probably("max_body_byte", known), Some("max_body_bytes"));
        assert_eq!(probably("token", known), None);
    }

    #[test]
    fn a_fault_is_one_line_with_origin_key_problem_and_what_is_expected() {
        let mut fault = Fault {
            key: "http.listen".to_owned(),
            problem: "\"x\" is not an address".to_owned(),
            expected: "IP:port".to_owned(),
            origin: Some(Origin::Environment("COUNTERSIGN__HTTP__LISTEN".to_owned())),
        };
        assert_eq!(
            fault.to_string(),
            "environment COUNTERSIGN__HTTP__LISTEN: http.listen: \"x\" is not an address; expected IP:port"
        );
        fault.origin = None;
        fault.expected.clear();
        assert_eq!(fault.to_string(), "http.listen: \"x\" is not an address");
    }
}
