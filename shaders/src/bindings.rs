//! Which memory a kernel touches, and the binding each gets.
//!
//! WebGPU forbids binding one buffer for reading and for writing in the same dispatch, so everything a
//! kernel does with one allocation goes through one binding when any of it is a write.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use schedule::ir::BufferId;

use crate::{Context, Element, Place};

/// What a binding points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Storage {
    /// [`Place::memory`].
    Memory(usize),
    /// [`Assembled::scratch`](crate::Assembled::scratch), by index.
    Scratch(usize),
    /// [`Assembled::kept`](crate::Assembled::kept), by index.
    Kept(usize),
}

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    Read,
    ReadWrite,
    /// Read through a uniform binding: small, but fast on software drivers.
    Uniform,
}

/// How a buffer meets a uniform binding, see [`Bindings::window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// All of it.
    Whole,
    /// So many images of so many elements each; a launch says which is the first.
    Images { count: usize, stride: usize },
}

/// One binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    pub storage: Storage,
    pub access: Access,
    pub element: Element,
    /// First element bound.
    pub offset: usize,
    /// Elements bound.
    pub len: usize,
}

impl Bound {
    /// Bytes bound, see [`Element::bytes`].
    pub fn bytes(&self) -> u64 {
        self.element.bytes(self.len)
    }

    /// Where it begins.
    pub fn offset_bytes(&self) -> u64 {
        if self.offset == 0 { 0 } else { self.element.bytes(self.offset) }
    }
}

/// Memory of a kernel's own.
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    pub storage: Storage,
    pub element: Element,
    pub len: usize,
}

impl Scratch {
    /// The kernel's first scratch allocation, of this many `f32`.
    pub fn first(len: usize) -> Scratch {
        Scratch { storage: Storage::Scratch(0), element: Element::F32, len }
    }

    pub fn bytes(&self) -> u64 {
        self.element.bytes(self.len)
    }
}

/// The bindings of a kernel that is being written.
pub struct Bindings<'a> {
    context: Context<'a>,
    /// Memory that the kernel writes.
    written: BTreeSet<Storage>,
    /// Memory that is used as single elements somewhere.
    scalar: BTreeSet<Storage>,
    /// What is read through uniform bindings.
    windows: BTreeMap<BufferId, Window>,
    /// Which of several windows side by side is read at present.
    section: usize,
    entries: Vec<Entry>,
}

struct Entry {
    bound: Bound,
    vectors: bool,
    /// Elements from one image of a window to the next, zero where the binding stays.
    stride: usize,
}

impl<'a> Bindings<'a> {
    /// Bindings for a kernel that writes exactly these buffers.
    pub fn new(context: Context<'a>, written: impl IntoIterator<Item = BufferId>) -> Self {
        let written = written.into_iter().map(|b| Storage::Memory(context.places[b].memory)).collect();
        let windows = BTreeMap::new();
        Bindings { context, written, scalar: BTreeSet::new(), windows, section: 0, entries: Vec::new() }
    }

    /// Reads a buffer through a uniform binding from now on.
    pub fn window(&mut self, buffer: BufferId, window: Window) {
        self.windows.insert(buffer, window);
    }

    /// From now on reads windows that begin so many windows further on.
    pub fn section(&mut self, section: usize) {
        self.section = section;
    }

    /// Where single elements of a buffer are, as WGSL after the binding's name.
    pub fn element_at(&self, buffer: BufferId, at: &str) -> String {
        match self.windows.get(&buffer) {
            None => format!("[{at}]"),
            Some(_) => {
                let at = self.relative(buffer, at);
                format!("[({at}) >> 2u][({at}) & 3]")
            }
        }
    }

    /// The index of a vector whose first element is number `at` of the buffer.
    pub fn vector_at(&self, buffer: BufferId, at: &str) -> String {
        format!("({}) >> 2u", self.relative(buffer, at))
    }

    fn relative(&self, buffer: BufferId, at: &str) -> String {
        match self.windows.get(&buffer) {
            Some(Window::Images { stride, .. }) if self.section == 0 => {
                format!("{at} - i32(params.window) * {stride}")
            }
            Some(Window::Images { count, stride }) => {
                format!("{at} - i32(params.window) * {stride} - {}", self.section * count * stride)
            }
            _ => at.to_string(),
        }
    }

