//! What assembly works with and what it makes: buffers' places, bindings, launches.

use std::sync::Arc;

use autograd::{Error, Result};

use crate::choice::Choice;
use crate::element::Element;
use crate::target::Target;

/// Where a schedule's buffer lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which allocation; two buffers that share one (slots, variables) have the same number.
    pub memory: usize,
    /// Its elements, from the allocation's first on.
    pub len: usize,
    /// How they are stored.
    pub element: Element,
}

/// What assembly needs to know besides the kernel.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Where each of the schedule's buffers lies.
    pub places: &'a [Place],
    /// See [`Schedule::frozen`](schedule::Schedule::frozen): what depends only on such buffers is packed once.
    pub frozen: &'a [bool],
    /// The adapter that kernels are written for.
    pub target: &'a Target,
    /// How the kernel is computed, one of its [`candidates`](crate::candidates); the first of them if not given.
    pub choice: Option<Choice>,
    /// Binds every buffer once, at the price of vector access to those that also need single elements.
    /// [`assemble`](crate::assemble) sets it where bindings are short.
    pub tight: bool,
}

/// What a binding points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Storage {
    /// [`Place::memory`].
    Memory(usize),
    /// [`Assembled::scratch`](crate::Assembled::scratch), by index.
    Scratch(usize),
    /// [`Sequence::packed`](crate::Sequence::packed), by index; in an [`Assembled`](crate::Assembled) number 0, for its
    /// [`pack`](crate::Assembled::pack).
    Packed(usize),
}

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Only read.
    Read,
    /// Written, and perhaps read.
    ReadWrite,
}

/// One binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The memory.
    pub storage: Storage,
    /// How the kernel uses it.
    pub access: Access,
    /// How its elements are stored.
    pub element: Element,
    /// Bytes before the first element bound, a multiple of 256.
    pub offset: u64,
    /// Elements bound.
    pub len: usize,
}

impl Bound {
    /// Bytes bound, see [`Element::bytes`].
    pub fn bytes(&self) -> u64 {
        self.element.bytes(self.len)
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

/// One dispatch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The label of the kernel that it is a part of.
    pub label: String,
    /// A WGSL module with one entry point, `main`. Binding 0 of group 0 is a uniform that holds
    /// [`count`](Launch::count), the other bindings follow. Kernels of one form share it whatever their sizes.
    pub source: Arc<str>,
    /// Bindings in order; number `i` is binding `i + 1`.
    pub bindings: Vec<Bound>,
    /// Threads, or workgroups, that have work: the last workgroup may have more.
    pub count: u32,
    /// Workgroups in each dimension, none over the target's limit.
    pub groups: [u32; 3],
}

impl Launch {
    /// Workgroups in all dimensions.
    pub fn workgroups(&self) -> usize {
        self.groups.iter().map(|&groups| groups as usize).product()
    }

    /// Whether the target can run it.
    ///
    /// # Errors
    /// [`Error::Limit`] with what is too much.
    pub fn check(&self, target: &Target) -> Result<()> {
        let limits = &target.limits;
        if self.bindings.len() > limits.storage_buffers as usize {
            return Err(Error::Limit(format!(
                "kernel `{}` needs {} storage buffers, the device allows {}",
                self.label,
                self.bindings.len(),
                limits.storage_buffers
            )));
        }
        for bound in &self.bindings {
            if bound.bytes() > limits.binding_bytes {
                return Err(Error::Limit(format!(
                    "kernel `{}` binds {} MiB at once, the device allows {} MiB: use a smaller batch",
                    self.label,
                    bound.bytes() >> 20,
                    limits.binding_bytes >> 20
                )));
            }
        }
        if self.groups.iter().any(|&g| g > limits.groups) {
            return Err(Error::Limit(format!(
                "kernel `{}` needs {:?} workgroups, the device allows {} a dimension",
                self.label, self.groups, limits.groups
            )));
        }
        Ok(())
    }
}
