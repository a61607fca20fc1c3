//! An interpreter for the part of Python's pickle language that checkpoints are written in.
//!
//! A pickle is a program for a stack machine (the opcodes are documented in CPython's
//! `pickletools`). This one builds plain data in an arena: containers refer to each other by index, so
//! cycles and any depth of nesting cost nothing to hold and nothing to drop. Each opcode takes
//! constant time or time linear in what it pops, and its memory is at most proportional to the bytes
//! read; the few operations that could copy one value many times are bounded.

use std::collections::HashMap;
use std::rc::Rc;

use super::error::{Problem, quoted};
use super::globals::{self, Global};
use super::tensor::{DType, StridedView};

/// A value of the pickle; cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Rc<str>),
    Bytes(Rc<[u8]>),
    Global(Global),
    /// A container or object in the arena.
    Node(NodeId),
}

/// Index of a node in the arena of its [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(usize);

/// A container or object.
#[derive(Debug)]
pub(super) enum Node {
    List(Vec<Value>),
    Tuple(Vec<Value>),
    /// As assigned, in order: a key may come several times, and the last one counts.
    Dict(Vec<(Value, Value)>),
    Storage(Storage),
    Tensor(PickledTensor),
    Number(NumpyDtype),
    /// An object of no interest.
    Opaque,
}

/// A reference to a storage: tensor bytes that lie outside the pickle.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    /// Its name in the container.
    pub key: Rc<str>,
    /// Element type.
    pub dtype: DType,
    /// Elements in the storage of that name.
    pub numel: usize,
    /// First element and length of the part that is meant (legacy files), else all of it.
    pub part: Option<(usize, usize)>,
}

/// A tensor, still without its elements.
#[derive(Clone, Debug)]
pub(super) struct PickledTensor {
    pub storage: Storage,
    pub view: StridedView,
}

/// A little-endian numpy number type.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumpyDtype {
    kind: u8,
    size: usize,
}

/// A pickle that has been run.
pub(super) struct Pickle {
    nodes: Vec<Node>,
    /// The value it leaves.
    pub root: Value,
    /// Element type of every storage it mentions (the first mention), by key.
    pub storage_types: HashMap<Rc<str>, DType>,
    /// Bytes it takes, up to and with its STOP.
    pub length: usize,
}

impl Pickle {
    /// The node behind a value, if it is one.
    pub(super) fn node(&self, value: &Value) -> Option<&Node> {
        match value {
            Value::Node(id) => self.nodes.get(id.0),
            _ => None,
        }
    }

    /// The entries of a dict, if the value is one.
    pub(super) fn dict(&self, value: &Value) -> Option<&[(Value, Value)]> {
        match self.node(value) {
            Some(Node::Dict(entries)) => Some(entries),
            _ => None,
        }
    }

    /// The items of a list or tuple, if the value is one.
    pub(super) fn sequence(&self, value: &Value) -> Option<&[Value]> {
        match self.node(value) {
            Some(Node::List(items) | Node::Tuple(items)) => Some(items),
            _ => None,
        }
    }

    /// What the value is, in Python's words, for messages.
    pub(super) fn kind(&self, value: &Value) -> &'static str {
        match value {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "an int",
            Value::Float(_) => "a float",
            Value::Text(_) => "a str",
            Value::Bytes(_) => "bytes",
            Value::Global(_) => "a class or function",
            Value::Node(_) => match self.node(value) {
                Some(Node::List(_)) => "a list",
                Some(Node::Tuple(_)) => "a tuple",
                Some(Node::Dict(_)) => "a dict",
                Some(Node::Storage(_)) => "a storage",
                Some(Node::Tensor(_)) => "a tensor",
                Some(Node::Number(_)) => "a numpy dtype",
                Some(Node::Opaque) | None => "an object",
            },
        }
    }
}

/// Runs the pickle at the beginning of `bytes`; what follows its STOP is not looked at.
pub(super) fn run(bytes: &[u8]) -> Result<Pickle, Problem> {
    let mut machine = Machine {
        input: bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        nodes: Vec::new(),
        storage_types: HashMap::new(),
        copies_left: bytes.len(),
    };
    loop {
        let start = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => {
                return Ok(Pickle {
                    nodes: machine.nodes,
                    root,
                    storage_types: machine.storage_types,
                    length: machine.at,
                });
            }
            Err(Stop::Damaged(what)) => {
                return Err(Problem::Pickle { offset: start, what });
            }
            Err(Stop::Forbidden(global)) => return Err(Problem::ForbiddenGlobal { global }),
        }
    }
}

/// Why the machine stops.
enum Stop {
    Damaged(String),
    Forbidden(String),
}

