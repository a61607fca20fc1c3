//! What can be wrong with a picture's file. The path is added by who read it.

/// More pixels than this are taken for a bomb and refused before anything is allocated: Pillow's limit.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Why a file's contents are no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// The first bytes are those of no format that is read.
    #[error("it is no picture: it begins with {0}, as none of JPEG, PNG, GIF, WebP, BMP, TIFF and PNM does")]
    Unknown(String),
    /// The end is missing.
    #[error("the file is cut off: its picture has no end")]
    Truncated,
    /// The header claims no pixels, or more than are believed.
    #[error("its header claims {width}x{height} pixels; 1 to {MAX_PIXELS} are believed")]
    Size {
        /// Columns.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// Something that no reader here knows.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The decoder found a contradiction.
    #[error("the {format} is damaged: {reason}")]
    Damaged {
        /// The format's name.
        format: &'static str,
        /// The decoder's words.
        reason: String,
    },
    /// The decoder gave up in a way it should not.
    #[error("its decoder broke down on it; the file is damaged in an unusual way")]
    Panic,
}
