//! The format `pattern`: a regular expression whose named groups are the ids.

use regex::Regex;

use super::is_id;
use crate::command::{ResolvedBy, TaskRef};

/// The allowed group names.
pub const GROUPS: [&str; 4] = ["instance_id", "task_id", "round", "business_key"];

/// The text that a pattern is matched against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Over {
    /// The context.
    #[default]
    ActionContext,
    /// The callback's `instance_id`, for systems that encode everything in it.
    InstanceId,
}

/// A checked pattern. It must match the whole text: a partial match belongs to another format.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    over: Over,
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is not a valid regular expression.
    #[error("is no regular expression: {0}")]
    Syntax(String),
    /// A group has an unknown name.
    #[error("has a group named `{0}`; groups may be named instance_id, task_id, round, business_key")]
    UnknownGroup(String),
    /// It names no task.
    #[error("has no group named task_id or instance_id")]
    NoId,
}

impl Pattern {
    /// Checks and compiles a pattern in the syntax of the crate `regex`, which matches in linear time.
    ///
    /// # Errors
    /// See [`PatternError`].
    pub fn new(pattern: &str, over: Over) -> Result<Self, PatternError> {
        // Checked without anchors first, so that a stray parenthesis cannot escape them.
        let syntax = |error: regex::Error| PatternError::Syntax(error.to_string());
        Regex::new(pattern).map_err(syntax)?;
        let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(syntax)?;
        let names: Vec<&str> = regex.capture_names().flatten().collect();
        if let Some(unknown) = names.iter().find(|name| !GROUPS.contains(name)) {
            return Err(PatternError::UnknownGroup((*unknown).to_owned()));
        }
        if !names.contains(&"task_id") && !names.contains(&"instance_id") {
            return Err(PatternError::NoId);
        }
        Ok(Self { regex, over })
    }

    /// Fits a matching text with a non-empty task id or instance id.
    pub(super) fn fit(&self, action_context: Option<&str>, instance_id: Option<&str>) -> Option<TaskRef> {
        let text = match self.over {
            Over::ActionContext => action_context?,
            Over::InstanceId => instance_id?,
        };
        let found = self.regex.captures(text)?;
        let group = |name| match found.name(name).map(|group| group.as_str()) {
            Some(id) if !is_id(id) => None,
            None => Some(None),
            Some(id) if id.trim().is_empty() => Some(None),
            Some(id) => Some(Some(id.to_owned())),
        };
        let task = TaskRef {
            instance_id: group("instance_id")?,
            task_id: group("task_id")?,
            round: group("round")?,
            business_key: group("business_key")?,
            resolved_by: Some(ResolvedBy::Pattern),
            data: None,
        };
        (task.instance_id.is_some() || task.task_id.is_some()).then_some(task)
    }

    pub(super) fn has_round(&self) -> bool {
        self.regex.capture_names().flatten().any(|name| name == "round")
    }

    pub(super) fn over(&self) -> Over {
        self.over
    }
}
