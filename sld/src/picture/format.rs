//! Which format a file is in, by its first bytes.

use super::error::PictureError;

/// How many bytes of a file tell its format.
pub const SNIFFED: usize = 16;

/// A picture's file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// JPEG, whatever its colours and coding.
    Jpeg,
    /// PNG.
    Png,
    /// GIF; its first frame is the picture.
    Gif,
    /// WebP, with loss or without.
    WebP,
    /// BMP, with a header of any known length.
    Bmp,
    /// TIFF; its first picture.
    Tiff,
    /// PBM, PGM or PPM, as text or binary.
    Pnm,
}

impl Format {
    /// The format of a file that begins with `bytes`.
    ///
    /// # Errors
    /// There are no bytes, or they are no picture's.
    pub fn of(bytes: &[u8]) -> Result<Self, PictureError> {
        match bytes {
            [] => Err(PictureError::Empty),
            [0xFF, 0xD8, 0xFF, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Ok(Self::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            // A text may begin with these letters: the second header's length tells.
            [
                b'B',
                b'M',
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                12 | 16 | 40 | 52 | 56 | 64 | 108 | 124,
                0,
                ..,
            ] => Ok(Self::Bmp),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Ok(Self::Tiff),
            [b'P', b'1'..=b'6', b' ' | b'\t' | b'\r' | b'\n', b'#' | b'0'..=b'9', ..] => Ok(Self::Pnm),
            _ => Err(PictureError::Unknown(beginning(bytes))),
        }
    }

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::Pnm => "PNM",
        }
    }
}

/// A file's first bytes, as text where they are one.
fn beginning(bytes: &[u8]) -> String {
    let first = &bytes[..bytes.len().min(SNIFFED)];
    match first.iter().all(|byte| byte.is_ascii_graphic() || b" \r\n\t".contains(byte)) {
        true => format!("\"{}\"", first.escape_ascii()),
        false => first.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
    }
}
