//! The weight gradient of a direct convolution: sums over pixels of the outer products of operand
//! and gradient.
//!
//! The images are split into chunks, each with its own sum, added in order at the end; where the
//! weights are so many that there are few chunks, a chunk's work is split by to-channels as well.
//! A task takes a band of rows at a time: the operand is copied as [`Patches`], so that for every
//! kernel row all pixels of the band are one sum.

use std::ops::Range;

use schedule::ConvGeometry;

use super::patches::Patches;
use crate::isa::{Isa, Simd, WithSimd};
use crate::kernels::algorithm::{Bands, WeightAlgorithm, even};
use crate::kernels::geometry::Geometry;
use crate::kernels::product::{ChannelBlock, Product, Run};
use crate::kernels::stream::Source;
use crate::kernels::threads::ThreadPool;
use crate::memory::{SharedSlice, lines};

/// Floats of all chunks' sums.
const SUMS_FLOATS: usize = 640 * 1024;
const MOST_CHUNKS: usize = 16;
/// Tasks there should be at least.
const LEAST_TASKS: usize = 8;
/// Result pixels of a band: enough that reading and writing the sum does not count, few enough
/// that a block of the gradient stays in the first-level cache.
const BAND_PIXELS: usize = 192;

#[derive(Clone, Debug)]
pub struct DirectWeights {
    isa: Isa,
    bands: Bands,
    patches: Patches,
    blocks: Vec<ChannelBlock>,
    chunks: usize,
    /// Tasks that a chunk's (group, block) pairs are split into.
    split: usize,
}

impl DirectWeights {
    pub fn new(conv: &ConvGeometry, isa: Isa) -> DirectWeights {
        let geometry = Geometry::new(conv, false);
        let [from, to] = geometry.group_channels;
        let [height, width, _] = geometry.to;
        let blocks = ChannelBlock::split(to, isa);
        let rows = even(height, BAND_PIXELS / width);
        let sum = geometry.groups * from * geometry.taps() * ChannelBlock::all_lanes(&blocks);
        let chunks = (SUMS_FLOATS / sum).clamp(2, MOST_CHUNKS);
        let chunks = (1 << chunks.ilog2()).min(geometry.images);
        let split = LEAST_TASKS.div_ceil(chunks).min(geometry.groups * blocks.len());
        let patches = Patches::new(&geometry, rows);
        DirectWeights { isa, bands: Bands { geometry, rows, images: 1 }, patches, blocks, chunks, split }
    }

    /// Rows of a block's sum: `[kh, kw, cin / groups]`.
    fn depth(&self) -> usize {
        self.bands.geometry.kernel[0] * self.patches.patch()
    }

    fn group_len(&self) -> usize {
        ChannelBlock::all_lanes(&self.blocks) * self.depth()
    }

    fn sum_len(&self) -> usize {
        lines(self.bands.geometry.groups * self.group_len())
    }

    /// Pairs of a group and a block of its to-channels.
    fn pairs(&self) -> usize {
        self.bands.geometry.groups * self.blocks.len()
    }

    /// A pair's block, its first to-channel in all, and the place of its sum in a chunk's.
    fn pair(&self, pair: usize) -> (ChannelBlock, usize, Range<usize>) {
        let (group, block) = (pair / self.blocks.len(), self.blocks[pair % self.blocks.len()]);
        let start = group * self.group_len() + block.first * self.depth();
        let channel = group * self.bands.geometry.group_channels[1] + block.first;
        (block, channel, start..start + block.lanes * self.depth())
    }

    /// Floats of a thread's operand rows, their patches, gradient rows, and a block of the gradient.
    fn scratch(&self) -> [usize; 4] {
        let [operand, gradient] = self.bands.lens();
        let pixels = self.bands.rows * self.bands.geometry.to[1];
        let widest = self.blocks.iter().map(|block| block.lanes).max().unwrap_or(0);
        [operand, lines(self.patches.len()), gradient, lines(pixels * widest)]
    }

    /// Adds the chunks up for a pair, and stores the weights as PyTorch does.
    fn finish(&self, pair: usize, sums: &[f32], dw: SharedSlice) {
        let (ci, taps) = (self.bands.geometry.group_channels[0], self.bands.geometry.taps());
        let (block, channel, place) = self.pair(pair);
        // SAFETY: every pair has its own output channels.
        let out = unsafe { dw.range(channel * ci * taps..(channel + block.count) * ci * taps) };
        for row in 0..self.depth() {
            let to = row % ci * taps + row / ci;
            for chunk in 0..self.chunks {
                let at = chunk * self.sum_len() + place.start + row * block.lanes;
                for (out, &value) in out.chunks_exact_mut(ci * taps).zip(&sums[at..at + block.count]) {
                    out[to] = if chunk == 0 { value } else { out[to] + value };
                }
            }
        }
    }
}

