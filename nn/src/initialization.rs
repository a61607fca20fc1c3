//! Initial values of parameters: what each family of networks starts from.
//!
//! A seed gives the same values on every machine: the generator is a named, portable one, the layers
//! draw in state-dict order, and normals come from the Box-Muller transform in `f64`.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// How weights are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weights {
    /// `N(0, sqrt(2 / (k^2 Cout)))`: He et al. 2015 with the fan-out. Depthwise convolutions are not
    /// treated apart, so theirs are `sqrt(2 / (k^2 C))`, which is small.
    NormalFanOut,
    /// `U(-1/sqrt(fan_in), 1/sqrt(fan_in))`, `fan_in = k^2 Cin / groups`: PyTorch's own default.
    UniformFanIn,
    /// `U(-sqrt(3 / fan_in), sqrt(3 / fan_in))`, of variance `1 / fan_in`: LeCun et al. 1998.
    LeCunUniform,
    /// `N(0, std)`.
    Normal(f64),
}

/// How biases are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Biases {
    /// All 0.
    Zero,
    /// As [`Weights::UniformFanIn`], with the weight's fan-in.
    UniformFanIn,
}

/// A family's choices. Batch norm is always scale 1, shift 0, mean 0, variance 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Initialization {
    /// Weights of convolutions.
    pub convolution: Weights,
    /// Biases of convolutions that have one.
    pub convolution_bias: Biases,
    /// Weights of linear layers.
    pub linear: Weights,
    /// Biases of linear layers.
    pub linear_bias: Biases,
}

impl Initialization {
    /// PyTorch's own defaults.
    pub const PYTORCH: Initialization = Initialization {
        convolution: Weights::UniformFanIn,
        convolution_bias: Biases::UniformFanIn,
        linear: Weights::UniformFanIn,
        linear_bias: Biases::UniformFanIn,
    };
}

/// Seeded source of initial values.
pub struct Initializer {
    /// None: zeros.
    rules: Option<Initialization>,
    generator: Xoshiro256PlusPlus,
}

