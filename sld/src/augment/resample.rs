//! ImageNet geometry: antialiased bilinear resizing as Pillow does it, RandomResizedCrop and the centre
//! crop of evaluation.
//!
//! Pillow resizes in two passes, rows first, and rounds to bytes in between. Each output value is a
//! weighted mean over a triangle as wide as the scale, with weights in 22-bit fixed point.

use super::canvas::Canvas;
use crate::random::Stream;

/// Fractional bits of a weight: 32 less 8 for the pixel and 2 for the sum's headroom.
const PRECISION: u32 = 22;

/// A rectangle of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    /// Rows above it.
    pub top: usize,
    /// Columns left of it.
    pub left: usize,
    /// Rows of it.
    pub height: usize,
    /// Columns of it.
    pub width: usize,
}

impl CropBox {
    /// All of an image.
    pub fn whole(width: usize, height: usize) -> Self {
        Self { top: 0, left: 0, height, width }
    }

    /// The window of RandomResizedCrop in an image of `width` by `height` pixels: 8% to 100% of the area,
    /// log-uniform aspect ratio in [3/4, 4/3]; after ten windows that do not fit, the largest central one
    /// whose ratio lies in the range.
    pub fn random_resized_crop(stream: &mut Stream, width: usize, height: usize) -> Self {
        const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
        let (image_width, image_height) = (width as f64, height as f64);
        for _ in 0..10 {
            let area = image_width * image_height * stream.range(0.08, 1.0);
            let ratio = stream.range(RATIO.0.ln(), RATIO.1.ln()).exp();
            let w = (area * ratio).sqrt().round_ties_even() as usize;
            let h = (area / ratio).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let top = stream.below((height - h) as u64 + 1) as usize;
                let left = stream.below((width - w) as u64 + 1) as usize;
                return Self { top, left, height: h, width: w };
            }
        }
        let ratio = image_width / image_height;
        let (w, h) = if ratio < RATIO.0 {
            (width, (image_width / RATIO.0).round_ties_even() as usize)
        } else if ratio > RATIO.1 {
            ((image_height * RATIO.1).round_ties_even() as usize, height)
        } else {
            (width, height)
        };
        Self { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
    }
}

/// The weights of one pass: for each output position, the first input position and the weights from there.
#[derive(Clone, Debug, Default)]
struct Taps {
    spans: Vec<(usize, std::ops::Range<usize>)>,
    weights: Vec<i32>,
}

