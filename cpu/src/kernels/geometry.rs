//! Which operand pixels a result pixel reads in a forward pass or an input gradient.

use std::ops::Range;

use schedule::ConvGeometry;

/// The result positions along one axis that read the operand through the same taps.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// The first of them, and the distance between them.
    pub first: usize,
    pub out_step: usize,
    /// Operand positions between neighbours.
    pub in_step: usize,
    /// The operand position where the first one's first tap lies; may be outside of the image.
    pub origin: isize,
    /// Kernel positions with their distance from the first tap, by increasing distance.
    pub taps: Vec<(usize, usize)>,
}

impl Axis {
    /// The classes of an axis: one for a forward pass, one for each residue modulo the stride for an
    /// input gradient.
    fn all(adjoint: bool, k: usize, stride: usize, pad: usize, dilation: usize) -> Vec<Axis> {
        if !adjoint {
            let taps = (0..k).map(|tap| (tap, tap * dilation)).collect();
            let origin = -(pad as isize);
            return vec![Axis { first: 0, out_step: 1, in_step: stride, origin, taps }];
        }
        // Result position i reads operand position (i + pad - tap * dilation) / stride where that is whole.
        let class = |first: usize| {
            let scaled = |tap: usize| (first + pad) as isize - (tap * dilation) as isize;
            let meets = |&tap: &usize| scaled(tap).rem_euclid(stride as isize) == 0;
            let position = |tap: usize| scaled(tap) / stride as isize;
            let taps: Vec<usize> = (0..k).rev().filter(meets).collect();
            let origin = taps.first().map_or(0, |&tap| position(tap));
            let taps = taps.iter().map(|&tap| (tap, (position(tap) - origin) as usize)).collect();
            Axis { first, out_step: stride, in_step: 1, origin, taps }
        };
        (0..stride).map(class).collect()
    }

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

/// The operand positions that a range of result positions reads.
fn span(axes: &[Axis], to: Range<usize>) -> Range<isize> {
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

/// A pass from one set of images, the operand, to another, the result.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub images: usize,
    /// Rows, columns and channels of the operand and the result.
    pub from: [usize; 3],
    pub to: [usize; 3],
    pub groups: usize,
    /// Channels of a group: the operand's and the result's.
    pub group_channels: [usize; 2],
    pub kernel: [usize; 2],
    pub vertical: Vec<Axis>,
    pub horizontal: Vec<Axis>,
    adjoint: bool,
}

impl Geometry {
    /// A forward pass or, `adjoint`, an input gradient.
    pub fn new(g: &ConvGeometry, adjoint: bool) -> Geometry {
        let x = [g.height, g.width, g.in_channels];
        let y = [g.out_height, g.out_width, g.out_channels];
        let (from, to) = if adjoint { (y, x) } else { (x, y) };
        let axis = |i: usize| {
            Axis::all(adjoint, g.kernel[i], g.conv.stride[i], g.conv.padding[i], g.conv.dilation[i])
        };
        Geometry {
            images: g.batch,
            from,
            to,
            groups: g.conv.groups,
            group_channels: [from[2] / g.conv.groups, to[2] / g.conv.groups],
            kernel: g.kernel,
            vertical: axis(0),
            horizontal: axis(1),
            adjoint,
        }
    }

    /// Taps of the kernel.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Where PyTorch's weights `[cout, cin / groups, kh, kw]` have the taps from one channel of a group to
    /// another, and how far it is to those of the next channel of the result.
    pub fn weights(&self, group: usize, from: usize, to: usize) -> [usize; 2] {
        let [from_channels, to_channels] = self.group_channels;
        let place = if self.adjoint {
            [(group * from_channels + from) * to_channels + to, 1]
        } else {
            [(group * to_channels + to) * from_channels + from, from_channels]
        };
        place.map(|at| at * self.taps())
    }

    /// The operand rows that some result rows read, padding included.
    pub fn rows(&self, to: Range<usize>) -> Range<isize> {
        span(&self.vertical, to)
    }

    /// The operand columns that are read, padding included.
    pub fn columns(&self) -> Range<isize> {
        span(&self.horizontal, 0..self.to[1])
    }

    /// Those of the [rows](Geometry::rows) that are inside of the image.
    pub fn inner_rows(&self, to: Range<usize>) -> Range<usize> {
        let rows = self.rows(to);
        let inside = |at: isize| at.clamp(0, self.from[0] as isize) as usize;
        inside(rows.start)..inside(rows.end).max(inside(rows.start))
    }

    /// The most operand rows that a band of so many result rows reads, padding included.
    pub fn most_rows(&self, band: usize) -> usize {
        let rows = |first: usize| self.rows(first..(first + band).min(self.to[0]));
        (0..self.to[0]).step_by(band).map(|first| rows(first).len()).max().unwrap_or(0)
    }

    /// The [rows](Geometry::rows) of an operand, one after the other; none where that is padding. `data`
    /// are those inside of the image.
    pub fn padded_rows<'a>(
        &self,
        to: Range<usize>,
        data: &'a [f32],
    ) -> impl Iterator<Item = Option<&'a [f32]>> {
        let (inside, len) = (self.inner_rows(to.clone()), self.from[1] * self.from[2]);
        self.rows(to).map(move |y| {
            let y = usize::try_from(y).ok().filter(|y| inside.contains(y))?;
            Some(&data[(y - inside.start) * len..][..len])
        })
    }
}
