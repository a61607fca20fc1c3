//! How tensors enter and leave a kernel: [`Source`], [`Sink`] and the [`Workspace`] between.

use std::marker::PhantomData;
use std::ops::Range;

/// Where a kernel fetches an operand, an image `[H, W, C]` at a time or a few rows of one.
///
/// A plain tensor is [`Dense`]. A fused elementwise expression evaluates itself into the kernel's
/// scratch memory, which stays in cache; the same rows may be asked for more than once and must
/// come out the same.
pub trait Source: Sync {
    /// Writes rows `rows` of image `image` to `out`, `[rows, W, C]`.
    fn rows(&self, image: usize, rows: Range<usize>, out: &mut [f32]);

    /// The whole tensor `[N, H, W, C]`, when it lies in memory as it is. Kernels then read it in
    /// place and never call [`Source::rows`].
    fn direct(&self) -> Option<&[f32]> {
        None
    }

    /// A hint that these rows will be asked for soon, given in `parts` calls while the kernel
    /// computes something else: call [`prefetch`] with the last two arguments for the memory that
    /// [`Source::rows`] will read. It makes a large difference, because each task begins where the
    /// processor's own prefetching does not expect it.
    fn ahead(&self, _image: usize, _rows: Range<usize>, _part: usize, _parts: usize) {}
}

/// Where a kernel leaves its result, a few rows of one image at a time.
pub trait Sink: Sync {
    /// The whole result tensor `[N, H, W, C]`, when tiles may be written into it directly;
    /// otherwise tiles are made in scratch memory and [`Sink::finish`] has to store them.
    fn target(&self) -> Option<SharedSlice<'_>> {
        None
    }

    /// Receives rows `rows` of image `image` as `tile`, `[rows, W, C]`, hot in cache. When there is
    /// a [`Sink::target`], `tile` is that part of it, and what is changed here is the result.
    ///
    /// Called exactly once for every (image, block), where block `b` is the rows from
    /// `b * tile_rows` up to the next block or the image's end, with [`Plan::tile_rows`]; from
    /// several threads at once, in no fixed order.
    ///
    /// [`Plan::tile_rows`]: super::Plan::tile_rows
    fn finish(&self, image: usize, rows: Range<usize>, tile: &mut [f32]);

    /// A hint that [`Sink::finish`] will be called for these rows soon, like [`Source::ahead`]: for
    /// what it reads (a residual), or writes other than the target.
    fn ahead(&self, _image: usize, _rows: Range<usize>, _part: usize, _parts: usize) {}
}

/// A tensor in memory as a [`Source`].
#[derive(Clone, Copy)]
pub struct Dense<'a> {
    data: &'a [f32],
    row: usize,
    image: usize,
}

impl<'a> Dense<'a> {
    /// A tensor `[N, height, width, channels]`.
    pub fn new(data: &'a [f32], height: usize, width: usize, channels: usize) -> Dense<'a> {
        Dense { data, row: width * channels, image: height * width * channels }
    }
}

impl Source for Dense<'_> {
    fn rows(&self, image: usize, rows: Range<usize>, out: &mut [f32]) {
        let start = image * self.image + rows.start * self.row;
        out.copy_from_slice(&self.data[start..start + rows.len() * self.row]);
    }

    fn direct(&self) -> Option<&[f32]> {
        Some(self.data)
    }

    fn ahead(&self, image: usize, rows: Range<usize>, part: usize, parts: usize) {
        let start = image * self.image + rows.start * self.row;
        let data = &self.data[start..start + rows.len() * self.row];
        prefetch(data.as_ptr(), data.len(), part, parts);
    }
}

/// A [`Sink`] that only stores.
pub struct Store<'a>(SharedSlice<'a>);

impl<'a> Store<'a> {
    /// Stores to a tensor `[N, H, W, C]`.
    pub fn new(out: &'a mut [f32]) -> Store<'a> {
        Store(SharedSlice::new(out))
    }
}

impl Sink for Store<'_> {
    fn target(&self) -> Option<SharedSlice<'_>> {
        Some(self.0)
    }

    fn finish(&self, _image: usize, _rows: Range<usize>, _tile: &mut [f32]) {}
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

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where element `at` lies, for kernels whose parts are not runs of elements.
    ///
    /// # Panics
    /// If `at` is beyond the end.
    pub(super) fn pointer(&self, at: usize) -> *mut f32 {
        assert!(at <= self.len);
        self.start.wrapping_add(at)
    }

    /// A part of the slice, as shared as the whole.
    pub(super) fn part(&self, range: Range<usize>) -> SharedSlice<'a> {
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

