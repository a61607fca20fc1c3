//! The two views of a training image, from the draws to the pixels.

use super::canvas::Canvas;
use super::crop::crop_flip;
use super::randaugment::RandAugment;
use crate::random::{Purpose, Stream};

/// Black pixels added on every side before the crop.
pub const PADDING: usize = 4;

/// Where the crop lies in the padded image, and whether it is mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Rows above the window, 0..=8.
    pub top: usize,
    /// Columns left of the window, 0..=8.
    pub left: usize,
    /// Mirrored left to right.
    pub flip: bool,
}

impl Geometry {
    fn draw(stream: &mut Stream) -> Self {
        let mut offset = || stream.below(2 * PADDING as u64 + 1) as usize;
        let (top, left) = (offset(), offset());
        Self { top, left, flip: stream.coin() }
    }

    /// Leaves the crop of `image` (`width` by `height` pixels) on the canvas.
    pub fn apply(self, canvas: &mut Canvas, image: &[u8], width: usize, height: usize) {
        crop_flip(canvas, image, (width, height), PADDING, (self.top, self.left), self.flip);
    }
}

/// All random draws of one training image in one epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewDraws {
    /// Crop and flip of the weak view.
    pub weak: Geometry,
    /// Crop and flip of the strong view, independent of the weak view's.
    pub strong: Geometry,
    /// What follows the strong view's crop.
    pub randaugment: RandAugment,
}

impl ViewDraws {
    /// The draws of image `index` in `epoch`: a function of these numbers and the image's size alone.
    pub fn new(seed: u64, epoch: u64, index: u64, width: usize, height: usize) -> Self {
        let mut stream = Stream::new(seed, Purpose::View, epoch, index);
        let weak = Geometry::draw(&mut stream);
        let strong = Geometry::draw(&mut stream);
        Self { weak, strong, randaugment: RandAugment::draw(&mut stream, width, height) }
    }

    /// Leaves the weak view of `image` on the canvas.
    pub fn paint_weak(&self, canvas: &mut Canvas, image: &[u8], width: usize, height: usize) {
        self.weak.apply(canvas, image, width, height);
    }

    /// Leaves the strong view of `image` on the canvas.
    pub fn paint_strong(&self, canvas: &mut Canvas, image: &[u8], width: usize, height: usize) {
        self.strong.apply(canvas, image, width, height);
        self.randaugment.apply(canvas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::Op;

    #[test]
    fn draws_have_the_stated_distributions() {
        let n = 60_000;
        let (mut offsets, mut flips, mut ops) = ([[0usize; 9]; 4], [0usize; 2], [[0usize; 14]; 2]);
        let (mut repeated, mut centre_sum, mut cutout_sum) = (0usize, 0.0, 0.0);
        for index in 0..n {
            let draws = ViewDraws::new(3, 1, index, 32, 32);
            let geometry = [draws.weak.top, draws.weak.left, draws.strong.top, draws.strong.left];
            for (cells, offset) in offsets.iter_mut().zip(geometry) {
                cells[offset] += 1;
            }
            flips[0] += usize::from(draws.weak.flip);
            flips[1] += usize::from(draws.strong.flip);
            let r = draws.randaugment;
            for (cells, op) in ops.iter_mut().zip(r.ops) {
                cells[op as usize] += 1;
            }
            repeated += usize::from(r.ops[0] == r.ops[1]);
            let (x, y) = r.cutout_centre;
            assert!(x > 1.0 && x <= 32.0 && y > 1.0 && y <= 32.0);
            centre_sum += x + y;
            cutout_sum += r.cutout_unit;
        }
        let near = |count: usize, p: f64| {
            let expected = n as f64 * p;
            (count as f64 - expected).abs() < 5.0 * (expected * (1.0 - p)).sqrt()
        };
        assert!(offsets.iter().flatten().all(|&count| near(count, 1.0 / 9.0)), "{offsets:?}");
        assert!(flips.iter().all(|&count| near(count, 0.5)), "{flips:?}");
        assert!(ops.iter().flatten().all(|&count| near(count, 1.0 / 14.0)), "{ops:?}");
        assert!(near(repeated, 1.0 / 14.0), "with replacement: {repeated}");
        assert!((centre_sum / (2 * n) as f64 - 16.5).abs() < 0.15);
        assert!((cutout_sum / n as f64 - 0.5).abs() < 0.01);
    }

    #[test]
    fn values_lie_in_the_operations_ranges() {
        for op in Op::ALL {
            let (low, high) = op.range();
            assert_eq!(op.value(0.0), low);
            assert!(op.value(1.0 - f64::EPSILON / 2.0) <= high);
        }
    }
}
