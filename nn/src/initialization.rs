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
    /// `N(0, std)`.
    Normal(f64),
}

/// How biases are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Biases {
    Zero,
    /// As [`Weights::UniformFanIn`], with the weight's fan-in.
    UniformFanIn,
}

/// A family's choices. Batch norm is always scale 1, shift 0, mean 0, variance 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Initialization {
    pub convolution: Weights,
    pub convolution_bias: Biases,
    pub linear: Weights,
    pub linear_bias: Biases,
}

/// Seeded source of initial values.
pub struct Initializer {
    rules: Initialization,
    generator: Xoshiro256PlusPlus,
}

impl Initializer {
    pub fn new(rules: Initialization, seed: u64) -> Self {
        Initializer { rules, generator: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    /// Values of a convolution weight `[Cout, Cin/groups, kh, kw]`.
    pub fn convolution(&mut self, shape: &[usize; 4]) -> Vec<f32> {
        self.weights(self.rules.convolution, shape)
    }

    /// Values of the bias of a convolution with this weight shape.
    pub fn convolution_bias(&mut self, shape: &[usize; 4]) -> Vec<f32> {
        self.biases(self.rules.convolution_bias, shape)
    }

    /// Values of a linear weight `[out, in]`.
    pub fn linear(&mut self, shape: &[usize; 2]) -> Vec<f32> {
        self.weights(self.rules.linear, shape)
    }

    /// Values of the bias of a linear layer with this weight shape.
    pub fn linear_bias(&mut self, shape: &[usize; 2]) -> Vec<f32> {
        self.biases(self.rules.linear_bias, shape)
    }

    fn weights(&mut self, rule: Weights, shape: &[usize]) -> Vec<f32> {
        let count = shape.iter().product();
        match rule {
            Weights::NormalFanOut => {
                let fan_out = shape[0] * shape[2..].iter().product::<usize>();
                self.normal(count, (2.0 / fan_out as f64).sqrt())
            }
            Weights::UniformFanIn => self.uniform(count, fan_in_bound(shape)),
            Weights::Normal(std) => self.normal(count, std),
        }
    }

    fn biases(&mut self, rule: Biases, weight_shape: &[usize]) -> Vec<f32> {
        match rule {
            Biases::Zero => vec![0.0; weight_shape[0]],
            Biases::UniformFanIn => self.uniform(weight_shape[0], fan_in_bound(weight_shape)),
        }
    }

    fn uniform(&mut self, count: usize, bound: f64) -> Vec<f32> {
        (0..count).map(|_| (bound * (2.0 * self.generator.random::<f64>() - 1.0)) as f32).collect()
    }

    fn normal(&mut self, count: usize, std: f64) -> Vec<f32> {
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
