//! Which operand pixels a result pixel reads, and the copy of the operand they are read from.

use std::ops::Range;

use crate::kernels::Source;
use crate::kernels::product::Run;
use crate::kernels::shape::ConvShape;
use crate::kernels::stream::fetch;

/// Channels in a block of the copied operand at most.
const BLOCK: usize = 128;

/// The result positions along one axis that read the operand through the same taps.
#[derive(Clone, Debug)]
pub(in crate::kernels) struct Axis {
    /// The first of them, and the distance between them.
    pub first: usize,
    pub out_step: usize,
    /// Operand positions between neighbours.
    pub in_step: usize,
    /// The operand position where the first one's first tap lies; may be outside of the image.
    origin: isize,
    /// Kernel positions with their distance from the first tap, by increasing distance.
    pub taps: Vec<(usize, usize)>,
}

impl Axis {
    /// How many of them are in a range of result positions.
    pub fn count(&self, range: Range<usize>) -> usize {
        let start = self.at_or_after(range.start);
        range.end.saturating_sub(start).div_ceil(self.out_step)
    }

    /// The first of them that is not before `at`.
    pub fn at_or_after(&self, at: usize) -> usize {
        self.first + at.saturating_sub(self.first).div_ceil(self.out_step) * self.out_step
    }

    /// The operand position of the first tap of one of them.
    pub fn source(&self, at: usize) -> isize {
        self.origin + ((at - self.first) / self.out_step * self.in_step) as isize
    }
}

impl Axis {
    /// Of the first `count` of them, those all of whose taps are inside of an operand of `size`
    /// positions, by number.
    pub fn inside(&self, count: usize, size: usize) -> Range<usize> {
        let reach = self.taps.last().map_or(0, |tap| tap.1);
        let start = self.inside_tap(count, size, 0).start;
        start..self.inside_tap(count, size, reach).end.max(start)
    }

    /// The same for the tap at distance `reach` alone.
    pub fn inside_tap(&self, count: usize, size: usize, reach: usize) -> Range<usize> {
        let origin = self.origin + reach as isize;
        let start = ((-origin).max(0) as usize).div_ceil(self.in_step).min(count);
        let end = ((size as isize - origin).max(0) as usize).div_ceil(self.in_step).min(count);
        start..end.max(start)
    }
}

/// The classes of an axis: one for a forward pass, one for each residue modulo the stride for an
/// input gradient.
pub(in crate::kernels) fn axes(
    adjoint: bool,
    k: usize,
    stride: usize,
    pad: usize,
    dilation: usize,
) -> Vec<Axis> {
    if !adjoint {
        let taps = (0..k).map(|tap| (tap, tap * dilation)).collect();
        let origin = -(pad as isize);
        return vec![Axis { first: 0, out_step: 1, in_step: stride, origin, taps }];
    }
    // Result position i reads operand position (i + pad - tap * dilation) / stride where that is
    // whole. With stride > 1 there is no dilation, so the taps are those congruent to i + pad.
    (0..stride)
        .map(|first| {
            let (whole, residue) = ((first + pad) / stride, (first + pad) % stride);
            let mut taps: Vec<usize> = (0..k).filter(|tap| tap % stride == residue).collect();
            taps.reverse();
            let reach = taps.first().map_or(0, |tap| tap / stride * dilation);
            let taps = taps.iter().map(|&tap| (tap, reach - tap / stride * dilation)).collect();
            let origin = whole as isize - reach as isize;
            Axis { first, out_step: stride, in_step: 1, origin, taps }
        })
        .collect()
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

/// A pass from an operand to a result.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    /// Rows, columns, channels per group.
    pub from: [usize; 3],
    pub to: [usize; 3],
    /// The operand columns that are read, padding included: their first, and how many.
    pub first_column: isize,
    columns: usize,
    vertical: Vec<Axis>,
    horizontal: Vec<Axis>,
    shape: ConvShape,
}

impl Geometry {
    /// Nothing for an input gradient that is strided and dilated.
    pub fn new(shape: &ConvShape, adjoint: bool) -> Option<Geometry> {
        if adjoint && shape.stride != [1, 1] && shape.dilation != [1, 1] {
            return None;
        }
        let x = [shape.h, shape.w, shape.cin_per_group()];
        let y = [shape.oh(), shape.ow(), shape.cout_per_group()];
        let (from, to) = if adjoint { (y, x) } else { (x, y) };
        let axis = |i: usize, k: usize| axes(adjoint, k, shape.stride[i], shape.pad[i], shape.dilation[i]);
        let (vertical, horizontal) = (axis(0, shape.kh), axis(1, shape.kw));
        let read = span(&horizontal, 0..to[1]);
        Some(Geometry {
            from,
            to,
            first_column: read.start,
            columns: (read.end - read.start) as usize,
            vertical,
            horizontal,
            shape: *shape,
        })
    }

