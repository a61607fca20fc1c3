//! What a pickle holds, and how it is looked at.

use std::borrow::Cow;

/// A pickle that has been run.
#[derive(Debug)]
pub struct Pickle<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) globals: Vec<Global<'a>>,
    /// The value it leaves.
    pub root: Value<'a>,
    /// Bytes it takes, up to and with its STOP.
    pub length: usize,
}

/// A value of the pickle; cheap to copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A `str`.
    Str(&'a str),
    /// Python 3's `bytes`, Python 2's `str`.
    Bytes(&'a [u8]),
    /// A class or function.
    Global(GlobalId),
    /// A container, an object or a longer integer, in the arena.
    Node(NodeId),
}

/// Index of a [`Node`] in its [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub(super) usize);

/// Index of a [`Global`] in its [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalId(pub(super) usize);

/// A class or function by name. Naming is all that happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Global<'a> {
    /// `torch._utils`, say.
    pub module: &'a str,
    /// `_rebuild_tensor_v2`, say.
    pub name: &'a str,
}

/// What lies in the arena.
#[derive(Debug)]
pub enum Node<'a> {
    /// A `list`.
    List(Vec<Value<'a>>),
    /// A `tuple`.
    Tuple(Vec<Value<'a>>),
    /// A `set` or `frozenset`.
    Set(Vec<Value<'a>>),
    /// A `dict`: keys and values as they were assigned.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// An integer of more than 64 bits.
    Long(i128),
    /// The result of a call.
    Object(Box<Object<'a>>),
    /// What the program that wrote the pickle keeps elsewhere, by the id it gave it.
    Persistent(Value<'a>),
}

/// A call as Python's `__reduce__` describes it.
#[derive(Debug)]
pub struct Object<'a> {
    /// The class or function.
    pub callable: GlobalId,
    /// Its arguments: a tuple.
    pub arguments: NodeId,
    /// What is set on the result by BUILD.
    pub state: Option<Value<'a>>,
    /// Keys and values that are assigned to the result.
    pub items: Vec<(Value<'a>, Value<'a>)>,
}

/// Why a pickle could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// The stream is damaged, or uses what no file of interest needs.
    #[error("damaged pickle, at its byte {offset}: {what}")]
    Damaged {
        /// Position of the opcode.
        offset: usize,
        /// What is wrong there.
        what: String,
    },
    /// A class or function that is not on the list.
    #[error(
        "the pickle asks for the Python object {name}, which is not on the list of those that describe data; \
         nothing was executed. Save only tensors, numbers and text (for a model: its state_dict())"
    )]
    Forbidden {
        /// "module.name" of the object.
        name: String,
    },
}

