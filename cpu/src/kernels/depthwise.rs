//! Depthwise convolution (one channel a group): channels in the vector lanes, straight from the
//! tensor, without a copy.
//!
//! Each output pixel is a short sum over taps, so this runs at the speed of loads. Where the
//! channels are not whole vectors, the last vector is moved back to end with the last channel; it
//! computes some channels twice, with the same result.
//!
//! An input gradient is taken apart by residues as in `direct.rs`, whose axes it shares.

use std::ops::Range;

use super::direct::geometry::{Axis, axes, span};
use super::plan::Pass;
use super::shape::ConvShape;
use super::simd::{Isa, Kernel, Simd};
use super::stream::{fetch, lines};
use super::{Pool, SharedSlice, Sink, Source};

/// Result floats of a band, which stay in cache.
const BAND_FLOATS: usize = 32 * 1024;
/// Chunks of images that a weight gradient is summed in.
const CHUNKS: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Depthwise {
    isa: Isa,
    shape: ConvShape,
    /// Rows and columns.
    from: [usize; 2],
    to: [usize; 2],
    vertical: Vec<Axis>,
    horizontal: Vec<Axis>,
    band_rows: usize,
}

impl Depthwise {
    /// Nothing if there are groups of several channels, less channels than lanes, or a gradient
    /// that is strided and dilated at once. For a weight gradient the pass's geometry is the
    /// forward one.
    pub fn new(pass: Pass, shape: &ConvShape, isa: Isa) -> Option<Depthwise> {
        let adjoint = pass == Pass::InputGrad;
        let strided = shape.stride != [1, 1] && shape.dilation != [1, 1];
        let depthwise = shape.cin == shape.groups && shape.cout == shape.groups;
        if !depthwise || shape.groups < isa.lanes() || adjoint && strided {
            return None;
        }
        let (x, y) = ([shape.h, shape.w], [shape.oh(), shape.ow()]);
        let (from, to) = if adjoint { (y, x) } else { (x, y) };
        let axis = |i: usize, k: usize| axes(adjoint, k, shape.stride[i], shape.pad[i], shape.dilation[i]);
        let band_rows = (BAND_FLOATS / (to[1] * shape.groups)).clamp(1, to[0]);
        Some(Depthwise {
            isa,
            shape: *shape,
            from,
            to,
            vertical: axis(0, shape.kh),
            horizontal: axis(1, shape.kw),
            band_rows: to[0].div_ceil(to[0].div_ceil(band_rows)),
        })
    }

    pub fn tile_rows(&self) -> usize {
        self.band_rows
    }

    pub fn packed_len(&self) -> usize {
        self.shape.weight_len()
    }