impl WeightAlgorithm for DirectWeights {
    fn scratch_len(&self, threads: usize) -> usize {
        self.chunks * self.sum_len() + threads * self.scratch().iter().sum::<usize>()
    }

    fn run(&self, pool: &ThreadPool, x: Source, dy: Source, dw: &mut [f32], scratch: &mut [f32]) {
        let (n, pairs) = (self.bands.geometry.images, self.pairs());
        let each = self.scratch().iter().sum::<usize>();
        let (sums, own) = scratch.split_at_mut(self.chunks * self.sum_len());
        let own = SharedSlice::new(own);
        let shared = SharedSlice::new(sums);
        pool.run(self.chunks * self.split, &|task, thread| {
            let (chunk, part) = (task / self.split, task % self.split);
            let work = Chunk {
                plan: self,
                x,
                dy,
                images: n * chunk / self.chunks..n * (chunk + 1) / self.chunks,
                pairs: pairs * part / self.split..pairs * (part + 1) / self.split,
                // SAFETY: every thread has its own part.
                scratch: unsafe { own.range(thread * each..(thread + 1) * each) },
                sum: shared.part(chunk * self.sum_len()..(chunk + 1) * self.sum_len()),
            };
            // SAFETY: the instruction set was found on this machine; every task has its own pairs
            // of its chunk's sum.
            unsafe { self.isa.run(work) }
        });
        let (sums, dw) = (&*sums, SharedSlice::new(dw));
        pool.run(pairs, &|pair, _| self.finish(pair, sums, dw));
    }
}

struct Chunk<'a> {
    plan: &'a DirectWeights,
    x: Source<'a>,
    dy: Source<'a>,
    images: Range<usize>,
    pairs: Range<usize>,
    scratch: &'a mut [f32],
    sum: SharedSlice<'a>,
}

impl WithSimd for Chunk<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let plan = self.plan;
        let g = &plan.bands.geometry;
        let [x_len, patches_len, y_len, _] = plan.scratch();
        let (x_own, rest) = self.scratch.split_at_mut(x_len);
        let (patches, rest) = rest.split_at_mut(patches_len);
        let (y_own, y_block) = rest.split_at_mut(y_len);
        let [height, width, channels] = g.to;
        let rows = plan.bands.rows;
        for pair in self.pairs.clone() {
            // SAFETY: this task's part of the sum.
            unsafe { self.sum.range(plan.pair(pair).2) }.fill(0.0);
        }
        for image in self.images.clone() {
            for first in (0..height).step_by(rows) {
                let band = first..(first + rows).min(height);
                let pixels = band.len() * width;
                plan.patches.fill(
                    band.clone(),
                    self.x.rows(image, g.inner_rows(band.clone()), x_own),
                    patches,
                );
                let y = self.dy.rows(image, band.clone(), y_own);
                // The next band is hinted at while this one is added up.
                let (next_image, next) = if band.end < height {
                    (image, band.end..(band.end + rows).min(height))
                } else {
                    (image + 1, 0..rows.min(height))
                };
                let next_rows = g.inner_rows(next.clone());
                for (step, pair) in self.pairs.clone().enumerate() {
                    if next_image < self.images.end {
                        let steps = self.pairs.len();
                        self.x.ahead(next_image, next_rows.clone(), step, steps);
                        self.dy.ahead(next_image, next.clone(), step, steps);
                    }
                    let (block, channel, place) = plan.pair(pair);
                    let (y, y_pixel) = if block.count == block.lanes {
                        (&y[channel..], channels)
                    } else {
                        let y_block = &mut y_block[..pixels * block.lanes];
                        copy_block(y, channels, channel, block, y_block);
                        (&*y_block, block.lanes)
                    };
                    let product = Product {
                        rows: plan.patches.patch(),
                        width: block.lanes,
                        left_row: 1,
                        left_step: plan.patches.pixel(),
                        right_step: y_pixel,
                        out_row: block.lanes,
                        add: true,
                    };
                    let all = std::iter::once(Run { left: 0, right: 0, depth: pixels });
                    let group = pair / plan.blocks.len();
                    for ky in 0..g.kernel[0] {
                        let sum = self.sum.pointer(place.start + ky * plan.patches.patch() * block.lanes);
                        // SAFETY: the copies hold all pixels of the band, and the sum all of the depth.
                        unsafe {
                            let x = patches.as_ptr().add(plan.patches.start(group, ky));
                            product.run::<S>(x, y.as_ptr(), sum, all.clone());
                        }
                    }
                }
            }
        }
    }
}

/// Copies a block's channels of every pixel, `channel` the first, padded with zeros.
fn copy_block(y: &[f32], channels: usize, channel: usize, block: ChannelBlock, out: &mut [f32]) {
    for (to, pixel) in out.chunks_exact_mut(block.lanes).zip(y.chunks_exact(channels)) {
        to[..block.count].copy_from_slice(&pixel[channel..channel + block.count]);
        to[block.count..].fill(0.0);
    }
}
