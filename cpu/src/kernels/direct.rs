//! Direct convolution as an implicit matrix product: no multiplication saved, none wasted. It computes
//! every convolution; those without channels to sum over have a faster algorithm.
//!
//! A task is a band of rows of one image. The operand's rows are copied once into scratch memory,
//! with their padding, in blocks of channels, `[block][row][column][channel]`. There every pixel of
//! a result row reads its taps at a constant distance from its neighbour's, as a matrix product
//! wants it, and the taps of a kernel row are one run of floats.
//!
//! A strided convolution's input gradient is taken apart by the residues of the result's row and
//! column: each residue class is a stride-1 convolution of `dy` with the taps that meet it.

mod blocked;
mod patches;
pub(super) mod weights;

use std::ops::Range;

use schedule::ConvGeometry;

use self::blocked::{Blocked, Class};
use super::algorithm::{Band, Bands, ImageAlgorithm, even};
use super::geometry::Geometry;
use super::product::{ChannelBlock, Product};
use super::threads::ThreadPool;
use crate::isa::{Isa, Simd, WithSimd};
use crate::memory::{SharedSlice, lines};

/// Floats of a band's operand and result.
const BAND_FLOATS: usize = 64 * 1024;

/// A convolution's forward pass or input gradient.
#[derive(Clone, Debug)]
pub(super) struct Direct {
    isa: Isa,
    bands: Bands,
    layout: Blocked,
    classes: Vec<Class>,
    blocks: Vec<ChannelBlock>,
}

impl Direct {
    pub fn new(conv: &ConvGeometry, adjoint: bool, isa: Isa) -> Direct {
        let geometry = Geometry::new(conv, adjoint);
        let [rows, columns, channels] = geometry.to;
        let fits =
            |&count: &usize| Blocked::new(&geometry, count).len() + count * columns * channels <= BAND_FLOATS;
        let rows = even(rows, (1..=rows).rev().find(fits).unwrap_or(1));
        let layout = Blocked::new(&geometry, rows);
        Direct {
            isa,
            classes: Class::all(&geometry, &layout),
            layout,
            blocks: ChannelBlock::split(geometry.group_channels[1], isa),
            bands: Bands { geometry, rows, images: 1 },
        }
    }

    fn class_len(&self, class: &Class) -> usize {
        class.depth * ChannelBlock::all_lanes(&self.blocks)
    }

    fn group_len(&self) -> usize {
        self.classes.iter().map(|class| self.class_len(class)).sum()
    }

    /// Floats of a thread's parts of the scratch memory: operand rows as they are, and blocked;
    /// a block's result rows with all lanes; result rows.
    fn scratch(&self) -> [usize; 4] {
        let [operand, result] = self.bands.lens();
        let widest = self.blocks.iter().map(|block| block.lanes).max().unwrap_or(0);
        let wide = self.bands.rows * self.bands.geometry.to[1] * widest;
        [operand, lines(self.layout.len()), lines(wide), result]
    }
}

impl ImageAlgorithm for Direct {
    fn bands(&self) -> &Bands {
        &self.bands
    }

    fn packed_len(&self) -> usize {
        self.bands.geometry.groups * self.group_len()
    }

