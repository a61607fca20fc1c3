//! The weight gradient by the same transforms: with `V` of the operand's tiles and `D = A dy A'` of
//! the gradient's, `dw = G' (sum over tiles of V x D) G`. A quarter of the multiplications again.
//!
//! The sum is, for each of the 36 values, a product `[from channels, tiles] x [tiles, to channels]`
//! into `S[36][to block][from channel][nr]`. Two ways to make it, by how large `S` is:
//!
//! * few channels: the tiles are split into chunks; each has its own `S` and takes group after group
//!   of tiles through transforms and products in cache. The chunks are added in order;
//! * many channels: all threads transform some megabytes of tiles, then share out the 36 products,
//!   and so on. There is one `S`.
//!
//! Chunks and groups are runs of tile rows, counted through all images.

use std::ops::Range;

use schedule::ConvGeometry;

use super::transform::{self, IN, OUT, POINTS};
use super::{applies, plane};
use crate::isa::{Isa, Simd, WithSimd};
use crate::kernels::algorithm::{WeightAlgorithm, even};
use crate::kernels::geometry::Geometry;
use crate::kernels::product::{ChannelBlock, Product, Run};
use crate::kernels::stream::{Source, spread};
use crate::kernels::threads::ThreadPool;
use crate::memory::{SharedSlice, lines};

/// Floats of all chunks' sums; with less than `LEAST_CHUNKS` in that, there is one sum instead.
const SUMS_FLOATS: usize = 640 * 1024;
const LEAST_CHUNKS: usize = 4;
const MOST_CHUNKS: usize = 16;
/// Floats of `V` and `D` of a chunk's group, and of the group that all threads share.
const GROUP_FLOATS: usize = 112 * 1024;
const SHARED_FLOATS: usize = 512 * 1024;
/// Tiles that are summed in registers before they join the sum, in the chunks of few channels and
/// where the threads share one sum. Long runs of additions cost accuracy: with these, the products
/// of a batch are summed at two levels of about the same length.
const RUN: usize = 24;
const SHARED_RUN: usize = 14;

#[derive(Clone, Debug)]
pub struct WinogradWeights {
    isa: Isa,
    /// Of the forward pass.
    geometry: Geometry,
    /// Tiles down and across an image.
    tiles: [usize; 2],
    /// Channels of a block of to-channels.
    block: usize,
    /// Chunks with their own sums, or 1.
    chunks: usize,
    /// Tile rows of a group.
    group: usize,
}

impl WinogradWeights {
    /// Nothing if the shape or the number of channels is not for this algorithm.
    pub fn new(conv: &ConvGeometry, isa: Isa) -> Option<WinogradWeights> {
        WinogradWeights::with_limits(conv, isa, SUMS_FLOATS, SHARED_FLOATS)
    }

    /// The same with other limits for the floats of all chunks' sums and of a shared group.
    pub fn with_limits(
        conv: &ConvGeometry,
        isa: Isa,
        sums_floats: usize,
        shared_floats: usize,
    ) -> Option<WinogradWeights> {
        if !applies(conv, isa) {
            return None;
        }
        let geometry = Geometry::new(conv, false);
        let ([_, _, from], [height, width, to]) = (geometry.from, geometry.to);
        let tiles = [height.div_ceil(OUT), width.div_ceil(OUT)];
        let rows = geometry.images * tiles[0];
        let sum = POINTS * from * to;
        let row = POINTS * tiles[1] * (from + to);
        let (chunks, group) = if sums_floats / sum >= LEAST_CHUNKS {
            let chunks = (sums_floats / sum).min(MOST_CHUNKS);
            // A power of two divides the work well among the usual numbers of threads.
            let chunks = (1 << chunks.ilog2()).min(rows);
            // A group is one run.
            (chunks, (GROUP_FLOATS / row).min(RUN / tiles[1]).clamp(1, rows.div_ceil(chunks)))
        } else {
            (1, even(rows, shared_floats / row))
        };
        Some(WinogradWeights { isa, geometry, tiles, block: ChannelBlock::equal(to, isa), chunks, group })
    }

