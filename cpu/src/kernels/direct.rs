//! Direct convolution as an implicit matrix product: no multiplication saved, none wasted, any
//! stride and number of groups. Depthwise convolutions have their own file.
//!
//! A task is a band of rows of one image. The operand's rows are copied once into scratch memory,
//! with their padding, in blocks of channels, `[block][row][column][channel]`. There every pixel of
//! a result row reads its taps at a constant distance from its neighbour's, as a matrix product
//! wants it, and the taps of a kernel row are one run of floats.
//!
//! A strided convolution's input gradient is taken apart by the residues of the result's row and
//! column: each residue class is a stride-1 convolution of `dy` with the taps that meet it.

pub(super) mod geometry;
mod patches;
pub(super) mod weights;

use super::plan::Pass;
use super::product::Product;
use super::shape::ConvShape;
use super::simd::{Isa, Kernel, Simd};
use super::stream::{Ahead, lines};
use super::{Pool, SharedSlice, Sink, Source};
use geometry::{Blocked, Class, Geometry};

/// Floats of a band's operand and result.
const BAND_FLOATS: usize = 64 * 1024;

/// A run of to-channels of a group that is computed at once.
#[derive(Clone, Copy, Debug)]
struct ToBlock {
    /// First channel in the group, channels, and vectors that hold them.
    first: usize,
    count: usize,
    vectors: usize,
}

/// Splits `channels` into blocks of at most as many vectors as suit the registers.
fn to_blocks(channels: usize, isa: Isa) -> Vec<ToBlock> {
    let lanes = isa.lanes();
    let most = if lanes == 4 { 4 } else { 2 };
    let mut blocks = Vec::new();
    let mut first = 0;
    while first < channels {
        let vectors = (channels - first).div_ceil(lanes).next_power_of_two().min(most);
        let count = (vectors * lanes).min(channels - first);
        blocks.push(ToBlock { first, count, vectors });
        first += count;
    }
    blocks
}

/// A convolution's forward pass or input gradient.
#[derive(Clone, Debug)]
pub(super) struct Direct {
    isa: Isa,
    images: usize,
    adjoint: bool,
    shape: ConvShape,
    geometry: Geometry,
    layout: Blocked,
    classes: Vec<Class>,
    blocks: Vec<ToBlock>,
    tile_rows: usize,
}

impl Direct {
    /// Nothing where the general loops have to do it: depthwise (no channels to sum over), or
    /// dilated and strided at once.
    pub fn new(pass: Pass, shape: &ConvShape, isa: Isa) -> Option<Direct> {
        if pass == Pass::WeightGrad || !applies(shape) {
            return None;
        }
        let adjoint = pass == Pass::InputGrad;
        let geometry = Geometry::new(shape, adjoint)?;
        let blocks = to_blocks(geometry.to[2], isa);
        let [rows, columns, channels] = geometry.to;
        let tile_rows = (1..=rows)
            .rev()
            .find(|&count| {
                let result = count * columns * channels * shape.groups;
                geometry.blocked(count).len() + result <= BAND_FLOATS
            })
            .unwrap_or(1);
        // Bands of nearly the same height.
        let tile_rows = rows.div_ceil(rows.div_ceil(tile_rows));
        let layout = geometry.blocked(tile_rows);
        let classes = geometry.classes(&layout);
        Some(Direct {
            isa,
            images: shape.n,
            adjoint,
            shape: *shape,
            geometry,
            layout,
            classes,
            blocks,
            tile_rows,
        })
    }

    pub fn tile_rows(&self) -> usize {
        self.tile_rows
    }

    /// Lanes of all to-channel blocks.
    fn lanes(&self) -> usize {
        self.blocks.iter().map(|b| b.vectors * self.isa.lanes()).sum()
    }

    fn class_len(&self, class: &Class) -> usize {
        class.depth * self.lanes()
    }

    fn group_len(&self) -> usize {
        self.classes.iter().map(|class| self.class_len(class)).sum()
    }

    pub fn packed_len(&self) -> usize {
        self.shape.groups * self.group_len()
    }

