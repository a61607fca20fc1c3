//! Mixtures of two images, which share the labels of both: mixup and CutMix.
//!
//! Image `i` of a batch is mixed with image `i - 1`, the first with the last, by one draw for the whole batch, as
//! `torchvision.transforms.v2.MixUp` and `CutMix` do. The order of an epoch being random, so are the pairs.

use crate::random::{Purpose, Stream};

/// Which mixtures batches are made into. Where both are wanted, each batch is one or the other, as likely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixing {
    /// `alpha` of mixup, whose share of the image itself is drawn from Beta(alpha, alpha): Zhang, Cisse, Dauphin,
    /// Lopez-Paz, *mixup: Beyond Empirical Risk Minimization* (2018). 0: none.
    pub mixup: f64,
    /// The same of CutMix, which takes a rectangle from the other image: Yun, Han, Oh, Chun, Choe, Yoo, *CutMix* (2019).
    /// 0: none.
    pub cutmix: f64,
}

/// The draw of one batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mixture {
    /// The image times this share, and the other times the rest.
    Blend(f64),
    /// The other image in a rectangle.
    Cut {
        /// The first column of it.
        left: usize,
        /// The first row.
        top: usize,
        /// The first column to its right.
        right: usize,
        /// The first row below.
        bottom: usize,
        /// Width and height of the image.
        size: (usize, usize),
    },
}

impl Mixing {
    /// `None` where neither is wanted.
    pub fn new(mixup: f64, cutmix: f64) -> Option<Mixing> {
        (mixup > 0.0 || cutmix > 0.0).then_some(Mixing { mixup, cutmix })
    }

    /// The draw of a batch of images of `width` by `height` pixels: a function of these numbers alone. `batch` is its
    /// place in the epoch.
    pub fn draw(self, seed: u64, epoch: u64, batch: u64, (width, height): (usize, usize)) -> Mixture {
        let mut stream = Stream::new(seed, Purpose::Mixture, epoch, batch);
        if self.cutmix == 0.0 || (self.mixup > 0.0 && stream.coin()) {
            return Mixture::Blend(stream.beta(self.mixup));
        }
        let half = 0.5 * (1.0 - stream.beta(self.cutmix)).sqrt();
        let mut span = |length: usize| {
            let (centre, half) = (stream.below(length as u64) as usize, (half * length as f64) as usize);
            (centre.saturating_sub(half), (centre + half).min(length))
        };
        let ((left, right), (top, bottom)) = (span(width), span(height));
        Mixture::Cut { left, top, right, bottom, size: (width, height) }
    }
}

impl Mixture {
    /// The share that an image keeps of itself, and its label of the loss.
    pub fn share(self) -> f64 {
        match self {
            Mixture::Blend(share) => share,
            Mixture::Cut { left, top, right, bottom, size: (width, height) } => {
                1.0 - ((right - left) * (bottom - top)) as f64 / (width * height) as f64
            }
        }
    }

    /// Mixes the images that lie one after another in `images` with their predecessors; the first one's is `before`.
    pub fn apply(self, images: &mut [f32], before: &[f32]) {
        let len = before.len();
        for number in (0..images.len() / len.max(1)).rev() {
            let (earlier, image) = images.split_at_mut(number * len);
            let other = if number == 0 { before } else { &earlier[(number - 1) * len..] };
            self.mix(&mut image[..len], &other[..len]);
        }
    }

    fn mix(self, image: &mut [f32], other: &[f32]) {
        match self {
            Mixture::Blend(share) => {
                let (own, rest) = (share as f32, (1.0 - share) as f32);
                image.iter_mut().zip(other).for_each(|(value, other)| *value = *value * own + other * rest);
            }
            Mixture::Cut { left, top, right, bottom, size: (width, height) } => {
                let channels = image.len() / (width * height).max(1);
                for row in top..bottom {
                    let cut = (row * width + left) * channels..(row * width + right) * channels;
                    image[cut.clone()].copy_from_slice(&other[cut]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The papers' formulas by hand: `x = share x_i + (1 - share) x_j`, and a rectangle of the other.
    #[test]
    fn images_are_mixed_with_their_predecessors() {
        let mut images = [1.0, 2.0, 10.0, 20.0, 100.0, 200.0];
        Mixture::Blend(0.75).apply(&mut images, &[100.0, 200.0]);
        assert_eq!(images, [25.75, 51.5, 7.75, 15.5, 77.5, 155.0]);

        // Two images of 3x2 pixels of two channels.
        let mut images: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let before = [-1.0; 12];
        let cut = Mixture::Cut { left: 1, top: 1, right: 3, bottom: 2, size: (3, 2) };
        cut.apply(&mut images, &before);
        let first = [0., 1., 2., 3., 4., 5., 6., 7., -1., -1., -1., -1.];
        let second = [12., 13., 14., 15., 16., 17., 18., 19., 8., 9., 10., 11.];
        assert_eq!(images, [first, second].concat());
        assert_eq!(cut.share(), 1.0 - 2.0 / 6.0);
    }

    /// `int(0.5 sqrt(1 - lambda) side)` to each side of the centre, cut at the edges.
    #[test]
    fn a_rectangle_has_the_area_that_is_drawn_and_lies_in_the_image() {
        let mixing = Mixing { mixup: 0.0, cutmix: 1.0 };
        let (mut cut_off, mut sum) = (0, 0.0);
        for batch in 0..4000 {
            let Mixture::Cut { left, top, right, bottom, .. } = mixing.draw(3, 1, batch, (32, 16)) else {
                panic!("CutMix alone is wanted");
            };
            // What the draw must have been, from the same stream.
            let mut stream = Stream::new(3, Purpose::Mixture, 1, batch);
            let half = 0.5 * (1.0 - stream.beta(1.0)).sqrt();
            let (x, y) = (stream.below(32) as i64, stream.below(16) as i64);
            let (w, h) = ((half * 32.0) as i64, (half * 16.0) as i64);
            let wanted = [(x - w).max(0), (y - h).max(0), (x + w).min(32), (y + h).min(16)];
            assert_eq!([left, top, right, bottom].map(|edge| edge as i64), wanted);
            cut_off += usize::from(left == 0 || top == 0 || right == 32 || bottom == 16);
            sum += mixing.draw(3, 1, batch, (32, 16)).share();
        }
        assert!(cut_off > 1000, "{cut_off}");
        // Half the image on average, less what is cut off at the edges.
        assert!((0.6..0.72).contains(&(sum / 4000.0)), "{}", sum / 4000.0);
    }

    #[test]
    fn of_both_each_is_as_likely() {
        let draws = (0..4000).map(|batch| Mixing { mixup: 0.2, cutmix: 1.0 }.draw(3, 1, batch, (8, 8)));
        let blends = draws.filter(|mixture| matches!(mixture, Mixture::Blend(_))).count();
        assert!(blends.abs_diff(2000) < 160, "{blends}");
        assert_eq!(Mixing::new(0.0, 0.0), None);
    }
}
