//! The weight gradient of a direct convolution: sums over pixels of the outer products of operand
//! and gradient.
//!
//! The images are split into chunks, each with its own sum, added in order at the end; where the
//! weights are so many that there are few chunks, a chunk's work is split by to-channels as well.
//! A task takes a band of rows at a time: the operand is copied as [`Patches`], so that for every
//! kernel row all pixels of the band are one sum.

use std::ops::Range;

use super::geometry::Geometry;
use super::patches::Patches;
use super::{ToBlock, applies, to_blocks};
use crate::kernels::product::{Product, Run};
use crate::kernels::shape::ConvShape;
use crate::kernels::simd::{Isa, Kernel, Simd};
use crate::kernels::stream::{fetch, lines};
use crate::kernels::{Pool, SharedSlice, Source};

/// Floats of all chunks' sums.
const SUMS_FLOATS: usize = 640 * 1024;
const MOST_CHUNKS: usize = 16;
/// Tasks there should be at least.
const LEAST_TASKS: usize = 8;
/// Result pixels of a band: enough that reading and writing the sum does not count, few enough
/// that a block of the gradient stays in the first-level cache.
const BAND_PIXELS: usize = 192;

#[derive(Clone, Debug)]
pub(in crate::kernels) struct DirectWeights {
    isa: Isa,
    shape: ConvShape,
    geometry: Geometry,
    patches: Patches,
    blocks: Vec<ToBlock>,
    band_rows: usize,
    chunks: usize,
    /// Tasks that a chunk's (group, block) pairs are split into.
    split: usize,
}

impl DirectWeights {
    /// Nothing for depthwise convolutions.
    pub fn new(shape: &ConvShape, isa: Isa) -> Option<DirectWeights> {
        if !applies(shape) {
            return None;
        }
        let geometry = Geometry::new(shape, false)?;
        let blocks = to_blocks(shape.cout_per_group(), isa);
        let [height, width, _] = geometry.to;
        let band_rows = (BAND_PIXELS / width).clamp(1, height);
        let band_rows = height.div_ceil(height.div_ceil(band_rows));
        let patches = Patches::new(shape, band_rows);
        let lanes: usize = blocks.iter().map(|b| b.vectors * isa.lanes()).sum();
        let sum = shape.groups * shape.cin_per_group() * shape.kh * shape.kw * lanes;
        let chunks = (SUMS_FLOATS / sum).clamp(2, MOST_CHUNKS);
        let chunks = (1 << chunks.ilog2()).min(shape.n);
        let split = LEAST_TASKS.div_ceil(chunks).min(shape.groups * blocks.len());
        Some(DirectWeights { isa, shape: *shape, geometry, patches, blocks, band_rows, chunks, split })
    }

    fn lanes(&self, block: &ToBlock) -> usize {
        block.vectors * self.isa.lanes()
    }

    /// Lanes of all blocks of a group.
    fn all_lanes(&self) -> usize {
        self.blocks.iter().map(|block| self.lanes(block)).sum()
    }

    /// Rows of a block's sum: `[kh, kw, cin / groups]`.
    fn depth(&self) -> usize {
        self.shape.kh * self.shape.kw * self.shape.cin_per_group()
    }

    fn sum_len(&self) -> usize {
        lines(self.shape.groups * self.depth() * self.all_lanes())
    }

    /// Floats of a thread's operand rows, their patches, gradient rows, and a block of the gradient.
    fn scratch(&self) -> [usize; 4] {
        let s = &self.shape;
        let [_, width, _] = self.geometry.to;
        let pixels = self.band_rows * width;
        [
            lines(self.patches.operand_rows().min(s.h) * s.w * s.cin),
            lines(self.patches.len()),
            lines(pixels * s.cout),
            lines(pixels * self.blocks.iter().map(|block| self.lanes(block)).max().unwrap_or(0)),
        ]
    }

    pub fn workspace(&self, threads: usize) -> usize {
        self.chunks * self.sum_len() + threads * self.scratch().iter().sum::<usize>()
    }

    pub fn run(&self, pool: &Pool, x: &dyn Source, dy: &dyn Source, dw: &mut [f32], scratch: &mut [f32]) {
        let (n, pairs) = (self.shape.n, self.shape.groups * self.blocks.len());
        let each = self.scratch().iter().sum::<usize>();
        let (sums, own) = scratch.split_at_mut(self.chunks * self.sum_len());
        let own = SharedSlice::new(own);
        let shared = SharedSlice::new(sums);
        pool.run(self.chunks * self.split, &|task, thread| {
            let (chunk, part) = (task / self.split, task % self.split);
            let kernel = Chunk {
                plan: self,
                x,
                dy,
                images: n * chunk / self.chunks..n * (chunk + 1) / self.chunks,
                pairs: pairs * part / self.split..pairs * (part + 1) / self.split,
                // SAFETY: every thread has its own part.
                scratch: unsafe { own.range(thread * each..(thread + 1) * each) },
                sum: shared.pointer(chunk * self.sum_len()),
            };
            // SAFETY: the instruction set was found on this machine; every task has its own pairs
            // of its chunk's sum.
            unsafe { self.isa.run(kernel) }
        });
        let (sums, dw) = (&*sums, SharedSlice::new(dw));
        pool.run(pairs, &|pair, _| self.finish(pair, sums, dw));
    }