    /// Weights `[cout, cin / groups, kh, kw]` to `[group][class][to block][depth][nr]`, zeros
    /// where there is no channel.
    pub fn pack(&self, pool: &Pool, weights: &[f32], packed: &mut [f32]) {
        let packed = SharedSlice::new(packed);
        let count = self.blocks.len();
        pool.run(self.shape.groups * count, &|task, _| {
            let (group, block) = (task / count, self.blocks[task % count]);
            let nr = block.vectors * self.isa.lanes();
            let before: usize =
                self.blocks[..task % count].iter().map(|b| b.vectors * self.isa.lanes()).sum();
            let mut start = group * self.group_len();
            for class in &self.classes {
                let from = start + before * class.depth;
                // SAFETY: every block of every group has its own part.
                let out = unsafe { packed.range(from..from + class.depth * nr) };
                self.pack_block(weights, class, group, block, out);
                start += self.class_len(class);
            }
        });
    }

    fn pack_block(&self, weights: &[f32], class: &Class, group: usize, block: ToBlock, out: &mut [f32]) {
        let s = &self.shape;
        let (ci, co, taps) = (s.cin_per_group(), s.cout_per_group(), s.kh * s.kw);
        let nr = block.vectors * self.isa.lanes();
        out.fill(0.0);
        for depth in &class.rows {
            for lane in 0..block.count {
                let to = block.first + lane;
                let (i, o) = if self.adjoint { (to, depth.channel) } else { (depth.channel, to) };
                out[depth.at * nr + lane] = weights[((group * co + o) * ci + i) * taps + depth.tap];
            }
        }
    }

    /// Floats of a thread's parts of the scratch memory: operand rows as they are, and blocked;
    /// a result row with all lanes; result rows.
    fn scratch(&self) -> [usize; 4] {
        let [_, columns, channels] = self.geometry.to;
        let operand = &self.layout;
        let [from_rows, from_columns, from_channels] = self.geometry.from;
        let widest = self.isa.lanes() * if self.isa.lanes() == 4 { 4 } else { 2 };
        [
            lines(operand.rows.min(from_rows) * from_columns * from_channels * self.shape.groups),
            lines(operand.len()),
            lines(self.tile_rows * columns * widest),
            lines(self.tile_rows * columns * channels * self.shape.groups),
        ]
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
        let bands = self.geometry.to[0].div_ceil(self.tile_rows);
        let each = self.scratch().iter().sum::<usize>();
        let scratch = SharedSlice::new(scratch);
        pool.run(self.images * bands, &|task, thread| {
            let (image, first) = (task / bands, task % bands * self.tile_rows);
            // The task that this thread takes next if all go on at the same pace.
            let next = task + pool.threads();
            let next_first = next % bands * self.tile_rows;
            let read = if next < self.images * bands {
                let to = next_first..(next_first + self.tile_rows).min(self.geometry.to[0]);
                [next / bands..next / bands + 1, self.geometry.inner_rows(to)]
            } else {
                [0..0, 0..0]
            };
            let make = first..(first + self.tile_rows).min(self.geometry.to[0]);
            let ahead = Ahead {
                source,
                sink,
                read,
                make: [image..image + 1, make.clone()],
                target: sink.target().map(|target| {
                    let [rows, columns, channels] = self.geometry.to;
                    let len = columns * channels * self.shape.groups;
                    let start = image * rows;
                    target.part((start + make.start) * len..(start + make.end) * len)
                }),
            };
            let kernel = Band {
                plan: self,
                source,
                packed,
                sink,
                ahead: &ahead,
                // SAFETY: every thread has its own part.
                scratch: unsafe { scratch.range(thread * each..(thread + 1) * each) },
                image,
                first,
            };
            // SAFETY: the instruction set was found on this machine.
            unsafe { self.isa.run(kernel) }
        });
    }
}

/// Whether there are channels to sum over. Depthwise convolutions have one each.
pub(super) fn applies(shape: &ConvShape) -> bool {
    shape.groups == 1 || shape.cin_per_group() > 1 && shape.cout_per_group() > 1
}

struct Band<'a> {
    plan: &'a Direct,
    source: &'a dyn Source,
    packed: &'a [f32],
    sink: &'a dyn Sink,
    ahead: &'a Ahead<'a>,
    scratch: &'a mut [f32],
    image: usize,
    first: usize,
}

