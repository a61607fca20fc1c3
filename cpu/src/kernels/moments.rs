//! Per-channel mean and variance of a result, gathered block by block as it is made.

use super::SharedSlice;

/// Mean and sum of squared deviations of each channel of `[pixels, channels]`: the statistics of
/// one block, `[2, channels]`, written to `out`. Two passes over the block, which is in cache, so
/// that nothing cancels.
pub fn block_moments(tile: &[f32], channels: usize, out: &mut [f32]) {
    let (mean, squares) = out.split_at_mut(channels);
    let count = tile.len() / channels;
    mean.fill(0.0);
    squares.fill(0.0);
    for pixel in tile.chunks_exact(channels) {
        for (m, &v) in mean.iter_mut().zip(pixel) {
            *m += v;
        }
    }
    let scale = 1.0 / count as f32;
    mean.iter_mut().for_each(|m| *m *= scale);
    for pixel in tile.chunks_exact(channels) {
        for ((s, &m), &v) in squares.iter_mut().zip(mean.iter()).zip(pixel) {
            *s += (v - m) * (v - m);
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
