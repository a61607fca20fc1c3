//! The operand of a convolution, copied so that the pixels of a band of result rows are evenly spaced
//! whatever the stride.

use std::ops::Range;

use super::geometry::Geometry;
use crate::kernels::Source;
use crate::kernels::shape::ConvShape;
use crate::kernels::stream::{fetch, spread};

/// For every operand row of a band and every result column, the floats that one kernel row meets:
/// `[group][row][result column][kx][channel]`.
///
/// Rows are sorted by their residue modulo the stride. Those that kernel row `ky` meets for the
/// band's result rows are then neighbours, and with all of their pixels one run of patches: a
/// matrix `[pixels, kw * channels]`.
#[derive(Clone, Debug)]
pub(super) struct Patches {
    shape: ConvShape,
    /// Operand rows of one residue.
    quotients: usize,
    /// Operand rows of a band.
    rows: usize,
}

impl Patches {
    /// For bands of at most `band` result rows.
    pub fn new(shape: &ConvShape, band: usize) -> Patches {
        let reach = (shape.kh - 1) * shape.dilation[0];
        let rows = (band - 1) * shape.stride[0] + reach + 1;
        Patches { shape: *shape, quotients: rows.div_ceil(shape.stride[0]), rows }
    }

    /// Operand rows of a band, padding included.
    pub fn operand_rows(&self) -> usize {
        self.rows
    }

    /// Floats from a pixel's patch to its neighbour's.
    pub fn pixel(&self) -> usize {
        spread(self.shape.kw * self.shape.cin_per_group())
    }

    fn row_len(&self) -> usize {
        self.shape.ow() * self.pixel()
    }

    fn group_len(&self) -> usize {
        self.quotients * self.shape.stride[0] * self.row_len()
    }

    pub fn len(&self) -> usize {
        self.shape.groups * self.group_len()
    }

    /// The place of an operand row, counted from the band's first.
    fn row(&self, at: usize) -> usize {
        let stride = self.shape.stride[0];
        (at % stride * self.quotients + at / stride) * self.row_len()
    }

    /// Where the patches of kernel row `ky` begin.
    pub fn start(&self, group: usize, ky: usize) -> usize {
        group * self.group_len() + self.row(ky * self.shape.dilation[0])
    }

    /// Copies what result rows `band` of an image read, fetched into `own` first where the source is
    /// not in memory.
    pub fn fill<'a>(
        &self,
        geometry: &Geometry,
        source: &dyn Source,
        image: usize,
        band: Range<usize>,
        own: &mut [f32],
        out: &'a mut [f32],
    ) -> &'a [f32] {
        let s = &self.shape;
        let inside = geometry.inner_rows(band.clone());
        let row_len = s.w * s.cin;
        let data = fetch(source, [s.h, s.w, s.cin], image, inside.clone(), own);
        for (at, y) in geometry.rows(band).enumerate() {
            let row = usize::try_from(y).ok().filter(|y| inside.contains(y));
            let row = row.map(|y| &data[(y - inside.start) * row_len..][..row_len]);
            for group in 0..s.groups {
                let start = group * self.group_len() + self.row(at);
                let out = &mut out[start..start + self.row_len()];
                match row {
                    Some(row) => self.fill_row(row, group, out),
                    None => out.fill(0.0),
                }
            }
        }
        out
    }

    /// One operand row's patches.
    fn fill_row(&self, row: &[f32], group: usize, out: &mut [f32]) {
        let s = &self.shape;
        let (channels, pixel) = (s.cin_per_group(), s.cin);
        let reach = (s.kw - 1) * s.dilation[1];
        for (column, patch) in out.chunks_exact_mut(self.pixel()).enumerate() {
            let first = (column * s.stride[1]) as isize - s.pad[1] as isize;
            let interior = first >= 0 && first as usize + reach < s.w;
            if interior && s.groups == 1 && s.dilation[1] == 1 {
                let len = s.kw * channels;
                patch[..len].copy_from_slice(&row[first as usize * pixel..][..len]);
                continue;
            }
            for (kx, to) in patch.chunks_exact_mut(channels).take(s.kw).enumerate() {
                let x = first + (kx * s.dilation[1]) as isize;
                match usize::try_from(x).ok().filter(|&x| x < s.w) {
                    Some(x) => to.copy_from_slice(&row[x * pixel + group * channels..][..channels]),
                    None => to.fill(0.0),
                }
            }
        }
    }
}
