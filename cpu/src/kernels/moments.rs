//! Per-channel mean and variance of a result, gathered block by block as it is made.

use super::SharedSlice;
use super::simd::{Isa, Kernel, Simd};

/// Mean and sum of squared deviations of each channel of `[pixels, channels]`: the statistics of
/// one block, `[2, channels]`, written to `out`. Two passes over the block, which is in cache, so
/// that nothing cancels.
///
/// # Panics
/// If `out` is not `[2, channels]`, or the block is not whole pixels, at least one.
pub fn block_moments(tile: &[f32], channels: usize, out: &mut [f32]) {
    block_moments_with(Isa::best(), tile, channels, out);
}

fn block_moments_with(isa: Isa, tile: &[f32], channels: usize, out: &mut [f32]) {
    assert!(out.len() == 2 * channels && !tile.is_empty() && tile.len().is_multiple_of(channels));
    // SAFETY: the instruction set was found on this machine.
    unsafe { isa.run(Block { tile, channels, out }) }
}

struct Block<'a> {
    tile: &'a [f32],
    channels: usize,
    out: &'a mut [f32],
}

impl Kernel for Block<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Block { tile, channels, out } = self;
        let count = tile.len() / channels;
        let (mean, squares) = out.split_at_mut(channels);
        let mut channel = 0;
        while channel + S::LANES <= channels {
            // SAFETY: whole vectors of channels of every pixel.
            unsafe {
                let x = tile.as_ptr().add(channel);
                let zero = S::splat(0.0);
                let total = sum_of::<S, false>(x, count, channels, zero);
                let average = S::mul(total, S::splat(1.0 / count as f32));
                S::store(mean.as_mut_ptr().add(channel), average);
                let total = sum_of::<S, true>(x, count, channels, average);
                S::store(squares.as_mut_ptr().add(channel), total);
            }
            channel += S::LANES;
        }
        for channel in channel..channels {
            let values = || tile[channel..].iter().step_by(channels);
            let average = values().sum::<f32>() / count as f32;
            mean[channel] = average;
            squares[channel] = values().map(|v| (v - average) * (v - average)).sum();
        }
    }
}

/// The sum over pixels of a vector of channels, or of its squared deviations from `mean`. Four
/// partial sums hide the latency of an addition.
#[inline(always)]
unsafe fn sum_of<S: Simd, const SQUARES: bool>(
    x: *const f32,
    count: usize,
    pitch: usize,
    mean: S::V,
) -> S::V {
    unsafe {
        let mut sums = [S::splat(0.0); 4];
        for pixel in 0..count / 4 {
            for i in 0..4 {
                let value = S::load(x.add((pixel * 4 + i) * pitch));
                sums[i] = add_to::<S, SQUARES>(sums[i], value, mean);
            }
        }
        for pixel in count / 4 * 4..count {
            sums[0] = add_to::<S, SQUARES>(sums[0], S::load(x.add(pixel * pitch)), mean);
        }
        S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3]))
    }
}

#[inline(always)]
unsafe fn add_to<S: Simd, const SQUARES: bool>(sum: S::V, value: S::V, mean: S::V) -> S::V {
    unsafe {
        if SQUARES {
            let deviation = S::sub(value, mean);
            S::fma(deviation, deviation, sum)
        } else {
            S::add(sum, value)
        }
    }
}

/// Collects [`block_moments`] of every block of a result `[N, H, W, C]` and merges them in a fixed
/// order, so that the outcome does not depend on which thread saw which block.
pub struct Moments<'a> {
    partials: SharedSlice<'a>,
    channels: usize,
    width: usize,
    height: usize,
    tile_rows: usize,
    blocks: usize,
}

impl<'a> Moments<'a> {
    /// Floats that `partials` of [`Moments::new`] must hold.
    pub fn partials_len(n: usize, height: usize, tile_rows: usize, channels: usize) -> usize {
        n * height.div_ceil(tile_rows) * 2 * channels
    }

