//! How a value of each Rust type is read from YAML or a word of the command line, and written back.

use super::key::Given;
use super::value::{self, Node, Value};
use nn::suggest::hint;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// A type a config key can have.
pub trait Field: Sized {
    /// Reads a value from a file; the error says what was expected and found.
    fn from_yaml(node: &Node) -> Result<Self, String>;

    /// Reads a value from the command line: what it would mean in the file; what is no YAML is text.
    fn from_word(word: &OsStr) -> Result<Self, String> {
        let Some(text) = word.to_str() else {
            return Err(format!("expected text in UTF-8, found \"{}\"", word.display()));
        };
        match value::parse(text) {
            Ok(node) if !matches!(node.value, Value::Null | Value::Map(_)) => Self::from_yaml(&node),
            _ => Self::from_yaml(&Node::text(text)),
        }
    }

    /// The value as YAML, such that `from_yaml` gives it back.
    fn show(&self) -> String;

    /// Reads a value from wherever it was given.
    fn read(given: &Given) -> Result<Self, String> {
        match given {
            Given::Yaml(node) => Self::from_yaml(node),
            Given::Word(word) => Self::from_word(word),
        }
    }
}

fn expected<T>(what: &str, found: &Node) -> Result<T, String> {
    Err(format!("expected {what}, found {}", found.describe()))
}

/// A JSON string is a YAML double-quoted string, but for what YAML wants escaped and JSON does not.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let odd = |c: char| c.is_control() || "\u{2028}\u{2029}\u{feff}\u{fffe}\u{ffff}".contains(c);
    json.chars().map(|c| if odd(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect()
}

impl Field for bool {
    fn from_yaml(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::Bool(value) => Ok(*value),
            _ => expected("true or false", node),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! integer_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn from_yaml(node: &Node) -> Result<Self, String> {
                match &node.value {
                    Value::Int(whole) => <$type>::try_from(*whole)
                        .map_err(|_| format!("expected a whole number from 0 to {}, found {whole}", <$type>::MAX)),
                    _ => expected("a whole number", node),
                }
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
integer_field!(u32, u64);

impl Field for f64 {
    fn from_yaml(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::Float(value) if value.is_finite() => Ok(*value),
            Value::Int(value) => Ok(*value as f64),
            _ => expected("a number", node),
        }
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Field for String {
    fn from_yaml(node: &Node) -> Result<Self, String> {
        match node.as_written() {
            Some(text) => Ok(text.to_owned()),
            None => expected("text (write \"\" for none)", node),
        }
    }
    /// As it stands: a name is no YAML.
    fn from_word(word: &OsStr) -> Result<Self, String> {
        word.to_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("expected UTF-8, found \"{}\"", word.display()))
    }
    fn show(&self) -> String {
        quoted(self)
    }
}

/// Names of files. One that is not Unicode is written as a list: text, and bytes as numbers.
impl Field for OsString {
    fn from_yaml(node: &Node) -> Result<Self, String> {
        let Value::List(parts) = &node.value else { return String::from_yaml(node).map(OsString::from) };
        let mut bytes = Vec::new();
        for part in parts {
            match &part.value {
                Value::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Value::Int(byte) if (0..256).contains(byte) => bytes.push(*byte as u8),
                _ => return expected("text, or a list of text and bytes", part),
            }
        }
        from_bytes(bytes)
    }
    fn from_word(word: &OsStr) -> Result<Self, String> {
        Ok(word.to_owned())
    }
    fn show(&self) -> String {
        if let Some(text) = self.to_str() {
            return quoted(text);
        }
        let mut parts = Vec::new();
        for chunk in self.as_encoded_bytes().utf8_chunks() {
            parts.extend((!chunk.valid().is_empty()).then(|| quoted(chunk.valid())));
            parts.extend(chunk.invalid().iter().map(|byte| format!("{byte:#x}")));
        }
        format!("[{}]", parts.join(", "))
    }
}

#[cfg(unix)]
fn from_bytes(bytes: Vec<u8>) -> Result<OsString, String> {
    Ok(std::os::unix::ffi::OsStringExt::from_vec(bytes))
}
#[cfg(not(unix))]
fn from_bytes(bytes: Vec<u8>) -> Result<OsString, String> {
    let text = String::from_utf8(bytes);
    text.map(OsString::from).map_err(|_| "this name is not Unicode, which only Unix allows".into())
}

impl Field for PathBuf {
    fn from_yaml(node: &Node) -> Result<Self, String> {
        OsString::from_yaml(node).map(PathBuf::from)
    }
    fn from_word(word: &OsStr) -> Result<Self, String> {
        Ok(word.into())
    }
    fn show(&self) -> String {
        self.as_os_str().to_owned().show()
    }
}

impl<T: Field> Field for Vec<T> {
    fn from_yaml(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::List(items) => {
                let each = items.iter().enumerate();
                each.map(|(i, item)| T::from_yaml(item).map_err(|why| format!("item {}: {why}", i + 1)))
                    .collect()
            }
            // A bare list on the command line needs no quotes: 12,15,18; Python writes (12, 15, 18).
            Value::Text(text) if text.contains(',') => {
                let inside = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(text);
                match value::parse(&format!("[{inside}]")) {
                    Ok(list) => Self::from_yaml(&list),
                    Err(_) => expected("a list such as [150, 180, 210]", node),
                }
            }
            Value::Int(_) | Value::Float(_) => Ok(vec![T::from_yaml(node)?]),
            _ => expected("a list such as [150, 180, 210]", node),
        }
    }
    fn show(&self) -> String {
        let items: Vec<String> = self.iter().map(Field::show).collect();
        format!("[{}]", items.join(", "))
    }
}

/// A type whose values are a few names.
pub trait Choice: Sized + 'static {
    /// What a value is called in messages.
    const WHAT: &'static str;
    /// Every name, in the order shown to users.
    fn names() -> Vec<&'static str>;
    /// The value of that name, in any letter case.
    fn from_name(name: &str) -> Option<Self>;
    /// The value's name.
    fn name(&self) -> &'static str;

    /// [`Choice::from_name`], with an error that says what there is.
    fn named(name: &str) -> Result<Self, String> {
        Self::from_name(name)
            .ok_or_else(|| format!("there is no {} \"{name}\"{}", Self::WHAT, hint(name, Self::names())))
    }
}

impl<T: Choice> Field for T {
    fn from_yaml(node: &Node) -> Result<Self, String> {
        Self::named(&String::from_yaml(node)?)
    }
    fn show(&self) -> String {
        quoted(self.name())
    }
}
