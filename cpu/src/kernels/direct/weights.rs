//! The weight gradient of a direct convolution: sums over pixels of the outer products of operand
//! and gradient.
//!
//! The images are split into chunks, each with its own sum, added in order at the end; where the
//! weights are so many that there are few chunks, a chunk's work is split by to-channels as well.
//! A task takes a band of rows at a time: the operand is copied as in the forward pass, the
//! gradient to `[to block][row][column][nr]`, and for every run of operand floats and every block
//! the register-tiled loop adds all pixels of the band. The sum is laid out as the forward pass
//! packs its weights.

use std::ops::Range;

use super::geometry::{Blocked, Class, Geometry};
use super::{ToBlock, applies, to_blocks};
use crate::kernels::micro::{Grid, channels_by_channels};
use crate::kernels::shape::ConvShape;
use crate::kernels::simd::{Isa, Kernel, Simd};
use crate::kernels::stream::lines;
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
    layout: Blocked,
    class: Class,
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
        let layout = geometry.blocked(band_rows);
        let class = geometry.classes(&layout).pop()?;
        let lanes: usize = blocks.iter().map(|b| b.vectors * isa.lanes()).sum();
        let sum = shape.groups * class.depth * lanes;
        let chunks = (SUMS_FLOATS / sum).clamp(2, MOST_CHUNKS);
        let chunks = (1 << chunks.ilog2()).min(shape.n);
        let split = LEAST_TASKS.div_ceil(chunks).min(shape.groups * blocks.len());
        Some(DirectWeights { isa, shape: *shape, geometry, layout, class, blocks, band_rows, chunks, split })
    }

    fn lanes(&self, block: &ToBlock) -> usize {
        block.vectors * self.isa.lanes()
    }

    /// Lanes of all blocks of a group.
    fn all_lanes(&self) -> usize {
        self.blocks.iter().map(|block| self.lanes(block)).sum()
    }

    fn sum_len(&self) -> usize {
        lines(self.shape.groups * self.class.depth * self.all_lanes())
    }

    /// Floats of a thread's operand rows, blocked operand, gradient rows, blocked gradient.
    fn scratch(&self) -> [usize; 4] {
        let s = &self.shape;
        let [_, width, _] = self.geometry.to;
        let pixels = self.band_rows * width;
        [
            lines(self.layout.rows.min(s.h) * s.w * s.cin),
            lines(self.layout.len()),
            lines(pixels * s.cout),
            lines(pixels * self.all_lanes() * s.groups),
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
        (group * self.all_lanes() + before) * self.class.depth
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
        for row in &self.class.rows {
            let to = row.channel * taps + row.tap;
            for chunk in 0..self.chunks {
                let sum = &sums[chunk * self.sum_len() + start + row.at * nr..][..block.count];
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
        let [x_len, blocked_len, y_len, _] = plan.scratch();
        let (x_own, rest) = self.scratch.split_at_mut(x_len);
        let (blocked, rest) = rest.split_at_mut(blocked_len);
        let (y_own, y_blocked) = rest.split_at_mut(y_len);
        let [height, width, _] = g.to;
        let depth = plan.class.depth;
        for pair in self.pairs.clone() {
            let len = depth * plan.lanes(&plan.blocks[pair % plan.blocks.len()]);
            // SAFETY: this task's part of the sum.
            unsafe { std::slice::from_raw_parts_mut(self.sum.add(plan.pair_start(pair)), len) }.fill(0.0);
        }
        for image in self.images.clone() {
            for first in (0..height).step_by(plan.band_rows) {
                let band = first..(first + plan.band_rows).min(height);
                let pixels = band.len() * width;
                plan.layout.fill(g, self.x, image, g.rows(band.clone()), x_own, blocked);
                let y = match self.dy.direct() {
                    Some(data) => &data[(image * height + band.start) * width * s.cout..][..pixels * s.cout],
                    None => {
                        self.dy.rows(image, band.clone(), &mut y_own[..pixels * s.cout]);
                        &y_own[..pixels * s.cout]
                    }
                };
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
                    let y_block = &mut y_blocked[..pixels * nr];
                    copy_block(y, s.cout, channel, block.count, nr, y_block);
                    // SAFETY: the copies hold all pixels of the band, and the sum all of the depth.
                    unsafe {
                        let x = blocked.as_ptr().add(group * plan.layout.group_len());
                        let sum = self.sum.add(plan.pair_start(pair));
                        let y = y_block.as_ptr();
                        match block.vectors {
                            1 => add_band::<S, 1>(plan, band.len(), x, y, sum),
                            2 => add_band::<S, 2>(plan, band.len(), x, y, sum),
                            _ if S::LANES == 4 => add_band::<S, 4>(plan, band.len(), x, y, sum),
                            _ => unreachable!("blocks are at most two vectors"),
                        }
                    }
                }
            }
        }
    }
}

/// Copies `count` channels of every pixel, padded with zeros to `nr`.
#[inline(always)]
fn copy_block(y: &[f32], channels: usize, channel: usize, count: usize, nr: usize, out: &mut [f32]) {
    let pixels = y.chunks_exact(channels).map(|pixel| &pixel[channel..channel + count]);
    for (to, from) in out.chunks_exact_mut(nr).zip(pixels) {
        if count == 32 && nr == 32 {
            to.copy_from_slice(&from[..32]);
        } else if count == 16 && nr == 16 {
            to.copy_from_slice(&from[..16]);
        } else {
            to[..count].copy_from_slice(from);
            to[count..].fill(0.0);
        }
    }
}

#[inline(always)]
unsafe fn add_band<S: Simd, const CV: usize>(
    plan: &DirectWeights,
    rows: usize,
    x: *const f32,
    y: *const f32,
    sum: *mut f32,
) {
    let (layout, class) = (&plan.layout, &plan.class);
    let (nr, width) = (CV * S::LANES, plan.geometry.to[1]);
    let grid = Grid {
        rows,
        cols: width,
        x_row: class.vertical.in_step * layout.columns * layout.channels,
        x_pitch: class.horizontal.in_step * layout.channels,
        y_row: width * nr,
        y_pitch: nr,
    };
    let mut at = 0;
    for segment in &class.segments {
        let mut done = 0;
        macro_rules! tiles {
            ($count:literal) => {
                while done + $count <= segment.len {
                    unsafe {
                        let out = sum.add((at + done) * nr);
                        let x = x.add(segment.offset + done);
                        channels_by_channels::<S, $count, CV>(x, y, grid, out, nr);
                    }
                    done += $count;
                }
            };
        }
        if S::REGISTERS >= 32 {
            // Three taps of three channels: the first layer.
            if segment.len == 9 && CV <= 2 {
                tiles!(9);
            }
            if CV == 1 {
                tiles!(16);
            }
            if CV <= 2 {
                tiles!(8);
            }
            tiles!(4);
        } else if CV <= 2 {
            tiles!(4);
        } else {
            tiles!(2);
        }
        tiles!(1);
        at += segment.len;
    }
}
