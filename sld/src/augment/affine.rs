//! Affine maps with nearest-neighbour sampling and black outside: Rotate, ShearX/Y, TranslateX/Y.
//!
//! A map takes an output position to the source position it shows. Pillow steps through the image in
//! 16.16 fixed point, or with running sums in f64 when the map has no cross terms; both are reproduced
//! step by step, because their rounding decides which neighbour is nearest.

use super::canvas::Canvas;

/// source = (xx·x + xy·y + x0, yx·x + yy·y + y0), positions in pixels from the top left corner.
#[derive(Clone, Copy, Debug)]
struct Map {
    xx: f64,
    xy: f64,
    x0: f64,
    yx: f64,
    yy: f64,
    y0: f64,
}

const IDENTITY: Map = Map { xx: 1.0, xy: 0.0, x0: 0.0, yx: 0.0, yy: 1.0, y0: 0.0 };

/// Rotates by `degrees` counter-clockwise about the centre.
pub fn rotate(canvas: &mut Canvas, degrees: f64) {
    let degrees = degrees.rem_euclid(360.0);
    if degrees == 0.0 {
        return;
    }
    let angle = -degrees.to_radians();
    // Pillow rounds to 15 decimals, so that right angles are exact.
    let round = |value: f64| (value * 1e15).round() / 1e15;
    let (sin, cos) = (angle.sin(), angle.cos());
    let (centre_x, centre_y) = (canvas.width() as f64 / 2.0, canvas.height() as f64 / 2.0);
    let (xx, xy, yx, yy) = (round(cos), round(sin), round(-sin), round(cos));
    let x0 = xx * -centre_x + xy * -centre_y + centre_x;
    let y0 = yx * -centre_x + yy * -centre_y + centre_y;
    transform(canvas, Map { xx, xy, x0, yx, yy, y0 });
}

/// Shows at (x, y) what was at (x + `slope`·y, y).
pub fn shear_x(canvas: &mut Canvas, slope: f64) {
    transform(canvas, Map { xy: slope, ..IDENTITY });
}

/// Shows at (x, y) what was at (x, y + `slope`·x).
pub fn shear_y(canvas: &mut Canvas, slope: f64) {
    transform(canvas, Map { yx: slope, ..IDENTITY });
}

/// Shifts left by `fraction` of the width.
pub fn translate_x(canvas: &mut Canvas, fraction: f64) {
    let x0 = fraction * canvas.width() as f64;
    transform(canvas, Map { x0, ..IDENTITY });
}

/// Shifts up by `fraction` of the height.
pub fn translate_y(canvas: &mut Canvas, fraction: f64) {
    let y0 = fraction * canvas.height() as f64;
    transform(canvas, Map { y0, ..IDENTITY });
}

fn transform(canvas: &mut Canvas, map: Map) {
    let (width, height) = (canvas.width(), canvas.height());
    canvas.repaint(|old, new| {
        if map.xy == 0.0 && map.yx == 0.0 {
            transform_axes(old, new, width, height, map);
        } else {
            transform_fixed(old, new, width, height, map);
        }
    });
}

/// No cross terms: columns and rows move independently.
fn transform_axes(old: &[u8], new: &mut [u8], width: usize, height: usize, map: Map) {
    let stride = width * 3;
    let mut source_y = map.y0 + map.yy * 0.5;
    for out in new.chunks_exact_mut(stride.max(1)) {
        if source_y < 0.0 || source_y as usize >= height {
            out.fill(0);
        } else {
            let row = &old[source_y as usize * stride..][..stride];
            let mut source_x = map.x0 + map.xx * 0.5;
            for pixel in out.as_chunks_mut::<3>().0 {
                *pixel = [0; 3];
                if source_x >= 0.0 && (source_x as usize) < width {
                    let at = source_x as usize * 3;
                    pixel.copy_from_slice(&row[at..at + 3]);
                }
                source_x += map.xx;
            }
        }
        source_y += map.yy;
    }
}

/// To 16.16 fixed point, rounded to nearest.
fn fixed(value: f64) -> i32 {
    (value * 65536.0 + 0.5).floor() as i32
}

/// General maps, in 16.16 fixed point.
fn transform_fixed(old: &[u8], new: &mut [u8], width: usize, height: usize, map: Map) {
    let stride = width * 3;
    let (pixels, _) = old.as_chunks::<3>();
    let (xx, xy, yx, yy) = (fixed(map.xx), fixed(map.xy), fixed(map.yx), fixed(map.yy));
    let mut row_x = fixed(map.x0 + map.xx * 0.5 + map.xy * 0.5);
    let mut row_y = fixed(map.y0 + map.yx * 0.5 + map.yy * 0.5);
    for out in new.chunks_exact_mut(stride.max(1)) {
        let (mut x, mut y) = (row_x, row_y);
        for pixel in out.as_chunks_mut::<3>().0 {
            // A negative position becomes a huge unsigned one: one comparison a coordinate.
            let (column, row) = ((x >> 16) as u32 as usize, (y >> 16) as u32 as usize);
            *pixel = if column < width && row < height { pixels[row * width + column] } else { [0; 3] };
            x = x.wrapping_add(xx);
            y = y.wrapping_add(yx);
        }
        row_x = row_x.wrapping_add(xy);
        row_y = row_y.wrapping_add(yy);
    }
}
