//! The operand of a convolution, copied so that the pixels of a band of result rows are evenly spaced
//! whatever the stride.

use std::ops::Range;

use crate::kernels::geometry::Geometry;
use crate::kernels::stream::spread;

/// For every operand row of a band and every result column, the floats that one kernel row meets:
/// `[group][row][result column][kx][channel]`.
///
/// Rows are sorted by their residue modulo the stride. Those that kernel row `ky` meets for the
/// band's result rows are then neighbours, and with all of their pixels one run of patches: a
/// matrix `[pixels, kw * channels]`.
#[derive(Clone, Debug)]
pub(super) struct Patches {
    geometry: Geometry,
    stride: usize,
    /// Operand rows of one residue.
    quotients: usize,
}

impl Patches {
    /// For bands of at most `band` result rows of a forward pass.
    pub fn new(geometry: &Geometry, band: usize) -> Patches {
        let vertical = &geometry.vertical[0];
        let reach = vertical.taps.last().map_or(0, |tap| tap.1);
        let rows = (band - 1) * vertical.in_step + reach + 1;
        let stride = vertical.in_step;
        Patches { geometry: geometry.clone(), stride, quotients: rows.div_ceil(stride) }
    }

    /// Floats of one patch.
    pub fn patch(&self) -> usize {
        self.geometry.kernel[1] * self.geometry.group_channels[0]
    }

    /// Floats from a pixel's patch to its neighbour's.
    pub fn pixel(&self) -> usize {
        spread(self.patch())
    }

    fn row_len(&self) -> usize {
        self.geometry.to[1] * self.pixel()
    }

    fn group_len(&self) -> usize {
        self.quotients * self.stride * self.row_len()
    }

    pub fn len(&self) -> usize {
        self.geometry.groups * self.group_len()
    }

    /// The place of an operand row, counted from the band's first.
    fn row(&self, at: usize) -> usize {
        (at % self.stride * self.quotients + at / self.stride) * self.row_len()
    }

    /// Where the patches of kernel row `ky` begin.
    pub fn start(&self, group: usize, ky: usize) -> usize {
        group * self.group_len() + self.row(self.geometry.vertical[0].taps[ky].1)
    }

    /// Copies what result rows `band` of an image read; `data` are the operand's rows inside of the image.
    pub fn fill(&self, band: Range<usize>, data: &[f32], out: &mut [f32]) {
        for (at, row) in self.geometry.padded_rows(band, data).enumerate() {
            for group in 0..self.geometry.groups {
                let start = group * self.group_len() + self.row(at);
                let out = &mut out[start..start + self.row_len()];
                match row {
                    Some(row) => self.fill_row(row, group, out),
                    None => out.fill(0.0),
                }
            }
        }
    }

    /// One operand row's patches.
    fn fill_row(&self, row: &[f32], group: usize, out: &mut [f32]) {
        let g = &self.geometry;
        let ([_, width, pixel], [channels, _]) = (g.from, g.group_channels);
        let horizontal = &g.horizontal[0];
        let inside = horizontal.inside(g.to[1], width);
        let is_run = g.groups == 1 && horizontal.taps.iter().all(|&(kx, x)| kx == x);
        for (column, patch) in out.chunks_exact_mut(self.pixel()).enumerate() {
            let first = horizontal.source(column);
            if is_run && inside.contains(&column) {
                let len = self.patch();
                patch[..len].copy_from_slice(&row[first as usize * pixel..][..len]);
                continue;
            }
            for (&(_, x), to) in horizontal.taps.iter().zip(patch.chunks_exact_mut(channels)) {
                match usize::try_from(first + x as isize).ok().filter(|&x| x < width) {
                    Some(x) => to.copy_from_slice(&row[x * pixel + group * channels..][..channels]),
                    None => to.fill(0.0),
                }
            }
        }
    }
}