impl Initializer {
    /// Draws by these rules, always the same for a seed.
    pub fn new(rules: Initialization, seed: u64) -> Self {
        Initializer { rules: Some(rules), generator: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    /// A source whose rules are given later, by [`Initializer::follow`]; before that it draws zeros.
    pub fn undecided(seed: u64) -> Self {
        Initializer { rules: None, generator: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    /// Draws by these rules from here on.
    pub fn follow(&mut self, rules: Initialization) {
        self.rules = Some(rules);
    }

    /// Zeros for every weight, which cost nothing: for networks of which only the shapes matter.
    pub fn zeros() -> Self {
        Initializer::undecided(0)
    }

    /// Values of a convolution weight `[Cout, Cin/groups, kh, kw]`.
    pub fn convolution(&mut self, shape: &[usize; 4]) -> Vec<f32> {
        self.weights(self.rules.map(|rules| rules.convolution), shape)
    }

    /// Values of the bias of a convolution with this weight shape.
    pub fn convolution_bias(&mut self, shape: &[usize; 4]) -> Vec<f32> {
        self.biases(self.rules.map(|rules| rules.convolution_bias), shape)
    }

    /// Values of a linear weight `[out, in]`.
    pub fn linear(&mut self, shape: &[usize; 2]) -> Vec<f32> {
        self.weights(self.rules.map(|rules| rules.linear), shape)
    }

    /// Values of the bias of a linear layer with this weight shape.
    pub fn linear_bias(&mut self, shape: &[usize; 2]) -> Vec<f32> {
        self.biases(self.rules.map(|rules| rules.linear_bias), shape)
    }

    fn weights(&mut self, rule: Option<Weights>, shape: &[usize]) -> Vec<f32> {
        let count = shape.iter().product();
        match rule {
            None => vec![0.0; count],
            Some(Weights::NormalFanOut) => {
                let fan_out = shape[0] * shape[2..].iter().product::<usize>();
                self.normal(count, (2.0 / fan_out as f64).sqrt())
            }
            Some(Weights::UniformFanIn) => self.uniform(count, fan_in_bound(shape)),
            Some(Weights::LeCunUniform) => self.uniform(count, 3f64.sqrt() * fan_in_bound(shape)),
            Some(Weights::Normal(std)) => self.normal(count, std),
        }
    }

    fn biases(&mut self, rule: Option<Biases>, weight_shape: &[usize]) -> Vec<f32> {
        match rule {
            None | Some(Biases::Zero) => vec![0.0; weight_shape[0]],
            Some(Biases::UniformFanIn) => self.uniform(weight_shape[0], fan_in_bound(weight_shape)),
        }
    }

    /// `U(-bound, bound)`.
    pub fn uniform(&mut self, count: usize, bound: f64) -> Vec<f32> {
        (0..count).map(|_| (bound * (2.0 * self.generator.random::<f64>() - 1.0)) as f32).collect()
    }

    /// `N(0, std)`.
    pub fn normal(&mut self, count: usize, std: f64) -> Vec<f32> {
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            // 1 - u lies in (0, 1], where the logarithm is finite.
            let radius = std * (-2.0 * (1.0 - self.generator.random::<f64>()).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * self.generator.random::<f64>()).sin_cos();
            values.push((radius * cos) as f32);
            values.push((radius * sin) as f32);
        }
        values.truncate(count);
        values
    }
}

/// `1 / sqrt(fan_in)` of a weight `[out, in, ..]`.
fn fan_in_bound(shape: &[usize]) -> f64 {
    1.0 / (shape[1..].iter().product::<usize>() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Initialization = Initialization {
        convolution: Weights::NormalFanOut,
        convolution_bias: Biases::UniformFanIn,
        linear: Weights::UniformFanIn,
        linear_bias: Biases::Zero,
    };

    fn moments(values: &[f32]) -> (f64, f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        let largest = values.iter().fold(0.0f64, |m, &v| m.max(f64::from(v).abs()));
        (mean, variance.sqrt(), largest)
    }

    #[test]
    fn values_have_the_stated_distributions() {
        let mut draw = Initializer::new(RULES, 3);
        // N(0, sqrt(2 / (9 * 64))), whatever the number of input channels.
        for inputs in [1, 128] {
            let (mean, deviation, _) = moments(&draw.convolution(&[64, inputs, 3, 3]));
            let std = (2.0f64 / 576.0).sqrt();
            assert!(mean.abs() < std / 5.0 && (deviation / std - 1.0).abs() < 0.1, "{mean} {deviation}");
        }
        // U(-b, b) has the deviation b / sqrt(3).
        let (mean, deviation, largest) = moments(&draw.linear(&[500, 100]));
        assert!(mean.abs() < 1e-3 && (deviation * 3f64.sqrt() / 0.1 - 1.0).abs() < 0.02);
        assert!(largest <= 0.1 && largest > 0.0999);
        let (_, _, largest) = moments(&draw.convolution_bias(&[4000, 25, 1, 1]));
        assert!(largest <= 0.2 && largest > 0.199);
        assert_eq!(draw.linear_bias(&[7, 3]), [0.0; 7]);
    }

    #[test]
    fn a_seed_gives_the_same_values() {
        let draw = |seed| Initializer::new(RULES, seed).convolution(&[5, 1, 3, 3]);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        // From another implementation of xoshiro256++, SplitMix64 seeding and Box-Muller.
        for (value, expected) in draw(1).iter().zip([-0.007_006_995, -0.385_134_9, -0.002_301_962]) {
            assert!((value / expected - 1.0f32).abs() < 1e-6, "{value} {expected}");
        }
    }

    #[test]
    fn values_drawn_in_parts_are_those_drawn_at_once() {
        let normal = |counts: &[usize]| {
            let mut draw = Initializer::new(RULES, 5);
            counts.iter().flat_map(|&count| draw.normal(count, 0.5)).collect::<Vec<f32>>()
        };
        assert_eq!(normal(&[2, 4, 2]), normal(&[8]));
        assert_eq!(normal(&[3]), normal(&[4])[..3]);
    }
}
