//! Random numbers that depend on *what* is drawn, never on *when*.
//!
//! Every consumer of randomness opens its own [`Stream`], addressed by a seed, a [`Purpose`] and two
//! counters (for a training view: epoch and image index). Two threads that augment images in any order,
//! or a run that resumes in the middle of an epoch, therefore see exactly the same numbers.
//!
//! The generator is SplitMix64 (Steele, Lea and Flood, *Fast splittable pseudorandom number generators*,
//! OOPSLA 2014): a 64-bit Weyl sequence passed through a bijective mixer, started at a hash of the address.
//! It passes BigCrush, needs one word of state and costs about a nanosecond a draw.

/// What a stream is for; streams of different purposes are unrelated even at equal counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Crop, flip and RandAugment of one training image: counters (epoch, index).
    View = 1,
    /// The order of the images in an epoch: counters (epoch, 0).
    Order = 2,
    /// Choosing held-out images: counters (class, 0).
    Split = 3,
    /// Painting a synthetic image: counters (split, index).
    Synthetic = 4,
    /// Choosing the images that one is held against: counters (epoch, index).
    Contrast = 5,
    /// How the images of a batch are mixed: counters (epoch, batch).
    Mixture = 6,
}

/// The Weyl increment: 2^64 divided by the golden ratio, made odd.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// An endless sequence of random numbers, a pure function of its address.
#[derive(Clone, Debug)]
pub struct Stream {
    state: u64,
}

impl Stream {
    /// The stream at the address (`seed`, `purpose`, `major`, `minor`).
    pub fn new(seed: u64, purpose: Purpose, major: u64, minor: u64) -> Self {
        let mut state = mix(seed.wrapping_add(GAMMA));
        for word in [purpose as u64, major, minor] {
            // Feeding one word at a time through the mixer keeps (a, b) and (b, a) apart.
            state = mix(state.wrapping_add(GAMMA) ^ mix(word.wrapping_add(GAMMA)));
        }
        Self { state }
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in 0..bound, by multiply and shift (bias below bound / 2^64). `bound` must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// True with probability one half.
    pub fn coin(&mut self) -> bool {
        self.bits() >> 63 == 1
    }

    /// Standard normal, by Box and Muller (1958); the second value of the pair is not kept.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// From Beta(shape, shape), which is symmetric in [0, 1]; `shape` must be greater than 0.
    pub fn beta(&mut self, shape: f64) -> f64 {
        // Smaller shapes give 0 or 1 as well, but for infinities.
        let shape = shape.max(1e-9);
        let [own, other] = [(); 2].map(|()| self.log_gamma(shape));
        1.0 / (1.0 + (other - own).exp())
    }

    /// The logarithm of a draw from Gamma(shape, 1), which may be too small for a number itself: Marsaglia and Tsang,
    /// *A simple method for generating gamma variables* (2000).
    fn log_gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return (1.0 - self.unit()).ln() / shape + self.log_gamma(shape + 1.0);
        }
        let d = shape - 1.0 / 3.0;
        loop {
            let x = self.normal();
            let v = (1.0 + x / (9.0 * d).sqrt()).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
                return (d * v).ln();
            }
        }
    }

    /// Puts `items` into uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_function_of_its_address_only() {
        let draw = |s, p, a, b| Stream::new(s, p, a, b).bits();
        let first = draw(7, Purpose::View, 3, 11);
        assert_eq!(first, draw(7, Purpose::View, 3, 11));
        let others = [
            draw(8, Purpose::View, 3, 11),
            draw(7, Purpose::Order, 3, 11),
            draw(7, Purpose::View, 11, 3),
            draw(7, Purpose::View, 4, 11),
            draw(7, Purpose::View, 3, 12),
        ];
        assert!(others.iter().all(|&other| other != first));
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // First outputs of the authors' program for the state 1234567.
        let mut stream = Stream { state: 1_234_567 };
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([stream.bits(), stream.bits(), stream.bits()], expected);
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let n = 200_000;
        let mut stream = Stream::new(1, Purpose::View, 0, 0);
        let (mut sum, mut square, mut cells) = (0.0, 0.0, [0usize; 9]);
        for _ in 0..n {
            let z = stream.normal();
            sum += z;
            square += z * z;
            cells[stream.below(9) as usize] += 1;
        }
        // Five standard errors each.
        assert!((sum / n as f64).abs() < 5.0 / (n as f64).sqrt());
        assert!((square / n as f64 - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt());
        let expected = n as f64 / 9.0;
        assert!(cells.iter().all(|&c| (c as f64 - expected).abs() < 5.0 * expected.sqrt()), "{cells:?}");
    }

    /// Beta(a, a) has mean 1/2, variance 1 / (4 (2a + 1)) and kurtosis 3 - 6 / (2a + 3); at 1 it is uniform.
    #[test]
    fn beta_draws_have_the_distributions_moments() {
        let n = 200_000;
        for shape in [0.05, 0.2, 1.0, 1.5, 8.0] {
            let mut stream = Stream::new(2, Purpose::Mixture, 0, 0);
            let draws: Vec<f64> = (0..n).map(|_| stream.beta(shape)).collect();
            assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
            let mean_of =
                |power: i32| draws.iter().map(|d| (d - 0.5).powi(power)).sum::<f64>() / f64::from(n);
            let variance = 1.0 / (4.0 * (2.0 * shape + 1.0));
            let kurtosis = 3.0 - 6.0 / (2.0 * shape + 3.0);
            assert!(mean_of(1).abs() < 5.0 * (variance / f64::from(n)).sqrt(), "{shape}");
            assert!((mean_of(2) / variance - 1.0).abs() < 0.02, "{shape}: {}", mean_of(2) / variance);
            let found = mean_of(4) / (variance * variance);
            assert!((found / kurtosis - 1.0).abs() < 0.04, "{shape}: {found} for {kurtosis}");
            if shape == 1.0 {
                let low = draws.iter().filter(|draw| **draw < 0.1).count() as f64 / f64::from(n);
                assert!((low - 0.1).abs() < 0.005, "{low}");
            }
        }
        // So small a shape gives 0 or 1, and never no number.
        let mut stream = Stream::new(2, Purpose::Mixture, 0, 0);
        assert!((0..1000).all(|_| (0.0..=1.0).contains(&stream.beta(1e-300))));
    }

    #[test]
    fn streams_of_neighbouring_images_are_uncorrelated() {
        let n = 50_000;
        let units: Vec<f64> = (0..n).map(|i| Stream::new(0, Purpose::View, 1, i).unit() - 0.5).collect();
        let covariance: f64 = units.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / n as f64 * 12.0;
        assert!(covariance.abs() < 5.0 / (n as f64).sqrt(), "{covariance}");
    }

    #[test]
    fn shuffle_is_a_permutation() {
        let mut order: Vec<u32> = (0..1000).collect();
        Stream::new(5, Purpose::Order, 1, 0).shuffle(&mut order);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