impl From<&str> for Stop {
    fn from(what: &str) -> Self {
        Stop::Damaged(what.into())
    }
}

impl From<String> for Stop {
    fn from(what: String) -> Self {
        Stop::Damaged(what)
    }
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Stack heights at the open MARKs.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    nodes: Vec<Node>,
    storage_types: HashMap<Rc<str>, DType>,
    /// How many more elements may be copied out of a container that stays reachable.
    copies_left: usize,
}

/// PyTorch's own limit on the number of dimensions.
const MAX_RANK: usize = 64;

impl<'a> Machine<'a> {
    /// Executes one opcode; the value if it was STOP.
    fn step(&mut self) -> Result<Option<Value>, Stop> {
        match self.byte()? {
            0x80 => {
                let protocol = self.byte()?;
                if protocol > 5 {
                    return Err(format!("unknown pickle protocol {protocol}").into());
                }
            }
            // FRAME only says how much to read ahead.
            0x95 => drop(self.bytes(8)?),
            b'.' => {
                let root = self.pop()?;
                return Ok(Some(root));
            }

            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' => self.push_int(1, false)?,
            b'M' => self.push_int(2, false)?,
            b'J' => self.push_int(4, true)?,
            0x8a => self.push_long(1)?,
            0x8b => self.push_long(4)?,
            b'G' => {
                let raw = self.array::<8>()?;
                self.stack.push(Value::Float(f64::from_be_bytes(raw)));
            }
            0x8c => self.push_text(1)?,
            b'X' => self.push_text(4)?,
            0x8d => self.push_text(8)?,
            // Python 2 str.
            b'U' => self.push_text(1)?,
            b'T' => self.push_text(4)?,
            b'C' => self.push_bytes(1)?,
            b'B' => self.push_bytes(4)?,
            0x8e => self.push_bytes(8)?,

            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b')' => self.push_node(Node::Tuple(Vec::new())),
            0x85 => self.push_tuple(1)?,
            0x86 => self.push_tuple(2)?,
            0x87 => self.push_tuple(3)?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::Tuple(items));
            }
            b']' => self.push_node(Node::List(Vec::new())),
            b'}' => self.push_node(Node::Dict(Vec::new())),
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(items)?;
            }

            b'q' => self.memoize(1)?,
            b'r' => self.memoize(4)?,
            0x94 => {
                let value = self.top()?.clone();
                self.memo.insert(self.memo.len() as u64, value);
            }
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,

            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push_global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&module, &name) {
                    (Value::Text(module), Value::Text(name)) => self.push_global(module, name)?,
                    _ => return Err("a global whose name is not a text".into()),
                }
            }
            b'R' => {
                let arguments = self.pop_arguments()?;
                let function = self.pop()?;
                let result = self.reduce(function, arguments)?;
                self.stack.push(result);
            }
            0x81 => {
                // cls.__new__(cls, *args): only for the class without bearing on weights.
                drop(self.pop_arguments()?);
                match self.pop()? {
                    Value::Global(Global::Opaque) => self.push_node(Node::Opaque),
                    Value::Global(Global::OrderedDict) => self.push_node(Node::Dict(Vec::new())),
                    _ => return Err("creates an object of a class that has no instances here".into()),
                }
            }
            b'b' => self.build()?,
            b'Q' => self.persistent_id()?,

            other => {
                return Err(format!(
                    "opcode {other:#04x}, which no checkpoint uses (or the stream is damaged)"
                )
                .into());
            }
        }
        Ok(None)
    }

    // --- Input ---

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let rest = &self.input[self.at..];
        if count > rest.len() {
            return Err(format!("{count} bytes are announced, {} are left", rest.len()).into());
        }
        self.at += count;
        Ok(&rest[..count])
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        match self.input.get(self.at) {
            Some(&byte) => {
                self.at += 1;
                Ok(byte)
            }
            None => Err("the pickle ends before its STOP; the file is cut short".into()),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// A little-endian unsigned number of `size` bytes.
    fn unsigned(&mut self, size: usize) -> Result<u64, Stop> {
        let raw = self.bytes(size)?;
        Ok(raw.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// A length prefix of `size` bytes and that many bytes.
    fn prefixed(&mut self, size: usize) -> Result<&'a [u8], Stop> {
        let length = self.unsigned(size)?;
        self.bytes(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Result<&'a str, Stop> {
        let rest = &self.input[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or("a name without its end")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a name that is not UTF-8".into())
    }

    // --- Scalars ---

    fn push_int(&mut self, size: usize, signed: bool) -> Result<(), Stop> {
        let value = self.unsigned(size)?;
        let value = if signed { i128::from(value as u32 as i32) } else { i128::from(value) };
        self.stack.push(Value::Int(value));
        Ok(())
    }

    /// Two's complement of any length; checkpoints need at most the 80 bits of PyTorch's magic number.
    fn push_long(&mut self, size: usize) -> Result<(), Stop> {
        let raw = self.prefixed(size)?;
        if raw.len() > 16 {
            return Err(format!("an integer of {} bytes", raw.len()).into());
        }
        let negative = raw.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 16];
        wide[..raw.len()].copy_from_slice(raw);
        self.stack.push(Value::Int(i128::from_le_bytes(wide)));
        Ok(())
    }

    fn push_text(&mut self, size: usize) -> Result<(), Stop> {
        let raw = self.prefixed(size)?;
        let text = std::str::from_utf8(raw).map_err(|_| "a text that is not UTF-8")?;
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    fn push_bytes(&mut self, size: usize) -> Result<(), Stop> {
        let raw = self.prefixed(size)?;
        self.stack.push(Value::Bytes(raw.into()));
        Ok(())
    }

    // --- Stack, memo, arena ---

    /// Height below which the stack belongs to an open MARK.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value, Stop> {
        if self.stack.len() <= self.floor() {
            return Err("takes a value from an empty stack".into());
        }
        self.stack.pop().ok_or_else(|| "takes a value from an empty stack".into())
    }

    fn top(&self) -> Result<&Value, Stop> {
        if self.stack.len() <= self.floor() {
            return Err("looks at an empty stack".into());
        }
        self.stack.last().ok_or_else(|| "looks at an empty stack".into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, Stop> {
        let mark = self.marks.pop().ok_or("goes back to a mark never set")?;
        Ok(self.stack.drain(mark..).collect())
    }

    fn push_tuple(&mut self, count: usize) -> Result<(), Stop> {
        if self.stack.len() < self.floor() + count {
            return Err("takes a value from an empty stack".into());
        }
        let items = self.stack.drain(self.stack.len() - count..).collect();
        self.push_node(Node::Tuple(items));
        Ok(())
    }

    fn new_node(&mut self, node: Node) -> Value {
        self.nodes.push(node);
        Value::Node(NodeId(self.nodes.len() - 1))
    }

    fn push_node(&mut self, node: Node) {
        let value = self.new_node(node);
        self.stack.push(value);
    }

    fn memoize(&mut self, size: usize) -> Result<(), Stop> {
        let index = self.unsigned(size)?;
        let value = self.top()?.clone();
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&mut self, size: usize) -> Result<(), Stop> {
        let index = self.unsigned(size)?;
        let value =
            self.memo.get(&index).ok_or_else(|| format!("recalls memo {index}, which was never set"))?;
        self.stack.push(value.clone());
        Ok(())
    }

    fn node(&self, value: &Value) -> Option<&Node> {
        match value {
            Value::Node(id) => self.nodes.get(id.0),
            _ => None,
        }
    }

    /// The container on top of the stack, to be changed in place.
    fn top_node(&mut self) -> Result<&mut Node, Stop> {
        let id = match self.top()? {
            Value::Node(id) => *id,
            _ => return Err("changes a value that is not a container".into()),
        };
        self.nodes.get_mut(id.0).ok_or_else(|| "changes a value that does not exist".into())
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), Stop> {
        match self.top_node()? {
            Node::List(list) => list.extend(items),
            _ => return Err("appends to something that is not a list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Value>) -> Result<(), Stop> {
        if !items.len().is_multiple_of(2) {
            return Err("a dict key without a value".into());
        }
        let Node::Dict(dict) = self.top_node()? else {
            return Err("sets a key of something that is not a dict".into());
        };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            dict.push((key, value));
        }
        Ok(())
    }

    /// The items of a tuple that stays reachable, copied.
    fn tuple(&mut self, value: &Value) -> Result<Vec<Value>, Stop> {
        let items = match self.node(value) {
            Some(Node::Tuple(items)) => items,
            _ => return Err("a value that should be a tuple is not".into()),
        };
        // Honest pickles build a fresh tuple for each use; one reused many times would multiply.
        let left = self.copies_left.checked_sub(items.len());
        let items = items.clone();
        self.copies_left = left.ok_or("copies more than the pickle's own size")?;
        Ok(items)
    }

    fn pop_arguments(&mut self) -> Result<Vec<Value>, Stop> {
        let arguments = self.pop()?;
        self.tuple(&arguments)
    }

    // --- Objects ---

    fn push_global(&mut self, module: &str, name: &str) -> Result<(), Stop> {
        match globals::lookup(module, name) {
            Some(global) => {
                self.stack.push(Value::Global(global));
                Ok(())
            }
            None => {
                let global = quoted(&format!("{module}.{name}"));
                Err(Stop::Forbidden(global.trim_matches('"').to_owned()))
            }
        }
    }

    /// What "calling" an allowed function or class gives.
    fn reduce(&mut self, function: Value, arguments: Vec<Value>) -> Result<Value, Stop> {
        let Value::Global(function) = function else {
            return Err("calls something that is not a function".into());
        };
        match (function, arguments.as_slice()) {
            (Global::OrderedDict, []) => Ok(self.new_node(Node::Dict(Vec::new()))),
            (Global::OrderedDict, [pairs]) => self.dict_of_pairs(pairs),
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let tensor = self.rebuild_tensor(storage, offset, shape, strides)?;
                Ok(self.new_node(Node::Tensor(tensor)))
            }
            (Global::RebuildParameter, [tensor, ..]) => Ok(tensor.clone()),
            (Global::Size, [sizes]) => Ok(sizes.clone()),
            (Global::NumpyDtype, [Value::Text(code), ..]) => {
                let dtype = NumpyDtype::parse(code)?;
                Ok(self.new_node(Node::Number(dtype)))
            }
            (Global::NumpyScalar, [dtype, Value::Bytes(raw)]) => match self.node(dtype) {
                Some(Node::Number(dtype)) => dtype.read(raw),
                _ => Err("a numpy scalar without a type".into()),
            },
            (Global::Encode, [Value::Text(text), Value::Text(codec)]) => encode(text, codec),
            (Global::Opaque, _) => Ok(self.new_node(Node::Opaque)),
            _ => Err(format!("calls {function:?} with arguments it does not take").into()),
        }
    }

    /// An OrderedDict as Python 2 pickled it: a list of `[key, value]`.
    fn dict_of_pairs(&mut self, pairs: &Value) -> Result<Value, Stop> {
        let Some(Node::List(pairs)) = self.node(pairs) else {
            return Err("an OrderedDict that is not made of a list".into());
        };
        let count = pairs.len();
        let entries: Option<Vec<(Value, Value)>> = pairs
            .iter()
            .take(self.copies_left)
            .map(|pair| match self.node(pair) {
                Some(Node::List(pair) | Node::Tuple(pair)) => match pair.as_slice() {
                    [key, value] => Some((key.clone(), value.clone())),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        let entries = entries.ok_or("an OrderedDict whose items are not pairs")?;
        self.copies_left =
            self.copies_left.checked_sub(count).ok_or("copies more than the pickle's own size")?;
        Ok(self.new_node(Node::Dict(entries)))
    }

    fn rebuild_tensor(
        &mut self,
        storage: &Value,
        offset: &Value,
        shape: &Value,
        strides: &Value,
    ) -> Result<PickledTensor, Stop> {
        let Some(Node::Storage(storage)) = self.node(storage) else {
            return Err("a tensor without a storage".into());
        };
        let storage = storage.clone();
        let offset = size_of_int(offset).ok_or("a tensor whose offset is not a size")?;
        let shape = self.sizes(shape)?;
        let strides = self.sizes(strides)?;
        if shape.len() != strides.len() {
            return Err("a tensor with more or fewer strides than dimensions".into());
        }
        let dtype = storage.dtype;
        Ok(PickledTensor { storage, view: StridedView { dtype, offset, shape, strides } })
    }

    fn sizes(&mut self, value: &Value) -> Result<Vec<usize>, Stop> {
        let items = self.tuple(value)?;
        if items.len() > MAX_RANK {
            return Err(format!("a tensor of {} dimensions", items.len()).into());
        }
        items
            .iter()
            .map(size_of_int)
            .collect::<Option<_>>()
            .ok_or_else(|| "a tensor whose shape or strides are not sizes".into())
    }

    /// BUILD sets attributes. A state dict has one (`_metadata`, versions), which is not needed; a numpy
    /// dtype's say its byte order, which must be little-endian.
    fn build(&mut self) -> Result<(), Stop> {
        let attributes = self.pop()?;
        let order = match self.node(&attributes) {
            Some(Node::Tuple(items)) => items.get(1).cloned(),
            _ => None,
        };
        match (self.top_node()?, order) {
            (Node::Dict(_) | Node::Opaque, _) => Ok(()),
            (Node::Number(_), Some(Value::Text(order))) if matches!(&*order, "<" | "|" | "=") => Ok(()),
            (Node::Number(_), _) => Err("a numpy number that is not little-endian".into()),
            _ => Err("sets attributes of something that has none".into()),
        }
    }

    /// PyTorch's persistent ids are storages:
    /// `("storage", class, key, location, numel[, None or (view key, offset, numel)])`.
    /// The location (`cpu`, `cuda:0`) says where it lay when it was saved and is ignored.
    fn persistent_id(&mut self) -> Result<(), Stop> {
        let id = self.pop()?;
        let Some(Node::Tuple(id)) = self.node(&id) else {
            return Err("a persistent id that is not a tuple".into());
        };
        let (class, key, numel, part) = match id.as_slice() {
            [Value::Text(tag), class, key, _location, numel] if &**tag == "storage" => {
                (class, key, numel, &Value::None)
            }
            [Value::Text(tag), class, key, _location, numel, part] if &**tag == "storage" => {
                (class, key, numel, part)
            }
            _ => return Err("a persistent id that is not a storage".into()),
        };
        let Value::Global(Global::Storage(dtype)) = class else {
            return Err("a storage whose class is not a storage class".into());
        };
        let Value::Text(key) = key else {
            return Err("a storage whose key is not a text".into());
        };
        let numel = size_of_int(numel).ok_or("a storage whose size is not a size")?;
        let part = match (part, self.node(part)) {
            (Value::None, _) => None,
            (_, Some(Node::Tuple(items))) => match items.as_slice() {
                [_key, offset, length] => Some(
                    size_of_int(offset)
                        .zip(size_of_int(length))
                        .ok_or("a part of a storage whose place is not a size")?,
                ),
                _ => return Err("a part of a storage that is not described by three values".into()),
            },
            _ => return Err("a part of a storage that is not a tuple".into()),
        };
        let storage = Storage { key: key.clone(), dtype: *dtype, numel, part };
        self.storage_types.entry(storage.key.clone()).or_insert(storage.dtype);
        self.push_node(Node::Storage(storage));
        Ok(())
    }
}

fn size_of_int(value: &Value) -> Option<usize> {
    match value {
        // PyTorch counts in signed 64-bit numbers.
        Value::Int(value) => i64::try_from(*value).ok().and_then(|v| usize::try_from(v).ok()),
        _ => None,
    }
}

/// `_codecs.encode(text, "latin1")`. Used for the bytes of one number; a limit keeps a long text
/// that is encoded again and again from multiplying.
fn encode(text: &str, codec: &str) -> Result<Value, Stop> {
    const LONGEST: usize = 64;
    if codec != "latin1" {
        return Err(format!("bytes in the encoding {}", quoted(codec)).into());
    }
    if text.len() > LONGEST {
        return Err("bytes too long for a number".into());
    }
    let bytes: Result<Vec<u8>, _> = text.chars().map(|c| u8::try_from(u32::from(c))).collect();
    match bytes {
        Ok(bytes) => Ok(Value::Bytes(bytes.into())),
        Err(_) => Err("bytes with a character beyond latin1".into()),
    }
}

impl NumpyDtype {
    /// From a code such as `f8`: kind and size in bytes.
    fn parse(code: &str) -> Result<Self, Stop> {
        let bare = code.trim_start_matches(['<', '|', '=']);
        let parsed = match bare {
            "f2" | "f4" | "f8" | "i1" | "i2" | "i4" | "i8" | "u1" | "u2" | "u4" | "u8" | "b1" => {
                let digits = bare.as_bytes();
                Some(NumpyDtype { kind: digits[0], size: usize::from(digits[1] - b'0') })
            }
            _ => None,
        };
        parsed.ok_or_else(|| format!("a numpy number of type {}", quoted(code)).into())
    }

    fn read(self, raw: &[u8]) -> Result<Value, Stop> {
        if raw.len() != self.size {
            return Err(format!("a numpy number of {} bytes instead of {}", raw.len(), self.size).into());
        }
        let mut wide = [0; 8];
        wide[..raw.len()].copy_from_slice(raw);
        let bits = u64::from_le_bytes(wide);
        // Sign extension: the number's sign bit is moved to the top and back.
        let unused = 64 - 8 * self.size as u32;
        Ok(match (self.kind, self.size) {
            (b'f', 8) => Value::Float(f64::from_bits(bits)),
            (b'f', 4) => Value::Float(f64::from(f32::from_bits(bits as u32))),
            (b'f', _) => Value::Float(f64::from(super::tensor::F16Bits(bits as u16).to_f32())),
            (b'i', _) => Value::Int(i128::from((bits << unused) as i64 >> unused)),
            (b'b', _) => Value::Bool(bits != 0),
            _ => Value::Int(i128::from(bits)),
        })
    }
}

#[cfg(test)]
#[path = "pickle_tests.rs"]
mod tests;
