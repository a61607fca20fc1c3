//! Pictures in files: from bytes to RGB, as torchvision's loader (Pillow, `convert("RGB")`) makes them.
//!
//! The content decides on the format, never the name. JPEG is decoded to libjpeg-turbo's pixels (`jpeg.rs`),
//! PNG, GIF (its first frame), WebP, BMP, TIFF and PNM by the `image` crate (`raster.rs`). Orientation in EXIF
//! and colour profiles are ignored, alpha is dropped without blending.

mod buffer;
mod error;
mod format;
mod jpeg;
mod raster;

pub use buffer::Picture;
pub use error::{MAX_PIXELS, PictureError};
pub use format::{Format, SNIFFED};

impl Picture {
    /// Decodes a file's contents; the format is that of the content.
    ///
    /// # Errors
    /// What is wrong with the file. The picture is then empty.
    pub fn decode(&mut self, file: &[u8]) -> Result<Format, PictureError> {
        self.clear();
        let format = Format::of(file)?;
        // A page's browser decodes better than what the page would have to load for it.
        if cfg!(target_family = "wasm") {
            return Err(PictureError::Unsupported("decoding in a page, where the browser does it".into()));
        }
        // A decoder's panic must not end a run of days: the file is told like any other that is damaged.
        let decode = std::panic::AssertUnwindSafe(|| match format {
            Format::Jpeg => jpeg::decode(file, self),
            other => raster::decode(file, other, self),
        });
        let outcome = std::panic::catch_unwind(decode).unwrap_or(Err(PictureError::Panic));
        if outcome.is_err() {
            self.clear();
        }
        outcome.map(|()| format)
    }
}
