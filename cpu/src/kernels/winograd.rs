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

use super::plan::Pass;
use super::product::{Product, Run};
use super::shape::ConvShape;
use super::simd::{Isa, Kernel, Simd};
use super::stream::{Ahead, LINE, fetch, lines, spread};
use super::{Pool, SharedSlice, Sink, Source};
use transform::{IN, OUT, POINTS};

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
    images: usize,
    /// Rows, columns, channels.
    from: [usize; 3],
    to: [usize; 3],
    pad: [usize; 2],
    /// Whether weights `[cout, cin, 3, 3]` are turned by 180 degrees and transposed.
    adjoint: bool,
    /// Tiles down and across an image.
    tiles: [usize; 2],
    /// Tile rows, and images, of a group; one of the two is 1 or all.
    group_rows: usize,
    group_images: usize,
    /// Vectors in a block of to-channels.
    vectors: usize,
}

impl Winograd {
    /// Nothing if the shape or the number of channels is not for this algorithm.
    pub fn new(pass: Pass, shape: &ConvShape, isa: Isa) -> Option<Winograd> {
        let x = [shape.h, shape.w, shape.cin];
        let y = [shape.oh(), shape.ow(), shape.cout];
        let (from, to, pad, adjoint) = match pass {
            Pass::Forward => (x, y, shape.pad, false),
            Pass::InputGrad => {
                (y, x, [2usize.checked_sub(shape.pad[0])?, 2usize.checked_sub(shape.pad[1])?], true)
            }
            Pass::WeightGrad => return None,
        };
        let lanes = isa.lanes();
        let fits = applies(shape) && from[2] % lanes == 0 && to[2] % lanes == 0;
        if !fits {
            return None;
        }
        let vectors = vectors(isa, to[2]);
        let tiles = [to[0].div_ceil(OUT), to[1].div_ceil(OUT)];
        let wanted = (GROUP_FLOATS / POINTS / (from[2] + to[2])).clamp(LEAST_TILES, GROUP_TILES.max(16));
        let (group_rows, group_images) = if tiles[0] * tiles[1] > wanted {
            // Bands of nearly the same height.
            let rows = (wanted / tiles[1]).clamp(1, tiles[0]);
            (tiles[0].div_ceil(tiles[0].div_ceil(rows)), 1)
        } else {
            (tiles[0], (wanted / (tiles[0] * tiles[1])).clamp(1, shape.n))
        };
        Some(Winograd {
            isa,
            images: shape.n,
            from,
            to,
            pad,
            adjoint,
            tiles,
            group_rows,
            group_images,
            vectors,
        })
    }

    pub fn tile_rows(&self) -> usize {
        (self.group_rows * OUT).min(self.to[0])
    }

    pub fn packed_len(&self) -> usize {
        POINTS * self.u_pitch()
    }

    fn block(&self) -> usize {
        self.vectors * self.isa.lanes()
    }

    fn group_tiles(&self) -> usize {
        self.group_rows * self.tiles[1] * self.group_images
    }

    /// Floats of a thread's parts of the scratch memory: a zero pixel row, `V`, `M`, operand rows,
    /// result rows.
    fn scratch(&self) -> [usize; 5] {
        [
            lines(IN * self.from[2]),
            POINTS * self.v_pitch(),
            POINTS * self.m_pitch(),
            lines((self.group_rows * OUT + 2).min(self.from[0]) * self.from[1] * self.from[2]),
            lines(self.tile_rows() * self.to[1] * self.to[2]),
        ]
    }

    fn u_pitch(&self) -> usize {
        plane(self.from[2] * self.to[2])
    }

    fn v_pitch(&self) -> usize {
        plane(self.group_tiles() * spread(self.from[2]))
    }

    fn m_pitch(&self) -> usize {
        plane(self.group_tiles() * self.to[2])
    }

    pub fn workspace(&self, threads: usize) -> usize {
        threads * self.scratch().iter().sum::<usize>()
    }

    /// Weights `[cout, cin, 3, 3]` to `U`.
    pub fn pack(&self, pool: &Pool, weights: &[f32], packed: &mut [f32]) {
        let (nr, channels) = (self.block(), self.from[2]);
        let blocks = self.to[2] / nr;
        // Enough tasks for the threads, each a run of from-channels of one block.
        let run = channels.div_ceil(8).max(4);
        let runs = channels.div_ceil(run);
        let packed = SharedSlice::new(packed);
        pool.run(blocks * runs, &|task, _| {
            let (block, first) = (task / runs, task % runs * run);
            let kernel =
                Pack { plan: self, weights, packed, block, channels: first..(first + run).min(channels) };
            // SAFETY: the instruction set was found on this machine.
            unsafe { self.isa.run(kernel) }
        });
    }

