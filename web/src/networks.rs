//! The networks that a page trains: two families small enough for any device, and those of `nn`.

use autograd::{Tensor, Variable};
use nn::initialization::{Biases, Initialization, Initializer, Weights};
use nn::layers::{Builder, ConvNorm, ConvSpec, Forward, Linear};
use nn::models::{Features, Model, Network, Output};

const INITIALIZATION: Initialization = Initialization {
    convolution: Weights::NormalFanOut,
    convolution_bias: Biases::Zero,
    linear: Weights::UniformFanIn,
    linear_bias: Biases::UniformFanIn,
};

/// Height and width of the images.
pub const SIDE: usize = 32;

/// A new network with `classes` logits for images of [`SIDE`]: `perceptronN` (one hidden layer of `N`),
/// `convnetN` (three convolutions, the first with `N` channels), or one of [`nn::models::names`].
///
/// # Errors
/// There is no such network.
pub fn build(name: &str, classes: usize, seed: u64) -> nn::Result<Model> {
    let width =
        |family: &str| name.strip_prefix(family)?.parse().ok().filter(|width| (1..=512).contains(width));
    let initializer = Initializer::new(INITIALIZATION, seed);
    if let Some(hidden) = width("perceptron") {
        Ok(Model::new(name, classes, initializer, |b| Perceptron::new(b, hidden, classes)))
    } else if let Some(channels) = width("convnet") {
        Ok(Model::new(name, classes, initializer, |b| ConvNet::new(b, channels, classes)))
    } else {
        nn::models::build(name, classes, seed)
    }
}

/// The weights that a network looks at its images with: those of its first layer.
pub fn first_layer(model: &Model) -> Option<Variable> {
    model.parameters().into_iter().find(|parameter| parameter.shape().len() > 1)
}

/// One hidden layer. Its weights have the shape of images.
struct Perceptron {
    hidden: Linear,
    fc: Linear,
}

impl Perceptron {
    fn new(b: &mut Builder, hidden: usize, classes: usize) -> Perceptron {
        let inputs = SIDE * SIDE * 3;
        Perceptron { hidden: b.linear("hidden", inputs, hidden), fc: b.linear("fc", hidden, classes) }
    }
}

impl Network for Perceptron {
    fn forward(&self, images: &Tensor, _: &mut Forward) -> Output {
        let flat = images.reshape(&[images.dim(0), images.len() / images.dim(0)]);
        let before = self.hidden.forward(&flat);
        let hidden = before.relu();
        let logits = self.fc.forward(&hidden);
        Output { logits, features: Features::new(vec![], hidden) }
    }
}

/// Three 3x3 convolutions with batch norm, the second and third with twice the channels at half the resolution,
/// then an average and a classifier.
struct ConvNet {
    layers: Vec<ConvNorm>,
    fc: Linear,
}

impl ConvNet {
    fn new(b: &mut Builder, channels: usize, classes: usize) -> ConvNet {
        let specs = [(3, channels, 1), (channels, 2 * channels, 2), (2 * channels, 4 * channels, 2)];
        let layer = |(number, (inputs, outputs, stride)): (usize, (usize, usize, usize))| {
            let spec = ConvSpec::new(inputs, outputs, 3).stride(stride);
            b.conv_norm(&format!("conv{}", number + 1), &format!("bn{}", number + 1), spec)
        };
        let layers = specs.into_iter().enumerate().map(layer).collect();
        ConvNet { layers, fc: b.linear("fc", 4 * channels, classes) }
    }
}

impl Network for ConvNet {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let mut x = images.clone();
        let (mut stages, mut before_relu) = (Vec::new(), Vec::new());
        for layer in &self.layers {
            let before = layer.forward(&x, forward);
            x = before.relu();
            before_relu.push(before);
            stages.push(x.clone());
        }
        let pooled = x.global_average_pool();
        let logits = self.fc.forward(&pooled);
        Output { logits, features: Features { stages, before_relu, pooled, norms: vec![] } }
    }
}