    /// For results of `height` rows of `width` pixels that come in blocks of `tile_rows` rows.
    pub fn new(
        partials: &'a mut [f32],
        height: usize,
        width: usize,
        channels: usize,
        tile_rows: usize,
    ) -> Moments<'a> {
        let blocks = height.div_ceil(tile_rows);
        assert_eq!(partials.len() % (blocks * 2 * channels), 0);
        Moments { partials: SharedSlice::new(partials), channels, width, height, tile_rows, blocks }
    }

    /// Takes the statistics of one block: to be called from [`Sink::finish`](super::Sink::finish)
    /// with its arguments, once for each block.
    ///
    /// # Safety
    /// Not for one block from two threads at once.
    pub unsafe fn block(&self, image: usize, first_row: usize, tile: &[f32]) {
        let block = image * self.blocks + first_row / self.tile_rows;
        let len = 2 * self.channels;
        // SAFETY: every block has its own part, and the caller sees to it that it comes once.
        let out = unsafe { self.partials.range(block * len..(block + 1) * len) };
        block_moments(tile, self.channels, out);
    }

    /// Merges the blocks of images `images` into `mean` and `squares` (sum of squared deviations
    /// from that mean), each `[channels]`, in f64 by the pairwise update of Chan, Golub and LeVeque
    /// (1979), in order of image and row.
    pub fn merge(&mut self, images: std::ops::Range<usize>, mean: &mut [f32], squares: &mut [f32]) {
        let c = self.channels;
        // SAFETY: `self` is borrowed mutably, so no block is being written.
        let partials = unsafe { self.partials.range(0..self.partials.len()) };
        for channel in 0..c {
            let (mut count, mut m, mut s) = (0.0f64, 0.0f64, 0.0f64);
            for block in images.start * self.blocks..images.end * self.blocks {
                let first = block % self.blocks * self.tile_rows;
                let rows = self.tile_rows.min(self.height - first);
                let added = (rows * self.width) as f64;
                let at = block * 2 * c + channel;
                let delta = partials[at] as f64 - m;
                let total = count + added;
                m += delta * added / total;
                s += partials[at + c] as f64 + delta * delta * count * added / total;
                count = total;
            }
            mean[channel] = m as f32;
            squares[channel] = s as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_agrees_with_f64() {
        for (pixels, channels) in [(1, 3), (7, 16), (64, 20), (9, 48), (2, 8)] {
            let x: Vec<f32> = (0..pixels * channels).map(|i| (i * 7919 % 1013) as f32 * 0.01).collect();
            for isa in Isa::available() {
                let mut out = vec![f32::NAN; 2 * channels];
                block_moments_with(isa, &x, channels, &mut out);
                for channel in 0..channels {
                    let values: Vec<f64> = x[channel..].iter().step_by(channels).map(|&v| v as f64).collect();
                    let mean = values.iter().sum::<f64>() / pixels as f64;
                    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
                    assert!((out[channel] as f64 - mean).abs() < 1e-5, "{isa:?} mean");
                    let error = (out[channels + channel] as f64 - squares).abs();
                    assert!(error < 1e-4 * squares.max(1.0), "{isa:?} squares");
                }
            }
        }
    }

    #[test]
    fn merged_blocks_equal_the_moments_of_the_whole() {
        let (n, h, w, c, tile_rows) = (3, 7, 5, 4, 3);
        // A large common offset, where the sum of squares minus the squared mean would cancel.
        let x: Vec<f32> = (0..n * h * w * c)
            .map(|i| 1000.0 + ((i * 7919 % 101) as f32 - 50.0) * 0.01 * (1 + i % c) as f32)
            .collect();
        let mut partials = vec![f32::NAN; Moments::partials_len(n, h, tile_rows, c)];
        let mut moments = Moments::new(&mut partials, h, w, c, tile_rows);
        for image in 0..n {
            for first in (0..h).step_by(tile_rows).collect::<Vec<_>>().into_iter().rev() {
                let rows = tile_rows.min(h - first);
                let start = (image * h + first) * w * c;
                // SAFETY: one thread.
                unsafe { moments.block(image, first, &x[start..start + rows * w * c]) };
            }
        }
        let (mut mean, mut squares) = (vec![0.0; c], vec![0.0; c]);
        moments.merge(0..n, &mut mean, &mut squares);
        for channel in 0..c {
            let values: Vec<f64> = x[channel..].iter().step_by(c).map(|&v| v as f64).collect();
            let m = values.iter().sum::<f64>() / values.len() as f64;
            let s: f64 = values.iter().map(|v| (v - m) * (v - m)).sum();
            assert!((mean[channel] as f64 - m).abs() < 2e-4, "{} {m}", mean[channel]);
            assert!((squares[channel] as f64 / s - 1.0).abs() < 1e-3, "{} {s}", squares[channel]);
        }
    }
}