    fn group_tiles(&self) -> usize {
        self.group * self.tiles[1]
    }

    /// Whether the threads share one sum.
    fn shared(&self) -> bool {
        self.chunks == 1
    }

    fn sum_len(&self) -> usize {
        POINTS * self.sum_pitch()
    }

    fn sum_pitch(&self) -> usize {
        plane(self.geometry.from[2] * self.geometry.to[2])
    }

    fn tile_pitch(&self) -> usize {
        spread(self.geometry.from[2])
    }

    fn v_pitch(&self) -> usize {
        plane(self.group_tiles() * self.tile_pitch())
    }

    fn d_pitch(&self) -> usize {
        plane(self.group_tiles() * self.geometry.to[2])
    }

    /// Floats of `V` and `D`.
    fn tiles_len(&self) -> [usize; 2] {
        [POINTS * self.v_pitch(), POINTS * self.d_pitch()]
    }

    /// Floats of a thread's zero pixel row, operand rows and gradient rows.
    fn rows_len(&self) -> [usize; 3] {
        let rows = self.group.min(self.tiles[0]) * OUT;
        let Geometry { from, to, .. } = &self.geometry;
        [
            lines(IN * from[2]),
            lines((rows + 2).min(from[0]) * from[1] * from[2]),
            lines(rows.min(to[0]) * to[1] * to[2]),
        ]
    }

    /// The rows of `x` and of `dy` that a band of tile rows reads.
    fn band_rows(&self, band: &Range<usize>) -> [Range<usize>; 2] {
        let y = band.start * OUT..(band.end * OUT).min(self.geometry.to[0]);
        [self.geometry.inner_rows(y.clone()), y]
    }

    fn compute(&self, work: impl WithSimd<Output = ()>) {
        // SAFETY: the instruction set was found on this machine, and the work's pointers are to whole areas
        // of the plan's sizes.
        unsafe { self.isa.run(work) };
    }

    /// Tile rows counted through all images, as an image and its own tile rows, one after the other.
    fn of_images(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let down = self.tiles[0];
        (rows.start / down..rows.end.div_ceil(down)).map(move |image| {
            let first = image * down;
            (image, rows.start.saturating_sub(first)..(rows.end - first).min(down))
        })
    }

    /// Hints at the operands of some tile rows, counted through all images; step `point` of all.
    fn ahead(&self, x: Source, dy: Source, rows: Range<usize>, point: usize) {
        for (image, band) in self.of_images(rows) {
            let [x_rows, y_rows] = self.band_rows(&band);
            x.ahead(image, x_rows, point, POINTS);
            dy.ahead(image, y_rows, point, POINTS);
        }
    }
}

impl WeightAlgorithm for WinogradWeights {
    fn scratch_len(&self, threads: usize) -> usize {
        let tiles: usize = self.tiles_len().iter().sum();
        self.chunks * self.sum_len()
            + if self.shared() { tiles } else { threads * tiles }
            + threads * self.rows_len().iter().sum::<usize>()
    }