    /// Says that the kernel will also use single elements of a buffer.
    pub fn require_scalar(&mut self, buffer: BufferId) {
        if self.windows.contains_key(&buffer) {
            return;
        }
        self.scalar.insert(Storage::Memory(self.context.places[buffer].memory));
    }

    /// Whether vector access to the buffer goes through an array of vectors. Memory that is written
    /// and also used as single elements has one binding, of single elements; memory that is only read
    /// has one of each, unless bindings are short.
    pub fn binds_vectors(&self, buffer: BufferId) -> bool {
        if self.windows.contains_key(&buffer) {
            return true;
        }
        let storage = Storage::Memory(self.context.places[buffer].memory);
        !(self.scalar.contains(&storage) && (self.context.tight || self.written.contains(&storage)))
    }

    /// The WGSL name of a schedule's buffer, as `array<vec4<f32>>` or `array<f32>`.
    pub fn buffer(&mut self, buffer: BufferId, vectors: bool) -> String {
        let Place { memory, offset, len, element } = self.context.places[buffer];
        let storage = Storage::Memory(memory);
        let (from, len, stride) = match self.windows.get(&buffer) {
            None => {
                let written = self.written.contains(&storage);
                let access = if written { Access::ReadWrite } else { Access::Read };
                return self.name(Bound { storage, access, element, offset, len }, vectors, 0);
            }
            Some(Window::Whole) => (offset, len.next_multiple_of(4), 0),
            Some(Window::Images { count, stride }) => {
                (offset + self.section * count * stride, count * stride, *stride)
            }
        };
        self.name(Bound { storage, access: Access::Uniform, element, offset: from, len }, true, stride)
    }

    /// How a schedule's buffer is stored.
    pub fn element(&self, buffer: BufferId) -> Element {
        self.context.places[buffer].element
    }

    /// The WGSL name of scratch or kept memory.
    pub fn scratch(&mut self, scratch: Scratch, access: Access, vectors: bool) -> String {
        let Scratch { storage, element, len } = scratch;
        self.name(Bound { storage, access, element, offset: 0, len }, vectors, 0)
    }

    fn name(&mut self, bound: Bound, vectors: bool, stride: usize) -> String {
        let found = self.entries.iter().position(|entry| {
            let is_same = entry.bound.storage == bound.storage && entry.bound.access == bound.access;
            let place = (entry.bound.offset, entry.vectors, entry.stride);
            is_same && (bound.access == Access::ReadWrite || place == (bound.offset, vectors, stride))
        });
        let position = found.unwrap_or_else(|| {
            self.entries.push(Entry { bound, vectors, stride });
            self.entries.len() - 1
        });
        let entry = &mut self.entries[position].bound;
        // Slots are shared by buffers of different sizes; the binding spans the largest in use.
        entry.len = entry.len.max(bound.len);
        format!("b{position}")
    }

    /// The `var` lines, and the bindings in order.
    pub fn finish(self) -> (String, Vec<Bound>) {
        let (text, windows) = self.finish_windows();
        (text, windows.into_iter().map(|(bound, _)| bound).collect())
    }

    /// As [`Bindings::finish`]; beside each binding how far it moves from one image to the next.
    pub fn finish_windows(self) -> (String, Vec<(Bound, usize)>) {
        let mut text = String::new();
        for (i, Entry { bound, vectors, .. }) in self.entries.iter().enumerate() {
            let element = bound.element.wgsl(*vectors);
            let binding = i + 1;
            let variable = match bound.access {
                Access::Read => format!("var<storage, read> b{i}: array<{element}>"),
                Access::ReadWrite => format!("var<storage, read_write> b{i}: array<{element}>"),
                Access::Uniform => format!("var<uniform> b{i}: array<{element}, {}>", bound.len / 4),
            };
            let _ = writeln!(text, "@group(0) @binding({binding}) {variable};");
        }
        (text, self.entries.into_iter().map(|entry| (entry.bound, entry.stride)).collect())
    }
}