    /// The operand rows that some result rows read, padding included.
    pub fn rows(&self, to: Range<usize>) -> Range<isize> {
        span(&self.vertical, to)
    }

    /// Those of them that are inside of the image.
    pub fn inner_rows(&self, to: Range<usize>) -> Range<usize> {
        let rows = self.rows(to);
        let inside = |at: isize| at.clamp(0, self.from[0] as isize) as usize;
        inside(rows.start)..inside(rows.end).max(inside(rows.start))
    }

    /// The layout of the operand for bands of so many result rows.
    pub fn blocked(&self, tile_rows: usize) -> Blocked {
        let rows = (0..self.to[0])
            .step_by(tile_rows)
            .map(|first| self.rows(first..(first + tile_rows).min(self.to[0])))
            .map(|rows| (rows.end - rows.start) as usize)
            .max()
            .unwrap_or(0);
        // Blocks of nearly the same size.
        let channels = self.from[2].div_ceil(self.from[2].div_ceil(BLOCK));
        Blocked {
            rows,
            columns: self.columns,
            channels,
            blocks: self.from[2].div_ceil(channels),
            groups: self.shape.groups,
        }
    }

    /// The classes of result pixels, for an operand in this layout.
    pub fn classes(&self, layout: &Blocked) -> Vec<Class> {
        let mut classes = Vec::new();
        for vertical in &self.vertical {
            for horizontal in &self.horizontal {
                classes.push(self.class(vertical, horizontal, layout));
            }
        }
        classes
    }

    fn class(&self, vertical: &Axis, horizontal: &Axis, layout: &Blocked) -> Class {
        let mut runs: Vec<Run> = Vec::new();
        let (mut depth, mut rows) = (0, Vec::new());
        for block in 0..layout.blocks {
            let count = layout.channels.min(self.from[2] - block * layout.channels);
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
                        let tap = ky * self.shape.kw + kx;
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

/// The operand positions that a range of result positions reads.
pub(in crate::kernels) fn span(axes: &[Axis], to: Range<usize>) -> Range<isize> {
    let mut all: Option<Range<isize>> = None;
    for axis in axes {
        let count = axis.count(to.clone());
        let Some(&(_, reach)) = axis.taps.last() else { continue };
        if count > 0 {
            let start = axis.source(axis.at_or_after(to.start));
            let end = start + ((count - 1) * axis.in_step + reach + 1) as isize;
            let old = all.unwrap_or(start..end);
            all = Some(old.start.min(start)..old.end.max(end));
        }
    }
    all.unwrap_or(0..0)
}

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
    pub fn block_len(&self) -> usize {
        self.rows * self.columns * self.channels
    }

    pub fn group_len(&self) -> usize {
        self.blocks * self.block_len()
    }

    pub fn len(&self) -> usize {
        self.groups * self.group_len()
    }

    /// Copies operand rows `rows` (inside of the image or not) of an image, fetched into `own`
    /// first where the source is not in memory.
    pub fn fill(
        &self,
        geometry: &Geometry,
        source: &dyn Source,
        image: usize,
        rows: Range<isize>,
        own: &mut [f32],
        out: &mut [f32],
    ) {
        let [height, width, channels] = geometry.from;
        let row_len = width * channels * self.groups;
        let first = rows.start.clamp(0, height as isize) as usize;
        let end = (rows.end.clamp(0, height as isize) as usize).max(first);
        let data = fetch(source, [height, width, channels * self.groups], image, first..end, own);
        let left = (-geometry.first_column).clamp(0, self.columns as isize) as usize;
        let skip = geometry.first_column.clamp(0, width as isize) as usize;
        let copied = (width - skip).min(self.columns - left);
        let out_row = self.columns * self.channels;
        for (at, y) in rows.enumerate() {
            let inside = (first as isize..end as isize).contains(&y);
            for block in 0..self.groups * self.blocks {
                let out = &mut out[block * self.block_len() + at * out_row..][..out_row];
                if !inside {
                    out.fill(0.0);
                    continue;
                }
                let (before, rest) = out.split_at_mut(left * self.channels);
                let (middle, after) = rest.split_at_mut(copied * self.channels);
                before.fill(0.0);
                after.fill(0.0);
                let channel = block / self.blocks * channels + block % self.blocks * self.channels;
                let count = self.channels.min(channels - block % self.blocks * self.channels);
                let start = (y as usize - first) * row_len + skip * channels * self.groups;
                let row = &data[start..][..copied * channels * self.groups];
                let pixels = row.chunks_exact(channels * self.groups);
                let pixels = pixels.map(|pixel| &pixel[channel..channel + count]);
                if channels * self.groups == self.channels {
                    middle.copy_from_slice(row);
                } else {
                    for (to, from) in middle.chunks_exact_mut(self.channels).zip(pixels) {
                        to[..count].copy_from_slice(from);
                        to[count..].fill(0.0);
                    }
                }
            }
        }
    }
}
