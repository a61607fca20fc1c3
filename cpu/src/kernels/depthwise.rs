//! Depthwise convolution (one channel a group): channels in the vector lanes, straight from the
//! tensor, without a copy.
//!
//! Each output pixel is a short sum over taps, so this runs at the speed of loads. Where the
//! channels are not whole vectors, the last vector is moved back to end with the last channel; it
//! computes some channels twice, with the same result.

use schedule::ConvGeometry;

use super::algorithm::{Band, Bands, ImageAlgorithm, WeightAlgorithm, even};
use super::geometry::{Axis, Geometry};
use super::stream::Source;
use super::threads::ThreadPool;
use crate::isa::{Isa, Simd, WithSimd};
use crate::memory::{SharedSlice, lines};

/// Result floats of a band, which stay in cache.
const BAND_FLOATS: usize = 32 * 1024;
/// Chunks of images that a weight gradient is summed in.
const CHUNKS: usize = 16;

/// Whether there is one channel a group, and at least a vector of them.
fn applies(conv: &ConvGeometry, isa: Isa) -> bool {
    let channels = conv.conv.groups;
    [conv.in_channels, conv.out_channels] == [channels; 2] && channels >= isa.lanes()
}

/// A depthwise convolution's forward pass or input gradient.
#[derive(Clone, Debug)]
pub(super) struct Depthwise {
    isa: Isa,
    bands: Bands,
}

impl Depthwise {
    /// Nothing for other convolutions, or less channels than lanes.
    pub fn new(conv: &ConvGeometry, adjoint: bool, isa: Isa) -> Option<Depthwise> {
        let geometry = Geometry::new(conv, adjoint);
        let [height, width, channels] = geometry.to;
        let rows = even(height, BAND_FLOATS / (width * channels));
        applies(conv, isa).then_some(Depthwise { isa, bands: Bands { geometry, rows, images: 1 } })
    }
}

impl ImageAlgorithm for Depthwise {
    fn bands(&self) -> &Bands {
        &self.bands
    }

    fn packed_len(&self) -> usize {
        self.bands.geometry.groups * self.bands.geometry.taps()
    }

    /// Weights `[channels, 1, kh, kw]` to `[kh, kw, channels]`.
    fn pack(&self, _pool: &ThreadPool, weights: &[f32], packed: &mut [f32]) {
        let (channels, taps) = (self.bands.geometry.groups, self.bands.geometry.taps());
        for (channel, weights) in weights.chunks_exact(taps).enumerate() {
            for (tap, &weight) in weights.iter().enumerate() {
                packed[tap * channels + channel] = weight;
            }
        }
    }

    fn scratch_len(&self) -> usize {
        self.bands.lens().iter().sum()
    }

    fn make(&self, band: &Band, packed: &[f32], scratch: &mut [f32]) {
        let (operand, tile) = scratch.split_at_mut(self.bands.lens()[0]);
        let image = band.images.start;
        let operand = band.operand(image, operand);
        // SAFETY: the only use of this image's rows.
        let tile = unsafe { band.tile(image, tile) };
        let make = Make {
            geometry: &self.bands.geometry,
            band,
            operand,
            first: band.operand_rows().start,
            packed,
            tile,
        };
        // SAFETY: the instruction set was found on this machine.
        unsafe { self.isa.run(make) };
        band.finish(image, tile);
    }
}

/// A depthwise convolution's weight gradient.
#[derive(Clone, Debug)]
pub(super) struct DepthwiseWeights {
    isa: Isa,
    /// Of the forward pass.
    geometry: Geometry,
    chunks: usize,
}

impl DepthwiseWeights {
    /// Nothing for other convolutions, or less channels than lanes.
    pub fn new(conv: &ConvGeometry, isa: Isa) -> Option<DepthwiseWeights> {
        let (geometry, chunks) = (Geometry::new(conv, false), CHUNKS.min(conv.batch));
        applies(conv, isa).then_some(DepthwiseWeights { isa, geometry, chunks })
    }