    /// To `[group][class][to block][depth][lane]`, zeros where there is no channel.
    fn pack(&self, pool: &ThreadPool, weights: &[f32], packed: &mut [f32]) {
        let geometry = &self.bands.geometry;
        let packed = SharedSlice::new(packed);
        let count = self.blocks.len();
        pool.run(geometry.groups * count, &|task, _| {
            let (group, block) = (task / count, self.blocks[task % count]);
            let mut start = group * self.group_len();
            for class in &self.classes {
                let from = start + block.first * class.depth;
                // SAFETY: every block of every group has its own part.
                let out = unsafe { packed.range(from..from + class.depth * block.lanes) };
                out.fill(0.0);
                for depth in &class.rows {
                    let [first, step] = geometry.weights(group, depth.channel, block.first);
                    let row = &mut out[depth.at * block.lanes..][..block.count];
                    for (lane, out) in row.iter_mut().enumerate() {
                        *out = weights[first + depth.tap + lane * step];
                    }
                }
                start += self.class_len(class);
            }
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

struct Make<'a> {
    plan: &'a Direct,
    band: &'a Band<'a>,
    packed: &'a [f32],
    scratch: &'a mut [f32],
}

impl WithSimd for Make<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Make { plan, band, packed, scratch } = self;
        let [operand_len, blocked_len, wide_len, _] = plan.scratch();
        let (operand, rest) = scratch.split_at_mut(operand_len);
        let (blocked, rest) = rest.split_at_mut(blocked_len);
        let (wide, tile) = rest.split_at_mut(wide_len);
        let (g, layout, image) = (&plan.bands.geometry, &plan.layout, band.images.start);
        layout.fill(g, band.rows.clone(), band.operand(image, operand), blocked);
        // SAFETY: the only use of this image's rows.
        let tile = unsafe { band.tile(image, tile) };
        let mut part = Part {
            plan,
            band,
            rows: band.rows.clone(),
            first: [g.rows(band.rows.clone()).start, g.columns().start],
            step: 0,
            parts: g.groups * plan.classes.len() * plan.blocks.len(),
        };
        for group in 0..g.groups {
            let mut weights = packed[group * plan.group_len()..].as_ptr();
            for class in &plan.classes {
                for &block in &plan.blocks {
                    let channel = group * g.group_channels[1] + block.first;
                    // SAFETY: the weights are those of this class and block, the operand this
                    // group's, and the tile has all rows of the band.
                    unsafe {
                        let x = blocked.as_ptr().add(group * layout.group_len());
                        part.run::<S>(class, block, x, weights, channel, wide, tile);
                        weights = weights.add(class.depth * block.lanes);
                    }
                    part.step += 1;
                }
            }
        }
        band.finish(image, tile);
    }
}

/// The pixels of one residue class and the channels of one block, of a band.
struct Part<'a> {
    plan: &'a Direct,
    band: &'a Band<'a>,
    rows: Range<usize>,
    /// Operand row and column that the blocked copy starts with.
    first: [isize; 2],
    /// Number of this part of a band, and how many there are.
    step: usize,
    parts: usize,
}

impl Part<'_> {
    /// `channel` is the block's first in the whole result.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn run<S: Simd>(
        &self,
        class: &Class,
        block: ChannelBlock,
        x: *const f32,
        weights: *const f32,
        channel: usize,
        wide: &mut [f32],
        tile: &mut [f32],
    ) {
        let (g, layout) = (&self.plan.bands.geometry, &self.plan.layout);
        let (vertical, horizontal) = (&class.vertical, &class.horizontal);
        let [_, width, channels] = g.to;
        let columns = horizontal.count(0..width);
        let mut rows = vertical.count(self.rows.clone());
        if rows == 0 || columns == 0 {
            return;
        }
        // The class's first row in this band.
        let first = vertical.at_or_after(self.rows.start);
        let pitch = horizontal.in_step * layout.channels;
        let x_row = vertical.in_step * layout.columns * layout.channels;
        let mut out_row = vertical.out_step * width * channels;
        let mut run = columns;
        // Rows that follow each other without a gap, in operand and result, are one long row.
        if x_row == columns * pitch && out_row == columns * horizontal.out_step * channels {
            run = rows * columns;
            rows = 1;
            out_row = 0;
        }
        // Where there are no taps, this lies anywhere and is not read.
        let source = (vertical.source(first) - self.first[0]) * layout.columns as isize
            + (horizontal.source(horizontal.first) - self.first[1]);
        let x = x.wrapping_offset(source * layout.channels as isize);
        let start = ((first - self.rows.start) * width + horizontal.first) * channels + channel;
        let (whole, out_pitch) = (block.count == block.lanes, horizontal.out_step * channels);
        let product = Product {
            rows: run,
            width: block.lanes,
            left_row: pitch,
            left_step: 1,
            right_step: block.lanes,
            out_row: if whole { out_pitch } else { block.lanes },
            add: false,
        };
        for row in 0..rows {
            self.band.ahead(self.step * rows + row, self.parts * rows);
            let x = x.wrapping_add(row * x_row);
            let runs = class.runs.iter().copied();
            // SAFETY: the caller's promise.
            unsafe {
                let out = tile.as_mut_ptr().add(start + row * out_row);
                if whole {
                    product.run::<S>(x, weights, out, runs);
                    continue;
                }
                product.run::<S>(x, weights, wide.as_mut_ptr(), runs);
                for pixel in 0..run {
                    let from = wide.as_ptr().add(pixel * block.lanes);
                    std::ptr::copy_nonoverlapping(from, out.add(pixel * out_pitch), block.count);
                }
            }
        }
    }
}