impl Kernel for Band<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let plan = self.plan;
        let [operand_len, blocked_len, row_len, _] = plan.scratch();
        let (operand, rest) = self.scratch.split_at_mut(operand_len);
        let (blocked, rest) = rest.split_at_mut(blocked_len);
        let (wide, tile) = rest.split_at_mut(row_len);
        let g = &plan.geometry;
        let to = self.first..(self.first + plan.tile_rows).min(g.to[0]);
        let (layout, groups) = (&plan.layout, plan.shape.groups);
        let from = g.rows(to.clone());
        let first = from.start;
        layout.fill(g, self.source, self.image, from, operand, blocked);

        let channels = g.to[2] * groups;
        let target = self.sink.target();
        let tile = match &target {
            Some(all) => {
                let start = (self.image * g.to[0] + to.start) * g.to[1] * channels;
                // SAFETY: every task has its own rows.
                unsafe { all.range(start..start + to.len() * g.to[1] * channels) }
            }
            None => &mut tile[..to.len() * g.to[1] * channels],
        };
        // Hints are given row by row of every part.
        let mut step = 0;
        let parts = groups * plan.classes.len() * plan.blocks.len();
        for group in 0..groups {
            let mut weights = self.packed[group * plan.group_len()..].as_ptr();
            for class in &plan.classes {
                for block in &plan.blocks {
                    let part = Part {
                        plan,
                        class,
                        block: *block,
                        layout,
                        rows: to.clone(),
                        first,
                        channel: group * g.to[2] + block.first,
                        ahead: self.ahead,
                        step,
                        parts,
                    };
                    step += 1;
                    // SAFETY: the weights are those of this class and block, the operand this
                    // group's, and the tile has all rows of the band.
                    unsafe {
                        let x = blocked.as_ptr().add(group * layout.group_len());
                        part.run::<S>(x, weights, wide, tile);
                        weights = weights.add(class.depth * block.vectors * S::LANES);
                    }
                }
            }
        }
        self.sink.finish(self.image, to, tile);
    }
}

/// The pixels of one residue class and the channels of one block, of a band.
struct Part<'a> {
    plan: &'a Direct,
    class: &'a Class,
    block: ToBlock,
    layout: &'a Blocked,
    rows: std::ops::Range<usize>,
    /// Operand row that the blocked copy starts with.
    first: isize,
    /// First channel in the whole result.
    channel: usize,
    ahead: &'a Ahead<'a>,
    /// Number of this part of a band, and how many there are.
    step: usize,
    parts: usize,
}

impl Part<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(&self, x: *const f32, weights: *const f32, wide: &mut [f32], tile: &mut [f32]) {
        let g = &self.plan.geometry;
        let (vertical, horizontal) = (&self.class.vertical, &self.class.horizontal);
        let channels = g.to[2] * self.plan.shape.groups;
        let columns = horizontal.count(0..g.to[1]);
        let mut rows = vertical.count(self.rows.clone());
        if rows == 0 || columns == 0 {
            return;
        }
        // The class's first row in this band.
        let first = vertical.at_or_after(self.rows.start);
        let pitch = horizontal.in_step * self.layout.channels;
        let x_row = vertical.in_step * self.layout.columns * self.layout.channels;
        let mut out_row = vertical.out_step * g.to[1] * channels;
        let mut run = columns;
        // Rows that follow each other without a gap, in operand and result, are one long row.
        if x_row == columns * pitch && out_row == columns * horizontal.out_step * channels {
            run = rows * columns;
            rows = 1;
            out_row = 0;
        }
        // Where there are no taps, this lies anywhere and is not read.
        let source = (vertical.source(first) - self.first) * self.layout.columns as isize
            + (horizontal.source(horizontal.first) - g.first_column);
        let x = x.wrapping_offset(source * self.layout.channels as isize);
        unsafe {
            let start = ((first - self.rows.start) * g.to[1] + horizontal.first) * channels;
            let nr = self.block.vectors * S::LANES;
            let whole = self.block.count == nr;
            let out_pitch = horizontal.out_step * channels;
            for row in 0..rows {
                self.ahead.step(self.step * rows + row, self.parts * rows);
                let x = x.wrapping_add(row * x_row);
                let out = tile.as_mut_ptr().add(start + row * out_row + self.channel);
                let product = |out_row| Product {
                    rows: run,
                    width: nr,
                    left_row: pitch,
                    left_step: 1,
                    right_step: nr,
                    out_row,
                    add: false,
                };
                let runs = self.class.runs.iter().copied();
                if whole {
                    product(out_pitch).run::<S>(x, weights, out, runs);
                } else {
                    product(nr).run::<S>(x, weights, wide.as_mut_ptr(), runs);
                    for pixel in 0..run {
                        std::ptr::copy_nonoverlapping(
                            wide.as_ptr().add(pixel * nr),
                            out.add(pixel * out_pitch),
                            self.block.count,
                        );
                    }
                }
            }
        }
    }
}