    fn run(&self, pool: &ThreadPool, x: Source, dy: Source, dw: &mut [f32], scratch: &mut [f32]) {
        let rows = self.geometry.images * self.tiles[0];
        let [v_len, d_len] = self.tiles_len();
        let rows_len = self.rows_len().iter().sum::<usize>();
        let scratch = SharedSlice::new(scratch);
        let tiles = self.chunks * self.sum_len();
        let copies = if self.shared() { 1 } else { pool.threads() };
        let own_rows = tiles + copies * (v_len + d_len);
        // SAFETY, for all parts of the scratch memory: one for each chunk, one for each thread. What
        // is shared goes by pointer: `V` and `D` are written at disjoint tiles, and only read while
        // the products are made, each of which has its own plane of the sum.
        let part = |start: usize, len: usize| unsafe { scratch.range(start..start + len) };
        if self.shared() {
            let (v, d) = (tiles, tiles + v_len);
            part(0, self.sum_len()).fill(0.0);
            for first in (0..rows).step_by(self.group) {
                let group = first..(first + self.group).min(rows);
                // A whole image at a time where it is small, a few tile rows where it is large.
                let some = self.tiles[0].min(8);
                pool.run(group.len().div_ceil(some), &|task, thread| {
                    let start = group.start + task * some;
                    self.compute(Transform {
                        plan: self,
                        x,
                        dy,
                        own: part(own_rows + thread * rows_len, rows_len),
                        rows: start..(start + some).min(group.end),
                        v: scratch.pointer(v),
                        d: scratch.pointer(d),
                        tile: task * some * self.tiles[1],
                    });
                });
                pool.run(POINTS, &|point, _| {
                    self.compute(Products {
                        plan: self,
                        v: scratch.pointer(v),
                        d: scratch.pointer(d),
                        tiles: group.len() * self.tiles[1],
                        point,
                        sum: scratch.pointer(0),
                    });
                });
            }
        } else {
            pool.run(self.chunks, &|chunk, thread| {
                let start = tiles + thread * (v_len + d_len);
                let (v, d) = (part(start, v_len), part(start + v_len, d_len));
                let sum = part(chunk * self.sum_len(), self.sum_len());
                sum.fill(0.0);
                let all = rows * chunk / self.chunks..rows * (chunk + 1) / self.chunks;
                for first in all.clone().step_by(self.group) {
                    let group = first..(first + self.group).min(all.end);
                    let count = group.len() * self.tiles[1];
                    self.compute(Transform {
                        plan: self,
                        x,
                        dy,
                        own: part(own_rows + thread * rows_len, rows_len),
                        rows: group.clone(),
                        v: v.as_mut_ptr(),
                        d: d.as_mut_ptr(),
                        tile: 0,
                    });
                    let next = if group.end < all.end {
                        group.end..(group.end + self.group).min(all.end)
                    } else {
                        // Probably this thread's next chunk.
                        let start = (rows * (chunk + pool.threads()) / self.chunks).min(rows);
                        start..(start + self.group).min(rows)
                    };
                    for point in 0..POINTS {
                        self.ahead(x, dy, next.clone(), point);
                        self.compute(Products {
                            plan: self,
                            v: v.as_ptr(),
                            d: d.as_ptr(),
                            tiles: count,
                            point,
                            sum: sum.as_mut_ptr(),
                        });
                    }
                }
            });
        }
        let dw = SharedSlice::new(dw);
        let from = self.geometry.from[2];
        let channels = from.min(16);
        pool.run(from.div_ceil(channels), &|task, _| {
            let first = task * channels;
            self.compute(Finish {
                plan: self,
                sums: scratch.pointer(0),
                channels: first..(first + channels).min(from),
                dw,
            });
        });
    }
}

/// Transforms tile rows `rows` to the tiles from `tile` of `V` and `D`.
struct Transform<'a> {
    plan: &'a WinogradWeights,
    x: Source<'a>,
    dy: Source<'a>,
    own: &'a mut [f32],
    rows: Range<usize>,
    v: *mut f32,
    d: *mut f32,
    tile: usize,
}

