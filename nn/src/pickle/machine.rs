//! The stack machine.

use std::collections::HashMap;

use super::globals;
use super::value::{Global, GlobalId, Node, NodeId, Object, Pickle, PickleError, Value};

/// Runs the pickle at the beginning of `bytes`; what follows its STOP is not looked at.
pub fn load(bytes: &[u8]) -> Result<Pickle<'_>, PickleError> {
    let mut machine = Machine { input: bytes, ..Machine::default() };
    loop {
        let offset = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => {
                let Machine { nodes, globals, at: length, .. } = machine;
                return Ok(Pickle { nodes, globals, root, length });
            }
            Err(Stop::Damaged(what)) => return Err(PickleError::Damaged { offset, what }),
            Err(Stop::Forbidden(name)) => return Err(PickleError::Forbidden { name }),
        }
    }
}

/// Why the machine stops.
enum Stop {
    Damaged(String),
    Forbidden(String),
}

impl<T: Into<String>> From<T> for Stop {
    fn from(what: T) -> Self {
        Stop::Damaged(what.into())
    }
}

#[derive(Default)]
struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Stack heights at the open MARKs.
    marks: Vec<usize>,
    memo: HashMap<u64, Value<'a>>,
    nodes: Vec<Node<'a>>,
    globals: Vec<Global<'a>>,
}