impl Taps {
    /// For the output positions in `part` of the whole `output`.
    fn set(&mut self, input: usize, output: usize, part: std::ops::Range<usize>) {
        let scale = input as f64 / output as f64;
        // Shrinking widens the triangle so that every input pixel counts; enlarging interpolates.
        let support = scale.max(1.0);
        let inverse = 1.0 / support;
        self.spans.clear();
        self.weights.clear();
        for position in part {
            let centre = (position as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            let weight = |tap: usize| {
                let distance = ((tap as f64 - centre + 0.5) * inverse).abs();
                (1.0 - distance).max(0.0)
            };
            let sum: f64 = (first..end).map(weight).sum();
            let start = self.weights.len();
            let one = f64::from(1 << PRECISION);
            self.weights.extend((first..end).map(|tap| (weight(tap) / sum * one + 0.5) as i32));
            self.spans.push((first, start..self.weights.len()));
        }
    }

    /// The input positions that any output position needs.
    fn reach(&self) -> std::ops::Range<usize> {
        let end = self.spans.iter().map(|(first, range)| first + range.len()).max().unwrap_or(0);
        self.spans.first().map_or(0, |(first, _)| *first)..end
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.spans.iter().map(|(first, range)| (*first, &self.weights[range.clone()]))
    }
}

#[inline(always)]
fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Half of the last place that is kept.
const HALF: i32 = 1 << (PRECISION - 1);

/// Resizes; keeps its tables and work areas from one image to the next.
#[derive(Clone, Debug, Default)]
pub struct Resampler {
    columns: Taps,
    rows: Taps,
    /// Input rows side by side.
    pixels: Vec<Column>,
    /// Sums of a row of output pixels.
    sums: Vec<[i32; 4 * ROWS]>,
    /// The same as bytes.
    bytes: Vec<Column>,
    /// The rows that are needed, resized horizontally.
    narrow: Vec<u8>,
}

impl Resampler {
    /// Cuts `window` out of an RGB image of `image_width` pixels a row, resizes it to `size` (width, height) and
    /// leaves `part` of the result on the canvas. Only what the part shows is computed.
    ///
    /// # Panics
    /// If the window does not lie in the image, the part not in the result, or a size is 0.
    pub fn resize(
        &mut self,
        canvas: &mut Canvas,
        image: &[u8],
        image_width: usize,
        window: CropBox,
        (width, height): (usize, usize),
        part: CropBox,
    ) {
        assert!(width > 0 && height > 0 && window.width > 0 && window.height > 0, "sizes must not be 0");
        assert!(window.left + window.width <= image_width, "the window lies inside the image");
        assert!(part.left + part.width <= width && part.top + part.height <= height, "the part lies inside");
        self.columns.set(window.width, width, part.left..part.left + part.width);
        self.rows.set(window.height, height, part.top..part.top + part.height);
        let needed = self.rows.reach();
        let row = |y: usize| {
            let start = ((window.top + y) * image_width + window.left) * 3;
            &image[start..start + window.width * 3]
        };
        self.narrow.clear();
        self.narrow.resize(needed.len() * part.width * 3, 0);
        let block = ROWS * part.width * 3;
        for (first, narrow) in needed.clone().step_by(ROWS).zip(self.narrow.chunks_mut(block)) {
            let count = narrow.len() / (part.width * 3);
            if window.width == width {
                // Pillow leaves this pass out.
                for (y, narrow) in narrow.chunks_exact_mut(part.width * 3).enumerate() {
                    narrow.copy_from_slice(&row(first + y)[part.left * 3..][..part.width * 3]);
                }
                continue;
            }
            self.pixels.resize(window.width, [0; 4 * ROWS]);
            for y in 0..count {
                for (to, from) in self.pixels.iter_mut().zip(row(first + y).as_chunks::<3>().0) {
                    to[4 * y..4 * y + 3].copy_from_slice(from);
                }
            }
            self.sums.resize(part.width, [0; 4 * ROWS]);
            self.bytes.resize(part.width, [0; 4 * ROWS]);
            let (pixels, columns) = (&self.pixels[..], &self.columns);
            let (sums, bytes) = (&mut self.sums[..], &mut self.bytes[..]);
            pulp::Arch::new().dispatch(Across { pixels, columns, sums, bytes, narrow });
        }
        canvas.resize(part.width, part.height);
        let (narrow, rows, out) = (&self.narrow[..], &self.rows, canvas.pixels_mut());
        if window.height == height {
            out.copy_from_slice(&narrow[..out.len()]);
        } else {
            pulp::Arch::new().dispatch(Down {
                narrow,
                stride: part.width * 3,
                first_row: needed.start,
                rows,
                out,
            });
        }
    }
}

/// Rows that the horizontal pass works on at once.
const ROWS: usize = 4;

/// A pixel of each of [`ROWS`] rows, with a byte more that means nothing: what fills a register.
type Column = [u8; 4 * ROWS];

/// The horizontal pass over [`ROWS`] rows, as many of which are wanted as `narrow` has room for.
struct Across<'a> {
    /// The rows side by side, pixel by pixel.
    pixels: &'a [Column],
    columns: &'a Taps,
    /// For each output pixel, in between.
    sums: &'a mut [[i32; 4 * ROWS]],
    bytes: &'a mut [Column],
    narrow: &'a mut [u8],
}

