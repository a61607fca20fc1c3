//! What all kernels are compiled from and run with.

#[cfg(doc)]
use crate::block;
use crate::isa::Isa;
use crate::kernels::Pool;
use crate::memory::Memory;

/// What compiling a kernel needs to know.
pub struct Compile {
    /// Threads that will run it.
    pub threads: usize,
    /// The memory each buffer lies in: buffers with equal entries may overlap.
    pub regions: Vec<usize>,
}

/// What running a kernel needs.
pub struct Runtime<'a> {
    pub isa: Isa,
    /// The number of this launch, from [`block::launch`].
    pub launch: u64,
    pub pool: &'a Pool,
    pub memory: &'a Memory,
    /// Scratch memory that is this kernel's for the run: as much as it asked for, aligned to 64 bytes.
    pub area: Area,
}

/// The start of a scratch area.
#[derive(Clone, Copy)]
pub struct Area(pub *mut f32);

// SAFETY: only an address; kernels hand disjoint parts of the area to their threads.
unsafe impl Send for Area {}
unsafe impl Sync for Area {}