    /// Weights `[channels, 1, kh, kw]` to `[kh, kw, channels]`.
    pub fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let (channels, taps) = (self.shape.groups, self.shape.kh * self.shape.kw);
        for (channel, weights) in weights.chunks_exact(taps).enumerate() {
            for (tap, &weight) in weights.iter().enumerate() {
                packed[tap * channels + channel] = weight;
            }
        }
    }

    /// The operand rows, inside of the image, that a band reads.
    fn rows(&self, band: Range<usize>) -> Range<usize> {
        let rows = span(&self.vertical, band);
        let inside = |at: isize| at.clamp(0, self.from[0] as isize) as usize;
        inside(rows.start)..inside(rows.end).max(inside(rows.start))
    }

    /// Floats of a thread's operand rows and result rows.
    fn scratch(&self) -> [usize; 2] {
        let most = (0..self.to[0])
            .step_by(self.band_rows)
            .map(|first| self.rows(first..(first + self.band_rows).min(self.to[0])).len())
            .max()
            .unwrap_or(0);
        let channels = self.shape.groups;
        [lines(most * self.from[1] * channels), lines(self.band_rows * self.to[1] * channels)]
    }

    pub fn workspace(&self, threads: usize) -> usize {
        threads * self.scratch().iter().sum::<usize>()
    }

    pub fn run(
        &self,
        pool: &Pool,
        source: &dyn Source,
        packed: &[f32],
        sink: &dyn Sink,
        scratch: &mut [f32],
    ) {
        let bands = self.to[0].div_ceil(self.band_rows);
        let [from_len, to_len] = self.scratch();
        let each = from_len + to_len;
        let to_row = self.to[1] * self.shape.groups;
        let scratch = SharedSlice::new(scratch);
        let target = sink.target();
        pool.run(self.shape.n * bands, &|task, thread| {
            let (image, first) = (task / bands, task % bands * self.band_rows);
            let to = first..(first + self.band_rows).min(self.to[0]);
            // SAFETY: every thread has its own part.
            let own = unsafe { scratch.range(thread * each..(thread + 1) * each) };
            let (operand, tile) = own.split_at_mut(from_len);
            let from = self.rows(to.clone());
            let operand =
                fetch(source, [self.from[0], self.from[1], self.shape.groups], image, from.clone(), operand);
            let tile = match &target {
                Some(all) => {
                    let start = (image * self.to[0] + to.start) * to_row;
                    // SAFETY: every task has its own rows.
                    unsafe { all.range(start..start + to.len() * to_row) }
                }
                None => &mut tile[..to.len() * to_row],
            };
            let (rows, first) = (to.clone(), from.start);
            let band = Band { plan: self, operand, first, packed, rows, tile: &mut *tile };
            // SAFETY: the instruction set was found on this machine.
            unsafe { self.isa.run(band) };
            sink.finish(image, to, tile);
        });
    }

    /// Floats of a weight gradient's sums and a thread's images.
    fn weights_scratch(&self) -> [usize; 3] {
        let s = &self.shape;
        let lanes = self.isa.lanes();
        [
            lines(s.groups.div_ceil(lanes) * lanes * s.kh * s.kw),
            lines(s.h * s.w * s.cin),
            lines(s.oh() * s.ow() * s.cout),
        ]
    }

    pub fn weights_workspace(&self, threads: usize) -> usize {
        let [sum, x, y] = self.weights_scratch();
        CHUNKS.min(self.shape.n) * sum + threads * (x + y)
    }

    pub fn run_weights(
        &self,
        pool: &Pool,
        x: &dyn Source,
        dy: &dyn Source,
        dw: &mut [f32],
        scratch: &mut [f32],
    ) {
        let s = &self.shape;
        let chunks = CHUNKS.min(s.n);
        let [sum_len, x_len, y_len] = self.weights_scratch();
        let (sums, own) = scratch.split_at_mut(chunks * sum_len);
        {
            let (sums, own) = (SharedSlice::new(sums), SharedSlice::new(own));
            pool.run(chunks, &|chunk, thread| {
                let each = x_len + y_len;
                // SAFETY: one part for each chunk, and one for each thread.
                let sum = unsafe { sums.range(chunk * sum_len..(chunk + 1) * sum_len) };
                let own = unsafe { own.range(thread * each..(thread + 1) * each) };
                let (x_own, y_own) = own.split_at_mut(x_len);
                sum.fill(0.0);
                for image in s.n * chunk / chunks..s.n * (chunk + 1) / chunks {
                    let x = fetch(x, [s.h, s.w, s.cin], image, 0..s.h, x_own);
                    let y = fetch(dy, [s.oh(), s.ow(), s.cout], image, 0..s.oh(), y_own);
                    let kernel = Image { plan: self, x, y, sum: &mut *sum };
                    // SAFETY: the instruction set was found on this machine.
                    unsafe { self.isa.run(kernel) };
                }
            });
        }
        let (lanes, taps) = (self.isa.lanes(), s.kh * s.kw);
        for (channel, dw) in dw.chunks_exact_mut(taps).enumerate() {
            let vector = channel / lanes;
            let lane = channel - first_channel(vector, lanes, s.groups);
            for (tap, dw) in dw.iter_mut().enumerate() {
                let at = (vector * taps + tap) * lanes + lane;
                *dw = (0..chunks).map(|chunk| sums[chunk * sum_len + at]).sum();
            }
        }
    }
}

/// Where a vector of channels begins: the last ends with the last channel.
#[inline(always)]
fn first_channel(vector: usize, lanes: usize, channels: usize) -> usize {
    (vector * lanes).min(channels - lanes)
}

struct Band<'a> {
    plan: &'a Depthwise,
    operand: &'a [f32],
    /// The operand's first row.
    first: usize,
    packed: &'a [f32],
    rows: Range<usize>,
    tile: &'a mut [f32],
}

