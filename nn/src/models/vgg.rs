//! VGG with batch norm for small images: Simonyan and Zisserman, *Very Deep Convolutional Networks*
//! (ICLR 2015), with a global average in place of the hidden fully connected layers.

use autograd::{Tensor, Window};

use super::model::{Features, Network, Output};
use crate::initialization::{Biases, Initialization, Weights};
use crate::layers::{Builder, ConvNorm, ConvSpec, Forward, Linear};

pub const INITIALIZATION: Initialization = Initialization {
    convolution: Weights::NormalFanOut,
    convolution_bias: Biases::Zero,
    linear: Weights::Normal(0.01),
    linear_bias: Biases::Zero,
};

/// Channels of the five blocks.
const CHANNELS: [usize; 5] = [64, 128, 256, 512, 512];

/// Five blocks of 3x3 convolutions with bias, batch norm and ReLU, with a 2x2 max-pool after each of
/// the first three. The pool after the fourth is there for images 64 pixels high only, so that the last
/// block always works at 4x4.
pub struct Vgg {
    blocks: Vec<Vec<ConvNorm>>,
    classifier: Linear,
}

impl Vgg {
    /// `convolutions` in each block.
    pub fn new(b: &mut Builder, convolutions: [usize; 5], classes: usize) -> Vgg {
        let mut inputs = 3;
        let mut blocks = Vec::new();
        for (block, count) in convolutions.into_iter().enumerate() {
            let mut at = b.at(format!("block{block}"));
            let mut layers = Vec::new();
            for i in 0..count {
                // Convolution, batch norm and ReLU take a number each.
                let names = [3 * i, 3 * i + 1].map(|n| n.to_string());
                let spec = ConvSpec::new(inputs, CHANNELS[block], 3).with_bias();
                layers.push(at.conv_norm(&names[0], &names[1], spec));
                inputs = CHANNELS[block];
            }
            blocks.push(layers);
        }
        Vgg { blocks, classifier: b.linear("classifier", inputs, classes) }
    }
}

impl Network for Vgg {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let mut x = images.clone();
        let mut stages = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let mut before = x.clone();
            for layer in block {
                before = layer.forward(&x, forward);
                x = before.relu();
            }
            let first = index == 0;
            stages.push((if first { x.clone() } else { before }, x.clone()));
            if index < 3 || (index == 3 && images.dim(1) == 64) {
                x = x.max_pool(Window::new(2, 2, 0));
            }
        }
        let pooled = x.global_average_pool();
        let logits = self.classifier.forward(&pooled);
        let norms = self.blocks[1..].iter().flat_map(|block| block.last()).map(|layer| &layer.norm);
        Output { logits, features: Features::new(stages, pooled).with_norms(norms) }
    }
}
