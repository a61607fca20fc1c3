//! A reader for the pickles of the CIFAR python releases, and for nothing else.
//!
//! A pickle is a program for a stack machine that may call any function. This one knows dictionaries,
//! lists, tuples, integers and strings, and exactly the calls that rebuild a numpy array of bytes; everything
//! else is an error. It understands protocol 2, which Python 2 wrote for the releases, and what protocols
//! 2 to 5 of Python 3 write for the same contents. Values live in one arena and refer to each other by
//! number, so neither deep nor cyclic input can overflow the stack.

use std::borrow::Cow;
use std::collections::HashMap;

/// Where and why a pickle could not be read.
#[derive(Debug)]
pub(super) struct PickleError {
    /// Byte position of the offending opcode.
    pub offset: usize,
    /// What was wrong.
    pub reason: String,
}

type NodeId = usize;

#[derive(Debug)]
enum Node<'a> {
    None,
    Bool(bool),
    Integer(i64),
    /// Python 2 strings, Python 3 bytes.
    Bytes(Cow<'a, [u8]>),
    Text(&'a str),
    List(Vec<NodeId>),
    Tuple(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    Callable(Callable),
    /// numpy's dtype, by its code; "u1" is uint8.
    Dtype(String),
    Array(Option<Array>),
}

/// A numpy array of bytes in C order; `data` is the node that holds them.
#[derive(Debug)]
struct Array {
    shape: Vec<usize>,
    data: NodeId,
}

/// The only globals that may be named.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Callable {
    /// Makes an empty array, to be filled by BUILD.
    Reconstruct,
    /// The array's type, as the first argument of the above.
    Ndarray,
    Dtype,
    /// Protocol 5's whole array in one call.
    FromBuffer,
    /// How Python 3 writes bytes for protocol 2: text encoded as Latin-1.
    Encode,
}

impl Callable {
    fn named(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Some(Self::Reconstruct),
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Some(Self::FromBuffer),
            ("numpy", "ndarray") => Some(Self::Ndarray),
            ("numpy", "dtype") => Some(Self::Dtype),
            ("_codecs", "encode") => Some(Self::Encode),
            _ => None,
        }
    }
}

/// A read pickle; the values borrow from the file's bytes where they can.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    root: NodeId,
}

/// A value in a [`Pickle`].
#[derive(Clone, Copy)]
pub(super) struct Value<'p> {
    nodes: &'p [Node<'p>],
    id: NodeId,
}

impl<'a> Pickle<'a> {
    /// Runs the program in `bytes`.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, PickleError> {
        let mut machine = Machine {
            bytes,
            position: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        loop {
            let offset = machine.position;
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => return Ok(Self { nodes: machine.nodes, root }),
                Err(reason) => return Err(PickleError { offset, reason }),
            }
        }
    }

    /// The pickled value.
    pub(super) fn root(&self) -> Value<'_> {
        Value { nodes: &self.nodes, id: self.root }
    }
}

impl<'p> Value<'p> {
    fn node(self) -> &'p Node<'p> {
        &self.nodes[self.id]
    }