/// What a task hints at while it computes.
pub(super) struct Ahead<'a> {
    pub source: &'a dyn Source,
    pub sink: &'a dyn Sink,
    /// What the next task of this thread will probably read: images and rows.
    pub read: [Range<usize>; 2],
    /// What this task makes, and where that lies in the sink's target.
    pub make: [Range<usize>; 2],
    pub target: Option<SharedSlice<'a>>,
}

impl Ahead<'_> {
    pub fn step(&self, part: usize, parts: usize) {
        let [images, rows] = &self.read;
        for image in images.clone() {
            self.source.ahead(image, rows.clone(), part, parts);
        }
        let [images, rows] = &self.make;
        for image in images.clone() {
            self.sink.ahead(image, rows.clone(), part, parts);
        }
        if let Some(target) = self.target {
            prefetch_lines::<true>(target.start, target.len, part, parts);
        }
    }
}

/// Asks for one of `parts` equal parts of `len` floats to be brought into the second-level cache. Nothing is
/// read: other threads may be writing there.
pub fn prefetch(start: *const f32, len: usize, part: usize, parts: usize) {
    prefetch_lines::<false>(start, len, part, parts);
}

fn prefetch_lines<const WRITE: bool>(start: *const f32, len: usize, part: usize, parts: usize) {
    let lines = len.div_ceil(LINE);
    for line in lines * part / parts..lines * (part + 1) / parts {
        let at = start.wrapping_add(line * LINE);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, which may be given for any address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_ET1, _MM_HINT_T1, _mm_prefetch};
            if WRITE {
                _mm_prefetch::<_MM_HINT_ET1>(at.cast());
            } else {
                _mm_prefetch::<_MM_HINT_T1>(at.cast());
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}

/// Rows `rows` of an image of `source`, whose images have `dims` rows, columns and channels: in place, or
/// fetched into `own`.
pub(super) fn fetch<'a>(
    source: &'a dyn Source,
    dims: [usize; 3],
    image: usize,
    rows: Range<usize>,
    own: &'a mut [f32],
) -> &'a [f32] {
    let len = dims[1] * dims[2];
    match source.direct() {
        Some(data) => &data[(image * dims[0] + rows.start) * len..][..rows.len() * len],
        None => {
            let own = &mut own[..rows.len() * len];
            if !rows.is_empty() {
                source.rows(image, rows, own);
            }
            own
        }
    }
}

/// Floats in a cache line; scratch areas start on multiples of it.
pub(super) const LINE: usize = 16;

/// Rounds a number of floats up to whole cache lines.
pub(super) fn lines(len: usize) -> usize {
    len.next_multiple_of(LINE)
}

/// From one of many equal pieces to the next, where each is read a little at a time in turn: multiples of
/// 512 bytes would fall into the same few cache sets.
pub(super) fn spread(len: usize) -> usize {
    if len.is_multiple_of(128) { len + LINE } else { len }
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Scratch memory for the kernels, aligned to cache lines, kept between calls.
#[derive(Default)]
pub struct Workspace {
    memory: Vec<Line>,
}

impl Workspace {
    /// An empty workspace; kernels grow it on their first call unless [`Workspace::reserve`] was
    /// called with what [`Plan::workspace_len`](super::Plan::workspace_len) says.
    pub fn new() -> Workspace {
        Workspace::default()
    }

    /// Makes room for `len` floats. Never shrinks.
    pub fn reserve(&mut self, len: usize) {
        let lines = len.div_ceil(LINE);
        if self.memory.len() < lines {
            self.memory.resize(lines, Line([0.0; LINE]));
        }
    }

    /// Floats it holds.
    pub fn len(&self) -> usize {
        self.memory.len() * LINE
    }

    /// Whether it holds nothing yet.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// The first `len` floats, which hold whatever the last call left there.
    pub(super) fn get(&mut self, len: usize) -> &mut [f32] {
        self.reserve(len);
        // SAFETY: `Line` is exactly LINE floats, without padding, and there are enough of them.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), len) }
    }
}
