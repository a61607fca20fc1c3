//! Memory that kernels work on: aligned arrays, and the table of where each buffer lies.

use schedule::BufferId;

/// Floats in a cache line.
const LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// An array of `f32` that starts on a cache line. Its address never changes.
pub struct Floats {
    lines: Box<[Line]>,
    len: usize,
}

impl Floats {
    /// Zeros.
    pub fn zeros(len: usize) -> Floats {
        Floats { lines: vec![Line([0.0; LINE]); len.div_ceil(LINE)].into_boxed_slice(), len }
    }

    /// A copy.
    pub fn from_slice(values: &[f32]) -> Floats {
        let mut floats = Floats::zeros(values.len());
        floats.as_mut_slice().copy_from_slice(values);
        floats
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> u64 {
        std::mem::size_of_val(&*self.lines) as u64
    }

    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: `Line` is LINE floats without padding, and there are at least `len` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.lines.as_mut_ptr().cast()
    }
}

/// Where each buffer of a schedule lies.
///
/// The arrays belong to the executable and to the device's state; both outlive the table, and the
/// executable holds the state's lock while kernels run.
pub struct Memory {
    pub(crate) bases: Vec<*mut f32>,
    pub(crate) lens: Vec<usize>,
}

// SAFETY: the table is only addresses; kernels write disjoint parts from several threads.
unsafe impl Send for Memory {}
unsafe impl Sync for Memory {}

impl Memory {
    /// The address of a buffer.
    pub fn base(&self, buffer: BufferId) -> *mut f32 {
        self.bases[buffer]
    }

    /// Elements of a buffer.
    pub fn len(&self, buffer: BufferId) -> usize {
        self.lens[buffer]
    }

    /// A buffer's elements.
    ///
    /// # Safety
    /// Nothing may write to the buffer while the slice is alive.
    pub unsafe fn slice(&self, buffer: BufferId) -> &[f32] {
        // SAFETY: the table's entries are valid for their lengths; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.bases[buffer], self.lens[buffer]) }
    }

    /// A buffer's elements, to be written.
    ///
    /// # Safety
    /// Nothing else may use the buffer while the slice is alive.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice_mut(&self, buffer: BufferId) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.bases[buffer], self.lens[buffer]) }
    }
}
