//! The fourteen operations of RandAugment and the ranges of their strengths.

use super::canvas::Canvas;
use super::{affine, enhance, tone};

/// One operation; the discriminant is its place in the reference's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// [`tone::auto_contrast`]
    AutoContrast,
    /// [`enhance::brightness`]
    Brightness,
    /// [`enhance::color`]
    Color,
    /// [`enhance::contrast`]
    Contrast,
    /// [`tone::equalize`]
    Equalize,
    /// Changes nothing.
    Identity,
    /// [`tone::posterize`]
    Posterize,
    /// [`affine::rotate`]
    Rotate,
    /// [`enhance::sharpness`]
    Sharpness,
    /// [`affine::shear_x`]
    ShearX,
    /// [`affine::shear_y`]
    ShearY,
    /// [`tone::solarize`]
    Solarize,
    /// [`affine::translate_x`]
    TranslateX,
    /// [`affine::translate_y`]
    TranslateY,
}

impl Op {
    /// All operations, in the order in which they are drawn.
    pub const ALL: [Op; 14] = [
        Op::AutoContrast,
        Op::Brightness,
        Op::Color,
        Op::Contrast,
        Op::Equalize,
        Op::Identity,
        Op::Posterize,
        Op::Rotate,
        Op::Sharpness,
        Op::ShearX,
        Op::ShearY,
        Op::Solarize,
        Op::TranslateX,
        Op::TranslateY,
    ];

    /// The range (low, high) from which the operation's value is drawn; (0, 1) where it has none.
    ///
    /// The units are those of the operation: a blend strength, bits, degrees, a slope, a level, a fraction
    /// of the image's side.
    pub fn range(self) -> (f64, f64) {
        match self {
            Op::AutoContrast | Op::Equalize | Op::Identity => (0.0, 1.0),
            Op::Brightness | Op::Color | Op::Contrast | Op::Sharpness => (0.05, 0.95),
            Op::Posterize => (4.0, 8.0),
            Op::Rotate => (-30.0, 30.0),
            Op::ShearX | Op::ShearY | Op::TranslateX | Op::TranslateY => (-0.3, 0.3),
            Op::Solarize => (0.0, 256.0),
        }
    }

    /// The value at the fraction `unit` in [0, 1) of the range.
    pub fn value(self, unit: f64) -> f64 {
        let (low, high) = self.range();
        (high - low) * unit + low
    }

    /// Applies the operation with strength `value`, which is ignored where it has none.
    pub fn apply(self, canvas: &mut Canvas, value: f64) {
        match self {
            Op::AutoContrast => tone::auto_contrast(canvas),
            Op::Brightness => enhance::brightness(canvas, value),
            Op::Color => enhance::color(canvas, value),
            Op::Contrast => enhance::contrast(canvas, value),
            Op::Equalize => tone::equalize(canvas),
            Op::Identity => {}
            Op::Posterize => tone::posterize(canvas, value),
            Op::Rotate => affine::rotate(canvas, value),
            Op::Sharpness => enhance::sharpness(canvas, value),
            Op::ShearX => affine::shear_x(canvas, value),
            Op::ShearY => affine::shear_y(canvas, value),
            Op::Solarize => tone::solarize(canvas, value),
            Op::TranslateX => affine::translate_x(canvas, value),
            Op::TranslateY => affine::translate_y(canvas, value),
        }
    }
}