    /// Floats of a chunk's sums, and of a thread's images.
    fn lens(&self) -> [usize; 3] {
        let Geometry { from, to, groups, .. } = &self.geometry;
        let vectors = groups.next_multiple_of(self.isa.lanes());
        [lines(vectors * self.geometry.taps()), lines(from.iter().product()), lines(to.iter().product())]
    }
}

impl WeightAlgorithm for DepthwiseWeights {
    fn scratch_len(&self, threads: usize) -> usize {
        let [sum, x, y] = self.lens();
        self.chunks * sum + threads * (x + y)
    }

    fn run(&self, pool: &ThreadPool, x: Source, dy: Source, dw: &mut [f32], scratch: &mut [f32]) {
        let (g, chunks) = (&self.geometry, self.chunks);
        let [sum_len, x_len, y_len] = self.lens();
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
                for image in g.images * chunk / chunks..g.images * (chunk + 1) / chunks {
                    let x = x.rows(image, 0..g.from[0], x_own);
                    let y = dy.rows(image, 0..g.to[0], y_own);
                    let sum = Sum { geometry: g, x, y, sum: &mut *sum };
                    // SAFETY: the instruction set was found on this machine.
                    unsafe { self.isa.run(sum) };
                }
            });
        }
        let (lanes, taps) = (self.isa.lanes(), g.taps());
        for (channel, dw) in dw.chunks_exact_mut(taps).enumerate() {
            let vector = channel / lanes;
            let lane = channel - first_channel(vector, lanes, g.groups);
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

struct Make<'a> {
    geometry: &'a Geometry,
    band: &'a Band<'a>,
    operand: &'a [f32],
    /// The operand's first row.
    first: usize,
    packed: &'a [f32],
    tile: &'a mut [f32],
}

impl WithSimd for Make<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Make { geometry, band, operand, first, packed, tile } = self;
        let [_, width, channels] = geometry.to;
        let (rows, to_row) = (band.rows.clone(), width * channels);
        for vertical in &geometry.vertical {
            for index in 0..vertical.count(rows.clone()) {
                let row = vertical.at_or_after(rows.start) + index * vertical.out_step;
                let out = &mut tile[(row - rows.start) * to_row..][..to_row];
                let source = vertical.source(row);
                for horizontal in &geometry.horizontal {
                    let count = horizontal.count(0..width);
                    let inner = horizontal.inside(count, geometry.from[1]);
                    for vector in 0..channels.div_ceil(S::LANES) {
                        let line = Line {
                            geometry,
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
    geometry: &'a Geometry,
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
        let ([height, width, channels], h) = (self.geometry.from, self.horizontal);
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
                    let tap = ky * self.geometry.kernel[1] + kx;
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

/// Adds an image's gradient to a chunk's sum.
struct Sum<'a> {
    geometry: &'a Geometry,
    x: &'a [f32],
    y: &'a [f32],
    /// `[vector][tap][lane]`
    sum: &'a mut [f32],
}

impl WithSimd for Sum<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let g = self.geometry;
        let (vertical, horizontal) = (&g.vertical[0], &g.horizontal[0]);
        let ([from_height, from_width, _], [height, width, channels]) = (g.from, g.to);
        for vector in 0..channels.div_ceil(S::LANES) {
            let channel = first_channel(vector, S::LANES, channels);
            for &(ky, dy) in &vertical.taps {
                for &(kx, dx) in &horizontal.taps {
                    // SAFETY: only pixels whose tap is inside of the image are visited.
                    unsafe {
                        let mut sums = [S::splat(0.0); 4];
                        let columns = horizontal.inside_tap(width, from_width, dx);
                        for row in 0..height {
                            let source = (vertical.source(row) + dy as isize) as usize;
                            if source >= from_height || columns.is_empty() {
                                continue;
                            }
                            let first = (horizontal.source(columns.start) + dx as isize) as usize;
                            let step = horizontal.in_step * channels;
                            let mut x = self.x.as_ptr().add((source * from_width + first) * channels);
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
                        let at = (vector * g.taps() + ky * g.kernel[1] + kx) * S::LANES;
                        let sum = self.sum[at..at + S::LANES].as_mut_ptr();
                        S::store(sum, S::add(S::load(sum), all));
                    }
                }
            }
        }
    }
}