impl WithSimd for Transform<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Transform { plan, x, dy, own, rows, v, d, mut tile } = self;
        let [zero_len, x_len, _] = plan.rows_len();
        let (zero, own) = own.split_at_mut(zero_len);
        let (x_own, y_own) = own.split_at_mut(x_len);
        zero.fill(0.0);
        let g = &plan.geometry;
        let pad = [g.vertical[0].origin, g.horizontal[0].origin].map(|first| -first as usize);
        let (count, nr) = (plan.group_tiles(), plan.block);
        let (v_pitch, d_pitch) = (plan.v_pitch(), plan.d_pitch());
        for (image, band) in plan.of_images(rows) {
            let [x_range, y_range] = plan.band_rows(&band);
            let x_rows = x.rows(image, x_range.clone(), x_own);
            let y_rows = dy.rows(image, y_range.clone(), y_own);
            for tile_row in band {
                let operand = transform::Operand {
                    rows: x_rows,
                    first_row: x_range.start,
                    dims: plan.geometry.from,
                    pad,
                    zero,
                    tile_row,
                    tiles: plan.tiles[1],
                };
                unsafe {
                    transform::operand_row::<S>(
                        &operand,
                        v.add(tile * plan.tile_pitch()),
                        v_pitch,
                        plan.tile_pitch(),
                    );
                }
                let [height, width, channels] = g.to;
                let row = tile_row * OUT;
                let valid_rows = OUT.min(height - row);
                for column in 0..plan.tiles[1] {
                    let valid_cols = OUT.min(width - column * OUT);
                    let y = &y_rows[((row - y_range.start) * width + column * OUT) * channels..];
                    for channel in (0..channels).step_by(S::LANES) {
                        unsafe {
                            let y = y.as_ptr().add(channel);
                            let (block, within) = (channel / nr, channel % nr);
                            let d = d.add((block * count + tile + column) * nr + within);
                            if valid_rows == OUT && valid_cols == OUT {
                                let (row, column) = (width * channels, channels);
                                transform::result_adjoint::<S, true>(y, row, column, OUT, OUT, d, d_pitch);
                            } else {
                                let (row, column) = (width * channels, channels);
                                transform::result_adjoint::<S, false>(
                                    y, row, column, valid_rows, valid_cols, d, d_pitch,
                                );
                            }
                        }
                    }
                }
                tile += plan.tiles[1];
            }
        }
    }
}

/// Adds the products of the first `tiles` tiles to the sum.
struct Products<'a> {
    plan: &'a WinogradWeights,
    v: *const f32,
    d: *const f32,
    tiles: usize,
    point: usize,
    sum: *mut f32,
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Products { plan, v, d, tiles, point, sum } = self;
        let (from, count, nr) = (plan.geometry.from[2], plan.group_tiles(), plan.block);
        let most = if plan.shared() { SHARED_RUN } else { RUN };
        let run = tiles.div_ceil(tiles.div_ceil(most));
        let runs = (0..tiles).step_by(run).map(|first| Run {
            left: first * plan.tile_pitch(),
            right: first,
            depth: run.min(tiles - first),
        });
        let product = Product {
            rows: from,
            width: nr,
            left_row: 1,
            left_step: plan.tile_pitch(),
            right_step: nr,
            out_row: nr,
            add: true,
        };
        for block in 0..plan.geometry.to[2] / nr {
            // SAFETY: inside of the areas.
            unsafe {
                let x = v.add(point * plan.v_pitch());
                let y = d.add(point * plan.d_pitch() + block * count * nr);
                let out = sum.add(point * plan.sum_pitch() + block * from * nr);
                product.run::<S>(x, y, out, runs.clone());
            }
        }
    }
}

/// Adds the chunks' sums up and transforms them back, for some from-channels.
struct Finish<'a> {
    plan: &'a WinogradWeights,
    sums: *const f32,
    channels: Range<usize>,
    dw: SharedSlice<'a>,
}

impl WithSimd for Finish<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Finish { plan, sums, channels, dw } = self;
        let (from, to, nr, len) = (plan.geometry.from[2], plan.geometry.to[2], plan.block, plan.sum_len());
        for first in (0..to).step_by(S::LANES) {
            let (block, within) = (first / nr, first % nr);
            for channel in channels.clone() {
                // SAFETY: inside the sums; and each (to, from) pair has its own nine weights.
                unsafe {
                    let mut total = [S::splat(0.0); POINTS];
                    for chunk in 0..plan.chunks {
                        let at = chunk * len + (block * from + channel) * nr + within;
                        for point in 0..POINTS {
                            let value = S::load(sums.add(at + point * plan.sum_pitch()));
                            total[point] = S::add(total[point], value);
                        }
                    }
                    let taps = transform::weights_adjoint::<S>(total);
                    let mut values = [0.0f32; 9 * 16];
                    for (tap, &value) in taps.iter().enumerate() {
                        S::store(values.as_mut_ptr().add(tap * S::LANES), value);
                    }
                    for lane in 0..S::LANES {
                        let at = ((first + lane) * from + channel) * 9;
                        let out = dw.range(at..at + 9);
                        for (tap, out) in out.iter_mut().enumerate() {
                            *out = values[tap * S::LANES + lane];
                        }
                    }
                }
            }
        }
    }
}
