//! 3x3 stride-1 convolution by Winograd's minimal filtering, F(4x4, 3x3) (Lavin and Gray 2015,
//! arXiv:1509.09308): a quarter of the multiplications of a direct convolution.
//!
//! A 4x4 tile of the result needs a 6x6 tile of the operand. With `B`, `G`, `A` of the module
//! [`transform`], tile by tile and channel by channel:
//!
//! 1. `V = B' d B`, the 36 values of an operand tile;
//! 2. `M = V U`, for each of the 36 a product `[tiles, from channels] x [from channels, to
//!    channels]` with the packed weights `U = G g G'`;
//! 3. `y = A' M A`, the 16 values of a result tile.
//!
//! A task takes a group of some tens of tiles through all three steps, so that `V` and `M` never
//! leave the second-level cache: a band of tile rows of one image, or several small images.
//!
//! Layouts, with a block of `nr` to-channels: `V[36][tile][from channel]`, `U[36][to block][from channel][nr]`, `M[36][to block][tile][nr]`;
//! the 36 planes of each are a cache line further apart than they are long, because planes
//! at a power of two would all fall into the same cache sets.

mod transform;
pub(super) mod weights;

use schedule::ConvGeometry;

use self::transform::{IN, OUT, POINTS};
use super::algorithm::{Band, Bands, ImageAlgorithm, even};
use super::geometry::Geometry;
use super::product::{ChannelBlock, Product, Run};
use super::stream::spread;
use super::threads::ThreadPool;
use crate::isa::{Isa, Simd, WithSimd};
use crate::memory::{LINE, SharedSlice, lines};

/// Tiles of a group, and the floats of `V` and `M` together that it may take.
const GROUP_TILES: usize = 32;
const GROUP_FLOATS: usize = 192 * 1024;
/// Channels that are summed in registers before they join the sum: long runs of additions cost accuracy.
const RUN: usize = 64;
/// Tiles of a group at least, or the packed weights are read too often.
const LEAST_TILES: usize = 16;

/// A stride-1 3x3 correlation from one set of images to another: a forward pass, or an input
/// gradient with the weights turned around.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    isa: Isa,
    bands: Bands,
    /// Tiles of a task: across an image, and in all.
    across: usize,
    tiles: usize,
    /// Channels of a block of to-channels.
    block: usize,
}

impl Winograd {
    /// Nothing if the shape or the number of channels is not for this algorithm.
    pub fn new(conv: &ConvGeometry, adjoint: bool, isa: Isa) -> Option<Winograd> {
        if !applies(conv, isa) {
            return None;
        }
        let geometry = Geometry::new(conv, adjoint);
        let [height, width, to] = geometry.to;
        let [down, across] = [height.div_ceil(OUT), width.div_ceil(OUT)];
        let wanted = (GROUP_FLOATS / POINTS / (geometry.from[2] + to)).clamp(LEAST_TILES, GROUP_TILES);
        let (rows, images) = if down * across > wanted {
            (even(down, wanted / across), 1)
        } else {
            (down, (wanted / (down * across)).clamp(1, geometry.images))
        };
        let bands = Bands { geometry, rows: (rows * OUT).min(height), images };
        let block = ChannelBlock::equal(to, isa);
        Some(Winograd { isa, bands, across, tiles: rows * across * images, block })
    }

    /// Floats of a thread's parts of the scratch memory: a zero pixel row, `V`, `M`, operand rows,
    /// result rows.
    fn scratch(&self) -> [usize; 5] {
        let [operand, result] = self.bands.lens();
        let zero = lines(IN * self.bands.geometry.from[2]);
        [zero, POINTS * self.v_pitch(), POINTS * self.m_pitch(), operand, result]
    }

    fn u_pitch(&self) -> usize {
        plane(self.bands.geometry.from[2] * self.bands.geometry.to[2])
    }

    fn v_pitch(&self) -> usize {
        plane(self.tiles * spread(self.bands.geometry.from[2]))
    }

    fn m_pitch(&self) -> usize {
        plane(self.tiles * self.bands.geometry.to[2])
    }
}

