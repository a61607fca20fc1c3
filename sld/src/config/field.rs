//! How a value of each Rust type is read from YAML and written back.

use super::choice::{DatasetKind, DistillerKind, TrainerKind};
use super::error::hint;
use super::node::{Node, Value};

/// A type a config key can have.
pub trait Field: Sized {
    /// Reads the value; the error says what was expected and found.
    fn read(value: &Value) -> Result<Self, String>;
    /// The value as YAML, such that `read` gives it back.
    fn show(&self) -> String;
}

fn expected<T>(what: &str, found: &Value) -> Result<T, String> {
    Err(format!("expected {what}, found {}", found.describe()))
}

impl Field for bool {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(value) => Ok(*value),
            other => expected("true or false", other),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! integer_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn read(value: &Value) -> Result<Self, String> {
                match value {
                    Value::Int(whole) => <$type>::try_from(*whole)
                        .map_err(|_| format!("expected a whole number from 0 to {}, found {whole}", <$type>::MAX)),
                    other => expected("a whole number", other),
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
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Float(value) if value.is_finite() => Ok(*value),
            Value::Int(value) => Ok(*value as f64),
            other => expected("a number", other),
        }
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Field for String {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => Ok(text.clone()),
            // A name such as 7 or true is text where text is asked for.
            Value::Int(value) => Ok(value.to_string()),
            Value::Float(value) => Ok(value.to_string()),
            Value::Bool(value) => Ok(value.to_string()),
            other => expected("text (write \"\" for none)", other),
        }
    }
    fn show(&self) -> String {
        // A JSON string is a YAML double-quoted string.
        serde_json::Value::from(self.as_str()).to_string()
    }
}

macro_rules! list_field {
    ($($type:ty),*) => {$(
        impl Field for Vec<$type> {
            fn read(value: &Value) -> Result<Self, String> {
                match value {
                    Value::List(items) => read_items(items),
                    // A bare list on the command line needs no quotes: 12,15,18.
                    Value::Text(text) if text.contains(',') => match super::node::parse(&format!("[{text}]")) {
                        Ok(Node { value: Value::List(items), .. }) => read_items(&items),
                        _ => expected("a list such as [150, 180, 210]", value),
                    },
                    Value::Int(_) | Value::Float(_) => Ok(vec![Field::read(value)?]),
                    other => expected("a list such as [150, 180, 210]", other),
                }
            }
            fn show(&self) -> String {
                let items: Vec<String> = self.iter().map(Field::show).collect();
                format!("[{}]", items.join(", "))
            }
        }
    )*};
}
list_field!(u32, f64);

fn read_items<T: Field>(items: &[Node]) -> Result<Vec<T>, String> {
    let each = items.iter().enumerate();
    each.map(|(i, item)| T::read(&item.value).map_err(|why| format!("item {}: {why}", i + 1))).collect()
}

macro_rules! choice_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn read(value: &Value) -> Result<Self, String> {
                let text = String::read(value)?;
                let names = <$type>::ALL.iter().map(|value| value.name());
                <$type>::from_name(&text)
                    .ok_or_else(|| format!("there is no {} \"{text}\"{}", <$type>::WHAT, hint(&text, names)))
            }
            fn show(&self) -> String {
                self.name().show()
            }
        }
    )*};
}
choice_field!(TrainerKind, DatasetKind);

impl Field for DistillerKind {
    fn read(value: &Value) -> Result<Self, String> {
        let text = String::read(value)?;
        if text.eq_ignore_ascii_case("vanilla") {
            return Ok(Self::None);
        }
        let names = Self::ALL.iter().map(|value| value.name());
        Self::from_name(&text)
            .ok_or_else(|| format!("there is no {} \"{text}\"{}", Self::WHAT, hint(&text, names)))
    }
    fn show(&self) -> String {
        self.name().show()
    }
}

/// Writing only: the names of choices.
trait Show {
    fn show(&self) -> String;
}

impl Show for str {
    fn show(&self) -> String {
        serde_json::Value::from(self).to_string()
    }
}