impl<'a> Pickle<'a> {
    /// The node behind a value, if it is one.
    pub fn node(&self, value: &Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(id) => self.nodes.get(id.0),
            _ => None,
        }
    }

    /// The name behind a value, if it is a class or function.
    pub fn global(&self, value: &Value<'a>) -> Option<Global<'a>> {
        match value {
            Value::Global(id) => self.globals.get(id.0).copied(),
            _ => None,
        }
    }

    /// Name, arguments and the rest of a call, if the value is the result of one.
    pub fn object(&self, value: &Value<'a>) -> Option<(Global<'a>, &[Value<'a>], &Object<'a>)> {
        match self.node(value) {
            Some(Node::Object(object)) => {
                let global = *self.globals.get(object.callable.0)?;
                Some((global, self.sequence(&Value::Node(object.arguments))?, object))
            }
            _ => None,
        }
    }

    /// The items of a list or tuple.
    pub fn sequence(&self, value: &Value<'a>) -> Option<&[Value<'a>]> {
        match self.node(value) {
            Some(Node::List(items) | Node::Tuple(items)) => Some(items),
            _ => None,
        }
    }

    /// The entries of a dict, an `OrderedDict` or a `defaultdict`, as they were assigned.
    pub fn dict(&self, value: &Value<'a>) -> Option<Cow<'_, [(Value<'a>, Value<'a>)]>> {
        if let Some(Node::Dict(entries)) = self.node(value) {
            return Some(Cow::Borrowed(entries));
        }
        let (Global { module: "collections", name }, arguments, object) = self.object(value)? else {
            return None;
        };
        match (name, arguments) {
            ("OrderedDict", []) | ("defaultdict", _) => Some(Cow::Borrowed(&object.items)),
            // As Python 2 wrote it: a list of `[key, value]`.
            ("OrderedDict", [pairs]) => {
                let pairs = self.sequence(pairs)?.iter().map(|pair| match self.sequence(pair) {
                    Some(&[key, value]) => Some((key, value)),
                    _ => None,
                });
                Some(Cow::Owned(
                    pairs.chain(object.items.iter().map(|&item| Some(item))).collect::<Option<_>>()?,
                ))
            }
            _ => None,
        }
    }

    /// The value of a text key of a dict; the last one, as in Python.
    pub fn get(&self, dict: &Value<'a>, key: &str) -> Option<Value<'a>> {
        let entries = self.dict(dict)?;
        entries.iter().rev().find(|(found, _)| self.text(found) == Some(key)).map(|&(_, value)| value)
    }

    /// A text, also one that Python 2 wrote.
    pub fn text(&self, value: &Value<'a>) -> Option<&'a str> {
        match value {
            Value::Str(text) => Some(text),
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// An integer.
    pub fn int(&self, value: &Value<'a>) -> Option<i128> {
        match (value, self.node(value)) {
            (Value::Int(value), _) => Some(i128::from(*value)),
            (_, Some(Node::Long(value))) => Some(*value),
            _ => None,
        }
    }

    /// An integer that is a size or a place: 0 to 2^63 - 1.
    pub fn size(&self, value: &Value<'a>) -> Option<usize> {
        match value {
            Value::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// Bytes, also as Python 3 writes them for protocol 2: a text to be encoded as Latin-1. `None` if it
    /// is something else, or longer than `longest`.
    pub fn bytes(&self, value: &Value<'a>, longest: usize) -> Option<Cow<'a, [u8]>> {
        if let Value::Bytes(bytes) = value {
            return (bytes.len() <= longest).then_some(Cow::Borrowed(*bytes));
        }
        match self.object(value)? {
            (Global { module: "_codecs", name: "encode" }, [text, codec], _)
                if matches!(self.text(codec), Some("latin1" | "latin-1")) =>
            {
                let text = self.text(text).filter(|text| text.len() / 2 <= longest)?;
                let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                bytes.filter(|bytes| bytes.len() <= longest).map(Cow::Owned)
            }
            // As it writes no bytes at all.
            (Global { name: "bytes", .. }, [], _) => Some(Cow::Borrowed(&[])),
            _ => None,
        }
    }

    /// Every id of what is kept elsewhere, in the order of their first mention.
    pub fn persistent_ids(&self) -> impl Iterator<Item = &Value<'a>> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Persistent(id) => Some(id),
            _ => None,
        })
    }

    /// What the value is, in Python's words, for messages.
    pub fn kind(&self, value: &Value<'a>) -> Cow<'static, str> {
        Cow::Borrowed(match value {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "an int",
            Value::Float(_) => "a float",
            Value::Str(_) => "a str",
            Value::Bytes(_) => "bytes",
            Value::Global(_) => "a class or function",
            Value::Node(_) => match self.node(value) {
                Some(Node::List(_)) => "a list",
                Some(Node::Tuple(_)) => "a tuple",
                Some(Node::Set(_)) => "a set",
                Some(Node::Long(_)) => "an int",
                Some(Node::Persistent(_)) => "a storage",
                Some(Node::Object(_)) if self.dict(value).is_some() => "a dict",
                Some(Node::Object(_)) => {
                    let name = self.object(value).map_or("", |(global, ..)| global.name);
                    return Cow::Owned(format!("an object of {}", name.escape_debug()));
                }
                Some(Node::Dict(_)) => "a dict",
                None => "nothing",
            },
        })
    }
}
