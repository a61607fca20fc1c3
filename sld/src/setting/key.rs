//! A key, a value given for it, and a struct of keys.

use super::value::Node;
use std::ffi::OsString;

/// A config key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The full name, sections joined by dots.
    pub path: &'static str,
    help: &'static str,
}

impl Key {
    #[doc(hidden)]
    pub const fn new(path: &'static str, help: &'static str) -> Self {
        Self { path, help }
    }

    /// What it means, in a sentence or two.
    pub fn help(&self) -> &'static str {
        self.help.trim_start()
    }
}

/// A value that somebody gave for a key.
#[derive(Debug, Clone)]
pub enum Given {
    /// In a file: a YAML node.
    Yaml(Node),
    /// On the command line: names and paths are taken as they stand, everything else as YAML.
    Word(OsString),
}

/// A struct whose fields are config keys.
pub trait Settings {
    /// Its keys, in the order they are printed.
    fn keys(&self) -> &'static [Key];
    /// Reads, checks and keeps a value; `None` if the key is not one of these. The error says what was
    /// expected and found.
    fn set(&mut self, path: &str, given: &Given) -> Option<Result<(), String>>;
    /// The value as YAML, such that [`Settings::set`] gives it back; `None` if the key is not one of these.
    fn get(&self, path: &str) -> Option<String>;

    /// Every key with its value as YAML.
    fn values(&self) -> Vec<(&'static str, String)> {
        self.keys().iter().filter_map(|key| Some((key.path, self.get(key.path)?))).collect()
    }
}
