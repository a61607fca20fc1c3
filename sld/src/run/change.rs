//! What changed in a run on its way.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A setting that a run went on with other than it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The first epoch with the new value.
    pub epoch: u32,
    /// The config key, or `--precision`.
    pub key: String,
    /// Its values, as the config shows them.
    pub from: String,
    /// The value since.
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} until epoch {}, then {}", self.key, self.from, self.epoch.saturating_sub(1), self.to)
    }
}
