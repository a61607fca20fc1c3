//! The views of pictures of any size: RandomResizedCrop and flip, and Resize with CenterCrop for evaluation.

use super::canvas::Canvas;
use super::randaugment::RandAugment;
use super::resample::{CropBox, Resampler, centre, shorter_side};
use crate::random::{Purpose, Stream};

/// A decoded picture: rows of interleaved RGB pixels.
#[derive(Clone, Copy, Debug)]
pub struct Photo<'a> {
    /// `width * height * 3` bytes.
    pub pixels: &'a [u8],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// Which window of a picture is shown, and whether it is mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// In the picture's pixels.
    pub window: CropBox,
    /// Mirrored left to right.
    pub flip: bool,
}

impl Framing {
    fn draw(stream: &mut Stream, width: usize, height: usize) -> Self {
        Self { window: CropBox::random_resized_crop(stream, width, height), flip: stream.coin() }
    }

    /// Leaves the window on the canvas, as a square of `side` pixels.
    pub fn apply(self, resampler: &mut Resampler, canvas: &mut Canvas, photo: Photo, side: usize) {
        let all = CropBox::whole(side, side);
        resampler.resize(canvas, photo.pixels, photo.width, self.window, (side, side), all);
        if self.flip {
            canvas.mirror();
        }
    }
}

/// All random draws of one training picture in one epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhotoDraws {
    /// The weak view.
    pub weak: Framing,
    /// The strong view, independent of the weak one.
    pub strong: Framing,
    /// What follows the strong view's framing.
    pub randaugment: RandAugment,
}

impl PhotoDraws {
    /// The draws of picture `index`, `width` by `height` pixels, in `epoch`, for views of `side` pixels: a
    /// function of these numbers alone.
    pub fn new(seed: u64, epoch: u64, index: u64, (width, height): (usize, usize), side: usize) -> Self {
        let mut stream = Stream::new(seed, Purpose::View, epoch, index);
        let weak = Framing::draw(&mut stream, width, height);
        let strong = Framing::draw(&mut stream, width, height);
        Self { weak, strong, randaugment: RandAugment::draw(&mut stream, side, side) }
    }
}

/// Leaves the evaluation view on the canvas: the shorter side becomes `shorter` pixels, and the central square of
/// `side` is cut out.
///
/// # Panics
/// If `side` exceeds `shorter` or a size is 0.
pub fn evaluation_view(
    resampler: &mut Resampler,
    canvas: &mut Canvas,
    photo: Photo,
    shorter: usize,
    side: usize,
) {
    assert!(side <= shorter, "the crop of {side} must fit the resized side of {shorter}");
    let size = shorter_side(photo.width, photo.height, shorter);
    let whole = CropBox::whole(photo.width, photo.height);
    resampler.resize(canvas, photo.pixels, photo.width, whole, size, centre(size.0, size.1, side));
}