impl pulp::WithSimd for Across<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { pixels, columns, sums, bytes, narrow } = self;
        let stride = columns.spans.len() * 3;
        for (sum, (first, weights)) in sums.iter_mut().zip(columns.iter()) {
            let mut total = [HALF; 4 * ROWS];
            for (pixel, &weight) in pixels[first..].iter().zip(weights) {
                for lane in 0..4 * ROWS {
                    total[lane] += i32::from(pixel[lane]) * weight;
                }
            }
            *sum = total;
        }
        // On their own, so that each loop is one of vectors.
        for (byte, &sum) in bytes.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
            *byte = to_byte(sum);
        }
        for (x, column) in bytes.iter().enumerate() {
            for (out, rgb) in narrow.chunks_exact_mut(stride).zip(column.as_chunks::<4>().0) {
                out[x * 3..x * 3 + 3].copy_from_slice(&rgb[..3]);
            }
        }
    }
}

/// The vertical pass over rows of `stride` bytes, of which the first is the input's row `first_row`.
struct Down<'a> {
    narrow: &'a [u8],
    stride: usize,
    first_row: usize,
    rows: &'a Taps,
    out: &'a mut [u8],
}

/// Bytes of a row that the vertical pass sums up at once, in registers.
const BLOCK: usize = 32;

impl pulp::WithSimd for Down<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { narrow, stride, first_row, rows, out } = self;
        for ((first, weights), out) in rows.iter().zip(out.chunks_exact_mut(stride)) {
            let input = &narrow[(first - first_row) * stride..][..weights.len() * stride];
            let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
            for (place, block) in blocks.iter_mut().enumerate() {
                let mut sums = [HALF; BLOCK];
                for (row, &weight) in input.chunks_exact(stride).zip(weights) {
                    let row = &row.as_chunks::<BLOCK>().0[place];
                    for i in 0..BLOCK {
                        sums[i] += i32::from(row[i]) * weight;
                    }
                }
                for i in 0..BLOCK {
                    block[i] = to_byte(sums[i]);
                }
            }
            let done = stride - rest.len();
            for (i, out) in rest.iter_mut().enumerate() {
                let taps = input.chunks_exact(stride).zip(weights);
                *out =
                    to_byte(taps.fold(HALF, |sum, (row, &weight)| sum + i32::from(row[done + i]) * weight));
            }
        }
    }
}

/// The size (width, height) after resizing the shorter side to `shorter`; the other is rounded down.
pub fn shorter_side(width: usize, height: usize, shorter: usize) -> (usize, usize) {
    if width <= height { (shorter, shorter * height / width) } else { (shorter * width / height, shorter) }
}

/// The centre of an image of `width` by `height`, `side` pixels square.
///
/// # Panics
/// If the image is smaller.
pub fn centre(width: usize, height: usize, side: usize) -> CropBox {
    let offset = |length: usize| ((length - side) as f64 / 2.0).round_ties_even() as usize;
    CropBox { top: offset(height), left: offset(width), height: side, width: side }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn random_windows_fit_and_cover_the_stated_range() {
        let mut stream = Stream::new(0, Purpose::View, 0, 0);
        for (width, height) in [(500, 375), (20, 400), (400, 20), (1, 1)] {
            let (mut smallest, mut largest) = (f64::MAX, 0f64);
            for _ in 0..2000 {
                let w = CropBox::random_resized_crop(&mut stream, width, height);
                assert!(w.width > 0 && w.height > 0);
                assert!(w.left + w.width <= width && w.top + w.height <= height, "{w:?}");
                let share = (w.width * w.height) as f64 / (width * height) as f64;
                (smallest, largest) = (smallest.min(share), largest.max(share));
            }
            if (width, height) == (500, 375) {
                assert!((0.075..0.09).contains(&smallest) && largest > 0.9, "{smallest} {largest}");
            }
        }
    }
}
