//! PNG, GIF, WebP, BMP, TIFF and PNM through the `image` crate, with Pillow's rules for more than 8 bits.

use std::io::Cursor;

use image::error::{ImageError, LimitErrorKind};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::buffer::{Picture, check_size};
use super::error::{MAX_PIXELS, PictureError};
use super::format::Format;

/// Decodes the first frame of a file of the given format.
pub fn decode(file: &[u8], format: Format, picture: &mut Picture) -> Result<(), PictureError> {
    let library = match format {
        Format::Png => ImageFormat::Png,
        Format::Gif => ImageFormat::Gif,
        Format::WebP => ImageFormat::WebP,
        Format::Bmp => ImageFormat::Bmp,
        Format::Tiff => ImageFormat::Tiff,
        Format::Pnm => ImageFormat::Pnm,
        Format::Jpeg => return Err(PictureError::Unsupported("JPEG in this place".into())),
    };
    let error = |error| error_of(format, error);
    let mut reader = ImageReader::with_format(Cursor::new(file), library);
    // Twice the largest picture of four 16-bit channels; the pixels are counted below, before they are read.
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 16);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(error)?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    let image = DynamicImage::from_decoder(decoder).map_err(error)?;
    let out = picture.resize(width as usize, height as usize)?.as_chunks_mut::<3>().0;
    let high = |value: u16| (value >> 8) as u8;
    match image {
        DynamicImage::ImageRgb8(image) => out.as_flattened_mut().copy_from_slice(image.as_raw()),
        DynamicImage::ImageRgba8(image) => {
            fill(out, image.as_raw().as_chunks::<4>().0, |[r, g, b, _]| [r, g, b]);
        }
        DynamicImage::ImageLuma8(image) => fill(out, image.as_raw(), |l| [l; 3]),
        DynamicImage::ImageLumaA8(image) => fill(out, image.as_raw().as_chunks::<2>().0, |[l, _]| [l; 3]),
        // Pillow clips 16-bit grey, and keeps the high byte of everything else of 16 bits.
        DynamicImage::ImageLuma16(image) => fill(out, image.as_raw(), |l| [l.min(255) as u8; 3]),
        DynamicImage::ImageLumaA16(image) => {
            fill(out, image.as_raw().as_chunks::<2>().0, |[l, _]| [high(l); 3]);
        }
        DynamicImage::ImageRgb16(image) => {
            fill(out, image.as_raw().as_chunks::<3>().0, |rgb| rgb.map(high));
        }
        DynamicImage::ImageRgba16(image) => {
            fill(out, image.as_raw().as_chunks::<4>().0, |[r, g, b, _]| [r, g, b].map(high));
        }
        other => {
            let what = format!("{} with pixels of {:?}", format.name(), other.color());
            return Err(PictureError::Unsupported(what));
        }
    }
    Ok(())
}

fn fill<T: Copy>(out: &mut [[u8; 3]], pixels: &[T], rgb: impl Fn(T) -> [u8; 3]) {
    out.iter_mut().zip(pixels).for_each(|(out, &pixel)| *out = rgb(pixel));
}

fn error_of(format: Format, error: ImageError) -> PictureError {
    match error {
        ImageError::IoError(why) if why.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::Truncated
        }
        ImageError::Unsupported(why) => PictureError::Unsupported(why.to_string()),
        ImageError::Limits(why) if matches!(why.kind(), LimitErrorKind::InsufficientMemory) => {
            PictureError::Unsupported(format!("{} that needs so much memory", format.name()))
        }
        other => PictureError::Damaged { format: format.name(), reason: other.to_string() },
    }
}
