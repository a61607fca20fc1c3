//! Cutout: a filled square at a random place.

use super::canvas::Canvas;

/// The fill: about the mean colour of ImageNet.
const FILL: [u8; 3] = [125, 123, 114];

/// Paints a square of side `fraction` · width around (`centre_x`, `centre_y`), in pixels.
///
/// The rectangle is drawn as Pillow draws one, with both ends included, so its sides are
/// trunc(side) + 1 pixels where it lies inside the image; a `fraction` of 0 paints nothing.
pub fn cutout(canvas: &mut Canvas, fraction: f64, centre_x: f64, centre_y: f64) {
    let (width, height) = (canvas.width(), canvas.height());
    let side = fraction * width as f64;
    if side <= 0.0 {
        return;
    }
    // First and last painted position along one axis; the last may lie just outside.
    let span = |centre: f64, length: usize| {
        let first = (centre - side / 2.0).max(0.0).trunc();
        let last = (first + side).min(length as f64);
        (first as usize, (last as usize).min(length.saturating_sub(1)))
    };
    let (left, right) = span(centre_x, width);
    let (top, bottom) = span(centre_y, height);
    let (rows, _) = canvas.pixels_mut().as_chunks_mut::<3>();
    for row in rows.chunks_exact_mut(width.max(1)).take(bottom + 1).skip(top) {
        if left <= right {
            row[left..=right].fill(FILL);
        }
    }
}
