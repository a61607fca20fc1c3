//! ImageNet geometry: antialiased bilinear resizing as Pillow does it, RandomResizedCrop and the centre
//! crop of evaluation.
//!
//! Pillow resizes in two passes, rows first, and rounds to bytes in between. Each output value is a
//! weighted mean over a triangle as wide as the scale, with weights in 22-bit fixed point.

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
struct Taps {
    spans: Vec<(usize, std::ops::Range<usize>)>,
    weights: Vec<i32>,
}

impl Taps {
    fn new(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        // Shrinking widens the triangle so that every input pixel counts; enlarging interpolates.
        let support = scale.max(1.0);
        let inverse = 1.0 / support;
        let mut taps = Self { spans: Vec::with_capacity(output), weights: Vec::new() };
        let mut row = Vec::new();
        for position in 0..output {
            let centre = (position as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            row.clear();
            row.extend((first..end).map(|tap| {
                let distance = ((tap as f64 - centre + 0.5) * inverse).abs();
                (1.0 - distance).max(0.0)
            }));
            let sum: f64 = row.iter().sum();
            let start = taps.weights.len();
            let one = f64::from(1 << PRECISION);
            taps.weights.extend(row.iter().map(|weight| (weight / sum * one + 0.5) as i32));
            taps.spans.push((first, start..taps.weights.len()));
        }
        taps
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.spans.iter().map(|(first, range)| (*first, &self.weights[range.clone()]))
    }
}

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Cuts `window` out of an RGB image of `image_width` pixels a row and resizes it to `width` by `height`.
///
/// # Panics
/// If the window does not lie in the image or a size is 0.
pub fn resized_crop(
    image: &[u8],
    image_width: usize,
    window: CropBox,
    width: usize,
    height: usize,
) -> Vec<u8> {
    assert!(width > 0 && height > 0 && window.width > 0 && window.height > 0, "sizes must not be 0");
    assert!(window.left + window.width <= image_width, "the window lies inside the image");
    let cut = |row: usize| {
        let start = ((window.top + row) * image_width + window.left) * 3;
        &image[start..start + window.width * 3]
    };
    let mut rows = Vec::with_capacity(window.height * width * 3);
    if window.width == width {
        (0..window.height).for_each(|row| rows.extend_from_slice(cut(row)));
    } else {
        let taps = Taps::new(window.width, width);
        for row in 0..window.height {
            let (pixels, _) = cut(row).as_chunks::<3>();
            for (first, weights) in taps.iter() {
                let mut sums = [1 << (PRECISION - 1); 3];
                for (pixel, weight) in pixels[first..].iter().zip(weights) {
                    for channel in 0..3 {
                        sums[channel] += i32::from(pixel[channel]) * weight;
                    }
                }
                rows.extend(sums.map(to_byte));
            }
        }
    }
    if window.height == height {
        return rows;
    }
    let stride = width * 3;
    let mut out = Vec::with_capacity(stride * height);
    let mut sums = vec![0i32; stride];
    for (first, weights) in Taps::new(window.height, height).iter() {
        sums.fill(1 << (PRECISION - 1));
        for (row, weight) in rows[first * stride..].chunks_exact(stride).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| to_byte(sum)));
    }
    out
}

/// The size (width, height) after resizing the shorter side to `shorter`; the other is rounded down.
pub fn shorter_side(width: usize, height: usize, shorter: usize) -> (usize, usize) {
    if width <= height { (shorter, shorter * height / width) } else { (shorter * width / height, shorter) }
}

/// The evaluation view: shorter side to `shorter` (256), then the central square of `side` (224) pixels.
///
/// # Panics
/// If `side` exceeds `shorter` or a size is 0.
pub fn evaluation_view(image: &[u8], width: usize, height: usize, shorter: usize, side: usize) -> Vec<u8> {
    assert!(side <= shorter, "the crop of {side} must fit the resized side of {shorter}");
    let (resized_width, resized_height) = shorter_side(width, height, shorter);
    let whole = CropBox { top: 0, left: 0, height, width };
    let resized = resized_crop(image, width, whole, resized_width, resized_height);
    let offset = |length: usize| ((length - side) as f64 / 2.0).round_ties_even() as usize;
    let window =
        CropBox { top: offset(resized_height), left: offset(resized_width), height: side, width: side };
    resized_crop(&resized, resized_width, window, side, side)
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
