//! Memory that kernels work on: aligned arrays, slices that threads share, and the table of where each
//! buffer lies.

use std::marker::PhantomData;
use std::ops::Range;

use schedule::BufferId;

/// Floats in a cache line.
pub const LINE: usize = 16;

/// Rounds a number of floats up to whole cache lines, so that what follows them starts on one.
pub fn lines(len: usize) -> usize {
    len.next_multiple_of(LINE)
}

/// Bytes of memory that this machine, or the group of processes that this one is in, has left; `None` where that
/// cannot be told.
pub fn free_bytes() -> Option<u64> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let machine = 1024 * (kib("MemAvailable:")? + kib("SwapFree:").unwrap_or(0));
    // What files keep cached gives way.
    let taken = || {
        let stat = std::fs::read_to_string("/sys/fs/cgroup/memory.stat").ok()?;
        stat.lines().find_map(|line| line.strip_prefix("anon "))?.trim().parse::<u64>().ok()
    };
    let group = number("/sys/fs/cgroup/memory.max").and_then(|limit| Some(limit.saturating_sub(taken()?)));
    Some(group.map_or(machine, |group| group.min(machine)))
}

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

/// A mutable slice that several threads write disjoint parts of.
#[derive(Clone, Copy)]
pub struct SharedSlice<'a> {
    start: *mut f32,
    len: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is only a pointer; every access goes through `range`, whose contract is disjointness.
unsafe impl Send for SharedSlice<'_> {}
unsafe impl Sync for SharedSlice<'_> {}

impl<'a> SharedSlice<'a> {
    /// Takes the slice over for as long as any copy of the result lives.
    pub fn new(data: &'a mut [f32]) -> SharedSlice<'a> {
        SharedSlice { start: data.as_mut_ptr(), len: data.len(), owner: PhantomData }
    }

    /// Elements of the whole slice.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where element `at` lies, for kernels whose parts are not runs of elements.
    ///
    /// # Panics
    /// If `at` is beyond the end.
    pub fn pointer(&self, at: usize) -> *mut f32 {
        assert!(at <= self.len);
        self.start.wrapping_add(at)
    }

    /// A part of the slice, as shared as the whole.
    pub fn part(&self, range: Range<usize>) -> SharedSlice<'a> {
        assert!(range.start <= range.end && range.end <= self.len);
        SharedSlice { start: self.start.wrapping_add(range.start), len: range.len(), owner: PhantomData }
    }

    /// A part of the slice, to be written.
    ///
    /// # Safety
    /// No two parts that overlap may be alive at once.
    ///
    /// # Panics
    /// If the range is not inside the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn range(&self, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds by the assertion, alive for 'a, unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
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

    /// A buffer's elements, shared by threads.
    pub fn shared(&self, buffer: BufferId) -> SharedSlice<'_> {
        SharedSlice { start: self.bases[buffer], len: self.lens[buffer], owner: PhantomData }
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
