//! Which memory a kernel touches, and the binding each gets.
//!
//! WebGPU forbids binding one buffer for reading and for writing in the same dispatch, so everything a
//! kernel does with one allocation goes through one binding when any of it is a write.

use std::collections::BTreeSet;
use std::fmt::Write;

use schedule::BufferId;

use crate::element::Element;
use crate::launch::{Access, Bound, Context, Place, Scratch, Storage};

/// The bindings of a kernel that is being written.
pub struct Bindings<'a> {
    context: Context<'a>,
    /// Memory that the kernel writes.
    written: BTreeSet<Storage>,
    /// Memory that is used as single elements somewhere.
    scalar: BTreeSet<Storage>,
    entries: Vec<Entry>,
}

struct Entry {
    bound: Bound,
    vectors: bool,
}

impl<'a> Bindings<'a> {
    /// Bindings for a kernel that writes exactly these buffers.
    pub fn new(context: Context<'a>, written: impl IntoIterator<Item = BufferId>) -> Self {
        let written = written.into_iter().map(|b| Storage::Memory(context.places[b].memory)).collect();
        Bindings { context, written, scalar: BTreeSet::new(), entries: Vec::new() }
    }

    /// Says that the kernel will also use single elements of a buffer.
    pub fn require_scalar(&mut self, buffer: BufferId) {
        self.scalar.insert(Storage::Memory(self.context.places[buffer].memory));
    }

    /// Whether vector access to the buffer goes through an array of vectors. Memory that is written
    /// and also used as single elements has one binding, of single elements; memory that is only read
    /// has one of each, unless bindings are short.
    pub fn binds_vectors(&self, buffer: BufferId) -> bool {
        let storage = Storage::Memory(self.context.places[buffer].memory);
        !(self.scalar.contains(&storage) && (self.context.tight || self.written.contains(&storage)))
    }

    /// The WGSL name of a schedule's buffer, as `array<vec4<f32>>` or `array<f32>`.
    pub fn buffer(&mut self, buffer: BufferId, vectors: bool) -> String {
        let Place { memory, len, element } = self.context.places[buffer];
        let storage = Storage::Memory(memory);
        let access = if self.written.contains(&storage) { Access::ReadWrite } else { Access::Read };
        self.name(Bound { storage, access, element, offset: 0, len }, vectors)
    }

    /// How a schedule's buffer is stored.
    pub fn element(&self, buffer: BufferId) -> Element {
        self.context.places[buffer].element
    }

    /// The WGSL name of scratch or packed memory.
    pub fn scratch(&mut self, scratch: Scratch, access: Access, vectors: bool) -> String {
        let Scratch { storage, element, len } = scratch;
        self.name(Bound { storage, access, element, offset: 0, len }, vectors)
    }

    fn name(&mut self, bound: Bound, vectors: bool) -> String {
        let found = self.entries.iter().position(|entry| {
            let is_same = entry.bound.storage == bound.storage && entry.bound.access == bound.access;
            is_same && (bound.access == Access::ReadWrite || entry.vectors == vectors)
        });
        let position = found.unwrap_or_else(|| {
            self.entries.push(Entry { bound, vectors });
            self.entries.len() - 1
        });
        let entry = &mut self.entries[position].bound;
        debug_assert_eq!(entry.element, bound.element, "a kernel's buffers of one memory are stored alike");
        // Slots are shared by buffers of different sizes; the binding spans the largest in use.
        entry.len = entry.len.max(bound.len);
        format!("b{position}")
    }

    /// The `var` lines, and the bindings in order.
    pub fn finish(self) -> (String, Vec<Bound>) {
        let mut text = String::new();
        for (i, Entry { bound, vectors }) in self.entries.iter().enumerate() {
            let element = bound.element.wgsl(*vectors);
            let access = match bound.access {
                Access::Read => "read",
                Access::ReadWrite => "read_write",
            };
            let _ = writeln!(
                text,
                "@group(0) @binding({}) var<storage, {access}> b{i}: array<{element}>;",
                i + 1
            );
        }
        (text, self.entries.into_iter().map(|entry| entry.bound).collect())
    }
}
