//! A decoded picture.

use super::error::{MAX_PIXELS, PictureError};

/// An 8-bit RGB image of any size; its memory is used again by the next one that is decoded into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Rows of interleaved RGB pixels.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Takes the image away; its memory stays.
    pub(super) fn clear(&mut self) {
        (self.width, self.height) = (0, 0);
        self.pixels.clear();
    }

    /// Gives the picture a size; its contents are then unspecified.
    pub(super) fn resize(&mut self, width: usize, height: usize) -> Result<&mut [u8], PictureError> {
        check_size(width as u64, height as u64)?;
        (self.width, self.height) = (width, height);
        self.pixels.resize(width * height * 3, 0);
        Ok(&mut self.pixels)
    }
}

/// Refuses bombs, and pictures without pixels.
pub(super) fn check_size(width: u64, height: u64) -> Result<(), PictureError> {
    match width.checked_mul(height) {
        Some(1..=MAX_PIXELS) => Ok(()),
        _ => Err(PictureError::Size { width, height }),
    }
}
