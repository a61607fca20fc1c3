//! Reading a config: the file, then the command line, then the checks across keys.

use super::error::{ConfigError, Place, hint, nearest};
use super::keys::{self, KEYS, Key};
use super::node::{self, Node, Position, Value};
use super::{Config, validate};
use std::collections::HashMap;
use std::path::Path;

/// `KEY VALUE` pairs of the command line, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(pub Vec<(String, String)>);

impl Overrides {
    /// Pairs up the words after the options: `SOLVER.LR 0.1 SOLVER.EPOCHS 20`.
    ///
    /// # Errors
    /// When a key has no value.
    pub fn from_words(words: &[String]) -> Result<Self, ConfigError> {
        let (pairs, rest) = words.as_chunks::<2>();
        if let [lone] = rest {
            let place = Place::CommandLine { argument: lone.clone() };
            return Err(ConfigError::new(place, "overrides come in pairs, KEY VALUE; this key has no value"));
        }
        Ok(Self(pairs.iter().map(|[key, value]| (key.clone(), value.clone())).collect()))
    }

    /// Adds a pair that an option such as `--seed` stands for.
    pub fn push(&mut self, key: &str, value: impl ToString) {
        self.0.push((key.to_owned(), value.to_string()));
    }
}

impl Config {
    /// Reads a config file and puts the overrides on top.
    ///
    /// # Errors
    /// A file that cannot be read; YAML that does not parse; an unknown key; a value of the wrong
    /// type or out of range; values that contradict each other. The error tells file, line, column.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|why| {
            let place = Place::file(path.to_owned(), "", None);
            ConfigError::new(place, format!("cannot read the config: {why}"))
        })?;
        Self::parse(&text, path, overrides)
    }

    /// As [`Config::load`], from text; `path` is only for messages.
    pub fn parse(text: &str, path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut loader = Loader { config: Config::default(), places: HashMap::new() };
        let place = |at: Option<Position>| Place::file(path.to_owned(), text, at);
        let root = node::parse(text).map_err(|why| {
            let at = why.location().map(|at| Position { line: at.line(), column: at.column() });
            let why = why.without_snippet().to_string();
            ConfigError::new(
                place(at),
                format!("this is not valid YAML: {}", why.lines().next().unwrap_or("")),
            )
        })?;
        match root.value {
            Value::Map(entries) => loader.section("", &entries, &place)?,
            Value::Null => {}
            other => {
                let why = format!("a config is sections of keys such as SOLVER, found {}", other.describe());
                return Err(ConfigError::new(place(Some(root.at)), why));
            }
        }
        loader.finish(overrides)
    }

    /// The defaults with overrides on top: a config without a file.
    pub fn from_overrides(overrides: &Overrides) -> Result<Self, ConfigError> {
        Loader { config: Config::default(), places: HashMap::new() }.finish(overrides)
    }
}

/// A config on its way, with the place each value was set at.
struct Loader {
    config: Config,
    places: HashMap<&'static str, Place>,
}

impl Loader {
    fn section(
        &mut self,
        prefix: &str,
        entries: &[(String, Position, Node)],
        place: &dyn Fn(Option<Position>) -> Place,
    ) -> Result<(), ConfigError> {
        for (name, at, node) in entries {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match (keys::find(&path), &node.value) {
                (Some(key), _) => self.set(key, &node.value, place(Some(node.at)))?,
                (None, Value::Map(entries)) if is_section(&path) => self.section(&path, entries, place)?,
                (None, Value::Null) if is_section(&path) => {}
                (None, other) if is_section(&path) => {
                    let why = format!("{path} is a section of keys, found {}", other.describe());
                    return Err(ConfigError::new(place(Some(node.at)), why));
                }
                (None, _) => return Err(ConfigError::new(place(Some(*at)), unknown_key(&path))),
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &'static Key, value: &Value, place: Place) -> Result<(), ConfigError> {
        (key.set)(&mut self.config, value)
            .map_err(|why| ConfigError::new(place.clone(), format!("{}: {why}", key.path)))?;
        self.places.insert(key.path, place);
        Ok(())
    }

    fn finish(mut self, overrides: &Overrides) -> Result<Config, ConfigError> {
        for (path, text) in &overrides.0 {
            let place = Place::CommandLine { argument: format!("{path} {text}") };
            let key = keys::find(path).ok_or_else(|| ConfigError::new(place.clone(), unknown_key(path)))?;
            self.set(key, &override_value(text), place)?;
        }
        validate::check(&self.config).map_err(|(path, why)| {
            let place = self.places.get(path).cloned().unwrap_or(Place::Default);
            ConfigError::new(place, format!("{path}: {why}"))
        })?;
        Ok(self.config)
    }
}

/// A command line value means what it would mean in the file; what is no YAML is text.
fn override_value(text: &str) -> Value {
    match node::parse(text) {
        Ok(Node { value: Value::Null | Value::Map(_), .. }) | Err(_) => Value::Text(text.to_owned()),
        Ok(node) => node.value,
    }
}

fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// "X is not a config key" with the likeliest remedy: the key meant, or what the section has.
fn unknown_key(path: &str) -> String {
    let keys = || KEYS.iter().map(|key| key.path);
    if is_section(path) {
        let inside: Vec<&str> = keys().filter(|key| key.starts_with(&format!("{path}."))).collect();
        return format!("{path} is a section, not a key; its keys are {}", inside.join(", "));
    }
    let section = path.rsplit_once('.').map(|(section, _)| section);
    let siblings = || {
        let same =
            |key: &&str| section.is_some_and(|s| key.strip_prefix(s).is_some_and(|r| r.starts_with('.')));
        keys().filter(same)
    };
    let sections = || {
        let mut names: Vec<&str> =
            keys().filter_map(|key| key.split_once('.')).map(|(name, _)| name).collect();
        names.dedup();
        names
    };
    let said = format!("{path} is not a config key");
    if let Some(near) = nearest(path, siblings()) {
        return format!("{said}; did you mean {near}?");
    }
    if siblings().next().is_some() {
        let inside: Vec<&str> = siblings().collect();
        return format!("{said}; the section has {}", inside.join(", "));
    }
    // A key given without its section, or one in the wrong section.
    let last = path.rsplit('.').next().unwrap_or(path);
    if let Some(key) = keys().find(|key| key.rsplit('.').next().is_some_and(|l| l.eq_ignore_ascii_case(last)))
    {
        return format!("{said}; did you mean {key}?");
    }
    match path.contains('.').then(|| nearest(path, keys())).flatten() {
        Some(near) => format!("{said}; did you mean {near}?"),
        None => format!("{said}{}", hint(path.split('.').next().unwrap_or(path), sections())),
    }
}
