//! JPEG, to the pixels of libjpeg-turbo with the accurate integer inverse DCT and smooth chroma upsampling,
//! which are Pillow's settings.

use libjpeg_turbo_rs::{DecodeLimits, Decoder, JpegError, PixelFormat};

use super::buffer::{Picture, check_size};
use super::error::{MAX_PIXELS, PictureError};

/// Decodes the first image of a JPEG file.
pub fn decode(file: &[u8], picture: &mut Picture) -> Result<(), PictureError> {
    // Decoders fill what is missing with grey; here, as in Pillow, a file without its end is none.
    let length = first_image(file).ok_or(PictureError::Truncated)?;
    let limits = DecodeLimits { max_pixels: MAX_PIXELS, ..DecodeLimits::default() };
    let mut decoder = Decoder::new_with_limits(&file[..length], limits).map_err(error)?;
    // Pillow goes on where libjpeg only warns.
    decoder.set_lenient(true);
    let (width, height) = (decoder.header().width(), decoder.header().height());
    check_size(width as u64, height as u64)?;
    if decoder.header().components.len() == 4 {
        decoder.set_output_format(PixelFormat::Cmyk);
        let image = decoder.decode_image().map_err(error)?;
        let pixels = picture.resize(image.width, image.height)?;
        for (cmyk, rgb) in image.data.as_chunks::<4>().0.iter().zip(pixels.as_chunks_mut::<3>().0) {
            *rgb = from_inverted_cmyk(*cmyk);
        }
        return Ok(());
    }
    decoder.set_output_format(PixelFormat::Rgb);
    decoder.decode_image_into(picture.resize(width, height)?).map_err(error)?;
    Ok(())
}

/// Pillow takes every CMYK JPEG as stored inverted, as Adobe's programs do: with nk = 255 - K the rounded
/// nk - C nk / 255.
fn from_inverted_cmyk([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    [c, m, y].map(|stored| {
        let product = u32::from(255 - stored) * u32::from(k) + 128;
        k.saturating_sub(((product + (product >> 8)) >> 8) as u8)
    })
}

/// The length of the first image of the file, from SOI to EOI, by its markers; `None` if the end is missing.
fn first_image(file: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        // To the next marker: over what the entropy coder wrote (a stuffed FF00, restart markers) and fill bytes.
        at += file.get(at..)?.iter().position(|&byte| byte == 0xFF)? + 1;
        match *file.get(at)? {
            0x00 | 0x01 | 0xD0..=0xD8 => at += 1,
            0xFF => {}
            0xD9 => return Some(at + 1),
            _ => {
                let length = file.get(at + 1..at + 3)?;
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}

fn error(error: JpegError) -> PictureError {
    match error {
        JpegError::UnexpectedEof => PictureError::Truncated,
        JpegError::Unsupported(what) => PictureError::Unsupported(format!("JPEG with {what}")),
        other => PictureError::Damaged { format: "JPEG", reason: other.to_string() },
    }
}
