//! The copy of an operand that a direct convolution reads, and the sums over it.

use std::ops::Range;

use crate::kernels::geometry::{Axis, Geometry};
use crate::kernels::product::Run;

/// Channels in a block of the copied operand at most.
const BLOCK: usize = 128;

/// The operand's layout in scratch memory: `[group][block][row][column][channels]`.
#[derive(Clone, Debug)]
pub(super) struct Blocked {
    pub rows: usize,
    pub columns: usize,
    /// Channels in a block, and blocks in a group.
    pub channels: usize,
    blocks: usize,
    groups: usize,
}

impl Blocked {
    /// For bands of so many result rows.
    pub fn new(geometry: &Geometry, band: usize) -> Blocked {
        let [from, _] = geometry.group_channels;
        // Blocks of nearly the same size.
        let channels = from.div_ceil(from.div_ceil(BLOCK));
        Blocked {
            rows: geometry.most_rows(band),
            columns: geometry.columns().len(),
            channels,
            blocks: from.div_ceil(channels),
            groups: geometry.groups,
        }
    }

    fn block_len(&self) -> usize {
        self.rows * self.columns * self.channels
    }

    pub fn group_len(&self) -> usize {
        self.blocks * self.block_len()
    }

    pub fn len(&self) -> usize {
        self.groups * self.group_len()
    }

    /// Copies what result rows `to` read; `data` are the operand's rows inside of the image.
    pub fn fill(&self, geometry: &Geometry, to: Range<usize>, data: &[f32], out: &mut [f32]) {
        let [_, width, pixel] = geometry.from;
        let [channels, _] = geometry.group_channels;
        let first = geometry.columns().start;
        let left = (-first).clamp(0, self.columns as isize) as usize;
        let skip = first.clamp(0, width as isize) as usize;
        let copied = (width - skip).min(self.columns - left);
        let out_row = self.columns * self.channels;
        for (at, row) in geometry.padded_rows(to, data).enumerate() {
            for block in 0..self.groups * self.blocks {
                let out = &mut out[block * self.block_len() + at * out_row..][..out_row];
                let Some(row) = row else {
                    out.fill(0.0);
                    continue;
                };
                let (before, rest) = out.split_at_mut(left * self.channels);
                let (middle, after) = rest.split_at_mut(copied * self.channels);
                before.fill(0.0);
                after.fill(0.0);
                let channel = block / self.blocks * channels + block % self.blocks * self.channels;
                let count = self.channels.min(channels - block % self.blocks * self.channels);
                let row = &row[skip * pixel..][..copied * pixel];
                if pixel == self.channels {
                    middle.copy_from_slice(row);
                } else {
                    for (to, from) in middle.chunks_exact_mut(self.channels).zip(row.chunks_exact(pixel)) {
                        to[..count].copy_from_slice(&from[channel..channel + count]);
                        to[count..].fill(0.0);
                    }
                }
            }
        }
    }
}

/// One float of depth: a row of the packed weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    /// Its place among the packed rows.
    pub at: usize,
    /// Channel in the group, and kernel tap.
    pub channel: usize,
    pub tap: usize,
}

/// The result pixels that are computed by the same taps.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub vertical: Axis,
    pub horizontal: Axis,
    /// Where the operand floats lie, in the order of the packed weights' rows.
    pub runs: Vec<Run>,
    /// Rows of the packed weights, those that are always zero included.
    pub depth: usize,
    pub rows: Vec<Depth>,
}

impl Class {
    /// All of a geometry's, for an operand in this layout.
    pub fn all(geometry: &Geometry, layout: &Blocked) -> Vec<Class> {
        let vertical = geometry.vertical.iter();
        let pairs = vertical.flat_map(|v| geometry.horizontal.iter().map(move |h| (v, h)));
        pairs.map(|(vertical, horizontal)| Class::new(geometry, vertical, horizontal, layout)).collect()
    }

    fn new(geometry: &Geometry, vertical: &Axis, horizontal: &Axis, layout: &Blocked) -> Class {
        let mut runs: Vec<Run> = Vec::new();
        let (mut depth, mut rows) = (0, Vec::new());
        for block in 0..layout.blocks {
            let count = layout.channels.min(geometry.group_channels[0] - block * layout.channels);
            for &(ky, y) in &vertical.taps {
                for (i, &(kx, x)) in horizontal.taps.iter().enumerate() {
                    let row = (block * layout.rows + y) * layout.columns;
                    let offset = (row + x) * layout.channels;
                    match runs.last_mut() {
                        // The tap to the right: the same run of floats, to which the channels
                        // belong that fill up the block before it.
                        Some(last) if i > 0 && x == horizontal.taps[i - 1].1 + 1 => {
                            depth += layout.channels - count;
                            last.depth += layout.channels;
                        }
                        _ => runs.push(Run { left: offset, right: depth, depth: count }),
                    }
                    for channel in 0..count {
                        let tap = ky * geometry.kernel[1] + kx;
                        let channel = block * layout.channels + channel;
                        rows.push(Depth { at: depth, channel, tap });
                        depth += 1;
                    }
                }
            }
        }
        let (vertical, horizontal) = (vertical.clone(), horizontal.clone());
        Class { vertical, horizontal, runs, depth, rows }
    }
}