impl ImageAlgorithm for Winograd {
    fn bands(&self) -> &Bands {
        &self.bands
    }

    fn packed_len(&self) -> usize {
        POINTS * self.u_pitch()
    }

    /// To `U`.
    fn pack(&self, pool: &ThreadPool, weights: &[f32], packed: &mut [f32]) {
        let [channels, to] = self.bands.geometry.group_channels;
        // Enough tasks for the threads, each a run of from-channels of one block.
        let run = channels.div_ceil(8).max(4);
        let runs = channels.div_ceil(run);
        let packed = SharedSlice::new(packed);
        pool.run(to / self.block * runs, &|task, _| {
            let (block, first) = (task / runs, task % runs * run);
            let channels = first..(first + run).min(channels);
            // SAFETY: the instruction set was found on this machine.
            unsafe { self.isa.run(Pack { plan: self, weights, packed, block, channels }) }
        });
    }

    fn scratch_len(&self) -> usize {
        self.scratch().iter().sum()
    }

    fn make(&self, band: &Band, packed: &[f32], scratch: &mut [f32]) {
        // SAFETY: the instruction set was found on this machine.
        unsafe { self.isa.run(Make { plan: self, band, packed, scratch }) }
    }
}

/// From one of 36 planes of `len` floats to the next: whole cache lines, and one more.
fn plane(len: usize) -> usize {
    lines(len) + LINE
}

/// Whether Winograd's algorithm computes this convolution at all, and channels are whole vectors.
fn applies(g: &ConvGeometry, isa: Isa) -> bool {
    let conv = &g.conv;
    g.kernel == [3, 3]
        && (conv.stride, conv.dilation, conv.groups) == ([1, 1], [1, 1], 1)
        && conv.padding.iter().all(|&pad| pad <= 2)
        && g.in_channels.is_multiple_of(isa.lanes())
        && g.out_channels.is_multiple_of(isa.lanes())
}

struct Pack<'a> {
    plan: &'a Winograd,
    weights: &'a [f32],
    packed: SharedSlice<'a>,
    block: usize,
    channels: std::ops::Range<usize>,
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Pack { plan, weights, packed, block, channels } = self;
        let (g, nr, plane) = (&plan.bands.geometry, plan.block, plan.u_pitch());
        // An input gradient meets the taps in the opposite order.
        let last = g.vertical[0].taps[0].0 * 3 + g.horizontal[0].taps[0].0;
        let mut taps = [0.0f32; 9 * 64];
        for channel in channels {
            let [start, step] = g.weights(0, channel, block * nr);
            for lane in 0..nr {
                let weights = &weights[start + lane * step..][..9];
                for (tap, &weight) in weights.iter().enumerate() {
                    taps[tap.abs_diff(last) * nr + lane] = weight;
                }
            }
            for first in (0..nr).step_by(S::LANES) {
                // SAFETY: the taps are in the array, and the 36 results in the packed weights at
                // places that belong to this block and channel.
                unsafe {
                    let u = transform::weights::<S>(taps.as_ptr().add(first), nr);
                    for (point, u) in u.into_iter().enumerate() {
                        let at = point * plane + (block * g.from[2] + channel) * nr + first;
                        S::store(packed.range(at..at + S::LANES).as_mut_ptr(), u);
                    }
                }
            }
        }
    }
}

/// One group of tiles through the three steps.
struct Make<'a> {
    plan: &'a Winograd,
    band: &'a Band<'a>,
    packed: &'a [f32],
    scratch: &'a mut [f32],
}

