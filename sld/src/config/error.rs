//! What is wrong with a config, and where.

use crate::setting::Position;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A config file.
    File {
        /// The file.
        path: PathBuf,
        /// Where in it; nothing for what concerns the whole file.
        position: Option<Position>,
        /// The text of that line, for the message.
        line: String,
    },
    /// A `KEY VALUE` pair or an option.
    CommandLine {
        /// The key or option with its value.
        argument: String,
    },
}

impl Origin {
    pub(super) fn file(path: PathBuf, text: &str, position: Option<Position>) -> Self {
        let line = position
            .and_then(|at| text.lines().nth((at.line as usize).checked_sub(1)?))
            .unwrap_or_default()
            .trim_end()
            .to_owned();
        Self::File { path, position, line }
    }
}

/// An error in a config: place, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// What to look at.
    pub place: Origin,
    /// What is wrong there, and what to do.
    pub message: String,
}

impl ConfigError {
    pub(super) fn new(place: Origin, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Origin::Default => f.write_str(&self.message),
            Origin::CommandLine { argument } => write!(f, "command line, `{argument}`: {}", self.message),
            Origin::File { path, position: None, .. } => write!(f, "{}: {}", path.display(), self.message),
            Origin::File { path, position: Some(at), line } => {
                write!(f, "{}:{}:{}: {}", path.display(), at.line, at.column, self.message)?;
                if !line.is_empty() {
                    let number = at.line.to_string();
                    let gutter = " ".repeat(number.len());
                    let indent = " ".repeat((at.column as usize).saturating_sub(1));
                    write!(f, "\n  {number} | {line}\n  {gutter} | {indent}^")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {}
