//! The work area of the augmentations: one image, and a second buffer of the same size to paint the next
//! version into.

/// An 8-bit RGB image that operations change in place.
///
/// Operations that read pixels other than the one they write (crop, affine, sharpness) paint into the
/// second buffer and exchange the two; nothing is allocated once the canvas has seen an image of its size.
#[derive(Clone, Debug, Default)]
pub struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    scratch: Vec<u8>,
}

impl Canvas {
    /// An empty canvas; its buffers grow with the first image.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the image by a copy of `pixels`: `height` rows of `width` interleaved RGB pixels.
    ///
    /// # Panics
    /// If `pixels` does not hold exactly `width * height * 3` bytes.
    pub fn load(&mut self, pixels: &[u8], width: usize, height: usize) {
        self.resize(width, height);
        self.pixels.copy_from_slice(pixels);
    }

    /// Gives the canvas a size; the contents are unspecified until painted.
    pub(super) fn resize(&mut self, width: usize, height: usize) {
        self.width = width;
        self.height = height;
        self.pixels.resize(width * height * 3, 0);
        self.scratch.resize(width * height * 3, 0);
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The image: `height * width * 3` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The image, to change in place.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// Mirrors the image left to right.
    pub fn mirror(&mut self) {
        let rows = self.pixels.as_chunks_mut::<3>().0.chunks_exact_mut(self.width.max(1));
        rows.for_each(<[[u8; 3]]>::reverse);
    }

    /// Lets `paint(old, new)` produce the next version of the image from the present one.
    /// `new` holds stale bytes: all of it must be written.
    pub(super) fn repaint(&mut self, paint: impl FnOnce(&[u8], &mut [u8])) {
        paint(&self.pixels, &mut self.scratch);
        std::mem::swap(&mut self.pixels, &mut self.scratch);
    }
}
