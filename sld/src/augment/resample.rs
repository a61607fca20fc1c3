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
    /// Input rows side by side, each with room behind it.
    padded: Vec<u8>,
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
            // A pixel is read as four bytes, so that every row needs one more behind it.
            let stride = window.width * 3 + 1;
            self.padded.resize(ROWS * stride, 0);
            for (y, padded) in self.padded.chunks_exact_mut(stride).take(count).enumerate() {
                padded[..stride - 1].copy_from_slice(row(first + y));
            }
            let (padded, columns) = (&self.padded[..], &self.columns);
            pulp::Arch::new().dispatch(|| across(padded, stride, columns, narrow));
        }
        canvas.resize(part.width, part.height);
        let (narrow, rows, out) = (&self.narrow[..], &self.rows, canvas.pixels_mut());
        if window.height == height {
            out.copy_from_slice(&narrow[..out.len()]);
        } else {
            pulp::Arch::new().dispatch(|| down(narrow, part.width * 3, needed.start, rows, out));
        }
    }
}

/// Rows that the horizontal pass works on at once.
const ROWS: usize = 4;

/// The horizontal pass over [`ROWS`] rows of `padded`, as many of which are wanted as `narrow` has room for.
#[inline(always)]
fn across(padded: &[u8], stride: usize, columns: &Taps, narrow: &mut [u8]) {
    let rows: [&[u8]; ROWS] = std::array::from_fn(|y| &padded[y * stride..(y + 1) * stride]);
    let out_stride = columns.spans.len() * 3;
    for (x, (first, weights)) in columns.iter().enumerate() {
        let mut sums = [[HALF; 4]; ROWS];
        let length = weights.len() * 3 + 1;
        let pixels = rows.map(|row| &row[first * 3..first * 3 + length]);
        for (tap, &weight) in weights.iter().enumerate() {
            for y in 0..ROWS {
                let pixel: [u8; 4] = std::array::from_fn(|lane| pixels[y][tap * 3 + lane]);
                for lane in 0..4 {
                    sums[y][lane] += i32::from(pixel[lane]) * weight;
                }
            }
        }
        for (out, sums) in narrow.chunks_exact_mut(out_stride).zip(sums) {
            let [red, green, blue, _] = sums.map(to_byte);
            out[x * 3..x * 3 + 3].copy_from_slice(&[red, green, blue]);
        }
    }
}

/// The vertical pass over rows of `stride` bytes, of which the first is the input's row `first_row`.
#[inline(always)]
fn down(narrow: &[u8], stride: usize, first_row: usize, rows: &Taps, out: &mut [u8]) {
    /// Bytes of a row that are summed up at once, in registers.
    const BLOCK: usize = 64;
    for ((first, weights), out) in rows.iter().zip(out.chunks_exact_mut(stride)) {
        let input = &narrow[(first - first_row) * stride..][..weights.len() * stride];
        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
        for (place, block) in blocks.iter_mut().enumerate() {
            let mut sums = [HALF; BLOCK];
            for (row, &weight) in input.chunks_exact(stride).zip(weights) {
                let row: &[u8; BLOCK] = row[place * BLOCK..][..BLOCK].try_into().expect("a block");
                for i in 0..BLOCK {
                    sums[i] += i32::from(row[i]) * weight;
                }
            }
            *block = sums.map(to_byte);
        }
        let done = stride - rest.len();
        for (i, out) in rest.iter_mut().enumerate() {
            let taps = input.chunks_exact(stride).zip(weights);
            *out = to_byte(taps.fold(HALF, |sum, (row, &weight)| sum + i32::from(row[done + i]) * weight));
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
