//! Random crop of the zero-padded image, and the horizontal flip.

use super::canvas::Canvas;

/// Pads `image` by `padding` black pixels on every side, cuts a window of the image's own size whose top
/// left corner is at (`top`, `left`) of the padded image (each in 0..=2·`padding`), mirrors it when `flip`,
/// and leaves the result on `canvas`.
///
/// # Panics
/// If `image` does not hold `width * height * 3` bytes.
pub fn crop_flip(
    canvas: &mut Canvas,
    image: &[u8],
    (width, height): (usize, usize),
    padding: usize,
    (top, left): (usize, usize),
    flip: bool,
) {
    assert_eq!(image.len(), width * height * 3, "an image of {width}x{height} RGB pixels");
    canvas.resize(width, height);
    let (source, _) = image.as_chunks::<3>();
    let (target, _) = canvas.pixels_mut().as_chunks_mut::<3>();
    // Columns of the window that show the image, and the image column that the first of them shows.
    let (start, from) = (padding.saturating_sub(left).min(width), left.saturating_sub(padding).min(width));
    let shown = (width - start).min(width - from);
    for (y, out) in target.chunks_exact_mut(width.max(1)).enumerate() {
        match (y + top).checked_sub(padding).filter(|&row| row < height) {
            None => out.fill([0; 3]),
            Some(row) => {
                let row = &source[row * width..(row + 1) * width];
                out[..start].fill([0; 3]);
                out[start..start + shown].copy_from_slice(&row[from..from + shown]);
                out[start + shown..].fill([0; 3]);
                if flip {
                    out.reverse();
                }
            }
        }
    }
}
