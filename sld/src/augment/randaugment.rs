//! RandAugment as the reference uses it: two operations, then Cutout.

use super::canvas::Canvas;
use super::cutout::cutout;
use super::op::Op;
use crate::random::Stream;

/// The largest side of the cutout, as a fraction of the image's width.
const CUTOUT_RANGE: f64 = 0.5;

/// One call's random draws. `u` values are uniform in [0, 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandAugment {
    /// The two operations, drawn with replacement.
    pub ops: [Op; 2],
    /// Where in each operation's range its value lies.
    pub units: [f64; 2],
    /// Where in [0, 1/2) the cutout's side lies.
    pub cutout_unit: f64,
    /// Centre (x, y) of the cutout in pixels, each in (1, width] and (1, height].
    pub cutout_centre: (f64, f64),
}

impl RandAugment {
    /// Draws for an image of `width` by `height` pixels: first both operations, then the values.
    pub fn draw(stream: &mut Stream, width: usize, height: usize) -> Self {
        let mut op = || Op::ALL[stream.below(Op::ALL.len() as u64) as usize];
        let ops = [op(), op()];
        let units = [stream.unit(), stream.unit()];
        let cutout_unit = stream.unit();
        // The reference calls numpy's uniform(length), which is uniform(low=length, high=1).
        let mut centre = |length: usize| stream.range(length as f64, 1.0);
        let cutout_centre = (centre(width), centre(height));
        Self { ops, units, cutout_unit, cutout_centre }
    }

    /// Applies the drawn operations and the cutout.
    pub fn apply(&self, canvas: &mut Canvas) {
        for (op, unit) in self.ops.into_iter().zip(self.units) {
            op.apply(canvas, op.value(unit));
        }
        let (x, y) = self.cutout_centre;
        cutout(canvas, CUTOUT_RANGE * self.cutout_unit, x, y);
    }
}
