//! Reading a config: the file, then the command line, then the checks across keys.

use super::error::{ConfigError, Origin};
use super::keys::{Config, keys};
use super::{file, validate};
use crate::setting::{self, Given, Key, Node, Position, Settings, Value};
use nn::suggest::{hint, nearest};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The key that chooses the method, and with it which other keys there are.
const METHOD: &str = "DISTILLER.TYPE";

/// What the command line sets: `KEY VALUE` pairs and options that stand for one, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(Vec<Override>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Override {
    key: String,
    value: OsString,
    /// As it was typed: `SOLVER.LR 0.1`, `--seed 1`.
    argument: String,
}

impl Overrides {
    /// Pairs up the words after the options: `SOLVER.LR 0.1 SOLVER.EPOCHS 20`.
    ///
    /// # Errors
    /// When a key has no value.
    pub fn from_words(words: &[impl AsRef<OsStr>]) -> Result<Self, ConfigError> {
        let (pairs, rest) = words.as_chunks::<2>();
        if let [lone] = rest {
            let place = Origin::CommandLine { argument: lone.as_ref().display().to_string() };
            return Err(ConfigError::new(place, "overrides come in pairs, KEY VALUE; this key has no value"));
        }
        let mut all = Self::default();
        for [key, value] in pairs {
            all.push(&key.as_ref().to_string_lossy(), value);
        }
        Ok(all)
    }

    /// Adds a pair.
    pub fn push(&mut self, key: &str, value: impl AsRef<OsStr>) {
        self.option(key, key, value);
    }

    /// Adds the pair that an option such as `--seed` stands for.
    pub fn option(&mut self, option: &str, key: &str, value: impl AsRef<OsStr>) {
        let value = value.as_ref().to_owned();
        self.0.push(Override { key: key.into(), argument: format!("{option} {}", value.display()), value });
    }

    /// The keys that are set, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|one| one.key.as_str())
    }

    /// Those whose key is wanted.
    pub fn only(mut self, wanted: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|one| wanted(&one.key));
        self
    }

    /// Adds others after these.
    pub fn extend(&mut self, others: Overrides) {
        self.0.extend(others.0);
    }

    /// Whether the key is set.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|one| one.key == key)
    }
}

impl Config {
    /// Reads a config file and puts the overrides on top. A key without effect is a warning where the file has
    /// it and an error where the command line has it.
    ///
    /// # Errors
    /// A file that cannot be read; YAML that does not parse; an unknown key; a value of the wrong
    /// type or out of range; values that contradict each other. The error tells file, line, column.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::parse(&file::read(path)?, path, overrides)
    }

    /// As [`Config::load`], from text; `path` is only for messages.
    pub fn parse(text: &str, path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let place = |at: Option<Position>| Origin::file(path.to_owned(), text, at);
        let root = setting::parse(text).map_err(|why| ConfigError::new(place(why.at), why.message))?;
        let mut loader = Loader::default();
        match root.value {
            Value::Map(entries) => loader.section("", entries, &place),
            Value::Null => {}
            _ => {
                let why = format!("a config is sections of keys such as SOLVER, found {}", root.describe());
                return Err(ConfigError::new(place(Some(root.at)), why));
            }
        }
        loader.finish(overrides)
    }

    /// The defaults with overrides on top: a config without a file.
    pub fn from_overrides(overrides: &Overrides) -> Result<Self, ConfigError> {
        Loader::default().finish(overrides)
    }

    /// Sets a key that these settings have.
    fn set(&mut self, path: &str, given: &Given) -> Option<Result<(), String>> {
        let Config { experiment, dataset, distiller, solver, log, model, .. } = self;
        let general: [&mut dyn Settings; 6] = [experiment, dataset, distiller, solver, log, model];
        let set = general.into_iter().find_map(|group| group.set(path, given));
        set.or_else(|| self.distiller.method.set(path, given))
    }
}

/// What was given, in order: the file's, then the command line's.
#[derive(Default)]
struct Loader {
    given: Vec<(String, Given, Origin)>,
}

