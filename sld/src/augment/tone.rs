//! Operations that map each channel value through a table: AutoContrast, Equalize, Posterize, Solarize.

use super::canvas::Canvas;

/// For each channel, what each of the 256 levels becomes.
type Table = [u8; 256];

fn identity() -> Table {
    std::array::from_fn(|level| level as u8)
}

/// Number of pixels at each level, by channel.
fn histograms(pixels: &[u8]) -> [[u32; 256]; 3] {
    let mut counts = [[0; 256]; 3];
    for pixel in pixels.as_chunks::<3>().0 {
        for channel in 0..3 {
            counts[channel][pixel[channel] as usize] += 1;
        }
    }
    counts
}

/// The lowest and the highest value of each channel.
fn extremes(pixels: &[u8]) -> ([u8; 3], [u8; 3]) {
    // Sixteen pixels at a time, so that the comparisons vectorise; then the sixteen are folded into one.
    const BLOCK: usize = 48;
    let (mut lows, mut highs) = ([255u8; BLOCK], [0u8; BLOCK]);
    for block in pixels.chunks(BLOCK) {
        for ((low, high), &value) in lows.iter_mut().zip(&mut highs).zip(block) {
            *low = (*low).min(value);
            *high = (*high).max(value);
        }
    }
    let channel = |values: [u8; BLOCK], channel: usize| values.into_iter().skip(channel).step_by(3);
    (
        std::array::from_fn(|c| channel(lows, c).min().unwrap_or(255)),
        std::array::from_fn(|c| channel(highs, c).max().unwrap_or(0)),
    )
}

fn apply(pixels: &mut [u8], tables: &[Table; 3]) {
    for pixel in pixels.as_chunks_mut::<3>().0 {
        for channel in 0..3 {
            pixel[channel] = tables[channel][pixel[channel] as usize];
        }
    }
}

/// Stretches each channel so that its darkest level becomes 0 and its brightest 255.
pub fn auto_contrast(canvas: &mut Canvas) {
    let pixels = canvas.pixels_mut();
    let (low, high) = extremes(pixels);
    let tables = std::array::from_fn(|channel| {
        let (low, high) = (f64::from(low[channel]), f64::from(high[channel]));
        if high <= low {
            return identity();
        }
        let scale = 255.0 / (high - low);
        let offset = -low * scale;
        // The cast truncates towards zero and saturates, as int() followed by the clamp does.
        std::array::from_fn(|level| (level as f64 * scale + offset) as u8)
    });
    apply(pixels, &tables);
}

/// Flattens each channel's histogram.
pub fn equalize(canvas: &mut Canvas) {
    let pixels = canvas.pixels_mut();
    let counts = histograms(pixels);
    let total = (pixels.len() / 3) as u32;
    let tables = std::array::from_fn(|channel| {
        let counts = &counts[channel];
        let highest = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        // Zero also when a single level holds every pixel.
        let step = (total - counts[highest]) / 255;
        if step == 0 {
            return identity();
        }
        let mut sum = step / 2;
        std::array::from_fn(|level| {
            let value = (sum / step).min(255) as u8;
            sum += counts[level];
            value
        })
    });
    apply(pixels, &tables);
}

/// Keeps the top trunc(`bits`) bits of every value; `bits` in [0, 8].
pub fn posterize(canvas: &mut Canvas, bits: f64) {
    let dropped = 8 - (bits.clamp(0.0, 8.0) as u32);
    let mask = (0xFFu32 << dropped) as u8;
    for value in canvas.pixels_mut() {
        *value &= mask;
    }
}

/// Inverts every value that is not below the (real) `threshold`.
pub fn solarize(canvas: &mut Canvas, threshold: f64) {
    // value < threshold for integers is value < ceil(threshold).
    let first_inverted = threshold.ceil().clamp(0.0, 256.0) as u16;
    for value in canvas.pixels_mut() {
        let inverted = u16::from(*value) >= first_inverted;
        *value ^= if inverted { 0xFF } else { 0 };
    }
}