    pub fn run(
        &self,
        pool: &Pool,
        source: &dyn Source,
        packed: &[f32],
        sink: &dyn Sink,
        scratch: &mut [f32],
    ) {
        let bands = self.tiles[0].div_ceil(self.group_rows);
        let groups = self.images.div_ceil(self.group_images);
        let each = self.scratch().iter().sum::<usize>();
        let scratch = SharedSlice::new(scratch);
        pool.run(groups * bands, &|task, thread| {
            let place = |task: usize| Place {
                images: (task / bands * self.group_images).min(self.images)
                    ..((task / bands + 1) * self.group_images).min(self.images),
                first_row: task % bands * self.group_rows,
            };
            let at = place(task);
            // The task that this thread takes next if all go on at the same pace.
            let next = place(task + pool.threads());
            let ahead = Ahead {
                source,
                sink,
                read: [next.images.clone(), next.operand_rows(self)],
                make: [at.images.clone(), at.result_rows(self)],
                target: sink.target().map(|target| {
                    let len = self.to[1] * self.to[2];
                    let rows = at.result_rows(self);
                    let last = (at.images.end - 1) * self.to[0];
                    let first = at.images.start * self.to[0];
                    target.part((first + rows.start) * len..(last + rows.end) * len)
                }),
            };
            let kernel = Group {
                plan: self,
                source,
                packed,
                sink,
                ahead: &ahead,
                // SAFETY: every thread has its own part.
                scratch: unsafe { scratch.range(thread * each..(thread + 1) * each) },
                at,
            };
            // SAFETY: the instruction set was found on this machine; every task has its own rows
            // of the result.
            unsafe { self.isa.run(kernel) }
        });
    }
}

/// From one of 36 planes of `len` floats to the next: whole cache lines, and one more.
fn plane(len: usize) -> usize {
    lines(len) + LINE
}

/// Whether Winograd's algorithm computes this convolution at all.
pub(super) fn applies(shape: &ConvShape) -> bool {
    [shape.kh, shape.kw] == [3, 3]
        && shape.stride == [1, 1]
        && shape.dilation == [1, 1]
        && shape.groups == 1
        && shape.pad[0] <= 2
        && shape.pad[1] <= 2
}

/// Vectors in a block of `channels` channels: as many as the registers allow and divide them.
pub(super) fn vectors(isa: Isa, channels: usize) -> usize {
    let count = channels / isa.lanes();
    let most = if isa.lanes() == 4 { 4 } else { 2 };
    [4, 2].into_iter().find(|v| *v <= most && count.is_multiple_of(*v)).unwrap_or(1)
}

struct Pack<'a> {
    plan: &'a Winograd,
    weights: &'a [f32],
    packed: SharedSlice<'a>,
    block: usize,
    channels: std::ops::Range<usize>,
}

impl Kernel for Pack<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let plan = self.plan;
        let (from, nr) = (plan.from[2], plan.block());
        let plane = plan.u_pitch();
        let mut taps = [0.0f32; 9 * 64];
        for channel in self.channels {
            for lane in 0..nr {
                let to = self.block * nr + lane;
                let (out, at) = if plan.adjoint { (channel, to * 9) } else { (to, channel * 9) };
                let cin = if plan.adjoint { plan.to[2] } else { from };
                let weights = &self.weights[out * cin * 9 + at..][..9];
                for (tap, &weight) in weights.iter().enumerate() {
                    let tap = if plan.adjoint { 8 - tap } else { tap };
                    taps[tap * nr + lane] = weight;
                }
            }
            for v in 0..plan.vectors {
                // SAFETY: the taps are in the array, and the 36 results in the packed weights at
                // places that belong to this block and channel.
                unsafe {
                    let u = transform::weights::<S>(taps.as_ptr().add(v * S::LANES), nr);
                    for (point, u) in u.into_iter().enumerate() {
                        let at = point * plane + (self.block * from + channel) * nr + v * S::LANES;
                        S::store(self.packed.range(at..at + S::LANES).as_mut_ptr(), u);
                    }
                }
            }
        }
    }
}

/// Which tiles are a group.
struct Place {
    images: std::ops::Range<usize>,
    /// First tile row.
    first_row: usize,
}

impl Place {
    fn tile_rows(&self, plan: &Winograd) -> std::ops::Range<usize> {
        self.first_row..(self.first_row + plan.group_rows).min(plan.tiles[0])
    }