    /// The (group, block) pair's place in a sum.
    fn pair_start(&self, pair: usize) -> usize {
        let (group, block) = (pair / self.blocks.len(), pair % self.blocks.len());
        let before: usize = self.blocks[..block].iter().map(|b| self.lanes(b)).sum();
        (group * self.all_lanes() + before) * self.depth()
    }

    /// Adds the outer products of the first `pixels` pixels' patches and gradients, for one group and
    /// block of `nr` to-channels.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn add_band<S: Simd>(
        &self,
        pixels: usize,
        group: usize,
        x: *const f32,
        y: *const f32,
        y_pixel: usize,
        nr: usize,
        sum: *mut f32,
    ) {
        let floats = self.shape.kw * self.shape.cin_per_group();
        let product = Product {
            rows: floats,
            width: nr,
            left_row: 1,
            left_step: self.patches.pixel(),
            right_step: y_pixel,
            out_row: nr,
            add: true,
        };
        let all = std::iter::once(Run { left: 0, right: 0, depth: pixels });
        for ky in 0..self.shape.kh {
            unsafe {
                let x = x.add(self.patches.start(group, ky));
                product.run::<S>(x, y, sum.add(ky * floats * nr), all.clone());
            }
        }
    }

    /// Adds the chunks up for one group and block, and stores the weights as PyTorch does.
    fn finish(&self, pair: usize, sums: &[f32], dw: SharedSlice) {
        let s = &self.shape;
        let (ci, taps) = (s.cin_per_group(), s.kh * s.kw);
        let (group, block) = (pair / self.blocks.len(), &self.blocks[pair % self.blocks.len()]);
        let (nr, start) = (self.lanes(block), self.pair_start(pair));
        let first = group * s.cout_per_group() + block.first;
        // SAFETY: every pair has its own output channels.
        let out = unsafe { dw.range(first * ci * taps..(first + block.count) * ci * taps) };
        for row in 0..self.depth() {
            let to = row % ci * taps + row / ci;
            for chunk in 0..self.chunks {
                let sum = &sums[chunk * self.sum_len() + start + row * nr..][..block.count];
                for (out, &value) in out.chunks_exact_mut(ci * taps).zip(sum) {
                    out[to] = if chunk == 0 { value } else { out[to] + value };
                }
            }
        }
    }
}

struct Chunk<'a> {
    plan: &'a DirectWeights,
    x: &'a dyn Source,
    dy: &'a dyn Source,
    images: Range<usize>,
    /// Pairs of group and to-channel block.
    pairs: Range<usize>,
    scratch: &'a mut [f32],
    sum: *mut f32,
}

impl Kernel for Chunk<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let plan = self.plan;
        let (s, g) = (&plan.shape, &plan.geometry);
        let [x_len, patches_len, y_len, _] = plan.scratch();
        let (x_own, rest) = self.scratch.split_at_mut(x_len);
        let (patches, rest) = rest.split_at_mut(patches_len);
        let (y_own, y_block) = rest.split_at_mut(y_len);
        let [height, width, _] = g.to;
        let depth = plan.depth();
        for pair in self.pairs.clone() {
            let len = depth * plan.lanes(&plan.blocks[pair % plan.blocks.len()]);
            // SAFETY: this task's part of the sum.
            unsafe { std::slice::from_raw_parts_mut(self.sum.add(plan.pair_start(pair)), len) }.fill(0.0);
        }
        for image in self.images.clone() {
            for first in (0..height).step_by(plan.band_rows) {
                let band = first..(first + plan.band_rows).min(height);
                let pixels = band.len() * width;
                let x = plan.patches.fill(g, self.x, image, band.clone(), x_own, patches);
                let y = fetch(self.dy, [height, width, s.cout], image, band.clone(), y_own);
                // The next band is hinted at while this one is added up.
                let next = if band.end < height {
                    Some((image, band.end..(band.end + plan.band_rows).min(height)))
                } else {
                    let image = image + 1;
                    (image < self.images.end).then(|| (image, 0..plan.band_rows.min(height)))
                };
                for (step, pair) in self.pairs.clone().enumerate() {
                    if let Some((image, band)) = &next {
                        let (steps, rows) = (self.pairs.len(), g.inner_rows(band.clone()));
                        self.x.ahead(*image, rows, step, steps);
                        self.dy.ahead(*image, band.clone(), step, steps);
                    }
                    let group = pair / plan.blocks.len();
                    let block = &plan.blocks[pair % plan.blocks.len()];
                    let nr = block.vectors * S::LANES;
                    let channel = group * s.cout_per_group() + block.first;
                    let (y, y_pixel) = if block.count == nr {
                        (&y[channel..], s.cout)
                    } else {
                        let y_block = &mut y_block[..pixels * nr];
                        copy_block(y, s.cout, channel, block.count, nr, y_block);
                        (&*y_block, nr)
                    };
                    // SAFETY: the copies hold all pixels of the band, and the sum all of the depth.
                    unsafe {
                        let sum = self.sum.add(plan.pair_start(pair));
                        plan.add_band::<S>(pixels, group, x.as_ptr(), y.as_ptr(), y_pixel, nr, sum);
                    }
                }
            }
        }
    }
}

/// Copies `count` channels of every pixel, padded with zeros to `nr`.
fn copy_block(y: &[f32], channels: usize, channel: usize, count: usize, nr: usize, out: &mut [f32]) {
    for (to, pixel) in out.chunks_exact_mut(nr).zip(y.chunks_exact(channels)) {
        to[..count].copy_from_slice(&pixel[channel..channel + count]);
        to[count..].fill(0.0);
    }
}
