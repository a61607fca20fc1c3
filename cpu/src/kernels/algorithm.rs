//! What an algorithm has to do, and how a pass over images is cut into tasks: bands of rows of one image,
//! or several whole images.

use std::fmt::Debug;
use std::ops::Range;

use super::geometry::Geometry;
use super::stream::{Sink, Source, prefetch_to_write};
use super::threads::ThreadPool;
use crate::memory::{SharedSlice, lines};

/// A way to compute a forward pass or an input gradient.
pub(super) trait ImageAlgorithm: Debug + Send + Sync {
    /// The pass, cut into tasks.
    fn bands(&self) -> &Bands;

    /// Floats of the packed weights.
    fn packed_len(&self) -> usize;

    /// Lays out weights `[cout, cin / groups, kh, kw]`.
    fn pack(&self, pool: &ThreadPool, weights: &[f32], packed: &mut [f32]);

    /// Floats of scratch memory of a thread.
    fn scratch_len(&self) -> usize;

    /// Makes one band's result.
    fn make(&self, band: &Band, packed: &[f32], scratch: &mut [f32]);
}

/// A way to compute a weight gradient.
pub(super) trait WeightAlgorithm: Debug + Send + Sync {
    /// Floats of scratch memory for a call on so many threads.
    fn scratch_len(&self, threads: usize) -> usize;

    /// Computes it from the operand and the gradient of the result.
    fn run(&self, pool: &ThreadPool, x: Source, dy: Source, dw: &mut [f32], scratch: &mut [f32]);
}

/// `count` things in as few parts of at most `most` as can be, and these as even as can be: the size of
/// one.
pub(super) fn even(count: usize, most: usize) -> usize {
    count.div_ceil(count.div_ceil(most.clamp(1, count)))
}

/// A pass over images, cut into tasks.
#[derive(Clone, Debug)]
pub(super) struct Bands {
    pub geometry: Geometry,
    /// Result rows of a task.
    pub rows: usize,
    /// Images of a task; 1 unless a task takes all their rows.
    pub images: usize,
}

impl Bands {
    /// Floats of the most operand rows that one task reads of an image, and of its result rows.
    pub fn lens(&self) -> [usize; 2] {
        let Geometry { from, to, .. } = &self.geometry;
        let rows = self.geometry.most_rows(self.rows).min(from[0]);
        [lines(rows * from[1] * from[2]), lines(self.rows * to[1] * to[2])]
    }

    /// Makes all of them.
    pub fn run(
        &self,
        algorithm: &dyn ImageAlgorithm,
        pool: &ThreadPool,
        source: Source,
        packed: &[f32],
        sink: &dyn Sink,
        scratch: &mut [f32],
    ) {
        let geometry = &self.geometry;
        let [height, width, channels] = geometry.to;
        let (row, bands) = (width * channels, height.div_ceil(self.rows));
        let (each, scratch) = (algorithm.scratch_len(), SharedSlice::new(scratch));
        let target = sink.target();
        let place = |task: usize| {
            let first = (task / bands * self.images).min(geometry.images);
            let row = task % bands * self.rows;
            (first..(first + self.images).min(geometry.images), row..(row + self.rows).min(height))
        };
        pool.run(bands * geometry.images.div_ceil(self.images), &|task, thread| {
            let (images, rows) = place(task);
            // The task that this thread takes next if all go on at the same pace.
            let (next_images, next_rows) = place(task + pool.threads());
            let make = target.map(|target| {
                let (first, last) = (images.start * height, (images.end - 1) * height);
                target.part((first + rows.start) * row..(last + rows.end) * row)
            });
            let band = Band {
                geometry,
                source,
                sink,
                next_images,
                next_rows: geometry.inner_rows(next_rows),
                images,
                rows,
                make,
            };
            // SAFETY: every thread has its own part.
            let own = unsafe { scratch.range(thread * each..(thread + 1) * each) };
            algorithm.make(&band, packed, own);
        });
    }
}

/// A task: some rows of some images of the result.
pub(super) struct Band<'a> {
    geometry: &'a Geometry,
    source: Source<'a>,
    sink: &'a dyn Sink,
    pub images: Range<usize>,
    pub rows: Range<usize>,
    /// What the next task of this thread will probably read: images, and rows of the operand.
    next_images: Range<usize>,
    next_rows: Range<usize>,
    /// Where the result lies, if it is in memory: from this task's first row to its last.
    make: Option<SharedSlice<'a>>,
}

impl Band<'_> {
    /// The operand rows inside of the image that this task reads.
    pub fn operand_rows(&self) -> Range<usize> {
        self.geometry.inner_rows(self.rows.clone())
    }

    /// These rows of one image, in place or fetched into `own`.
    pub fn operand<'b>(&'b self, image: usize, own: &'b mut [f32]) -> &'b [f32] {
        self.source.rows(image, self.operand_rows(), own)
    }

    /// Hints at what this task writes and the next reads; to be called `parts` times while it computes.
    pub fn ahead(&self, part: usize, parts: usize) {
        for image in self.next_images.clone() {
            self.source.ahead(image, self.next_rows.clone(), part, parts);
        }
        for image in self.images.clone() {
            self.sink.ahead(image, self.rows.clone(), part, parts);
        }
        if let Some(make) = self.make {
            prefetch_to_write(make, part, parts);
        }
    }

    /// Where an image's result rows go: to the result, or else to `own`.
    ///
    /// # Safety
    /// One use of an image's rows at a time.
    pub unsafe fn tile<'b>(&'b self, image: usize, own: &'b mut [f32]) -> &'b mut [f32] {
        let [height, width, channels] = self.geometry.to;
        let len = self.rows.len() * width * channels;
        match self.make {
            Some(all) => {
                let start = (image - self.images.start) * height * width * channels;
                // SAFETY: every task has its own rows; the rest is the caller's promise.
                unsafe { all.range(start..start + len) }
            }
            None => &mut own[..len],
        }
    }

    /// Hands an image's result rows on.
    pub fn finish(&self, image: usize, tile: &mut [f32]) {
        self.sink.finish(image, self.rows.clone(), tile);
    }
}
