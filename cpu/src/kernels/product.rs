//! Matrix products by the micro-kernels of the `gemm` crate: what every convolution with channels
//! to sum over is made of.
//!
//! A micro-kernel keeps a tile of the result in registers, a few rows by a few vectors, and for
//! every step of the sum multiplies a vector of the right operand by a scalar of the left. The
//! crate's `gemm` first packs both operands for that, which pays for large matrices. Here products
//! are small (tens of rows, tens of steps) and their operands are written in the micro-kernel's
//! layout to begin with, so that it is called without anything around it.

use crate::isa::{Isa, MicroKernels, Simd};

/// Most vectors of a result row that a product keeps in registers beside each other.
fn most_vectors(isa: Isa) -> usize {
    if isa.lanes() == 4 { 4 } else { 2 }
}

/// A run of result channels of a group that is computed at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelBlock {
    /// First channel in the group, and channels.
    pub first: usize,
    pub count: usize,
    /// Floats of the vectors that hold them. Only the last block of a group has more of these than
    /// channels.
    pub lanes: usize,
}

impl ChannelBlock {
    /// Splits `channels` into blocks of as many vectors as suit the registers.
    pub fn split(channels: usize, isa: Isa) -> Vec<ChannelBlock> {
        let mut blocks = Vec::new();
        let mut first = 0;
        while first < channels {
            let vectors = (channels - first).div_ceil(isa.lanes()).next_power_of_two().min(most_vectors(isa));
            let lanes = vectors * isa.lanes();
            let count = lanes.min(channels - first);
            blocks.push(ChannelBlock { first, count, lanes });
            first += count;
        }
        blocks
    }

    /// Floats of all blocks' vectors.
    pub fn all_lanes(blocks: &[ChannelBlock]) -> usize {
        blocks.last().map_or(0, |last| last.first + last.lanes)
    }

    /// Channels of each block where all are equal and full. `channels` are whole vectors.
    pub fn equal(channels: usize, isa: Isa) -> usize {
        let vectors = [4, 2].into_iter().filter(|&vectors| vectors <= most_vectors(isa));
        let mut lanes = vectors.map(|vectors| vectors * isa.lanes());
        lanes.find(|&lanes| channels.is_multiple_of(lanes)).unwrap_or(isa.lanes())
    }
}

/// Some consecutive steps of a sum: where the first of them is, in floats of the left operand and in
/// steps of the right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub left: usize,
    pub right: usize,
    pub depth: usize,
}

/// `out[r][c] = sum over k of left[r][k] right[k][c]`, or added to what is there, with all
/// distances in floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    /// Rows of the result, and floats of each: whole vectors.
    pub rows: usize,
    pub width: usize,
    /// From a row of the left operand to the next, and from a step to the next.
    pub left_row: usize,
    pub left_step: usize,
    /// From a step of the right operand to the next. The floats of a step are side by side.
    pub right_step: usize,
    /// From a row of the result to the next.
    pub out_row: usize,
    pub add: bool,
}

impl Product {
    /// Sums over the steps of all runs. Runs are added up in order; the steps of a run, in registers
    /// before that.
    ///
    /// # Safety
    /// All these places must exist, and the instruction set must be there.
    #[inline(always)]
    pub unsafe fn run<S: Simd>(
        &self,
        left: *const f32,
        right: *const f32,
        out: *mut f32,
        runs: impl Iterator<Item = Run> + Clone,
    ) {
        let MicroKernels { lanes, tiles } = S::MICRO_KERNELS;
        let widest = tiles.len() * lanes;
        for first in (0..self.width).step_by(widest) {
            let width = widest.min(self.width - first);
            let tiles = tiles[width / lanes - 1];
            // Tiles of nearly the same height: low ones do too little for each vector they load.
            let count = self.rows.div_ceil(tiles.len());
            for tile in 0..count {
                let row = self.rows * tile / count;
                let rows = self.rows * (tile + 1) / count - row;
                let kernel = tiles[rows - 1];
                let left = left.wrapping_add(row * self.left_row);
                // SAFETY: the caller's.
                let out = unsafe { out.add(row * self.out_row + first) };
                let mut add = self.add;
                for run in runs.clone() {
                    // SAFETY: the caller's.
                    unsafe {
                        kernel(
                            width,
                            rows,
                            run.depth,
                            out,
                            right.add(run.right * self.right_step + first),
                            left.wrapping_add(run.left),
                            self.out_row as isize,
                            1,
                            self.right_step as isize,
                            self.left_step as isize,
                            self.left_row as isize,
                            1.0,
                            1.0,
                            add as u8,
                            false,
                            false,
                            false,
                            std::ptr::null(),
                        );
                    }
                    add = true;
                }
                if !add {
                    // Nothing to sum.
                    for row in 0..rows {
                        // SAFETY: the caller's.
                        unsafe { out.add(row * self.out_row).write_bytes(0, width) };
                    }
                }
            }
        }
    }
}