impl<'a> Machine<'a> {
    /// Executes one opcode; the value if it was STOP.
    fn step(&mut self) -> Result<Option<Value<'a>>, Stop> {
        match self.bytes(1).map_err(|_| "the pickle ends before its STOP; the file is cut short")?[0] {
            // PROTO
            0x80 => match self.bytes(1)?[0] {
                0..=5 => {}
                protocol => return Err(format!("unknown pickle protocol {protocol}").into()),
            },
            // FRAME only says how much to read ahead.
            0x95 => drop(self.bytes(8)?),
            // STOP
            b'.' => return self.pop().map(Some),

            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            // BININT1, BININT2, BININT, LONG1, LONG4: little-endian, the last three with a sign.
            b'K' => self.push_int(1, false)?,
            b'M' => self.push_int(2, false)?,
            b'J' => self.push_int(4, true)?,
            0x8a => self.push_long(1)?,
            0x8b => self.push_long(4)?,
            // INT and LONG: digits, in protocol 1.
            b'I' | b'L' => self.push_digits()?,
            // BINFLOAT
            b'G' => {
                let raw = self.bytes(8)?;
                let bits = raw.iter().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
                self.stack.push(Value::Float(f64::from_bits(bits)));
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => self.push_str(1)?,
            b'X' => self.push_str(4)?,
            0x8d => self.push_str(8)?,
            // SHORT_BINSTRING, SHORT_BINBYTES, BINSTRING, BINBYTES, BINBYTES8, BYTEARRAY8
            b'U' | b'C' => self.push_bytes(1)?,
            b'T' | b'B' => self.push_bytes(4)?,
            0x8e | 0x96 => self.push_bytes(8)?,

            // MARK, POP, POP_MARK
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            // EMPTY_TUPLE, TUPLE1 to 3, TUPLE, EMPTY_LIST, LIST, EMPTY_DICT, EMPTY_SET, FROZENSET
            b')' => self.push_node(Node::Tuple(Vec::new())),
            count @ 0x85..=0x87 => {
                let items = self.pop_many(usize::from(count - 0x84))?;
                self.push_node(Node::Tuple(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::Tuple(items));
            }
            b']' => self.push_node(Node::List(Vec::new())),
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::List(items));
            }
            b'}' => self.push_node(Node::Dict(Vec::new())),
            0x8f => self.push_node(Node::Set(Vec::new())),
            0x91 => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::Set(items));
            }
            // APPEND, APPENDS, ADDITEMS, SETITEM, SETITEMS
            b'a' => {
                let items = self.pop_many(1)?;
                self.append(items)?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }

            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' => self.memoize(1)?,
            b'r' => self.memoize(4)?,
            0x94 => drop(self.memo.insert(self.memo.len() as u64, self.top()?)),
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,

            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let global = Global { module: self.line()?, name: self.line()? };
                self.push_global(global)?;
            }
            0x93 => match self.pop_many(2)?[..] {
                [Value::Str(module), Value::Str(name)] => self.push_global(Global { module, name })?,
                _ => return Err("a global whose name is not a text".into()),
            },
            // REDUCE, NEWOBJ
            b'R' | 0x81 => self.call()?,
            // BUILD
            b'b' => {
                let state = self.pop()?;
                match self.top_node()? {
                    Node::Object(object) => object.state = Some(state),
                    _ => return Err("sets attributes of something that has none".into()),
                }
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                self.push_node(Node::Persistent(id));
            }
            other => {
                return Err(format!(
                    "opcode {other:#04x}, which is not used here (or the stream is damaged)"
                )
                .into());
            }
        }
        Ok(None)
    }

    // --- Input ---

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let rest = &self.input[self.at..];
        let Some(bytes) = rest.get(..count) else {
            return Err(format!(
                "{count} bytes are announced, {} are left: the file is cut short",
                rest.len()
            )
            .into());
        };
        self.at += count;
        Ok(bytes)
    }

    /// A little-endian unsigned number of `size` bytes.
    fn unsigned(&mut self, size: usize) -> Result<u64, Stop> {
        let raw = self.bytes(size)?;
        Ok(raw.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// A length of `size` bytes and that many bytes.
    fn prefixed(&mut self, size: usize) -> Result<&'a [u8], Stop> {
        let length = self.unsigned(size)?;
        self.bytes(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Result<&'a str, Stop> {
        let rest = &self.input[self.at..];
        let end = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or("a line without its end: the file is cut short")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a line that is not UTF-8".into())
    }

    // --- Scalars ---

    fn push_int(&mut self, size: usize, signed: bool) -> Result<(), Stop> {
        let value = self.unsigned(size)?;
        self.stack.push(Value::Int(if signed { i64::from(value as u32 as i32) } else { value as i64 }));
        Ok(())
    }

    /// Two's complement of any length; what is read here needs at most the 80 bits of PyTorch's magic number.
    fn push_long(&mut self, size: usize) -> Result<(), Stop> {
        let raw = self.prefixed(size)?;
        if raw.len() > 16 {
            return Err(format!("an integer of {} bytes", raw.len()).into());
        }
        let negative = raw.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 16];
        wide[..raw.len()].copy_from_slice(raw);
        self.push_wide(i128::from_le_bytes(wide));
        Ok(())
    }

    /// `5`, or `5L`; `01` and `00` are True and False.
    fn push_digits(&mut self) -> Result<(), Stop> {
        match self.line()? {
            "01" => self.stack.push(Value::Bool(true)),
            "00" => self.stack.push(Value::Bool(false)),
            digits => {
                let digits = digits.strip_suffix('L').unwrap_or(digits);
                self.push_wide(digits.parse().map_err(|_| "an integer that is none, or too long")?);
            }
        }
        Ok(())
    }

    fn push_wide(&mut self, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.stack.push(Value::Int(value)),
            Err(_) => self.push_node(Node::Long(value)),
        }
    }

    fn push_str(&mut self, size: usize) -> Result<(), Stop> {
        let text = std::str::from_utf8(self.prefixed(size)?).map_err(|_| "a text that is not UTF-8")?;
        self.stack.push(Value::Str(text));
        Ok(())
    }

    fn push_bytes(&mut self, size: usize) -> Result<(), Stop> {
        let bytes = self.prefixed(size)?;
        self.stack.push(Value::Bytes(bytes));
        Ok(())
    }

    // --- Stack, memo, arena ---

    /// Takes the top `count` values, not reaching below the innermost MARK.
    fn pop_many(&mut self, count: usize) -> Result<Vec<Value<'a>>, Stop> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count).filter(|&height| height >= floor) {
            Some(height) => Ok(self.stack.drain(height..).collect()),
            None => Err("takes a value from an empty stack".into()),
        }
    }

    fn pop(&mut self) -> Result<Value<'a>, Stop> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn top(&self) -> Result<Value<'a>, Stop> {
        let above = &self.stack[self.marks.last().copied().unwrap_or(0).min(self.stack.len())..];
        above.last().copied().ok_or_else(|| "takes a value from an empty stack".into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>, Stop> {
        let mark = self.marks.pop().ok_or("goes back to a mark never set")?;
        Ok(self.stack.drain(mark..).collect())
    }

    fn push_node(&mut self, node: Node<'a>) {
        self.stack.push(Value::Node(NodeId(self.nodes.len())));
        self.nodes.push(node);
    }

    fn memoize(&mut self, size: usize) -> Result<(), Stop> {
        let index = self.unsigned(size)?;
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, size: usize) -> Result<(), Stop> {
        let index = self.unsigned(size)?;
        let value =
            self.memo.get(&index).ok_or_else(|| format!("recalls memo {index}, which was never set"))?;
        self.stack.push(*value);
        Ok(())
    }

    /// The container on top of the stack, to be changed in place.
    fn top_node(&mut self) -> Result<&mut Node<'a>, Stop> {
        match self.top()? {
            Value::Node(id) => Ok(&mut self.nodes[id.0]),
            _ => Err("changes a value that is not a container".into()),
        }
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Result<(), Stop> {
        match self.top_node()? {
            Node::List(list) | Node::Set(list) => list.extend(items),
            _ => return Err("appends to something that is not a list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Value<'a>]) -> Result<(), Stop> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a dict key without a value".into());
        }
        let entries = match self.top_node()? {
            Node::Dict(entries) => entries,
            Node::Object(object) => &mut object.items,
            _ => return Err("sets a key of something that is not a dict".into()),
        };
        entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn push_global(&mut self, global: Global<'a>) -> Result<(), Stop> {
        if !globals::is_listed(global.module, global.name) {
            let name = format!("{}.{}", global.module, global.name);
            let shown: String = name.escape_debug().take(100).collect();
            return Err(Stop::Forbidden(shown));
        }
        self.stack.push(Value::Global(GlobalId(self.globals.len())));
        self.globals.push(global);
        Ok(())
    }

    /// Keeps what would be called, and with what.
    fn call(&mut self) -> Result<(), Stop> {
        match self.pop_many(2)?[..] {
            [Value::Global(callable), Value::Node(arguments)]
                if matches!(self.nodes[arguments.0], Node::Tuple(_)) =>
            {
                let object = Object { callable, arguments, state: None, items: Vec::new() };
                self.push_node(Node::Object(Box::new(object)));
                Ok(())
            }
            [Value::Global(_), _] => Err("calls a function with something that is not a tuple".into()),
            _ => Err("calls something that is not a function".into()),
        }
    }
}
