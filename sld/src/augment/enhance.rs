//! Operations that blend the image with a degenerate version of itself (Pillow's `ImageEnhance`):
//! Brightness (black), Color (grey), Contrast (one grey level), Sharpness (smoothed).
//!
//! `strength` 0 gives the degenerate version, 1 the image.

use super::canvas::Canvas;

/// trunc(degenerate + strength (value − degenerate)) in f32, for strengths in [0, 1].
#[inline(always)]
fn blend(degenerate: u8, value: u8, strength: f32) -> u8 {
    let difference = f32::from(i16::from(value) - i16::from(degenerate));
    // Truncation through i32 vectorises; the blend lies between two bytes, so nothing is cut off.
    (f32::from(degenerate) + strength * difference) as i32 as u8
}

/// The grey level of a pixel (ITU-R 601 luma, 16-bit fixed point, rounded).
#[inline(always)]
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue) + 0x8000) >> 16) as u8
}

fn strength(value: f64) -> f32 {
    value.clamp(0.0, 1.0) as f32
}

fn blend_with_level(pixels: &mut [u8], level: u8, strength: f32) {
    let table: [u8; 256] = std::array::from_fn(|value| blend(level, value as u8, strength));
    for value in pixels {
        *value = table[*value as usize];
    }
}

/// Blends with black.
pub fn brightness(canvas: &mut Canvas, value: f64) {
    blend_with_level(canvas.pixels_mut(), 0, strength(value));
}

/// Blends with the image's mean grey level.
pub fn contrast(canvas: &mut Canvas, value: f64) {
    let pixels = canvas.pixels_mut();
    let (chunks, _) = pixels.as_chunks::<3>();
    let sum: u64 = chunks.iter().map(|&pixel| u64::from(luma(pixel))).sum();
    let mean = sum as f64 / chunks.len().max(1) as f64;
    blend_with_level(pixels, (mean + 0.5) as u8, strength(value));
}

/// Blends every pixel with its own grey level.
pub fn color(canvas: &mut Canvas, value: f64) {
    let strength = strength(value);
    for pixel in canvas.pixels_mut().as_chunks_mut::<3>().0 {
        let grey = luma(*pixel);
        *pixel = pixel.map(|value| blend(grey, value, strength));
    }
}

/// Blends with the image smoothed by the kernel [1 1 1; 1 5 1; 1 1 1] / 13, whose one-pixel border is a
/// copy of the image.
pub fn sharpness(canvas: &mut Canvas, value: f64) {
    let (width, height) = (canvas.width(), canvas.height());
    let strength = strength(value);
    let stride = width * 3;
    canvas.repaint(|old, new| {
        if width < 3 || height < 3 {
            new.copy_from_slice(old);
            return;
        }
        new[..stride].copy_from_slice(&old[..stride]);
        new[(height - 1) * stride..].copy_from_slice(&old[(height - 1) * stride..]);
        let inner = stride - 6;
        for y in 1..height - 1 {
            let row = y * stride;
            let [above, here, below] = [row - stride, row, row + stride].map(|at| &old[at..at + stride]);
            let out = &mut new[row..row + stride];
            out[..3].copy_from_slice(&here[..3]);
            out[stride - 3..].copy_from_slice(&here[stride - 3..]);
            let out = &mut out[3..3 + inner];
            // The nine taps as slices of one length, so that the loop has no bounds checks.
            let [a0, a1, a2] = [&above[..inner], &above[3..3 + inner], &above[6..6 + inner]];
            let [h0, h1, h2] = [&here[..inner], &here[3..3 + inner], &here[6..6 + inner]];
            let [b0, b1, b2] = [&below[..inner], &below[3..3 + inner], &below[6..6 + inner]];
            for i in 0..inner {
                let ring = [a0[i], a1[i], a2[i], h0[i], h2[i], b0[i], b1[i], b2[i]];
                let sum = ring.into_iter().map(u16::from).sum::<u16>() + 5 * u16::from(h1[i]);
                out[i] = blend(rounded_thirteenth(sum), h1[i], strength);
            }
        }
    });
}

/// sum / 13 rounded to nearest (13 is odd: there are no ties), for sums up to 13 · 255.
#[inline(always)]
fn rounded_thirteenth(sum: u16) -> u8 {
    // (sum + 6) / 13 by a reciprocal; exact below 2^16 / 10.
    ((u32::from(sum + 6) * 5042) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reciprocal_of_thirteen_is_exact_over_its_range() {
        for sum in 0..=13 * 255u16 {
            let expected = (f64::from(sum) / 13.0).round() as u8;
            assert_eq!(rounded_thirteenth(sum), expected, "{sum} / 13");
        }
    }

    #[test]
    fn strength_one_is_the_image_and_zero_the_degenerate() {
        let pixels: Vec<u8> = (0..5 * 4 * 3).map(|i| (i * 37 % 256) as u8).collect();
        for op in [brightness, contrast, color, sharpness] {
            let mut canvas = Canvas::new();
            canvas.load(&pixels, 5, 4);
            op(&mut canvas, 1.0);
            assert_eq!(canvas.pixels(), pixels);
        }
        let mut canvas = Canvas::new();
        canvas.load(&pixels, 5, 4);
        brightness(&mut canvas, 0.0);
        assert!(canvas.pixels().iter().all(|&value| value == 0));
    }
}
