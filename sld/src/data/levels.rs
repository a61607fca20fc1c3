//! Mean and standard deviation of pixels.

/// Sums over the levels of pixels: of bytes, so exact.
#[derive(Clone, Copy, Debug, Default)]
pub struct Levels {
    /// For each channel (RGB) the sum of its levels, and of their squares.
    sums: [[u64; 3]; 2],
    pixels: u64,
}

impl Levels {
    /// Counts pixels in, each of three bytes.
    pub fn add(&mut self, pixels: &[u8]) {
        let (pixels, _) = pixels.as_chunks::<3>();
        for pixel in pixels {
            for (channel, &level) in pixel.iter().enumerate() {
                let level = u64::from(level);
                self.sums[0][channel] += level;
                self.sums[1][channel] += level * level;
            }
        }
        self.pixels += pixels.len() as u64;
    }

    /// Counts all pixels of `other` in.
    pub fn merge(&mut self, other: &Levels) {
        for (own, other) in self.sums.iter_mut().flatten().zip(other.sums.iter().flatten()) {
            *own += other;
        }
        self.pixels += other.pixels;
    }

    /// Mean and standard deviation of each channel, of values in [0, 1].
    pub fn moments(&self) -> [[f64; 3]; 2] {
        let pixels = self.pixels.max(1) as f64;
        let mean = self.sums[0].map(|sum| sum as f64 / pixels / 255.0);
        let deviation = std::array::from_fn(|channel| {
            let square = self.sums[1][channel] as f64 / pixels / 255f64.powi(2);
            (square - mean[channel].powi(2)).max(0.0).sqrt()
        });
        [mean, deviation]
    }
}