impl WithSimd for Make<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Make { plan, band, packed, scratch } = self;
        let [zero_len, v_len, m_len, operand_len, _] = plan.scratch();
        let (zero, rest) = scratch.split_at_mut(zero_len);
        let (v, rest) = rest.split_at_mut(v_len);
        let (m, rest) = rest.split_at_mut(m_len);
        let (operand, result) = rest.split_at_mut(operand_len);
        zero.fill(0.0);

        let g = &plan.bands.geometry;
        let tile_rows = band.rows.start / OUT..band.rows.end.div_ceil(OUT);
        let image_tiles = tile_rows.len() * plan.across;
        for (at, image) in band.images.clone().enumerate() {
            let rows = band.operand(image, operand);
            for (row, tile_row) in tile_rows.clone().enumerate() {
                let operand = transform::Operand {
                    rows,
                    first_row: band.operand_rows().start,
                    dims: g.from,
                    pad: [g.vertical[0].origin, g.horizontal[0].origin].map(|first| -first as usize),
                    zero,
                    tile_row,
                    tiles: plan.across,
                };
                let (tile, pitch) = (at * image_tiles + row * plan.across, spread(g.from[2]));
                // SAFETY: tiles read inside `rows` and `zero`, and write inside `v`.
                unsafe {
                    let v = v.as_mut_ptr().add(tile * pitch);
                    transform::operand_row::<S>(&operand, v, plan.v_pitch(), pitch);
                }
            }
        }

        // SAFETY: everything lies inside `v`, `m` and the packed weights.
        unsafe { products::<S>(plan, v, packed, m, band.images.len() * image_tiles, band) };

        for (at, image) in band.images.clone().enumerate() {
            // SAFETY: the only use of this image's rows.
            let tile = unsafe { band.tile(image, result) };
            for row in 0..tile_rows.len() {
                // SAFETY: tiles lie inside `m`, and `tile` has their rows.
                unsafe {
                    let first = at * image_tiles + row * plan.across;
                    result_tiles::<S>(plan, m, first, row, band.rows.len(), tile);
                }
            }
            band.finish(image, tile);
        }
    }
}

/// Step 2.
#[inline(always)]
unsafe fn products<S: Simd>(
    plan: &Winograd,
    v: &[f32],
    packed: &[f32],
    m: &mut [f32],
    tiles: usize,
    band: &Band,
) {
    let ([_, _, from], [_, _, to], nr) = (plan.bands.geometry.from, plan.bands.geometry.to, plan.block);
    let product = Product {
        rows: tiles,
        width: nr,
        left_row: spread(from),
        left_step: 1,
        right_step: nr,
        out_row: nr,
        add: false,
    };
    let runs =
        (0..from).step_by(RUN).map(|first| Run { left: first, right: first, depth: RUN.min(from - first) });
    for point in 0..POINTS {
        band.ahead(point, POINTS);
        for block in 0..to / nr {
            unsafe {
                let x = v.as_ptr().add(point * plan.v_pitch());
                let weights = packed.as_ptr().add(point * plan.u_pitch() + block * from * nr);
                let out = m.as_mut_ptr().add(point * plan.m_pitch() + block * plan.tiles * nr);
                product.run::<S>(x, weights, out, runs.clone());
            }
        }
    }
}

/// Step 3 for row `row` of the tiles of `out`, which has `height` rows; tiles are those from `first`
/// of `M`.
#[inline(always)]
unsafe fn result_tiles<S: Simd>(
    plan: &Winograd,
    m: &[f32],
    first: usize,
    row: usize,
    height: usize,
    out: &mut [f32],
) {
    let [_, width, channels] = plan.bands.geometry.to;
    let (nr, count, plane) = (plan.block, plan.tiles, plan.m_pitch());
    let valid_rows = OUT.min(height - row * OUT);
    for tile in 0..plan.across {
        let valid_cols = OUT.min(width - tile * OUT);
        for channel in (0..channels).step_by(S::LANES) {
            let (block, within) = (channel / nr, channel % nr);
            unsafe {
                let m = m.as_ptr().add((block * count + first + tile) * nr + within);
                let y = transform::result::<S>(m, plane);
                let out = out.as_mut_ptr().add((row * OUT * width + tile * OUT) * channels + channel);
                if valid_rows == OUT && valid_cols == OUT {
                    for i in 0..OUT {
                        for j in 0..OUT {
                            S::store(out.add((i * width + j) * channels), y[i * OUT + j]);
                        }
                    }
                } else {
                    for i in 0..valid_rows {
                        for j in 0..valid_cols {
                            S::store(out.add((i * width + j) * channels), y[i * OUT + j]);
                        }
                    }
                }
            }
        }
    }
}
