//! YAML as a tree whose every key and value knows its line and column.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::ops::Range;

use super::mistake::{Mistake, Position};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it begins.
    pub at: Position,
    /// The scalar as it is written: `1e3`, `0x10` and `yes` are names where a name is asked for.
    written: String,
    /// Where `written` stands in the document, in bytes.
    span: Range<usize>,
}

impl Node {
    /// A text that stands nowhere.
    pub fn text(text: &str) -> Self {
        let at = Position { line: 1, column: 1 };
        Self { value: Value::Text(text.to_owned()), at, written: text.to_owned(), span: 0..0 }
    }

    /// A scalar, whatever its type, as text; `None` for nothing, lists and sections.
    pub fn as_written(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => Some(&self.written),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The value in words, for "expected ..., found ...".
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => self.written.clone(),
            Value::Text(value) => format!("\"{value}\""),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Map(_) => "a section of keys".into(),
        }
    }

    /// Notes in every scalar how it is written in `document`.
    fn quote(&mut self, document: &str) {
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.quote(document)),
            Value::Map(entries) => entries.iter_mut().for_each(|(.., node)| node.quote(document)),
            _ => self.written = document.get(self.span.clone()).unwrap_or_default().trim().to_owned(),
        }
    }
}

/// A YAML value by its core-schema type.
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// `true` or `false`, as YAML 1.2 spells them.
    Bool(bool),
    /// Wide enough for every 64-bit integer, signed or not.
    Int(i128),
    /// With a point or an exponent.
    Float(f64),
    /// Everything else that is one word or is quoted.
    Text(String),
    /// Items in file order.
    List(Vec<Node>),
    /// Keys with their positions, in file order.
    Map(Vec<(String, Position, Node)>),
}

/// Parses a document. An empty one is an empty map.
pub fn parse(text: &str) -> Result<Node, Mistake> {
    // The project's own messages quote the file, and say what they think of .nan.
    let options = serde_saphyr::options! {
        with_snippet: false,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
    };
    let node: Spanned<Value> =
        serde_saphyr::from_str_with_options(text, options).map_err(|why| Mistake::new(text, &why))?;
    let mut node = Node::from(node);
    node.quote(text);
    Ok(node)
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        let span = spanned.defined.span();
        let start = span.byte_offset().unwrap_or(0) as usize;
        Self {
            at: Position::of(spanned.referenced),
            value: spanned.value,
            written: String::new(),
            span: start..start + span.byte_len().unwrap_or(0) as usize,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(item.into());
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let value = entries.next_value::<Spanned<Value>>()?;
            map.push((key.value, Position::of(key.referenced), value.into()));
        }
        Ok(Value::Map(map))
    }
}