    /// The operand rows that it reads of each image.
    fn operand_rows(&self, plan: &Winograd) -> std::ops::Range<usize> {
        let rows = self.tile_rows(plan);
        let first = (rows.start * OUT).saturating_sub(plan.pad[0]).min(plan.from[0]);
        let end = (rows.end * OUT + 2).saturating_sub(plan.pad[0]).min(plan.from[0]);
        first..end.max(first)
    }

    /// The result rows that it makes of each image.
    fn result_rows(&self, plan: &Winograd) -> std::ops::Range<usize> {
        let rows = self.tile_rows(plan);
        rows.start * OUT..(rows.end * OUT).min(plan.to[0])
    }
}

/// One group of tiles through the three steps.
struct Group<'a> {
    plan: &'a Winograd,
    source: &'a dyn Source,
    packed: &'a [f32],
    sink: &'a dyn Sink,
    ahead: &'a Ahead<'a>,
    scratch: &'a mut [f32],
    at: Place,
}

impl Kernel for Group<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let plan = self.plan;
        let [zero_len, v_len, m_len, operand_len, _] = plan.scratch();
        let (zero, rest) = self.scratch.split_at_mut(zero_len);
        let (v, rest) = rest.split_at_mut(v_len);
        let (m, rest) = rest.split_at_mut(m_len);
        let (operand, result) = rest.split_at_mut(operand_len);
        zero.fill(0.0);

        let (band, images) = (self.at.tile_rows(plan), self.at.images.clone());
        let needed = self.at.operand_rows(plan);
        let image_tiles = band.len() * plan.tiles[1];
        for (at, image) in images.clone().enumerate() {
            let rows = fetch(self.source, plan.from, image, needed.clone(), operand);
            for (row, tile_row) in band.clone().enumerate() {
                // SAFETY: tiles read inside `rows` and `zero`, and write inside `v`.
                unsafe {
                    let tile = at * image_tiles + row * plan.tiles[1];
                    operand_tiles::<S>(plan, rows, needed.start, tile_row, zero, v, tile);
                }
            }
        }

        let tiles = images.len() * image_tiles;
        // SAFETY: everything lies inside `v`, `m` and the packed weights.
        unsafe {
            products::<S>(plan, v, self.packed, m, tiles, self.ahead);
        }

        let rows = self.at.result_rows(plan);
        let row_len = plan.to[1] * plan.to[2];
        let target = self.sink.target();
        for (at, image) in images.enumerate() {
            let tile = match &target {
                Some(all) => {
                    let start = (image * plan.to[0] + rows.start) * row_len;
                    // SAFETY: every task has its own rows.
                    unsafe { all.range(start..start + rows.len() * row_len) }
                }
                None => &mut result[..rows.len() * row_len],
            };
            for row in 0..band.len() {
                // SAFETY: tiles lie inside `m`, and `tile` has their rows.
                unsafe {
                    let first = at * image_tiles + row * plan.tiles[1];
                    result_tiles::<S>(plan, m, first, row, rows.len(), tile);
                }
            }
            self.sink.finish(image, rows.clone(), tile);
        }
    }
}

/// Step 1 for one row of tiles. `rows` are operand rows from `first_row`; results go to tiles from
/// `tile` of `V`.
#[inline(always)]
unsafe fn operand_tiles<S: Simd>(
    plan: &Winograd,
    rows: &[f32],
    first_row: usize,
    tile_row: usize,
    zero: &[f32],
    v: &mut [f32],
    tile: usize,
) {
    unsafe {
        transform::operand_row::<S>(
            &transform::Operand {
                rows,
                first_row,
                dims: plan.from,
                pad: plan.pad,
                zero,
                tile_row,
                tiles: plan.tiles[1],
            },
            v.as_mut_ptr().add(tile * spread(plan.from[2])),
            plan.v_pitch(),
            spread(plan.from[2]),
        );
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
    ahead: &Ahead,
) {
    let (nr, from) = (plan.block(), plan.from[2]);
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
        ahead.step(point, POINTS);
        for block in 0..plan.to[2] / nr {
            unsafe {
                let x = v.as_ptr().add(point * plan.v_pitch());
                let weights = packed.as_ptr().add(point * plan.u_pitch() + block * from * nr);
                let out = m.as_mut_ptr().add(point * plan.m_pitch() + block * plan.group_tiles() * nr);
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
    let [_, width, channels] = plan.to;
    let (nr, count, plane) = (plan.block(), plan.group_tiles(), plan.m_pitch());
    let valid_rows = OUT.min(height - row * OUT);
    for tile in 0..plan.tiles[1] {
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