    /// The entry `key` of a dictionary.
    pub(super) fn get(self, key: &str) -> Option<Value<'p>> {
        let Node::Dict(entries) = self.node() else { return None };
        let is_key = |id: NodeId| match &self.nodes[id] {
            Node::Bytes(bytes) => bytes.as_ref() == key.as_bytes(),
            Node::Text(text) => *text == key,
            _ => false,
        };
        // A later entry replaces an earlier one.
        let found = entries.iter().rev().find(|(id, _)| is_key(*id))?;
        Some(Value { nodes: self.nodes, id: found.1 })
    }

    fn items(self) -> Option<impl Iterator<Item = &'p Node<'p>>> {
        let Node::List(items) = self.node() else { return None };
        Some(items.iter().map(move |&id| &self.nodes[id]))
    }

    /// A list of integers.
    pub(super) fn integers(self) -> Option<Vec<i64>> {
        let integer = |node: &Node| match node {
            Node::Integer(value) => Some(*value),
            _ => None,
        };
        self.items()?.map(integer).collect()
    }

    /// A list of strings.
    pub(super) fn strings(self) -> Option<Vec<String>> {
        let string = |node: &Node| match node {
            Node::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Node::Text(text) => Some((*text).to_owned()),
            _ => None,
        };
        self.items()?.map(string).collect()
    }

    /// Shape and bytes of a numpy array of uint8 in C order.
    pub(super) fn uint8_array(self) -> Option<(&'p [usize], &'p [u8])> {
        let Node::Array(Some(array)) = self.node() else { return None };
        let Node::Bytes(bytes) = &self.nodes[array.data] else { return None };
        Some((&array.shape, bytes))
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<NodeId>,
    /// Stack heights at the open MARKs.
    marks: Vec<usize>,
    memo: HashMap<u64, NodeId>,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// Executes one opcode; STOP yields the result.
    fn step(&mut self) -> Step<Option<NodeId>> {
        let opcode = self.take(1)?[0];
        match opcode {
            0x80 => match self.take(1)?[0] {
                2..=5 => {}
                other => return Err(format!("pickle protocol {other}; 2 to 5 are understood")),
            },
            0x95 => drop(self.take(8)?), // FRAME: a hint of how much follows
            b'.' => return self.pop().map(Some),

            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'K' | b'M' => {
                let value = self.unsigned(if opcode == b'K' { 1 } else { 2 })?;
                self.push(Node::Integer(value as i64));
            }
            b'J' => {
                let value = self.unsigned(4)? as u32 as i32;
                self.push(Node::Integer(i64::from(value)));
            }
            0x8A => self.long()?,

            b'U' | b'C' => self.push_bytes(1)?, // SHORT_BINSTRING, SHORT_BINBYTES
            b'T' | b'B' => self.push_bytes(4)?, // BINSTRING, BINBYTES
            0x8E | 0x96 => self.push_bytes(8)?, // BINBYTES8, BYTEARRAY8
            0x8C => self.push_text(1)?,
            b'X' => self.push_text(4)?,
            0x8D => self.push_text(8)?,

            b'(' => self.marks.push(self.stack.len()),
            b']' => self.push(Node::List(Vec::new())),
            b')' => self.push(Node::Tuple(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b'l' | b't' => {
                let items = self.pop_to_mark()?;
                self.push(if opcode == b'l' { Node::List(items) } else { Node::Tuple(items) });
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Node::Tuple(items));
            }
            b'a' => {
                let items = self.pop_many(1)?;
                self.extend_list(items)?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend_list(items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.extend_dict(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.extend_dict(&items)?;
            }

            b'q' | b'r' => {
                let slot = self.unsigned(if opcode == b'q' { 1 } else { 4 })?;
                let top = self.top()?;
                self.memo.insert(slot, top);
            }
            0x94 => {
                let top = self.top()?;
                self.memo.insert(self.memo.len() as u64, top);
            }
            b'h' | b'j' => {
                let slot = self.unsigned(if opcode == b'h' { 1 } else { 4 })?;
                let id =
                    *self.memo.get(&slot).ok_or_else(|| format!("nothing was stored in memo slot {slot}"))?;
                self.stack.push(id);
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push_callable(module, name)?;
            }
            0x93 => {
                let parts = self.pop_many(2)?;
                let (Node::Text(module), Node::Text(name)) = (&self.nodes[parts[0]], &self.nodes[parts[1]])
                else {
                    return Err("a global whose name is not text".into());
                };
                let (module, name) = (*module, *name);
                self.push_callable(module, name)?;
            }
            b'R' => self.call()?,
            b'b' => self.build()?,
            other => return Err(format!("opcode 0x{other:02x}, which such a file does not contain")),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        if rest.len() < count {
            return Err(format!("the file ends here, but {count} more bytes belong to it"));
        }
        self.position += count;
        Ok(&rest[..count])
    }

    /// A little-endian number of `width` bytes.
    fn unsigned(&mut self, width: usize) -> Step<u64> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.position..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or("a name without an end")?;
        self.position += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a name that is not text".into())
    }

    /// LONG1: a two's complement number of up to 8 bytes.
    fn long(&mut self) -> Step<()> {
        let width = self.unsigned(1)? as usize;
        if width > 8 {
            return Err(format!("an integer of {width} bytes"));
        }
        let value = self.unsigned(width)?;
        let unused = 64 - 8 * width as u32;
        let value = (value.checked_shl(unused).unwrap_or(0) as i64).checked_shr(unused).unwrap_or(0);
        self.push(Node::Integer(value));
        Ok(())
    }

    fn sized(&mut self, width: usize) -> Step<&'a [u8]> {
        let length = self.unsigned(width)?;
        self.take(usize::try_from(length).map_err(|_| format!("a string of {length} bytes"))?)
    }

    fn push_bytes(&mut self, width: usize) -> Step<()> {
        let bytes = self.sized(width)?;
        self.push(Node::Bytes(Cow::Borrowed(bytes)));
        Ok(())
    }

    fn push_text(&mut self, width: usize) -> Step<()> {
        let text = std::str::from_utf8(self.sized(width)?).map_err(|_| "text that is not UTF-8")?;
        self.push(Node::Text(text));
        Ok(())
    }

    fn push_callable(&mut self, module: &str, name: &str) -> Step<()> {
        let callable = Callable::named(module, name)
            .ok_or_else(|| format!("a reference to {module}.{name}, which such a file does not contain"))?;
        self.push(Node::Callable(callable));
        Ok(())
    }

    fn push(&mut self, node: Node<'a>) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    /// Number of values above the innermost MARK, which operations may not reach below.
    fn available(&self) -> usize {
        self.stack.len() - self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Step<NodeId> {
        match self.available() {
            0 => Err("an operation without its operand".into()),
            _ => Ok(self.stack[self.stack.len() - 1]),
        }
    }

    fn pop(&mut self) -> Step<NodeId> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Step<Vec<NodeId>> {
        if self.available() < count {
            return Err("an operation without its operands".into());
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop_to_mark(&mut self) -> Step<Vec<NodeId>> {
        let mark = self.marks.pop().ok_or("the end of a group that was never begun")?;
        Ok(self.stack.split_off(mark))
    }

    fn extend_list(&mut self, mut items: Vec<NodeId>) -> Step<()> {
        let top = self.top()?;
        let Node::List(list) = &mut self.nodes[top] else { return Err("items for what is no list".into()) };
        list.append(&mut items);
        Ok(())
    }

    fn extend_dict(&mut self, items: &[NodeId]) -> Step<()> {
        let top = self.top()?;
        let Node::Dict(entries) = &mut self.nodes[top] else {
            return Err("entries for what is no dictionary".into());
        };
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a key without a value".into());
        }
        entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    /// REDUCE: one of the known calls.
    fn call(&mut self) -> Step<()> {
        let operands = self.pop_many(2)?;
        let (Node::Callable(callable), Node::Tuple(arguments)) =
            (&self.nodes[operands[0]], &self.nodes[operands[1]])
        else {
            return Err("a call of what cannot be called".into());
        };
        let result = match (callable, &arguments[..]) {
            (Callable::Reconstruct, [class, ..])
                if matches!(self.nodes[*class], Node::Callable(Callable::Ndarray)) =>
            {
                Node::Array(None)
            }
            (Callable::Dtype, [code, ..]) => Node::Dtype(self.string(*code)?.into_owned()),
            (Callable::Encode, [text, encoding])
                if matches!(&*self.string(*encoding)?, "latin1" | "latin-1") =>
            {
                Node::Bytes(Cow::Owned(latin1(&self.string(*text)?)?))
            }
            (Callable::FromBuffer, &[data, dtype, shape, order]) => {
                let fortran = self.string(order)? != "C";
                Node::Array(Some(self.array(shape, dtype, fortran, data)?))
            }
            (callable, arguments) => {
                return Err(format!("an unusual call: {callable:?} of {} arguments", arguments.len()));
            }
        };
        self.push(result);
        Ok(())
    }

    /// BUILD: the state of an array or a dtype.
    fn build(&mut self) -> Step<()> {
        let state = self.pop()?;
        let target = self.top()?;
        match (&self.nodes[target], &self.nodes[state]) {
            // Byte order and alignment: of no meaning for single bytes.
            (Node::Dtype(_), Node::Tuple(_)) => Ok(()),
            (Node::Array(None), Node::Tuple(parts)) => {
                let &[_version, shape, dtype, fortran, data] = &parts[..] else {
                    return Err(format!("an array's state of {} parts, not 5", parts.len()));
                };
                let fortran = match &self.nodes[fortran] {
                    Node::Bool(value) => *value,
                    Node::Integer(value) => *value != 0,
                    _ => return Err("an array of unknown memory order".into()),
                };
                self.nodes[target] = Node::Array(Some(self.array(shape, dtype, fortran, data)?));
                Ok(())
            }
            _ => Err("state for what has none".into()),
        }
    }

    fn array(&self, shape: NodeId, dtype: NodeId, fortran: bool, data: NodeId) -> Step<Array> {
        match &self.nodes[dtype] {
            Node::Dtype(code) if matches!(code.as_str(), "u1" | "|u1") => {}
            Node::Dtype(code) => return Err(format!("an array of type '{code}' where uint8 ('u1') belongs")),
            _ => return Err("an array without a type".into()),
        }
        if fortran {
            return Err("an array in column-major order; save it with numpy.ascontiguousarray".into());
        }
        let Node::Tuple(sides) = &self.nodes[shape] else { return Err("an array without a shape".into()) };
        let side = |id: &NodeId| match self.nodes[*id] {
            Node::Integer(value) => usize::try_from(value).map_err(|_| format!("an array with side {value}")),
            _ => Err("an array without a shape".into()),
        };
        let shape: Vec<usize> = sides.iter().map(side).collect::<Step<_>>()?;
        let Node::Bytes(bytes) = &self.nodes[data] else { return Err("an array without contents".into()) };
        let expected = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
        if expected != Some(bytes.len()) {
            return Err(format!("{} bytes for an array of shape {shape:?}", bytes.len()));
        }
        Ok(Array { shape, data })
    }

    fn string(&self, id: NodeId) -> Step<Cow<'_, str>> {
        match &self.nodes[id] {
            Node::Text(text) => Ok(Cow::Borrowed(text)),
            Node::Bytes(bytes) => Ok(String::from_utf8_lossy(bytes)),
            _ => Err("something else where a string belongs".into()),
        }
    }
}

fn latin1(text: &str) -> Step<Vec<u8>> {
    let byte =
        |c: char| u8::try_from(u32::from(c)).map_err(|_| format!("the character {c:?} in a byte string"));
    text.chars().map(byte).collect()
}