impl Kernel for Band<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Band { plan, operand, first, packed, rows, tile } = self;
        let channels = plan.shape.groups;
        let to_row = plan.to[1] * channels;
        for vertical in &plan.vertical {
            for index in 0..vertical.count(rows.clone()) {
                let row = vertical.at_or_after(rows.start) + index * vertical.out_step;
                let out = &mut tile[(row - rows.start) * to_row..][..to_row];
                let source = vertical.source(row);
                for horizontal in &plan.horizontal {
                    let count = horizontal.count(0..plan.to[1]);
                    let inner = horizontal.inside(count, plan.from[1]);
                    for vector in 0..channels.div_ceil(S::LANES) {
                        let line = Line {
                            plan,
                            operand,
                            first,
                            packed,
                            vertical,
                            horizontal,
                            source,
                            channel: first_channel(vector, S::LANES, channels),
                        };
                        // SAFETY: pixels of this class are inside of the row; those in `inner` read
                        // only columns of the image, the others check.
                        unsafe {
                            let out = out.as_mut_ptr().add(line.channel);
                            for j in 0..inner.start {
                                line.pixels::<S, 1, true>(j, out);
                            }
                            let mut j = inner.start;
                            while j + 4 <= inner.end {
                                line.pixels::<S, 4, false>(j, out);
                                j += 4;
                            }
                            for j in j..count {
                                line.pixels::<S, 1, true>(j, out);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The pixels of one class of one result row, for one vector of channels.
struct Line<'a> {
    plan: &'a Depthwise,
    operand: &'a [f32],
    first: usize,
    packed: &'a [f32],
    vertical: &'a Axis,
    horizontal: &'a Axis,
    /// The operand row of the first tap.
    source: isize,
    channel: usize,
}

impl Line<'_> {
    /// `P` pixels of the class, from number `j`. With `EDGE` taps outside of the image are skipped.
    #[inline(always)]
    unsafe fn pixels<S: Simd, const P: usize, const EDGE: bool>(&self, j: usize, out: *mut f32) {
        let plan = self.plan;
        let channels = plan.shape.groups;
        let (height, width) = (plan.from[0], plan.from[1]);
        let h = self.horizontal;
        let column = h.source(h.first + j * h.out_step);
        unsafe {
            let mut sums = [S::splat(0.0); P];
            for &(ky, y) in &self.vertical.taps {
                let y = (self.source + y as isize) as usize;
                if y >= height {
                    continue;
                }
                let row = self.operand.as_ptr();
                let row = row.add((y - self.first) * width * channels + self.channel);
                for &(kx, x) in &h.taps {
                    let x = (column + x as isize) as usize;
                    if EDGE && x >= width {
                        continue;
                    }
                    let tap = ky * plan.shape.kw + kx;
                    let weight = S::load(self.packed.as_ptr().add(tap * channels + self.channel));
                    for p in 0..P {
                        let x = S::load(row.add((x + p * h.in_step) * channels));
                        sums[p] = S::fma(x, weight, sums[p]);
                    }
                }
            }
            for p in 0..P {
                S::store(out.add((h.first + (j + p) * h.out_step) * channels), sums[p]);
            }
        }
    }
}

struct Image<'a> {
    plan: &'a Depthwise,
    x: &'a [f32],
    y: &'a [f32],
    /// `[vector][tap][lane]`
    sum: &'a mut [f32],
}

impl Kernel for Image<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let plan = self.plan;
        let s = &plan.shape;
        let (channels, taps) = (s.groups, s.kh * s.kw);
        let (vertical, horizontal) = (&plan.vertical[0], &plan.horizontal[0]);
        let [height, width] = plan.to;
        for vector in 0..channels.div_ceil(S::LANES) {
            let channel = first_channel(vector, S::LANES, channels);
            for &(ky, dy) in &vertical.taps {
                for &(kx, dx) in &horizontal.taps {
                    // SAFETY: only pixels whose tap is inside of the image are visited.
                    unsafe {
                        let mut sums = [S::splat(0.0); 4];
                        let columns = horizontal.inside_tap(width, plan.from[1], dx);
                        for row in 0..height {
                            let source = (vertical.source(row) + dy as isize) as usize;
                            if source >= s.h || columns.is_empty() {
                                continue;
                            }
                            let first = (horizontal.source(columns.start) + dx as isize) as usize;
                            let step = horizontal.in_step * channels;
                            let mut x = self.x.as_ptr().add((source * s.w + first) * channels);
                            let mut y = self.y.as_ptr();
                            y = y.add((row * width + columns.start) * channels + channel);
                            x = x.add(channel);
                            let mut left = columns.len();
                            while left >= 4 {
                                for i in 0..4 {
                                    let x = S::load(x.add(i * step));
                                    let y = S::load(y.add(i * channels));
                                    sums[i] = S::fma(x, y, sums[i]);
                                }
                                x = x.wrapping_add(4 * step);
                                y = y.wrapping_add(4 * channels);
                                left -= 4;
                            }
                            for i in 0..left {
                                let x = S::load(x.add(i * step));
                                let y = S::load(y.add(i * channels));
                                sums[i] = S::fma(x, y, sums[i]);
                            }
                        }
                        let all = S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3]));
                        let at = (vector * taps + ky * s.kw + kx) * S::LANES;
                        let sum = self.sum[at..at + S::LANES].as_mut_ptr();
                        S::store(sum, S::add(S::load(sum), all));
                    }
                }
            }
        }
    }
}
