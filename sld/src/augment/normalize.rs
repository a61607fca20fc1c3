//! From bytes to the network's floats.

/// Mean and standard deviation of each channel (RGB), of values scaled to [0, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Subtracted from value / 255.
    pub mean: [f32; 3],
    /// Divides the difference.
    pub std: [f32; 3],
}

impl Normalization {
    /// Of what is normalised already, or not to be.
    pub const RAW: Self = Self { mean: [0.0; 3], std: [1.0; 3] };
    /// The reference's constants for CIFAR-100.
    pub const CIFAR100: Self = Self { mean: [0.5071, 0.4867, 0.4408], std: [0.2675, 0.2565, 0.2761] };
    /// Mean and standard deviation of the CIFAR-10 training set.
    pub const CIFAR10: Self = Self { mean: [0.4914, 0.4822, 0.4465], std: [0.2470, 0.2435, 0.2616] };
    /// The constants customary for ImageNet.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// mdistiller's constants for Tiny-ImageNet.
    pub const TINY_IMAGENET: Self = Self { mean: [0.4802, 0.4481, 0.3975], std: [0.2302, 0.2265, 0.2262] };

    /// (value / 255 − mean) / std in f32, of every level of every channel.
    pub fn table(&self) -> NormalizationTable {
        let levels = std::array::from_fn(|channel| {
            std::array::from_fn(|level| (level as f32 / 255.0 - self.mean[channel]) / self.std[channel])
        });
        NormalizationTable { levels }
    }
}

/// [`Normalization`] of all 256 levels of the three channels: a look-up is exact and cheaper than the
/// two divisions.
#[derive(Clone, Debug)]
pub struct NormalizationTable {
    levels: [[f32; 256]; 3],
}

impl NormalizationTable {
    /// Writes the normalised values of interleaved RGB `pixels` to `out`, which must be as long.
    pub fn apply(&self, pixels: &[u8], out: &mut [f32]) {
        assert_eq!(pixels.len(), out.len(), "as many floats as bytes");
        let [red, green, blue] = &self.levels;
        for (pixel, out) in pixels.as_chunks::<3>().0.iter().zip(out.as_chunks_mut::<3>().0) {
            *out = [red[pixel[0] as usize], green[pixel[1] as usize], blue[pixel[2] as usize]];
        }
    }
}
