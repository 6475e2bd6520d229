//! Where a value was set.

use std::{fmt, path::Path, sync::Arc};

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The embedded defaults.
    Default,
    /// The configuration file.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line, counted from 1; 0 for the file as a whole.
        line: usize,
    },
    /// This environment variable.
    Environment(String),
    /// `--set` of this key.
    Flag(String),
}

impl Origin {
    /// The layer. Higher layers win.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Environment(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(key) => write!(f, "flag --set {key}"),
        }
    }
}