impl Loader {
    /// Takes the keys of a section apart. What is no key and no section is kept for its error.
    fn section(
        &mut self,
        prefix: &str,
        entries: Vec<(String, Position, Node)>,
        place: &dyn Fn(Option<Position>) -> Origin,
    ) {
        for (name, at, node) in entries {
            let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match node.value {
                Value::Map(entries) if is_section(&path) => self.section(&path, entries, place),
                Value::Null if is_section(&path) => {}
                _ => {
                    let at = if find(&path).is_some() || is_section(&path) { node.at } else { at };
                    self.given.push((path, Given::Yaml(node), place(Some(at))));
                }
            }
        }
    }

    fn finish(mut self, overrides: &Overrides) -> Result<Config, ConfigError> {
        self.given.extend(overrides.0.iter().map(|one| {
            let place = Origin::CommandLine { argument: one.argument.clone() };
            (one.key.clone(), Given::Word(one.value.clone()), place)
        }));
        let mut config = Config::default();
        // The method first: it decides which keys are read.
        let method = self.given.iter().rev().find(|(path, ..)| path == METHOD);
        let others = self.given.iter().filter(|(path, ..)| path != METHOD);
        let mut places = HashMap::new();
        let mut unread = Vec::new();
        for (path, given, place) in method.into_iter().chain(others) {
            let fail = |why| ConfigError::new(place.clone(), why);
            let Some(key) = find(path) else { return Err(fail(unknown_key(path, given))) };
            match config.set(path, given) {
                Some(set) => set.map_err(|why| fail(format!("{path}: {why}")))?,
                // Another method's: its value must be right all the same.
                None => check_elsewhere(path, given).map_err(|why| fail(format!("{path}: {why}")))?,
            }
            places.insert(key.path, place);
            unread.push((key.path, place));
        }
        for (path, place) in unread {
            let Some(why) = validate::without_effect(&config, path) else { continue };
            let told = ConfigError::new(place.clone(), why);
            match place {
                Origin::CommandLine { .. } => return Err(told),
                _ => config.warnings.push(told),
            }
        }
        validate::check(&config).map_err(|(path, why)| {
            let place = places.get(path).map_or(Origin::Default, |place| (*place).clone());
            ConfigError::new(place, format!("{path}: {why}"))
        })?;
        Ok(config)
    }
}

/// Whether a value would do for the methods that have the key.
fn check_elsewhere(path: &str, given: &Given) -> Result<(), String> {
    crate::distill::METHODS.iter().find_map(|method| method.make().set(path, given)).unwrap_or(Ok(()))
}

/// The key of that full name, in the exact letter case.
fn find(path: &str) -> Option<&'static Key> {
    keys().into_iter().find(|key| key.path == path)
}

fn is_section(path: &str) -> bool {
    keys().iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// "X is not a config key" with the likeliest remedy: the key meant, or what the section has.
fn unknown_key(path: &str, given: &Given) -> String {
    let all: Vec<&str> = keys().iter().map(|key| key.path).collect();
    let in_section = |section: &str| {
        let inside = |key: &&&str| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
        all.iter().filter(inside).copied().collect::<Vec<_>>()
    };
    if is_section(path) {
        return match given {
            Given::Yaml(node) => {
                let glued = matches!(&node.value, Value::Text(text) if text.contains(':'));
                let remedy = if glued { "; a colon needs a space behind it, KEY: value" } else { "" };
                format!("{path} is a section of keys, found {}{remedy}", node.describe())
            }
            Given::Word(_) => {
                format!("{path} is a section, not a key; its keys are {}", in_section(path).join(", "))
            }
        };
    }
    let said = format!("{path} is not a config key");
    let siblings = path.rsplit_once('.').map_or(Vec::new(), |(section, _)| in_section(section));
    if let Some(near) = nearest(path, siblings.iter().copied()) {
        return format!("{said}; did you mean {near}?");
    }
    if !siblings.is_empty() {
        return format!("{said}; the section has {}", siblings.join(", "));
    }
    // A key given without its section, or one in the wrong section.
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_ascii_lowercase();
    if let Some(key) = all.iter().find(|key| last(key) == last(path)) {
        return format!("{said}; did you mean {key}?");
    }
    if let Some(near) = nearest(path, all.iter().copied()) {
        return format!("{said}; did you mean {near}?");
    }
    let mut sections: Vec<&str> = all.iter().filter_map(|key| Some(key.split_once('.')?.0)).collect();
    sections.dedup();
    format!("{said}{}", hint(path.split('.').next().unwrap_or(path), sections))
}
