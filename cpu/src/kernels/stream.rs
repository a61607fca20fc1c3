//! How tensors enter and leave a kernel: [`Source`] and [`Sink`].

use std::ops::Range;

use crate::memory::{LINE, SharedSlice};

/// An operand that is computed as it is fetched: a fused elementwise expression evaluates itself into the
/// kernel's scratch memory, which stays in cache.
pub trait Fetch: Sync {
    /// Writes rows `rows` of image `image` to `out`, `[rows, W, C]`. The same rows may be asked for more
    /// than once and must come out the same.
    fn rows(&self, image: usize, rows: Range<usize>, out: &mut [f32]);

    /// A hint that these rows will be asked for soon, given in `parts` calls while the kernel
    /// computes something else: call [`prefetch`] with the last two arguments for the memory that
    /// [`Fetch::rows`] will read. It makes a large difference, because each task begins where the
    /// processor's own prefetching does not expect it.
    fn ahead(&self, _image: usize, _rows: Range<usize>, _part: usize, _parts: usize) {}
}

/// Where a kernel has an operand from, images `[H, W, C]`.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    dims: [usize; 3],
    values: Values<'a>,
}

#[derive(Clone, Copy)]
enum Values<'a> {
    Dense(&'a [f32]),
    Computed(&'a dyn Fetch),
}

impl<'a> Source<'a> {
    /// A tensor in memory; `dims` are an image's height, width and channels.
    pub fn dense(data: &'a [f32], dims: [usize; 3]) -> Source<'a> {
        Source { dims, values: Values::Dense(data) }
    }

    /// One that is computed.
    pub fn computed(fetch: &'a dyn Fetch, dims: [usize; 3]) -> Source<'a> {
        Source { dims, values: Values::Computed(fetch) }
    }

    /// Checks what it consists of.
    ///
    /// # Panics
    /// If it is not that.
    pub(super) fn check(&self, images: usize, dims: [usize; 3]) {
        assert_eq!(self.dims, dims, "an operand's images");
        if let Values::Dense(data) = self.values {
            assert_eq!(data.len(), images * dims.iter().product::<usize>(), "an operand's elements");
        }
    }

    /// Rows `rows` of an image: in place, or computed into `own`.
    pub(super) fn rows<'b>(&'b self, image: usize, rows: Range<usize>, own: &'b mut [f32]) -> &'b [f32] {
        let [height, width, channels] = self.dims;
        let (start, len) = ((image * height + rows.start) * width * channels, rows.len() * width * channels);
        match self.values {
            Values::Dense(data) => &data[start..][..len],
            Values::Computed(fetch) => {
                let own = &mut own[..len];
                if !rows.is_empty() {
                    fetch.rows(image, rows, own);
                }
                own
            }
        }
    }

    /// Hints at rows that will be asked for: see [`Fetch::ahead`].
    pub(super) fn ahead(&self, image: usize, rows: Range<usize>, part: usize, parts: usize) {
        match self.values {
            Values::Dense(data) => {
                let [height, width, channels] = self.dims;
                let start = (image * height + rows.start) * width * channels;
                let data = &data[start..][..rows.len() * width * channels];
                prefetch(data.as_ptr(), data.len(), part, parts);
            }
            Values::Computed(fetch) => fetch.ahead(image, rows, part, parts),
        }
    }
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
    /// `b * tile_rows` up to the next block or the image's end, with what `ImagePlan::tile_rows` says;
    /// from several threads at once, in no fixed order.
    fn finish(&self, image: usize, rows: Range<usize>, tile: &mut [f32]);

    /// A hint that [`Sink::finish`] will be called for these rows soon, like [`Fetch::ahead`]: for
    /// what it reads (a residual), or writes other than the target.
    fn ahead(&self, _image: usize, _rows: Range<usize>, _part: usize, _parts: usize) {}
}

/// A result that is only stored.
impl Sink for SharedSlice<'_> {
    fn target(&self) -> Option<SharedSlice<'_>> {
        Some(*self)
    }

    fn finish(&self, _image: usize, _rows: Range<usize>, _tile: &mut [f32]) {}
}

/// Asks for one of `parts` equal parts of `len` floats to be brought into the second-level cache. Nothing is
/// read: other threads may be writing there.
pub fn prefetch(start: *const f32, len: usize, part: usize, parts: usize) {
    prefetch_lines::<false>(start, len, part, parts);
}

/// The same for what will be written.
pub(super) fn prefetch_to_write(slice: SharedSlice, part: usize, parts: usize) {
    prefetch_lines::<true>(slice.pointer(0), slice.len(), part, parts);
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

/// From one of many equal pieces to the next, where each is read a little at a time in turn: multiples of
/// 512 bytes would fall into the same few cache sets.
pub(super) fn spread(len: usize) -> usize {
    if len.is_multiple_of(128) { len + LINE } else { len }
}
