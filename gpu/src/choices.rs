//! Which of the ways to compute it each kernel takes, as it is kept in files.

use std::collections::BTreeMap;

use autograd::{Error, Result};
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use shaders::{Assembled, Choice};

/// Choices by the kernel's name, `name`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Choices {
    /// Of each kernel that can be computed in several ways.
    pub kernels: BTreeMap<String, Chosen>,
}

/// How a kernel is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// The kernel in words.
    pub label: String,
    /// The way that was chosen; nothing for the one that is taken without measuring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// What was measured, if that is where the choice came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// Microseconds on the device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// By the way that is taken without measuring.
    pub fixed: f64,
    /// By the fastest way.
    pub best: f64,
    /// Ways that were measured.
    pub ways: usize,
}

impl Choices {
    /// Reads what [`text`](Choices::text) wrote.
    ///
    /// # Errors
    /// [`Error::Device`] for anything else.
    pub fn parse(text: &str) -> Result<Choices> {
        serde_json::from_str(text).map_err(|why| Error::Device(format!("no choices of kernels: {why}")))
    }

    /// As JSON.
    pub fn text(&self) -> String {
        // Maps with names as keys and numbers cannot fail to be written.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// What a kernel is known by: a checksum of what runs without measuring and of the ways that there are. So another
/// version of a kernel, or one with more ways, is another kernel, and what was measured for the former is not taken for it.
pub fn name(fixed: &Assembled, ways: &[Choice]) -> String {
    let mut sum = Md5::new();
    for launch in &fixed.launches {
        sum.update(launch.source.as_bytes());
        sum.update(launch.count.to_le_bytes());
    }
    ways.iter().for_each(|way| sum.update(way.to_string()));
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
