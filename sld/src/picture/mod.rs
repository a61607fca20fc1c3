//! Pictures in files: from bytes to RGB, as torchvision's loader (Pillow, `convert("RGB")`) makes them.
//!
//! The content decides on the format, never the name. JPEG is decoded to libjpeg-turbo's pixels ([`jpeg`]),
//! PNG, GIF (its first frame), WebP, BMP, TIFF and PNM by the `image` crate ([`raster`]). Orientation in EXIF
//! and colour profiles are ignored, alpha is dropped without blending.

mod error;
mod format;
mod jpeg;
mod raster;

pub use error::PictureError;
pub use format::{Format, SNIFFED};

/// More pixels than this are taken for a bomb and refused before anything is allocated: Pillow's limit.
pub const MAX_PIXELS: u64 = 178_956_970;

/// An 8-bit RGB image of any size; its memory is used again by the next one that is decoded into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// Decodes a file's contents; the format is that of the content.
    ///
    /// # Errors
    /// What is wrong with the file. The picture is then empty.
    pub fn decode(&mut self, file: &[u8]) -> Result<Format, PictureError> {
        let format = Format::of(file)?;
        self.resize(0, 0)?;
        // A decoder's panic must not end a run of days: the file is told like any other that is damaged.
        let decode = std::panic::AssertUnwindSafe(|| match format {
            Format::Jpeg => jpeg::decode(file, self),
            other => raster::decode(file, other, self),
        });
        let outcome = std::panic::catch_unwind(decode).unwrap_or(Err(PictureError::Panic));
        if outcome.is_err() {
            self.pixels.clear();
            (self.width, self.height) = (0, 0);
        }
        outcome.map(|()| format)
    }

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

    /// Gives the picture a size; its contents are then unspecified.
    fn resize(&mut self, width: usize, height: usize) -> Result<&mut [u8], PictureError> {
        check_size(width as u64, height as u64)?;
        (self.width, self.height) = (width, height);
        self.pixels.resize(width * height * 3, 0);
        Ok(&mut self.pixels)
    }
}

/// Refuses bombs.
fn check_size(width: u64, height: u64) -> Result<(), PictureError> {
    match width.checked_mul(height) {
        Some(pixels) if pixels <= MAX_PIXELS => Ok(()),
        _ => Err(PictureError::TooLarge { width, height }),
    }
}

#[cfg(test)]
mod tests;
